//! What the collector needs: the agent delivers what it told, as at any edge; once all of it is in the inventory the plan is
//! changed, and the collector says how long it took to judge every address anew.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{super::captures::Capture, Bench, JUDGED, Limits, MEMORY, Report};
use crate::{
    bench::{
        delivery::{LIMIT, Usage},
        rounds::grouped,
    },
    collector, http,
    programs::{Background, output, path},
    say,
};

pub(super) const INGEST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7863);
pub(super) const WEB: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7864);
/// What the collector says once it has judged everything by a plan.
const SAID: &str = "every address was judged by the plan";

/// What the collector said of one look at everything.
#[derive(Debug)]
struct Look {
    uses: u64,
    overlapping: u64,
    changed: u64,
    groups: u64,
    seconds: f64,
    /// Seconds from the signal until it said so, in which the plan was read and checked.
    since_signal: f64,
}

pub(super) fn run(bench: &Bench, capture: &Capture, report: &mut Report) -> Result<()> {
    let directory = bench.folder.join("collector");
    let mut collector = start(bench, &directory, &bench.plan())?;
    collector::await_answer(&mut collector, WEB, || Ok(()))?;
    let config = bench.agent_config(&bench.folder.join("boston-1"), capture, Limits::Default)?;
    collector::enrol(&bench.programs, &directory, INGEST, &config, ("boston-1", "boston"))?;
    say("onenet-agent run: every address by batches into the collector");
    let flows = capture.count("flows");
    let filled = fill(bench, &config, &mut collector, flows)?;
    let told = super::number(&http::get_json(WEB, "/api/v1/sensors")?, "/items/0/ledger/observations")?;
    let rate = told * 1_000 / filled.millis.max(1);
    // Writing to a string cannot fail.
    let _ = writeln!(
        report.text,
        "Delivered by `onenet-agent run` (peak {:.0} MiB) and correlated: {} observations and {} flows in {} s, {} \
         observations a second; the collector's peak {:.0} MiB, its store {} MB.\n",
        filled.agent_peak,
        grouped(told),
        grouped(flows),
        filled.millis / 1_000,
        grouped(rate),
        Usage::of(collector.process_id())?.peak,
        grouped(size(&directory)? / 1_000_000),
    );
    report.targets.push((
        format!("peak memory of `onenet-agent run`, MiB, at most {MEMORY:.0}"),
        MEMORY,
        filled.agent_peak,
    ));
    let text = fs::read_to_string(bench.plan())?;
    let _ = writeln!(
        report.text,
        "| the plan is changed | uses judged | that overlap | stand otherwise | in groups | the collector says, s | from SIGHUP, s \
         |\n|---|--:|--:|--:|--:|--:|--:|"
    );
    let mut worst = 0.0_f64;
    for (what, plan) in changes(&text)? {
        say(&format!("the plan is changed: {what}"));
        let look = change(&mut collector, &directory.join("plan.toml"), &plan)?;
        worst = worst.max(look.seconds);
        let _ = writeln!(
            report.text,
            "| {what} | {} | {} | {} | {} | {:.2} | {:.2} |",
            grouped(look.uses),
            grouped(look.overlapping),
            grouped(look.changed),
            grouped(look.groups),
            look.seconds,
            look.since_signal,
        );
    }
    let peak = Usage::of(collector.process_id())?.peak;
    let _ = writeln!(report.text, "\nThe collector's peak then: {peak:.0} MiB.\n");
    report.targets.push((
        format!("everything judged by a changed plan, seconds, at most {JUDGED:.0}"),
        JUDGED,
        worst,
    ));
    collector.stop().map(drop)
}

/// Makes a collector that has this plan, and starts it.
pub(super) fn start(bench: &Bench, directory: &Path, plan: &Path) -> Result<Background> {
    let program = bench.program("onenet-collector");
    let text = path(directory)?;
    let (ingest, web) = (INGEST.to_string(), WEB.to_string());
    output(&program, &["init", "--dir", text, "--name", "127.0.0.1", "--listen", &ingest, "--web", &web])?;
    fs::copy(plan, directory.join("plan.toml"))?;
    let imports = plan.with_extension("d");
    if imports.is_dir() {
        let own = directory.join("plan.d");
        fs::create_dir_all(&own)?;
        for entry in fs::read_dir(imports)? {
            let entry = entry?;
            fs::copy(entry.path(), own.join(entry.file_name()))?;
        }
    }
    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or("collector");
    Background::start(name, &program, &["run", "--dir", text], bench.folder.join(format!("{name}.log")))
}

