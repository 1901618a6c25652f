//! Runs one program and tells what the operating system accounted to it: processor time, peak memory, elapsed time.
//!
//! The account is that of waited-for children (getrusage(2), RUSAGE_CHILDREN), which is a sum over all children and
//! their children. So that it is the account of one program, each measurement is taken by a process of its own: this
//! program, started anew as `cargo xtask bench measure`.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use serde_json::{Value, json};

/// What one run took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Taken {
    /// Seconds that passed.
    pub(crate) wall: f64,
    /// Seconds of processor time, user and system.
    pub(crate) cpu: f64,
    /// Peak of resident memory in MiB: the largest process, where there are several.
    pub(crate) peak: f64,
}

/// Arguments of the hidden command.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds after which the program is killed.
    #[arg(long)]
    limit: u64,
    /// File for what the program says.
    #[arg(long)]
    said: PathBuf,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// A run that came to an end, well or not.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It ended well; this is what it took and what it said.
    Done(Taken, String),
    /// It failed, or was killed at the limit; why.
    Failed(String),
}

/// Measures one run. `said` is a file for what the program says.
pub(crate) fn measure(command: &[String], limit: Duration, said: &Path) -> Result<Outcome> {
    let own = std::env::current_exe().context("this program's own file")?;
    let output = Command::new(own)
        .args(["bench", "measure", "--limit", &limit.as_secs().to_string(), "--said"])
        .arg(said)
        .arg("--")
        .args(command)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the measurement")?;
    let line = command.join(" ");
    if !output.status.success() {
        bail!("the measurement of {line} failed ({})", output.status);
    }
    let told: Value = serde_json::from_slice(&output.stdout).context("the measurement told nothing")?;
    let heard = std::fs::read(said).unwrap_or_default();
    let heard = String::from_utf8_lossy(&heard).into_owned();
    if let Some(failure) = told["failure"].as_str() {
        let lines: Vec<&str> = heard.lines().collect();
        let end = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("\n    ");
        return Ok(Outcome::Failed(format!("{failure}: {line}\n    {end}")));
    }
    let number = |name: &str| told[name].as_f64().with_context(|| format!("the measurement told no {name}"));
    Ok(Outcome::Done(Taken { wall: number("wall")?, cpu: number("cpu")?, peak: number("peak")? }, heard))
}

/// The hidden command: runs the program and prints its account as JSON.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    let said = File::create(&arguments.said)
        .with_context(|| format!("cannot write {}", arguments.said.display()))?;
    let (program, rest) = arguments.command.split_first().context("no program")?;
    let start = Instant::now();
    let mut child = Command::new(program)
        .args(rest)
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let group = Pid::from_raw(-i32::try_from(child.id())?);
    let (over, ended) = mpsc::channel::<()>();
    let limit = Duration::from_secs(arguments.limit);
    let guard = std::thread::spawn(move || {
        let late = ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
        if late {
            let _ = kill(group, Signal::SIGKILL);
        }
        late
    });
    let status = child.wait()?;
    let wall = start.elapsed().as_secs_f64();
    drop(over);
    let late = guard.join().unwrap_or(false);
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let failure = match (late, status.success()) {
        (true, _) => Some(format!("killed after {} s", arguments.limit)),
        (false, false) => Some(status.to_string()),
        (false, true) => None,
    };
    let cpu = seconds(usage.user_time()) + seconds(usage.system_time());
    println!(
        "{}",
        json!({ "wall": wall, "cpu": cpu, "peak": usage.max_rss() as f64 / 1024.0, "failure": failure })
    );
    Ok(ExitCode::SUCCESS)
}

/// The middle one; of two in the middle the smaller.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.0));
    }
}
