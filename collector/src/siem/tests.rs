//! Feeds: what an event looks like, and that none is lost or changed on its way.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{TcpListener, TcpStream},
    path::Path,
};

use onenet_core::record::{Change, ObservationKind::ArpReply, RuleId};
use serde_json::Value;

use super::{
    config::{FileConfig, MessageText, SiemConfig, SyslogConfig},
    ecs::{self, Detail},
    feed::Feed,
    flow_event::{self, FlowEvent},
    output::{Events, Output},
};
use crate::{
    correlate::{self, RecordedChange},
    custody::SensorsConfig,
    seed::{body, control, judge, observation, scan, stored, told},
    store::{Store, control_findings},
    testing,
};

/// Finding changes of every kind: a scan at two sites, an overlap, a flood that closes.
fn changes(store: &Store) -> Vec<RecordedChange> {
    let seen = [
        observation("10.48.7.23", "eohhs", "boston", ArpReply, 10),
        observation("10.48.7.23", "massdot", "lowell", ArpReply, 50),
    ];
    let mut flood = told(RuleId::FloodSyn, "203.0.113.80|443", "boston", Change::Raised, 60);
    flood.subject.target = Some("203.0.113.80".parse().expect("an address"));
    flood.summary = "Überflutet: \"41,208\" SYN]\n".to_owned();
    let mut ended = flood.clone();
    (ended.change, ended.time) = (Change::Closed, crate::seed::at(90));
    let batches = [
        stored("boston-1", 1, &body(&seen, &[scan("boston", 900), flood])),
        stored("lowell-1", 2, &body(&[], &[scan("lowell", 950)])),
        stored("boston-1", 3, &body(&[], &[ended])),
    ];
    correlate::commit(store, &judge(), &SensorsConfig::default(), &batches).expect("it commits");
    store.read(|connection| control_findings::changes_after(connection, 0, 100)).expect("readable")
}

fn of_rule(changes: &[RecordedChange], rule: RuleId) -> &RecordedChange {
    changes.iter().find(|change| change.finding.rule == rule).expect("a change")
}

fn flow() -> FlowEvent {
    let batch = stored("boston-1", 7, &body(&[], &[]));
    FlowEvent::new(&batch, testing::full_flow(crate::seed::at(0).0))
}

/// The documents that are compared whole and shown in docs/siem.md. ONENET_GOLDEN=write writes them anew.
fn golden(name: &str, document: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/siem/golden").join(name);
    let mut text = serde_json::to_string_pretty(document).expect("JSON");
    text.push('\n');
    // The version of the program is in every document and changes with each release.
    let text = text.replace(concat!("\"", env!("CARGO_PKG_VERSION"), "\""), "\"0.0.0\"");
    if std::env::var_os("ONENET_GOLDEN").is_some() {
        fs::write(&path, &text).expect("written");
    }
    let expected = fs::read_to_string(&path).expect("the golden document");
    assert_eq!(text, expected, "{name}");
}

#[test]
fn the_documentation_shows_the_golden_documents() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documentation = fs::read_to_string(root.join("../docs/siem.md")).expect("docs/siem.md");
    for name in ["overlap.json", "flow.json"] {
        let document =
            fs::read_to_string(root.join("src/siem/golden").join(name)).expect("the golden document");
        assert!(documentation.contains(&document), "docs/siem.md does not show {name}");
    }
}

#[test]
fn finding_changes_and_flows_are_the_golden_documents() {
    let (_directory, store) = control();
    let changes = changes(&store);
    golden("scan.json", &ecs::finding_event(of_rule(&changes, RuleId::ScanHorizontal), Detail::Full));
    golden("overlap.json", &ecs::finding_event(of_rule(&changes, RuleId::OverlapAddress), Detail::Full));
    golden("flow.json", &flow_event::flow_document(&flow()));
}

/// Paths of all values in a document, with dots, and whether each is a list.
fn paths(prefix: &str, value: &Value, into: &mut BTreeMap<String, bool>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                paths(&path, field, into);
            }
        }
        other => {
            into.insert(prefix.to_owned(), other.is_array());
        }
    }
}

