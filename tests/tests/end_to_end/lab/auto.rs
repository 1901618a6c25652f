//! Where eBPF is not to be had: `auto` reads by libpcap and says why in log, status and metrics; `ebpf` ends with one line
//! that says what to do.

use std::{fs, process::Command};

use onenet_tests::wire::Wire;

use super::{inside, libpcap::frames, pair};
use crate::harness::{AgentConfig, Background, Edge, Lab, program, run, text, wait_for};

/// Starts a program without the capabilities that eBPF needs.
const WITHOUT: [&str; 3] = ["setpriv", "--bounding-set", "-sys_admin,-bpf,-perfmon"];

#[test]
fn where_ebpf_is_not_to_be_had_auto_takes_libpcap_and_says_why() {
    inside("auto::in_the_lab", &pair("tap0", "wire0"));
}

fn enrolled(lab: &Lab, kind: &str, interface: &str) -> Edge {
    lab.enrol(AgentConfig {
        sensor: format!("{kind}-{interface}"),
        site: "boston".into(),
        plan: None,
        top: String::new(),
        tables: format!("[[source]]\nkind = \"{kind}\"\ninterface = \"{interface}\"\n"),
    })
}

fn command(edge: &Edge) -> Command {
    let [first, rest @ ..] = WITHOUT;
    let mut command = Command::new(first);
    command.args(rest).arg(program("onenet-agent")).args(["run", "--config", text(&edge.config)]);
    command
}

#[test]
#[ignore = "runs in the namespaces that where_ebpf_is_not_to_be_had_auto_takes_libpcap_and_says_why makes"]
fn in_the_lab() {
    let mut lab = Lab::new(None, "");
    lab.start();
    let edge = enrolled(&lab, "auto", "tap0");
    let mut agent = Background::start(&mut command(&edge), &edge.log);
    wait_for("the agent to run", || {
        assert!(agent.ended().is_none(), "{}", agent.log());
        edge.state_dir.join("status.json").is_file().then_some(())
    });
    Wire::open("wire0").and_then(|wire| wire.send(&frames(1000, 10, true), 10_000)).expect("sent");
    wait_for("the packets", || (edge.status()["packets"] == 1000).then_some(()));
    let why = "because eBPF is not to be had: eBPF needs the capabilities CAP_BPF";
    let method = edge.status()["sources"][0]["method"].as_str().expect("a method").to_owned();
    assert!(method.starts_with("libpcap") && method.contains(why), "{method}");
    assert!(agent.log().contains(&format!("interface tap0: read by libpcap, {why}")), "{}", agent.log());
    let metrics = fs::read_to_string(edge.state_dir.join("metrics.prom")).expect("metrics");
    assert!(metrics.contains(why), "{metrics}");
    assert!(agent.stop().success(), "{}", agent.log());

    for (kind, interface, expected) in [
        ("ebpf", "tap0", "interface tap0: eBPF needs the capabilities CAP_BPF"),
        ("auto", "nowhere0", "nowhere0"),
    ] {
        let told = run(&mut command(&enrolled(&lab, kind, interface)));
        assert_eq!(told.code, Some(1), "{told:?}");
        let errors: Vec<&str> = told.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{told:?}");
        assert!(!told.err.contains("panicked"), "{told:?}");
    }
    println!("LAB {method}");
}
