//! Connections as Zeek logs them: its own test baselines (`*.zeek-*.tsv`), row by row, with the options that each
//! baseline calls for. What differs must have a cause that docs/differences.md describes.

use std::{collections::BTreeMap, path::Path, process::Command};

use onenet_core::{
    decode::{Content, TcpSegment, Transport},
    record::{FlowId, FlowRecord, FlowSide},
};

use crate::{
    kit::{captures_directory, say},
    packets,
};

/// Rows that must be equal, in percent.
const REQUIRED_SHARE: f64 = 97.0;

/// IP protocol number of SCTP.
const SCTP: u8 = 132;

const DIFFERENCES: &str = include_str!("../../../docs/differences.md");

/// What a row says of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    ends: [(String, u16); 2],
    protocol: u8,
    state: String,
    history: String,
    /// Packets and IP bytes of originator and responder.
    counts: [(u64, u64); 2],
}

/// A baseline, and whether it was made without checks of checksums.
struct Baseline {
    name: String,
    capture: String,
    ignores_checksums: bool,
    rows: Vec<Row>,
}

fn baselines() -> Vec<Baseline> {
    let directory = captures_directory().join("expected");
    let mut names: Vec<String> = directory
        .read_dir()
        .expect("the expected results can be listed")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.contains(".zeek-") && name.ends_with(".tsv"))
        .collect();
    names.sort();
    names.into_iter().filter_map(|name| baseline(&directory, name)).collect()
}

fn baseline(directory: &Path, name: String) -> Option<Baseline> {
    let text = std::fs::read_to_string(directory.join(&name)).expect("a baseline");
    let header = text.lines().find(|line| line.starts_with('#') && !line.starts_with("##"))?;
    let columns: Vec<&str> = header[1..].split('\t').collect();
    let at = |column: &str| columns.iter().position(|name| *name == column);
    at("conn_state")?;
    let rows = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        let cell = |column: &str| cells[at(column).expect("every column")];
        let number = |column: &str| cell(column).parse::<u64>().expect("a number");
        let end = |ip, port| (cell(ip).to_owned(), cell(port).parse().expect("a port"));
        Row {
            ends: [end("id.orig_h", "id.orig_p"), end("id.resp_h", "id.resp_p")],
            protocol: cell("ip_proto").parse().expect("a protocol"),
            state: cell("conn_state").to_owned(),
            history: cell("history").trim_matches('-').to_owned(),
            counts: [
                (number("orig_pkts"), number("orig_ip_bytes")),
                (number("resp_pkts"), number("resp_ip_bytes")),
            ],
        }
    });
    Some(Baseline {
        capture: name.split_once(".zeek-")?.0.to_owned(),
        ignores_checksums: text.contains("## checksums ignored: yes"),
        rows: rows.collect(),
        name: name.clone(),
    })
}

/// Our connections, the parts of each put together.
fn ours(baseline: &Baseline) -> Vec<Row> {
    let agent = onenet_tests::programs::directory().expect("the programs are built").join("onenet-agent");
    let checksums = if baseline.ignores_checksums { "ignore" } else { "verify" };
    let output = Command::new(agent)
        .args(["read", "--quiet", "--fragments", "reassembled", "--checksums", checksums])
        .arg(captures_directory().join(&baseline.capture))
        .output()
        .expect("onenet-agent starts");
    let mut connections = BTreeMap::<FlowId, Row>::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let record: FlowRecord = serde_json::from_str(line).expect("a flow");
        let end = |side: &FlowSide| (side.ip.to_string(), side.port);
        let mut counts = [&record.originator, &record.responder].map(|side| (side.packets, side.ip_bytes));
        if let Some(earlier) = connections.get(&record.flow_id) {
            for (sum, part) in counts.iter_mut().zip(&earlier.counts) {
                (sum.0, sum.1) = (sum.0 + part.0, sum.1 + part.1);
            }
        }
        let row = Row {
            ends: [end(&record.originator), end(&record.responder)],
            protocol: record.protocol,
            state: record.conn_state.to_string(),
            history: record.history.clone(),
            counts,
        };
        connections.insert(record.flow_id, row);
    }
    connections.into_values().collect()
}

/// What is unusual of the packets between two endpoints.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    /// Payload was cut at the snap length.
    cut: bool,
    /// The length in the IP header is 0.
    unstated: bool,
}

type Ends = [(String, u16); 2];

/// The same for either direction.
fn unordered(ends: &Ends) -> Ends {
    let mut ends = ends.clone();
    ends.sort();
    ends
}

