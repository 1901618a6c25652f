//! A collector that is restored from an older copy: its sensors hold its own signature against it, and go on only once
//! an operator has said so; then what is missing is told to the record.

use std::{fs, process::Command, time::Duration};

use onenet_tests::traffic::Options;

use crate::{
    harness::{AgentConfig, Lab, call, day, run, text, wait_for},
    store,
};

const OPTIONS: Options = Options { seed: 5, scale: 0.1 };

#[test]
fn a_restored_collector_is_refused_until_an_operator_accepts_it_and_then_what_is_missing_is_told() {
    let (captures, truth) = day(OPTIONS);
    let mut lab = Lab::new(Some(&captures.join("plan.toml")), "");
    lab.start();
    let mut config = AgentConfig::of_day(&captures, &truth, "lowell");
    config.top = "heartbeat_seconds = 1\n".into();
    let edge = lab.enrol(config);
    let (data, copy) = (lab.collector_dir().join("data"), lab.path("copy"));
    lab.collector.as_mut().expect("it runs").stop();
    run(Command::new("cp").args(["-a", text(&data), text(&copy)])).success();
    lab.start();
    edge.run_until_end();
    let before = edge.status();
    assert!(before["cosigned_batch"].as_u64() == before["batches_acked"].as_u64(), "{before}");
    let config = ["--config", text(&edge.config)];
    let spool = |arguments: &[&str]| call("onenet-agent", &[&["spool"], arguments, &config].concat());
    spool(&["accept-head"]).fails(1, &["nothing to accept"]);

    lab.collector.as_mut().expect("it runs").stop();
    fs::remove_dir_all(&data).expect("its store");
    run(Command::new("cp").args(["-a", text(&copy), text(&data)])).success();
    lab.start();
    let mut agent = edge.start(&[]);
    let refused = || edge.status()["collector_set_back"].as_bool().filter(|&set_back| set_back);
    wait_for("a word about the restored collector", refused);
    let log = agent.log();
    assert!(log.contains("it was set back; nothing is sent until an operator accepts that"), "{log}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(edge.status()["epoch"], before["epoch"], "nothing is sealed anew");
    assert!(!store::read(&lab.collector_dir()).contains_key(&edge.sensor), "nothing is sent");
    let inspected = spool(&["inspect", "--format", "json"]).success();
    assert!(inspected.contains("\"waiting_batches\""), "{inspected}");
    assert!(spool(&["verify"]).success().contains("sound"));

    assert!(spool(&["accept-head"]).success().starts_with("accepted: the collector holds no batch"));
    wait_for("everything is acked", || {
        let status = edge.status();
        (status["connected"] == true && status["batches_acked"].as_u64() > Some(0)).then_some(())
    });
    agent.stop();
    let status = edge.status();
    let losses = status["losses"].as_array().cloned().unwrap_or_default();
    println!("{losses:?}");
    assert!(losses.iter().any(|loss| loss["what"] == "batch" && loss["reason"] == "not-held"), "{status}");
    assert_eq!(status["collector_untrusted"], serde_json::Value::Null);
    lab.collector.as_mut().expect("it runs").stop();
    assert!(store::read(&lab.collector_dir()).contains_key(&edge.sensor));
}
