//! `cargo xtask bench delivery`: sealed flows a second through spool, TLS, verification and commit, two agents to one
//! collector, and beside it rsyslog with a disk-assisted queue and RELP over TLS on records of the same size.
//!
//! Everything runs in a network namespace of its own, so that the bytes its loopback counts are those of the delivery.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{document, relp};
use crate::{
    collector,
    programs::{Background, output, path},
    say,
    setup::{self, Need},
};

/// The sites of the two agents; each has its sensor `SITE-1`.
pub(super) const SITES: [&str; 2] = ["boston", "lowell"];
/// Where the collector takes batches, and where it shows its page.
const INGEST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7843);
const WEB: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7844);
/// How long one run may take.
pub(super) const LIMIT: Duration = Duration::from_secs(600);

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Flows of each agent.
    #[arg(long, default_value_t = 1_500_000)]
    flows: u64,
    /// Records of each rsyslog that sends.
    #[arg(long, default_value_t = 500_000)]
    records: u64,
    /// Runs of each, in turn; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// What one run gave.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    /// Records in all.
    pub(super) records: f64,
    /// Seconds from the start of the senders until the last record was durable where it goes.
    pub(super) wall: f64,
    /// Seconds of processor time of both senders, and of the receiver.
    pub(super) senders: f64,
    pub(super) receiver: f64,
    /// Peak resident memory of the larger sender, and of the receiver, MiB.
    pub(super) sender_peak: f64,
    pub(super) receiver_peak: f64,
    /// Bytes on the loopback, IP headers and acknowledgements included.
    pub(super) wire: f64,
}

impl Run {
    fn per_second(&self) -> f64 {
        self.records / self.wall
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::install(setup::Purpose::Live)?;
    for need in relp::NEEDS.iter().chain([&STRACE]) {
        setup::try_install(need)?;
    }
    let programs = super::build(&[
        ("onenet-agent", "onenet-agent"),
        ("onenet-collector", "onenet-collector"),
        ("onenet-tests", "onenet-feed"),
    ])?;
    own_network()?;
    let folder = super::folder()?.join("delivery");
    let load = document::load();
    let bench = Bench { programs, folder };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=arguments.rounds.max(1) {
        say(&format!("round {round}: two agents, {} flows each", arguments.flows));
        ours.push(bench.run(arguments.flows, false)?.0);
        say(&format!("round {round}: two rsyslog senders, {} records each", arguments.records));
        theirs.push(relp::run(&bench.folder, arguments.records, false)?.0);
    }
    say("once more each under strace, for the fsyncs");
    let our_syncs = bench.run(arguments.flows / 3, true)?.1;
    let their_syncs = relp::run(&bench.folder, arguments.records / 3, true)?.1;
    let (ours, theirs) = (median(ours), median(theirs));
    let text = table(&load, &(ours, our_syncs), &(theirs, their_syncs));
    println!("{text}");
    document::write("delivery", &text)?;
    fs::remove_dir_all(&bench.folder).with_context(|| bench.folder.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

const STRACE: Need<'static> = Need {
    purpose: setup::Purpose::Tests,
    what: "strace, which counts fsyncs",
    probe: "command -v strace",
    debian: &["strace"],
    fedora: &["strace"],
};

/// Enters a network namespace of its own, where this process may; else the bytes of others are counted too.
fn own_network() -> Result<()> {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        say(&format!("no network namespace ({error}): the loopback's bytes are those of the whole machine"));
        return Ok(());
    }
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("cannot run ip")?;
    if status.success() { Ok(()) } else { bail!("the loopback of the namespace cannot be set up") }
}

fn median(mut runs: Vec<Run>) -> Run {
    runs.sort_by(|one, other| one.per_second().total_cmp(&other.per_second()));
    runs.get(runs.len() / 2).copied().unwrap_or_default()
}

fn table(load: &str, ours: &(Run, f64), theirs: &(Run, f64)) -> String {
    let mut text = format!("\nLoad before: {load}.\n\n");
    text += "| | records/s | senders, µs CPU a record | receiver, µs CPU a record | bytes on the wire a record | \
             fsyncs/s | sender's peak, MiB | receiver's peak, MiB |\n|---|--:|--:|--:|--:|--:|--:|--:|\n";
    for (name, (run, syncs)) in [("onenet, two agents", ours), ("rsyslog, two senders", theirs)] {
        let micros = |seconds: f64| seconds * 1e6 / run.records;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {:.1} | {:.1} | {:.0} | {syncs:.0} | {:.0} | {:.0} |",
            run.per_second(),
            micros(run.senders),
            micros(run.receiver),
            run.wire / run.records,
            run.sender_peak,
            run.receiver_peak,
        );
    }
    let (ours, theirs) = (ours.0.per_second(), theirs.0.per_second());
    let met = if ours >= 150_000.0 { "met" } else { "missed" };
    let _ = writeln!(text, "\n{:.2} times rsyslog's rate. Target 150,000 flows/s: {met}.\n", ours / theirs);
    text
}

