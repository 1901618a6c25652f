//! What a sealed batch is in respect of the chain the store holds: the next one, a known one, or one to refuse.

use std::cmp::Ordering;

use onenet_core::time::Timestamp;
use onenet_proto::seal::{BatchHash, ChainHead, VerifiedBatch};

use super::{Contents, SensorHead};

/// Why a batch is refused. Nothing of it is stored as data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The sensor has been revoked, or has enrolled anew with another certificate, while the stream was open.
    #[error("the sensor is revoked or has another certificate now")]
    NotAllowed,
    /// Batches are missing before this one.
    #[error("expected sequence {expected} of epoch {epoch}, got {got}")]
    Gap {
        /// Epoch of the batch.
        epoch: u64,
        /// The sequence that has to come next in it.
        expected: u64,
        /// The sequence that came.
        got: u64,
    },
    /// It contradicts a batch that is stored: two histories of one sensor.
    #[error("fork: batch {sequence} of epoch {epoch} contradicts the chain held here")]
    Fork {
        /// Epoch of the batch.
        epoch: u64,
        /// Its sequence.
        sequence: u64,
    },
    /// It belongs to an epoch that is past, and is not known.
    #[error("rollback: epoch {epoch} is past, the chain held here is at epoch {held}")]
    Rollback {
        /// Epoch of the batch.
        epoch: u64,
        /// Epoch held.
        held: u64,
    },
    /// It could not be stored; sending it again later may help.
    #[error("the batch could not be stored: {0}")]
    NotStored(String),
}

/// What a batch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The next of its chain, or the first of a new epoch.
    Next,
    /// Stored before.
    Known,
    /// Neither.
    Refused(Refusal),
}

/// Judges a batch against the head held. `stored` looks up the hash stored for its epoch and sequence.
pub(super) fn judge<E>(
    batch: &VerifiedBatch,
    held: &ChainHead,
    stored: impl FnOnce() -> Result<Option<BatchHash>, E>,
) -> Result<Judgement, E> {
    let (epoch, sequence) = (batch.header.epoch, batch.header.sequence);
    let gap = |expected| Judgement::Refused(Refusal::Gap { epoch, expected, got: sequence });
    let fork = Judgement::Refused(Refusal::Fork { epoch, sequence });
    let rollback = Judgement::Refused(Refusal::Rollback { epoch, held: held.epoch });
    let start = ChainHead { epoch, ..ChainHead::default() };
    Ok(match epoch.cmp(&held.epoch) {
        Ordering::Greater if batch.follows(&start) => Judgement::Next,
        Ordering::Greater if sequence == 1 => fork,
        Ordering::Greater => gap(1),
        Ordering::Equal if batch.follows(held) => Judgement::Next,
        Ordering::Equal if sequence == 0 || sequence > held.sequence.saturating_add(1) => {
            gap(held.sequence.saturating_add(1))
        }
        Ordering::Equal if sequence > held.sequence => fork,
        Ordering::Equal => match stored()? {
            Some(hash) if hash == batch.hash => Judgement::Known,
            _ => fork,
        },
        Ordering::Less => match stored()? {
            Some(hash) if hash == batch.hash => Judgement::Known,
            _ => rollback,
        },
    })
}

