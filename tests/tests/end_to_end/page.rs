//! The web page in a real browser: headless Chromium draws it and tells what is in it.

use std::{path::Path, process::Command};

use onenet_tests::traffic::Options;

use crate::{
    day::{Done, run_day},
    harness::{run, text},
    syslog::installed,
};

struct Browser {
    program: String,
    profile: tempfile::TempDir,
}

impl Browser {
    fn new() -> Self {
        let program = installed("chromium", &["chromium", "chromium-browser"]);
        Self { program, profile: tempfile::tempdir().expect("a directory") }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args([
                "--no-first-run",
                "--hide-scrollbars",
                "--window-size=1440,1600",
                "--virtual-time-budget=8000",
            ])
            .arg(format!("--user-data-dir={}", text(self.profile.path())));
        command
    }

    /// The document of a page, after its scripts have run.
    fn document(&self, url: &str) -> String {
        let told = run(self.command().args(["--dump-dom", url]));
        assert_eq!(told.code, Some(0), "{url}: {}", told.err);
        told.out
    }

    fn screenshot(&self, url: &str, file: &Path) {
        let told = run(self.command().arg(format!("--screenshot={}", text(file))).arg(url));
        assert_eq!(told.code, Some(0), "{url}: {}", told.err);
    }
}

#[test]
fn chromium_draws_sensors_findings_overlaps_and_a_flow_search() {
    let browser = Browser::new();
    let Done { lab, edges, truth } = run_day(Options { seed: 1, scale: 0.05 }, "");
    let page = format!("http://{}/", lab.web);
    let mut seen = browser.document(&page);
    for path in ["findings?limit=500", "overlaps?limit=500"] {
        seen.push_str(&browser.document(&format!("{page}{path}")));
    }
    for edge in &edges {
        assert!(seen.contains(&edge.sensor), "{} is on no page", edge.sensor);
    }
    for planted in &truth.findings {
        let (rule, about) = planted.key.split_once('|').expect("a rule");
        let first = about.split('>').next().expect("an address");
        assert!(seen.contains(rule) && seen.contains(first), "{} is on no page", planted.key);
    }

    let beacon = truth.findings.iter().find(|planted| planted.key.starts_with("beacon|")).expect("a beacon");
    let (client, server) = beacon.key.trim_start_matches("beacon|").split_once('>').expect("two addresses");
    let found = browser.document(&format!("{page}flows?address={client}&peer={server}"));
    assert!(found.contains(client) && found.contains(server), "the search does not show its flows");
    let nothing = browser.document(&format!("{page}flows?address=10.254.254.254"));
    assert!(!nothing.contains(server), "the search shows flows that were not asked for");

    let directory = std::env::var_os("ONENET_SCREENSHOTS").map_or_else(std::env::temp_dir, Into::into);
    let file = directory.join(format!("onenet-page-{}.png", std::process::id()));
    browser.screenshot(&page, &file);
    let bytes = std::fs::read(&file).expect("a screenshot");
    assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 20_000, "{} bytes are no page", bytes.len());
    if std::env::var_os("ONENET_SCREENSHOTS").is_none() {
        std::fs::remove_file(&file).expect("our own file");
    } else {
        println!("screenshot: {}", file.display());
    }
}