/// The programs and where they work.
struct Bench {
    programs: PathBuf,
    folder: PathBuf,
}

impl Bench {
    fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// One run; under strace the second number is fsyncs a second.
    fn run(&self, flows: u64, counted: bool) -> Result<(Run, f64)> {
        empty(&self.folder)?;
        let collector_dir = self.folder.join("collector");
        let directory = path(&collector_dir)?;
        let collector = self.program("onenet-collector");
        let (ingest, web) = (INGEST.to_string(), WEB.to_string());
        let init = ["init", "--dir", directory, "--name", "127.0.0.1", "--listen", &ingest, "--web", &web];
        output(&collector, &init)?;
        let counts = self.folder.join("collector.syncs");
        let mut receiver =
            start("collector", &collector, &["run", "--dir", directory], &counts, counted, &self.folder)?;
        collector::await_answer(&mut receiver, WEB, || Ok(()))?;
        let edges = SITES.map(|site| self.enrol(site, &collector_dir));
        let before = loopback_bytes()?;
        let began = Instant::now();
        let mut senders = Vec::new();
        for (edge, (site, seed)) in edges.into_iter().zip(SITES.into_iter().zip(1..)) {
            let (config, counts) = (edge?, self.folder.join(format!("{site}.syncs")));
            let (flows, seed) = (flows.to_string(), i32::to_string(&seed));
            let arguments = [
                "--config",
                path(&config)?,
                "--flows",
                &flows,
                "--seed",
                &seed,
                "--site",
                site,
                "--until-end",
            ];
            let feed = self.program("onenet-feed");
            senders.push((start(site, &feed, &arguments, &counts, counted, &self.folder)?, counts));
        }
        let mut taken = Run { records: 2.0 * flows as f64, ..Run::default() };
        let mut last = vec![Usage::default(); senders.len()];
        let deadline = began + LIMIT;
        loop {
            let mut running = false;
            for ((sender, _), usage) in senders.iter_mut().zip(&mut last) {
                // What a process has used can be asked as long as it is there.
                *usage = Usage::of(sender.process_id()).unwrap_or(*usage);
                match sender.ended()? {
                    None => running = true,
                    Some(status) if status.success() => {}
                    Some(status) => bail!("a sender ended with {status}:\n{}", sender.log()),
                }
            }
            if !running {
                break;
            }
            anyhow::ensure!(Instant::now() < deadline, "not delivered within {} s", LIMIT.as_secs());
            std::thread::sleep(Duration::from_millis(5));
        }
        taken.wall = began.elapsed().as_secs_f64();
        taken.wire = loopback_bytes()? - before;
        taken.senders = last.iter().map(|usage| usage.cpu).sum();
        taken.sender_peak = last.iter().map(|usage| usage.peak).fold(0.0, f64::max);
        let usage = Usage::of(receiver.process_id())?;
        (taken.receiver, taken.receiver_peak) = (usage.cpu, usage.peak);
        self.check(flows, directory)?;
        stop(&mut receiver, counted)?;
        let files: Vec<PathBuf> = senders.into_iter().map(|(_, counts)| counts).chain([counts]).collect();
        let syncs = if counted { syncs(&files)? / taken.wall } else { 0.0 };
        Ok((taken, syncs))
    }

