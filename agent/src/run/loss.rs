//! What was lost: shed for want of room, or found missing. Each loss becomes a signed record, and is told once.

use std::collections::BTreeMap;

use onenet_proto::v1::Loss;

/// The spool had no room.
pub(crate) const SPOOL_FULL: &str = "spool-full";
/// The batch was sealed once, and neither the spool nor the collector holds it.
pub(crate) const NOT_HELD: &str = "not-held";
/// Flows whose detail was given up: they stand in an aggregate of the same batch, with exact sums.
pub(crate) const AGGREGATED: &str = "aggregated";

/// Where in the chain something was lost, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Epoch of the sequences.
    pub(crate) epoch: u64,
    /// Batches that are missing, or that would have carried the records.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Agent's clock, nanoseconds since the Unix epoch.
    pub(crate) time: i64,
}

/// Count, bytes, sequences and times of what was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    count: u64,
    bytes: u64,
    first: u64,
    last: u64,
    since: i64,
    until: i64,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.since = self.since.min(other.since);
        self.until = self.until.max(other.until);
    }
}

/// Losses by class, reason and epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses(BTreeMap<(&'static str, &'static str, u64), Sum>);

impl Losses {
    /// Adds a loss; a count of zero is none.
    pub(crate) fn add(
        &mut self,
        what: &'static str,
        count: u64,
        bytes: usize,
        reason: &'static str,
        place: Place,
    ) {
        if count > 0 {
            let Place { epoch, first, last, time } = place;
            let sum = Sum { count, bytes: bytes as u64, first, last, since: time, until: time };
            self.enter((what, reason, epoch), &sum);
        }
    }

    fn enter(&mut self, key: (&'static str, &'static str, u64), sum: &Sum) {
        self.0.entry(key).and_modify(|known| known.add(sum)).or_insert(*sum);
    }

    /// Adds other losses.
    pub(crate) fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(key, sum)| self.enter(*key, sum));
    }

    /// Adds other losses as totals by class and reason, whatever their epoch and sequences.
    pub(crate) fn total(&mut self, other: &Self) {
        for (&(what, reason, _), sum) in &other.0 {
            self.enter((what, reason, 0), &Sum { first: 0, last: 0, ..*sum });
        }
    }

    /// The same losses for another reason.
    pub(crate) fn with_reason(&self, reason: &'static str) -> Self {
        let mut losses = Self::default();
        self.0.iter().for_each(|(&(what, _, epoch), sum)| losses.enter((what, reason, epoch), sum));
        losses
    }

    /// Whether nothing was lost.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The losses as records.
    pub(crate) fn records(&self) -> Vec<Loss> {
        let record = |(&(what, reason, epoch), sum): (&(&str, &str, u64), &Sum)| Loss {
            what: what.to_owned(),
            count: sum.count,
            bytes: sum.bytes,
            reason: reason.to_owned(),
            epoch,
            first_sequence: sum.first,
            last_sequence: sum.last,
            since: sum.since,
            until: sum.until,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_a_class_a_reason_and_an_epoch_are_one_record_with_their_range_and_time() {
        let at = |epoch, first, last, time| Place { epoch, first, last, time };
        let mut losses = Losses::default();
        losses.add("flow", 0, 9, SPOOL_FULL, at(1, 1, 1, 1));
        assert!(losses.is_empty());
        losses.add("flow", 2, 10, SPOOL_FULL, at(7, 5, 5, 200));
        losses.add("flow", 3, 20, SPOOL_FULL, at(7, 4, 6, 100));
        losses.add("flow", 1, 1, SPOOL_FULL, at(8, 1, 1, 300));
        let mut total = Losses::default();
        total.total(&losses);
        let [first, second] = &losses.take()[..] else { panic!("two epochs") };
        assert!(losses.is_empty(), "told once");
        assert_eq!((first.epoch, first.first_sequence, first.last_sequence), (7, 4, 6));
        assert_eq!((first.count, first.bytes, first.since, first.until), (5, 30, 100, 200));
        assert_eq!((second.epoch, second.count), (8, 1));
        let [all] = &total.records()[..] else { panic!("one total") };
        assert_eq!((all.count, all.bytes, all.since, all.until), (6, 31, 100, 300));
    }
}
