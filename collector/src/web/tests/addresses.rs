//! Overlaps, inventory and dark claims, on the page and by the API.

use super::*;
use crate::inventory;

fn items(store: &Store, path: &str) -> Vec<Value> {
    let answer = get(store, path);
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
    answer.json()["items"].as_array().expect("items").clone()
}

fn of(items: &[Value]) -> Vec<String> {
    let mut found: Vec<String> = items
        .iter()
        .map(|item| item["address"].as_str().or(item["prefix"].as_str()).expect("a subject").to_owned())
        .collect();
    found.sort();
    found
}

#[test]
fn overlaps_are_filtered_by_each_parameter() {
    let morning = Morning::new();
    let all = ["10.48.7.23", "10.48.9.101", "192.168.10.5"];
    for (query, expected) in [
        ("", &[0, 1, 2][..]),
        ("layer=observed", &[0, 1, 2]),
        ("layer=declared,routed", &[]),
        ("verdict=two-hosts", &[0, 2]),
        ("verdict=unknown&layer=observed", &[1]),
        ("within=10.48.0.0/16", &[0, 1]),
        ("within=fd00::/8", &[]),
        ("secretariat=massdot&within=192.168.10.5", &[2]),
        ("address_space=anf", &[]),
        ("site=lowell&state=open", &[0, 1]),
        ("state=closed", &[]),
    ] {
        let expected: Vec<&str> = expected.iter().map(|&at: &usize| all[at]).collect();
        assert_eq!(of(&items(&morning.store, &format!("/api/v1/overlaps?{query}"))), expected, "{query}");
    }
    let page = get(&morning.store, "/api/v1/overlaps?limit=2").json();
    assert_eq!((page["items"].as_array().map(Vec::len), &page["next_offset"]), (Some(2), &2.into()));
}

#[test]
fn an_overlap_is_told_with_its_uses_and_terms() {
    let morning = Morning::new();
    let store = &morning.store;
    let listed = items(store, "/api/v1/overlaps?within=10.48.7.23");
    let id = listed[0]["finding_id"].as_str().expect("an id");
    assert_eq!(listed[0].get("usages"), None, "a list is short");
    let one = get(store, &format!("/api/v1/overlaps/{id}")).json();
    assert_eq!((&one["layer"], &one["verdict"]), (&"observed".into(), &"two-hosts".into()));
    assert_eq!(one["terms"][0]["name"], "mac");
    assert_eq!(one["usages"].as_array().map(Vec::len), Some(2));
    assert!(one["likelihood_ratio"].as_f64().is_some_and(|ratio| ratio > 100.0), "{one}");
    let page = get(store, &format!("/findings/{id}")).text;
    for expected in [
        "What speaks for two hosts",
        "+8.00",
        "two-hosts",
        "10.48.7.23 in eohhs at boston",
        "10.48.7.23 in massdot at lowell",
        "href=\"/inventory/10.48.7.23\"",
    ] {
        assert!(page.contains(expected), "{expected} is not on the page");
    }
    let scan = items(store, "/api/v1/findings?rule=scan.horizontal")[0]["finding_id"].clone();
    let scan = scan.as_str().expect("an id");
    assert_eq!(get(store, &format!("/api/v1/overlaps/{scan}")).status, StatusCode::NOT_FOUND);
    assert!(!get(store, &format!("/findings/{scan}")).text.contains("What speaks for two hosts"));
}

#[test]
fn the_inventory_is_filtered_by_each_parameter_and_paged_by_key() {
    let morning = Morning::new();
    let store = &morning.store;
    let all = items(store, "/api/v1/inventory");
    assert_eq!(all.len(), 9);
    assert_eq!(all.last().expect("some")["address"], "fd12:3456::a", "IPv6 after IPv4");
    for (query, count) in [
        ("within=10.48.0.0/16", 5),
        ("within=fd12:3456::/32", 1),
        ("address_space=anf", 2),
        ("secretariat=massdot", 4),
        ("site=lowell", 3),
        ("segment=lowell-massdot", 3),
        ("strength=strong", 5),
        ("standing=declared", 9),
        ("standing=misplaced", 0),
        ("since=2026-11-21T08:01", 3),
        ("until=2026-11-21T08:00:30Z", 2),
        ("seen_within=36500", 9),
    ] {
        assert_eq!(items(store, &format!("/api/v1/inventory?{query}")).len(), count, "{query}");
    }
    let (mut path, mut found) = ("/api/v1/inventory?limit=2".to_owned(), Vec::new());
    loop {
        let page = get(store, &path).json();
        found.extend(page["items"].as_array().expect("items").clone());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/inventory?limit=2&after={next}");
    }
    assert_eq!(found, all);
}

