//! Where two independent decoders agree on a capture (`expected/_check.tsv` says FULL) its flows equal theirs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use onenet_core::record::{FlowRecord, FlowSide};

use crate::kit::{OUTCOMES, Outcome, captures_directory, say};

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
}

/// Conversations by protocol and both endpoints, the smaller first.
type Conversations = BTreeMap<(u8, Endpoint, Endpoint), Conversation>;

fn enter(
    conversations: &mut Conversations,
    protocol: u8,
    sides: [(Endpoint, Sent); 2],
    community_id: Option<&str>,
) {
    let [(one, _), (other, _)] = sides;
    let conversation = conversations.entry((protocol, one.min(other), one.max(other))).or_default();
    for (endpoint, sent) in sides {
        conversation.sent.entry(endpoint).or_default().add(sent);
    }
    conversation.community_ids.extend(community_id.map(str::to_owned));
}

/// The outermost flows of our records.
fn ours(records: &[FlowRecord]) -> Conversations {
    let mut conversations = Conversations::new();
    for record in records.iter().filter(|record| record.tunnel_parents.is_empty()) {
        let side = |side: &FlowSide| ((side.ip, side.port), Sent::of(side));
        let sides = [side(&record.originator), side(&record.responder)];
        enter(&mut conversations, record.protocol, sides, Some(&record.community_id));
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
        let protocol = columns[0].parse().expect("a protocol");
        let community_id = Some(columns[20]).filter(|id| *id != "-");
        enter(&mut conversations, protocol, [side(1, 5), side(3, 6)], community_id);
    }
    conversations
}

/// The first difference, if there is one.
fn difference(ours: &Conversations, theirs: &Conversations) -> Option<String> {
    let keys: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differs = |key: &&&(u8, Endpoint, Endpoint)| match (ours.get(**key), theirs.get(**key)) {
        (Some(our), Some(their)) => {
            // The oracle has no Community ID where its library knows none.
            let same_id = their.community_ids.is_empty() || our.community_ids == their.community_ids;
            our.sent != their.sent || !same_id
        }
        _ => true,
    };
    let different: Vec<_> = keys.iter().filter(differs).collect();
    let key = different.first()?;
    let (our, their) = (ours.get(**key), theirs.get(**key));
    Some(format!(
        "{} of {} differ, first {key:?}\n  ours   {our:?}\n  theirs {their:?}",
        different.len(),
        keys.len()
    ))
}

/// Captures of which the flows must equal the oracle's, in percent.
const REQUIRED_SHARE: usize = 95;

/// Names of the captures with this verdict of the two oracles on each other.
fn with_verdict(verdict: &str) -> BTreeSet<String> {
    let checks =
        std::fs::read_to_string(captures_directory().join("expected/_check.tsv")).expect("_check.tsv");
    let rows = checks.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| line.split_once('\t').filter(|(_, rest)| rest.ends_with(verdict)))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// How many of these captures have the oracle's flows, and what differs in the others.
fn compare(outcomes: &[Outcome], names: &BTreeSet<String>) -> (usize, Vec<String>) {
    let mut equal = 0;
    let mut differences = Vec::new();
    for name in names {
        let table = captures_directory().join("expected").join(format!("{name}.flows.tsv"));
        // A capture without a flow has no table.
        let table =
            if table.is_file() { std::fs::read_to_string(table).expect("a table") } else { String::new() };
        let records = outcomes.iter().find(|outcome| &outcome.name == name).map(|outcome| &outcome.flows);
        let found = match records {
            Some(Ok(records)) => difference(&ours(records), &theirs(&table)),
            _ => Some("was not read".to_owned()),
        };
        match found {
            None => equal += 1,
            Some(text) => differences.push(format!("{name}: {text}")),
        }
    }
    (equal, differences)
}

#[test]
fn flows_equal_those_of_two_independent_decoders() {
    let Some(outcomes) = &*OUTCOMES else { return };
    let (fragmented, differences) = compare(outcomes, &with_verdict("\tPACKETS"));
    let names: Vec<&str> = differences.iter().filter_map(|text| text.split(": ").next()).collect();
    say(&format!(
        "with fragments, cut headers or bad lengths {fragmented} captures equal, not: {}",
        names.join(", ")
    ));
    let full = with_verdict("\tFULL");
    let (equal, differences) = compare(outcomes, &full);
    for text in &differences {
        say(text);
    }
    let share = equal as f64 * 100.0 / full.len() as f64;
    say(&format!("flows equal row by row: {equal} of {} captures, {share:.1} %", full.len()));
    assert!(equal * 100 >= full.len() * REQUIRED_SHARE, "{}", differences.join("\n"));
}
