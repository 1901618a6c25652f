//! scan.horizontal and scan.vertical.

use proptest::prelude::*;

use super::*;
use crate::{
    detect::{ScanConfig, walk::Walk},
    record::Severity,
};

fn to(source: &str, target: &str, port: u16, second: f64) -> Call {
    Call::tcp(INSIDE, source, target, port).at(second)
}

/// Jung et al.: θ0 = 0.8, θ1 = 0.2, α = 0.01, β = 0.99, so that a failure is ×4, a success ×1/4, η1 = 99 and
/// η0 = 0.0101.
#[test]
fn four_straight_failures_cross_the_upper_threshold_and_four_successes_the_lower() {
    let walk = Walk::new(&ScanConfig::default());
    let mut ratio = 1.0;
    for (expected, is_scanner) in [(4.0, false), (16.0, false), (64.0, false), (256.0, true)] {
        ratio = walk.step(ratio, true);
        assert!((ratio - expected).abs() < 1e-9 && walk.is_scanner(ratio) == is_scanner, "{ratio}");
    }
    let mut ratio = 1.0;
    for (expected, is_benign) in [(0.25, false), (0.0625, false), (0.015_625, false), (0.003_906_25, true)] {
        ratio = walk.step(ratio, false);
        assert!((ratio - expected).abs() < 1e-9 && walk.is_benign(ratio) == is_benign, "{ratio}");
    }
}

#[test]
fn one_source_that_fails_on_many_hosts_scans_them() {
    let mut bench = Bench::new();
    for host in 1..=40 {
        let call = to("10.40.0.1", &format!("10.80.0.{host}"), 22, f64::from(host) / 10.0);
        if host % 2 == 0 { bench.refuse(&call) } else { bench.ignore(&call, 0) }
    }
    bench.finish();
    assert_eq!(bench.raised(), ["scan.horizontal|eohhs/10.40.0.1|tcp/22"]);
    let finding = bench.last();
    assert_eq!(finding.severity, Severity::High);
    assert_eq!((finding.subject.port, finding.subject.source), (Some(22), Some(ip("10.40.0.1"))));
    let (targets, failures) = (finding.evidence.counts["targets"], finding.evidence.counts["failures"]);
    assert!((38..=42).contains(&targets) && failures == 40, "{targets} {failures}");
    assert!(finding.evidence.scores["likelihood_ratio"] >= 99.0);
    assert_eq!(finding.evidence.flow_ids.len(), 8);
}

#[test]
fn one_source_that_fails_on_many_ports_of_a_host_scans_it() {
    let mut bench = Bench::new();
    for port in 1..=60 {
        bench.refuse(&to("10.40.0.1", "10.80.0.1", port, f64::from(port) / 10.0));
    }
    assert_eq!(bench.raised(), ["scan.vertical|eohhs/10.40.0.1|massdot/10.80.0.1"]);
    assert_eq!(bench.last().secretariats, ["eohhs".into(), "massdot".into()]);
}

#[test]
fn an_internet_scanner_is_of_low_severity_and_its_key_has_no_space() {
    let mut bench = Bench::new();
    for host in 1..=20 {
        bench.ignore(&Call::tcp(OUTSIDE, "9.9.9.9", &format!("146.243.1.{host}"), 23), 0);
    }
    assert_eq!(bench.raised(), ["scan.horizontal|9.9.9.9|tcp/23"]);
    assert_eq!(bench.last().severity, Severity::Low);
}

#[test]
fn a_scan_is_closed_half_an_hour_after_its_last_contact() {
    let mut bench = Bench::new();
    for host in 1..=20 {
        bench.refuse(&to("10.40.0.1", &format!("10.80.0.{host}"), 22, 1.0));
    }
    bench.advance(1700.0);
    assert_eq!(bench.last().change, Change::Updated);
    bench.advance(1802.0);
    assert_eq!(bench.last().change, Change::Closed);
}

#[test]
fn a_walk_that_rests_for_half_an_hour_begins_anew() {
    let mut bench = Bench::new();
    for host in 1..=9 {
        bench.refuse(&to("10.40.0.1", &format!("10.80.0.{host}"), 22, 1.0));
        bench.refuse(&to("10.40.0.1", &format!("10.80.1.{host}"), 22, 2000.0));
    }
    assert_eq!(bench.changes, []);
}