#[test]
fn one_address_is_told_in_every_space() {
    let morning = Morning::new();
    let store = &morning.store;
    let told = get(store, "/api/v1/inventory/10.48.7.23").json();
    let spaces: Vec<_> =
        told["items"].as_array().expect("items").iter().map(|e| &e["address_space"]).collect();
    assert_eq!(spaces, ["eohhs", "massdot"]);
    assert_eq!(told["items"][0]["usages"][0]["segment"], "boston-eohhs");
    let v6 = get(store, "/api/v1/inventory/fd12:3456:0::A").json();
    assert_eq!((&v6["address"], &v6["items"][0]["address_space"]), (&"fd12:3456::a".into(), &"anf".into()));
    let page = get(store, "/inventory/10.48.7.23").text;
    for expected in ["In eohhs", "In massdot", "1 open overlap.", "two-hosts", "arp-reply"] {
        assert!(page.contains(expected), "{expected} is not on the page");
    }
    let page = get(store, "/inventory/fd12:3456::a").text;
    assert!(page.contains("In anf") && page.contains("0 open overlaps"), "{page}");
}

#[test]
fn what_is_asked_wrongly_is_named_with_its_parameter() {
    let morning = Morning::new();
    for (path, status, detail) in [
        ("/api/v1/overlaps?layer=seen", 400, "layer: \"seen\", expected declared, observed"),
        ("/api/v1/overlaps?verdict=two", 400, "verdict: \"two\", expected two-hosts"),
        ("/api/v1/overlaps?within=10.1", 400, "within: "),
        ("/api/v1/overlaps?rule=x", 400, "rule: unknown parameter"),
        ("/api/v1/overlaps/xyz", 404, "no overlap has the id"),
        ("/api/v1/inventory?strength=sure", 400, "strength: \"sure\", expected weak, medium or strong"),
        ("/api/v1/inventory?standing=lost", 400, "standing: "),
        ("/api/v1/inventory?seen_within=0", 400, "seen_within: "),
        ("/api/v1/inventory?seen_within=3&since=2026-11-21", 400, "seen_within: since is stated too"),
        ("/api/v1/inventory?after=10.1.1.1", 400, "after: \"10.1.1.1\", expected the `next`"),
        ("/api/v1/inventory?offset=5", 400, "offset: unknown parameter"),
        ("/api/v1/inventory/10.1.2", 400, "address: \"10.1.2\", expected an address"),
        ("/api/v1/inventory/10.1.2.3", 404, "10.1.2.3 was never seen"),
        ("/api/v1/inventory/10.48.7.23?x=1", 400, "x: unknown parameter"),
        ("/api/v1/inventory/sums?within=10.1.1.1", 400, "within: unknown parameter"),
        ("/api/v1/claims/dark?site=boston", 400, "site: unknown parameter"),
    ] {
        let answer = get(&morning.store, path);
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text);
        let problem = answer.json();
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains(detail)), "{}", answer.text);
    }
    for (path, status) in [
        ("/overlaps?layer=seen", 400),
        ("/inventory?strength=sure", 400),
        ("/inventory/10.1.2", 404),
        ("/inventory/10.1.2.3", 404),
    ] {
        let answer = get(&morning.store, path);
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert!(answer.text.contains("class=\"fault\""), "{path}");
    }
}

#[test]
fn dark_claims_and_sums_are_told_also_where_there_are_none() {
    let morning = Morning::new();
    let dark = get(&morning.store, "/api/v1/claims/dark").json();
    assert_eq!((&dark["items"], &dark["dark_days"]), (&serde_json::json!([]), &30.into()));
    assert_eq!((&dark["long_enough"], &dark["next_offset"]), (&false.into(), &Value::Null));
    let sums = get(&morning.store, "/api/v1/inventory/sums?site=boston").json();
    assert_eq!(sums["items"], serde_json::json!([]));
}

