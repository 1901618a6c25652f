//! What is refused, with the place, and the packaged file held to the program.

#[path = "../../../proto/src/config/example/mod.rs"]
mod example;

use std::path::Path;

use example::{Example, uncommented};

use super::*;

const PACKAGED: &str = include_str!("../../../packaging/collector.toml");

fn load(text: impl Into<String>) -> Result<Config, String> {
    let document = Document::new(Path::new("/etc/onenet/collector.toml"), text.into());
    Config::from_document(&document).map_err(|error| error.to_string())
}

#[test]
fn what_is_wrong_is_told_with_file_line_column_and_key() {
    let server = "[server]\nlisten = '127.0.0.1:1'\nca_certificate = 'a'\nca_key = 'b'\n\
                  certificate = 'c'\nkey = 'd'\n";
    for (more, expected) in [
        ("max_connections = 0\n", "collector.toml:7:19: server.max_connections: 0, expected 1 to 65536"),
        ("[siem.file]\nkeep = 10001\n", "collector.toml:8:8: siem.file.keep: 10001, expected 0 to 10000"),
        ("[store]\ndirectory = ''\n", "collector.toml:8:13: store.directory: is empty, expected a path"),
        ("[plan]\nfile = ''\n", "collector.toml:8:8: plan.file: is empty, expected a path"),
        (
            "[web]\nhosts = ['edge.example', 'edge.example:8443']\n",
            "collector.toml:8:9: web.hosts: \"edge.example:8443\", expected a host name or an address, without a port",
        ),
        (
            "[siem.syslog]\naddress = 'siem.example:0'\n",
            "collector.toml:8:11: siem.syslog.address: \"siem.example:0\", expected a receiver such as",
        ),
        (
            "[siem.syslog]\naddress = 'siem.example:6514'\nhostname = 'a b'\n",
            "collector.toml:9:12: siem.syslog.hostname: \"a b\", expected 1 to 255 visible characters of ASCII",
        ),
    ] {
        let error = load(format!("{server}{more}")).expect_err(more);
        assert!(error.contains(expected), "{error}\n{expected}");
    }
    for host in ["edge.example", "192.0.2.1", "2001:db8::1"] {
        load(format!("{server}[web]\nhosts = ['{host}']\n")).expect(host);
    }
}

#[test]
fn the_packaged_file_has_the_defaults() {
    let packaged = load(PACKAGED).expect("sound");
    let mut all = load(uncommented(PACKAGED)).expect("sound");
    assert!(packaged.siem.syslog.is_none() && all.siem.syslog.take().is_some());
    assert_eq!(packaged, all);
    let bare = "[server]\nlisten = '127.0.0.1:7443'\nca_certificate = 'ca.pem'\nca_key = 'ca.key'\n\
                certificate = 'server.pem'\nkey = 'server.key'\n";
    assert_eq!(packaged, load(bare).expect("sound"));
}

#[test]
fn the_packaged_file_says_of_every_field_what_the_program_holds_to() {
    Example {
        text: PACKAGED,
        load: &|text| load(text).map(|config| format!("{config:?}")),
        exceptions: &[],
        sets: &["siem.syslog.facility", "siem.syslog.message"],
        kinds: &[],
    }
    .check();
}
