//! What is inside tunnels, held to what others say of the same captures: tshark's IP layers packet by packet (each
//! depth of tunnels by itself), Arkime's sessions and nDPI's flows, which are of the innermost packet.
//!
//! docs/differences.md states the causes of the differences that are printed here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use onenet_core::record::FlowRecord;

use crate::kit::{OUTCOMES, Outcome, captures_directory, say};

/// Packets from one address to another, inside so many tunnels.
type Pairs = BTreeMap<(usize, IpAddr, IpAddr), u64>;

/// Tunnels inside tunnels that are opened unless the configuration says otherwise.
const DEPTH: usize = 3;

/// Headers between link and network that are followed.
const SHIMS: usize = 16;

/// IP pairs of our flows.
fn our_pairs(records: &[FlowRecord]) -> Pairs {
    let mut pairs = Pairs::new();
    for record in records {
        let depth = record.tunnel_parents.len();
        let (one, other) = (&record.originator, &record.responder);
        for (from, to) in [(one, other), (other, one)] {
            *pairs.entry((depth, from.ip, to.ip)).or_default() += from.packets;
        }
    }
    pairs.retain(|_, packets| *packets > 0);
    pairs
}

/// tshark's IP layers, and why those that are no tunnel to us are none.
#[derive(Default)]
struct Layers {
    pairs: Pairs,
    /// Packets whose inner layers are left out, by cause.
    left_out: BTreeMap<&'static str, u64>,
}

/// Why an IP layer that tshark shows behind this header is none of ours, if it is none.
fn left_out(before: &[&str], depth: usize) -> Option<&'static str> {
    let is_behind = |name: &str| before.contains(&name);
    if is_behind("icmp") || is_behind("icmpv6") {
        return Some("quoted in ICMP");
    }
    if is_behind("ipcomp") {
        return Some("compressed (IPComp)");
    }
    if is_behind("esp") {
        return Some("in ESP with no encryption, by tshark's guess");
    }
    if depth > DEPTH {
        return Some("deeper than tunnels are opened");
    }
    // Every header has a name here, and most Ethernet headers two.
    if depth == 0 && before.len() > 2 * SHIMS {
        return Some("behind more frames and tags than are followed");
    }
    let carriers = ["sflow", "openflow_v4", "openflow_v1", "pim", "vjc", "ppp.vjc", "slarp", "nhrp"];
    carriers.iter().any(|name| is_behind(name)).then_some("sampled or quoted by another protocol")
}

/// Reads tshark's table: protocols, then IPv4 and IPv6 addresses of every layer.
fn their_layers(table: &str) -> Layers {
    let mut layers = Layers::default();
    for line in table.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [protocols, rest @ ..] = columns.as_slice() else { continue };
        let list = |at: usize| rest.get(at).unwrap_or(&"").split(',').filter(|text| !text.is_empty());
        let mut v4 = list(0).zip(list(1));
        let mut v6 = list(2).zip(list(3));
        let names: Vec<&str> = protocols.split(':').collect();
        let mut depth = 0;
        for (at, name) in names.iter().enumerate() {
            let ends = match *name {
                "ip" => v4.next(),
                "ipv6" => v6.next(),
                _ => continue,
            };
            let Some((from, to)) = ends else { break };
            if let Some(cause) = left_out(&names[..at], depth) {
                *layers.left_out.entry(cause).or_default() += 1;
                break;
            }
            let (Ok(from), Ok(to)) = (from.parse(), to.parse()) else { break };
            *layers.pairs.entry((depth, from, to)).or_default() += 1;
            depth += 1;
        }
    }
    layers
}

/// tshark over one capture, fragments left as they are.
fn tshark(capture: &Path) -> Option<String> {
    let fields = ["frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst"];
    let output = Command::new("tshark")
        .args(["-n", "-T", "fields", "-E", "occurrence=a"])
        .args(["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"])
        .args(["-o", "tcp.desegment_tcp_streams:FALSE"])
        .args(fields.iter().flat_map(|field| ["-e", field]))
        .arg("-r")
        .arg(capture)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn tshark_of_all(outcomes: &[Outcome]) -> BTreeMap<&str, Layers> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let take = || outcomes.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(take)
            .filter_map(|outcome| {
                let table = tshark(&captures_directory().join(&outcome.name))?;
                Some((outcome.name.as_str(), their_layers(&table)))
            })
            .collect::<Vec<_>>()
    };
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("a worker ends")).collect()
    })
}