    /// A sensor's configuration, enrolled.
    fn enrol(&self, site: &str, collector_dir: &Path) -> Result<PathBuf> {
        let sensor = format!("{site}-1");
        let folder = self.folder.join(&sensor);
        fs::create_dir_all(&folder)?;
        let config = folder.join("agent.toml");
        fs::write(
            &config,
            format!(
                "[sensor]\nname = \"{sensor}\"\nsite = \"{site}\"\nstate_dir = {:?}\n",
                folder.join("state")
            ),
        )?;
        collector::enrol(&self.programs, collector_dir, INGEST, &config, (&sensor, site))?;
        Ok(config)
    }

    /// Whether every flow has been stored.
    fn check(&self, flows: u64, collector_dir: &str) -> Result<()> {
        let told = output(
            &self.program("onenet-collector"),
            &["sensors", "--dir", collector_dir, "--format", "json"],
        )?;
        let sensors: Value = serde_json::from_str(&told).context("`sensors` printed no JSON")?;
        let of = |sensor: &Value| sensor["flows"].as_u64().unwrap_or_default();
        let stored: u64 = sensors.as_array().map(|sensors| sensors.iter().map(of).sum()).unwrap_or_default();
        anyhow::ensure!(stored == 2 * flows, "{stored} flows of {} are stored", 2 * flows);
        Ok(())
    }
}

/// Starts a program, under strace where its fsyncs are to be counted.
pub(super) fn start(
    name: &str,
    program: &Path,
    arguments: &[&str],
    counts: &Path,
    counted: bool,
    folder: &Path,
) -> Result<Background> {
    let log = folder.join(format!("{name}.log"));
    if !counted {
        return Background::start(name, program, arguments, log);
    }
    let strace =
        ["-f", "--seccomp-bpf", "-c", "-e", "trace=fsync,fdatasync", "-o", path(counts)?, path(program)?];
    Background::start(name, Path::new("strace"), &[&strace[..], arguments].concat(), log)
}

/// Stops a program and waits. Under strace it is strace's child that has to be told.
pub(super) fn stop(program: &mut Background, counted: bool) -> Result<()> {
    if counted {
        let strace = program.process_id();
        let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children"))?;
        let child = children.split_whitespace().next().context("strace has no child")?;
        kill(Pid::from_raw(child.parse()?), Signal::SIGTERM)?;
        let deadline = Instant::now() + LIMIT;
        while program.ended()?.is_none() {
            anyhow::ensure!(Instant::now() < deadline, "it did not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    program.stop().map(drop)
}

/// The calls that strace counted, over all files.
pub(super) fn syncs(files: &[PathBuf]) -> Result<f64> {
    let mut sum = 0.0;
    for file in files {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        // "% time, seconds, usecs/call, calls, errors, syscall"; the errors column may be empty.
        let calls = text.lines().filter(|line| line.ends_with("fsync") || line.ends_with("fdatasync"));
        sum += calls.filter_map(|line| line.split_whitespace().nth(3)?.parse::<f64>().ok()).sum::<f64>();
    }
    Ok(sum)
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Seconds of processor time, user and system.
    pub(super) cpu: f64,
    /// Peak of resident memory, MiB.
    pub(super) peak: f64,
}

impl Usage {
    /// From proc(5).
    pub(super) fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit(')').next().context("no fields in stat")?.split_whitespace();
        let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<f64>().ok());
        // A tick is a hundredth of a second on every Linux that this is built for (USER_HZ).
        Ok(Self { cpu: ticks / 100.0, peak: kib.context("it has ended")? / 1024.0 })
    }
}

/// Bytes received on the loopback of this namespace.
pub(super) fn loopback_bytes() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let bytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    bytes.context("no loopback in /proc/self/net/dev")
}

/// An empty folder in the place of whatever was there.
pub(super) fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_run_in_the_middle_by_rate() {
        let run = |wall| Run { records: 100.0, wall, ..Run::default() };
        assert_eq!(median(vec![run(9.0), run(1.0), run(2.0)]).wall, 2.0);
    }
}
