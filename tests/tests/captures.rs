//! Real captures through the real program: `onenet-agent read` takes every capture of `../shared/captures`
//! without a crash and with a ledger that balances, and where two independent decoders agree on a capture
//! (`expected/_check.tsv` says FULL) its flows equal theirs.

#![expect(clippy::expect_used, reason = "a test stops where it finds what it did not expect")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use onenet_core::record::{FlowRecord, FlowSide};
use serde_json::Value;

/// Captures of which the flows must equal the oracle's, in percent.
const REQUIRED_SHARE: usize = 95;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above this package")
}

/// Prints past the test runner, which keeps to itself what tests that pass print.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn captures_directory() -> PathBuf {
    workspace().join("../shared/captures")
}

/// What `read` did with one capture.
struct Outcome {
    name: String,
    exit: Option<i32>,
    stderr: String,
    summary: Option<Value>,
    flows: Result<Vec<FlowRecord>, String>,
}

/// Every capture, read once for all tests of this file; none where the captures are not there.
static OUTCOMES: LazyLock<Option<Vec<Outcome>>> = LazyLock::new(|| {
    let directory = captures_directory();
    if !directory.is_dir() {
        say(&format!("SKIPPED: no captures at {}; nothing was compared", directory.display()));
        return None;
    }
    let agent = onenet_tests::programs::directory().expect("the programs are built").join("onenet-agent");
    let mut captures: Vec<PathBuf> = directory
        .read_dir()
        .expect("the captures can be listed")
        .map(|entry| entry.expect("the captures can be listed").path())
        .filter(|path| path.is_file() && !path.ends_with("EXPECTED.md") && !path.ends_with("MANIFEST.tsv"))
        .collect();
    captures.sort();
    Some(read_all(&agent, &captures))
});

fn read_all(agent: &Path, captures: &[PathBuf]) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let take = || captures.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(take).map(|capture| read(agent, capture)).collect::<Vec<_>>()
    };
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let mut outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("a worker ends")).collect()
    });
    outcomes.sort_by(|one, other| one.name.cmp(&other.name));
    outcomes
}

fn read(agent: &Path, capture: &Path) -> Outcome {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| scratch.path().join(name);
    let output = Command::new(agent)
        .args(["read", "--quiet", "--flows"])
        .arg(path("flows"))
        .arg("--observations")
        .arg(path("observations"))
        .arg("--findings")
        .arg(path("findings"))
        .arg("--summary")
        .arg(path("summary"))
        .arg(capture)
        .output()
        .expect("onenet-agent starts");
    let flows = std::fs::read_to_string(path("flows")).unwrap_or_default();
    let summary = std::fs::read(path("summary")).ok();
    Outcome {
        name: capture.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        exit: output.status.code(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        summary: summary.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
        flows: flows
            .lines()
            .map(|line| serde_json::from_str(line).map_err(|error| format!("{error} in {line}")))
            .collect(),
    }
}

/// What is wrong with how `read` ended, if anything is.
fn complaint(outcome: &Outcome) -> Option<String> {
    if let Err(error) = &outcome.flows {
        return Some(format!("a flow does not read back: {error}"));
    }
    let stderr = outcome.stderr.trim_end();
    let broke = match (outcome.exit, &outcome.summary) {
        (Some(0), Some(summary)) if stderr.is_empty() => summary["captures"][0]["error"].is_string(),
        (Some(1), _) if stderr.lines().count() == 1 && stderr.contains(&outcome.name) => true,
        (exit, _) => return Some(format!("exit code {exit:?}, standard error: {stderr:?}")),
    };
    if broke != (outcome.exit == Some(1)) {
        return Some("the summary tells of damage and the exit code does not".to_owned());
    }
    let Some(summary) = &outcome.summary else { return None };
    let ledger = &summary["ledger"];
    let number = |value: &Value| value.as_u64();
    let packets = number(&ledger["packets"])?;
    let accounted = number(&ledger["parsed"]).zip(number(&ledger["unparsed"])).map(|(a, b)| a + b);
    let read = number(&summary["captures"][0]["packets"]);
    let balanced = accounted == Some(packets) && read == Some(packets) && ledger["balanced"] == true;
    (!balanced).then(|| format!("the ledger does not balance: {ledger}, of {read:?} packets in the capture"))
}

#[test]
fn every_capture_is_read_without_a_crash_and_its_ledger_balances() {
    let Some(outcomes) = &*OUTCOMES else { return };
    let complaints: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| complaint(outcome).map(|text| format!("{}: {text}", outcome.name)))
        .collect();
    let broken = outcomes.iter().filter(|outcome| outcome.exit == Some(1)).count();
    say(&format!("{} captures read, {broken} of them damaged or no capture", outcomes.len()));
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(broken * 20 < outcomes.len(), "hardly any of the captures is damaged");
}

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
