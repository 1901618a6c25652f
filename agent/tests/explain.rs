//! `onenet-agent read --explain`, `--tunnels` and mirrors as a user meets them: golden texts, and what is said of
//! wrong usage.

#![expect(clippy::expect_used, reason = "a test stops where it finds what it did not expect")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

fn read(arguments: &[&str], paths: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onenet-agent"));
    command.arg("read").args(arguments).args(paths).output().expect("the agent runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4], flags: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(20 + payload.len()).expect("a short packet").to_be_bytes();
    let header = [0x45, 0, high, low, 0, 7, flags[0], flags[1], 64, protocol, 0, 0];
    [&header[..], &from, &to, payload].concat()
}

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("a short datagram");
    let header = [from, to, length, 0].map(u16::to_be_bytes);
    [&header.concat()[..], payload].concat()
}

fn frame(ether_type: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], &ether_type, payload].concat()
}

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 9, 0, 2];

/// A frame on VLAN 20 with DNS in it.
fn query() -> Vec<u8> {
    let ip = ipv4(17, [192, 168, 0, 1], [192, 168, 0, 53], [0, 0], &udp(5000, 53, b"query"));
    frame([0x81, 0], &[&[0, 20, 8, 0][..], &ip].concat())
}

/// ERSPAN type II of session 5.
fn erspan(sequence: u8, copy: &[u8]) -> Vec<u8> {
    let header = [0x10, 0, 0x88, 0xbe, 0, 0, 0, sequence, 0x10, 20, 0x18, 5, 0, 0, 0, 0];
    frame([8, 0], &ipv4(47, A, B, [0, 0], &[&header[..], copy].concat()))
}

/// What the captures of these tests hold.
fn packets() -> Vec<Vec<u8>> {
    let later = ipv4(17, A, B, [0x20, 9], &[1; 16]);
    let tcp = [0xc3, 0x50, 1, 0xbb, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 0x02, 4, 0, 0, 0, 0, 0];
    vec![
        erspan(1, &query()),
        frame([8, 0], &later),
        frame([8, 6], &[&[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1][..], &A, &[0; 6], &B].concat()),
        frame([8, 0], &[0x45, 0, 0, 60]),
        frame([8, 0], &ipv4(6, A, B, [0, 0], &tcp)),
        erspan(4, &query()[..17]),
    ]
}

fn capture(directory: &Path) -> PathBuf {
    let mut bytes = [0xa1b2_c3d4_u32, 0x0002_0004, 0, 0, 65535, 1].map(u32::to_be_bytes).concat();
    for (second, packet) in (0..).zip(packets()) {
        let length = u32::try_from(packet.len()).expect("a short packet");
        bytes.extend([1_700_000_000 + second, 0, length, length].map(u32::to_be_bytes).concat());
        bytes.extend(packet);
    }
    let path = directory.join("edge.pcap");
    fs::write(&path, bytes).expect("a file");
    path
}

/// Explains one packet; the directory of the capture is left out.
fn explained(arguments: &[&str], number: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let path = capture(directory.path());
    let output = read(&[&["--explain", number], arguments].concat(), &[&path]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    text(&output.stdout).replace(&format!("{}/", directory.path().display()), "")
}

fn assert_golden(arguments: &[&str], number: &str, golden: &str) {
    let told = explained(arguments, number);
    assert_eq!(told.trim_end(), golden.trim(), "\n{told}");
}

#[test]
fn a_packet_in_a_tunnel_is_explained_layer_by_layer_with_both_flows() {
    assert_golden(&[], "1", include_str!("golden/explain-tunnel.txt"));
}

#[test]
fn packets_that_stay_outside_flows_say_why() {
    assert_golden(&[], "2", include_str!("golden/explain-fragment.txt"));
    assert_golden(&[], "3", include_str!("golden/explain-arp.txt"));
    assert_golden(&[], "4", include_str!("golden/explain-truncated.txt"));
    assert_golden(&[], "5", include_str!("golden/explain-tcp.txt"));
    assert_golden(&[], "6", include_str!("golden/explain-unopened.txt"));
    assert_golden(&["--tunnels", "outer"], "1", include_str!("golden/explain-outer.txt"));
}

fn with_mirror(directory: &Path) -> PathBuf {
    let path = directory.join("agent.toml");
    let mirror =
        "[[interface]]\nname = 'span0'\nrole = 'inside'\n[[mirror]]\nname = 'span0'\nkind = 'erspan'\n";
    fs::write(&path, format!("{mirror}destination = '10.9.0.2'\nid = 5\n")).expect("a file");
    path
}

#[test]
fn a_copy_of_a_mirror_is_explained_as_captured_on_its_interface() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = with_mirror(directory.path());
    let config = config.to_str().expect("a path");
    assert_golden(&["--config", config], "1", include_str!("golden/explain-mirror.txt"));
}

