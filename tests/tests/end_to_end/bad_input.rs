//! What people and disks get wrong: each mistake gets one clear line and the right exit code, and nothing that was
//! sealed is lost by it.

use std::{fs, net::TcpListener, path::Path, process::Command};

use onenet_tests::traffic::Options;

use crate::{
    harness::{AgentConfig, Background, Edge, Lab, call, day, program, run, text, wait_for},
    store,
};

const OPTIONS: Options = Options { seed: 1, scale: 0.05 };

fn agent_of_lowell() -> AgentConfig {
    let (captures, truth) = day(OPTIONS);
    AgentConfig::of_day(&captures, &truth, "lowell")
}

fn started() -> Lab {
    let (captures, _) = day(OPTIONS);
    let mut lab = Lab::new(Some(&captures.join("plan.toml")), "");
    lab.start();
    lab
}

/// A token of the right form that no collector made, for the authority of one that a collector made.
fn forged(token: &str) -> String {
    let (secret, authority) = token.split_once('.').expect("a secret and an authority");
    let secret: String = secret.chars().rev().collect();
    format!("{secret}.{authority}")
}

#[test]
fn a_token_that_is_wrong_used_or_for_another_sensor_enrols_nobody() {
    let lab = started();
    let edge = lab.configure(agent_of_lowell());
    lab.enrol_with(&edge, "swordfish").fails(2, &["--token", "expected a token"]);
    let token = lab.token(&edge.sensor, &edge.site);
    lab.enrol_with(&edge, &forged(&token)).fails(1, &["token"]);
    lab.enrol_with(&edge, &lab.token("boston-9", "boston")).fails(1, &["token"]);
    lab.enrol_with(&edge, &token).success();
    let other = lab.configure(AgentConfig { sensor: "lowell-2".into(), ..agent_of_lowell() });
    lab.enrol_with(&other, &token).fails(1, &["token"]);
    assert_eq!(lab.sensor("lowell-2"), serde_json::Value::Null);
}

#[test]
fn a_collector_that_is_not_there_is_named() {
    let lab = Lab::new(None, "");
    let edge = lab.configure(agent_of_lowell());
    let token = format!("{}.{}", "s".repeat(32), "0".repeat(64));
    lab.enrol_with(&edge, &token).fails(1, &[&lab.ingest.to_string()]);
}

#[test]
fn a_sensor_that_never_enrolled_is_told_so() {
    let lab = started();
    let edge = lab.configure(agent_of_lowell());
    let told = call("onenet-agent", &["run", "--config", text(&edge.config), "--until-end"]);
    told.fails(1, &["enroll"]);
}

#[test]
fn a_capture_that_breaks_is_told_and_what_came_before_is_delivered() {
    let lab = started();
    let (captures, _) = day(OPTIONS);
    let whole = fs::read(captures.join("lowell-outside.pcap")).expect("a capture");
    let cut = lab.path("cut.pcap");
    fs::write(&cut, &whole[..whole.len() / 2]).expect("it is written");
    let tables = format!("[[source]]\nkind = \"pcap-file\"\npath = {:?}\n", text(&cut));
    let edge = lab.enrol(AgentConfig {
        sensor: "lowell-1".into(),
        site: "lowell".into(),
        tables,
        ..AgentConfig::default()
    });
    let mut agent = edge.start(&["--until-end"]);
    assert_eq!(agent.wait().code(), Some(1), "{}", agent.log());
    let log = agent.log();
    let last = log.lines().last().unwrap_or_default();
    for expected in ["error: 1 of 1 captures not read to their end", "cut.pcap", "broken at byte"] {
        assert!(last.contains(expected), "{expected}: {log}");
    }
    let status = edge.status();
    assert!(status["packets"].as_u64().is_some_and(|packets| packets > 0), "{status}");
    let sensor = lab.sensor(&edge.sensor);
    assert_eq!(sensor["flows"], status["flow_records"], "{sensor}");
    assert_eq!(sensor["ledger"]["packets"], status["packets"], "{sensor}");
}

