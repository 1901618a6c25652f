//! The section `[siem]` of the configuration.

use std::{path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, de};

use super::rfc5424::Facility;

/// What is fed to the SIEM, and by which ways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiemConfig {
    /// Whether flow records are sent too, beside every finding change. Default: no.
    pub flows: bool,
    /// ECS documents to a file.
    pub file: FileConfig,
    /// RFC 5424 messages over TCP. Default: none.
    pub syslog: Option<SyslogConfig>,
}

/// Section `[siem.file]`: ECS documents, one a line, in a file that a shipper tails.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileConfig {
    /// Whether it is written. Default: yes.
    pub enabled: bool,
    /// The file. Default: `siem/events.ndjson`.
    pub path: PathBuf,
    /// Bytes after which it is set aside. Default: 100 MiB.
    pub max_bytes: u64,
    /// Files set aside that are kept. Default: 10.
    pub keep: u32,
}

impl Default for FileConfig {
    fn default() -> Self {
        Self { enabled: true, path: PathBuf::from("siem/events.ndjson"), max_bytes: 100 << 20, keep: 10 }
    }
}

/// Section `[siem.syslog]`: RFC 5424 over TCP with octet counting.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyslogConfig {
    /// Receiver, `host:port`.
    #[serde(deserialize_with = "host_and_port")]
    pub address: String,
    /// Facility. Default: `local0`.
    #[serde(default, deserialize_with = "from_text")]
    pub(crate) facility: Facility,
    /// What the message's text is. Default: the ECS document.
    #[serde(default)]
    pub message: MessageText,
    /// Octets of one message at most; evidence is left out of documents that would be longer. Default: 8000, by
    /// which rsyslog's default limit of 8 KiB cuts nothing.
    #[serde(default = "default_message_bytes")]
    pub max_message_bytes: usize,
    /// HOSTNAME of the messages. Default: the name of this machine.
    #[serde(default)]
    pub hostname: Option<String>,
}

const fn default_message_bytes() -> usize {
    8_000
}

/// What the text of a syslog message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageText {
    /// The ECS document, in ASCII.
    #[default]
    Json,
    /// The one line that people read.
    Summary,
}

fn from_text<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn host_and_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let port =
        text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(port)) if port > 0 => Ok(text),
        _ => Err(de::Error::custom(format!("{text:?}, expected a receiver such as siem.example:6514"))),
    }
}
