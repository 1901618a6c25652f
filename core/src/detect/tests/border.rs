//! leak.private and spoof.inbound.

use super::*;
use crate::record::{RuleId, Severity};

/// Plays the first packet of a flow on an outside link.
fn cross(bench: &mut Bench, source: &str, target: &str, leaving: Option<bool>) {
    crossing(bench, Call::tcp(OUTSIDE, source, target, 443), leaving, None);
}

fn crossing(bench: &mut Bench, call: Call, leaving: Option<bool>, mac: Option<MacAddress>) {
    let mut flow = bench.context(&call);
    flow.leaving = leaving;
    flow.originator.mac = mac;
    bench.tell(FlowEvent::Started, &flow);
}

#[test]
fn a_private_source_that_leaves_is_a_leak_with_its_owner_named() {
    let mut bench = Bench::new();
    cross(&mut bench, "10.40.0.1", "8.8.8.8", Some(true));
    assert_eq!(bench.raised(), ["leak.private|boston|10.40.0.1"]);
    let finding = bench.last();
    assert_eq!(finding.secretariats, ["eohhs".into()]);
    assert_eq!(finding.contacts, ["soc@eohhs".into()]);
    assert_eq!((finding.severity, finding.confidence), (Severity::Medium, 95));
    assert_eq!(finding.evidence.counts["flows"], 1);
    assert_eq!(
        finding.summary,
        "10.40.0.1 leaves to the internet untranslated on out to 8.8.8.8 (1 flow, 1 packet)"
    );
}

/// Secretariats and contacts of a finding, and how many owners are by observation.
fn owners(finding: &FindingChange) -> (String, String, u64) {
    let observed = finding.evidence.counts.get("observed_owners").copied().unwrap_or(0);
    (finding.secretariats.join(" "), finding.contacts.join(" "), observed)
}

#[test]
fn a_leak_from_where_the_plan_says_nothing_names_who_was_observed_with_the_source() {
    let mut bench = Bench::new();
    bench.observe("192.168.77.20", "massdot", 0.0);
    cross(&mut bench, "192.168.77.20", "8.8.8.8", Some(true));
    assert_eq!(bench.raised(), ["leak.private|boston|192.168.77.20"]);
    let finding = bench.last();
    assert_eq!(owners(finding), ("massdot".into(), "soc@massdot".into(), 1));
    assert_eq!(finding.address_spaces, ["massdot".into()]);
    assert_eq!(
        finding.summary,
        "192.168.77.20 leaves to the internet untranslated on out to 8.8.8.8 (1 flow, 1 packet); \
         owner by observation: massdot"
    );
    // What the plan says goes before what was observed, and a forged source has no owner here.
    bench.observe("10.40.0.1", "massdot", 1.0);
    cross(&mut bench, "10.40.0.1", "8.8.8.8", Some(true));
    assert_eq!(owners(bench.last()), ("eohhs".into(), "soc@eohhs".into(), 0));
    cross(&mut bench, "192.168.77.20", "146.243.1.1", Some(false));
    assert_eq!(owners(bench.last()), (String::new(), String::new(), 0));
}

#[test]
fn a_leak_names_every_secretariat_that_was_observed_with_the_source() {
    let mut bench = Bench::new();
    bench.observe("192.168.77.20", "massdot", 0.0);
    bench.observe("192.168.77.20", "eohhs", 0.0);
    cross(&mut bench, "192.168.77.20", "8.8.8.8", Some(true));
    // Packets that nobody answers are no overlap yet.
    assert_eq!(bench.raised(), ["leak.private|boston|192.168.77.20"]);
    assert_eq!(owners(bench.last()), ("eohhs massdot".into(), "soc@eohhs soc@massdot".into(), 2));
    assert!(bench.last().summary.ends_with("; owners by observation: eohhs, massdot"));
}

#[test]
fn who_is_observed_with_a_leaking_source_later_is_told_once_and_keeps_nothing_open() {
    let mut bench = Bench::new();
    cross(&mut bench, "192.168.77.20", "8.8.8.8", Some(true));
    cross(&mut bench, "10.40.0.1", "8.8.8.8", Some(true));
    for second in [10.0, 20.0, 3599.0] {
        bench.observe("192.168.77.20", "massdot", second);
        bench.observe("10.40.0.1", "massdot", second);
    }
    bench.advance(3600.0);
    let of_camera = bench.changes.iter().filter(|c| c.key == "leak.private|boston|192.168.77.20");
    let told: Vec<_> = of_camera.map(|c| (c.change, c.revision, owners(c).0)).collect();
    let owner = || "massdot".to_owned();
    assert_eq!(
        told,
        [(Change::Raised, 0, String::new()), (Change::Updated, 1, owner()), (Change::Closed, 2, owner())]
    );
    assert_eq!(owners(bench.last()).0, "eohhs", "{:?}", bench.last());
}

