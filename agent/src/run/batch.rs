//! Gathers records into drafts of batches, and passes over the records that an earlier run has sealed already.

use std::{
    sync::mpsc::SyncSender,
    time::{Duration, Instant},
};

use onenet_core::record::{FindingChange, FlowRecord, Ledger, Observation, RecordSink};
use onenet_proto::v1::{self, BatchBody};
use prost::Message as _;

/// When a draft is complete, whichever limit is met first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Records.
    pub(crate) records: usize,
    /// Bytes of the encoded body.
    pub(crate) bytes: usize,
    /// Age of the oldest record.
    pub(crate) delay: Duration,
}

/// A batch to be sealed.
#[derive(Debug)]
pub(crate) struct Draft {
    /// Records and ledger; the plan in a draft without records, from which on it holds.
    pub(crate) body: BatchBody,
    /// Encoded bytes of the body, without the ledger.
    pub(crate) bytes: usize,
    /// Records of the run up to and with this batch.
    pub(crate) run_records: u64,
}

/// Gathers records.
pub(crate) struct Batcher {
    limits: Limits,
    sealer: SyncSender<Draft>,
    body: BatchBody,
    bytes: usize,
    records: usize,
    since: Option<Instant>,
    ledger: Option<Ledger>,
    /// Records of the run so far, those passed over included.
    run_records: u64,
    /// Records of the run that are sealed already.
    sealed_before: u64,
    closed: bool,
}

/// Bytes of one element of a repeated field: tag (field numbers up to 15), length, message.
fn framed(length: usize) -> usize {
    1 + prost::length_delimiter_len(length) + length
}

impl Batcher {
    /// A gatherer that passes over the first `sealed_before` records.
    pub(crate) fn new(limits: Limits, sealer: SyncSender<Draft>, sealed_before: u64) -> Self {
        Self {
            limits,
            sealer,
            body: BatchBody::default(),
            bytes: 0,
            records: 0,
            since: None,
            ledger: None,
            run_records: 0,
            sealed_before,
            closed: false,
        }
    }

    /// Whether records are still being passed over.
    pub(crate) const fn is_catching_up(&self) -> bool {
        self.run_records < self.sealed_before
    }

    /// Whether nobody takes batches any more.
    pub(crate) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// The account that batches carry from here on.
    pub(crate) fn set_ledger(&mut self, ledger: &Ledger) {
        self.ledger = Some(ledger.clone());
    }

    /// Completes the draft if its oldest record has waited long enough.
    pub(crate) fn cut_if_due(&mut self) {
        if self.since.is_some_and(|since| since.elapsed() >= self.limits.delay) {
            self.cut();
        }
    }

    /// Completes the draft. It waits where sealing is behind.
    pub(crate) fn cut(&mut self) {
        if self.records == 0 {
            return;
        }
        let mut body = std::mem::take(&mut self.body);
        body.ledger = self.ledger.as_ref().map(v1::Ledger::from);
        let draft = Draft { body, bytes: self.bytes, run_records: self.run_records };
        self.bytes = 0;
        self.records = 0;
        self.since = None;
        self.closed |= self.sealer.send(draft).is_err();
    }

    /// Completes the draft, and has what follows told as judged by this plan.
    pub(crate) fn change_plan(&mut self, plan: v1::PlanHeld) {
        self.cut();
        let body = BatchBody { plan: Some(plan), ..BatchBody::default() };
        let draft = Draft { body, bytes: 0, run_records: self.run_records };
        self.closed |= self.sealer.send(draft).is_err();
    }

    /// Makes room for a record of these bytes and counts it.
    fn admit(&mut self, bytes: usize) {
        if self.records > 0 && self.bytes.saturating_add(bytes) > self.limits.bytes {
            self.cut();
        }
        self.run_records += 1;
        self.bytes += bytes;
        self.records += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    /// Counts a record that is sealed already.
    const fn pass_over(&mut self) -> bool {
        let passed = self.is_catching_up();
        if passed {
            self.run_records += 1;
        }
        passed
    }

    fn cut_if_full(&mut self) {
        if self.records >= self.limits.records {
            self.cut();
        }
    }
}

impl RecordSink for Batcher {
    fn flow(&mut self, record: &FlowRecord) {
        if self.pass_over() {
            return;
        }
        let flow = v1::Flow::from(record);
        self.admit(framed(flow.encoded_len()));
        self.body.flows.push(flow);
        self.cut_if_full();
    }

