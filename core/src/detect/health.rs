//! sensor.blind and sensor.loss: a hook that sees nothing while its interface counts packets, and a sensor that loses
//! more than it may. They are judged by what sources report of themselves, and not by packets.

use std::collections::BTreeMap;

use super::config::HealthConfig;
use crate::{
    findings::{Desk, Draft, FindingSink, Findings, Incident},
    net::Name,
    record::{Confidence, Evidence, RuleId, Severity, Subject},
    time::{NANOS_PER_SECOND, Timestamp},
};

/// Hooks that are followed; of more nothing is known.
const MAX_HOOKS: usize = 1024;

/// What a source reports of one place where it takes packets from an interface. Counters are since its start; one that
/// is less than before began again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    /// When.
    pub time: Timestamp,
    /// The interface.
    pub interface: Name,
    /// The place, such as `libpcap`, `ebpf ingress`, `ebpf egress`.
    pub hook: Name,
    /// Packets that the hook has seen, lost ones among them.
    pub seen: u64,
    /// Packets that the interface itself has counted in the directions of the hook; none where that is not known.
    pub offered: Option<u64>,
    /// Packets that were seen and lost.
    pub lost: u64,
}

type Key = (Name, Name);

/// The rules and what they remember.
#[derive(Clone, Debug)]
pub(super) struct Health {
    config: HealthConfig,
    hooks: BTreeMap<Key, Followed>,
    pub(super) blind: Findings<Blind>,
    pub(super) loss: Findings<Loss>,
}

/// One hook.
#[derive(Clone, Debug)]
struct Followed {
    last: HealthReport,
    /// Report after which it has seen nothing.
    silent_since: (Timestamp, u64),
    /// Report at which the window of losses began.
    window: (Timestamp, u64, u64),
}

/// A hook that sees nothing.
#[derive(Clone, Debug)]
pub(super) struct Blind {
    since: Timestamp,
    until: Timestamp,
    missed: u64,
}

/// A hook that loses packets.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    since: Timestamp,
    until: Timestamp,
    seen: u64,
    lost: u64,
    /// Lost of a million, at worst within one window.
    worst: u64,
}

impl Health {
    pub(super) fn new(config: &HealthConfig, seed: [u64; 4]) -> Self {
        Self {
            config: config.clone(),
            hooks: BTreeMap::new(),
            blind: Findings::new(MAX_HOOKS, config.quiet_seconds, seed),
            loss: Findings::new(MAX_HOOKS, config.quiet_seconds, seed),
        }
    }

    /// Takes a report.
    pub(super) fn on_report(&mut self, report: &HealthReport, desk: &Desk, sink: &mut FindingSink<'_>) {
        if !self.config.enabled {
            return;
        }
        let key = (report.interface.clone(), report.hook.clone());
        let Some(followed) = self.hooks.get_mut(&key) else {
            if self.hooks.len() < MAX_HOOKS {
                self.hooks.insert(key, Followed::begin(report));
            }
            return;
        };
        let began_again = report.seen < followed.last.seen
            || report.lost < followed.last.lost
            || report.offered < followed.last.offered;
        if began_again || report.time < followed.last.time {
            *followed = Followed::begin(report);
            return;
        }
        if let Some(offered) = report.offered {
            if report.seen > followed.last.seen {
                followed.silent_since = (report.time, offered);
            }
            let (since, before) = followed.silent_since;
            let missed = offered.saturating_sub(before);
            let waited = report.time.since(since) >= seconds(self.config.blind_seconds);
            if waited && missed >= self.config.blind_packets.into() {
                let start = || Blind { since, until: since, missed: 0 };
                let grow = |blind: &mut Blind| {
                    blind.until = report.time;
                    blind.missed = missed;
                };
                self.blind.note(report.time, key.clone(), desk, start, grow, sink);
            }
        }
        let (since, seen_before, lost_before) = followed.window;
        if report.time.since(since) >= seconds(self.config.loss_window_seconds) {
            followed.window = (report.time, report.seen, report.lost);
            let (seen, lost) =
                (report.seen.saturating_sub(seen_before), report.lost.saturating_sub(lost_before));
            let share = per_million(lost, seen);
            if lost >= self.config.loss_packets.into() && share > self.config.loss_per_million.into() {
                let start = || Loss { since, until: since, seen: 0, lost: 0, worst: 0 };
                let grow = |loss: &mut Loss| {
                    loss.until = report.time;
                    loss.seen = loss.seen.saturating_add(seen);
                    loss.lost = loss.lost.saturating_add(lost);
                    loss.worst = loss.worst.max(share);
                };
                self.loss.note(report.time, key, desk, start, grow, sink);
            }
        }
        followed.last = report.clone();
    }

