//! One edge of the demo: an agent with its configuration, its enrolment and what it says of itself.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Stage, captures::SiteTraffic, path};
use crate::{collector, programs::Background, say};

/// An agent at a site.
pub(crate) struct Edge {
    /// Name of the sensor.
    pub(crate) sensor: String,
    site: String,
    config: PathBuf,
    agent: Option<Background>,
    /// Whether it was asked to stop, so that it may have ended.
    is_stopped: bool,
}

/// What an agent says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Status {
    pub(crate) packets: u64,
    pub(crate) parsed: u64,
    pub(crate) unparsed: u64,
    pub(crate) dropped: u64,
    pub(crate) flow_records: u64,
    pub(crate) batches_sealed: u64,
    /// Whether every source has ended and everything sealed is acked.
    pub(crate) delivered: bool,
}

impl Edge {
    /// Writes the configuration and has the collector certify the sensor by a one-use token.
    pub(crate) fn enrol(stage: &Stage, traffic: &SiteTraffic, plan: Option<&Path>) -> Result<Self> {
        let site = &traffic.site;
        let sensor = format!("{site}-1");
        say(&format!("sensor {sensor}: configuration, one-use token, enrolment"));
        let dir = stage.dir.join(&sensor);
        fs::create_dir_all(&dir)?;
        let config = dir.join("agent.toml");
        fs::write(&config, configuration(stage, traffic, &sensor, plan)?)?;
        collector::enrol(&stage.programs, &stage.collector_dir(), stage.ingest, &config, (&sensor, site))?;
        Ok(Self { sensor, site: site.clone(), config, agent: None, is_stopped: false })
    }

    /// Starts the agent.
    pub(crate) fn start(&mut self, stage: &Stage) -> Result<()> {
        let log = stage.dir.join(format!("{}.log", self.sensor));
        let program = stage.program("onenet-agent");
        let run = ["run", "--config", path(&self.config)?];
        self.agent = Some(if stage.live {
            let within = ["netns", "exec", &self.site, path(&program)?];
            Background::start(&self.sensor, Path::new("ip"), &[&within[..], &run[..]].concat(), log)?
        } else {
            Background::start(&self.sensor, &program, &run, log)?
        });
        Ok(())
    }

    /// Whether it has told that it runs.
    pub(crate) fn is_running(&mut self, stage: &Stage) -> Result<bool> {
        if let Some(agent) = &mut self.agent {
            agent.must_live()?;
        }
        Ok(self.told(stage)?.is_some_and(|status| status["running"] == true))
    }

    /// How its interfaces are read, or were.
    pub(crate) fn methods(&self, stage: &Stage) -> Result<String> {
        let status = self.told(stage)?.unwrap_or_default();
        let sources = status["sources"].as_array().cloned().unwrap_or_default();
        let methods: Vec<String> = sources
            .iter()
            .map(|source| format!("{} by {}", source["name"].as_str().unwrap_or(""), source["method"]))
            .collect();
        Ok(methods.join(", ").replace('"', ""))
    }

    /// What `status` prints; none until it has run.
    fn told(&self, stage: &Stage) -> Result<Option<Value>> {
        let told = Command::new(stage.program("onenet-agent"))
            .args(["status", "--config", path(&self.config)?, "--format", "json"])
            .stdin(Stdio::null())
            .output()
            .context("cannot start onenet-agent")?;
        // Of one that does not run the last state is told, with an exit code that says so.
        Ok(serde_json::from_slice(&told.stdout).ok())
    }

    /// Asks the agent how it stands.
    pub(crate) fn status(&mut self, stage: &Stage) -> Result<Status> {
        if let Some(agent) = &mut self.agent
            && !self.is_stopped
        {
            agent.must_live()?;
        }
        let Some(value) = self.told(stage)? else { return Ok(Status::default()) };
        let number = |key: &str| value.get(key).and_then(Value::as_u64).unwrap_or_default();
        let ended = value.get("sources_ended").and_then(Value::as_bool) == Some(true);
        let (sealed, acked) = (number("batches_sealed"), number("batches_acked"));
        Ok(Status {
            packets: number("packets"),
            parsed: number("parsed"),
            unparsed: number("unparsed"),
            dropped: number("dropped"),
            flow_records: number("flow_records"),
            batches_sealed: sealed,
            delivered: ended && sealed > 0 && sealed == acked,
        })
    }

    /// The program, where it has been started.
    pub(crate) const fn agent(&self) -> Option<&Background> {
        self.agent.as_ref()
    }

    /// Drains and stops the agent.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.is_stopped = true;
        if let Some(agent) = &mut self.agent {
            agent.stop()?;
        }
        Ok(())
    }
}

/// The text of `agent.toml`.
fn configuration(stage: &Stage, traffic: &SiteTraffic, sensor: &str, plan: Option<&Path>) -> Result<String> {
    let mut text = String::new();
    if let Some(plan) = plan {
        writeln!(text, "plan = {}\n", quoted(path(plan)?))?;
    }
    writeln!(text, "[sensor]\nname = {}\nsite = {}", quoted(sensor), quoted(&traffic.site))?;
    writeln!(text, "state_dir = {}\n", quoted(path(&stage.dir.join(sensor).join("state"))?))?;
    writeln!(text, "[collector]\nendpoint = \"https://{}\"\nserver_name = \"localhost\"\n", stage.ingest)?;
    for source in &traffic.sources {
        if stage.live {
            let interface = source.interface.as_deref().context("an interface without a name")?;
            writeln!(text, "[[source]]\nkind = \"auto\"\ninterface = {}\n", quoted(interface))?;
            continue;
        }
        writeln!(text, "[[source]]\nkind = \"pcap-file\"\npath = [")?;
        for file in &source.files {
            writeln!(text, "  {},", quoted(path(file)?))?;
        }
        writeln!(text, "]")?;
        if let Some(interface) = &source.interface {
            writeln!(text, "interface = {}", quoted(interface))?;
        }
        writeln!(text)?;
    }
    text.push_str(&traffic.interfaces);
    Ok(text)
}

/// A text as a TOML basic string: JSON's escapes are a subset of TOML's.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_quoted_so_that_toml_reads_it_back() {
        assert_eq!(quoted("a\"b\\c\n"), r#""a\"b\\c\n""#);
    }
}
