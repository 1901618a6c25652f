//! Cases that need namespaces of their own: a test starts itself again in them, and everything in them goes with it.

use std::process::Command;

use crate::{
    harness::{self, run, say, text},
    kit::feed_program,
};

/// Namespaces of mounts and processes: the kernel ends every process in them with the first.
const MOUNTS: &[&str] = &["--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"];
/// And of networks; then `ip netns` writes to places that nobody else sees.
const NETWORKS: &[&str] = &["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"];

/// What a case needs of its own.
#[derive(Clone, Copy)]
pub(crate) enum Own {
    /// Mounts.
    Mounts,
    /// Mounts and networks.
    Networks,
}

/// Runs an ignored test of this target in namespaces of its own, after this script. Says aloud where this machine does not
/// let it.
pub(crate) fn inside(test: &str, own: Own, set_up: &str) {
    let (namespaces, private) = match own {
        Own::Mounts => (MOUNTS, "true"),
        Own::Networks => (NETWORKS, "mount -t tmpfs tmpfs /run && mkdir /run/netns && ip link set lo up"),
    };
    let probe =
        run(Command::new("unshare").args(namespaces).args(["sh", "-ec", &format!("{private}; {set_up}")]));
    if probe.code != Some(0) {
        say(&format!("SKIPPED {test}: this machine does not let it: {}", probe.err.trim()));
        return;
    }
    // Built here, outside, where a build may need the network.
    let agent = harness::program("onenet-agent");
    let programs = agent.parent().expect("a directory");
    let own = std::env::current_exe().expect("the path of this test");
    let script = format!("{private}\n{set_up}\nexec \"$0\" --exact {test} --ignored --nocapture");
    let told = run(Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-ec", &script, text(&own)])
        .env("ONENET_PROGRAMS", programs)
        .env("ONENET_FEED", feed_program()));
    for line in told.err.lines().filter(|line| line.starts_with("SOAK ") || line.starts_with("SKIPPED ")) {
        say(line);
    }
    assert_eq!(told.code, Some(0), "{}\n{}", told.out, told.err);
    assert!(told.out.contains("1 passed"), "{}", told.out);
}