/// Captures in which every IP pair at every depth has tshark's packets, in percent.
const REQUIRED_CAPTURES: usize = 95;
/// IP layers inside tunnels that are as tshark has them, in percent.
const REQUIRED_INNER: u64 = 99;

#[test]
fn ip_layers_at_every_depth_are_tsharks() {
    let Some(outcomes) = &*OUTCOMES else { return };
    if Command::new("tshark").arg("--version").output().is_err() {
        say("SKIPPED: tshark is not installed; no IP layers were compared");
        return;
    }
    let theirs = tshark_of_all(outcomes);
    let (mut equal, mut inner, mut inner_equal) = (0, 0, 0);
    let mut left_out = BTreeMap::<&str, u64>::new();
    let (mut compared, mut only_ours, mut only_theirs) = (0, 0, 0);
    for outcome in outcomes {
        // What neither can read has no layers.
        let (Ok(records), Some(layers)) = (&outcome.flows, theirs.get(outcome.name.as_str())) else {
            continue;
        };
        compared += 1;
        let ours = our_pairs(records);
        inner += layers.pairs.iter().filter(|((depth, ..), _)| *depth > 0).map(|(_, n)| n).sum::<u64>();
        let keys: BTreeSet<_> = ours.keys().chain(layers.pairs.keys()).collect();
        let count = |pairs: &Pairs, key| pairs.get(key).copied().unwrap_or_default();
        let different: Vec<_> =
            keys.iter().filter(|key| count(&ours, **key) != count(&layers.pairs, **key)).collect();
        inner_equal += keys
            .iter()
            .filter(|key| key.0 > 0)
            .map(|key| count(&ours, *key).min(count(&layers.pairs, *key)))
            .sum::<u64>();
        for key in &different {
            let (our, their) = (count(&ours, **key), count(&layers.pairs, **key));
            only_ours += our.saturating_sub(their);
            only_theirs += their.saturating_sub(our);
        }
        if let Some(key) = different.first() {
            let (our, their) = (count(&ours, **key), count(&layers.pairs, **key));
            let pairs = different.len();
            say(&format!("{}: {pairs} pairs, first {key:?}: {our}, tshark {their}", outcome.name));
        } else {
            equal += 1;
        }
        for (cause, packets) in &layers.left_out {
            *left_out.entry(cause).or_default() += packets;
        }
    }
    for (cause, packets) in &left_out {
        say(&format!("tshark shows {packets} more IP layers {cause}"));
    }
    say(&format!("IP layers at every depth as tshark's: {equal} of {compared} captures"));
    say(&format!("IP layers that only we count: {only_ours}, that only tshark shows: {only_theirs}"));
    say(&format!("IP layers inside tunnels: {inner_equal} of {inner} packets"));
    assert!(equal * 100 >= compared * REQUIRED_CAPTURES);
    assert!(inner_equal * 100 >= inner * REQUIRED_INNER);
}

/// Packets each way of one innermost flow: protocol and both ends, the smaller first. Ports are 0 for ICMP.
type Sessions = BTreeMap<(u8, (IpAddr, u16), (IpAddr, u16)), [u64; 2]>;

fn enter(sessions: &mut Sessions, protocol: u8, ends: [(IpAddr, u16); 2], packets: [u64; 2]) {
    let [one, other] = ends;
    let [from_one, from_other] = packets;
    let swapped = one > other;
    let (key, packets) = if swapped {
        ((protocol, other, one), [from_other, from_one])
    } else {
        ((protocol, one, other), [from_one, from_other])
    };
    let known = sessions.entry(key).or_default();
    for (sum, more) in known.iter_mut().zip(packets) {
        *sum += more;
    }
}

/// Our flows, at every depth: what another takes for innermost is one of them.
fn our_sessions(records: &[FlowRecord]) -> Sessions {
    let mut sessions = Sessions::new();
    for record in records {
        let port = |port: u16| if matches!(record.protocol, 1 | 58) { 0 } else { port };
        let (one, other) = (&record.originator, &record.responder);
        let ends = [(one.ip, port(one.port)), (other.ip, port(other.port))];
        enter(&mut sessions, record.protocol, ends, [one.packets, other.packets]);
    }
    sessions
}

