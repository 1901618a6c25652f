//! Where two independent decoders agree on a capture (`expected/_check.tsv` says FULL) its flows equal theirs in
//! every number, time and tag; where they agree on packets alone (PACKETS) the flows equal theirs in packets and
//! bytes on the wire.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use onenet_core::record::{FlowRecord, FlowSide};
use serde_json::Value;

use crate::{
    kit::{OUTCOMES, Outcome, captures_directory, say},
    packets::seconds,
};

/// Address and port.
type Endpoint = (IpAddr, u16);

/// What one side of a flow sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sent {
    packets: u64,
    wire_bytes: u64,
    ip_bytes: u64,
    payload_bytes: u64,
    tcp_flags: u16,
    fragments: u64,
}

impl Sent {
    fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.wire_bytes += other.wire_bytes;
        self.ip_bytes += other.ip_bytes;
        self.payload_bytes += other.payload_bytes;
        self.tcp_flags |= other.tcp_flags;
        self.fragments += other.fragments;
    }

    /// What two decoders agree on where lengths contradict one another, or packets are fragments or cut.
    const fn on_the_wire(&self) -> (u64, u64) {
        (self.packets, self.wire_bytes)
    }

    fn of(side: &FlowSide) -> Self {
        Self {
            packets: side.packets,
            wire_bytes: side.wire_bytes,
            ip_bytes: side.ip_bytes,
            payload_bytes: side.payload_bytes,
            tcp_flags: side.tcp_flags,
            fragments: side.fragments,
        }
    }
}

/// All flows between two endpoints: the oracle never splits a flow and takes the sender of the first packet
/// for its originator, so parts, reuses and sides are brought together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Conversation {
    sent: BTreeMap<Endpoint, Sent>,
    community_ids: BTreeSet<String>,
    /// First and last packet.
    times: Option<(String, String)>,
    /// VLAN ids of the packets, outermost first, with points between them.
    vlans: BTreeSet<String>,
}

/// Conversations by protocol and both endpoints, the smaller first.
type Conversations = BTreeMap<(u8, Endpoint, Endpoint), Conversation>;

/// One flow of ours or of the oracle.
struct Entry<'a> {
    protocol: u8,
    sides: [(Endpoint, Sent); 2],
    community_id: Option<&'a str>,
    times: (String, String),
    vlans: Vec<String>,
}

fn enter(conversations: &mut Conversations, entry: Entry<'_>) {
    let [(one, _), (other, _)] = entry.sides;
    let conversation = conversations.entry((entry.protocol, one.min(other), one.max(other))).or_default();
    for (endpoint, sent) in entry.sides {
        conversation.sent.entry(endpoint).or_default().add(sent);
    }
    conversation.community_ids.extend(entry.community_id.map(str::to_owned));
    conversation.vlans.extend(entry.vlans);
    let (first, last) = entry.times;
    conversation.times = Some(match conversation.times.take() {
        Some((start, end)) => (earlier(start, first.clone()), later(end, last)),
        None => (first, last),
    });
}

/// Times are compared as numbers: their seconds differ in length.
fn as_number(time: &str) -> i128 {
    time.replace('.', "").parse().expect("a time")
}

fn earlier(one: String, other: String) -> String {
    if as_number(&one) <= as_number(&other) { one } else { other }
}

fn later(one: String, other: String) -> String {
    if as_number(&one) >= as_number(&other) { one } else { other }
}

/// The outermost flows of our records.
fn ours(records: &[FlowRecord]) -> Conversations {
    let mut conversations = Conversations::new();
    for record in records.iter().filter(|record| record.tunnel_parents.is_empty()) {
        let side = |side: &FlowSide| ((side.ip, side.port), Sent::of(side));
        let tags: Vec<String> = record.vlans.iter().map(ToString::to_string).collect();
        let entry = Entry {
            protocol: record.protocol,
            sides: [side(&record.originator), side(&record.responder)],
            community_id: Some(&record.community_id),
            times: (seconds(record.start), seconds(record.end)),
            vlans: Some(tags.join(".")).filter(|tags| !tags.is_empty()).into_iter().collect(),
        };
        enter(&mut conversations, entry);
    }
    conversations
}

