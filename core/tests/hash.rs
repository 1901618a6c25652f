//! The hash of flows is keyed: tuples that were crafted to collide under another key cost what any tuples cost,
//! counted in instructions. This program runs itself under callgrind for that.

#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test stops where it finds what it did not expect, and starts itself"
)]

use std::{hint::black_box, net::Ipv4Addr, process::Command};

use onenet_core::flow::key::{FlowKey, KeyedHash};

const FLOWS: usize = 20_000;
const CASE: &str = "ONENET_HASH_CASE";

fn key(number: u32) -> FlowKey {
    let [a, b, c, d] = number.to_be_bytes();
    let source = (Ipv4Addr::new(10, a, b, c).into(), 1024 + u16::from(d));
    FlowKey::new(0, 17, source, (Ipv4Addr::new(192, 0, 2, 1).into(), 53), false).0
}

/// Keys whose hashes agree in the bits that choose a place, under a key that anybody may know.
fn crafted() -> Vec<FlowKey> {
    let known = KeyedHash::new([0; 4]);
    (0..).map(key).filter(|key| known.of(key) & 0x3ff == 0).take(FLOWS).collect()
}

fn random() -> Vec<FlowKey> {
    (0..).map(|number: u32| key(number.wrapping_mul(0x9e37_79b1))).take(FLOWS).collect()
}

/// Inserts every key once and finds it once. Callgrind counts in here alone.
#[inline(never)]
fn counted_fill(keys: &[FlowKey], hash: &KeyedHash) -> usize {
    let mut table: hashbrown::HashTable<u32> = hashbrown::HashTable::new();
    let mut found = 0;
    for (number, key) in (0_u32..).zip(keys) {
        let at = |number: &u32| hash.of(&keys[*number as usize]);
        table.insert_unique(hash.of(key), number, at);
        let held = table.find(hash.of(key), |&number| keys[number as usize] == *key);
        found += usize::from(held.is_some());
    }
    found
}

/// What callgrind counts for one case; none where it is not installed.
fn instructions(case: &str) -> Option<u64> {
    let program = std::env::current_exe().expect("this program");
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*counted_fill*"])
        .arg(program)
        .args(["--exact", "one_case", "--nocapture"])
        .env(CASE, case)
        .output()
        .ok()?;
    let told = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{told}");
    let collected = told.lines().find_map(|line| line.split_once("Collected :")).expect("a count");
    Some(collected.1.trim().parse().expect("a number"))
}

#[test]
fn one_case() {
    let Ok(case) = std::env::var(CASE) else { return };
    let keys = match case.as_str() {
        "crafted" => crafted(),
        "in order" => (0..).map(key).take(FLOWS).collect(),
        _ => random(),
    };
    // The key of a sensor, which nobody outside knows.
    let hash = KeyedHash::new([0x0123_4567, 0x89ab_cdef, 0x0246_8ace, 0x1357_9bdf]);
    assert_eq!(black_box(counted_fill(&keys, &hash)), FLOWS);
}

#[test]
fn tuples_crafted_to_collide_cost_no_more_than_a_fifth_more() {
    let Some(random) = instructions("random") else {
        eprintln!("valgrind is not installed: the cost of crafted tuples was not counted");
        return;
    };
    for case in ["crafted", "in order"] {
        let count = instructions(case).expect("valgrind, as before");
        let ratio = count as f64 / random as f64;
        eprintln!("{case}: {count} instructions, random {random}: {ratio:.3}");
        assert!(count > 0 && ratio <= 1.2, "{case}: {ratio:.3} of random tuples");
    }
}
