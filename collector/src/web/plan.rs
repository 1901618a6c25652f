//! The page of the address plan: which version sensors are sent, who owns what, and which claims overlap.

use askama::Template;
use axum::{extract::State, http::Uri, response::Response};

use super::{
    pages::{fault, filters, form, shown, status, typed},
    view::{PageHead, Pages, number},
};
use crate::{
    api::{Page, PlanView, Planned, Query},
    ca::hex,
    plan::{
        check::{self, Claim},
        claims::{self, ListedClaim},
    },
    render::moment,
    sensors::{PlanStanding, SensorStatus},
};

/// Overlapping claims that are shown; the API has them all.
const OVERLAPS: usize = 20;

/// Which plan a sensor goes by.
pub(super) struct PlanHeldRow {
    pub(super) version: String,
    pub(super) standing: &'static str,
}

impl PlanHeldRow {
    pub(super) fn new(status: &SensorStatus) -> Self {
        let version = status.plan_version.filter(|&version| version > 0);
        Self {
            version: version.map_or_else(|| "–".to_owned(), |version| version.to_string()),
            standing: match status.plan {
                PlanStanding::Unknown => "it has not said which",
                known => known.as_str(),
            },
        }
    }
}

/// A secretariat with what it claims.
struct OwnerRow {
    id: String,
    name: String,
    contact: String,
    address_space: String,
    agencies: String,
    prefixes: String,
    addresses: String,
    segments: String,
}

/// Two claims that share addresses.
struct PairRow {
    outer: String,
    inner: String,
    addresses: String,
}

#[derive(Template)]
#[template(path = "plan.html")]
struct Plan {
    page: PageHead,
    fault: Option<String>,
    version: String,
    owners: Vec<OwnerRow>,
    counts: String,
    overlapping: String,
    overlaps: Vec<PairRow>,
    within: String,
    secretariat: String,
    address_space: String,
    status: String,
    rows: Vec<ListedClaim>,
    pages: Pages,
}

fn version_of(plan: &PlanView) -> String {
    let (Some(version), Some(time), Some(sha256)) = (plan.version, plan.time, &plan.sha256) else {
        return "No version has been issued to the sensors yet.".to_owned();
    };
    let sent = match plan.sent {
        Some(false) => " It is too large to be sent: sensors go on under earlier ones.",
        _ => "",
    };
    let start = hex(sha256.0.get(..8).unwrap_or_default());
    format!("Version {version} of {}, SHA-256 {start}….{sent}", moment(time))
}

fn owners_of(plan: &PlanView) -> Vec<OwnerRow> {
    let text = |name: &Option<onenet_core::net::Name>| name.as_deref().unwrap_or_default().to_owned();
    let row = |owner: &crate::api::SecretariatView| OwnerRow {
        id: owner.id.to_string(),
        name: text(&owner.name),
        contact: text(&owner.contact),
        address_space: owner.address_space.to_string(),
        agencies: owner.agencies.iter().map(|agency| agency.id.to_string()).collect::<Vec<_>>().join(", "),
        prefixes: number(owner.prefixes as u64),
        addresses: number(owner.addresses as u64),
        segments: number(owner.segments as u64),
    };
    plan.secretariats.iter().map(row).collect()
}

/// The plan, with a list of its prefixes.
pub(super) async fn plan(State(planned): State<Planned>, uri: Uri) -> Response {
    let (filter, window, problem) = form(&uri, Query::claims);
    let read = planned.call(move |store, plan| {
        let rows = claims::prefixes(plan, &filter, window.rows());
        Ok((PlanView::read(store, plan)?, rows, check::overlaps(plan)))
    });
    let (view, rows, (overlaps, unlisted)) = match read.await {
        Ok(read) => read,
        Err(error) => return fault(&error.into()),
    };
    let found = Page::of(rows, window);
    let claim = |claim: &Claim| format!("{} of {} ({})", claim.cidr, claim.secretariat, claim.address_space);
    let pair = |pair: &check::OverlappingClaims| PairRow {
        outer: claim(&pair.outer),
        inner: claim(&pair.inner),
        addresses: number(pair.addresses),
    };
    let template = Plan {
        page: PageHead::new("/plan", None),
        fault: problem.as_ref().map(|problem| problem.detail().to_owned()),
        version: version_of(&view),
        owners: owners_of(&view),
        counts: format!(
            "{} prefixes, {} addresses, {} segments, {} public prefixes, {} exemptions",
            number(view.prefixes as u64),
            number(view.addresses as u64),
            number(view.segments as u64),
            number(view.public as u64),
            number(view.exemptions as u64)
        ),
        overlapping: number(overlaps.len().saturating_add(unlisted) as u64),
        overlaps: overlaps.iter().take(OVERLAPS).map(pair).collect(),
        within: typed(&uri, "within"),
        secretariat: typed(&uri, "secretariat"),
        address_space: typed(&uri, "address_space"),
        status: typed(&uri, "status"),
        pages: Pages::new("/plan", &filters(&uri), window, found.items.len(), found.next_offset),
        rows: found.items,
    };
    shown(status(problem.as_ref()), &template)
}
