//! The lab: hosts, both edges and the internet as network namespaces, the real sensors on their wires, and senders that
//! know to the packet what they sent. Each test starts itself again in namespaces of its own, so that everything in them
//! goes with the process, whatever becomes of it.
//!
//! ```text
//!  eohhs ──── in-a ┌────────┐ out ──── bos ┌──────────┐
//!                  │ boston │              │ internet │
//!  eopss ──── in-b └────────┘     ┌── low └──────────┘
//!                      mgmt       │
//!  eohhs ──── in-a ┌────────┐ out ┘       centre: where the collector is,
//!                  │ lowell │ mgmt ────── and mgmt leads
//!                  └────────┘
//! ```

mod auto;
mod blind;
mod edges;
mod flows;
mod libpcap;
mod offload;
mod ways;

use std::{path::Path, process::Command, time::Duration};

use nix::sched::{CloneFlags, setns};

use crate::harness::{self, Background, run};

/// Makes the private places that `ip netns` writes to.
const PRIVATE: &str = "mount -t tmpfs tmpfs /run && mkdir /run/netns && ip link set lo up";

/// Namespaces of network, mounts and processes. The test is the first process of its own, so that the kernel ends every
/// other with it, and it ends with whoever started it.
const UNSHARE: &[&str] = &["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"];

/// Whether this machine lets a test make namespaces; else says so aloud.
fn permitted() -> bool {
    let probe = run(Command::new("unshare").args(UNSHARE).args(["sh", "-c", PRIVATE]));
    if probe.code != Some(0) {
        harness::say(&format!(
            "SKIPPED: this machine lets nobody make network namespaces: {}",
            probe.err.trim()
        ));
    }
    probe.code == Some(0)
}

/// Whether the kernel lets the agent meter by eBPF here; else says so aloud.
fn bpf_permitted() -> bool {
    let probe = onenet_ebpf::Meter::load(
        &onenet_ebpf::Options {
            max_flows: 1024,
            max_flows_v6: 1024,
            ..onenet_ebpf::Options::new("none", onenet_core::decode::InterfaceIndex(0))
        },
        true,
    );
    match probe {
        Ok(_) => true,
        Err(error) => {
            harness::say(&format!("SKIPPED by eBPF: {error}"));
            false
        }
    }
}

/// Runs an ignored test of this file in namespaces of its own, after this script.
fn inside(test: &str, set_up: &str) {
    if !permitted() {
        return;
    }
    // Built here, outside, where a build may need the network.
    let programs = harness::program("onenet-agent");
    let own = std::env::current_exe().expect("the path of this test");
    let script = format!("{PRIVATE} && {set_up} && exec \"$0\" --exact lab::{test} --ignored --nocapture");
    let told = run(Command::new("unshare")
        .args(UNSHARE)
        .args(["sh", "-ec", &script, harness::text(&own)])
        // A file system of its own, so that files go too.
        .env("TMPDIR", "/run")
        .env("ONENET_PROGRAMS", programs.parent().expect("a directory")));
    for line in told.out.lines().filter(|line| line.starts_with("LAB ")) {
        harness::say(line);
    }
    assert_eq!(told.code, Some(0), "{}\n{}", told.out, told.err);
    assert!(told.out.contains("1 passed"), "{}", told.out);
}

/// A pair of wires without addresses of their own.
fn pair(one: &str, other: &str) -> String {
    let quiet = format!("sysctl -qw net.ipv6.conf.{one}.disable_ipv6=1 net.ipv6.conf.{other}.disable_ipv6=1");
    format!(
        "ip link add {one} type veth peer name {other} && {quiet} && \
         ip link set {one} up && ip link set {other} up"
    )
}

/// Runs something in a network namespace, on a thread of its own.
fn in_namespace<T: Send>(name: &str, what: impl FnOnce() -> T + Send) -> T {
    let namespace = std::fs::File::open(Path::new("/run/netns").join(name)).expect("the namespace is there");
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).expect("the thread goes into the namespace");
            what()
        });
        thread.join().expect("it ends well")
    })
}

/// tcpdump on an interface, from the moment it listens until it is stopped.
struct Beside(Background);

impl Beside {
    fn start(interface: &str, capture: &Path) -> Self {
        let log = capture.with_extension("log");
        let mut command = Command::new("tcpdump");
        command.args(["-Z", "root", "-i", interface, "-B", "65536", "-U", "-w", harness::text(capture)]);
        let beside = Self(Background::start(&mut command, &log));
        harness::wait_for("tcpdump to listen", || beside.0.log().contains("listening on").then_some(()));
        beside
    }

    /// Ends it once what came has been written; it says how many packets it lost, which must be none.
    fn stop(mut self) {
        std::thread::sleep(Duration::from_millis(1500));
        self.0.stop();
        let log = self.0.log();
        assert!(log.contains("0 packets dropped by kernel"), "{log}");
    }
}

/// Packets received and sent by an interface, as it counts them itself.
fn counters(interface: &str) -> (u64, u64) {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").expect("the kernel's table");
    let line = table.lines().find_map(|line| line.trim().strip_prefix(&format!("{interface}:")));
    let numbers: Vec<u64> = line
        .unwrap_or_else(|| panic!("no {interface} in {table}"))
        .split_whitespace()
        .map(|number| number.parse().expect("a number"))
        .collect();
    (numbers[1], numbers[9])
}
