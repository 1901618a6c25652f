//! The configuration, `collector.toml`. Relative paths in it are taken from the directory it lies in.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use onenet_core::time::NANOS_PER_SECOND;
use onenet_proto::config::{ConfigError, Document};
use serde::{Deserialize, Serialize};

use crate::{custody::SensorsConfig, siem::SiemConfig, store::StoreConfig};

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where sensors connect.
    pub server: ServerConfig,
    /// Certificates for sensors.
    #[serde(default)]
    pub enrollment: EnrollmentConfig,
    /// Where data is kept.
    #[serde(default)]
    pub store: StoreConfig,
    /// When a sensor becomes a finding.
    #[serde(default)]
    pub sensors: SensorsConfig,
    /// How long a use of an address counts.
    #[serde(default)]
    pub inventory: InventoryConfig,
    /// The address plan.
    #[serde(default)]
    pub plan: PlanConfig,
    /// The web page and the API.
    #[serde(default)]
    pub web: WebConfig,
    /// The SIEM feeds.
    #[serde(default)]
    pub siem: SiemConfig,
}

/// Section `[server]`: where sensors connect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port.
    pub listen: SocketAddr,
    /// Certificate authority of the sensors, PEM.
    pub ca_certificate: PathBuf,
    /// Its key, PEM.
    pub ca_key: PathBuf,
    /// Certificate that sensors see, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Connections at one time.
    #[serde(default = "default_connections")]
    pub max_connections: usize,
    /// Seconds that a client may take for the TLS handshake.
    #[serde(default = "default_handshake")]
    pub handshake_timeout_seconds: u64,
}

const fn default_connections() -> usize {
    256
}

const fn default_handshake() -> u64 {
    10
}

/// Section `[inventory]`: how long a use counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InventoryConfig {
    /// Days of packet time for which a use counts beside another, and after which without it a finding is closed.
    pub window_days: u32,
    /// Days without a use after which a claim is dark.
    pub dark_days: u32,
}

impl Default for InventoryConfig {
    fn default() -> Self {
        Self { window_days: 30, dark_days: 30 }
    }
}

const fn days(count: u32) -> i64 {
    (count as i64).saturating_mul(86_400 * NANOS_PER_SECOND)
}

impl InventoryConfig {
    /// Nanoseconds for which a use counts.
    pub const fn window(&self) -> i64 {
        days(self.window_days)
    }

    /// Nanoseconds without a use after which a claim is dark.
    pub const fn dark(&self) -> i64 {
        days(self.dark_days)
    }
}

/// Section `[enrollment]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnrollmentConfig {
    /// Days that a sensor's certificate is valid.
    pub certificate_days: u32,
}

impl Default for EnrollmentConfig {
    fn default() -> Self {
        Self { certificate_days: 365 }
    }
}

/// Section `[plan]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlanConfig {
    /// The address plan, read again on SIGHUP.
    pub file: PathBuf,
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self { file: PathBuf::from("plan.toml") }
    }
}

/// Section `[web]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebConfig {
    /// Address and port of the page and the API. They have no login: keep it on loopback.
    pub listen: SocketAddr,
    /// Names, beside the loopback names and the address itself, by which browsers may ask for the page.
    pub hosts: Vec<String>,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7480)), hosts: Vec::new() }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let document = Document::open(file)?;
        let mut config: Self = document.parse()?;
        config.check(&document)?;
        config.resolve(file.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// Checks what the grammar cannot.
    fn check(&self, document: &Document) -> Result<(), ConfigError> {
        let in_range = |key: &str, value: u64, low: u64, high: u64| {
            let key: Vec<&str> = key.split('.').collect();
            let error = || document.error(&key, format!("{value}, expected {low} to {high}"));
            if (low..=high).contains(&value) { Ok(()) } else { Err(error()) }
        };
        in_range("server.max_connections", self.server.max_connections as u64, 1, 65_536)?;
        in_range("server.handshake_timeout_seconds", self.server.handshake_timeout_seconds, 1, 600)?;
        in_range("enrollment.certificate_days", self.enrollment.certificate_days.into(), 1, 3_650)?;
        in_range("store.segment_max_flows", self.store.segment_max_flows, 1, 1_000_000_000)?;
        in_range("store.segment_max_hours", self.store.segment_max_hours, 1, 8_760)?;
        in_range("store.keep_days", self.store.keep_days.into(), 0, 36_500)?;
        let sensors = &self.sensors;
        in_range("sensors.silent_after_seconds", sensors.silent_after_seconds.into(), 5, 86_400)?;
        in_range("sensors.clock_skew_seconds", sensors.clock_skew_seconds.into(), 1, 86_400)?;
        in_range("sensors.gap_after_seconds", sensors.gap_after_seconds.into(), 1, 86_400)?;
        in_range("sensors.quiet_seconds", sensors.quiet_seconds.into(), 1, 31_536_000)?;
        in_range("inventory.window_days", self.inventory.window_days.into(), 1, 366)?;
        in_range("inventory.dark_days", self.inventory.dark_days.into(), 1, 3_660)?;
        in_range("siem.file.max_bytes", self.siem.file.max_bytes, 65_536, 1 << 40)?;
        in_range("siem.file.keep", self.siem.file.keep.into(), 0, 10_000)?;
        if let Some(syslog) = &self.siem.syslog {
            in_range("siem.syslog.max_message_bytes", syslog.max_message_bytes as u64, 2_048, 1 << 20)?;
        }
        Ok(())
    }

    pub(crate) fn resolve(&mut self, directory: &Path) {
        for path in [
            &mut self.server.ca_certificate,
            &mut self.server.ca_key,
            &mut self.server.certificate,
            &mut self.server.key,
            &mut self.store.directory,
            &mut self.plan.file,
            &mut self.siem.file.path,
        ] {
            *path = directory.join(&*path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_range_is_told_with_file_line_column_and_key() {
        let server = "[server]\nlisten = '127.0.0.1:1'\nca_certificate = 'a'\nca_key = 'b'\n\
                      certificate = 'c'\nkey = 'd'\n";
        for (more, expected) in [
            ("max_connections = 0\n", "collector.toml:7:19: server.max_connections: 0, expected 1 to 65536"),
            ("[siem.file]\nkeep = 10001\n", "collector.toml:8:8: siem.file.keep: 10001, expected 0 to 10000"),
        ] {
            let document = Document::new(Path::new("collector.toml"), format!("{server}{more}"));
            let config: Config = document.parse().expect("the grammar allows it");
            assert_eq!(config.check(&document).expect_err(more).to_string(), expected);
        }
    }
}
