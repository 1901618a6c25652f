//! The plain sections of the configuration: what each setting does, its unit, its default and its bounds.

use std::{fmt, path::PathBuf};

use onenet_core::net::Name;
use serde::{Deserialize, Deserializer, de};

/// `[sensor]`: who this agent is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SensorSection {
    /// Name of the sensor, unique among the sensors of a collector.
    #[serde(deserialize_with = "name")]
    pub name: Name,
    /// Site, such as `boston`; segments of the plan name it.
    #[serde(deserialize_with = "name")]
    pub site: Name,
    /// Where keys, certificate and spool are kept. Default `/var/lib/onenet/agent`.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
}

fn default_state_dir() -> PathBuf {
    PathBuf::from("/var/lib/onenet/agent")
}

impl Default for SensorSection {
    /// What `read` takes without a configuration.
    fn default() -> Self {
        Self { name: Name::from("local"), site: Name::from("local"), state_dir: default_state_dir() }
    }
}

/// `[collector]`: where the records go.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectorSection {
    /// `https://host:port`.
    pub endpoint: Endpoint,
    /// Name in the collector's certificate, where it is not the host of the endpoint.
    pub server_name: Option<String>,
}

impl CollectorSection {
    /// The name that the collector's certificate must carry.
    pub fn server_name(&self) -> &str {
        self.server_name.as_deref().unwrap_or(&self.endpoint.host)
    }
}

/// Address of a collector: `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address; an IPv6 address without its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

/// What was expected where a text is not an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected https://host:port, such as https://collector.example:7443")]
pub struct InvalidEndpoint;

impl std::str::FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let rest = text.strip_prefix("https://").ok_or(InvalidEndpoint)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or(InvalidEndpoint)?;
        let port = port.parse().ok().filter(|&port| port != 0).ok_or(InvalidEndpoint)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let sound = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            }
        };
        if !sound {
            return Err(InvalidEndpoint);
        }
        Ok(Self { host: bracketed.unwrap_or(host).to_owned(), port })
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format_args!("{text:?}: {error}")))
    }
}

/// `[spool]`: the disk queue.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolSection {
    /// MiB on disk at most, reserve and quarantine included, 32 to 16777216; when it runs full, detail is shed and the
    /// loss told. Default 4096.
    #[serde(deserialize_with = "within::<_, 32, 16_777_216>")]
    pub max_mib: u32,
    /// MiB per segment file, 1 to 64; four segments must fit into `max_mib`. Default 8.
    #[serde(deserialize_with = "within::<_, 1, 64>")]
    pub segment_mib: u32,
    /// Milliseconds between two fsyncs at most, 1 to 1000. Default 100.
    #[serde(deserialize_with = "within::<_, 1, 1000>")]
    pub fsync_ms: u32,
}

impl Default for SpoolSection {
    fn default() -> Self {
        Self { max_mib: 4096, segment_mib: 8, fsync_ms: 100 }
    }
}

/// `[batch]`: when a batch is sealed. Whichever limit is met first.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchSection {
    /// Records in one batch at most, 1 to 65536. Default 2000.
    #[serde(deserialize_with = "within::<_, 1, 65_536>")]
    pub max_records: u32,
    /// KiB of one batch at most, 16 to 960: a message must stay below 1 MiB. Default 512.
    #[serde(deserialize_with = "within::<_, 16, 960>")]
    pub max_kib: u32,
    /// Milliseconds a record waits for its batch at most, 1 to 60000. Default 1000.
    #[serde(deserialize_with = "within::<_, 1, 60_000>")]
    pub max_delay_ms: u32,
}

impl Default for BatchSection {
    fn default() -> Self {
        Self { max_records: 2000, max_kib: 512, max_delay_ms: 1000 }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// What may need somebody.
    Warn,
    /// Starts, stops, connections.
    #[default]
    Info,
    /// Each batch.
    Debug,
    /// Each packet.
    Trace,
}

impl LogLevel {
    /// The name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// `[log]`: to standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// Default `info`.
    pub level: LogLevel,
    /// Default `text`.
    pub format: LogFormat,
}

/// Seconds between heartbeats where nothing is stated.
pub(super) const DEFAULT_HEARTBEAT_SECONDS: u32 = 10;

/// Seconds that a stop waits for acks where nothing is stated.
pub(super) const DEFAULT_DRAIN_SECONDS: u32 = 10;

/// A whole number from `MIN` to `MAX`.
pub(super) fn within<'de, D: Deserializer<'de>, const MIN: u32, const MAX: u32>(
    deserializer: D,
) -> Result<u32, D::Error> {
    let number = i64::deserialize(deserializer)?;
    u32::try_from(number).ok().filter(|n| (MIN..=MAX).contains(n)).ok_or_else(|| {
        de::Error::custom(format_args!("{number}, expected a whole number from {MIN} to {MAX}"))
    })
}

/// A name that can stand in records, tables and file names.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
    let text = String::deserialize(deserializer)?;
    let sound = !text.is_empty()
        && text.len() <= 64
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if sound {
        Ok(Name::from(text))
    } else {
        Err(de::Error::custom(format_args!(
            "{text:?}, expected 1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.', not beginning with '.'"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_reads_and_writes() {
        for text in ["https://collector.example:7443", "https://127.0.0.1:1", "https://[2001:db8::1]:65535"] {
            assert_eq!(text.parse::<Endpoint>().map(|e| e.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("https://h:1/".parse(), Ok(Endpoint { host: "h".into(), port: 1 }));
    }

    #[test]
    fn an_endpoint_without_scheme_host_or_port_is_refused() {
        for text in [
            "collector:7443",
            "http://c:1",
            "https://c",
            "https://:1",
            "https://c:0",
            "https://c:70000",
            "https://c/x:1",
            "https://2001:db8::1:1",
            "https://[x]:1",
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(InvalidEndpoint), "{text}");
        }
    }
}
