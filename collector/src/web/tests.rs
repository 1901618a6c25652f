//! Page and API against the router, in this process.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use onenet_core::plan::AddressPlan;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use crate::{
    config::InventoryConfig,
    seed::{self, HOSTILE, Morning},
    store::Store,
};

mod addresses;
mod plan;

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

fn hosts() -> Hosts {
    Hosts::new(SocketAddr::from(([127, 0, 0, 1], 7480)), &[])
}

fn ask(store: &Store, request: Request<Body>) -> Answer {
    ask_of(store, seed::plan(), request)
}

fn ask_of(store: &Store, plan: Arc<AddressPlan>, request: Request<Body>) -> Answer {
    let plan = watch::Sender::new(plan).subscribe();
    let planned = Planned { store: store.clone(), plan, inventory: InventoryConfig::default() };
    let router = router(planned, hosts());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let response = router.oneshot(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Answer { status: parts.status, headers: parts.headers, text }
    })
}

fn get(store: &Store, path: &str) -> Answer {
    let request = Request::get(path).header("host", "127.0.0.1:7480").body(Body::empty());
    ask(store, request.expect("a request"))
}

#[test]
fn sensors_are_told_with_their_account_and_losses() {
    let morning = Morning::new();
    let sensors = get(&morning.store, "/api/v1/sensors").json();
    let boston = &sensors["items"][0];
    assert_eq!((boston["sensor"].as_str(), boston["batches"].as_u64()), (Some("boston-1"), Some(1)));
    assert_eq!(boston["ledger"]["packets"], 1_804_332);
    assert_eq!(boston["ledger"]["balanced"], true);
    assert_eq!(sensors["items"][1]["losses"][0]["reason"], "spool-full");
    let page = get(&morning.store, "/").text;
    for expected in
        ["boston-1", "1,804,332", "1,801,447", "2,885", "account balances", "12 flow (spool-full)"]
    {
        assert!(page.contains(expected), "{expected} is not on the page");
    }
}

#[test]
fn findings_are_filtered_paged_and_told_whole() {
    let morning = Morning::new();
    let store = &morning.store;
    let all = get(store, "/api/v1/findings").json();
    let items = all["items"].as_array().expect("items");
    assert_eq!((items.len(), &all["next_offset"]), (10, &Value::Null));
    assert_eq!(items[0]["severity"], "critical", "the worst first");
    assert_eq!(items.last().expect("some")["state"], "closed", "what has closed last");
    let count = |query: &str| {
        let answer = get(store, &format!("/api/v1/findings?{query}"));
        answer.json()["items"].as_array().expect("items").len()
    };
    assert_eq!(count("state=closed"), 1);
    assert_eq!(count("rule=scan.horizontal"), 1);
    assert_eq!(count("site=lowell&state=open"), 4);
    assert_eq!(count("severity=critical"), 1);
    assert_eq!(count("secretariat=eohhs&rule=&site="), 4);
    let page = get(store, "/api/v1/findings?limit=5").json();
    assert_eq!((page["items"].as_array().map(Vec::len), &page["next_offset"]), (Some(5), &5.into()));
    assert_eq!(count("limit=5&offset=5"), 5);

    let id = items[0]["finding_id"].as_str().expect("an id");
    let one = get(store, &format!("/api/v1/findings/{id}")).json();
    assert_eq!(one["key"], "flood.syn|203.0.113.80|443");
    assert_eq!(one["changes"][0]["finding"]["revision"], 0);
    let page = get(store, &format!("/findings/{id}"));
    assert!(page.text.contains("41,208 SYN a second") && page.text.contains("T1498.001"));
}

#[test]
fn overlaps_inventory_flows_and_health_are_told() {
    let morning = Morning::new();
    let store = &morning.store;
    let overlaps = get(store, "/api/v1/overlaps?state=open").json();
    let mut addresses: Vec<_> =
        overlaps["items"].as_array().expect("items").iter().map(|o| o["address"].to_string()).collect();
    addresses.sort();
    assert_eq!(addresses, ["\"10.48.7.23\"", "\"10.48.9.101\"", "\"192.168.10.5\""]);
    let inventory = get(store, "/api/v1/inventory?within=10.48.0.0/16&address_space=massdot").json();
    assert_eq!(inventory["items"].as_array().map(Vec::len), Some(3));
    assert_eq!(inventory["items"][0]["macs"][0].as_str().map(str::len), Some(17));
    let flows = get(store, "/api/v1/flows?address=10.48.7.0/24&protocol=udp&limit=4").json();
    assert_eq!(flows["items"].as_array().map(Vec::len), Some(4));
    let next = flows["next"].as_str().expect("more");
    let rest = get(store, &format!("/api/v1/flows?address=10.48.7.0/24&protocol=udp&after={next}")).json();
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(10));
    let health = get(store, "/api/v1/health").json();
    assert_eq!((&health["status"], &health["correlated"]), (&"ok".into(), &true.into()));
    assert_eq!((health["batches"].as_u64(), health["flows"].as_u64()), (Some(2), Some(70)));
}