/// Flows as protocol, interface and tunnel, and the ledger.
fn flows_and_ledger(arguments: &[&str]) -> (Vec<(u64, String, bool)>, Value) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = capture(directory.path());
    let summary = directory.path().join("summary.json");
    let summary_option = ["--quiet", "--flows", "-", "--summary", summary.to_str().expect("a path")];
    let output = read(&[&summary_option, arguments].concat(), &[&path]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let flows = text(&output.stdout);
    let flows = flows.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut flows: Vec<_> = flows
        .map(|flow| {
            let interface = flow["interface"].as_str().unwrap_or_default().to_owned();
            (flow["protocol"].as_u64().unwrap_or_default(), interface, !flow["tunnel"].is_null())
        })
        .collect();
    flows.sort_unstable();
    let summary: Value = serde_json::from_slice(&fs::read(summary).expect("a file")).expect("JSON");
    (flows, summary["ledger"].clone())
}

fn flow(protocol: u64, interface: &str, tunnelled: bool) -> (u64, String, bool) {
    (protocol, interface.to_owned(), tunnelled)
}

#[test]
fn tunnels_count_to_the_flows_that_are_asked_for() {
    let rest = [flow(6, "edge", false), flow(17, "edge", false)];
    let outer = flow(47, "edge", false);
    let inner = flow(17, "edge", true);
    for (which, expected) in [
        ("both", vec![rest[0].clone(), rest[1].clone(), inner.clone(), outer.clone()]),
        ("inner", vec![rest[0].clone(), rest[1].clone(), inner, outer.clone()]),
        ("outer", vec![rest[0].clone(), rest[1].clone(), outer]),
    ] {
        let (flows, ledger) = flows_and_ledger(&["--tunnels", which]);
        assert_eq!(flows, expected, "{which}");
        let unopened = if which == "outer" { 0 } else { 1 };
        assert_eq!((&ledger["packets"], &ledger["balanced"]), (&6.into(), &true.into()));
        assert_eq!(ledger["tunnels_unopened"], unopened, "{which}");
    }
}

#[test]
fn a_mirror_is_stripped_counted_and_its_losses_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = with_mirror(directory.path());
    let (flows, ledger) = flows_and_ledger(&["--config", config.to_str().expect("a path")]);
    assert_eq!(flows, [flow(6, "edge", false), flow(17, "edge", false), flow(17, "span0", false)]);
    assert_eq!((&ledger["mirrored"], &ledger["balanced"]), (&2.into(), &true.into()));
    assert_eq!(ledger["mirror_bytes"], 2 * (14 + 20 + 16));
    assert_eq!(ledger["dropped_by"][0]["stage"], "mirror");
    assert_eq!(ledger["dropped_by"][0]["packets"], 2, "numbers 2 and 3 did not come");
    assert_eq!(ledger["tunnels_unopened"], 0);
}

#[test]
fn a_configuration_that_is_checked_shows_its_mirrors() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = with_mirror(directory.path());
    let text_of_config = fs::read_to_string(&config).expect("a file");
    let nameless = text_of_config.replace("[[interface]]\nname = 'span0'\nrole = 'inside'\n", "");
    for (body, warns) in [(&text_of_config, false), (&nameless, true)] {
        fs::write(&config, format!("[sensor]\nname = 'b1'\nsite = 'boston'\n{body}")).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_onenet-agent"));
        let output =
            command.arg("check-config").arg("--config").arg(&config).output().expect("the agent runs");
        let told = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(told.contains("mirror     span0: erspan 5 to 10.9.0.2/32; its tunnel is stripped"), "{told}");
        let warning = "warning: mirror span0 has no [[interface]] named span0 with a role";
        assert_eq!(told.contains(warning), warns, "{told}");
    }
}

#[test]
fn wrong_usage_of_explain_is_told_in_one_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = capture(directory.path());
    let output = read(&["--explain", "7"], &[&path]);
    let told = text(&output.stderr);
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1));
    assert!(told.contains("edge.pcap: has 6 packets, there is no packet 7"), "{told}");
    let output = read(&["--explain", "1"], &[&path, &path]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(told.contains("--explain takes one capture, 2 are named"), "{told}");
    for (number, expected) in [("0", "0 is not in 1.."), ("x", "invalid value 'x' for '--explain <N>'")] {
        let output = read(&["--explain", number], &[&path]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2));
        assert!(told.contains(expected), "{told}");
    }
    let mut damaged = fs::read(&path).expect("a file");
    damaged.truncate(24 + 16 + 50);
    fs::write(&path, damaged).expect("a file");
    let output = read(&["--explain", "1"], &[&path]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("it gave 0 packets before that, so there is no packet 1"), "{told}");
}