/// Runs an agent that the collector refuses, until its log says why, and checks that its spool keeps everything.
fn is_refused(edge: &Edge, expected: &str) -> Background {
    let mut agent = edge.start(&["--until-end"]);
    wait_for(expected, || {
        let log = agent.log();
        (agent.ended().is_some() || log.contains(expected)).then_some(())
    });
    assert!(agent.log().contains(expected), "{}", agent.log());
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
    agent
}

#[test]
fn a_revoked_sensor_is_refused_and_its_spool_keeps_everything() {
    let lab = started();
    let edge = lab.enrol(agent_of_lowell());
    lab.call(&["sensors", "revoke", &edge.sensor]).success();
    let mut agent = is_refused(&edge, "revoked");
    agent.stop();
    let status = edge.status();
    assert!(status["batches_sealed"].as_u64() > status["batches_acked"].as_u64(), "{status}");
    assert!(!store::read(&lab.collector_dir()).contains_key(&edge.sensor));
    assert_eq!(lab.sensor(&edge.sensor)["state"], "revoked");
    lab.call(&["sensors", "revoke", "nobody"]).fails(2, &["nobody"]);

    // With a new token it is a sensor again, and what waited is delivered.
    let token = lab.token(&edge.sensor, &edge.site);
    lab.enrol_with(&edge, &token).success();
    edge.run_until_end();
    let status = edge.status();
    let stored = store::read(&lab.collector_dir()).remove(&edge.sensor).expect("batches");
    assert_eq!(status["batches_sealed"].as_u64(), Some(stored.batches.len() as u64), "{status}");
}

#[test]
fn a_sensor_that_the_collector_does_not_know_is_refused() {
    let mut lab = started();
    let edge = lab.enrol(agent_of_lowell());
    lab.collector.as_mut().expect("it runs").stop();
    fs::remove_dir_all(lab.collector_dir().join("data")).expect("its store");
    lab.start();
    let mut agent = is_refused(&edge, "enrolled here");
    agent.stop();
    assert!(store::read(&lab.collector_dir()).is_empty());
}

#[test]
fn a_port_in_use_is_named() {
    let mut lab = Lab::new(None, "");
    for (address, _holder) in
        [lab.ingest, lab.web].map(|address| (address, TcpListener::bind(address).expect("a port of ours")))
    {
        lab.launch();
        let collector = lab.collector.as_mut().expect("just launched");
        let status = collector.wait();
        assert_eq!(status.code(), Some(1), "{}", collector.log());
        assert!(collector.log().contains(&address.port().to_string()), "{}", collector.log());
        assert!(!collector.log().contains("panicked"), "{}", collector.log());
        fs::remove_file(lab.path("collector.log")).expect("its log");
    }
}

#[test]
fn a_configuration_with_a_wrong_key_is_refused_with_its_place() {
    let lab = Lab::new(None, "[colour]\nblue = 1\n");
    lab.call(&["run"]).fails(2, &["collector.toml:", "colour"]);

    let lab = Lab::new(None, "");
    let edge =
        lab.configure(AgentConfig { tables: "[batch]\nmax_recrods = 5\n".into(), ..agent_of_lowell() });
    for command in ["check-config", "run", "enroll"] {
        let mut arguments = vec![command, "--config", text(&edge.config)];
        if command == "enroll" {
            arguments.extend(["--collector", "https://127.0.0.1:1", "--token", "x"]);
        }
        call("onenet-agent", &arguments).fails(2, &["agent.toml:", "max_recrods", "max_records"]);
    }
    call("onenet-agent", &["run", "--config", "/nowhere/agent.toml"]).fails(2, &["/nowhere/agent.toml"]);
    let told = call("onenet-agent", &["run", "--no-such-option"]);
    assert_eq!(told.code, Some(2), "{told:?}");
}

/// Runs an agent in a mount namespace of its own, after a command that mounts something.
fn start_with_mount(edge: &Edge, mount: &str) -> Option<Background> {
    fs::create_dir_all(&edge.state_dir).expect("a directory");
    let probe = run(Command::new("unshare").args(["--mount", "sh", "-c", mount]));
    if probe.code != Some(0) {
        println!("SKIPPED: this machine lets nobody mount here: {}", probe.err.trim());
        return None;
    }
    let run = format!("{mount} && exec \"$0\" run --config \"$1\" --until-end");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &run, text(&program("onenet-agent")), text(&edge.config)]);
    Some(Background::start(&mut command, &edge.log))
}

