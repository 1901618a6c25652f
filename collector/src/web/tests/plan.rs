//! The address plan over the API and on its page.

use onenet_proto::v1::PlanHeld;

use super::*;
use crate::{clock, store::plans};

const PLAN: &str = "\
[[secretariat]]
id = 'eohhs'
name = 'Health <b>and</b> Human Services'
contact = 'ipam@eohhs.example'
[[secretariat]]
id = 'massdot'
[[agency]]
id = 'dph'
secretariat = 'eohhs'
contact = 'noc@dph.example'
[[prefix]]
cidr = '10.1.0.0/16'
secretariat = 'eohhs'
agency = 'dph'
[[prefix]]
cidr = '10.1.2.0/24'
secretariat = 'massdot'
[[prefix]]
cidr = '10.9.0.0/16'
secretariat = 'massdot'
status = 'reserved'
[[address]]
address = '10.1.2.1'
secretariat = 'massdot'
role = 'vrrp'
";

struct Rig {
    morning: Morning,
    plan: Arc<AddressPlan>,
}

impl Rig {
    fn new() -> Self {
        Self { morning: Morning::new(), plan: Arc::new(toml::from_str(PLAN).expect("a plan")) }
    }

    fn get(&self, path: &str) -> Answer {
        let request = Request::get(path).header("host", "127.0.0.1:7480").body(Body::empty());
        ask_of(&self.morning.store, Arc::clone(&self.plan), request.expect("a request"))
    }

    /// The claims of a list.
    fn claims(&self, path: &str) -> Vec<String> {
        let answer = self.get(&format!("/api/v1/plan/{path}"));
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let items = answer.json()["items"].as_array().expect("items").clone();
        items.iter().map(|item| item["claim"].as_str().expect("a claim").to_owned()).collect()
    }
}

#[test]
fn the_plan_is_told_with_its_version_and_whom_to_call() {
    let rig = Rig::new();
    let before = rig.get("/api/v1/plan").json();
    assert_eq!((&before["version"], &before["prefixes"]), (&Value::Null, &3.into()));
    let issued = rig.morning.store.issue_plan(&rig.plan, clock::now()).expect("issued").expect("sent");
    let answer = rig.get("/api/v1/plan");
    // Of the whole, and of each secretariat: no name stands twice in one object.
    assert_eq!(answer.text.matches("\"prefixes\":").count(), 3, "{}", answer.text);
    let told = answer.json();
    assert_eq!(told["version"], issued.version);
    assert_eq!(told["sha256"].as_str().map(str::len), Some(64));
    assert_eq!((&told["addresses"], &told["segments"]), (&1.into(), &0.into()));
    let health = &told["secretariats"][0];
    assert_eq!((&health["id"], &health["contact"]), (&"eohhs".into(), &"ipam@eohhs.example".into()));
    assert_eq!(health["agencies"][0]["contact"], "noc@dph.example");
    assert_eq!((&health["prefixes"], &told["secretariats"][1]["addresses"]), (&1.into(), &1.into()));
}

#[test]
fn claims_are_filtered_and_paged_and_a_wrong_filter_is_named() {
    let rig = Rig::new();
    assert_eq!(rig.claims("prefixes"), ["10.1.0.0/16", "10.1.2.0/24", "10.9.0.0/16"]);
    assert_eq!(rig.claims("prefixes?within=10.1.2.7&secretariat=massdot"), ["10.1.2.0/24"]);
    assert_eq!(rig.claims("prefixes?status=reserved"), ["10.9.0.0/16"]);
    assert_eq!(rig.claims("prefixes?address_space=eohhs"), ["10.1.0.0/16"]);
    assert_eq!(rig.claims("prefixes?limit=1&offset=1"), ["10.1.2.0/24"]);
    assert_eq!(rig.get("/api/v1/plan/prefixes?limit=1").json()["next_offset"], 1);
    assert_eq!(rig.claims("addresses?within=10.1.0.0/16"), ["10.1.2.1"]);
    let wrong = rig.get("/api/v1/plan/prefixes?status=used");
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(wrong.text.contains("expected one of active, container, reserved, deprecated"), "{}", wrong.text);
    assert_eq!(rig.get("/api/v1/plan/addresses?site=boston").status, StatusCode::BAD_REQUEST);
}

#[test]
fn claims_that_overlap_are_those_of_plan_check() {
    let rig = Rig::new();
    let overlaps = rig.get("/api/v1/plan/overlaps").json();
    let pairs = overlaps["items"].as_array().expect("items");
    assert_eq!((pairs.len(), &overlaps["unlisted"]), (1, &0.into()));
    assert_eq!((&pairs[0]["outer"]["cidr"], &pairs[0]["addresses"]), (&"10.1.0.0/16".into(), &256.into()));
    assert_eq!(pairs[0]["inner"]["address_space"], "massdot");
}

#[test]
fn the_page_shows_owners_overlaps_and_prefixes_escaped() {
    let rig = Rig::new();
    let page = rig.get("/plan?secretariat=massdot");
    assert_eq!(page.status, StatusCode::OK);
    for expected in
        ["aria-current=\"page\">Plan", "ipam@eohhs.example", "1 of 1", "10.9.0.0/16", "&#60;b&#62;"]
    {
        assert!(page.text.contains(expected), "{expected}: {}", page.text);
    }
    assert!(!page.text.contains("<b>and"));
    let wrong = rig.get("/plan?status=used");
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(wrong.text.contains("expected one of active"));
}

#[test]
fn sensors_are_told_with_the_plan_that_they_hold() {
    let rig = Rig::new();
    let store = &rig.morning.store;
    let issued = store.issue_plan(&rig.plan, clock::now()).expect("issued").expect("sent");
    let told = |sensor: usize| {
        let sensors = rig.get("/api/v1/sensors").json();
        (sensors["items"][sensor]["plan_version"].clone(), sensors["items"][sensor]["plan"].clone())
    };
    assert_eq!(told(0), (Value::Null, "unknown".into()));
    let put = |sensor: &str, version, own| {
        let held = PlanHeld { version, own, ..PlanHeld::default() };
        store.transaction(|transaction| plans::put_held(transaction, sensor, Some(&held))).expect("noted");
    };
    put("boston-1", issued.version, false);
    put("lowell-1", 0, true);
    assert_eq!(told(0), (issued.version.into(), "current".into()));
    assert_eq!(told(1), (0.into(), "own-file".into()));
    let page = rig.get("/sensors").text;
    for expected in [&*issued.version.to_string(), "current", "own file"] {
        assert!(page.contains(expected), "{expected}");
    }
}
