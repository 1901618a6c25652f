//! What the grammar of the configuration cannot state: ranges, and what must hold between settings.

use std::path::Path;

use onenet_core::{
    detect::{DetectConfig, InvalidSetting},
    flow::FlowConfig,
    plan::InterfacePlan,
};
use onenet_proto::config::{ConfigError, Document};
use rustls::pki_types::ServerName;

use super::sections::{CollectorSection, SensorSection, SpoolSection};

/// Seconds in a day.
const DAY: u32 = 86_400;

/// Timeouts and limits of the flow table.
pub(super) fn flow(document: &Document, flow: &FlowConfig) -> Result<(), ConfigError> {
    for (key, value, low, high) in [
        ("tcp_idle_seconds", flow.tcp_idle_seconds, 1, DAY),
        ("udp_idle_seconds", flow.udp_idle_seconds, 1, DAY),
        ("icmp_idle_seconds", flow.icmp_idle_seconds, 1, DAY),
        ("other_idle_seconds", flow.other_idle_seconds, 1, DAY),
        ("attempt_seconds", flow.attempt_seconds, 1, 3600),
        ("closing_seconds", flow.closing_seconds, 1, 3600),
        ("active_seconds", flow.active_seconds, 1, 7 * DAY),
        ("max_flows", flow.max_flows, 1, 100_000_000),
        ("max_attempts", flow.max_attempts, 1, 100_000_000),
        ("max_fragmented_datagrams", flow.max_fragmented_datagrams, 1, 10_000_000),
        ("max_tunnel_depth", flow.max_tunnel_depth.into(), 0, 8),
    ] {
        if !(low..=high).contains(&value) {
            let message = format!("{value}, expected a whole number from {low} to {high}");
            return Err(document.error(&["flow", key], message));
        }
    }
    Ok(())
}

/// Settings of observation and of the rules.
pub(super) fn detect(document: &Document, detect: &DetectConfig) -> Result<(), ConfigError> {
    detect.check().map_err(|InvalidSetting { name, given, expected }| {
        let key: Vec<&str> = std::iter::once("detect").chain(name.split('.')).collect();
        document.error(&key, format!("{given}, expected {expected}"))
    })
}

/// The disk queue: what is written, kept back and set aside must fit into it.
pub(super) fn spool(document: &Document, spool: &SpoolSection) -> Result<(), ConfigError> {
    if spool.max_mib < spool.segment_mib.saturating_mul(4) {
        let message = format!("{}, expected at least four segments of segment_mib", spool.max_mib);
        return Err(document.error(&["spool", "max_mib"], message));
    }
    Ok(())
}

/// An empty path would be the directory of the configuration.
pub(super) fn sensor(document: &Document, sensor: &SensorSection) -> Result<(), ConfigError> {
    if sensor.state_dir == Path::new("") {
        return Err(document.error(&["sensor", "state_dir"], "is empty, expected a directory"));
    }
    Ok(())
}

/// What cannot stand in a certificate would be told only at the first connection.
pub(super) fn collector(document: &Document, collector: &CollectorSection) -> Result<(), ConfigError> {
    let Some(name) = &collector.server_name else { return Ok(()) };
    if ServerName::try_from(name.as_str()).is_err() {
        let message = format!("{name:?}, expected a host name or an address, such as collector.example");
        return Err(document.error(&["collector", "server_name"], message));
    }
    Ok(())
}

/// Interfaces that are stated.
pub(super) fn interfaces(document: &Document, interfaces: &[InterfacePlan]) -> Result<(), ConfigError> {
    for (index, interface) in interfaces.iter().enumerate() {
        let refuse = |key, message: &str| document.error(&["interface", &index.to_string(), key], message);
        if interface.name.is_empty() {
            return Err(refuse("name", "is empty, expected a name"));
        }
        if interfaces.iter().take(index).any(|other| other.name == interface.name) {
            return Err(refuse("name", "is stated twice"));
        }
        if let Some(mac) = interface.router_macs.iter().find(|mac| mac.is_group() || mac.is_zero()) {
            let message = format!("{mac}, which no station has, expected the MAC address of a router");
            return Err(refuse("router_macs", &message));
        }
    }
    Ok(())
}