#[test]
fn every_field_is_one_of_ecs_or_our_own() {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/schemas/ecs_flat.yml.gz");
    let Ok(file) = fs::File::open(&schema) else {
        eprintln!("SKIPPED: {} is not there", schema.display());
        return;
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("the schema reads");
    // A field's name stands at the start of a line; `normalize` below it lists `array` where it holds several.
    let mut fields: BTreeMap<String, bool> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with([' ', '-'])) {
            current = name.trim_matches('\'').to_owned();
            fields.insert(current.clone(), false);
        } else if line == "  - array" {
            fields.insert(current.clone(), true);
        }
    }
    assert!(fields.len() > 1_000, "{} fields", fields.len());

    let (_directory, store) = control();
    let changes = changes(&store);
    let mut documents: Vec<Value> =
        changes.iter().map(|change| ecs::finding_event(change, Detail::Full)).collect();
    documents.push(flow_event::flow_document(&flow()));
    for document in &documents {
        let mut used = BTreeMap::new();
        paths("", document, &mut used);
        for (path, is_list) in used.iter().filter(|(path, _)| !path.starts_with("onenet.")) {
            let wants_list = fields.get(path).unwrap_or_else(|| panic!("ECS has no field {path}"));
            assert_eq!(is_list, wants_list, "{path} in {document}");
        }
    }
}

fn file_feed(path: &Path, flows: bool) -> Feed {
    let file = FileConfig { path: path.to_owned(), ..FileConfig::default() };
    let config = SiemConfig { flows, file, syslog: None };
    Feed::all(&config).pop().expect("the file's feed")
}

fn syslog_config(address: String) -> SyslogConfig {
    SyslogConfig {
        address,
        facility: Default::default(),
        message: MessageText::Json,
        max_message_bytes: 8_000,
        hostname: Some("collector.example".to_owned()),
    }
}

fn syslog_feed(config: SyslogConfig) -> Feed {
    let file = FileConfig { enabled: false, ..FileConfig::default() };
    Feed::all(&SiemConfig { flows: false, file, syslog: Some(config) }).pop().expect("the receiver's feed")
}

fn ids(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let id = |line: &str| {
        let document: Value = serde_json::from_str(line).expect("each line is a document");
        document["event"]["id"].as_str().expect("an id").to_owned()
    };
    text.lines().map(id).collect()
}

#[test]
fn a_feed_goes_on_where_its_cursor_stands_and_repeats_only_what_was_in_between() {
    let (directory, store) = control();
    let path = directory.path().join("events.ndjson");
    let expected: Vec<String> = changes(&store).iter().map(|change| ecs::event_id(&change.finding)).collect();
    assert_eq!(file_feed(&path, false).pump(&store).expect("it writes"), expected.len());
    assert_eq!(ids(&path), expected);
    // Started again, it has nothing to say.
    assert_eq!(file_feed(&path, false).pump(&store).expect("it writes"), 0);
    // A kill after the write and before the cursor: the same events come again, with the same ids.
    let again = store.transaction(|transaction| transaction.execute("DELETE FROM change_cursors", []));
    assert_eq!(again.expect("deleted"), 1);
    assert_eq!(file_feed(&path, false).pump(&store).expect("it writes"), expected.len());
    assert_eq!(ids(&path), [expected.clone(), expected].concat());
}

#[test]
fn a_file_that_cannot_be_written_delays_and_loses_nothing() {
    let (directory, store) = control();
    let path = directory.path().join("events.ndjson");
    let expected = changes(&store).len();
    fs::create_dir(&path).expect("a directory in the way");
    let mut feed = file_feed(&path, false);
    assert!(feed.pump(&store).is_err());
    fs::remove_dir(&path).expect("removed");
    assert_eq!(feed.pump(&store).expect("it writes"), expected);
    assert_eq!(ids(&path).len(), expected);
}

#[test]
fn flows_follow_where_they_are_wanted() {
    let morning = crate::seed::Morning::new();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("events.ndjson");
    let mut feed = file_feed(&path, true);
    while feed.pump(&morning.store).expect("it writes") > 0 {}
    let text = fs::read_to_string(&path).expect("readable");
    let flows = text.lines().filter(|line| line.contains("\"dataset\":\"onenet.flow\"")).count();
    assert_eq!(flows, 70);
    let mut unique = ids(&path);
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), text.lines().count(), "each event has an id of its own");
}

fn frames(stream: TcpStream) -> Vec<String> {
    let mut reader = BufReader::new(stream);
    let mut frames = Vec::new();
    loop {
        let mut length = Vec::new();
        reader.read_until(b' ', &mut length).expect("readable");
        let Some(digits) = length.strip_suffix(b" ") else { return frames };
        let length: usize = std::str::from_utf8(digits).expect("digits").parse().expect("a number");
        let mut frame = vec![0; length];
        reader.read_exact(&mut frame).expect("whole");
        frames.push(String::from_utf8(frame).expect("UTF-8"));
    }
}