#[test]
fn every_source_that_is_not_reachable_is_a_leak_and_link_traffic_is_none() {
    for (source, target, expected) in [
        ("10.40.0.1", "8.8.8.8", true),
        ("100.64.0.1", "8.8.8.8", true),
        ("169.254.1.1", "8.8.8.8", true),
        ("127.0.0.1", "8.8.8.8", true),
        ("fd00::1", "2600::1", true),
        ("fe80::1", "2600::1", true),
        ("146.243.1.1", "8.8.8.8", false),
        ("10.0.0.1", "10.0.0.2", false),
        ("10.0.0.1", "224.0.0.5", false),
        ("0.0.0.0", "255.255.255.255", false),
        ("fe80::1", "ff02::1", false),
        ("fe80::1", "fe80::2", false),
    ] {
        let mut bench = Bench::new();
        cross(&mut bench, source, target, Some(true));
        assert_eq!(!bench.raised().is_empty(), expected, "{source} to {target}");
    }
}

#[test]
fn neither_leak_nor_spoof_is_raised_where_the_role_is_not_outside_or_in_a_tunnel() {
    let mut bench = Bench::new();
    for interface in [INSIDE, UNKNOWN] {
        crossing(&mut bench, Call::tcp(interface, "10.40.0.1", "8.8.8.8", 443), Some(true), None);
        crossing(&mut bench, Call::tcp(interface, "10.40.0.1", "146.243.1.1", 443), Some(false), None);
    }
    let mut flow = bench.context(&Call::tcp(OUTSIDE, "10.40.0.1", "8.8.8.8", 443));
    flow.tunnelled = true;
    bench.tell(FlowEvent::Started, &flow);
    assert_eq!(bench.changes, []);
}

#[test]
fn an_answer_from_a_private_address_leaks_too() {
    let mut bench = Bench::new();
    let mut flow = bench.context(&Call::tcp(OUTSIDE, "8.8.8.8", "10.40.0.1", 443));
    flow.leaving = Some(false);
    bench.tell(FlowEvent::Started, &flow);
    send(&mut flow.responder, 1);
    flow.leaving = Some(true);
    bench.tell(FlowEvent::Answered, &flow);
    assert_eq!(bench.raised(), ["leak.private|boston|10.40.0.1"]);
}

#[test]
fn who_sent_the_first_packet_is_judged_even_where_the_other_side_is_the_originator() {
    let mut bench = Bench::new();
    // The answer of our server was seen before the question of its client.
    let mut flow = bench.context(&Call::tcp(OUTSIDE, "9.9.9.9", "146.243.1.1", 53));
    std::mem::swap(&mut flow.originator.packets, &mut flow.responder.packets);
    (flow.leaving, flow.by_originator) = (Some(true), Some(false));
    bench.tell(FlowEvent::Started, &flow);
    send(&mut flow.originator, 1);
    (flow.leaving, flow.by_originator) = (Some(false), Some(true));
    let Bench { detector, places, changes, .. } = &mut bench;
    detector.on_flow(FlowEvent::Answered, &flow, places, &mut |change| changes.push(change.clone()));
    assert_eq!(bench.changes, []);
}

#[test]
fn a_leak_is_updated_when_doubled_counts_packets_and_closes_when_quiet() {
    let mut bench = Bench::new();
    for second in 0..3 {
        let mut flow = bench.context(&Call::tcp(OUTSIDE, "10.40.0.1", "8.8.8.8", 443).at(f64::from(second)));
        flow.leaving = Some(true);
        bench.tell(FlowEvent::Started, &flow);
        send(&mut flow.originator, 9);
        bench.tell(FlowEvent::Reported(EndReason::Ended), &flow);
    }
    bench.advance(4000.0);
    let told: Vec<_> =
        bench.changes.iter().map(|c| (c.change, c.revision, c.evidence.counts["flows"])).collect();
    assert_eq!(told, [(Change::Raised, 0, 1), (Change::Updated, 1, 2), (Change::Closed, 2, 3)]);
    assert_eq!(bench.last().evidence.counts["packets"], 30);
    assert_eq!(bench.last().evidence.flow_ids.len(), 3);
}

