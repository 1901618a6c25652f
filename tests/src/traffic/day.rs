//! The day that the actors fill: its hours, what passed the wire, and the truth about it.

use std::net::IpAddr;

use anyhow::Result;
use onenet_core::record::{RuleId, Subject};

use super::{
    random::Random,
    talk::SECOND,
    truth::{Innocent, Planted, Truth, incident},
    wire::Wire,
    world::{Secretariat, Site},
};

/// 2026-10-06T08:00:00Z, a Tuesday, in nanoseconds: the first packet is not before it.
pub(super) const OPENING: i64 = 1_791_273_600 * SECOND;
/// 18:00 of the same day: nothing starts after it.
pub(super) const CLOSING: i64 = OPENING + 10 * HOUR;
/// One minute in nanoseconds.
pub(super) const MINUTE: i64 = 60 * SECOND;
/// One hour in nanoseconds.
pub(super) const HOUR: i64 = 60 * MINUTE;

/// The day in the making.
#[derive(Debug)]
pub(super) struct Day {
    /// The links.
    pub(super) wire: Wire,
    /// What was planted so far.
    pub(super) truth: Truth,
    seed: u64,
    scale: f64,
}

impl Day {
    /// A day on which nothing has happened.
    pub(super) fn new(seed: u64, scale: f64) -> Self {
        Self { wire: Wire::default(), truth: Truth { seed, scale, ..Truth::default() }, seed, scale }
    }

    /// The choices of an actor.
    pub(super) fn random(&self, actor: &str) -> Random {
        Random::for_actor(self.seed, actor)
    }

    /// A number of ordinary events, by the scale; at least one.
    pub(super) fn scaled(&self, count: u32) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the scale is positive and bounded"
        )]
        let scaled = (f64::from(count) * self.scale).round() as u32;
        scaled.max(1)
    }

    /// Enters a finding that must be raised.
    pub(super) fn planted(
        &mut self,
        rule: RuleId,
        subject: &Subject,
        sites: &[Site],
        secretariats: &[Secretariat],
        planted: &str,
    ) -> Result<()> {
        let key = incident(rule, subject);
        anyhow::ensure!(self.truth.findings.iter().all(|known| known.key != key), "{key} is planted twice");
        let mut secretariats: Vec<String> = secretariats.iter().map(|s| s.id().to_owned()).collect();
        secretariats.sort();
        self.truth.findings.push(Planted {
            rule,
            key,
            sites: sites.iter().map(|site| site.name().to_owned()).collect(),
            collector_only: false,
            secretariats,
            planted: planted.to_owned(),
        });
        Ok(())
    }

    /// Enters traffic that must not raise these rules.
    pub(super) fn innocent(
        &mut self,
        rules: &[RuleId],
        addresses: impl IntoIterator<Item = IpAddr>,
        what: &str,
    ) {
        self.truth.must_not.push(Innocent {
            rules: rules.to_vec(),
            addresses: addresses.into_iter().collect(),
            what: what.to_owned(),
        });
    }
}

/// A random moment of the day that leaves room for what starts then; busier at ten and at two.
pub(super) fn moment(random: &mut Random) -> i64 {
    let (from, to) = match random.below(10) {
        0..=2 => (HOUR, 4 * HOUR),
        3..=5 => (5 * HOUR, 8 * HOUR),
        _ => (0, 10 * HOUR - 10 * MINUTE),
    };
    OPENING + random.between(from, to)
}
