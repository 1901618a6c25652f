//! Addresses over the API: overlaps, the inventory, and claims in which nothing is in use.

use std::net::IpAddr;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::Uri,
    routing::get,
};
use onenet_core::record::FindingId;
use serde::Serialize;

use super::{Answer, Page, Planned, Problem, Query};
use crate::{
    clock,
    correlate::Judge,
    inventory::{
        Row,
        dark::{self, Dark},
    },
    overlaps::{self, Overlap, OverlapDetail},
    store::{
        Store, StoreError, control_inventory,
        inventory_list::{self, InventoryKey},
        inventory_sweep::{self, AddressSum, SumFilter},
    },
};

/// The routes of addresses below `/api/v1`.
pub(super) fn router(planned: Planned) -> Router {
    let store = planned.store.clone();
    Router::new()
        .route("/overlaps", get(all_overlaps))
        .route("/overlaps/{id}", get(overlap))
        .route("/inventory", get(inventory))
        .route("/inventory/sums", get(sums))
        .route("/inventory/{address}", get(address))
        .with_state(store)
        .merge(Router::new().route("/claims/dark", get(dark_claims)).with_state(planned))
}

async fn all_overlaps(State(store): State<Store>, uri: Uri) -> Answer<Page<Overlap>> {
    let mut query = Query::of(&uri)?;
    let (filter, window) = (query.overlaps()?, query.window(100)?);
    query.finish()?;
    let items = store
        .call(move |store| {
            store.read(|connection| overlaps::overlaps(connection, &filter, window.one_more(), window.offset))
        })
        .await?;
    Ok(Json(Page::of(items, window)))
}

async fn overlap(State(store): State<Store>, Path(id): Path<String>, uri: Uri) -> Answer<OverlapDetail> {
    Query::of(&uri)?.finish()?;
    let unknown = || Problem::not_found(format!("no overlap has the id {id:?}"));
    let id: FindingId = id.parse().map_err(|_| unknown())?;
    let found = store.call(move |store| store.read(|connection| OverlapDetail::read(connection, id))).await?;
    found.map(Json).ok_or_else(unknown)
}

/// Some of the entries found.
#[derive(Serialize)]
struct Entries {
    items: Vec<control_inventory::InventoryEntry>,
    next: Option<InventoryKey>,
}

async fn inventory(State(store): State<Store>, uri: Uri) -> Answer<Entries> {
    let mut query = Query::of(&uri)?;
    let filter = query.inventory(clock::now())?;
    let (limit, after) = query.key(100)?;
    query.finish()?;
    let listed = store
        .call(move |store| {
            store.read(|connection| inventory_list::page(connection, &filter, limit, after.as_ref()))
        })
        .await?;
    Ok(Json(Entries { items: listed.entries, next: listed.next }))
}

/// One address in every address space.
#[derive(Serialize)]
struct Known {
    address: IpAddr,
    items: Vec<Row>,
}

/// The entries of an address, with their uses.
pub(crate) async fn known(store: &Store, address: IpAddr) -> Result<Vec<Row>, StoreError> {
    let read =
        move |store: &Store| store.read(|connection| control_inventory::of_address(connection, address));
    Ok(store.call(read).await?.into_iter().map(Row::whole).collect())
}

async fn address(State(store): State<Store>, Path(text): Path<String>, uri: Uri) -> Answer<Known> {
    Query::of(&uri)?.finish()?;
    let wrong = || Problem::bad_request(format!("address: {text:?}, expected an address such as 10.1.2.3"));
    let address: IpAddr = text.parse().map_err(|_| wrong())?;
    let items = known(&store, address).await?;
    if items.is_empty() {
        return Err(Problem::not_found(format!("{address} was never seen on an inside segment")));
    }
    Ok(Json(Known { address, items }))
}

async fn sums(State(store): State<Store>, uri: Uri) -> Answer<Page<AddressSum>> {
    let mut query = Query::of(&uri)?;
    let filter = SumFilter { site: query.take("site")?, segment: query.take("segment")? };
    let window = query.window(100)?;
    query.finish()?;
    let items = store
        .call(move |store| {
            store.read(|connection| {
                inventory_sweep::sums(connection, &filter, window.one_more(), window.offset)
            })
        })
        .await?;
    Ok(Json(Page::of(items, window)))
}

/// Some of the dark claims.
#[derive(Serialize)]
struct DarkPage {
    #[serde(flatten)]
    dark: Dark,
    next_offset: Option<u32>,
}

async fn dark_claims(State(planned): State<Planned>, uri: Uri) -> Answer<DarkPage> {
    let mut query = Query::of(&uri)?;
    let (filter, window) = (query.dark()?, query.window(100)?);
    query.finish()?;
    let plan = planned.now();
    let settings = planned.inventory.clone();
    let mut dark = planned
        .store
        .call(move |store| {
            let judge = Judge::new(plan, settings);
            store.read(|connection| dark::claims(connection, &judge, &filter, clock::now()))
        })
        .await?;
    let behind = std::mem::take(&mut dark.items).into_iter().skip(window.offset as usize);
    let page = Page::of(behind.take(window.one_more() as usize).collect(), window);
    dark.items = page.items;
    Ok(Json(DarkPage { dark, next_offset: page.next_offset }))
}
