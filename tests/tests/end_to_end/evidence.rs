//! Evidence of a whole day: the store verifies, so does a bundle by nothing but the file, and what is changed is named.

use std::fs;

use onenet_tests::traffic::Options;
use rusqlite::Connection;
use serde_json::Value;

use crate::harness::{AgentConfig, Lab, call, day, text};

const OPTIONS: Options = Options { seed: 3, scale: 0.3 };

/// Batches of all sensors that `verify --format json` has counted.
fn batches(verified: &str) -> u64 {
    let chains: Value = serde_json::from_str(verified).expect("JSON");
    chains.as_array().expect("rows").iter().map(|chain| chain["batches"].as_u64().expect("a number")).sum()
}

#[test]
fn a_day_verifies_in_the_store_and_in_bundles_and_the_first_bad_record_is_named() {
    let (captures, truth) = day(OPTIONS);
    let mut lab = Lab::new(Some(&captures.join("plan.toml")), "");
    lab.start();
    for site in ["boston", "lowell"] {
        lab.enrol(AgentConfig::of_day(&captures, &truth, site)).run_until_end();
    }
    lab.settle();
    let running = lab.call(&["verify", "--format", "json"]).success();
    let finding =
        lab.items("/api/v1/findings").into_iter().find(|finding| finding["rule"] == "overlap.address");
    let finding = finding.expect("the day has overlaps")["finding_id"].as_str().expect("an id").to_owned();
    lab.collector.as_mut().expect("it runs").stop();
    let stopped = lab.call(&["verify", "--format", "json"]).success();
    assert_eq!(batches(&stopped), batches(&running));

    let keys: Value =
        serde_json::from_str(&lab.call(&["cosign-key", "show", "--format", "json"]).success()).expect("JSON");
    let key = keys[0]["key"].as_str().expect("a key");
    let bundle = lab.path("whole.tar");
    lab.call(&["export", "--evidence", "--out", text(&bundle)]).success();
    lab.call(&["export", "--evidence", "--out", text(&bundle)]).fails(2, &["whole.tar", "not overwritten"]);
    let verify = |file, key: &str| {
        call("onenet-collector", &["verify", text(file), "--trust-key", key, "--format", "json"])
    };
    assert_eq!(batches(&verify(&bundle, key).success()), batches(&stopped));
    verify(&bundle, &"0".repeat(64)).fails(1, &["chains.json", "not the trusted one"]);

    let part = lab.path("finding.tar");
    lab.call(&["export", "--evidence", "--out", text(&part), "--finding", &finding]).success();
    let selected = batches(&verify(&part, key).success());
    assert!((1..batches(&stopped)).contains(&selected), "{selected} batches tell of {finding}");

    let mut bytes = fs::read(&bundle).expect("it reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let changed = lab.path("changed.tar");
    fs::write(&changed, bytes).expect("written");
    verify(&changed, key).fails(1, &["first bad record: batches/", "record "]);

    let segment =
        Connection::open(lab.collector_dir().join("data/segments/flows-00000001.db")).expect("it opens");
    let removed = segment.execute("DELETE FROM batches WHERE sensor = 'lowell-1' AND sequence = 2", []);
    assert_eq!(removed.expect("deleted"), 1);
    drop(segment);
    lab.call(&["verify", "--format", "json"]).fails(
        1,
        &[
            "first bad record: segments/flows-00000001.db, row ",
            "lowell-1",
            "sequence 3: expected sequence 2",
        ],
    );
    lab.call(&["verify", "--sensor", "nobody"]).fails(2, &["no sensor is called \"nobody\""]);
}
