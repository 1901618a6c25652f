//! The API, `/api/v1`: what the page shows, as JSON. `docs/api.md` states each path. It reads only.

mod addresses;
mod plan;
mod problem;
mod query;
mod views;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::Uri,
    routing::get,
};
use onenet_core::record::FindingId;
use serde::Serialize;

pub(crate) use addresses::known;
pub(crate) use plan::{PlanView, Planned, SecretariatView};
pub(crate) use problem::Problem;
pub(crate) use query::{Query, Window};

use crate::{
    correlate::Finding,
    sensors,
    store::{FlowCursor, Store, StoredFlow, control_findings},
};
use views::Health;
pub(crate) use views::{FindingDetail, Page, SensorView};

/// What a handler answers.
type Answer<T> = Result<Json<T>, Problem>;

/// The routes below `/api/v1`.
pub(crate) fn router(planned: Planned) -> Router {
    let store = planned.store.clone();
    Router::new()
        .route("/health", get(health))
        .route("/sensors", get(all_sensors))
        .route("/findings", get(findings))
        .route("/findings/{id}", get(finding))
        .route("/flows", get(flows))
        .fallback(|| async { Problem::not_found("no such path; docs/api.md lists them") })
        .with_state(store)
        .merge(addresses::router(planned.clone()))
        .merge(plan::router(planned))
}

async fn health(State(store): State<Store>, uri: Uri) -> Answer<Health> {
    Query::of(&uri)?.finish()?;
    Ok(Json(store.call(views::health).await?))
}

#[derive(Serialize)]
struct Sensors {
    items: Vec<SensorView>,
}

async fn all_sensors(State(store): State<Store>, uri: Uri) -> Answer<Sensors> {
    Query::of(&uri)?.finish()?;
    let (status, losses) = store
        .call(|store| Ok((sensors::status(store)?, store.read(crate::store::control_losses::totals)?)))
        .await?;
    Ok(Json(Sensors { items: status.into_iter().map(|sensor| SensorView::new(sensor, &losses)).collect() }))
}

async fn findings(State(store): State<Store>, uri: Uri) -> Answer<Page<Finding>> {
    let mut query = Query::of(&uri)?;
    let (filter, window) = (query.findings()?, query.window(100)?);
    query.finish()?;
    let items = store
        .call(move |store| {
            store.read(|connection| {
                control_findings::findings(connection, &filter, window.one_more(), window.offset)
            })
        })
        .await?;
    Ok(Json(Page::of(items, window)))
}

async fn finding(State(store): State<Store>, Path(id): Path<String>, uri: Uri) -> Answer<FindingDetail> {
    Query::of(&uri)?.finish()?;
    let unknown = || Problem::not_found(format!("no finding has the id {id:?}"));
    let id: FindingId = id.parse().map_err(|_| unknown())?;
    let found = store.call(move |store| store.read(|connection| FindingDetail::read(connection, id))).await?;
    found.map(Json).ok_or_else(unknown)
}

#[derive(Serialize)]
struct Flows {
    items: Vec<StoredFlow>,
    next: Option<FlowCursor>,
}

async fn flows(State(store): State<Store>, uri: Uri) -> Answer<Flows> {
    let mut query = Query::of(&uri)?;
    let search = query.flows()?;
    query.finish()?;
    let page = store
        .call(move |store| {
            store.refresh()?;
            store.flows(&search)
        })
        .await?;
    Ok(Json(Flows { items: page.flows, next: page.next }))
}
