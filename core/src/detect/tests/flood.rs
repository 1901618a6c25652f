//! flood.syn.

use super::*;
use crate::record::{RuleId, Severity};

/// `per_second` SYNs with made-up sources, none answered, during seconds `from..to`.
fn flood(bench: &mut Bench, target: &str, per_second: u32, (from, to): (u32, u32)) {
    for n in from * per_second..to * per_second {
        let [a, b, c, _] = n.wrapping_mul(2_654_435_761).to_be_bytes();
        let source = format!("93.{a}.{b}.{c}");
        let call = Call::tcp(OUTSIDE, &source, target, 443).at(f64::from(n) / f64::from(per_second));
        let flow = bench.context(&call);
        bench.tell(FlowEvent::Started, &flow);
    }
}

#[test]
fn half_open_connections_at_a_rate_are_a_flood_with_its_size() {
    let mut bench = Bench::new();
    flood(&mut bench, "146.243.1.1", 500, (100, 130));
    bench.advance(140.0);
    assert_eq!(bench.raised(), ["flood.syn|146.243.1.1|tcp/443"]);
    bench.finish();
    let finding = bench.last();
    assert_eq!((finding.rule, finding.severity), (RuleId::FloodSyn, Severity::High));
    let counts = &finding.evidence.counts;
    // 15,000, but for the few before the target was watched.
    assert!((14_900..=15_000).contains(&counts["half_open"]), "{counts:?}");
    assert!((12_000..=18_000).contains(&counts["sources"]), "{counts:?}");
    assert_eq!(counts["peak_attempts_per_second"], 500);
    bench.advance(300.0);
    assert_eq!(bench.last().change, Change::Closed);
    assert_eq!(
        bench.last().evidence.counts["half_open"],
        bench.changes[bench.changes.len() - 2].evidence.counts["half_open"]
    );
}

#[test]
fn a_flood_at_the_end_of_a_capture_is_told_at_the_end() {
    let mut bench = Bench::new();
    flood(&mut bench, "146.243.1.1", 2000, (100, 102));
    assert_eq!(bench.changes, []);
    bench.finish();
    assert_eq!(bench.raised(), ["flood.syn|146.243.1.1|tcp/443"]);
}

#[test]
fn ten_thousand_a_second_are_critical() {
    let mut bench = Bench::new();
    flood(&mut bench, "146.243.1.1", 12_000, (100, 102));
    bench.finish();
    assert_eq!(bench.last().severity, Severity::Critical);
}

#[test]
fn a_busy_server_a_burst_of_downloads_and_a_closed_port_are_no_flood() {
    let mut bench = Bench::new();
    for n in 0..20_000u32 {
        let source = format!("93.{}.{}.{}", n % 7, n / 250 % 250, n % 250);
        let second = 100.0 + f64::from(n) / 1000.0;
        let call = |target| Call::tcp(OUTSIDE, &source, target, 443).at(second);
        bench.succeed(&call("146.243.1.2"), 0.0);
        bench.refuse(&call("146.243.1.3"));
        // Answers take the other edge.
        let mut flow = bench.context(&call("146.243.1.4"));
        bench.tell(FlowEvent::Started, &flow);
        flow.originator.payload_bytes = 300;
        flow.now = flow.now.max(bench.detector.now);
        bench.tell(FlowEvent::Unanswered, &flow);
        // Exempt.
        let flow = bench.context(&call("146.243.1.99"));
        bench.tell(FlowEvent::Started, &flow);
    }
    bench.advance(200.0);
    bench.finish();
    assert_eq!(bench.changes, []);
}

#[test]
fn connections_that_are_answered_within_the_grace_are_not_half_open() {
    let mut bench = Bench::new();
    let mut open = Vec::new();
    for n in 0..4000u32 {
        let call = Call::tcp(OUTSIDE, "93.1.1.1", "146.243.1.2", 443).at(100.0 + f64::from(n) / 1000.0);
        let flow = bench.context(&call);
        bench.tell(FlowEvent::Started, &flow);
        open.push(flow);
    }
    for mut flow in open {
        flow.now = flow.start.plus(4_500_000_000);
        bench.answer(&mut flow, 10);
    }
    bench.advance(130.0);
    assert_eq!(bench.changes, []);
}

#[test]
fn one_flood_seen_on_two_interfaces_is_one_finding_counted_once() {
    let mut bench = Bench::new();
    for n in 0..4000u32 {
        let source = format!("93.{}.{}.{}", n % 7, n / 250 % 250, n % 250);
        for interface in [OUTSIDE, INSIDE] {
            let call = Call::tcp(interface, &source, "146.243.1.1", 443).at(100.0 + f64::from(n) / 1000.0);
            let flow = bench.context(&call);
            bench.tell(FlowEvent::Started, &flow);
        }
    }
    bench.advance(130.0);
    bench.finish();
    assert_eq!(bench.raised().len(), 1);
    assert!(bench.last().evidence.counts["half_open"] <= 4000);
}

#[test]
fn random_targets_stay_within_the_limit() {
    let config = DetectConfig {
        flood: super::super::FloodConfig { limit: 32, min_attempts: 20, ..Default::default() },
        ..DetectConfig::default()
    };
    let mut bench = Bench::with(PLAN, &config);
    for n in 0..5000u32 {
        let target = format!("146.243.{}.{}", n / 250 % 250, n % 250);
        let call = Call::tcp(OUTSIDE, "93.1.1.1", &target, 443).at(100.0 + f64::from(n) / 1000.0);
        let flow = bench.context(&call);
        bench.tell(FlowEvent::Started, &flow);
    }
    let (targets, hot) = bench.detector.flood.watched();
    assert_eq!(targets, 32);
    bench.advance(200.0);
    assert!(hot <= 5000 && bench.detector.flood.watched().1 == 0);
}
