//! A working day at both edges: everything that was planted is found and nothing else, the account balances, and
//! what was sealed is stored.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use onenet_core::record::RuleId;
use onenet_tests::traffic::{Options, truth::Truth};
use serde_json::Value;

use crate::{
    harness::{AgentConfig, Edge, Lab, day},
    store,
};

/// A collector that has what two sensors made of a day.
pub(crate) struct Done {
    pub(crate) lab: Lab,
    pub(crate) edges: Vec<Edge>,
    pub(crate) truth: Truth,
}

/// Runs both sensors on the captures of a day, to the end. The collector still runs.
pub(crate) fn run_day(options: Options, collector: &str) -> Done {
    let (captures, truth): (PathBuf, Truth) = day(options);
    let mut lab = Lab::new(Some(&captures.join("plan.toml")), collector);
    lab.start();
    let enrol = |site| lab.enrol(AgentConfig::of_day(&captures, &truth, site));
    let edges = vec![enrol("boston"), enrol("lowell")];
    std::thread::scope(|scope| {
        for edge in &edges {
            scope.spawn(|| edge.run_until_end());
        }
    });
    lab.settle();
    Done { lab, edges, truth }
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} is not a number in {value}"))
}

/// Checks that every packet of the captures is accounted for, and every sealed batch stored once.
pub(crate) fn check_account(lab: &Lab, edges: &[Edge], truth: &Truth) {
    let stored = store::read(&lab.collector_dir());
    for edge in edges {
        let sensor = lab.sensor(&edge.sensor);
        let ledger = &sensor["ledger"];
        assert_eq!(number(ledger, "packets"), truth.sites[&edge.site].packets, "{sensor}");
        let accounted = number(ledger, "parsed") + number(ledger, "unparsed");
        assert_eq!(number(ledger, "packets"), accounted, "{sensor}");
        assert_eq!((number(ledger, "unparsed"), number(ledger, "dropped")), (0, 0), "{sensor}");
        assert_eq!(number(ledger, "wire_bytes"), truth.sites[&edge.site].wire_bytes, "{sensor}");
        let stored = &stored[&edge.sensor];
        let status = edge.status();
        assert_eq!(number(&status, "batches_sealed"), stored.batches.len() as u64, "{status}");
        assert_eq!(number(&status, "batches_acked"), stored.batches.len() as u64, "{status}");
        assert_eq!(stored.batches_twice(), []);
        assert!(stored.has_no_gap(), "{:?}", stored.batches);
        assert_eq!(stored.flows_twice(), 0);
        assert_eq!(number(ledger, "flow_records"), stored.flows.len() as u64, "{sensor}");
        assert_eq!(number(&sensor, "lost"), 0, "{sensor}");
    }
}

#[test]
fn what_was_planted_is_found_and_nothing_else_and_the_account_balances() {
    let Done { mut lab, edges, truth } = run_day(Options { seed: 1, scale: 1.0 }, "");
    check_account(&lab, &edges, &truth);
    let comparison = truth.compare(lab.incidents(), None);
    assert!(comparison.is_equal(), "{comparison:#?}");
    let findings = lab.items("/api/v1/findings");
    for planted in &truth.findings {
        let finding = findings.iter().find(|finding| crate::harness::incident_of(finding) == planted.key);
        let finding = finding.expect("it was found");
        let names = |key: &str| -> BTreeSet<String> {
            let names = finding[key].as_array().into_iter().flatten();
            names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
        };
        let sites: BTreeSet<String> = planted.sites.iter().cloned().collect();
        match planted.rule {
            // One for each address space that the prefix is used in.
            RuleId::AddressUndeclared | RuleId::AddressMisplaced => {
                assert!(names("sites").is_subset(&sites), "{}: {finding}", planted.key);
            }
            _ => assert_eq!(names("sites"), sites, "{}", planted.key),
        }
        // Whoever is at fault must be named, by the plan or by what was observed inside; others may be besides.
        let (named, expected): (BTreeSet<String>, BTreeSet<String>) =
            (names("secretariats"), planted.secretariats.iter().cloned().collect());
        match planted.rule {
            RuleId::OverlapAddress | RuleId::LeakPrivate => {
                assert_eq!(named, expected, "{}: {finding}", planted.key);
            }
            _ => assert!(named.is_superset(&expected), "{}: {finding}", planted.key),
        }
    }
    assert!(lab.collector.as_mut().expect("it runs").stop().success());
    assert!(!log_of(&lab).contains("panicked"), "{}", log_of(&lab));
}

fn log_of(lab: &Lab) -> String {
    lab.collector.as_ref().map(crate::harness::Background::log).unwrap_or_default()
}

#[test]
fn another_seed_is_found_as_well() {
    let Done { lab, edges, truth } = run_day(Options { seed: 20_261, scale: 0.2 }, "");
    check_account(&lab, &edges, &truth);
    let comparison = truth.compare(lab.incidents(), None);
    assert!(comparison.is_equal(), "{comparison:#?}");
}

#[test]
fn flows_can_be_searched_from_the_command_line_and_the_api() {
    let Done { lab, truth, .. } = run_day(Options { seed: 1, scale: 0.05 }, "");
    let beacon = truth.findings.iter().find(|planted| planted.key.starts_with("beacon|")).expect("a beacon");
    let (client, server) = beacon.key.trim_start_matches("beacon|").split_once('>').expect("two addresses");
    let flows = lab.get(&format!("/api/v1/flows?address={client}&peer={server}&limit=1000"));
    let flows = flows["items"].as_array().expect("items");
    assert!(flows.len() > 100, "{} flows of {}", flows.len(), beacon.key);
    for flow in flows {
        let text = flow.to_string();
        assert!(text.contains(client) && text.contains(server), "{text}");
    }
    let table = lab.call(&["flows", "--format", "json", "--address", client, "--peer", server]).success();
    assert!(table.contains(server), "{table}");
    for (command, expected) in [
        ("sensors", "boston-1"),
        ("findings", "beacon"),
        ("overlaps", "10.1.2.30"),
        ("inventory", "10.1.1.20"),
    ] {
        for format in ["table", "json", "csv"] {
            let told = lab.call(&[command, "--format", format]).success();
            assert!(told.contains(expected), "{command} as {format}: {told}");
            if format == "json" {
                serde_json::from_str::<Value>(&told).expect("JSON");
            }
        }
    }
}

#[test]
fn the_plan_check_names_the_claims_that_overlap() {
    let (captures, _) = day(Options { seed: 1, scale: 0.05 });
    let plan: &Path = &captures.join("plan.toml");
    // Two secretariats still claim 10.1.0.0/16: the plan can be used, and it is told.
    let told = crate::harness::call("onenet-collector", &["plan", "check", crate::harness::text(plan)]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.out.contains("10.1.0.0/16"), "{told:?}");
    assert!(told.out.contains("eohhs") && told.out.contains("massdot"), "{told:?}");
}