fn facts(capture: &str) -> BTreeMap<Ends, Facts> {
    let mut all = BTreeMap::<Ends, Facts>::new();
    packets::for_each(&captures_directory().join(capture), |packet| {
        for layer in packets::layers(packet) {
            let Content::Ip(ip) = layer.content else { continue };
            let (source, destination) = match ip.transport {
                Transport::Tcp(TcpSegment { source, destination, .. })
                | Transport::Ports { source, destination } => (source, destination),
                Transport::Icmp { .. } | Transport::None => (0, 0),
            };
            let ends = [(ip.source.to_string(), source), (ip.destination.to_string(), destination)];
            let facts = all.entry(unordered(&ends)).or_default();
            facts.cut |= ip.payload.len() < ip.payload_bytes as usize;
            let length = if ip.source.is_ipv4() { 2..4 } else { 4..6 };
            facts.unstated |= ip.header().get(length) == Some(&[0, 0]);
        }
    });
    all
}

/// Why a row of Zeek's has no equal among ours, by what the rows and the packets say. Each cause is described in
/// docs/differences.md.
fn cause(theirs: &Row, ours: &[&Row], facts: Facts) -> Option<&'static str> {
    let hosts = |row: &Row| {
        let mut hosts = row.ends.clone().map(|(host, _)| host);
        hosts.sort();
        (row.protocol, hosts)
    };
    let packets =
        |rows: &[&&Row]| rows.iter().flat_map(|row| row.counts).map(|(packets, _)| packets).sum::<u64>();
    let same_hosts: Vec<_> = ours.iter().filter(|row| hosts(row) == hosts(theirs)).collect();
    let total = packets(&[&theirs]);
    if theirs.protocol == SCTP && theirs.ends.iter().all(|(_, port)| *port == 0) {
        return (packets(&same_hosts) >= total).then_some("SCTP without ports");
    }
    let mine: Vec<_> =
        same_hosts.into_iter().filter(|row| unordered(&row.ends) == unordered(&theirs.ends)).collect();
    if mine.len() > 1 && packets(&mine) == total {
        return Some("Other timeouts");
    }
    let row = mine.first()?;
    let without =
        |row: &Row, letters: &[char]| (row.counts, row.state.clone(), row.history.replace(letters, ""));
    if theirs.history.contains(['x', 'X']) && without(row, &[]) == without(theirs, &['x', 'X']) {
        return Some("Analysis that stops");
    }
    let gap = ['g', 'G', 'd', 'D'];
    if facts.cut && theirs.history.contains(['g', 'G']) && without(row, &gap) == without(theirs, &gap) {
        return Some("Payload that was not captured");
    }
    let fewer_bytes =
        row.counts.iter().zip(theirs.counts).all(|(our, their)| our.0 == their.0 && our.1 >= their.1);
    if facts.unstated && fewer_bytes && (&row.state, &row.history) == (&theirs.state, &theirs.history) {
        return Some("A length of 0");
    }
    None
}

#[test]
fn connections_equal_those_of_zeeks_own_tests() {
    if !captures_directory().is_dir() {
        say(&format!("SKIPPED: no captures at {}", captures_directory().display()));
        return;
    }
    let (mut rows, mut equal) = (0_usize, 0_usize);
    let mut causes = BTreeMap::<&str, usize>::new();
    let mut unexplained = Vec::new();
    for baseline in baselines() {
        let connections = ours(&baseline);
        let mut left: Vec<&Row> = connections.iter().collect();
        let mut missing = Vec::new();
        for row in &baseline.rows {
            match left.iter().position(|ours| *ours == row) {
                Some(at) => {
                    left.swap_remove(at);
                }
                None => missing.push(row),
            }
        }
        rows += baseline.rows.len();
        equal += baseline.rows.len() - missing.len();
        let facts = if missing.is_empty() { BTreeMap::new() } else { facts(&baseline.capture) };
        for row in missing {
            let facts = facts.get(&unordered(&row.ends)).copied().unwrap_or_default();
            let cause = cause(row, &left, facts);
            say(&format!("{}: {}: {row:?}", baseline.name, cause.unwrap_or("UNEXPLAINED")));
            match cause {
                Some(cause) => *causes.entry(cause).or_default() += 1,
                None => unexplained.push(format!("{}: {row:?}\n  ours {left:?}", baseline.name)),
            }
        }
    }
    let share = equal as f64 * 100.0 / rows as f64;
    say(&format!(
        "Zeek's connections equal row by row: {equal} of {rows}, {share:.1} %; others by cause {causes:?}"
    ));
    for cause in causes.keys() {
        assert!(DIFFERENCES.contains(&format!("- {cause}: ")), "docs/differences.md has no cause {cause:?}");
    }
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    assert!(share >= REQUIRED_SHARE, "{share:.1} % of the rows are equal, not {REQUIRED_SHARE} %");
}
