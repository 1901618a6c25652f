//! What is behind two uses of one address: two hosts, one host that moved, or one host that is seen in both places.
//!
//! Each piece of evidence is a term of a likelihood ratio, in bits: the logarithm to base 2 of how much more likely it is
//! if two hosts have the address than if one has. Terms add up. Their base are the points of p0f's detection of address
//! sharing (fp_tcp.c, Zalewski): a change of the initial time to live 4, an impossible timestamp 4, a change of the
//! segment size 1. What p0f does not see has weights of ours, stated at each. p0f never judges by timestamps alone, because
//! most stacks begin them anew for each peer; here they count where a clock has shown itself over several connections,
//! and speak for two hosts only where two such clocks run at the same time.
//!
//! Limits: a MAC address can be set by hand; a middlebox may rewrite options for one path; Linux begins timestamps anew for
//! each peer, so its clock says nothing; two hosts with the same system behind routers look alike and stay unknown.

use std::collections::BTreeSet;

use super::usage::{Usage, is_virtual};
use crate::{
    net::MacAddress,
    record::{IpIdBehaviour, Strength, Verdict, initial_ttl},
};

/// Bits of one term.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    /// What was compared.
    pub name: &'static str,
    /// Logarithm to base 2 of the likelihood ratio; positive speaks for two hosts.
    pub bits: f64,
}

/// How two uses stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// In two address spaces: hosts rarely pass from one to the other, and never often.
    AcrossSpaces,
    /// In one address space, at two attachments: traffic of one host may take either.
    WithinSpace,
}

/// What was judged, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Sum of the terms.
    pub bits: f64,
    /// Every term that says something.
    pub terms: Vec<Term>,
    /// Times that the uses took turns, by the hour.
    pub turns: u32,
    /// Hours in which both were active.
    pub shared_hours: u32,
}

/// An interface has one address of its own. A host that changes its card, or has two, keeps its IP address rarely.
const MAC_DIFFERS: f64 = 8.0;
const MAC_SAME: f64 = -10.0;
/// A client's identifier is made to be its own (RFC 8415 section 11, RFC 4361).
const CLIENT_DIFFERS: f64 = 8.0;
const CLIENT_SAME: f64 = -10.0;
/// The same station in between, a router perhaps: a little for one host.
const FORWARDER_SAME: f64 = -3.0;
/// Names are given once, and copied with images.
const NAME_DIFFERS: f64 = 6.0;
const NAME_SAME: f64 = -6.0;
/// p0f's points.
const TTL_DIFFERS: f64 = 4.0;
const CLOCK_DIFFERS: f64 = 4.0;
const MSS_DIFFERS: f64 = 1.0;
/// A default of the system that administrators change, and seldom on one host back and forth.
const WINDOW_DIFFERS: f64 = 2.0;
/// Constant and swapped identifications look like any other, so this says little.
const IP_ID_DIFFERS: f64 = 1.0;
/// A stack either has one clock for all, or begins anew for each peer.
const KIND_DIFFERS: f64 = 4.0;
/// Half of all hosts begin at the same one.
const TTL_SAME: f64 = -0.5;
/// Order of options and window scale do not change without another system; one in two hosts has the same.
const OPTIONS_DIFFER: f64 = 6.0;
const OPTIONS_SAME: f64 = -1.0;
/// Two hosts do not start in the same second.
const CLOCK_SAME: f64 = -10.0;
/// Half a bit for each turn, up to this: a host that is in two address spaces goes back and forth seldom.
const TURNS_MOST: f64 = 4.0;

/// SYNs of each side, from which on signatures have their full weight.
const ENOUGH_SYNS: u64 = 3;
/// Sum from which on there are two hosts.
const TWO_HOSTS_ACROSS: f64 = 4.0;
const TWO_HOSTS_WITHIN: f64 = 5.0;
/// Sum up to which there is one.
const ONE_HOST: f64 = -4.0;
/// Turns from which on uses are at the same time.
const CONCURRENT: u32 = 2;
/// Timestamps that cannot follow the one before, from which on a stack begins them anew.
const ENOUGH_BREAKS: u64 = 3;

/// Compares two sets: the bits of the one, where they share nothing, or of the other; nothing where one is empty.
fn compare<T: Ord>(one: &BTreeSet<T>, other: &BTreeSet<T>, differ: f64, same: f64) -> Option<f64> {
    let is_known = !one.is_empty() && !other.is_empty();
    is_known.then(|| if one.is_disjoint(other) { differ } else { same })
}

impl Usage {
    fn own_macs(&self) -> BTreeSet<MacAddress> {
        let own = self.stations.iter().filter(|station| station.is_own());
        own.filter_map(|station| station.mac).filter(|mac| !is_virtual(*mac)).collect()
    }