#[test]
fn what_is_no_scan_is_not_raised() {
    let mut bench = Bench::new();
    for n in 0..200u8 {
        let second = f64::from(n);
        // A vulnerability scanner that the plan knows.
        bench.refuse(&to("10.40.0.99", &format!("10.80.0.{n}"), 22, second));
        // A monitor that polls hosts which answer, a few of them down.
        let call = to("10.40.0.2", &format!("10.80.1.{n}"), 443, second);
        if n % 10 == 0 {
            bench.ignore(&call, 0)
        } else {
            bench.succeed(&call, 0.1)
        }
        // Many clients behind one translated address, now and then refused.
        let call = to("146.243.72.5", &format!("93.1.1.{n}"), 443, second);
        if n % 7 == 0 {
            bench.refuse(&call)
        } else {
            bench.succeed(&call, 0.1)
        }
        // One client that tries one dead server over and over.
        bench.ignore(&to("10.40.0.3", "10.80.2.1", 443, second), 0);
        // A client with a short list of dead servers.
        bench.refuse(&to("10.40.0.4", &format!("10.80.3.{}", n % 6), 443, second));
        // Connections whose answers take the other edge: the client goes on sending.
        bench.ignore(&to("10.40.0.5", &format!("10.80.4.{n}"), 443, second), 900);
        bench.ignore(&to("10.40.0.5", &format!("10.80.5.{n}"), 22, second), 0);
    }
    bench.finish();
    assert_eq!(bench.changes, []);
}

#[test]
fn what_ours_do_is_judged_on_the_inside_and_not_again_behind_the_translation() {
    let mut bench = Bench::new();
    for host in 1..=40 {
        let target = format!("93.1.1.{host}");
        bench.ignore(&to("10.40.0.1", &target, 23, 1.0), 0);
        bench.ignore(&Call::tcp(OUTSIDE, "146.243.72.5", &target, 23).at(1.0), 0);
    }
    assert_eq!(bench.raised(), ["scan.horizontal|eohhs/10.40.0.1|tcp/23"]);
}

#[test]
fn a_source_that_leaks_is_not_a_scanner_for_want_of_answers() {
    let mut bench = Bench::new();
    for host in 1..=40 {
        let target = format!("93.1.1.{host}");
        let mut leak = bench.context(&Call::tcp(OUTSIDE, "10.40.0.1", &target, 443).at(f64::from(host)));
        leak.leaving = Some(true);
        bench.tell(FlowEvent::Started, &leak);
        bench.ignore(&to("10.40.0.1", &target, 443, f64::from(host)), 0);
    }
    assert_eq!(bench.raised(), ["leak.private|boston|10.40.0.1"]);
}

#[test]
fn a_scan_that_passes_two_interfaces_is_counted_once() {
    let mut bench = Bench::new();
    for host in 1..=40 {
        for interface in [OUTSIDE, INSIDE] {
            let target = format!("146.243.1.{host}");
            bench.ignore(&Call::tcp(interface, "9.9.9.9", &target, 23).at(f64::from(host)), 0);
        }
    }
    bench.finish();
    assert_eq!(bench.raised(), ["scan.horizontal|9.9.9.9|tcp/23"]);
    assert!(bench.last().evidence.counts["failures"] <= 40, "{:?}", bench.last().evidence.counts);
}

#[test]
fn one_connection_that_went_on_without_an_answer_excuses_a_source_for_half_an_hour() {
    let mut bench = Bench::new();
    bench.ignore(&to("10.40.0.5", "10.80.4.1", 443, 0.0), 900);
    for host in 1..=20 {
        bench.ignore(&to("10.40.0.5", &format!("10.80.5.{host}"), 22, 1700.0), 0);
    }
    assert_eq!(bench.changes, []);
    for host in 1..=20 {
        bench.ignore(&to("10.40.0.5", &format!("10.80.6.{host}"), 22, 1900.0), 0);
    }
    assert_eq!(bench.raised(), ["scan.horizontal|eohhs/10.40.0.5|tcp/22"]);
}

