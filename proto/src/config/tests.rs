//! Tests of errors at their place, in a configuration and in an address plan.

mod packaged;

use std::path::Path;

use onenet_core::plan::AddressPlan;
use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the errors are of interest")]
struct Sample {
    #[serde(default)]
    list: Vec<Entry>,
    #[serde(default)]
    table: Option<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the errors are of interest")]
struct Entry {
    number: u32,
}

fn told(text: &str) -> String {
    let document = Document::new(Path::new("a.toml"), text.to_owned());
    document.parse::<Sample>().expect_err("a refusal").to_string()
}

#[test]
fn an_error_names_file_line_column_key_and_what_is_expected() {
    assert_eq!(
        told("[table]\nnumber = \"x\"\n"),
        "a.toml:2:10: table.number: invalid type: string \"x\", expected a whole number from 0 to 4294967295"
    );
    assert_eq!(
        told("# first\n[[list]]\nnumber = 1\n[[list]]\nnumbr = 1\n"),
        "a.toml:5:1: list[1].numbr: unknown field `numbr`, expected `number`"
    );
    assert_eq!(told("liste = 1"), "a.toml:1:1: liste: unknown field `liste`, expected `list` or `table`");
}

#[test]
fn a_syntax_error_has_its_place_on_one_line() {
    let told = told("[table]\nnumber = = 2\n");
    assert!(told.starts_with("a.toml:2:10: "), "{told}");
    assert!(!told.contains('\n'), "{told}");
}

#[test]
fn a_missing_key_is_told_at_its_table() {
    let told = told("\n[table]\n");
    assert_eq!(told, "a.toml:2:1: table: missing field `number`");
}

#[test]
fn a_key_is_found_by_its_path() {
    let document = Document::new(Path::new("a.toml"), "x = 1\n[[list]]\nnumber = 7\n".into());
    assert_eq!(
        document.error(&["list", "0", "number"], "too odd").to_string(),
        "a.toml:3:10: list[0].number: too odd"
    );
    assert_eq!(document.error(&["y"], "is missing").to_string(), "a.toml: y: is missing");
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only the errors are of interest")]
struct Named {
    name: String,
    #[serde(default)]
    size: u64,
}

#[test]
fn what_is_missing_from_the_file_as_a_whole_has_no_place() {
    let told = |text: &str| {
        let document = Document::new(Path::new("a.toml"), text.to_owned());
        document.parse::<Named>().expect_err("a refusal").to_string()
    };
    assert_eq!(told("size = 1\n"), "a.toml: missing field `name`");
    assert_eq!(told("[table]\nsize = 1\n"), "a.toml: missing field `name`");
    assert_eq!(told(""), "a.toml: missing field `name`");
    assert_eq!(
        told("name = 'a'\nsize = -1\n"),
        "a.toml:2:8: size: invalid value: integer `-1`, expected a whole number from 0"
    );
    assert!(told("= 1\n").starts_with("a.toml:1:1: "), "{}", told("= 1\n"));
    assert!(told("name = 'a'\nsize\n").starts_with("a.toml:2:"), "{}", told("name = 'a'\nsize\n"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let told = |path: &str| Document::open(Path::new(path)).expect_err("no such file").to_string();
    assert_eq!(told("/nonexistent/a.toml"), "/nonexistent/a.toml: no such file; expected a file in TOML");
    assert!(told("/").starts_with("/: cannot be read: "), "{}", told("/"));
}

#[test]
fn the_entries_of_a_list_have_their_lines_however_they_are_written() {
    let lines = |text: &str| Document::new(Path::new("a.toml"), text.into()).lines_of_entries("list");
    assert_eq!(
        lines("x = 1\n\n[[list]]\nnumber = 1\n[table]\n# [[list]]\n  [[ list ]] # last\nnumber = 2\n"),
        [3, 7]
    );
    assert_eq!(lines("text = \"\"\"\n[[list]]\n\"\"\"\n[[list]]\n"), [4]);
    assert_eq!(lines("list = [\n  { number = 1 }, { number = 2 },\n  { number = 3 },\n]\n"), [2, 2, 3]);
    assert!(lines("list = 7\n").is_empty());
    assert!(lines("other = []\n").is_empty());
}

const PLAN: &str = "\
[[secretariat]]
id = 'eohhs'
[[segment]]
id = 's'
site = 'boston'
secretariat = 'eohhs'
mpls_label = 7
";

/// What is told of a plan, in a file of its own and within a configuration.
fn refused(more: &str) -> [String; 2] {
    #[derive(Deserialize)]
    struct Configuration {
        plan: AddressPlan,
    }

    let text = format!("{PLAN}{more}");
    let alone = Document::new(Path::new("plan.toml"), text.clone());
    let plan = alone.parse().expect("the plan parses");
    let alone = check_plan(&plan, &alone, None).expect_err(more).to_string();
    let within = Document::new(Path::new("agent.toml"), text.replace("[[", "[[plan."));
    let plan = within.parse::<Configuration>().expect("the configuration parses").plan;
    [alone, check_plan(&plan, &within, Some("plan")).expect_err(more).to_string()]
}

#[test]
fn each_contradiction_of_a_plan_has_the_place_of_its_entry_and_key() {
    let segment = |id: &str, more: &str| {
        format!("[[segment]]\nid = '{id}'\nsite = 'boston'\nsecretariat = 'eohhs'\n{more}\n")
    };
    let twice = "[[secretariat]]\nid = 'eohhs'\n";
    for (more, place, key) in [
        (format!("{twice}{twice}"), "9:6", "secretariat[1].id"),
        (segment("s", "vlan = 9"), "9:6", "segment[1].id"),
        (segment("t", "mpls_label = 7"), "9:6", "segment[1].id"),
        (segment("t", "vlan = 4095"), "12:8", "segment[1].vlan"),
        (segment("s", "inner_vlan = 0"), "12:14", "segment[1].inner_vlan"),
        (segment("t", "mpls_label = 1048576"), "12:14", "segment[1].mpls_label"),
        (segment("t", "").replace("eohhs", "nobody"), "11:15", "segment[1].secretariat"),
        (
            "[[prefix]]\ncidr = '10.0.0.0/8'\nsecretariat = 'eohhs'\n\n\
             [[prefix]]\ncidr = '10.0.0.0/8'\ndescription = 'nobody'\nsecretariat = 'nobody'\n"
                .to_owned(),
            "15:15",
            "prefix[1].secretariat",
        ),
        (
            "[[public]]\ncidr = '192.0.2.0/24'\n[[public]]\nsecretariat = 'nobody'\ncidr = '192.0.2.0/24'\n"
                .to_owned(),
            "11:15",
            "public[1].secretariat",
        ),
    ] {
        let [alone, within] = refused(&more);
        assert!(alone.starts_with(&format!("plan.toml:{place}: {key}: ")), "{alone}");
        assert!(within.starts_with(&format!("agent.toml:{place}: plan.{key}: ")), "{within}");
    }
}

#[test]
fn an_entry_that_says_too_little_or_too_much_is_refused() {
    let segment = "[[segment]]\nid = 't'\nsite = 'boston'\nsecretariat = 'eohhs'\n";
    for (more, place, key, expected) in [
        ("[[secretariat]]\nid = ''\n".to_owned(), "9:6", "secretariat[1].id", "is empty, expected a name"),
        (segment.replace("boston", ""), "10:8", "segment[1].site", "is empty, expected a name"),
        (format!("{segment}interface = ''\n"), "12:13", "segment[1].interface", "is empty, expected a name"),
        (
            format!("{segment}mac = '01:00:5e:00:00:01'\n"),
            "12:7",
            "segment[1].mac",
            "01:00:5e:00:00:01, which no station has, expected the MAC address of a router",
        ),
        (
            "[[exemption]]\nreason = 'quiet'\n".to_owned(),
            "8:1",
            "exemption[0]",
            "has no condition and would cover every finding, expected rule, source, destination or port",
        ),
        (
            "[[exemption]]\nport = 0\nreason = 'quiet'\n".to_owned(),
            "9:8",
            "exemption[0].port",
            "0, expected a whole number from 1 to 65535",
        ),
    ] {
        let [alone, within] = refused(&more);
        assert_eq!(alone, format!("plan.toml:{place}: {key}: {expected}"));
        assert_eq!(within, format!("agent.toml:{place}: plan.{key}: {expected}"));
    }
}
