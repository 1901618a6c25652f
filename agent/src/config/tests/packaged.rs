//! The packaged file and the program say the same of every field: that there is one, its default, its range or its
//! values.

#[path = "../../../../proto/src/config/example/mod.rs"]
mod example;

pub(super) use example::uncommented;
use example::{Example, Exception};

use super::*;

/// Edges that other fields bound too.
const EXCEPTIONS: [Exception; 9] = [
    // Benign sources succeed more often than scanners, so neither share reaches every edge.
    ("detect.scan.benign_success", "0.000001", "0.000002", &[("scanner_success", "0.000001")]),
    ("detect.scan.scanner_success", "0.999999", "0.999998", &[("benign_success", "0.999999")]),
    // There are fewer false alarms than true ones.
    ("detect.scan.false_positive", "0.999999", "0.999998", &[("detection", "0.999999")]),
    ("detect.scan.detection", "0.000001", "0.000002", &[("false_positive", "0.000001")]),
    // No more connections can be asked for than are remembered.
    ("detect.beacon.min_connections", "65536", "65536", &[("samples", "65536")]),
    ("detect.beacon.samples", "4", "4", &[("min_connections", "4")]),
    // With so many a pair is scored, so constant traffic is more.
    ("detect.beacon.max_connections", "5", "5", &[("min_connections", "4")]),
    // Connections that are remembered lie within the window.
    ("detect.beacon.min_span_seconds", "2678400", "2678400", &[("window_seconds", "2678400")]),
    ("detect.beacon.window_seconds", "60", "60", &[("min_span_seconds", "60")]),
];

#[test]
fn the_packaged_file_says_of_every_field_what_the_program_holds_to() {
    // Where the plan that the file names lies.
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/agent.toml"));
    let load = |text: String| {
        let config = Config::from_document(&Document::new(path, text), Purpose::Run);
        config.map(|config| format!("{config:?}")).map_err(|error| error.to_string())
    };
    Example {
        text: PACKAGED,
        load: &load,
        exceptions: &EXCEPTIONS,
        sets: &[
            "plan_source",
            "source.kind",
            "source.hook",
            "source.pace",
            "interface.role",
            "mirror.kind",
            "flow.tunnels",
            "flow.checksums",
            "flow.fragments",
            "log.level",
            "log.format",
        ],
        kinds: &["source.kind", "mirror.kind"],
    }
    .check();
}
