//! `agent.toml`: what this agent is, where packets come from, what is known of the network, and where the
//! records go. Unknown keys are refused; each error names file, line, column, key and what is expected.

mod args;
mod check;
mod live;
mod mirror;
mod plan;
mod sections;
mod source;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use onenet_core::{
    detect::DetectConfig,
    flow::FlowConfig,
    mirror::MirrorPlan,
    net::Name,
    plan::{AddressPlan, InterfacePlan, PlanError, Role},
    sensor::{Sensor, SensorConfig},
};
use onenet_proto::config::{ConfigError, Document};
use serde::Deserialize;

pub use args::ConfigArgs;
pub use live::{EbpfSource, Hook, PcapSource};
pub use plan::PlanSource;
pub use sections::{
    BatchSection, CollectorSection, Endpoint, InvalidEndpoint, LogFormat, LogLevel, LogSection,
    SensorSection, SpoolSection,
};
pub use source::{Pace, PcapFileSource, Source};

/// What a configuration is read for, which decides what it must state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Reading captures: every section may be left out.
    Read,
    /// Everything else: `[sensor]` must be there.
    Run,
}

/// The configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    /// Who this agent is.
    pub sensor: SensorSection,
    /// Where the records go; where it is left out, to the collector that the sensor enrolled at.
    pub collector: Option<CollectorSection>,
    /// Where packets come from.
    pub sources: Vec<Source>,
    /// What is known of interfaces.
    pub interfaces: Vec<InterfacePlan>,
    /// Tunnels that bring copies of packets.
    pub mirrors: Vec<MirrorPlan>,
    /// The address plan.
    pub plan: Arc<AddressPlan>,
    /// Its file, where it has its own.
    pub plan_path: Option<PathBuf>,
    /// Whether packets are judged by it or by the collector's. Default: by it where one is stated, else by the collector's.
    pub plan_source: PlanSource,
    /// Flow table.
    pub flow: FlowConfig,
    /// Rules.
    pub detect: DetectConfig,
    /// Disk queue.
    pub spool: SpoolSection,
    /// When a batch is sealed.
    pub batch: BatchSection,
    /// Seconds between heartbeats, 1 to 30. Default 10.
    pub heartbeat_seconds: u32,
    /// Seconds that a stop waits for the collector's acks at most, 0 to 600. Default 10.
    pub drain_seconds: u32,
    /// Log.
    pub log: LogSection,
}

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    sensor: Option<SensorSection>,
    collector: Option<CollectorSection>,
    #[serde(default, rename = "source")]
    sources: Vec<source::RawSource>,
    #[serde(default, rename = "interface")]
    interfaces: Vec<InterfacePlan>,
    #[serde(default, rename = "mirror")]
    mirrors: Vec<MirrorPlan>,
    #[serde(default)]
    plan: plan::PlanPlace,
    plan_source: Option<PlanSource>,
    #[serde(default)]
    flow: FlowConfig,
    #[serde(default)]
    detect: DetectConfig,
    #[serde(default)]
    spool: SpoolSection,
    #[serde(default)]
    batch: BatchSection,
    #[serde(default = "default_heartbeat", deserialize_with = "sections::within::<_, 1, 30>")]
    heartbeat_seconds: u32,
    #[serde(default = "default_drain", deserialize_with = "sections::within::<_, 0, 600>")]
    drain_seconds: u32,
    #[serde(default)]
    log: LogSection,
}

const fn default_heartbeat() -> u32 {
    sections::DEFAULT_HEARTBEAT_SECONDS
}

const fn default_drain() -> u32 {
    sections::DEFAULT_DRAIN_SECONDS
}

impl Default for Config {
    /// What `read` takes without a file.
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            sensor: SensorSection::default(),
            collector: None,
            sources: Vec::new(),
            interfaces: Vec::new(),
            mirrors: Vec::new(),
            plan: Arc::default(),
            plan_path: None,
            plan_source: PlanSource::Collector,
            flow: FlowConfig::default(),
            detect: DetectConfig::default(),
            spool: SpoolSection::default(),
            batch: BatchSection::default(),
            heartbeat_seconds: default_heartbeat(),
            drain_seconds: default_drain(),
            log: LogSection::default(),
        }
    }
}

impl Config {
    /// Reads and checks a configuration file and the plan it names.
    pub fn load(path: &Path, purpose: Purpose) -> Result<Self, ConfigError> {
        Self::from_document(&Document::open(path)?, purpose)
    }

    /// Checks a configuration that has been read.
    pub fn from_document(document: &Document, purpose: Purpose) -> Result<Self, ConfigError> {
        let file: File = document.parse()?;
        if purpose == Purpose::Run && file.sensor.is_none() {
            return Err(document.error(&["sensor"], "is missing, expected [sensor] with name and site"));
        }
        if let Some(sensor) = &file.sensor {
            check::sensor(document, sensor)?;
        }
        if let Some(collector) = &file.collector {
            check::collector(document, collector)?;
        }
        check::flow(document, &file.flow)?;
        check::detect(document, &file.detect)?;
        check::spool(document, &file.spool)?;
        check::interfaces(document, &file.interfaces)?;
        mirror::check(document, &file.mirrors)?;
        let sources = file.sources.into_iter().enumerate();
        let sources =
            sources.map(|(index, raw)| raw.resolve(index, document)).collect::<Result<Vec<_>, _>>()?;
        let plan_source = file.plan_source.unwrap_or_else(|| file.plan.source());
        let (plan, plan_path) = file.plan.resolve(document)?;
        let mut sensor = file.sensor.unwrap_or_default();
        sensor.state_dir = document.path().parent().unwrap_or(Path::new("")).join(&sensor.state_dir);
        Ok(Self {
            path: document.path().to_owned(),
            sensor,
            collector: file.collector,
            sources,
            interfaces: file.interfaces,
            mirrors: file.mirrors,
            plan: Arc::new(plan),
            plan_path,
            plan_source,
            flow: file.flow,
            detect: file.detect,
            spool: file.spool,
            batch: file.batch,
            heartbeat_seconds: file.heartbeat_seconds,
            drain_seconds: file.drain_seconds,
            log: file.log,
        })
    }

    /// What the engine needs to know. The seed is to be drawn at random.
    pub fn sensor_config(&self, hash_seed: [u64; 4]) -> SensorConfig {
        SensorConfig {
            site: Name::clone(&self.sensor.site),
            sensor: Name::clone(&self.sensor.name),
            plan: Arc::clone(&self.plan),
            flow: self.flow.clone(),
            detect: self.detect.clone(),
            hash_seed,
        }
    }

    /// An engine with these settings and mirrors.
    pub fn sensor(&self, hash_seed: [u64; 4]) -> Result<Sensor, PlanError> {
        let mut sensor = Sensor::new(self.sensor_config(hash_seed))?;
        for mirror in &self.mirrors {
            sensor.add_mirror(mirror.clone(), self.interface(&mirror.name));
        }
        Ok(sensor)
    }

    /// What is known of the interface with this name.
    pub fn interface(&self, name: &str) -> InterfacePlan {
        self.interfaces.iter().find(|interface| &*interface.name == name).cloned().unwrap_or_else(|| {
            InterfacePlan { name: Name::from(name), role: Role::Unknown, router_macs: Vec::new() }
        })
    }
}