#[test]
fn what_the_plan_exempts_is_not_raised() {
    let mut bench = Bench::new();
    cross(&mut bench, "10.40.7.7", "8.8.8.8", Some(true));
    assert_eq!(bench.changes, []);
}

#[test]
fn our_own_and_bogon_sources_that_arrive_are_spoofed() {
    let mut bench = Bench::new();
    cross(&mut bench, "146.243.5.5", "146.243.1.1", Some(false));
    cross(&mut bench, "192.168.7.7", "146.243.1.1", Some(false));
    cross(&mut bench, "240.0.0.1", "146.243.1.1", Some(false));
    cross(&mut bench, "9.9.9.9", "146.243.1.1", Some(false));
    assert_eq!(
        bench.raised(),
        ["spoof.inbound|146.243.5.5", "spoof.inbound|192.168.7.7", "spoof.inbound|240.0.0.1"]
    );
    assert!(bench.changes.iter().all(|c| c.rule == RuleId::SpoofInbound));
    assert_eq!(bench.changes[0].severity, Severity::High);
    assert_eq!(bench.changes[1].severity, Severity::Medium);
}

#[test]
fn traffic_between_link_addresses_and_icmp_errors_of_routers_on_the_way_are_not_spoofed() {
    let mut bench = Bench::new();
    cross(&mut bench, "10.255.0.1", "10.255.0.2", Some(false));
    cross(&mut bench, "169.254.0.1", "169.254.0.2", Some(false));
    let mut error = Call::tcp(OUTSIDE, "10.1.1.1", "146.243.1.1", 0);
    (error.protocol, error.source.1) = (1, 11);
    crossing(&mut bench, error, Some(false), None);
    assert_eq!(bench.changes, []);
}

#[test]
fn without_direction_or_router_addresses_decide() {
    let mut bench = Bench::new();
    let tap = |source, target| Call::tcp(TAP, source, target, 443);
    crossing(&mut bench, tap("10.40.0.1", "8.8.8.8"), None, None);
    crossing(&mut bench, tap("10.40.0.1", "146.243.1.1"), None, None);
    crossing(&mut bench, tap("146.243.1.1", "8.8.8.8"), None, None);
    crossing(&mut bench, tap("8.8.8.8", "146.243.1.1"), None, None);
    assert_eq!(bench.raised(), ["leak.private|boston|10.40.0.1", "spoof.inbound|10.40.0.1"]);
    assert!(bench.changes.iter().all(|c| c.confidence == 70));
}

#[test]
fn a_packet_from_ours_to_ours_is_judged_once_the_router_is_learnt() {
    let mut bench = Bench::new();
    let ours = Call::tcp(TAP, "146.243.5.5", "146.243.1.1", 443);
    crossing(&mut bench, ours, None, Some(PROVIDER));
    crossing(&mut bench, Call::tcp(TAP, "146.243.6.6", "146.243.1.1", 443), None, Some(ROUTER));
    assert_eq!(bench.changes, []);
    crossing(&mut bench, Call::tcp(TAP, "146.243.1.1", "8.8.8.8", 443), None, Some(ROUTER));
    assert_eq!(bench.raised(), ["spoof.inbound|146.243.5.5"]);
    assert_eq!(bench.last().confidence, 90);
}

#[test]
fn many_sources_of_one_prefix_become_one_finding_and_random_sources_stay_bounded() {
    let mut bench = Bench::new();
    for host in 1..=250 {
        cross(&mut bench, &format!("10.40.1.{host}"), "8.8.8.8", Some(true));
    }
    let raised = bench.raised();
    assert_eq!(raised.len(), 17);
    assert_eq!(raised[16], "leak.private|boston|10.40.0.0/16");
    for n in 0..40_000u32 {
        let source = std::net::Ipv4Addr::from(n.wrapping_mul(2_654_435_761));
        cross(&mut bench, &source.to_string(), "146.243.1.1", Some(false));
    }
    let spoofed = bench.raised().iter().filter(|key| key.starts_with("spoof")).count();
    assert!((20..=90).contains(&spoofed), "{spoofed}: {:?}", &bench.raised()[17..]);
    assert!(bench.raised().contains(&"spoof.inbound|240.0.0.0/4"));
}
