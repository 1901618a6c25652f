//! The programs a demo starts: each writes its log to a file, and each is stopped when the demo ends, however it
//! ends.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a program may take to drain after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program in the background.
pub(crate) struct Background {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Background {
    /// Starts it in a process group of its own, so that Ctrl-C reaches the demo alone, which then stops each
    /// program in order.
    pub(crate) fn start(name: &str, program: &Path, arguments: &[&str], log: PathBuf) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails with the end of its log if it has ended.
    pub(crate) fn must_live(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.log_tail()),
        }
    }

    /// Asks it to drain and waits; kills it if it takes too long.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, Signal::SIGTERM)?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.child.kill()?;
        let _ = self.child.wait();
        bail!("{} did not stop within {} s of SIGTERM and was killed", self.name, PATIENCE.as_secs())
    }

    /// Its process id.
    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The whole log.
    pub(crate) fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("xtask: {error:#}");
        }
    }
}

/// Runs a program to its end and gives its standard output; its standard error goes into the message where it
/// fails.
pub(crate) fn output(program: &Path, arguments: &[&str]) -> Result<String> {
    let Output { status, stdout, stderr } = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if !status.success() {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        bail!("{name} {} failed ({status}):\n{}", arguments.join(" "), String::from_utf8_lossy(&stderr));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// A path as an argument of a program.
pub(crate) fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_in_the_background_is_stopped_and_its_log_kept() {
        let log = std::env::temp_dir().join(format!("xtask-background-{}.log", std::process::id()));
        let script = "trap 'echo drained; exit 0' TERM; echo started; while :; do sleep 0.05; done";
        let mut background =
            Background::start("sh", Path::new("/bin/sh"), &["-c", script], log.clone()).expect("it starts");
        let deadline = Instant::now() + PATIENCE;
        while !background.log().contains("started") && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        background.must_live().expect("it runs");
        assert!(background.stop().expect("it stops").success());
        assert_eq!(background.log(), "started\ndrained\n");
        std::fs::remove_file(log).expect("the log is there");
    }

    #[test]
    fn a_failure_carries_what_the_program_said() {
        let error = output(Path::new("/bin/sh"), &["-c", "echo wrong >&2; exit 3"]).expect_err("it fails");
        assert!(error.to_string().contains("wrong"), "{error}");
    }
}
