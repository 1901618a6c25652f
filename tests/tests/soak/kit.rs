//! What the cases share: sizes, chance, a sensor that is fed with numbered flows, moments to kill at, the line of figures.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use onenet_core::record::RuleId;
use serde_json::Value;

use crate::{
    harness::{AgentConfig, Background, Edge, Lab, say, text},
    oracle::Account,
};

/// How long anything may take to go on once nothing stands in its way. What is promised is less; a case that promises a
/// time checks it itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Small batches that go to disk at once, so that there are many moments to fail at; little is given up by waiting.
pub(crate) const QUICK: &str = "[batch]\nmax_records = 10\nmax_delay_ms = 5\n\n\
                                [spool]\nsegment_mib = 1\nmax_mib = 64\nfsync_ms = 2\n";

/// Whether the full sizes are wanted.
pub(crate) fn full() -> bool {
    std::env::var_os("ONENET_SOAK").is_some_and(|value| value == "1")
}

/// A size: the small one, the full one, or what `ONENET_SOAK_ROUNDS` says.
pub(crate) fn size(small: u64, full_size: u64) -> u64 {
    match std::env::var("ONENET_SOAK_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("ONENET_SOAK_ROUNDS: expected a number"),
        Err(_) if full() => full_size,
        Err(_) => small,
    }
}

/// The seed of all chance: `ONENET_SEED`, else always the same.
pub(crate) fn seed() -> u64 {
    let stated = std::env::var("ONENET_SEED").ok();
    stated.map_or(1, |seed| seed.parse().expect("ONENET_SEED: expected a number"))
}

/// Milliseconds.
pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Polls until `probe` gives something; fails with `what` after [`PATIENCE`].
pub(crate) fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s for {what}", PATIENCE.as_secs());
        std::thread::sleep(ms(4));
    }
}

/// One case: its name, its time, and what a person needs to run it again where it fails.
pub(crate) struct Case {
    name: &'static str,
    began: Instant,
    /// Chance of this case.
    pub(crate) chance: fastrand::Rng,
    /// Rounds, where it has some.
    pub(crate) rounds: u64,
    /// The longest time from the end of a fault until something new was stored.
    pub(crate) resume: Duration,
}

impl Case {
    /// Begins a case of so many rounds.
    pub(crate) fn begin(name: &'static str, rounds: u64) -> Self {
        let chance = fastrand::Rng::with_seed(seed());
        Self { name, began: Instant::now(), chance, rounds, resume: Duration::ZERO }
    }

    /// Counts a time that it took to go on.
    pub(crate) fn resumed(&mut self, after: Duration) {
        self.resume = self.resume.max(after);
    }

    /// Ends the case: its figures in one line, which `cargo xtask soak` makes its table from.
    pub(crate) fn end(self, account: &Account, more: &str) {
        let Account { truth, unique, lost, twice, .. } = account;
        say(&format!(
            "SOAK {} | {} | {truth} | {unique} | {lost} | {twice} | {:.1} | {:.0} | {more}",
            self.name,
            self.rounds,
            self.resume.as_secs_f64(),
            self.began.elapsed().as_secs_f64(),
        ));
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&format!("{}: failed; the same chance again by ONENET_SEED={}", self.name, seed()));
        }
    }
}

/// A sensor that is fed with numbered flows.
pub(crate) struct Sensor {
    /// The configured sensor.
    pub(crate) edge: Edge,
    /// Seed of its flows.
    pub(crate) seed: u64,
    /// Where it tells how many it has made.
    truth: PathBuf,
}

/// The program that feeds.
pub(crate) fn feed_program() -> PathBuf {
    if let Some(stated) = std::env::var_os("ONENET_FEED") {
        return stated.into();
    }
    let beside = std::env::var_os("ONENET_PROGRAMS").map(|programs| Path::new(&programs).join("onenet-feed"));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| env!("CARGO_BIN_EXE_onenet-feed").into())
}