struct Filled {
    millis: u64,
    agent_peak: f64,
}

/// Has the agent deliver all of the capture, and waits until the collector has correlated it.
fn fill(bench: &Bench, config: &Path, collector: &mut Background, flows: u64) -> Result<Filled> {
    let log = bench.folder.join("agent.log");
    let words = ["run", "--config", path(config)?, "--until-end"];
    let began = Instant::now();
    let mut agent = Background::start("onenet-agent", &bench.program("onenet-agent"), &words, log)?;
    let mut peak = 0.0;
    loop {
        // What a process has used can be asked as long as it is there.
        peak = Usage::of(agent.process_id()).map_or(peak, |usage| usage.peak);
        match agent.ended()? {
            None => std::thread::sleep(Duration::from_millis(20)),
            Some(status) => {
                ensure!(status.success(), "the agent ended with {status}:\n{}", agent.log());
                break;
            }
        }
        collector.must_live()?;
        ensure!(began.elapsed() < LIMIT, "not delivered within {} s", LIMIT.as_secs());
    }
    loop {
        let health = http::get_json(WEB, "/api/v1/health")?;
        if health["correlated"] == true {
            super::ensure_is("uses in the inventory", super::number(&health, "/addresses")?, flows)?;
            let millis = u64::try_from(began.elapsed().as_millis())?;
            return Ok(Filled { millis, agent_peak: peak });
        }
        collector.must_live()?;
        ensure!(began.elapsed() < LIMIT, "not correlated within {} s", LIMIT.as_secs());
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The plan with one claim more, with another secretariat's wide claim, and without one of the wide claims.
fn changes(plan: &str) -> Result<Vec<(&'static str, String)>> {
    let claim = "[[prefix]]\ncidr = \"10.16.0.0/16\"\nsecretariat = \"anf\"\n";
    let (before, after) = plan.split_once(claim).context("the plan has no claim of 10.16.0.0/16")?;
    Ok(vec![
        ("one claim more", format!("{plan}[[prefix]]\ncidr = \"10.31.240.0/24\"\nsecretariat = \"anf\"\n")),
        ("a /16 passes to another secretariat", format!("{before}{}{after}", claim.replace("anf", "eotss"))),
        ("a /16 is no longer claimed", format!("{before}{after}")),
    ])
}

/// Puts a plan in the place of the collector's, tells it, and waits for what it says.
fn change(collector: &mut Background, file: &Path, plan: &str) -> Result<Look> {
    let before = collector.log().matches(SAID).count();
    let mut writer = OpenOptions::new().write(true).truncate(true).open(file)?;
    writer.write_all(plan.as_bytes())?;
    drop(writer);
    let began = Instant::now();
    kill(Pid::from_raw(i32::try_from(collector.process_id())?), Signal::SIGHUP)?;
    loop {
        let log = collector.log();
        let said: Vec<&str> = log.lines().filter(|line| line.contains(SAID)).collect();
        if let Some(line) = said.get(before) {
            let field = |name: &str| -> Result<u64> {
                let value =
                    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
                value.and_then(|value| value.parse().ok()).with_context(|| format!("no {name} in: {line}"))
            };
            return Ok(Look {
                uses: field("uses")?,
                overlapping: field("overlapping")?,
                changed: field("changed")?,
                groups: field("groups")?,
                seconds: field("millis")? as f64 / 1_000.0,
                since_signal: began.elapsed().as_secs_f64(),
            });
        }
        collector.must_live()?;
        ensure!(began.elapsed() < LIMIT, "the collector did not judge the plan:\n{log}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Octets of all files below a folder.
fn size(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        sum += if data.is_dir() { size(&entry.path())? } else { data.len() };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_another_plan() {
        let plan = "[[prefix]]\ncidr = \"10.16.0.0/16\"\nsecretariat = \"anf\"\n\n[[prefix]]\n";
        let plans = changes(plan).expect("the claim is there");
        let texts: Vec<&String> = plans.iter().map(|(_, text)| text).collect();
        assert!(texts[0].starts_with(plan) && texts[1].contains("eotss") && !texts[2].contains("10.16"));
        assert!(changes("").is_err());
    }
}
