//! The command inventory: filters, dark claims, sums, exit codes.

use clap::Parser;
use onenet_core::{
    plan::AddressPlan,
    record::{
        ObservationAggregate,
        ObservationKind::{ArpReply, NeighborAdvertisement, Traffic},
        TopAddress,
    },
};
use serde_json::Value;

use super::*;
use crate::{
    config::InventoryConfig,
    correlate::{self, Judge},
    custody::SensorsConfig,
    seed::{HOSTILE, at, body, control, observation, stored},
};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: InventoryArgs,
}

fn args(words: &str) -> InventoryArgs {
    let words = std::iter::once("inventory").chain(words.split_whitespace());
    Line::try_parse_from(words).expect("arguments").args
}

/// A plan with claims that are used and claims that are not.
pub(crate) fn plan() -> std::sync::Arc<AddressPlan> {
    let text = "secretariat = [{id='eohhs', contact='ipam@eohhs.example'}, {id='anf'}]
                prefix = [{cidr='10.1.0.0/16', secretariat='eohhs'}, {cidr='10.2.0.0/16', secretariat='eohhs'},
                          {cidr='fd00:1::/48', secretariat='anf'},
                          {cidr='10.0.0.0/8', secretariat='anf', status='container'}]";
    let plan: AddressPlan = toml::from_str(text).expect("a plan");
    plan.into()
}

fn judge() -> Judge {
    Judge::new(plan(), InventoryConfig::default())
}

const DAYS: i64 = 86_400;

/// Two uses now, one forty days ago, and a sum.
pub(crate) fn some() -> (tempfile::TempDir, Store) {
    let (directory, store) = control();
    let mut named = observation("10.1.0.5", "eohhs", "boston", ArpReply, 40 * DAYS);
    named.hostname = Some(HOSTILE.to_owned());
    let top = TopAddress { address: [10, 7, 0, 9].into(), packets: 12 };
    let mut sum = observation("10.7.0.0", "anf", "lowell", Traffic, 40 * DAYS);
    sum.packets = 5_000;
    sum.aggregate = Some(Box::new(ObservationAggregate {
        prefix_length: 16,
        addresses: 900,
        top: [top].into_iter().collect(),
    }));
    let batches = [
        vec![observation("10.9.0.1", "anf", "boston", ArpReply, 0)],
        vec![named, observation("fd00::7", "eohhs", "lowell", NeighborAdvertisement, 40 * DAYS), sum],
    ];
    for (number, seen) in (1..).zip(&batches) {
        let batch = stored("boston-1", number, &body(seen, &[]));
        correlate::commit(&store, &judge(), &SensorsConfig::default(), &[batch]).expect("it commits");
    }
    (directory, store)
}

fn addresses(store: &Store, words: &str) -> Vec<String> {
    let told = entries(store, &args(&format!("{words} --format json")), at(41 * DAYS)).expect("it is told");
    let rows: Vec<Value> = serde_json::from_str(&told.text).expect("JSON");
    assert_eq!(rows.len() as u64, told.found);
    rows.iter().map(|row| row["address"].as_str().expect("text").to_owned()).collect()
}

#[test]
fn each_filter_of_the_command_line_holds() {
    let (_directory, store) = some();
    for (words, expected) in [
        ("", &["10.1.0.5", "10.9.0.1", "fd00::7"][..]),
        ("--within 10.0.0.0/13", &["10.1.0.5"]),
        ("--within fd00::7", &["fd00::7"]),
        ("--address-space anf", &["10.9.0.1"]),
        ("--secretariat eohhs", &["10.1.0.5", "fd00::7"]),
        ("--site lowell", &["fd00::7"]),
        ("--segment boston-anf", &["10.9.0.1"]),
        ("--strength strong", &["10.1.0.5", "10.9.0.1", "fd00::7"]),
        ("--standing declared", &["10.1.0.5"]),
        ("--standing undeclared", &["10.9.0.1", "fd00::7"]),
        ("--standing misplaced", &[]),
        ("--seen-within 2", &["10.1.0.5", "fd00::7"]),
        ("--since 2026-12-01", &["10.1.0.5", "fd00::7"]),
        ("--until 2026-12-01", &["10.9.0.1"]),
        ("--limit 1", &["10.1.0.5"]),
        ("--limit 0", &[]),
    ] {
        assert_eq!(addresses(&store, words), expected, "{words}");
    }
}

#[test]
fn a_table_says_when_there_is_more_and_when_there_is_nothing() {
    let (_directory, store) = some();
    let told = |words: &str| entries(&store, &args(words), at(0)).expect("it is told");
    let two = told("--limit 2");
    assert!(two.note.is_some_and(|note| note.contains("more than the 2 shown")));
    assert!(two.text.contains("<script>") && two.text.contains("STANDING"), "{}", two.text);
    let whole = told("--limit 3");
    assert_eq!(whole.note, None);
    assert_eq!(told("--within 10.200.0.0/16").text, "no address matches\n");
}

#[test]
fn uses_are_told_in_full_where_they_are_asked_for() {
    let (_directory, store) = some();
    let told = |words: &str| entries(&store, &args(words), at(0)).expect("it is told").text;
    let text = told("--within 10.1.0.5 --evidence");
    assert!(text.contains("  use 1: 10.1.0.5 in eohhs at boston, boston-eohhs\n"), "{text}");
    let json: Value = serde_json::from_str(&told("--evidence --format json")).expect("JSON");
    assert_eq!(json[0]["usages"][0]["hostnames"][0], HOSTILE);
    let json: Value = serde_json::from_str(&told("--format json")).expect("JSON");
    assert_eq!(json[0].get("usages"), None, "a list is short");
}

