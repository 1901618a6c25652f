//! What was lost: shed for want of room, or found missing. Each loss becomes a signed record.

use std::collections::BTreeMap;

use onenet_proto::v1::Loss;

/// The spool had no room.
pub(crate) const SPOOL_FULL: &str = "spool-full";
/// The batch was sealed once, and neither the spool nor the collector holds it.
pub(crate) const NOT_HELD: &str = "not-held";

/// Losses by class and reason: count and bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses(BTreeMap<(&'static str, &'static str), (u64, u64)>);

impl Losses {
    /// Adds a loss; a count of zero is none.
    pub(crate) fn add(&mut self, what: &'static str, count: usize, bytes: usize, reason: &'static str) {
        if count > 0 {
            let sum = self.0.entry((what, reason)).or_default();
            sum.0 = sum.0.saturating_add(count as u64);
            sum.1 = sum.1.saturating_add(bytes as u64);
        }
    }

    /// Adds other losses.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (key, (count, bytes)) in &other.0 {
            let sum = self.0.entry(*key).or_default();
            sum.0 = sum.0.saturating_add(*count);
            sum.1 = sum.1.saturating_add(*bytes);
        }
    }

    /// Whether nothing was lost.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The losses as records.
    pub(crate) fn records(&self) -> Vec<Loss> {
        let record = |(&(what, reason), &(count, bytes)): (&(&str, &str), &(u64, u64))| Loss {
            what: what.to_owned(),
            count,
            bytes,
            reason: reason.to_owned(),
            ..Loss::default()
        };
        self.0.iter().map(record).collect()
    }

    /// The losses as records; none are left.
    pub(crate) fn take(&mut self) -> Vec<Loss> {
        let records = self.records();
        self.0.clear();
        records
    }
}
