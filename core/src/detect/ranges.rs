//! The permitted range of each number of the rules' settings, and what must hold between them. The example
//! configuration states the same, and a test of the agent holds the two together.

use super::config::{BeaconConfig, DetectConfig, ScanConfig};

/// Seconds in a day.
const DAY: u32 = 86_400;
/// Seconds in a year, the longest that an incident may be without news.
const YEAR: u32 = 365 * DAY;
/// Entries that a table may be told to hold: more are no bound on memory.
const MAX_ENTRIES: u32 = 1_000_000;
/// The same of tables whose entries take a hundred bytes and stand for one address each.
const MAX_ADDRESSES: u32 = 100_000_000;
/// Packets, attempts or connections that a threshold may ask for.
const MAX_COUNT: u32 = 100_000_000;
/// Failures that a walk may be asked for: it begins anew after so many contacts, so more would never be met.
const MAX_FAILURES: u32 = super::walk::MAX_CONTACTS;

/// A setting out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {given}, expected {expected}")]
pub struct InvalidSetting {
    /// Its name within the rules' settings, such as `flood.window_seconds`.
    pub name: &'static str,
    /// What it is set to.
    pub given: String,
    /// What it may be set to.
    pub expected: String,
}

type Checked = Result<(), InvalidSetting>;

impl InvalidSetting {
    fn new(name: &'static str, given: impl ToString, expected: impl Into<String>) -> Self {
        Self { name, given: given.to_string(), expected: expected.into() }
    }
}

fn number(name: &'static str, value: u32, (low, high): (u32, u32)) -> Checked {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(InvalidSetting::new(name, value, format!("a whole number from {low} to {high}")))
}

/// Not a number is in no range.
fn share(name: &'static str, value: f64, (low, high): (f64, f64)) -> Checked {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(InvalidSetting::new(name, value, format!("a number from {low} to {high}")))
}

impl DetectConfig {
    /// The first setting that is out of its range.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let (entries, addresses, counts) = ((1, MAX_ENTRIES), (1, MAX_ADDRESSES), (1, MAX_COUNT));
        let (day, quiet) = ((1, DAY), (0, YEAR));
        let Self { observe, overlap, leak, spoof, scan, flood, beacon, health } = self;
        for (name, value, range) in [
            ("observe.limit", observe.limit, addresses),
            ("observe.report_seconds", observe.report_seconds, day),
            ("observe.hold_seconds", observe.hold_seconds, (0, 3600)),
            ("overlap.window_seconds", overlap.window_seconds, (1, YEAR)),
            ("overlap.limit", overlap.limit, addresses),
            ("leak.sources_per_prefix", leak.sources_per_prefix, (1, 65_536)),
            ("leak.max_sources", leak.max_sources, (0, MAX_ENTRIES)),
            ("leak.quiet_seconds", leak.quiet_seconds, quiet),
            ("leak.limit", leak.limit, entries),
            ("spoof.sources_per_prefix", spoof.sources_per_prefix, (1, 65_536)),
            ("spoof.max_sources", spoof.max_sources, (0, MAX_ENTRIES)),
            ("spoof.quiet_seconds", spoof.quiet_seconds, quiet),
            ("spoof.limit", spoof.limit, entries),
            ("scan.min_failed_hosts", scan.min_failed_hosts, (1, MAX_FAILURES)),
            ("scan.min_failed_ports", scan.min_failed_ports, (1, MAX_FAILURES)),
            // A source that is forgotten at once never walks far enough.
            ("scan.quiet_seconds", scan.quiet_seconds, (1, YEAR)),
            ("scan.limit", scan.limit, entries),
            ("flood.min_attempts", flood.min_attempts, counts),
            ("flood.window_seconds", flood.window_seconds, (1, 30)),
            ("flood.grace_seconds", flood.grace_seconds, (1, 30)),
            ("flood.quiet_seconds", flood.quiet_seconds, quiet),
            ("flood.limit", flood.limit, entries),
            ("beacon.min_connections", beacon.min_connections, (4, 65_536)),
            ("beacon.max_connections", beacon.max_connections, (5, MAX_COUNT)),
            ("beacon.min_span_seconds", beacon.min_span_seconds, (0, 31 * DAY)),
            ("beacon.window_seconds", beacon.window_seconds, (60, 31 * DAY)),
            ("beacon.score_seconds", beacon.score_seconds, day),
            ("beacon.min_hosts", beacon.min_hosts, (1, MAX_ENTRIES)),
            ("beacon.samples", beacon.samples, (4, 65_536)),
            ("beacon.quiet_seconds", beacon.quiet_seconds, quiet),
            ("beacon.limit", beacon.limit, entries),
            ("health.blind_seconds", health.blind_seconds, day),
            ("health.blind_packets", health.blind_packets, counts),
            // All of a million are never exceeded.
            ("health.loss_per_million", health.loss_per_million, (0, 999_999)),
            ("health.loss_packets", health.loss_packets, counts),
            ("health.loss_window_seconds", health.loss_window_seconds, day),
            ("health.quiet_seconds", health.quiet_seconds, quiet),
        ] {
            number(name, value, range)?;
        }
        share("flood.max_resolved_share", flood.max_resolved_share, (0.001, 0.999))?;
        scan.check_shares()?;
        beacon.check_scores()
    }
}