#[test]
fn forms_work_without_script_and_give_back_what_was_typed() {
    let morning = Morning::new();
    let store = &morning.store;
    let page = get(store, "/inventory?within=10.48.0.0%2F16&standing=declared&limit=2").text;
    assert!(page.contains("method=\"get\" action=\"/inventory\""));
    assert!(page.contains("value=\"10.48.0.0/16\"") && page.contains("<option value=\"declared\" selected>"));
    let next = page.split("href=\"").find(|rest| rest.contains("after=")).expect("a next page");
    let next = next.split('"').next().expect("a link").replace("&#38;", "&");
    assert!(
        next.contains("within=10.48.0.0%2F16&standing=declared&limit=2&after=massdot%2F10.48.7.23"),
        "{next}"
    );
    let second = get(store, &next).text;
    assert!(second.contains("10.48.7.24") && second.contains("From the first"), "{second}");
    let overlaps = get(store, "/overlaps?layer=observed&verdict=two-hosts&within=10.48.0.0/16").text;
    assert!(overlaps.contains("10.48.7.23") && !overlaps.contains("10.48.9.101"), "{overlaps}");
    assert!(overlaps.contains("<option value=\"two-hosts\" selected>"));
    assert!(get(store, "/overlaps?state=closed").text.contains("No overlap matches."));
    assert!(get(store, "/inventory?within=fd99::/16").text.contains("No address matches."));
}

#[test]
fn hostile_names_are_text_on_every_page_of_an_address() {
    let morning = Morning::new();
    let store = &morning.store;
    let id = items(store, "/api/v1/overlaps?within=10.48.9.101")[0]["finding_id"].clone();
    let finding = format!("/findings/{}", id.as_str().expect("an id"));
    for path in ["/inventory?within=10.48.9.101", "/inventory/10.48.9.101", &finding] {
        let page = get(store, path).text;
        assert!(page.contains("script&#62;") || page.contains("script&gt;"), "{path} tells the name");
        assert!(!page.contains("<script"), "{path}");
    }
    for path in ["/overlaps?within=%22%3E%3Cscript%3E", "/inventory?segment=%22%3E%3Cscript%3E"] {
        assert!(!get(store, path).text.contains("<script"), "{path}");
    }
}

/// The answers that docs/api.md shows. ONENET_GOLDEN=write writes them anew.
#[test]
fn the_documentation_shows_what_is_answered() {
    let morning = Morning::new();
    let store = &morning.store;
    let told = |path: &str| get(store, &format!("/api/v1/{path}")).json();
    let overlaps = told("overlaps?layer=observed&within=10.48.0.0/16&limit=1");
    let id = overlaps["items"][0]["finding_id"].as_str().expect("an id");
    let whole = told(&format!("overlaps/{id}"));
    let detail = serde_json::json!({
        "likelihood_ratio": whole["likelihood_ratio"],
        "bits": whole["bits"],
        "terms": whole["terms"],
        "usages": [whole["usages"][0]],
    });
    let (_directory, old) = inventory::tests::some();
    let of_old = |path: &str| {
        let request = Request::get(format!("/api/v1/{path}")).header("host", "localhost").body(Body::empty());
        ask_of(&old, inventory::tests::plan(), request.expect("a request")).json()
    };
    let examples = [
        ("overlaps?layer=observed&within=10.48.0.0/16&limit=1", overlaps.clone()),
        ("overlaps/ID", detail),
        (
            "inventory?within=10.48.0.0/16&standing=declared&limit=1",
            told("inventory?within=10.48.0.0/16&standing=declared&limit=1"),
        ),
        ("inventory/10.48.7.24", told("inventory/10.48.7.24")),
        ("inventory/sums?segment=lowell-anf", of_old("inventory/sums?segment=lowell-anf")),
        ("claims/dark", of_old("claims/dark")),
    ];
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");
    for (asked, answer) in examples {
        let text = std::fs::read_to_string(path).expect("docs/api.md");
        let heading = format!("`GET /api/v1/{asked}`");
        let (before, rest) = text.split_once(&heading).unwrap_or_else(|| panic!("{heading} is not shown"));
        let (between, rest) = rest.split_once("```json\n").expect("an example");
        let (shown, after) = rest.split_once("\n```").expect("its end");
        let answer = serde_json::to_string_pretty(&answer).expect("JSON");
        if std::env::var_os("ONENET_GOLDEN").is_some() {
            let anew = format!("{before}{heading}{between}```json\n{answer}\n```{after}");
            std::fs::write(path, anew).expect("written");
        } else {
            assert_eq!(shown, answer, "{asked}");
        }
    }
}
