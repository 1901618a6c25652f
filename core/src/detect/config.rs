//! Settings of observation and of the rules: one table per rule, each of which can be switched off.

use serde::{Deserialize, Serialize};

use crate::ipam::{ObserveConfig, OverlapConfig};

/// Thresholds of the rules. Times are whole seconds of packet time; `quiet_seconds` is how long an incident is
/// without news before its finding is closed (0: never); `limit` bounds what a rule remembers. What each may be stands in
/// `ranges`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectConfig {
    /// Observations of addresses in use.
    pub observe: ObserveConfig,
    /// overlap.address.
    pub overlap: OverlapConfig,
    /// leak.private.
    pub leak: LeakConfig,
    /// spoof.inbound.
    pub spoof: SpoofConfig,
    /// scan.horizontal and scan.vertical.
    pub scan: ScanConfig,
    /// flood.syn.
    pub flood: FloodConfig,
    /// beacon.
    pub beacon: BeaconConfig,
    /// sensor.blind and sensor.loss.
    pub health: HealthConfig,
}

/// Settings of leak.private.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeakConfig {
    /// Whether the rule runs.
    pub enabled: bool,
    /// Sources in one /16 (IPv6: /48) that get a finding each; beyond, one finding stands for the prefix.
    pub sources_per_prefix: u32,
    /// Findings that are open before every further source is told as its prefix.
    pub max_sources: u32,
    /// As above.
    pub quiet_seconds: u32,
    /// Incidents at a time.
    pub limit: u32,
}

impl Default for LeakConfig {
    fn default() -> Self {
        Self { enabled: true, sources_per_prefix: 16, max_sources: 1000, quiet_seconds: 3600, limit: 10_000 }
    }
}

/// Settings of spoof.inbound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoofConfig {
    /// Whether the rule runs.
    pub enabled: bool,
    /// Sources in one block (the registry's entry, or /16 of ordinary space) that get a finding each; beyond, one
    /// finding stands for the block. Whoever makes up sources makes up many.
    pub sources_per_prefix: u32,
    /// Findings that are open before every further source is told as its block.
    pub max_sources: u32,
    /// As above.
    pub quiet_seconds: u32,
    /// Incidents at a time.
    pub limit: u32,
}

impl Default for SpoofConfig {
    fn default() -> Self {
        Self { enabled: true, sources_per_prefix: 8, max_sources: 64, quiet_seconds: 3600, limit: 10_000 }
    }
}

/// Settings of scan.horizontal and scan.vertical: the threshold random walk of Jung, Paxson, Berger and
/// Balakrishnan, "Fast Portscan Detection Using Sequential Hypothesis Testing" (2004), with the paper's values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScanConfig {
    /// Whether scan.horizontal runs.
    pub horizontal: bool,
    /// Whether scan.vertical runs.
    pub vertical: bool,
    /// Share of first contacts of a benign source that succeed.
    pub benign_success: f64,
    /// Share of first contacts of a scanner that succeed.
    pub scanner_success: f64,
    /// Accepted share of benign sources that are called scanners.
    pub false_positive: f64,
    /// Wanted share of scanners that are found.
    pub detection: f64,
    /// Hosts that must have refused or ignored the source on the port before scan.horizontal is raised. The walk
    /// alone is done after four, which a client with a short list of dead servers reaches too.
    pub min_failed_hosts: u32,
    /// Ports of the host that must have refused or ignored the source before scan.vertical is raised.
    pub min_failed_ports: u32,
    /// How long a source is remembered after its last contact, and then its incident closed.
    pub quiet_seconds: u32,
    /// Walks and incidents at a time, for each of the two rules.
    pub limit: u32,
}

impl Default for ScanConfig {
    fn default() -> Self {
        Self {
            horizontal: true,
            vertical: true,
            benign_success: 0.8,
            scanner_success: 0.2,
            false_positive: 0.01,
            detection: 0.99,
            min_failed_hosts: 10,
            min_failed_ports: 15,
            quiet_seconds: 1800,
            limit: 65_536,
        }
    }
}

