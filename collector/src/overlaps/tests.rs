//! The command overlaps: layers, filters, evidence, exit codes.

use clap::Parser;
use onenet_core::record::{Change, ObservationKind::ArpReply, ObservationKind::NeighborAdvertisement};
use serde_json::Value;

use super::*;
use crate::{
    correlate,
    custody::SensorsConfig,
    seed::{HOSTILE, body, control, judge, observation, stored, told as told_by_sensor},
};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: OverlapsArgs,
}

fn args(words: &str) -> OverlapsArgs {
    let words = std::iter::once("overlaps").chain(words.split_whitespace());
    Line::try_parse_from(words).expect("arguments").args
}

/// One overlap of each layer, an IPv6 one and one that has ended.
fn layers() -> (tempfile::TempDir, Store) {
    let (directory, store) = control();
    let mut seen = [
        observation("10.1.1.1", "eohhs", "boston", ArpReply, 10),
        observation("10.1.1.1", "massdot", "lowell", ArpReply, 20),
        observation("fd00::1", "eohhs", "boston", NeighborAdvertisement, 30),
        observation("fd00::1", "anf", "boston", NeighborAdvertisement, 40),
    ];
    seen[0].hostname = Some(HOSTILE.to_owned());
    seen[1].hostname = Some("\u{1b}[31mred".to_owned());
    let other = |rule, key: &str, prefix: Option<&str>, change| {
        let mut told = told_by_sensor(rule, key, "boston", change, 50);
        told.subject.prefix = prefix.map(|prefix| prefix.parse().expect("a prefix"));
        told.secretariats = vec!["eohhs".into()];
        told.address_spaces = vec!["eohhs".into()];
        told
    };
    let mut duplicate =
        other(onenet_core::record::RuleId::AddressDuplicate, "eohhs|10.3.0.9", None, Change::Closed);
    duplicate.subject.address = "10.3.0.9".parse().ok();
    let findings = [
        other(Layer::Declared.rule(), "10.0.0.0/8", Some("10.0.0.0/8"), Change::Raised),
        other(Layer::Routed.rule(), "anf|10.2.0.0/16|eohhs", Some("10.2.0.0/16"), Change::Raised),
        duplicate,
        told_by_sensor(onenet_core::record::RuleId::Beacon, "k", "boston", Change::Raised, 60),
    ];
    let batch = stored("boston-1", 1, &body(&seen, &findings));
    correlate::commit(&store, &judge(), &SensorsConfig::default(), &[batch]).expect("it commits");
    (directory, store)
}

fn run_on(store: &Store, words: &str) -> (Vec<Value>, u64) {
    let (text, open) = told(store, &args(&format!("{words} --format json"))).expect("it is told");
    (serde_json::from_str(&text).expect("JSON"), open)
}

fn subjects(store: &Store, words: &str) -> Vec<String> {
    let of = |row: &Value| {
        let subject = row["address"].as_str().or(row["prefix"].as_str()).expect("a subject");
        format!("{} {subject}", row["layer"].as_str().expect("a layer"))
    };
    let mut subjects: Vec<String> = run_on(store, words).0.iter().map(of).collect();
    subjects.sort();
    subjects
}

#[test]
fn every_layer_is_in_one_list_and_each_filter_holds() {
    let (_directory, store) = layers();
    let all = [
        "declared 10.0.0.0/8",
        "duplicate 10.3.0.9",
        "observed 10.1.1.1",
        "observed fd00::1",
        "routed 10.2.0.0/16",
    ];
    for (words, expected) in [
        ("--all", &[0, 1, 2, 3, 4][..]),
        ("", &[0, 2, 3, 4]),
        ("--layer observed", &[2, 3]),
        ("--layer declared --layer routed", &[0, 4]),
        ("--layer declared,duplicate --all", &[0, 1]),
        ("--verdict two-hosts", &[2, 3]),
        ("--verdict moved", &[]),
        ("--within 10.1.1.1", &[0, 2]),
        ("--within 10.2.0.0/15", &[0, 4]),
        ("--within fd00::/8", &[3]),
        ("--within fe80::/10", &[]),
        ("--secretariat massdot", &[2]),
        ("--address-space anf", &[3]),
        ("--site lowell", &[2]),
        ("--site worcester", &[]),
    ] {
        let expected: Vec<&str> = expected.iter().map(|&at: &usize| all[at]).collect();
        assert_eq!(subjects(&store, words), expected, "{words}");
    }
    assert_eq!(run_on(&store, "--limit 2").0.len(), 2);
}

