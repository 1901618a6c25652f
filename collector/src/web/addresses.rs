//! The pages of addresses: overlaps, the inventory, and one address with its uses.

use std::net::IpAddr;

use askama::Template;
use axum::{
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::Response,
};
use onenet_core::record::{Strength, Verdict};

use super::{
    pages::{ROWS, fault, filters, form, shown, status, typed},
    view::{Choice, InventoryRow, OverlapRow, PageHead, Pages, UsageRow, number},
};
use crate::{
    api::{Page, Problem, Query, known},
    clock,
    correlate::State as FindingState,
    overlaps::{self, Layer},
    render::moment,
    store::{
        Store,
        inventory_list::{self, InventoryFilter, Standing},
    },
};

/// The choices of a list: any, and each of these.
fn choices<T: Copy>(all: &[T], name: fn(T) -> &'static str, chosen: &str) -> Vec<Choice> {
    let choice =
        |value: &T| Choice { value: name(*value), name: name(*value), selected: name(*value) == chosen };
    let any = Choice { value: "", name: "any", selected: chosen.is_empty() };
    std::iter::once(any).chain(all.iter().map(choice)).collect()
}

/// The form of the overlaps as it was typed.
struct OverlapForm {
    layers: Vec<Choice>,
    verdicts: Vec<Choice>,
    within: String,
    secretariat: String,
    address_space: String,
    site: String,
    closed: bool,
}

#[derive(Template)]
#[template(path = "overlaps.html")]
struct Overlaps {
    page: PageHead,
    fault: Option<String>,
    form: OverlapForm,
    overlaps: Vec<OverlapRow>,
    pages: Pages,
}

/// Overlaps that are open, or those that the parameters ask for.
pub(super) async fn overlaps(State(store): State<Store>, uri: Uri) -> Response {
    let (mut filter, window, problem) = form(&uri, Query::overlaps);
    let closed = filter.state == Some(FindingState::Closed);
    filter.state = filter.state.or(Some(FindingState::Open));
    let read = move |store: &Store| {
        store.read(|connection| overlaps::overlaps(connection, &filter, window.one_more(), window.offset))
    };
    let found = match store.call(read).await {
        Ok(found) => Page::of(found, window),
        Err(error) => return fault(&error.into()),
    };
    let rows: Vec<OverlapRow> = found.items.iter().map(OverlapRow::new).collect();
    let template = Overlaps {
        page: PageHead::new("/overlaps", None),
        fault: problem.as_ref().map(|problem| problem.detail().to_owned()),
        form: OverlapForm {
            layers: choices(&Layer::ALL, Layer::as_str, &typed(&uri, "layer")),
            verdicts: choices(Verdict::ALL, Verdict::as_str, &typed(&uri, "verdict")),
            within: typed(&uri, "within"),
            secretariat: typed(&uri, "secretariat"),
            address_space: typed(&uri, "address_space"),
            site: typed(&uri, "site"),
            closed,
        },
        pages: Pages::new("/overlaps", &filters(&uri), window, rows.len(), found.next_offset),
        overlaps: rows,
    };
    shown(status(problem.as_ref()), &template)
}

/// The form of the inventory as it was typed.
struct InventoryForm {
    within: String,
    address_space: String,
    secretariat: String,
    site: String,
    segment: String,
    strengths: Vec<Choice>,
    standings: Vec<Choice>,
    seen_within: String,
    until: String,
}

#[derive(Template)]
#[template(path = "inventory.html")]
struct Inventory {
    page: PageHead,
    fault: Option<String>,
    form: InventoryForm,
    rows: Vec<InventoryRow>,
    /// Where the list begins, on any page but the first.
    first: Option<String>,
    next: Option<String>,
}

/// The inventory by address, or what the form asks for of it.
pub(super) async fn inventory(State(store): State<Store>, uri: Uri) -> Response {
    let asked = Query::of(&uri).and_then(|mut query| {
        let filter = query.inventory(clock::now())?;
        let (limit, after) = query.key(ROWS)?;
        query.finish()?;
        Ok((filter, limit, after))
    });
    let ((filter, limit, after), problem) = match asked {
        Ok(asked) => (asked, None),
        Err(problem) => ((InventoryFilter::default(), ROWS, None), Some(problem)),
    };
    let begins_later = after.is_some();
    let read = move |store: &Store| {
        store.read(|connection| inventory_list::page(connection, &filter, limit, after.as_ref()))
    };
    let found = match store.call(read).await {
        Ok(found) => found,
        Err(error) => return fault(&error.into()),
    };
    let kept = filters(&uri);
    let others: String = kept.split_inclusive('&').filter(|pair| !pair.starts_with("after=")).collect();
    let template = Inventory {
        page: PageHead::new("/inventory", None),
        fault: problem.as_ref().map(|problem| problem.detail().to_owned()),
        form: InventoryForm {
            within: typed(&uri, "within"),
            address_space: typed(&uri, "address_space"),
            secretariat: typed(&uri, "secretariat"),
            site: typed(&uri, "site"),
            segment: typed(&uri, "segment"),
            strengths: choices(Strength::ALL, Strength::as_str, &typed(&uri, "strength")),
            standings: choices(&Standing::ALL, Standing::as_str, &typed(&uri, "standing")),
            seen_within: typed(&uri, "seen_within"),
            until: typed(&uri, "until"),
        },
        rows: found.entries.iter().map(InventoryRow::new).collect(),
        first: begins_later.then(|| format!("/inventory?{others}limit={limit}")),
        next: found.next.map(|next| {
            // A name of an address space may hold what has a meaning in a query.
            let key = form_urlencoded(&next.to_string());
            format!("/inventory?{others}limit={limit}&after={key}")
        }),
    };
    shown(status(problem.as_ref()), &template)
}

/// A value as a query carries it.
fn form_urlencoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// An address in one address space.
struct EntryCard {
    row: InventoryRow,
    first_seen: String,
    usages: Vec<UsageRow>,
}

#[derive(Template)]
#[template(path = "address.html")]
struct Address {
    page: PageHead,
    address: String,
    entries: Vec<EntryCard>,
    overlaps: Vec<OverlapRow>,
    open: String,
}

/// One address in every address space.
pub(super) async fn address(State(store): State<Store>, Path(text): Path<String>) -> Response {
    let unknown = || Problem::not_found("This address was never seen on an inside segment.");
    let Ok(address) = text.parse::<IpAddr>() else { return fault(&unknown()) };
    let rows = match known(&store, address).await {
        Ok(rows) if rows.is_empty() => return fault(&unknown()),
        Ok(rows) => rows,
        Err(error) => return fault(&error.into()),
    };
    let filter = crate::store::control_overlaps::OverlapFilter {
        state: Some(FindingState::Open),
        within: Some(address.into()),
        ..Default::default()
    };
    let read = move |store: &Store| store.read(|connection| overlaps::overlaps(connection, &filter, ROWS, 0));
    let overlaps = match store.call(read).await {
        Ok(found) => found,
        Err(error) => return fault(&error.into()),
    };
    let card = |row: crate::inventory::Row| EntryCard {
        row: InventoryRow::new(&row.entry),
        first_seen: moment(row.entry.first_seen),
        usages: row.usages.iter().flatten().map(UsageRow::new).collect(),
    };
    let template = Address {
        page: PageHead::new("/inventory", None),
        address: address.to_string(),
        entries: rows.into_iter().map(card).collect(),
        open: number(overlaps.len() as u64),
        overlaps: overlaps.iter().map(OverlapRow::new).collect(),
    };
    shown(StatusCode::OK, &template)
}