    fn all_macs(&self) -> BTreeSet<MacAddress> {
        self.stations.iter().filter_map(|station| station.mac).collect()
    }

    fn names(&self) -> BTreeSet<String> {
        self.hostnames.iter().map(|name| name.to_ascii_lowercase()).collect()
    }

    fn initial_ttls(&self) -> BTreeSet<u8> {
        let by_syn: BTreeSet<u8> = self.signatures.iter().map(|seen| seen.signature.initial_ttl).collect();
        if by_syn.is_empty() { self.ttl_max.map(initial_ttl).into_iter().collect() } else { by_syn }
    }

    fn syns(&self) -> u64 {
        self.signatures.iter().fold(0, |sum, seen| sum.saturating_add(seen.segments))
    }
}

/// Judges two uses of one address.
pub fn judge(one: &Usage, other: &Usage, relation: Relation) -> Judgement {
    let mut terms: Vec<Term> = Vec::new();
    let mut add = |name, bits: Option<f64>| {
        if let Some(bits) = bits.filter(|bits| *bits != 0.0) {
            terms.push(Term { name, bits });
        }
    };
    add_identity(one, other, &mut add);
    add("hostname", compare(&one.names(), &other.names(), NAME_DIFFERS, NAME_SAME));
    add_stack(one, other, &mut add);
    add_timestamps(one, other, &mut add);
    let turns = one.hours.turns(&other.hours);
    if relation == Relation::AcrossSpaces && turns.turns >= CONCURRENT {
        add("turns", Some((f64::from(turns.turns) / 2.0).min(TURNS_MOST)));
    }
    let bits = terms.iter().map(|term| term.bits).sum();
    let verdict = verdict(one, other, relation, &terms, bits, turns.turns);
    Judgement { verdict, bits, terms, turns: turns.turns, shared_hours: turns.shared }
}