#[test]
fn claims_are_dark_once_nothing_was_in_use_for_long_enough() {
    let (_directory, store) = some();
    let dark = |filter: &DarkFilter| {
        store.read(|connection| dark::claims(connection, &judge(), filter, at(0))).expect("readable")
    };
    let all = dark(&DarkFilter::default());
    let of = |dark: &dark::Dark| -> Vec<String> {
        dark.items.iter().map(|claim| format!("{} {}", claim.cidr, claim.secretariat)).collect()
    };
    assert_eq!(of(&all), ["10.2.0.0/16 eohhs", "fd00:1::/48 anf"]);
    assert_eq!(all.items[0].contact.as_deref(), Some("ipam@eohhs.example"));
    assert_eq!((all.items[1].contact.as_deref(), all.note()), (None, None));
    let none = DarkFilter::default;
    let within = DarkFilter { within: "fd00:1::5".parse::<Within>().ok().map(|net| net.0), ..none() };
    assert_eq!(of(&dark(&within)), ["fd00:1::/48 anf"]);
    assert_eq!(
        of(&dark(&DarkFilter { secretariat: Some("eohhs".to_owned()), ..none() })),
        ["10.2.0.0/16 eohhs"]
    );
    assert_eq!(
        of(&dark(&DarkFilter { address_space: Some("anf".to_owned()), ..none() })),
        ["fd00:1::/48 anf"]
    );
}

#[test]
fn nothing_is_dark_before_it_was_looked_at_for_long_enough() {
    let (_directory, store) = control();
    let dark = || {
        let all = DarkFilter::default();
        store.read(|connection| dark::claims(connection, &judge(), &all, at(0))).expect("readable")
    };
    let before = dark();
    assert!(before.items.is_empty());
    assert!(before.note().is_some_and(|note| note.starts_with("nothing was observed yet")));
    let batch = stored("boston-1", 1, &body(&[observation("10.1.0.5", "eohhs", "boston", ArpReply, 0)], &[]));
    correlate::commit(&store, &judge(), &SensorsConfig::default(), &[batch]).expect("it commits");
    let first_day = dark();
    assert!(first_day.items.is_empty() && !first_day.long_enough);
    let note = first_day.note().expect("a note");
    assert_eq!(note, "observed only since 2026-11-21 08:00:00; a claim is dark after 30 days without a use");
}

#[test]
fn sums_of_what_could_not_be_told_apart_are_listed_by_site_and_segment() {
    let (_directory, store) = some();
    let told = |words: &str| sums(&store, &args(&format!("--sums {words}"))).expect("it is told");
    let all = told("");
    assert_eq!(all.found, 1);
    for expected in ["10.7.0.0/16", "lowell-anf", "900", "5000", "10.7.0.9 (12)"] {
        assert!(all.text.contains(expected), "{expected} is not in {}", all.text);
    }
    assert_eq!(told("--site lowell --segment lowell-anf").found, 1);
    assert_eq!(told("--site boston").text, "every source was told apart\n");
    assert_eq!(told("--segment boston-anf --format json").text, "[]\n");
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    for words in [
        "--strength sure",
        "--standing declred",
        "--seen-within 0",
        "--seen-within 2 --since 2026-12-01",
        "--since soon",
        "--dark --site boston",
        "--dark --sums",
        "--sums --within 10.0.0.0/8",
        "--within 10.1",
        "--space eohhs",
    ] {
        let words = std::iter::once("inventory").chain(words.split_whitespace());
        let error = Line::try_parse_from(words).expect_err("refused");
        assert_eq!(error.exit_code(), 2, "{error}");
    }
    let refused = run(&args("--evidence --format csv")).expect_err("refused");
    assert_eq!((refused.code(), refused.to_string().contains("no place in CSV")), (2, true), "{refused}");
}

#[test]
fn a_script_sees_by_the_exit_code_whether_anything_matches() {
    let site = crate::testing::Site::new();
    let directory = site.config.plan.file.parent().expect("a directory").display().to_string();
    for words in ["", "--sums", "--dark"] {
        let empty = format!("--dir {directory} --fail-if-any {words}");
        assert!(run(&args(&empty)).is_ok(), "{words}: nothing matches");
    }
    let store = Store::attach(&site.config.store).expect("a store");
    let batch = stored("boston-1", 1, &body(&[observation("10.1.0.5", "eohhs", "boston", ArpReply, 0)], &[]));
    correlate::commit(&store, &judge(), &SensorsConfig::default(), &[batch]).expect("it commits");
    let any = run(&args(&format!("--dir {directory} --fail-if-any"))).expect_err("one matches");
    assert_eq!((any.code(), any.to_string().as_str()), (1, "1 address matches"));
    assert!(run(&args(&format!("--dir {directory}"))).is_ok());
    assert!(run(&args(&format!("--dir {directory} --fail-if-any --standing misplaced"))).is_ok());
    std::fs::remove_file(&site.config.plan.file).expect("removed");
    let planless = run(&args(&format!("--dir {directory} --dark"))).expect_err("no plan");
    assert_eq!(planless.code(), 2, "{planless}");
}