fn arkime_sessions(table: &str) -> Sessions {
    let mut sessions = Sessions::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let number = |at: usize| columns.get(at).and_then(|text| text.parse::<u64>().ok());
        let end = |at: usize| {
            let ip = columns.get(at)?.parse::<IpAddr>().ok()?;
            Some((ip, u16::try_from(number(at + 1)?).ok()?))
        };
        // Sessions of ARP and the like have no addresses.
        let (Some(protocol), Some(one), Some(other)) = (number(0), end(1), end(3)) else { continue };
        let packets = [number(5).unwrap_or(0), number(6).unwrap_or(0)];
        enter(&mut sessions, u8::try_from(protocol).unwrap_or(0), [one, other], packets);
    }
    sessions
}

/// An end as nDPI writes it: `address:port`, or for IPv6 `[address]:port`.
fn ndpi_end(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.rsplit_once(':')?;
    Some((ip.trim_matches(['[', ']']).parse().ok()?, port.parse().ok()?))
}

/// Protocol, ends, and packets each way.
type Session = (u8, [(IpAddr, u16); 2], [u64; 2]);

/// `\t1\tUDP 192.0.2.1:53 <-> 192.0.2.2:5060 [proto: …]…[2 pkts/384 bytes <-> 1 pkts/80 bytes]…`
fn ndpi_session(line: &str) -> Option<Session> {
    let mut words = line.trim().split('\t').nth(1)?.split(' ');
    let protocol = match words.next()? {
        "TCP" => 6,
        "UDP" => 17,
        "ICMP" => 1,
        "ICMPV6" => 58,
        "SCTP" => 132,
        _ => return None,
    };
    let (one, way, other) = (words.next()?, words.next()?, words.next()?);
    if !matches!(way, "->" | "<->") {
        return None;
    }
    let counts = line.split('[').find(|field| field.contains(" pkts/"))?;
    let packets: Vec<u64> = counts
        .split(" pkts/")
        .filter_map(|part| part.rsplit([' ', '>']).find(|word| !word.is_empty())?.parse().ok())
        .collect();
    let &[there, back, ..] = packets.as_slice() else { return None };
    Some((protocol, [ndpi_end(one)?, ndpi_end(other)?], [there, back]))
}

fn ndpi_sessions(text: &str) -> Sessions {
    let mut sessions = Sessions::new();
    for line in text.lines().filter(|line| line.starts_with('\t')) {
        if let Some((protocol, ends, packets)) = ndpi_session(line) {
            enter(&mut sessions, protocol, ends, packets);
        }
    }
    sessions
}

/// Compares the sessions of one oracle, and prints what differs; gives equal and all.
fn compare(
    outcomes: &[Outcome],
    suffix: &str,
    sessions_of: fn(&str) -> Sessions,
    differs: fn([u64; 2], [u64; 2]) -> bool,
) -> (usize, usize) {
    let (mut equal, mut all) = (0, 0);
    for outcome in outcomes {
        let file = captures_directory().join("expected").join(format!("{}.{suffix}", outcome.name));
        let (Ok(text), Ok(records)) = (std::fs::read_to_string(file), &outcome.flows) else { continue };
        let (ours, theirs) = (our_sessions(records), sessions_of(&text));
        let different: Vec<_> = theirs
            .iter()
            .filter(|(key, packets)| ours.get(*key).is_none_or(|our| differs(*our, **packets)))
            .collect();
        all += theirs.len();
        equal += theirs.len() - different.len();
        if let Some((key, packets)) = different.first() {
            let (count, of, our) = (different.len(), theirs.len(), ours.get(*key));
            say(&format!(
                "{} {suffix}: {count} of {of}, first {key:?}: {our:?}, theirs {packets:?}",
                outcome.name
            ));
        }
    }
    (equal, all)
}

#[test]
fn sessions_of_arkime_are_among_the_flows() {
    let Some(outcomes) = &*OUTCOMES else { return };
    let (equal, all) = compare(outcomes, "arkime.tsv", arkime_sessions, |ours, theirs| ours != theirs);
    say(&format!("sessions of Arkime with the same packets: {equal} of {all}"));
    assert!(equal * 100 >= all * REQUIRED_SESSIONS);
}

#[test]
fn flows_of_ndpi_are_among_the_flows() {
    let Some(outcomes) = &*OUTCOMES else { return };
    let (equal, all) = compare(outcomes, "ndpi.txt", ndpi_sessions, |ours, theirs| ours != theirs);
    say(&format!("flows of nDPI with the same packets: {equal} of {all}"));
    assert!(equal * 100 >= all * REQUIRED_SESSIONS);
}

/// Sessions with the same ends and packets, in percent.
const REQUIRED_SESSIONS: usize = 90;
