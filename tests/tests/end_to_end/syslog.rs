//! A real rsyslog takes the SIEM feed: every change of a finding arrives once, as RFC 5424 with octet counting.

use std::{fs, path::Path, process::Command};

use onenet_tests::traffic::Options;
use serde_json::Value;

use crate::{
    day::{Done, run_day},
    harness::{Background, free_address, run, text, wait_for},
    store,
};

/// The program, installed where it is missing and this is root.
pub(crate) fn installed(package: &str, names: &[&str]) -> String {
    let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"];
    let find = || {
        let paths = places.iter().flat_map(|place| names.iter().map(move |name| format!("{place}/{name}")));
        paths.into_iter().find(|path| Path::new(path).exists())
    };
    find().unwrap_or_else(|| {
        eprintln!("{package} is missing: installing it");
        let told = run(Command::new("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends", package])
            .env("DEBIAN_FRONTEND", "noninteractive"));
        find().unwrap_or_else(|| panic!("{package} is needed and could not be installed: {}", told.err))
    })
}

#[test]
fn rsyslog_receives_every_change_of_every_finding() {
    let rsyslogd = installed("rsyslog", &["rsyslogd"]);
    let directory = tempfile::tempdir().expect("a directory");
    let (address, received) = (free_address(), directory.path().join("received.json"));
    // What rsyslog has parsed, not what it was sent: header fields and the message each on their own.
    let config = format!(
        "global(workDirectory={dir:?} maxMessageSize=\"64k\" parser.permitSlashInProgramName=\"on\")\n\
         module(load=\"imtcp\" maxSessions=\"10\")\n\
         input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\" supportOctetCountedFraming=\"on\")\n\
         template(name=\"parsed\" type=\"list\" option.jsonf=\"on\") {{\n\
         property(outname=\"pri\" name=\"pri\" format=\"jsonf\")\n\
         property(outname=\"version\" name=\"protocol-version\" format=\"jsonf\")\n\
         property(outname=\"app\" name=\"app-name\" format=\"jsonf\")\n\
         property(outname=\"host\" name=\"hostname\" format=\"jsonf\")\n\
         property(outname=\"time\" name=\"timereported\" dateFormat=\"rfc3339\" format=\"jsonf\")\n\
         property(outname=\"msgid\" name=\"msgid\" format=\"jsonf\")\n\
         property(outname=\"data\" name=\"structured-data\" format=\"jsonf\")\n\
         property(outname=\"message\" name=\"msg\" format=\"jsonf\")\n}}\n\
         action(type=\"omfile\" file={received:?} template=\"parsed\")\n",
        dir = text(directory.path()),
        port = address.port(),
        received = text(&received),
    );
    let file = directory.path().join("rsyslog.conf");
    fs::write(&file, config).expect("a configuration");
    let pid = directory.path().join("rsyslog.pid");
    let mut command = Command::new(rsyslogd);
    command.args(["-n", "-f", text(&file), "-i", text(&pid)]);
    let mut rsyslog = Background::start(&mut command, &directory.path().join("rsyslog.log"));
    wait_for("rsyslog", || {
        assert!(rsyslog.ended().is_none(), "rsyslog ended:\n{}", rsyslog.log());
        std::net::TcpStream::connect(address).ok()
    });

    let feed = format!("[siem.syslog]\naddress = \"{address}\"\n");
    let Done { lab, truth, .. } = run_day(Options { seed: 1, scale: 0.05 }, &feed);
    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(&received).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    };
    let expected = usize::try_from(store::finding_changes(&lab.collector_dir())).expect("a number");
    assert!(expected >= truth.findings.len());
    wait_for("all changes at rsyslog", || (lines().len() >= expected).then_some(()));
    let lines = lines();
    assert_eq!(lines.len(), expected, "no change comes twice");

    let mut events = std::collections::BTreeSet::new();
    let mut rules = std::collections::BTreeSet::new();
    for line in &lines {
        assert_eq!(line["version"], "1", "{line}");
        let document: Value = serde_json::from_str(line["message"].as_str().expect("a message").trim())
            .unwrap_or_else(|error| panic!("{error}: {line}"));
        let event = &document["event"];
        assert_eq!(event["kind"], "alert", "{document}");
        assert!(events.insert(event["id"].to_string()), "{} comes twice", event["id"]);
        rules.insert(document["rule"]["id"].as_str().expect("a rule").to_owned());
    }
    let planted: std::collections::BTreeSet<String> =
        truth.findings.iter().map(|planted| planted.rule.as_str().to_owned()).collect();
    assert_eq!(rules, planted);
    println!("rsyslog took {} messages of {} rules", lines.len(), rules.len());
}

#[test]
fn the_ecs_file_holds_every_change_of_every_finding() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("siem.ndjson");
    let feed = format!("[siem.file]\npath = {:?}\n", text(&path));
    let Done { lab, .. } = run_day(Options { seed: 1, scale: 0.05 }, &feed);
    let expected = usize::try_from(store::finding_changes(&lab.collector_dir())).expect("a number");
    let count = || fs::read_to_string(&path).unwrap_or_default().lines().count();
    wait_for("all changes in the file", || (count() >= expected).then_some(()));
    assert_eq!(count(), expected);
}
