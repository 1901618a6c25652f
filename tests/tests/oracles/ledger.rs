//! `onenet-agent read` takes every capture without a crash and with a ledger that balances.

use std::{ffi::OsStr, path::PathBuf};

use serde_json::Value;

use crate::kit::{OUTCOMES, Outcome, captures_directory, read_all, say};

/// What is wrong with how `read` ended, if anything is.
fn complaint(outcome: &Outcome) -> Option<String> {
    if let Err(error) = &outcome.flows {
        return Some(format!("a flow does not read back: {error}"));
    }
    if let Err(error) = &outcome.observations {
        return Some(format!("an observation does not read back: {error}"));
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

/// Every capture is read soundly with these options.
fn balanced(outcomes: &[Outcome], options: &str) {
    let complaints: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| complaint(outcome).map(|text| format!("{}: {text}", outcome.name)))
        .collect();
    let broken = outcomes.iter().filter(|outcome| outcome.exit == Some(1)).count();
    say(&format!("{} captures read{options}, {broken} of them damaged or no capture", outcomes.len()));
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(broken * 20 < outcomes.len(), "hardly any of the captures is damaged");
}

#[test]
fn every_capture_is_read_without_a_crash_and_its_ledger_balances() {
    let Some(outcomes) = &*OUTCOMES else { return };
    balanced(outcomes, "");
}

#[test]
fn ledgers_balance_whatever_tunnels_fragments_and_wrong_checksums_count_as() {
    let Some(outcomes) = &*OUTCOMES else { return };
    let captures: Vec<PathBuf> =
        outcomes.iter().map(|outcome| captures_directory().join(&outcome.name)).collect();
    for options in [
        "--tunnels inner --fragments reassembled --checksums verify",
        "--tunnels outer --fragments reassembled",
    ] {
        let arguments: Vec<&OsStr> = options.split(' ').map(OsStr::new).collect();
        balanced(&read_all(&captures, &arguments), &format!(" with {options}"));
    }
}
