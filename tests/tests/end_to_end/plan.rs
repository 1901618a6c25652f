//! The collector's address plan on its way to the edges: sensors that state none go by it, and by the next one.

use std::fs;

use nix::sys::signal::Signal;
use onenet_tests::traffic::Options;
use serde_json::Value;

use crate::harness::{AgentConfig, Edge, Lab, call, day, text, wait_for};

const OPTIONS: Options = Options { seed: 1, scale: 0.05 };
const SITES: [&str; 2] = ["boston", "lowell"];

/// The versions that the collector has issued, the latest first.
fn versions(lab: &Lab) -> Vec<u64> {
    let told = lab.call(&["plan", "versions", "--format", "json"]).success();
    let versions: Value = serde_json::from_str(&told).expect("JSON");
    let versions = versions.as_array().expect("versions");
    versions.iter().map(|version| version["version"].as_u64().expect("a number")).collect()
}

/// What the sensor says of itself, once it has run.
fn says(edge: &Edge) -> Option<Value> {
    edge.state_dir.join("status.json").exists().then(|| edge.status())
}

/// Waits until the sensor says that it goes by this version, and the collector that this is the latest.
fn holds(lab: &Lab, edge: &Edge, version: u64) {
    wait_for("the plan", || (says(edge)?["plan_version"] == version).then_some(()));
    wait_for("the collector to be told", || {
        let sensor = lab.sensor(&edge.sensor);
        (sensor["plan_version"] == version && sensor["plan"] == "current").then_some(())
    });
}

#[test]
fn sensors_without_a_plan_go_by_the_collectors_and_a_change_reaches_both() {
    let (captures, truth) = day(OPTIONS);
    let mut lab = Lab::new(Some(&captures.join("plan.toml")), "");
    lab.start();
    let edges = SITES
        .map(|site| lab.enrol(AgentConfig { plan: None, ..AgentConfig::of_day(&captures, &truth, site) }));
    let before = call("onenet-agent", &["check-config", "--config", text(&edges[0].config)]).success();
    assert!(before.contains("until the collector's comes"), "{before}");
    let [mut boston, lowell] = [edges[0].start(&[]), edges[1].start(&[])];
    let first = versions(&lab);
    assert_eq!(first.len(), 1, "{first:?}");
    for edge in &edges {
        holds(&lab, edge, first[0]);
    }

    // A changed plan reaches both on their open streams.
    let file = lab.collector_dir().join("plan.toml");
    let mut plan = fs::read_to_string(&file).expect("a plan");
    plan.push_str(
        "\n[[exemption]]\nrule = \"scan.horizontal\"\nsource = \"10.250.0.1/32\"\nreason = \"a scanner\"\n",
    );
    fs::write(&file, &plan).expect("it is written");
    lab.collector.as_ref().expect("it runs").signal(Signal::SIGHUP);
    let second = wait_for("a new version", || versions(&lab).first().copied().filter(|now| *now > first[0]));
    for edge in &edges {
        holds(&lab, edge, second);
    }
    let table = lab.call(&["sensors"]).success();
    assert_eq!(table.matches("current").count(), 2, "{table}");
    let told = call("onenet-agent", &["status", "--config", text(&edges[1].config)]).success();
    assert!(told.contains(&format!("plan       version {second} of the collector's")), "{told}");
    let trail = lab.call(&["audit", "--format", "json"]).success();
    for entered in ["plan-issued", "plan-taken at ", &format!("version {second} of the collector's")] {
        assert!(trail.contains(entered), "{entered}: {trail}");
    }

    // What is held outlasts the sensor, also where it reads its captures again: nothing is told twice.
    let flows = lab.sensor(&edges[0].sensor)["flows"].clone();
    boston.stop();
    let kept = call("onenet-agent", &["check-config", "--config", text(&edges[0].config)]).success();
    assert!(kept.contains(&format!("plan       version {second} of the collector's: ")), "{kept}");
    let mut again = edges[0].start(&[]);
    wait_for("it runs again", || (edges[0].status()["connected"] == true).then_some(()));
    holds(&lab, &edges[0], second);
    assert_eq!(lab.sensor(&edges[0].sensor)["flows"], flows);
    // SIGHUP reads the configuration again, which has no plan.
    again.signal(Signal::SIGHUP);
    wait_for("SIGHUP", || again.log().contains("configuration reloaded").then_some(()));
    holds(&lab, &edges[0], second);
    again.stop();
    drop(lowell);
}

#[test]
fn a_sensor_with_a_plan_of_its_own_keeps_to_it_and_the_plan_is_told_by_command_and_page() {
    let (captures, truth) = day(OPTIONS);
    let mut lab = Lab::new(Some(&captures.join("plan.toml")), "");
    lab.start();
    let edge = lab.enrol(AgentConfig::of_day(&captures, &truth, "lowell"));
    edge.run_until_end();
    lab.settle();
    assert_eq!(lab.sensor(&edge.sensor)["plan"], "own-file");
    assert!(lab.call(&["sensors"]).success().contains("own file"));
    assert_eq!(edge.status()["plan_version"], 0);
    assert!(!edge.state_dir.join("plan.signed").exists());

    let file = lab.collector_dir().join("plan.toml");
    let by_file = call("onenet-collector", &["plan", "show", text(&file)]).success();
    assert_eq!(lab.call(&["plan", "show"]).success(), by_file);
    let export = lab.call(&["plan", "export", "--format", "csv"]).success();
    assert!(export.starts_with("prefix,"), "{export}");
    let checked = lab.call(&["plan", "check"]);
    assert_eq!(checked.code, call("onenet-collector", &["plan", "check", text(&file)]).code);
    let plan = lab.get("/api/v1/plan");
    assert_eq!(plan["version"], versions(&lab)[0]);
    assert_eq!(lab.items("/api/v1/plan/prefixes").len() as u64, plan["prefixes"].as_u64().expect("a number"));
    let both = lab.call(&["plan", "show", text(&file)]);
    assert!(both.code == Some(2) && both.err.contains("cannot be used with"), "{both:?}");
}