    fn observation(&mut self, observation: &Observation) {
        if self.pass_over() {
            return;
        }
        let observation = v1::Observation::from(observation);
        self.admit(framed(observation.encoded_len()));
        self.body.observations.push(observation);
        self.cut_if_full();
    }

    fn finding(&mut self, change: &FindingChange) {
        if self.pass_over() {
            return;
        }
        let change = v1::FindingChange::from(change);
        self.admit(framed(change.encoded_len()));
        self.body.findings.push(change);
        self.cut_if_full();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use onenet_core::time::Timestamp;

    use super::*;
    use crate::samples;

    pub(crate) fn observation(number: i64) -> Observation {
        Observation { first_seen: Timestamp(number), ..samples::observation() }
    }

    fn limits(records: usize, bytes: usize) -> Limits {
        Limits { records, bytes, delay: Duration::from_secs(3600) }
    }

    fn gather(limits: Limits, sealed_before: u64, count: i64) -> (Batcher, Receiver<Draft>) {
        let (sender, receiver) = sync_channel(1000);
        let mut batcher = Batcher::new(limits, sender, sealed_before);
        for number in 1..=count {
            batcher.observation(&observation(number));
        }
        (batcher, receiver)
    }

    fn numbers(draft: &Draft) -> Vec<i64> {
        draft.body.observations.iter().map(|o| o.first_seen).collect()
    }

    #[test]
    fn batches_are_cut_by_records_and_nothing_is_left_behind() {
        let (mut batcher, drafts) = gather(limits(4, usize::MAX), 0, 10);
        batcher.cut();
        batcher.cut();
        let drafts: Vec<_> = drafts.try_iter().collect();
        assert_eq!(
            drafts.iter().map(numbers).collect::<Vec<_>>(),
            [vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10]]
        );
        assert_eq!(drafts.iter().map(|d| d.run_records).collect::<Vec<_>>(), [4, 8, 10]);
    }

    #[test]
    fn batches_are_cut_before_they_grow_over_their_bytes_and_the_count_of_bytes_is_right() {
        let (mut batcher, drafts) = gather(limits(1000, 900), 0, 50);
        batcher.cut();
        let drafts: Vec<_> = drafts.try_iter().collect();
        assert!(drafts.len() > 5);
        for draft in &drafts {
            let records = BatchBody { ledger: None, ..draft.body.clone() };
            assert_eq!(records.encoded_len(), draft.bytes);
            assert!(draft.bytes <= 900);
        }
        assert_eq!(drafts.iter().flat_map(numbers).collect::<Vec<_>>(), (1..=50).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_sealed_before_is_passed_over_and_counted() {
        for sealed_before in 0..=12 {
            let (mut batcher, drafts) = gather(limits(4, usize::MAX), sealed_before, 10);
            batcher.cut();
            let drafts: Vec<_> = drafts.try_iter().collect();
            let sealed_before = i64::try_from(sealed_before).unwrap();
            let expected: Vec<i64> = (sealed_before + 1..=10).collect();
            assert_eq!(drafts.iter().flat_map(numbers).collect::<Vec<_>>(), expected);
            assert_eq!(batcher.run_records, 10);
            assert_eq!(batcher.is_catching_up(), sealed_before > 10);
        }
    }

    #[test]
    fn an_old_record_does_not_wait_for_more() {
        let (sender, drafts) = sync_channel(10);
        let mut batcher = Batcher::new(Limits { delay: Duration::ZERO, ..limits(4, usize::MAX) }, sender, 0);
        batcher.cut_if_due();
        batcher.observation(&observation(1));
        batcher.cut_if_due();
        assert_eq!(drafts.try_iter().count(), 1);
        drop(drafts);
        batcher.observation(&observation(2));
        batcher.cut();
        assert!(batcher.is_closed());
    }
}