/// A copy of what `enroll` made, into a directory that something will be mounted over.
fn copied(from: &Path, to: &str) -> String {
    format!("cp -a {from}/. {to}/", from = text(from))
}

#[test]
fn a_spool_that_cannot_be_written_is_named() {
    let lab = started();
    let edge = lab.enrol(agent_of_lowell());
    let state = text(&edge.state_dir);
    let mount = format!("mount --bind {state} {state} && mount -o remount,ro,bind {state}");
    let Some(mut agent) = start_with_mount(&edge, &mount) else { return };
    let status = agent.wait();
    assert_eq!(status.code(), Some(1), "{}", agent.log());
    let log = agent.log();
    assert!(log.contains(state) && log.contains("Read-only file system"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_full_disk_under_the_spool_is_told_and_loses_nothing_silently() {
    let (captures, truth) = day(OPTIONS);
    let mut lab = Lab::new(Some(&captures.join("plan.toml")), "");
    lab.start();
    let edge = lab.enrol(AgentConfig::of_day(&captures, &truth, "lowell"));
    // Nobody takes what is sealed, so the disk fills.
    lab.collector.as_mut().expect("it runs").stop();
    let (state, kept) = (text(&edge.state_dir), lab.path("kept"));
    fs::create_dir_all(&kept).expect("a directory");
    let mount = format!(
        "{} && mount -t tmpfs -o size=1m tmpfs {state} && {}",
        copied(&edge.state_dir, text(&kept)),
        copied(&kept, state)
    );
    let Some(mut agent) = start_with_mount(&edge, &mount) else { return };
    wait_for("a word about the full disk", || {
        let log = agent.log();
        (agent.ended().is_some() || log.contains("No space left") || log.contains("full")).then_some(())
    });
    let log = agent.log();
    assert!(log.contains("No space left") || log.contains("full"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    match agent.ended() {
        Some(status) => assert_eq!(status.code(), Some(1), "{log}"),
        None => {
            agent.stop();
        }
    }
}

#[test]
fn a_capture_that_cannot_be_read_is_named_and_what_is_readable_counts() {
    let (captures, truth) = day(OPTIONS);
    let directory = tempfile::tempdir().expect("a directory");
    let whole = fs::read(captures.join("lowell-outside.pcap")).expect("a capture");
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path
    };
    let read = |path: &Path| {
        let summary = directory.path().join("summary.json");
        let _ = fs::remove_file(&summary);
        let flows = directory.path().join("flows.json");
        let arguments = ["read", "--flows", text(&flows), "--summary", text(&summary), text(path)];
        let told = call("onenet-agent", &arguments);
        let packets = fs::read(&summary).ok().and_then(|summary| {
            let summary: serde_json::Value = serde_json::from_slice(&summary).expect("JSON");
            summary["ledger"]["packets"].as_u64()
        });
        (told, packets)
    };
    let (told, packets) = read(&file("whole.pcap", &whole));
    assert_eq!((told.code, packets), (Some(0), Some(truth.files["lowell-outside.pcap"].packets)), "{told:?}");
    for (name, bytes, some) in [
        ("cut.pcap", &whole[..whole.len() / 2], true),
        ("empty.pcap", &[][..], false),
        ("text.pcap", &b"this is no capture at all, only text"[..], false),
    ] {
        let (told, packets) = read(&file(name, bytes));
        assert_eq!(told.code, Some(1), "{name}: {told:?}");
        assert!(told.err.contains(name), "{name}: {told:?}");
        assert!(!told.err.contains("panicked"), "{name}: {told:?}");
        assert_eq!(packets.unwrap_or(0) > 0, some, "{name}: {told:?}");
    }
    let (told, _) = read(&directory.path().join("missing.pcap"));
    assert!(matches!(told.code, Some(1 | 2)) && told.err.contains("missing.pcap"), "{told:?}");
}
