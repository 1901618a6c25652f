//! Settings of observation.

use serde::{Deserialize, Serialize};

/// How addresses in use are observed. Times are whole seconds of packet time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObserveConfig {
    /// Whether addresses are observed at all.
    pub enabled: bool,
    /// Observations that are remembered, so that they are told with counts and not anew; beyond, sources of packets
    /// that nobody answers are summed by prefix, and for anything else the one that moved on longest ago is told and
    /// forgotten.
    pub limit: u32,
    /// How long counts are gathered before an observation that moved on is told again.
    pub report_seconds: u32,
    /// How long evidence by traffic waits for its station to show which side of the link it is on, where the
    /// edge router's MAC addresses are not stated.
    pub hold_seconds: u32,
}

impl Default for ObserveConfig {
    fn default() -> Self {
        Self { enabled: true, limit: 262_144, report_seconds: 300, hold_seconds: 30 }
    }
}