#[test]
fn what_is_wrong_is_a_problem_in_json_and_a_sentence_on_the_page() {
    let morning = Morning::new();
    let store = &morning.store;
    for (path, status, detail) in [
        ("/api/v1/nothing", 404, "no such path"),
        ("/api/v1/findings/xyz", 404, "no finding has the id"),
        ("/api/v1/findings/00000000000000000000000000000000", 404, "no finding has the id"),
        ("/api/v1/findings?stat=open", 400, "stat: unknown parameter, expected one of state, rule"),
        ("/api/v1/findings?state=maybe", 400, "state: no state is called"),
        ("/api/v1/flows?address=10.1.2", 400, "address: "),
        ("/api/v1/flows?limit=1001", 400, "limit: "),
        ("/api/v1/sensors?x=1", 400, "x: unknown parameter"),
    ] {
        let answer = get(store, path);
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text);
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{path}");
        let problem = answer.json();
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains(detail)), "{}", answer.text);
    }
    for (path, status) in
        [("/flows?port=x", 400), ("/findings?rule=x", 400), ("/nothing", 404), ("/findings/x", 404)]
    {
        let answer = get(store, path);
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert!(answer.text.contains("class=\"fault\""), "{path}");
    }
}

#[test]
fn every_page_answers_with_the_policy_and_without_script() {
    let morning = Morning::new();
    for path in [
        "/",
        "/?refresh=10",
        "/sensors",
        "/findings",
        "/overlaps",
        "/overlaps?layer=observed&verdict=two-hosts",
        "/inventory",
        "/inventory?standing=declared&seen_within=30",
        "/inventory/10.48.7.23",
        "/inventory/fd12:3456::a",
        "/flows",
        "/flows?port=53",
        "/static/style.css",
        "/static/mark.svg",
        "/api/v1/health",
    ] {
        let answer = get(&morning.store, path);
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        let policy = answer.headers["content-security-policy"].to_str().expect("text");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{policy}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        for forbidden in ["<script", " style=", "javascript:", " onclick", "http://", "https://"] {
            let allowed = forbidden == "http://" && path.ends_with(".svg");
            assert!(allowed || !answer.text.contains(forbidden), "{forbidden} in {path}");
        }
    }
}

#[test]
fn a_host_name_from_the_wire_is_text_and_nothing_else() {
    let morning = Morning::new();
    let page = get(&morning.store, "/inventory?within=10.48.9.101");
    assert!(page.text.contains("&#60;script&#62;alert(") || page.text.contains("&lt;script&gt;alert("));
    assert!(!page.text.contains("<script"), "{}", page.text);
    let told = get(&morning.store, "/api/v1/inventory?within=10.48.9.101&address_space=eohhs").json();
    assert_eq!(told["items"][0]["hostnames"][0], HOSTILE);
    let typed = get(&morning.store, "/findings?site=%22%3E%3Cscript%3E");
    assert!(!typed.text.contains("<script"), "what was typed comes back as text");
}

#[test]
fn only_our_own_names_and_only_reading() {
    let morning = Morning::new();
    let asked = |method: &str, host: &str| {
        let request = Request::builder().method(method).uri("/api/v1/findings").header("host", host);
        ask(&morning.store, request.body(Body::empty()).expect("a request"))
    };
    assert_eq!(asked("GET", "localhost:7480").status, StatusCode::OK);
    let foreign = asked("GET", "rebind.example");
    assert_eq!(foreign.status, StatusCode::MISDIRECTED_REQUEST);
    assert!(!foreign.text.contains("finding_id"));
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        assert_eq!(asked(method, "localhost").status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
    assert_eq!(asked("HEAD", "localhost").status, StatusCode::OK);
    let nameless = Request::get("/").body(Body::empty()).expect("a request");
    assert_eq!(ask(&morning.store, nameless).status, StatusCode::MISDIRECTED_REQUEST);
}

#[test]
fn pages_of_a_list_lead_to_each_other_and_keep_the_filter() {
    let morning = Morning::new();
    let page = get(&morning.store, "/findings?state=open&limit=3&offset=3").text;
    let link = |offset: u32| format!("/findings?state=open&#38;limit=3&#38;offset={offset}");
    for offset in [0, 6] {
        assert!(
            page.contains(&link(offset)) || page.contains(&link(offset).replace("&#38;", "&amp;")),
            "{offset}"
        );
    }
}