/// MAC address and DHCP client depend on each other, so the one of them that weighs more counts; what speaks for one
/// host goes first, because a host with two cards has one identifier.
fn add_identity(one: &Usage, other: &Usage, add: &mut impl FnMut(&'static str, Option<f64>)) {
    let mac = compare(&one.own_macs(), &other.own_macs(), MAC_DIFFERS, MAC_SAME);
    let clients = |usage: &Usage| usage.clients.iter().cloned().collect::<BTreeSet<String>>();
    let client = compare(&clients(one), &clients(other), CLIENT_DIFFERS, CLIENT_SAME);
    match (mac, client) {
        (Some(mac), Some(client)) if client < mac => add("client", Some(client)),
        (Some(mac), _) => add("mac", Some(mac)),
        (None, Some(client)) => add("client", Some(client)),
        (None, None) => {
            let same = compare(&one.all_macs(), &other.all_macs(), 0.0, FORWARDER_SAME);
            add("forwarder", same);
        }
    }
}

fn add_stack(one: &Usage, other: &Usage, add: &mut impl FnMut(&'static str, Option<f64>)) {
    let is_enough = one.syns() >= ENOUGH_SYNS && other.syns() >= ENOUGH_SYNS;
    let weight = if is_enough { 1.0 } else { 0.5 };
    let weighed = |bits: Option<f64>| bits.map(|bits| bits * weight);
    add("initial_ttl", weighed(compare(&one.initial_ttls(), &other.initial_ttls(), TTL_DIFFERS, TTL_SAME)));
    let kernels =
        |usage: &Usage| usage.signatures.iter().map(|seen| seen.signature.kernel()).collect::<BTreeSet<_>>();
    let options = compare(&kernels(one), &kernels(other), OPTIONS_DIFFER, OPTIONS_SAME);
    add("options", weighed(options));
    let sizes =
        |usage: &Usage| usage.signatures.iter().map(|seen| seen.signature.mss).collect::<BTreeSet<_>>();
    if options == Some(OPTIONS_SAME) {
        let sizes = compare(&sizes(one), &sizes(other), MSS_DIFFERS, 0.0);
        add("mss", weighed(sizes));
        // The first window is a constant of the system, or a multiple of the segment size.
        if sizes == Some(0.0) {
            let windows = |usage: &Usage| {
                usage.signatures.iter().map(|seen| seen.signature.window).collect::<BTreeSet<_>>()
            };
            add("window", weighed(compare(&windows(one), &windows(other), WINDOW_DIFFERS, 0.0)));
        }
    }
    let ids = [one.ip_id, other.ip_id].into_iter().filter(|id| *id != IpIdBehaviour::Unknown);
    if ids.count() == 2 && one.ip_id != other.ip_id {
        add("ip_id", Some(IP_ID_DIFFERS));
    }
}

/// Timestamps: whether they come from one clock, from two that run beside each other, or are made in another way.
fn add_timestamps(one: &Usage, other: &Usage, add: &mut impl FnMut(&'static str, Option<f64>)) {
    let is_random = |usage: &Usage| usage.clock.is_none() && usage.timestamp_breaks >= ENOUGH_BREAKS;
    match (&one.clock, &other.clock) {
        (Some(a), Some(b)) if a.is_same(b) => add("timestamp", Some(CLOCK_SAME)),
        // A host that was started anew has another clock than before, but not two at a time.
        (Some(a), Some(b)) => add("timestamp", a.runs_beside(b).then_some(CLOCK_DIFFERS)),
        (Some(_), None) if is_random(other) => add("timestamp_kind", Some(KIND_DIFFERS)),
        (None, Some(_)) if is_random(one) => add("timestamp_kind", Some(KIND_DIFFERS)),
        _ => {}
    }
}

fn verdict(one: &Usage, other: &Usage, relation: Relation, terms: &[Term], bits: f64, turns: u32) -> Verdict {
    let two_hosts = match relation {
        Relation::AcrossSpaces => TWO_HOSTS_ACROSS,
        Relation::WithinSpace => TWO_HOSTS_WITHIN,
    };
    // Whoever forges a source hears no answer; and when an address was used is no evidence of who used it.
    let are_answered = one.strength == Strength::Strong && other.strength == Strength::Strong;
    let is_of_hosts = |term: &Term| term.bits > 0.0 && !matches!(term.name, "turns" | "ip_id");
    if bits >= two_hosts && are_answered && terms.iter().any(is_of_hosts) {
        return Verdict::TwoHosts;
    }
    if bits > ONE_HOST {
        return Verdict::Unknown;
    }
    if turns >= CONCURRENT { Verdict::SeenTwice } else { Verdict::Moved }
}

#[cfg(test)]
mod tests {
    use Relation::{AcrossSpaces, WithinSpace};

    use super::*;
    use crate::{
        ipam::{Usage, observation},
        record::{Observation, ObservationKind, SeenSignature, StackEvidence, TcpClock},
        time::Timestamp,
    };

    const LINUX: &str = "4:64:0:1460:64240,7:mss,sok,ts,nop,ws:df,id+:0";
    const OLD_LINUX: &str = "4:64:0:1460:14600,7:mss,sok,ts,nop,ws:df,id+:0";
    const MACOS: &str = "4:64:0:1460:65535,6:mss,nop,ws,nop,nop,ts,sok,eol:df,id+:0";
    const WINDOWS: &str = "4:128:0:1460:64240,8:mss,nop,ws,nop,nop,sok:df,id+:0";

    /// A use with so many SYNs in each of these hours.
    fn used(signature: &str, segments: u32, hours: &[i64]) -> Usage {
        let mut usage: Option<Usage> = None;
        for hour in hours {
            let signature = signature.parse().expect("a signature");
            let seen = SeenSignature { signature, segments };
            let stack =
                StackEvidence { signatures: [seen].into_iter().collect(), ..StackEvidence::default() };
            let seen = Observation {
                strength: Strength::Strong,
                stack: Some(Box::new(stack)),
                ttl_max: Some(60),
                ..observation(ObservationKind::Traffic, hour * 3_600)
            };
            match &mut usage {
                Some(usage) => usage.add(&seen),
                None => usage = Some(Usage::first(&seen)),
            }
        }
        usage.expect("an hour")
    }

    fn with_card(mut usage: Usage, card: u8) -> Usage {
        let mac = Some(MacAddress([2, 0, 0, 0, 0, card]));
        let seconds = usage.last_seen.parts().0;
        usage.add(&Observation { mac, ..observation(ObservationKind::ArpReply, seconds) });
        usage
    }

    fn with_clock(mut usage: Usage, origin: i64, reads: &[i64]) -> Usage {
        for hour in reads {
            let clock = Some(TcpClock { hertz: 1000, origin: Timestamp::from_parts(origin, 0) });
            let stack = StackEvidence { clock, ..StackEvidence::default() };
            let stack = Some(Box::new(stack));
            usage.add(&Observation { stack, ..observation(ObservationKind::Traffic, hour * 3_600) });
        }
        usage
    }

    const EARLY: &[i64] = &[500_000, 500_001];
    const LATE: &[i64] = &[500_010, 500_011];
    const MIXED: &[i64] = &[500_000, 500_011];

    fn judged(one: &Usage, other: &Usage, relation: Relation) -> (Verdict, f64) {
        let judgement = judge(one, other, relation);
        let back = judge(other, one, relation);
        assert_eq!((judgement.verdict, judgement.bits), (back.verdict, back.bits), "it is symmetric");
        let sum: f64 = judgement.terms.iter().map(|term| term.bits).sum();
        assert!((sum - judgement.bits).abs() < 1e-9);
        (judgement.verdict, judgement.bits)
    }

    #[test]
    fn other_systems_are_two_hosts_and_the_same_system_tells_nothing() {
        let of = |signature, hours| used(signature, 3, hours);
        for (one, other, relation, expected) in [
            (of(LINUX, EARLY), of(WINDOWS, LATE), AcrossSpaces, (Verdict::TwoHosts, 10.0)),
            (of(LINUX, EARLY), of(MACOS, LATE), AcrossSpaces, (Verdict::TwoHosts, 5.5)),
            (of(LINUX, EARLY), of(MACOS, EARLY), WithinSpace, (Verdict::TwoHosts, 5.5)),
            (of(LINUX, EARLY), of(LINUX, LATE), AcrossSpaces, (Verdict::Unknown, -1.5)),
            (of(LINUX, MIXED), of(LINUX, LATE), AcrossSpaces, (Verdict::Unknown, -0.5)),
            (of(LINUX, EARLY), of(OLD_LINUX, LATE), AcrossSpaces, (Verdict::Unknown, 0.5)),
        ] {
            assert_eq!(
                judged(&one, &other, relation),
                expected,
                "{:?} {:?}",
                one.signatures,
                other.signatures
            );
        }
    }

    #[test]
    fn few_syns_weigh_half_and_forged_ones_nothing() {
        let (one, other) = (used(LINUX, 1, EARLY), used(WINDOWS, 1, LATE));
        assert_eq!(judged(&one, &other, AcrossSpaces), (Verdict::TwoHosts, 5.0));
        let forged = Usage { strength: Strength::Medium, ..used(WINDOWS, 9, LATE) };
        assert_eq!(judged(&one, &forged, AcrossSpaces).0, Verdict::Unknown);
    }

    #[test]
    fn cards_tell_two_hosts_from_one_that_moved_or_is_seen_twice() {
        let of = |card, hours| with_card(used(LINUX, 3, hours), card);
        assert_eq!(judged(&of(1, EARLY), &of(2, LATE), AcrossSpaces), (Verdict::TwoHosts, 6.5));
        assert_eq!(judged(&of(1, EARLY), &of(1, LATE), AcrossSpaces), (Verdict::Moved, -11.5));
        assert_eq!(judged(&of(1, MIXED), &of(1, MIXED), AcrossSpaces), (Verdict::SeenTwice, -10.5));
    }

    #[test]
    fn a_client_with_two_cards_is_one() {
        let client = |usage: Usage, client: &str| Usage { clients: vec![client.into()], ..usage };
        let one = client(with_card(used(LINUX, 3, EARLY), 1), "0102");
        let same = client(with_card(used(LINUX, 3, LATE), 2), "0102");
        let other = client(with_card(used(LINUX, 3, LATE), 2), "0103");
        assert_eq!(judged(&one, &same, AcrossSpaces), (Verdict::Moved, -11.5));
        assert_eq!(
            judged(&one, &other, AcrossSpaces),
            (Verdict::TwoHosts, 6.5),
            "they are not counted twice"
        );
    }

    #[test]
    fn clocks_beside_each_other_are_two_hosts_and_one_after_the_other_may_be_a_restart() {
        let hours: Vec<i64> = (500_000..500_014).collect();
        let of = |origin, reads: &[i64]| with_clock(used(LINUX, 3, &hours), origin, reads);
        let one = of(0, &[500_000, 500_011]);
        assert_eq!(judged(&one, &of(4_000, &[500_001, 500_010]), AcrossSpaces).0, Verdict::TwoHosts);
        assert_eq!(judged(&one, &of(4_000, &[500_012, 500_013]), AcrossSpaces).0, Verdict::Unknown);
        assert_eq!(judged(&one, &of(3, &[500_001]), AcrossSpaces).0, Verdict::SeenTwice);
        let random = Usage { timestamp_breaks: 3, ..used(LINUX, 3, MIXED) };
        let judgement = judge(&one, &random, AcrossSpaces);
        assert!(judgement.terms.contains(&Term { name: "timestamp_kind", bits: 4.0 }), "{judgement:?}");
    }

    #[test]
    fn taking_turns_alone_is_no_evidence_of_two_hosts() {
        let hours: Vec<i64> = (500_000..500_040).collect();
        let bare = |hours: &[i64]| Usage { signatures: Vec::new(), ttl_max: None, ..used(LINUX, 1, hours) };
        assert_eq!(judged(&bare(&hours), &bare(&hours), AcrossSpaces), (Verdict::Unknown, 4.0));
        assert_eq!(judged(&bare(&hours), &bare(&hours), WithinSpace), (Verdict::Unknown, 0.0));
    }
}