/// The flows of the oracle.
fn theirs(table: &str) -> Conversations {
    let mut conversations = Conversations::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let number = |at: usize| columns[at].parse::<u64>().expect("a number");
        let port = |at: usize| columns[at].parse::<u16>().expect("a port");
        let side = |ip: usize, counts: usize| {
            let sent = Sent {
                packets: number(counts),
                wire_bytes: number(counts + 2),
                ip_bytes: number(counts + 4),
                payload_bytes: number(counts + 6),
                tcp_flags: u16::from_str_radix(columns[counts + 8], 16).expect("flags"),
                fragments: number(counts + 10),
            };
            ((columns[ip].parse::<IpAddr>().expect("an address"), port(ip + 1)), sent)
        };
        let entry = Entry {
            protocol: columns[0].parse().expect("a protocol"),
            sides: [side(1, 5), side(3, 6)],
            community_id: Some(columns[20]).filter(|id| *id != "-"),
            times: (columns[17].to_owned(), columns[18].to_owned()),
            vlans: columns[19].split(',').filter(|tags| *tags != "-").map(str::to_owned).collect(),
        };
        enter(&mut conversations, entry);
    }
    conversations
}

/// How much two decoders agree on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Everything,
    OnTheWire,
}

fn differs(ours: &Conversation, theirs: &Conversation, extent: Extent) -> bool {
    if extent == Extent::OnTheWire {
        let counts = |conversation: &Conversation| -> BTreeMap<Endpoint, (u64, u64)> {
            conversation.sent.iter().map(|(endpoint, sent)| (*endpoint, sent.on_the_wire())).collect()
        };
        return counts(ours) != counts(theirs);
    }
    // The oracle has no Community ID where its library knows none.
    let same_id = theirs.community_ids.is_empty() || ours.community_ids == theirs.community_ids;
    // A record has the tags of the first packet, the oracle those of all.
    let same_tags =
        ours.vlans == theirs.vlans || (!ours.vlans.is_empty() && ours.vlans.is_subset(&theirs.vlans));
    ours.sent != theirs.sent || !same_times(ours, theirs) || !same_id || !same_tags
}

/// A packet without a time (pcapng simple packet) has that of the packet before it with us, 0 in the oracle.
fn same_times(ours: &Conversation, theirs: &Conversation) -> bool {
    let (Some((first, last)), Some((their_first, their_last))) = (&ours.times, &theirs.times) else {
        return false;
    };
    let no_time = as_number(their_first) == 0;
    let same = |one: &String, other: &String| one == other || no_time;
    same(first, their_first) && same(last, their_last)
}

/// Flows compared, flows equal, and the first difference, if there is one.
fn difference(
    ours: &Conversations,
    theirs: &Conversations,
    extent: Extent,
) -> (usize, usize, Option<String>) {
    let keys: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let is_different = |key: &&&(u8, Endpoint, Endpoint)| match (ours.get(**key), theirs.get(**key)) {
        (Some(our), Some(their)) => differs(our, their, extent),
        _ => true,
    };
    let different: Vec<_> = keys.iter().filter(is_different).collect();
    let text = different.first().map(|key| {
        let (our, their) = (ours.get(**key), theirs.get(**key));
        let (differ, all) = (different.len(), keys.len());
        format!("{differ} of {all} differ, first {key:?}\n  ours   {our:?}\n  theirs {their:?}")
    });
    (keys.len(), keys.len() - different.len(), text)
}