#[test]
fn syslog_carries_every_change_with_its_data_and_the_document() {
    let (_directory, store) = control();
    let changes = changes(&store);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut feed = syslog_feed(syslog_config(listener.local_addr().expect("an address").to_string()));
    assert_eq!(feed.pump(&store).expect("it sends"), changes.len());
    drop(feed);
    let frames = frames(listener.accept().expect("a connection").0);
    assert_eq!(frames.len(), changes.len());
    for (frame, change) in frames.iter().zip(&changes) {
        assert!(frame.is_ascii(), "{frame}");
        let id = ecs::event_id(&change.finding);
        assert!(frame.contains(&format!("FINDING [onenet@32473 event=\"{id}\" finding=")), "{frame}");
        let is_judged = change.finding.evidence.verdict.is_some();
        assert_eq!(frame.contains("confidence=\"95\" verdict=\"two-hosts\" address="), is_judged, "{frame}");
        let text = frame.split_once("] {").expect("a text after the data").1;
        let document: Value = serde_json::from_str(&format!("{{{text}")).expect("a document");
        assert_eq!(document, ecs::finding_event(change, Detail::Full));
    }
    let closed = frames.last().expect("some");
    assert!(
        closed.starts_with("<134>1 ") && closed.contains("change=\"closed\" state=\"closed\""),
        "{closed}"
    );
    assert!(frames[0].starts_with("<131>1 2026-11-21T08:"), "{}", frames[0]);
}

#[test]
fn a_receiver_that_is_away_gets_everything_when_it_is_back() {
    let (_directory, store) = control();
    let expected = changes(&store).len();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut feed = syslog_feed(syslog_config(address.to_string()));
    drop(listener);
    assert!(feed.pump(&store).is_err(), "nobody listens");
    let listener = TcpListener::bind(address).expect("the port again");
    assert_eq!(feed.pump(&store).expect("it sends"), expected);
    let (stream, _) = listener.accept().expect("a connection");
    // The receiver restarts; what comes after is noticed as not delivered and sent again.
    drop(stream);
    let more = stored("boston-1", 9, &body(&[], &[told(RuleId::Beacon, "k", "boston", Change::Raised, 99)]));
    correlate::commit(&store, &judge(), &SensorsConfig::default(), &[more]).expect("it commits");
    assert!(feed.pump(&store).is_err(), "the connection is gone");
    assert_eq!(feed.pump(&store).expect("a new connection"), 1);
    drop(feed);
    let frames = frames(listener.accept().expect("a connection").0);
    assert!(matches!(frames.as_slice(), [only] if only.contains("rule=\"beacon\"")), "{frames:?}");
}

#[test]
fn a_message_that_would_be_too_long_leaves_out_evidence_then_the_document() {
    let (_directory, store) = control();
    let changes = changes(&store);
    let change = std::slice::from_ref(of_rule(&changes, RuleId::OverlapAddress));
    let sent = |limit, message| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let config = SyslogConfig { max_message_bytes: limit, message, ..syslog_config(address) };
        Output::syslog(&config).deliver(Events::Findings(change)).expect("it sends");
        frames(listener.accept().expect("a connection").0).pop().expect("a frame")
    };
    let full = sent(8_000, MessageText::Json);
    assert!(full.len() <= 8_000 && full.contains("\"observations\":"), "{}", full.len());
    let brief = sent(full.len() - 1, MessageText::Json);
    assert!(brief.contains("\"counts\":") && !brief.contains("\"observations\":"), "{brief}");
    let summary = format!("] {}", change[0].finding.summary);
    assert!(sent(brief.len() - 1, MessageText::Json).ends_with(&summary));
    assert!(sent(8_000, MessageText::Summary).ends_with(&summary));
}

#[test]
fn a_receiver_or_a_facility_that_makes_no_sense_is_refused() {
    let read = |text: &str| toml::from_str::<SiemConfig>(text).map_err(|error| error.message().to_owned());
    assert!(read("[syslog]\naddress = 'siem.example:6514'\nfacility = 'local7'").is_ok());
    for (text, expected) in [
        ("[syslog]\naddress = 'siem.example'", "expected a receiver such as siem.example:6514"),
        ("[syslog]\naddress = ':514'", "expected a receiver"),
        ("[syslog]\naddress = 'a:0'", "expected a receiver"),
        ("[syslog]\naddress = 'a:1'\nfacility = 'kern'", "expected one of user, daemon"),
        ("[syslog]\naddress = 'a:1'\nmessage = 'xml'", "expected `json` or `summary`"),
        ("[file]\npat = 'x'", "unknown field `pat`"),
    ] {
        let error = read(text).expect_err(text);
        assert!(error.contains(expected), "{error}");
    }
}
