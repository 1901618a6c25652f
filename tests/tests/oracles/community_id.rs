//! Community IDs of the real program are those that the specification's baselines, two independent decoders,
//! Arkime and Suricata state, with every seed they use.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    net::IpAddr,
    path::PathBuf,
};

use onenet_core::record::FlowRecord;
use serde_json::Value;

use crate::kit::{OUTCOMES, Outcome, captures_directory, read, read_all, say};

/// Protocol, both addresses in order, and an identifier.
type Stated = (u8, IpAddr, IpAddr, String);

fn stated(protocol: u8, one: IpAddr, other: IpAddr, id: &str) -> Stated {
    (protocol, one.min(other), one.max(other), id.to_owned())
}

fn of_record(record: &FlowRecord) -> Stated {
    stated(record.protocol, record.originator.ip, record.responder.ip, &record.community_id)
}

/// What our records of some captures state, in tunnels and outside.
fn ours<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> BTreeSet<Stated> {
    let flows = outcomes.into_iter().filter_map(|outcome| outcome.flows.as_ref().ok());
    flows.flatten().map(of_record).collect()
}

fn expected(name: &str) -> String {
    std::fs::read_to_string(captures_directory().join("expected").join(name)).expect(name)
}

/// Names in the folder of expected results with this ending, without it.
fn names(ending: &str) -> Vec<String> {
    let Ok(entries) = captures_directory().join("expected").read_dir() else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(ending).map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// Prints the figure of one source of identifiers; all of them must be ours.
fn conclude(source: &str, equal: usize, missing: &[String]) {
    say(&format!("Community IDs of {source}: {equal} of {} equal", equal + missing.len()));
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn community_ids_are_those_of_two_independent_decoders() {
    let Some(outcomes) = &*OUTCOMES else { return };
    let checks = expected("_check.tsv");
    let sound = |name: &str| {
        checks.lines().any(|line| {
            line.split_once('\t').is_some_and(|(capture, rest)| capture == name && !rest.ends_with("\tDIFF"))
        })
    };
    let (mut equal, mut missing) = (0, Vec::new());
    for outcome in outcomes.iter().filter(|outcome| sound(&outcome.name)) {
        let path = captures_directory().join("expected").join(format!("{}.flows.tsv", outcome.name));
        let Ok(table) = std::fs::read_to_string(path) else { continue };
        let ours = ours([outcome]);
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            let columns: Vec<&str> = line.split('\t').collect();
            if columns[20] == "-" {
                continue;
            }
            let ip = |at: usize| columns[at].parse().expect("an address");
            let protocol = columns[0].parse().expect("a protocol");
            match ours.contains(&stated(protocol, ip(1), ip(3), columns[20])) {
                true => equal += 1,
                false => missing.push(format!("{}: {line}", outcome.name)),
            }
        }
    }
    conclude("two independent decoders", equal, &missing);
}

#[test]
fn community_ids_are_those_of_the_specification_with_either_seed() {
    let captures: Vec<PathBuf> = captures_directory()
        .read_dir()
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cidspec__")))
        .collect();
    if captures.is_empty() {
        say("SKIPPED: no captures of the Community ID specification; its baselines were not compared");
        return;
    }
    for (seed, name) in [("0", "deflt"), ("1", "seed1")] {
        let outcomes = read_all(&captures, &[OsStr::new("--community-id-seed"), OsStr::new(seed)]);
        let ours = ours(&outcomes);
        let text = expected(&format!("community-id-spec.baseline_{name}.json"));
        let rows: Vec<Value> = serde_json::from_str(&text).expect("a list");
        let is_ours = |row: &&Value| {
            let ip = |key: &str| row[key].as_str().and_then(|ip| ip.parse().ok()).expect("an address");
            let protocol = row["proto"].as_u64().and_then(|p| u8::try_from(p).ok()).expect("a protocol");
            let id = row["communityid"].as_str().expect("an identifier");
            ours.contains(&stated(protocol, ip("saddr"), ip("daddr"), id))
        };
        let (equal, missing): (Vec<&Value>, Vec<&Value>) = rows.iter().partition(is_ours);
        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
        conclude(&format!("the specification with seed {seed}"), equal.len(), &missing);
    }
}

/// One check of a Suricata test: its settings by name.
fn suricata_checks(text: &str) -> Vec<BTreeMap<&str, &str>> {
    text.split("- filter:")
        .skip(1)
        .map(|check| check.lines().filter_map(|line| line.trim().split_once(": ")).collect())
        .collect()
}

fn suricata_seed(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("## community-id-seed of this test: ")).map(str::trim)
}

#[test]
fn community_ids_are_those_of_suricata_with_its_seeds() {
    let (mut equal, mut missing) = (0, Vec::new());
    for name in names(".suricata.yaml") {
        let text = expected(&format!("{name}.suricata.yaml"));
        let checks = suricata_checks(&text);
        let stated_checks: Vec<_> = checks
            .iter()
            .filter_map(|check| {
                let ip = |key: &str| check.get(key)?.parse::<IpAddr>().ok();
                let protocol = match *check.get("proto")? {
                    "TCP" => 6,
                    "UDP" => 17,
                    "ICMP" => 1,
                    "IPv6-ICMP" => 58,
                    "SCTP" => 132,
                    _ => return None,
                };
                Some(stated(protocol, ip("src_ip")?, ip("dest_ip")?, check.get("community_id")?))
            })
            .collect();
        if stated_checks.is_empty() {
            continue;
        }
        let seed = suricata_seed(&text).unwrap_or("0");
        let capture = captures_directory().join(&name);
        let outcome = read(&capture, &[OsStr::new("--community-id-seed"), OsStr::new(seed)]);
        let ours = ours([&outcome]);
        for check in stated_checks {
            match ours.contains(&check) {
                true => equal += 1,
                false => missing.push(format!("{name} with seed {seed}: {check:?}")),
            }
        }
    }
    conclude("Suricata with its seeds", equal, &missing);
}

/// IP protocol numbers of ESP and AH: Arkime gives both ports, and takes AH for what a packet carries, where the
/// specification and its own baselines go on to the protocol behind (docs/differences.md).
const ESP_AND_AH: [u8; 2] = [50, 51];

#[test]
fn community_ids_are_those_of_arkime() {
    let Some(outcomes) = &*OUTCOMES else { return };
    let (mut equal, mut missing, mut of_ipsec) = (0, Vec::new(), 0);
    for name in names(".arkime.tsv") {
        let Some(outcome) = outcomes.iter().find(|outcome| outcome.name == name) else { continue };
        let ours = ours([outcome]);
        let table = expected(&format!("{name}.arkime.tsv"));
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            let columns: Vec<&str> = line.split('\t').collect();
            let (Ok(source), Ok(destination)) = (columns[1].parse(), columns[3].parse()) else { continue };
            let protocol = columns[0].parse().expect("a protocol");
            match columns[13] {
                "-" => {}
                _ if ESP_AND_AH.contains(&protocol) => of_ipsec += 1,
                id if ours.contains(&stated(protocol, source, destination, id)) => equal += 1,
                _ => missing.push(format!("{name}: {line}")),
            }
        }
    }
    say(&format!(
        "Community IDs of Arkime not compared: {of_ipsec} of ESP and AH, with ports that these do not have"
    ));
    conclude("Arkime", equal, &missing);
}
