//! The work of one packet is bounded: instructions of the costliest packets there are, against an ordinary one, by
//! callgrind.

use std::{path::Path, process::Command};

use onenet_tests::work::{PACKETS, SORTS};

use crate::kit::say;

/// The costliest packet may cost this many ordinary ones. Measured: 16.5, a DHCP message full of options.
const BOUND: f64 = 32.0;

/// Instructions per packet of each sort, in order.
fn instructions(scratch: &Path) -> Vec<u64> {
    let out = scratch.join("callgrind.out");
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--toggle-collect=onenet_work::measured*"])
        .arg("--dump-after=onenet_work::sort_ends*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env!("CARGO_BIN_EXE_onenet-work"))
        .output()
        .expect("valgrind runs");
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let dump = |number: usize| {
        let text = std::fs::read_to_string(scratch.join(format!("callgrind.out.{number}")))
            .expect("a dump for each sort");
        let total =
            text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
        total.and_then(|total| total.trim().parse::<u64>().ok()).expect("a dump has a total")
            / u64::from(PACKETS)
    };
    (1..=SORTS.len()).map(dump).collect()
}

#[test]
fn no_packet_costs_much_more_than_an_ordinary_one() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        say("SKIPPED: valgrind is not installed; the work of a packet was not counted");
        return;
    }
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let counts = instructions(scratch.path());
    let ordinary = counts[0];
    let ratio = |count: u64| count as f64 / ordinary as f64;
    let mut sorts: Vec<_> = SORTS.iter().map(|(name, _)| *name).zip(counts).collect();
    sorts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (name, count) in &sorts {
        say(&format!("  {count:>8} instructions, {:>6.2} of an ordinary packet: {name}", ratio(*count)));
    }
    let worst = sorts[0];
    say(&format!("worst packet: {:.2} ordinary ones ({}); bound {BOUND}", ratio(worst.1), worst.0));
    assert!(ratio(worst.1) <= BOUND, "{} costs {:.1} ordinary packets", worst.0, ratio(worst.1));
}