/// Ten hosts on one port that do not answer, the last of which is flooded or not.
fn ten_hosts(flooded: bool) -> Bench {
    let mut bench = Bench::new();
    if flooded {
        for n in 0..1500u32 {
            let source = format!("93.{}.{}.1", n / 250, n % 250);
            let call = Call::tcp(OUTSIDE, &source, "146.243.1.10", 443).at(100.0 + f64::from(n) / 1000.0);
            bench.ignore(&call, 0);
        }
    }
    for host in 1..=10 {
        bench.ignore(&Call::tcp(OUTSIDE, "9.9.9.9", &format!("146.243.1.{host}"), 443).at(101.0), 0);
    }
    bench
}

#[test]
fn an_attempt_that_a_flood_drowns_says_nothing_of_its_source() {
    assert_eq!(ten_hosts(false).raised(), ["scan.horizontal|9.9.9.9|tcp/443"]);
    let bench = ten_hosts(true);
    assert!(bench.raised().iter().all(|key| !key.starts_with("scan")), "{:?}", bench.raised());
    // Two walks for each of the attempts that ended before the target was watched and had a thousand, and ten of the
    // scanner: without regard to the flood there would be three thousand.
    assert!(bench.detector.scan.walkers() <= 2 * (50 + 1000) + 10, "{}", bench.detector.scan.walkers());
}

#[test]
fn a_busy_target_that_ignores_a_source_is_no_flood_and_counts() {
    let mut bench = Bench::new();
    for n in 0..1500u32 {
        let source = format!("93.{}.{}.1", n / 250, n % 250);
        let call = Call::tcp(OUTSIDE, &source, "146.243.1.10", 443).at(100.0 + f64::from(n) / 1000.0);
        bench.succeed(&call, 0.1);
    }
    for host in 1..=10 {
        bench.ignore(&Call::tcp(OUTSIDE, "9.9.9.9", &format!("146.243.1.{host}"), 443).at(101.0), 0);
    }
    assert_eq!(bench.raised(), ["scan.horizontal|9.9.9.9|tcp/443"]);
}

#[test]
fn backscatter_and_udp_say_nothing() {
    let mut bench = Bench::new();
    for host in 1..=100 {
        // A hundred victims answer or refuse what somebody sent them in the name of one of ours.
        let call = Call::tcp(INSIDE, "146.243.1.1", &format!("93.1.1.{host}"), 80);
        let mut flow = bench.context(&call);
        flow.syn_seen = false;
        bench.tell(FlowEvent::Started, &flow);
        bench.tell(FlowEvent::Refused, &flow);
        bench.tell(FlowEvent::Unanswered, &flow);
        let udp = Call { protocol: 17, ..to("10.40.0.1", &format!("10.80.0.{host}"), 161, 1.0) };
        bench.ignore(&udp, 0);
    }
    bench.finish();
    assert_eq!(bench.changes, []);
}

#[test]
fn the_same_address_in_two_spaces_is_two_sources() {
    let mut bench = Bench::new();
    for (secretariat, host) in (1..=30).map(|n| (u16::from(n % 2 == 0), n)) {
        let mut flow = bench.context(&to("10.99.0.1", &format!("10.80.0.{host}"), 22, 1.0));
        flow.originator.secretariat = Some(secretariat);
        bench.tell(FlowEvent::Refused, &flow);
    }
    assert_eq!(
        bench.raised(),
        ["scan.horizontal|eohhs/10.99.0.1|tcp/22", "scan.horizontal|massdot/10.99.0.1|tcp/22"]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// A flood with made-up sources is neither a scan nor a way to fill memory.
    #[test]
    fn random_sources_raise_nothing_and_stay_within_the_limit(seed in any::<u32>()) {
        let config = DetectConfig { scan: ScanConfig { limit: 64, ..ScanConfig::default() }, ..Default::default() };
        let mut bench = Bench::with(PLAN, &config);
        for n in 0..3000u32 {
            let source = std::net::Ipv4Addr::from(n.wrapping_add(seed).wrapping_mul(2_654_435_761) | 0x0100_0000);
            let call = Call::tcp(INSIDE, &source.to_string(), "10.80.0.1", 443).at(f64::from(n));
            bench.ignore(&call, 0);
        }
        prop_assert!(bench.changes.iter().all(|c| !c.key.starts_with("scan")));
        prop_assert!(bench.detector.scan.walkers() <= 128);
    }
}
