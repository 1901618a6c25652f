//! What the grammar of the configuration cannot state: ranges of numbers, and texts that could mean nothing.

use std::{net::IpAddr, path::Path};

use onenet_proto::config::{ConfigError, Document};

use super::Config;
use crate::siem::SyslogConfig;

/// Checks a configuration whose paths are as they were written.
pub(super) fn check(config: &Config, document: &Document) -> Result<(), ConfigError> {
    numbers(config, document)?;
    paths(config, document)?;
    if let Some(host) = config.web.hosts.iter().find(|host| !is_host(host)) {
        let message = format!("{host:?}, expected a host name or an address, without a port");
        return Err(document.error(&["web", "hosts"], message));
    }
    match &config.siem.syslog {
        Some(syslog) => check_syslog(syslog, document),
        None => Ok(()),
    }
}

fn in_range(document: &Document, key: &str, value: u64, low: u64, high: u64) -> Result<(), ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let key: Vec<&str> = key.split('.').collect();
    Err(document.error(&key, format!("{value}, expected {low} to {high}")))
}

fn numbers(config: &Config, document: &Document) -> Result<(), ConfigError> {
    let Config { server, enrollment, store, sensors, inventory, siem, .. } = config;
    for (key, value, low, high) in [
        ("server.max_connections", server.max_connections as u64, 1, 65_536),
        ("server.handshake_timeout_seconds", server.handshake_timeout_seconds, 1, 600),
        ("enrollment.certificate_days", enrollment.certificate_days.into(), 1, 3_650),
        ("store.segment_max_flows", store.segment_max_flows, 1, 1_000_000_000),
        ("store.segment_max_hours", store.segment_max_hours, 1, 8_760),
        ("store.keep_days", store.keep_days.into(), 0, 36_500),
        ("sensors.silent_after_seconds", sensors.silent_after_seconds.into(), 5, 86_400),
        ("sensors.clock_skew_seconds", sensors.clock_skew_seconds.into(), 1, 86_400),
        ("sensors.gap_after_seconds", sensors.gap_after_seconds.into(), 1, 86_400),
        ("sensors.quiet_seconds", sensors.quiet_seconds.into(), 1, 31_536_000),
        ("inventory.window_days", inventory.window_days.into(), 1, 366),
        ("inventory.dark_days", inventory.dark_days.into(), 1, 3_660),
        ("siem.file.max_bytes", siem.file.max_bytes, 65_536, 1 << 40),
        ("siem.file.keep", siem.file.keep.into(), 0, 10_000),
    ] {
        in_range(document, key, value, low, high)?;
    }
    Ok(())
}

/// An empty path would be the directory of the configuration.
fn paths(config: &Config, document: &Document) -> Result<(), ConfigError> {
    let Config { server, store, plan, siem, .. } = config;
    for (key, path) in [
        (&["server", "ca_certificate"][..], &server.ca_certificate),
        (&["server", "ca_key"], &server.ca_key),
        (&["server", "certificate"], &server.certificate),
        (&["server", "key"], &server.key),
        (&["store", "directory"], &store.directory),
        (&["plan", "file"], &plan.file),
        (&["siem", "file", "path"], &siem.file.path),
    ] {
        if path == Path::new("") {
            return Err(document.error(key, "is empty, expected a path"));
        }
    }
    Ok(())
}

fn check_syslog(syslog: &SyslogConfig, document: &Document) -> Result<(), ConfigError> {
    in_range(document, "siem.syslog.max_message_bytes", syslog.max_message_bytes as u64, 2_048, 1 << 20)?;
    let Some(name) = &syslog.hostname else { return Ok(()) };
    let sound = (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    if !sound {
        let message = format!("{name:?}, expected 1 to 255 visible characters of ASCII");
        return Err(document.error(&["siem", "syslog", "hostname"], message));
    }
    Ok(())
}

/// Whether a Host header can name it: a port there is not looked at.
fn is_host(text: &str) -> bool {
    let is_name = || text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    text.parse::<IpAddr>().is_ok() || (!text.is_empty() && is_name())
}
