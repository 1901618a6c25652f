//! The moment that everything in a package bears, whenever it is built.

use std::{
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};

/// Seconds since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    /// `SOURCE_DATE_EPOCH`, or else the time of the last commit.
    pub(crate) fn of_source() -> Result<Self> {
        if let Ok(stated) = std::env::var("SOURCE_DATE_EPOCH") {
            let seconds = stated.parse();
            return seconds.map(Self).with_context(|| {
                format!("SOURCE_DATE_EPOCH={stated}: expected seconds since 1970 as a whole number")
            });
        }
        let mut git = Command::new("git");
        let output = git.current_dir(crate::workspace()).args(["log", "-1", "--format=%ct"]).output();
        let seconds = output.ok().filter(|output| output.status.success());
        let seconds = seconds.and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse().ok());
        seconds.map(Self).context("this is no git repository: state SOURCE_DATE_EPOCH")
    }

    /// As `date` formats it, in English and UTC.
    pub(crate) fn format(self, format: &str) -> Result<String> {
        let output = Command::new("date")
            .env("LC_ALL", "C")
            .args(["-u", "-d", &format!("@{}", self.0), &format!("+{format}")])
            .output()
            .context("cannot run date")?;
        if !output.status.success() {
            bail!("date failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// For the times of files.
    pub(crate) fn system_time(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0)
    }
}