impl SensorHead {
    /// Moves the head on to the next batch.
    pub(super) fn advance(
        &mut self,
        batch: &VerifiedBatch,
        contents: &Result<Contents, String>,
        received_at: Timestamp,
    ) {
        let monotonic_time = batch.header.monotonic_time;
        let restarted = self.batches > 0 && monotonic_time < self.monotonic_time;
        if restarted && let Some(ledger) = self.ledger.take() {
            self.ledger_before.merge(&ledger);
        }
        self.head = batch.head();
        self.received_at = received_at;
        self.wall_time = Timestamp(batch.header.wall_time);
        self.monotonic_time = monotonic_time;
        self.batches = self.batches.saturating_add(1);
        let add = |total: &mut u64, count: usize| *total = total.saturating_add(count as u64);
        match contents {
            Ok(contents) => {
                let others = &contents.others;
                add(&mut self.flows, contents.flows.len());
                add(&mut self.observations, others.observations.len());
                add(&mut self.findings, others.findings.len());
                self.lost = self.lost.saturating_add(others.lost());
                if let Some(ledger) = &others.ledger {
                    self.ledger = Some(ledger.clone());
                }
            }
            Err(_) => self.poisoned = self.poisoned.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use onenet_core::record::Ledger;
    use onenet_proto::v1::BatchHeader;

    use super::{super::Records, *};

    fn batch(epoch: u64, sequence: u64, previous: u8, hash: u8) -> VerifiedBatch {
        let header = BatchHeader { epoch, sequence, ..BatchHeader::default() };
        VerifiedBatch { header, previous_hash: [previous; 32], hash: [hash; 32] }
    }

    fn judged(batch: &VerifiedBatch, stored: Option<u8>) -> Judgement {
        let held = ChainHead { epoch: 7, sequence: 3, hash: [3; 32] };
        judge(batch, &held, || Ok::<_, ()>(stored.map(|byte| [byte; 32]))).expect("no lookup fails")
    }

    #[test]
    fn only_the_next_of_the_chain_or_the_first_of_a_later_epoch_is_accepted() {
        let refused = |refusal| Judgement::Refused(refusal);
        let fork = |epoch, sequence| refused(Refusal::Fork { epoch, sequence });
        let gap = |epoch, expected, got| refused(Refusal::Gap { epoch, expected, got });
        for (case, batch, stored, expected) in [
            ("next", batch(7, 4, 3, 4), None, Judgement::Next),
            ("next with another past", batch(7, 4, 9, 4), None, fork(7, 4)),
            ("one missing", batch(7, 5, 4, 5), None, gap(7, 4, 5)),
            ("sequence 0", batch(7, 0, 0, 5), None, gap(7, 4, 0)),
            ("head again", batch(7, 3, 2, 3), Some(3), Judgement::Known),
            ("head with another hash", batch(7, 3, 2, 9), Some(3), fork(7, 3)),
            ("old one again", batch(7, 1, 0, 1), Some(1), Judgement::Known),
            ("new epoch", batch(8, 1, 0, 1), None, Judgement::Next),
            ("new epoch with a past", batch(8, 1, 3, 1), None, fork(8, 1)),
            ("new epoch from its middle", batch(8, 2, 3, 1), None, gap(8, 1, 2)),
            ("old epoch, known", batch(6, 9, 8, 9), Some(9), Judgement::Known),
            (
                "old epoch, not known",
                batch(6, 9, 8, 9),
                None,
                refused(Refusal::Rollback { epoch: 6, held: 7 }),
            ),
        ] {
            assert_eq!(judged(&batch, stored), expected, "{case}");
        }
    }

    #[test]
    fn the_last_sequence_there_is_does_not_overflow() {
        let held = ChainHead { epoch: 7, sequence: u64::MAX, hash: [3; 32] };
        let judgement = judge(&batch(7, u64::MAX, 3, 4), &held, || Ok::<_, ()>(Some([1; 32])));
        assert_eq!(judgement, Ok(Judgement::Refused(Refusal::Fork { epoch: 7, sequence: u64::MAX })));
    }

    #[test]
    fn the_account_of_a_sensor_goes_on_over_its_restarts() {
        let mut head = SensorHead::default();
        let records = |packets| {
            let mut ledger = Ledger::default();
            ledger.packets = packets;
            let others = Records { ledger: Some(ledger), ..Records::default() };
            Ok(Contents { others, ..Contents::default() })
        };
        for (monotonic_time, packets, total) in [(10, 5, 5), (20, 8, 8), (3, 2, 10), (9, 4, 12)] {
            let mut batch = batch(1, 1, 0, 1);
            batch.header.monotonic_time = monotonic_time;
            head.advance(&batch, &records(packets), Timestamp(1));
            assert_eq!(head.ledger_total().packets, total);
        }
    }
}