/// Names of the captures with this verdict of the two oracles on each other, but for those that we read and of which
/// neither oracle reads the link type: they agree on nothing there.
fn with_verdict(outcomes: &[Outcome], verdict: &str) -> BTreeSet<String> {
    let expected = captures_directory().join("expected");
    let checks = std::fs::read_to_string(expected.join("_check.tsv")).expect("_check.tsv");
    let notes = std::fs::read_to_string(expected.join("_info.json")).expect("_info.json");
    let notes: Value = serde_json::from_str(&notes).expect("JSON");
    let unread = |name: &str| {
        let features = notes[name]["features"].as_object();
        let link_type = features.is_some_and(|all| all.keys().any(|key| key.starts_with("l2:linktype:")));
        let read = |outcome: &Outcome| {
            outcome.name == name && outcome.flows.as_ref().is_ok_and(|flows| !flows.is_empty())
        };
        link_type && notes[name]["flows"] == 0 && outcomes.iter().any(read)
    };
    let rows = checks.lines().filter(|line| !line.starts_with('#'));
    let (skipped, names): (BTreeSet<String>, BTreeSet<String>) = rows
        .filter_map(|line| line.split_once('\t').filter(|(_, rest)| rest.ends_with(verdict)))
        .map(|(name, _)| name.to_owned())
        .partition(|name| unread(name));
    if !skipped.is_empty() {
        say(&format!("of a link type that we read and neither decoder does: {} captures", skipped.len()));
    }
    names
}

/// What came out of comparing some captures.
#[derive(Default)]
struct Figures {
    captures: usize,
    captures_equal: usize,
    flows: usize,
    flows_equal: usize,
    differences: Vec<String>,
}

fn compare(outcomes: &[Outcome], names: &BTreeSet<String>, extent: Extent) -> Figures {
    let mut figures = Figures { captures: names.len(), ..Figures::default() };
    for name in names {
        let table = captures_directory().join("expected").join(format!("{name}.flows.tsv"));
        // A capture without a flow has no table.
        let table =
            if table.is_file() { std::fs::read_to_string(table).expect("a table") } else { String::new() };
        let records = outcomes.iter().find(|outcome| &outcome.name == name).map(|outcome| &outcome.flows);
        let (flows, equal, found) = match records {
            Some(Ok(records)) => difference(&ours(records), &theirs(&table), extent),
            _ => (0, 0, Some("was not read".to_owned())),
        };
        figures.flows += flows;
        figures.flows_equal += equal;
        match found {
            None => figures.captures_equal += 1,
            Some(text) => figures.differences.push(format!("{name}: {text}")),
        }
    }
    figures
}

/// Prints the figures; no flow may differ.
fn conclude(what: &str, figures: &Figures) {
    let Figures { captures, captures_equal, flows, flows_equal, differences } = figures;
    say(&format!("{what}: {flows_equal} of {flows} flows, {captures_equal} of {captures} captures"));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn flows_equal_those_of_two_independent_decoders_in_every_number() {
    let Some(outcomes) = &*OUTCOMES else { return };
    let figures = compare(outcomes, &with_verdict(outcomes, "\tFULL"), Extent::Everything);
    conclude("flows equal row by row (FULL)", &figures);
}

#[test]
fn flows_with_fragments_or_bad_lengths_equal_theirs_in_packets_and_bytes_on_the_wire() {
    let Some(outcomes) = &*OUTCOMES else { return };
    let names = with_verdict(outcomes, "\tPACKETS");
    let everything = compare(outcomes, &names, Extent::Everything);
    let unequal = everything.differences.iter().filter_map(|text| text.split(": ").next());
    say(&format!(
        "flows with fragments or bad lengths equal row by row: {} of {} flows, {} of {} captures, not {}",
        everything.flows_equal,
        everything.flows,
        everything.captures_equal,
        everything.captures,
        unequal.collect::<Vec<_>>().join(", ")
    ));
    conclude(
        "flows equal in packets and wire bytes (PACKETS)",
        &compare(outcomes, &names, Extent::OnTheWire),
    );
}
