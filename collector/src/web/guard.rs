//! What every request must satisfy and every answer carries.
//!
//! A page of the internet can point a name of its own at 127.0.0.1 and then read what we answer (DNS rebinding).
//! It cannot make the browser send another name than its own, so the Host header must be one of ours.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::api::Problem;

/// Names by which the page may be asked for.
#[derive(Clone, Debug)]
pub(crate) struct Hosts(Arc<BTreeSet<String>>);

impl Hosts {
    /// The loopback names, the address that is listened on, and what the configuration adds.
    pub(crate) fn new(listen: SocketAddr, extra: &[String]) -> Self {
        let ours = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let extra = extra.iter().map(|host| host.to_ascii_lowercase());
        Self(Arc::new(ours.into_iter().chain([listen.ip().to_string()]).chain(extra).collect()))
    }

    fn admits(&self, host: &str) -> bool {
        self.0.contains(&name_of(host).to_ascii_lowercase())
    }
}

/// The name in a Host header, without its port and the brackets around an IPv6 address.
fn name_of(host: &str) -> &str {
    if let Some((name, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return name;
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

/// Only our own resources, no script at all, in no frame, and forms only to ourselves.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(header::HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Lets a request pass, or says why not, and adds the headers that every answer carries.
pub(super) async fn guard(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let host = stated_host(request.uri(), request.headers());
    let mut response = if !host.is_some_and(|host| hosts.admits(host)) {
        let problem = "this name is not one of the collector's; [web] hosts in its configuration can add it";
        (StatusCode::MISDIRECTED_REQUEST, problem).into_response()
    } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = Problem::method_not_allowed().into_response();
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        refused
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn stated_host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let header = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    header.or_else(|| uri.authority().map(|authority| authority.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_admitted_with_any_port() {
        let hosts = Hosts::new(SocketAddr::from(([127, 0, 0, 1], 7480)), &["Edge.example".to_owned()]);
        for ours in ["localhost", "LOCALHOST:7480", "127.0.0.1:80", "[::1]:7480", "edge.example"] {
            assert!(hosts.admits(ours), "{ours}");
        }
        for foreign in ["evil.example", "localhost.evil.example", "", "127.0.0.1.evil.example:7480", "[::2]"]
        {
            assert!(!hosts.admits(foreign), "{foreign}");
        }
    }
}
