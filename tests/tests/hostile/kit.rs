//! What the tests of this folder share: figures past the test runner, and packets out of `../shared/captures`.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use onenet_agent::source::Capture;
use onenet_core::decode::LinkType;

/// Prints past the test runner, which keeps to itself what tests that pass print.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Captured files, in order; none, and said so, where they are not there.
pub(crate) fn captures() -> Vec<PathBuf> {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above this package");
    let directory = workspace.join("../shared/captures");
    let Ok(entries) = directory.read_dir() else {
        say(&format!("SKIPPED: no captures at {}; only generated packets are used", directory.display()));
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the captures can be listed").path())
        .filter(|path| path.is_file() && !path.ends_with("EXPECTED.md") && !path.ends_with("MANIFEST.tsv"))
        .collect();
    files.sort();
    files
}

/// Packets out of one capture, spread over it: at most `most`, each at most `longest` bytes.
pub(crate) fn packets(file: &Path, most: usize, longest: usize) -> Vec<(LinkType, Vec<u8>)> {
    let mut found = Vec::new();
    let Ok(mut capture) = Capture::open(file) else { return found };
    let mut skip = 1;
    let mut number = 0_usize;
    while let Ok(true) = capture.advance() {
        number += 1;
        if !number.is_multiple_of(skip) {
            continue;
        }
        let Some(packet) = capture.packet() else { break };
        found.push((packet.link_type, packet.data[..packet.data.len().min(longest)].to_vec()));
        if found.len() >= 2 * most {
            // Every second one goes, and from here on one of twice as many is taken.
            let mut keep = false;
            found.retain(|_| {
                keep = !keep;
                keep
            });
            skip *= 2;
        }
    }
    found.truncate(most);
    found
}