    /// Closes what is quiet.
    pub(super) fn advance(&mut self, now: Timestamp, desk: &Desk, sink: &mut FindingSink<'_>) {
        self.blind.advance(now, desk, sink);
        self.loss.advance(now, desk, sink);
    }

    /// Tells the last state of whatever has news.
    pub(super) fn finish(&mut self, now: Timestamp, desk: &Desk, sink: &mut FindingSink<'_>) {
        self.blind.finish(now, desk, sink);
        self.loss.finish(now, desk, sink);
    }
}

impl Followed {
    fn begin(report: &HealthReport) -> Self {
        Self {
            silent_since: (report.time, report.offered.unwrap_or(0)),
            window: (report.time, report.seen, report.lost),
            last: report.clone(),
        }
    }
}

fn seconds(number: u32) -> i64 {
    i64::from(number).saturating_mul(NANOS_PER_SECOND)
}

/// The part of the whole, of a million.
fn per_million(part: u64, whole: u64) -> u64 {
    let share = u128::from(part).saturating_mul(1_000_000) / u128::from(whole.max(part).max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

fn counts(named: &[(&str, u64)]) -> BTreeMap<String, u64> {
    named.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

impl Incident for Blind {
    type Key = Key;

    fn size(&self) -> u64 {
        self.missed
    }

    fn grade(&self) -> (Severity, Confidence) {
        (Severity::High, 95)
    }

    fn draft(&self, (interface, hook): &Key, desk: &Desk) -> Draft {
        let (severity, confidence) = self.grade();
        Draft {
            key: format!("sensor.blind|{}|{interface}|{hook}", desk.site()),
            rule: RuleId::SensorBlind,
            rule_version: 1,
            first_seen: self.since,
            last_seen: self.until,
            severity,
            confidence,
            summary: format!(
                "{hook} on {interface} has seen nothing for {} s while the interface counted {} packets",
                self.until.since(self.since) / NANOS_PER_SECOND,
                self.missed
            ),
            subject: Subject::default(),
            interface: Some(interface.clone()),
            address_spaces: Vec::new(),
            secretariats: Vec::new(),
            evidence: Evidence { counts: counts(&[("packets_missed", self.missed)]), ..Evidence::default() },
        }
    }
}

impl Incident for Loss {
    type Key = Key;

    fn size(&self) -> u64 {
        self.lost
    }

    /// More than one in a hundred is high.
    fn grade(&self) -> (Severity, Confidence) {
        (if self.worst > 10_000 { Severity::High } else { Severity::Medium }, 100)
    }

    fn draft(&self, (interface, hook): &Key, desk: &Desk) -> Draft {
        let (severity, confidence) = self.grade();
        let named =
            [("packets_lost", self.lost), ("packets_seen", self.seen), ("worst_per_million", self.worst)];
        Draft {
            key: format!("sensor.loss|{}|{interface}|{hook}", desk.site()),
            rule: RuleId::SensorLoss,
            rule_version: 1,
            first_seen: self.since,
            last_seen: self.until,
            severity,
            confidence,
            summary: format!(
                "{hook} on {interface} has lost {} of {} packets, {}.{:04} % at worst",
                self.lost,
                self.seen,
                self.worst / 10_000,
                self.worst % 10_000
            ),
            subject: Subject::default(),
            interface: Some(interface.clone()),
            address_spaces: Vec::new(),
            secretariats: Vec::new(),
            evidence: Evidence { counts: counts(&named), ..Evidence::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Change, FindingChange};

    /// Gives reports of (second, seen, offered, lost) and lists what was told.
    fn told(config: &HealthConfig, reports: &[(i64, u64, u64, u64)]) -> Vec<FindingChange> {
        let desk = Desk::new("boston".into(), Arc::default());
        let mut health = Health::new(config, [0; 4]);
        let mut changes = Vec::new();
        for &(second, seen, offered, lost) in reports {
            let report = HealthReport {
                time: Timestamp::from_parts(second, 0),
                interface: "eth1".into(),
                hook: "ebpf ingress".into(),
                seen,
                offered: Some(offered),
                lost,
            };
            let mut sink = |change: &FindingChange| changes.push(change.clone());
            health.advance(report.time, &desk, &mut sink);
            health.on_report(&report, &desk, &mut sink);
        }
        changes
    }

    #[test]
    fn a_hook_that_sees_nothing_while_the_interface_counts_is_blind_within_ten_seconds() {
        let reports: Vec<_> =
            (0..20_i64).map(|second| (second, 100, 100 + second.unsigned_abs() * 50, 0)).collect();
        let changes = told(&HealthConfig::default(), &reports);
        assert_eq!((changes[0].rule, changes[0].change), (RuleId::SensorBlind, Change::Raised));
        assert!(changes[0].time <= Timestamp::from_parts(10, 0), "{:?}", changes[0].time);
        assert_eq!(changes[0].key, "sensor.blind|boston|eth1|ebpf ingress");
        assert_eq!(changes[0].evidence.counts["packets_missed"], 250);
        assert!(changes[0].summary.contains("nothing for 5 s"), "{}", changes[0].summary);
    }

    #[test]
    fn a_quiet_link_is_not_blind_nor_a_hook_that_sees_now_and_then() {
        let quiet: Vec<_> = (0..60).map(|second| (second, 7, 7, 0)).collect();
        let slow: Vec<_> =
            (0..60_u64).map(|second| (second.cast_signed(), second / 4, second * 9, 0)).collect();
        for reports in [quiet, slow] {
            assert_eq!(told(&HealthConfig::default(), &reports), []);
        }
    }

    #[test]
    fn it_is_closed_once_the_hook_sees_again() {
        let step = |second: i64| {
            let since = u64::try_from(second).unwrap();
            (second, if since < 10 { 5 } else { since * 10 }, since * 10 + 5, 0)
        };
        let changes = told(&HealthConfig::default(), &(0..90).map(step).collect::<Vec<_>>());
        let last = changes.last().unwrap();
        assert_eq!((last.rule, last.change), (RuleId::SensorBlind, Change::Closed));
    }

    #[test]
    fn more_than_one_lost_in_a_thousand_is_told_with_its_share() {
        let reports = |lost: u64| -> Vec<_> {
            (0..31_u64).map(|s| (s.cast_signed(), s * 10_000, s * 10_000, s * lost)).collect()
        };
        assert_eq!(told(&HealthConfig::default(), &reports(9)), []);
        let changes = told(&HealthConfig::default(), &reports(20));
        assert_eq!((changes[0].rule, changes[0].severity), (RuleId::SensorLoss, Severity::Medium));
        assert!(
            changes[0].summary.contains("lost 200 of 100000 packets, 0.2000 %"),
            "{}",
            changes[0].summary
        );
        assert_eq!(told(&HealthConfig::default(), &reports(200))[0].severity, Severity::High);
    }

    #[test]
    fn counters_that_begin_again_and_time_that_goes_back_say_nothing() {
        let restarted = [(0, 1000, 1000, 0), (1, 5, 10, 0), (7, 6, 11, 0), (3, 6, 900, 0), (20, 7, 12, 0)];
        assert_eq!(told(&HealthConfig::default(), &restarted), []);
        let off = HealthConfig { enabled: false, ..HealthConfig::default() };
        assert_eq!(told(&off, &[(0, 0, 0, 0), (30, 0, 1000, 0)]), []);
    }
}