impl Sensor {
    /// Enrols a sensor at a collector that runs, and has it connect to `via` where that is another address.
    pub(crate) fn enrol(lab: &Lab, name: &str, seed: u64, tables: &str, via: Option<SocketAddr>) -> Self {
        let agent = AgentConfig {
            sensor: name.to_owned(),
            site: "boston".to_owned(),
            top: "heartbeat_seconds = 1\n".to_owned(),
            tables: tables.to_owned(),
            ..AgentConfig::default()
        };
        let edge = lab.enrol(agent);
        if let Some(via) = via {
            let config = fs::read_to_string(&edge.config).expect("a configuration");
            let config = config.replace(&format!("https://{}", lab.ingest), &format!("https://{via}"));
            fs::write(&edge.config, config).expect("a configuration");
        }
        let truth = lab.path(&format!("{name}.truth"));
        Self { edge, seed, truth }
    }

    /// How many flows it has made.
    pub(crate) fn made(&self) -> u64 {
        match fs::read_to_string(&self.truth) {
            Ok(made) => made.parse().expect("a number"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => panic!("{}: {error}", self.truth.display()),
        }
    }

    /// The command that feeds it.
    pub(crate) fn command(&self, program: &Path, more: &[&str]) -> Command {
        let (seed, made) = (self.seed.to_string(), self.made().to_string());
        let mut command = Command::new(program);
        command.args(["--config", text(&self.edge.config), "--truth", text(&self.truth), "--seed", &seed]);
        command.args(["--at-once", &made]).args(more);
        command
    }

    /// Starts to feed it.
    pub(crate) fn start(&self, more: &[&str]) -> Background {
        Background::start(&mut self.command(&feed_program(), more), &self.edge.log)
    }

    /// Feeds it up to so many flows in all, until everything is acknowledged; gives how many there are.
    pub(crate) fn finish(&self, flows: u64) -> u64 {
        let mut feed = self.start(&["--flows", &flows.to_string(), "--until-end"]);
        let mut last = (Instant::now(), 0);
        while feed.ended().is_none() {
            // What takes long is fine as long as it goes on.
            let acked = self.status()["batches_acked"].as_u64().unwrap_or_default();
            if acked != last.1 {
                last = (Instant::now(), acked);
            }
            assert!(last.0.elapsed() < PATIENCE, "nothing is acknowledged any more:\n{}", feed.log());
            std::thread::sleep(ms(100));
        }
        assert!(feed.wait().success(), "{}", feed.log());
        assert!(!feed.log().contains("panicked"), "{}", feed.log());
        flows
    }

    /// What it says of itself; null before its first word.
    pub(crate) fn status(&self) -> Value {
        let written = self.edge.state_dir.join("status.json").is_file();
        if written { self.edge.status() } else { Value::Null }
    }

    /// Where its batches wait.
    pub(crate) fn spool(&self) -> PathBuf {
        self.edge.state_dir.join("spool")
    }
}

/// How many batches of a sensor are stored, as the collector tells; none while it does not answer.
pub(crate) fn stored(lab: &Lab, sensor: &str) -> Option<u64> {
    let sensors = lab.try_get("/api/v1/sensors")?;
    let items = sensors["items"].as_array()?;
    items.iter().find(|item| item["sensor"] == sensor)?["batches"].as_u64()
}

/// Flows that the collector has or knows to be lost; none while it does not answer.
pub(crate) fn told(lab: &Lab, sensor: &Sensor) -> Option<u64> {
    let sensors = lab.try_get("/api/v1/sensors")?;
    let items = sensors["items"].as_array()?;
    let found = items.iter().find(|item| item["sensor"] == sensor.edge.sensor.as_str())?;
    Some(found["flows"].as_u64()? + found["lost"].as_u64()?)
}

/// Waits until the collector has raised a finding of this rule; tells how long that took.
pub(crate) fn found(lab: &Lab, rule: RuleId) -> Duration {
    let since = Instant::now();
    until(rule.as_str(), || {
        let findings = lab.try_get("/api/v1/findings?limit=500")?;
        findings["items"].as_array()?.iter().any(|finding| finding["rule"] == rule.as_str()).then_some(())
    });
    since.elapsed()
}

/// The bytes of a directory's files.
fn bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Waits until a file of a directory grows or shrinks: something is being written at this moment. False where nothing
/// was for a second.
pub(crate) fn until_written(directory: &Path) -> bool {
    let (begun, before) = (Instant::now(), bytes(directory));
    while begun.elapsed() < ms(1000) {
        if bytes(directory) != before {
            return true;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    false
}
