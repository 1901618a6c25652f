//! beacon.

use proptest::prelude::*;

use super::*;
use crate::{detect::BeaconConfig, record::Severity};

const C2: &str = "203.0.112.9";

/// Another host's call at the very beginning, so that the window of the score begins there.
fn begin(bench: &mut Bench) {
    bench.succeed(&Call::tcp(INSIDE, "10.40.0.200", "93.1.1.1", 443), 0.1);
}

fn calls(bench: &mut Bench, source: &str, target: &str, count: u32, interval: f64) {
    for n in 0..count {
        bench.succeed(&Call::tcp(INSIDE, source, target, 443).at(10.0 + f64::from(n) * interval), 0.2);
    }
}

#[test]
fn a_host_that_calls_every_minute_for_hours_beacons() {
    let mut bench = Bench::new();
    begin(&mut bench);
    calls(&mut bench, "10.40.0.1", C2, 240, 60.0);
    bench.finish();
    assert_eq!(bench.raised(), ["beacon|eohhs/10.40.0.1|203.0.112.9|tcp/443"]);
    let finding = bench.last();
    assert_eq!((finding.severity, finding.confidence), (Severity::Medium, 95));
    assert_eq!(finding.evidence.counts["connections"], 240);
    assert_eq!(finding.evidence.scores["interval_seconds"], 60.0);
    assert!(finding.evidence.scores["score"] > 0.95, "{:?}", finding.evidence.scores);
    assert_eq!(finding.evidence.flow_ids.len(), 8);
}

#[test]
fn jitter_of_a_fifth_does_not_hide_it() {
    let mut bench = Bench::new();
    begin(&mut bench);
    let mut at = 10.0;
    for n in 0..200u32 {
        let jitter = f64::from(n.wrapping_mul(2_654_435_761) >> 16) / 65_536.0 - 0.5;
        at += 60.0 * (1.0 + 0.4 * jitter);
        bench.succeed(&Call::tcp(INSIDE, "10.40.0.1", C2, 443).at(at), 0.2);
    }
    bench.finish();
    assert_eq!(bench.raised().len(), 1, "{:?}", bench.detector.beacon.remembered());
}

#[test]
fn what_is_no_beacon_is_not_raised() {
    let mut bench = Bench::new();
    begin(&mut bench);
    for n in 0..240u32 {
        let second = 10.0 + f64::from(n) * 60.0;
        let call = |source, target| Call::tcp(INSIDE, source, target, 443).at(second);
        // A host that keeps failing to connect.
        bench.ignore(&call("10.40.0.2", "93.0.0.2"), 0);
        bench.refuse(&call("10.40.0.2", "93.0.0.3"));
        // A monitoring service that the plan knows.
        bench.succeed(&call("10.40.0.3", "17.1.1.1"), 0.1);
        // A monitor that polls one of ours.
        bench.succeed(&call("10.40.0.4", "10.80.0.1"), 0.1);
        // The internet that calls us.
        bench.succeed(&call("93.0.0.5", "146.243.1.1"), 0.1);
        // A time server.
        let time = Call { protocol: 17, target: (ip("93.0.0.6"), 123), ..call("10.40.0.6", "93.0.0.6") };
        bench.succeed(&time, 0.1);
        // A person: bursts, pauses, pages of any size.
        let irregular = f64::from(n.wrapping_mul(2_654_435_761) >> 12) / 1_048_576.0;
        let page = Call {
            bytes: 400 + u64::from(n.wrapping_mul(40_503) >> 3) % 90_000,
            ..call("10.40.0.7", "93.0.0.7")
        };
        bench.succeed(&page.at(10.0 + 14_000.0 * irregular * irregular), 0.1);
    }
    // Too few, and too short.
    calls(&mut bench, "10.40.0.8", "93.0.0.8", 15, 900.0);
    calls(&mut bench, "10.40.0.9", "93.0.0.9", 100, 1.0);
    bench.finish();
    assert_eq!(bench.changes, []);
}

#[test]
fn a_destination_that_most_of_our_hosts_call_is_lowered() {
    let mut bench = Bench::new();
    begin(&mut bench);
    for n in 0..60u32 {
        for host in 1..=30u32 {
            let call = Call::tcp(INSIDE, &format!("10.40.1.{host}"), "93.0.0.1", 443);
            bench.succeed(&call.at(10.0 + f64::from(n) * 60.0 + f64::from(host)), 0.1);
        }
    }
    bench.finish();
    let scores: Vec<_> = bench.changes.iter().map(|c| c.evidence.scores["score"]).collect();
    assert!(scores.iter().all(|&score| score <= 0.85), "{scores:?}");
}

#[test]
fn constant_traffic_is_no_beacon_and_a_beacon_is_scored_at_most_every_ten_minutes() {
    let mut bench = Bench::new();
    begin(&mut bench);
    calls(&mut bench, "10.40.0.1", C2, 5000, 0.5);
    bench.finish();
    assert_eq!(bench.changes, []);
    calls(&mut bench, "10.40.0.2", C2, 300, 60.0);
    let told = bench.changes.len();
    assert!((1..=6).contains(&told), "{told}");
}

#[test]
fn a_flow_that_passes_two_interfaces_is_not_counted_twice() {
    let mut bench = Bench::new();
    begin(&mut bench);
    for n in 0..100 {
        for interface in [INSIDE, OUTSIDE] {
            let call = Call::tcp(interface, "146.243.9.9", C2, 443).at(10.0 + f64::from(n) * 60.0);
            bench.succeed(&call, 0.2);
        }
    }
    bench.finish();
    assert_eq!(bench.raised(), ["beacon|146.243.9.9|203.0.112.9|tcp/443"]);
    assert_eq!(bench.last().evidence.counts["connections"], 100);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn random_pairs_stay_within_the_limit(seed in any::<u32>()) {
        let beacon = BeaconConfig { limit: 50, samples: 30, ..BeaconConfig::default() };
        let mut bench = Bench::with(PLAN, &DetectConfig { beacon, ..DetectConfig::default() });
        for n in 0..2000u32 {
            let target = std::net::Ipv4Addr::from(n.wrapping_add(seed).wrapping_mul(2_654_435_761) | 0x0100_0000);
            bench.succeed(&Call::tcp(INSIDE, "10.40.0.1", &target.to_string(), 443).at(f64::from(n)), 0.1);
            bench.succeed(&Call::tcp(INSIDE, "10.40.0.1", C2, 443).at(f64::from(n)), 0.1);
        }
        let (pairs, longest) = bench.detector.beacon.remembered();
        prop_assert!(pairs <= 50 && longest <= 30, "{} {}", pairs, longest);
    }
}