/// Settings of flood.syn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FloodConfig {
    /// Whether the rule runs.
    pub enabled: bool,
    /// Connection attempts to one address and port within the window that make a flood possible.
    pub min_attempts: u32,
    /// The sliding window.
    pub window_seconds: u32,
    /// How long an attempt may take to be answered before it counts as half-open.
    pub grace_seconds: u32,
    /// Share of attempts that were completed, refused or went on one-way, from which on it is no flood.
    pub max_resolved_share: f64,
    /// As above.
    pub quiet_seconds: u32,
    /// Targets that are watched at a time.
    pub limit: u32,
}

impl Default for FloodConfig {
    /// 100 half-open attempts a second over ten seconds: FastNetMon's 20,000 packets a second are for links, not
    /// for one service, and servers' backlogs (128 to 4096) are full within seconds of this rate. Six seconds of
    /// grace is the flow table's attempt timer and a second.
    fn default() -> Self {
        Self {
            enabled: true,
            min_attempts: 1000,
            window_seconds: 10,
            grace_seconds: 6,
            max_resolved_share: 0.1,
            quiet_seconds: 60,
            limit: 65_536,
        }
    }
}

/// Settings of beacon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BeaconConfig {
    /// Whether the rule runs.
    pub enabled: bool,
    /// Score from which on it is raised, 0 to 1.
    pub min_score: f64,
    /// Score of the regularity of times that it must have besides, 0 to 1.
    pub min_timing_score: f64,
    /// Connections of the pair before it is scored.
    pub min_connections: u32,
    /// Connections of the pair in the last day from which on it is constant traffic and no beacon.
    pub max_connections: u32,
    /// Time the connections of the pair must span.
    pub min_span_seconds: u32,
    /// How far back the histogram of connections reaches at most.
    pub window_seconds: u32,
    /// How often a pair is scored again.
    pub score_seconds: u32,
    /// Share of our hosts that call the destination from which on the score is lowered by 0.15.
    pub common_share: f64,
    /// Hosts of ours that must have been seen before that share means anything.
    pub min_hosts: u32,
    /// Destination ports of UDP that are not scored.
    pub ignored_udp_ports: Vec<u16>,
    /// Connections of a pair that are remembered; the latest.
    pub samples: u32,
    /// As above.
    pub quiet_seconds: u32,
    /// Pairs that are remembered.
    pub limit: u32,
}

impl Default for BeaconConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            min_score: 0.8,
            min_timing_score: 0.8,
            min_connections: 20,
            max_connections: 86_400,
            min_span_seconds: 1800,
            window_seconds: 86_400,
            score_seconds: 600,
            common_share: 0.5,
            min_hosts: 20,
            ignored_udp_ports: vec![53, 123],
            samples: 512,
            quiet_seconds: 21_600,
            limit: 32_768,
        }
    }
}

/// Settings of sensor.blind and sensor.loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// Whether the rules run.
    pub enabled: bool,
    /// How long a hook may see nothing while its interface counts packets.
    pub blind_seconds: u32,
    /// Packets that the interface must have counted meanwhile.
    pub blind_packets: u32,
    /// Share of packets that may be lost within a window, of a million.
    pub loss_per_million: u32,
    /// Packets that must be lost within a window.
    pub loss_packets: u32,
    /// The window.
    pub loss_window_seconds: u32,
    /// As above.
    pub quiet_seconds: u32,
}

impl Default for HealthConfig {
    /// Lost: one in a thousand over ten seconds.
    fn default() -> Self {
        Self {
            enabled: true,
            blind_seconds: 5,
            blind_packets: 20,
            loss_per_million: 1000,
            loss_packets: 10,
            loss_window_seconds: 10,
            quiet_seconds: 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_can_be_switched_off_and_a_wrong_key_is_named() {
        let config: DetectConfig = toml::from_str("beacon.enabled = false\nscan.vertical = false").unwrap();
        assert!(!config.beacon.enabled && !config.scan.vertical && config.scan.horizontal);
        assert!(toml::from_str::<DetectConfig>("flood.pps = 1").unwrap_err().to_string().contains("pps"));
    }
}
