//! What is behind two uses of one address: two hosts, one host that moved, or one host that is seen in both places.
//!
//! Each piece of evidence is a term of a likelihood ratio, in bits: the logarithm to base 2 of how much more likely it is
//! if two hosts have the address than if one has. Terms add up. Their base are the points of p0f's detection of address
//! sharing (fp_tcp.c, Zalewski): a change of the initial time to live 4, an impossible timestamp 4, a change of the
//! segment size 1, and never timestamps alone. What p0f does not see has weights of ours, stated at each.
//!
//! Limits: a MAC address can be set by hand; a middlebox may rewrite options for one path; Linux begins timestamps anew for
//! each peer, so its clock says nothing; two hosts with the same system behind routers look alike and stay unknown.

use std::collections::BTreeSet;

use super::usage::{Usage, is_virtual};
use crate::{
    net::MacAddress,
    record::{Strength, Verdict, initial_ttl},
    time::NANOS_PER_SECOND,
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
/// Clocks of one host agree within this, and drift by at most 300 parts in a million.
const CLOCK_SLACK: i64 = 5 * NANOS_PER_SECOND;

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
    add("timestamp", clocks(one, other));
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
        add("mss", weighed(compare(&sizes(one), &sizes(other), MSS_DIFFERS, 0.0)));
    }
}

fn clocks(one: &Usage, other: &Usage) -> Option<f64> {
    let ((a, a_read), (b, b_read)) = (one.clock?, other.clock?);
    let apart = a_read.since(b_read).saturating_abs() / 1_000_000 * 300;
    let is_same =
        a.hertz == b.hertz && a.origin.since(b.origin).saturating_abs() <= CLOCK_SLACK.saturating_add(apart);
    Some(if is_same { CLOCK_SAME } else { CLOCK_DIFFERS })
}

fn verdict(one: &Usage, other: &Usage, relation: Relation, terms: &[Term], bits: f64, turns: u32) -> Verdict {
    let two_hosts = match relation {
        Relation::AcrossSpaces => TWO_HOSTS_ACROSS,
        Relation::WithinSpace => TWO_HOSTS_WITHIN,
    };
    // Whoever forges a source hears no answer; and when an address was used is no evidence of who used it.
    let are_answered = one.strength == Strength::Strong && other.strength == Strength::Strong;
    let is_of_hosts = |term: &Term| term.bits > 0.0 && !matches!(term.name, "timestamp" | "turns");
    if bits >= two_hosts && are_answered && terms.iter().any(is_of_hosts) {
        return Verdict::TwoHosts;
    }
    if bits > ONE_HOST {
        return Verdict::Unknown;
    }
    if turns >= CONCURRENT { Verdict::SeenTwice } else { Verdict::Moved }
}