impl ScanConfig {
    fn check_shares(&self) -> Checked {
        for (name, value) in [
            ("scan.benign_success", self.benign_success),
            ("scan.scanner_success", self.scanner_success),
            ("scan.false_positive", self.false_positive),
            ("scan.detection", self.detection),
        ] {
            share(name, value, (0.000_001, 0.999_999))?;
        }
        if self.scanner_success >= self.benign_success {
            let expected = format!("less than scan.benign_success, {}", self.benign_success);
            return Err(InvalidSetting::new("scan.scanner_success", self.scanner_success, expected));
        }
        if self.false_positive >= self.detection {
            let expected = format!("less than scan.detection, {}", self.detection);
            return Err(InvalidSetting::new("scan.false_positive", self.false_positive, expected));
        }
        Ok(())
    }
}

impl BeaconConfig {
    fn check_scores(&self) -> Checked {
        share("beacon.min_score", self.min_score, (0.0, 1.0))?;
        share("beacon.min_timing_score", self.min_timing_score, (0.0, 1.0))?;
        share("beacon.common_share", self.common_share, (0.001, 0.999))?;
        // Beyond each of these no pair would ever be scored.
        if self.min_connections > self.samples {
            let expected = format!("no more than beacon.samples, {}", self.samples);
            return Err(InvalidSetting::new("beacon.min_connections", self.min_connections, expected));
        }
        if self.max_connections <= self.min_connections {
            let expected = format!("more than beacon.min_connections, {}", self.min_connections);
            return Err(InvalidSetting::new("beacon.max_connections", self.max_connections, expected));
        }
        if self.min_span_seconds > self.window_seconds {
            let expected = format!("no more than beacon.window_seconds, {}", self.window_seconds);
            return Err(InvalidSetting::new("beacon.min_span_seconds", self.min_span_seconds, expected));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_ranges() {
        assert_eq!(DetectConfig::default().check(), Ok(()));
    }

    #[test]
    fn a_value_out_of_range_is_told_with_what_was_given_and_what_is_expected() {
        for (text, told) in [
            (
                "scan.benign_success = 1.5",
                "scan.benign_success: 1.5, expected a number from 0.000001 to 0.999999",
            ),
            ("scan.detection = nan", "scan.detection: NaN, expected a number from 0.000001 to 0.999999"),
            (
                "scan.scanner_success = 0.9",
                "scan.scanner_success: 0.9, expected less than scan.benign_success, 0.8",
            ),
            (
                "scan.false_positive = 0.99",
                "scan.false_positive: 0.99, expected less than scan.detection, 0.99",
            ),
            ("scan.min_failed_hosts = 65", "scan.min_failed_hosts: 65, expected a whole number from 1 to 64"),
            ("scan.quiet_seconds = 0", "scan.quiet_seconds: 0, expected a whole number from 1 to 31536000"),
            ("flood.window_seconds = 0", "flood.window_seconds: 0, expected a whole number from 1 to 30"),
            ("beacon.min_score = -0.1", "beacon.min_score: -0.1, expected a number from 0 to 1"),
            ("beacon.samples = 19", "beacon.min_connections: 20, expected no more than beacon.samples, 19"),
            (
                "beacon.max_connections = 20",
                "beacon.max_connections: 20, expected more than beacon.min_connections, 20",
            ),
            (
                "beacon.window_seconds = 1799",
                "beacon.min_span_seconds: 1800, expected no more than beacon.window_seconds, 1799",
            ),
        ] {
            let config: DetectConfig = toml::from_str(text).expect("TOML");
            assert_eq!(config.check().expect_err(text).to_string(), told);
        }
    }

    #[test]
    fn what_is_just_within_the_others_is_sound() {
        let text = "scan.scanner_success = 0.799999\nbeacon.samples = 20\nbeacon.max_connections = 21\n\
                    beacon.window_seconds = 1800";
        assert_eq!(toml::from_str::<DetectConfig>(text).expect("TOML").check(), Ok(()));
    }
}
