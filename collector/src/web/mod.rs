//! The web page and the API on one listener: read only, no login, meant for loopback (or a proxy that asks who is
//! there). Everything a page shows is escaped by its template; there is no script, and the content security
//! policy admits none.

mod addresses;
mod guard;
mod pages;
mod plan;
#[cfg(test)]
mod tests;
mod view;

use std::net::SocketAddr;

use axum::{
    Router,
    http::{StatusCode, header},
    middleware,
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};

pub(crate) use guard::Hosts;

use crate::api::{self, Planned};

const STYLE: &str = include_str!("../../assets/style.css");
const MARK: &str = include_str!("../../assets/mark.svg");

/// Page and API.
pub(crate) fn router(planned: Planned, hosts: Hosts) -> Router {
    let store = planned.store.clone();
    Router::new()
        .route("/", get(pages::overview))
        .route("/sensors", get(pages::sensors))
        .route("/findings", get(pages::findings))
        .route("/findings/{id}", get(pages::finding))
        .route("/overlaps", get(addresses::overlaps))
        .route("/inventory", get(addresses::inventory))
        .route("/inventory/{address}", get(addresses::address))
        .route("/flows", get(pages::flows))
        .fallback(pages::nothing)
        .with_state(store)
        .merge(Router::new().route("/plan", get(plan::plan)).with_state(planned.clone()))
        .route("/static/style.css", get(|| asset("text/css; charset=utf-8", STYLE)))
        .route("/static/mark.svg", get(|| asset("image/svg+xml", MARK)))
        .nest("/api/v1", api::router(planned))
        .layer(middleware::from_fn_with_state(hosts, guard::guard))
}

async fn asset(kind: &'static str, content: &'static str) -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=86400")];
    (StatusCode::OK, headers, content)
}

/// Serves page and API until `stop` says so.
pub(crate) async fn serve(
    listener: TcpListener,
    planned: Planned,
    extra_hosts: &[String],
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let address: SocketAddr = listener.local_addr()?;
    let router = router(planned, Hosts::new(address, extra_hosts));
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            // A sender that is gone says the same.
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .await
}