#[test]
fn how_many_are_open_does_not_depend_on_what_is_shown() {
    let (_directory, store) = layers();
    assert_eq!(run_on(&store, "--limit 1 --all").1, 4);
    assert_eq!(run_on(&store, "--all --layer duplicate").1, 0, "it has ended");
    assert_eq!(run_on(&store, "--layer observed").1, 2);
    assert!(cli::none_or_fail(0, "overlap is open", "overlaps are open").is_ok());
    let some = cli::none_or_fail(4, "overlap is open", "overlaps are open").expect_err("some");
    assert_eq!((some.code(), some.to_string().as_str()), (1, "4 overlaps are open"));
    let one = cli::none_or_fail(1, "overlap is open", "overlaps are open").expect_err("one");
    assert_eq!(one.to_string(), "1 overlap is open");
}

#[test]
fn evidence_is_the_uses_and_the_terms_in_words_and_as_fields() {
    let (_directory, store) = layers();
    let (rows, _) = run_on(&store, "--within 10.1.1.1/32 --layer observed --evidence");
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((&row["layer"], &row["verdict"]), (&"observed".into(), &"two-hosts".into()));
    assert_eq!(row["terms"][0], serde_json::json!({"name": "mac", "bits": 8.0}));
    assert_eq!(row["usages"].as_array().map(Vec::len), Some(2));
    assert_eq!(row["usages"][0]["hostnames"][0], HOSTILE);
    assert_eq!(row["usages"][1]["stations"][0]["kinds"][0], "arp-reply");
    let (text, _) =
        told(&store, &args("--within 10.1.1.1/32 --layer observed --evidence")).expect("it is told");
    for expected in [
        "LAYER     ADDRESS",
        "observed  10.1.1.1",
        "times as likely with two hosts as with one",
        "+8.00  mac            two hosts",
        "  use 1: 10.1.1.1 in eohhs at boston, boston-eohhs\n",
        "  use 2: 10.1.1.1 in massdot at lowell, lowell-massdot\n",
        "    host names    <script>",
        "    active        1 hour of its last 32 days\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
    assert!(!text.contains('\u{1b}') && text.contains("\u{fffd}[31mred"), "{text}");
    let (without, _) = told(&store, &args("--layer observed")).expect("it is told");
    assert!(!without.contains("use 1:"), "{without}");
    // A claim has no uses.
    let (declared, _) = run_on(&store, "--layer declared --evidence");
    assert_eq!(declared[0]["usages"], serde_json::json!([]));
}

#[test]
fn nothing_is_said_in_a_sentence_and_as_an_empty_list() {
    let (_directory, store) = control();
    let (text, open) = told(&store, &args("")).expect("it is told");
    assert_eq!((text.as_str(), open), ("no address or prefix is in use or claimed twice\n", 0));
    assert_eq!(run_on(&store, "").0, Vec::<Value>::new());
    let (csv, _) = told(&store, &args("--format csv")).expect("it is told");
    assert!(csv.starts_with("layer,address,verdict,confidence,"), "{csv}");
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    for words in ["--layer observd", "--verdict two", "--within 10.1", "--limit x", "--address 10.1.1.1"] {
        let words = std::iter::once("overlaps").chain(words.split_whitespace());
        let error = Line::try_parse_from(words).err().expect("refused");
        assert_eq!(error.exit_code(), 2, "{error}");
    }
    let refused = run(&args("--evidence --format csv")).expect_err("refused");
    assert_eq!((refused.code(), refused.to_string().contains("no place in CSV")), (2, true), "{refused}");
}
