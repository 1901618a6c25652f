//! The captures of `../shared`, each read once by the real program for all tests of this folder.

use std::{
    ffi::OsStr,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use onenet_core::record::{FlowRecord, Observation};
use serde::de::DeserializeOwned;
use serde_json::Value;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above this package")
}

/// Prints past the test runner, which keeps to itself what tests that pass print.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

pub(crate) fn captures_directory() -> PathBuf {
    workspace().join("../shared/captures")
}

/// What `read` did with one capture.
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) exit: Option<i32>,
    pub(crate) stderr: String,
    pub(crate) summary: Option<Value>,
    pub(crate) flows: Result<Vec<FlowRecord>, String>,
    pub(crate) observations: Result<Vec<Observation>, String>,
}

/// Every capture, read once for all tests of this file; none where the captures are not there.
pub(crate) static OUTCOMES: LazyLock<Option<Vec<Outcome>>> = LazyLock::new(|| {
    let directory = captures_directory();
    if !directory.is_dir() {
        say(&format!("SKIPPED: no captures at {}; nothing was compared", directory.display()));
        return None;
    }
    let mut captures: Vec<PathBuf> = directory
        .read_dir()
        .expect("the captures can be listed")
        .map(|entry| entry.expect("the captures can be listed").path())
        .filter(|path| path.is_file() && !path.ends_with("EXPECTED.md") && !path.ends_with("MANIFEST.tsv"))
        .collect();
    captures.sort();
    Some(read_all(&captures, &[]))
});

/// Reads captures with these arguments more, each by itself.
pub(crate) fn read_all(captures: &[PathBuf], arguments: &[&OsStr]) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let take = || captures.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(take).map(|capture| read(capture, arguments)).collect::<Vec<_>>()
    };
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let mut outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("a worker ends")).collect()
    });
    outcomes.sort_by(|one, other| one.name.cmp(&other.name));
    outcomes
}

/// Every line of a file as a record; a file that is not there has none.
fn records<R: DeserializeOwned>(path: &Path) -> Result<Vec<R>, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let record = |line| serde_json::from_str(line).map_err(|error| format!("{error} in {line}"));
    text.lines().map(record).collect()
}

/// Reads one capture with the real program and these arguments more.
pub(crate) fn read(capture: &Path, arguments: &[&OsStr]) -> Outcome {
    let agent = onenet_tests::programs::directory().expect("the programs are built").join("onenet-agent");
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| scratch.path().join(name);
    let output = Command::new(agent)
        .args(["read", "--quiet", "--flows"])
        .arg(path("flows"))
        .arg("--observations")
        .arg(path("observations"))
        .arg("--findings")
        .arg(path("findings"))
        .arg("--summary")
        .arg(path("summary"))
        .args(arguments)
        .arg(capture)
        .output()
        .expect("onenet-agent starts");
    let summary = std::fs::read(path("summary")).ok();
    Outcome {
        name: capture.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        exit: output.status.code(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        summary: summary.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
        flows: records(&path("flows")),
        observations: records(&path("observations")),
    }
}
