//! The check of a chain: batch after batch, by nothing but the keys. The same check reads the store and bundles.

use std::collections::BTreeMap;

use onenet_core::{net::Name, time::Timestamp};
use onenet_proto::{
    cosign::{CosignError, verify_cosignature},
    seal::{self, BatchHash, ChainHead, SealError, VerifiedBatch},
    v1::{Cosignature, SealedBatch},
};
use serde::Serialize;

use crate::{
    audit::{Entry, Trail},
    ca::hex,
    store::Contents,
};

/// The collector's clock may have been set back between an enrolment and a batch by so much, in nanoseconds.
const CLOCK_SLACK: i64 = 600_000_000_000;

/// Notes kept of one sensor; more are only counted.
const MAX_NOTES: usize = 100;

/// The keys that a check trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    /// Every key that a sensor ever signed with, and since when.
    pub(crate) sensors: BTreeMap<Name, Vec<SensorKey>>,
    /// The collector's own, by which it cosigns, 32 bytes; and those that it had before.
    pub(crate) collector: Vec<u8>,
    /// Its keys of earlier times.
    pub(crate) former: Vec<Vec<u8>>,
}

impl Keys {
    /// The collector's key that a word states, where it is one of them; otherwise the one it has now.
    fn of(&self, word: &Cosignature) -> &[u8] {
        let former = self.former.iter().find(|key| key[..] == word.key[..]);
        former.unwrap_or(&self.collector)
    }

    /// Checks the collector's word for a head.
    pub(crate) fn check_word(
        &self,
        word: &Cosignature,
        sensor: &str,
        head: &ChainHead,
    ) -> Result<(), CosignError> {
        verify_cosignature(word, self.of(word), sensor, head)
    }

    /// Checks a seal; gives the header and the key of the sensor whose seal it is.
    pub(crate) fn unseal(
        &self,
        sensor: &str,
        sealed: &SealedBatch,
    ) -> Result<(VerifiedBatch, SensorKey), String> {
        let keys = self.sensors.get(sensor).map_or(&[][..], Vec::as_slice);
        // The latest first: most batches are by it.
        for key in keys.iter().rev() {
            match seal::verify(sealed, &key.key) {
                Ok(verified) => return Ok((verified, *key)),
                Err(SealError::BadSignature) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(match keys.len() {
            0 => format!("no signing key of {sensor} is known"),
            1 => "the signature does not fit the batch and the sensor's key".to_owned(),
            count => format!("the signature fits none of the sensor's {count} keys"),
        })
    }

    /// Checks an entry of the audit trail.
    pub(crate) fn check_entry(&self, trail: &mut Trail, entry: &Entry) -> Result<(), String> {
        // Behind the first entry by the key of now, no earlier key counts: whoever has one cannot go on with it. What
        // came before is held in place by the hashes.
        let former = self.former.iter().find(|key| !trail.is_current && entry.is_signed_by(key));
        trail.take(entry, former.unwrap_or(&self.collector))?;
        trail.is_current = former.is_none();
        Ok(())
    }
}

/// A key of a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SensorKey {
    /// Ed25519 public key.
    pub(crate) key: [u8; 32],
    /// Collector time of the enrolment that brought it.
    pub(crate) since: Timestamp,
}

/// A batch that is to be checked.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    /// Where it is, for people: file and row, or member and record.
    pub(crate) place: String,
    /// Whose it is meant to be.
    pub(crate) sensor: Name,
    /// As sealed.
    pub(crate) sealed: SealedBatch,
    /// Collector time of its commit.
    pub(crate) received_at: Timestamp,
    /// The collector's word for it.
    pub(crate) cosignature: Option<Cosignature>,
}

/// What is wrong, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    /// File and row, or member and record.
    pub(crate) place: String,
    /// Sensor, epoch and sequence, where it is about a batch.
    pub(crate) batch: Option<(Name, u64, u64)>,
    /// What was expected and what was found.
    pub(crate) problem: String,
}

impl Fault {
    /// A fault that is about no batch in particular.
    pub(crate) fn at(place: impl ToString, problem: impl ToString) -> Self {
        Self { place: place.to_string(), batch: None, problem: problem.to_string() }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.place)?;
        if let Some((sensor, epoch, sequence)) = &self.batch {
            write!(f, "{sensor}, epoch {epoch}, sequence {sequence}: ")?;
        }
        f.write_str(&self.problem)
    }
}

/// How the first batch of a sensor must begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the first batch of an epoch: nothing came before.
    #[default]
    Beginning,
    /// Behind this head.
    After(ChainHead),
    /// Anywhere: what came before is not looked at.
    Anywhere,
}

/// What was found of one sensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct ChainReport {
    /// Name.
    pub(crate) sensor: Name,
    /// Epochs.
    pub(crate) epochs: u64,
    /// Batches that hold.
    pub(crate) batches: u64,
    /// Collector time of the first.
    pub(crate) first: Option<Timestamp>,
    /// And of the last.
    pub(crate) last: Option<Timestamp>,
    /// Epoch of the last.
    pub(crate) epoch: u64,
    /// Sequence of the last.
    pub(crate) sequence: u64,
    /// Flows, observations and findings.
    pub(crate) records: u64,
    /// Records that the sensor told it lost.
    pub(crate) lost: u64,
    /// Batches whose body makes no sense; they have their place in the chain.
    pub(crate) poisoned: u64,
    /// Batches with a cosignature.
    pub(crate) cosigned: u64,
    /// Places where batches are left out, in a bundle that holds a selection.
    pub(crate) left_out: u64,
    /// What is worth knowing and proves no change.
    pub(crate) notes: Vec<String>,
    /// The first that is wrong.
    pub(crate) fault: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Chain {
    start: Start,
    head: Option<ChainHead>,
    /// Whether the last batch has the collector's word.
    cosigned: bool,
    failed: bool,
    report: ChainReport,
}

/// Checks the batches of all sensors, each sensor's in order.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    keys: Keys,
    /// Whether batches may be left out, because the bundle is a selection.
    selection: bool,
    chains: BTreeMap<Name, Chain>,
    first: Option<Fault>,
}

impl Checker {
    /// Checks by `keys`; in a `selection` batches may be left out.
    pub(crate) fn new(keys: Keys, selection: bool) -> Self {
        Self { keys, selection, ..Self::default() }
    }

    /// Says how a sensor's first batch must begin.
    pub(crate) fn begin(&mut self, sensor: &Name, start: Start) {
        self.chain(sensor).start = start;
    }

    /// How a sensor's first batch must begin.
    pub(crate) fn start(&self, sensor: &str) -> Start {
        self.chains.get(sensor).map(|chain| chain.start).unwrap_or_default()
    }

    /// Enters a fault; only the first of a sensor counts, because it is the cause of others.
    pub(crate) fn fail(&mut self, fault: Fault) {
        if let Some((sensor, ..)) = &fault.batch {
            let chain = self.chain(&Name::clone(sensor));
            if chain.failed {
                return;
            }
            chain.failed = true;
            chain.report.fault = Some(fault.to_string());
        }
        self.first.get_or_insert(fault);
    }

    /// Whether something of this sensor was wrong already.
    pub(crate) fn has_failed(&self, sensor: &str) -> bool {
        self.chains.get(sensor).is_some_and(|chain| chain.failed)
    }

    /// Checks the next batch of its sensor. Gives header, hash and what its body holds where all fits so far;
    /// what does not has been entered as a fault.
    pub(crate) fn take(&mut self, evidence: &Evidence) -> Option<(VerifiedBatch, Result<Contents, String>)> {
        if self.has_failed(&evidence.sensor) {
            return None;
        }
        match self.check(evidence) {
            Ok(checked) => Some(checked),
            Err((epoch, sequence, problem)) => {
                let batch = Some((Name::clone(&evidence.sensor), epoch, sequence));
                self.fail(Fault { place: evidence.place.clone(), batch, problem });
                None
            }
        }
    }

    /// Checks the end of a sensor's chain against the head that is held for it, with the collector's word for that.
    pub(crate) fn end(&mut self, sensor: &Name, place: &str, held: &ChainHead, word: Option<&Cosignature>) {
        let chain = self.chains.entry(Name::clone(sensor)).or_default();
        let head = chain.head.unwrap_or(match chain.start {
            Start::After(head) => head,
            Start::Beginning | Start::Anywhere => ChainHead::default(),
        });
        let problem = if head != *held {
            Some(format!(
                "the head that is held is {}, but the last batch here is {}: the end is cut off or changed",
                shown(held),
                shown(&head)
            ))
        } else {
            match word {
                Some(word) => self
                    .keys
                    .check_word(word, sensor, held)
                    .err()
                    .map(|error| format!("the cosignature of the head does not hold: {error}")),
                None if chain.report.cosigned > 0 && !chain.cosigned => {
                    Some("the head has no cosignature, although batches before it have".to_owned())
                }
                None => None,
            }
        };
        if let Some(problem) = problem {
            let batch = Some((Name::clone(sensor), held.epoch, held.sequence));
            self.fail(Fault { place: place.to_owned(), batch, problem });
        }
    }

    /// Where a sensor's chain stands, as far as it was checked.
    pub(crate) fn head(&self, sensor: &str) -> Option<ChainHead> {
        self.chains.get(sensor).and_then(|chain| chain.head)
    }

    /// Batches checked of a sensor.
    pub(crate) fn batches(&self, sensor: &str) -> u64 {
        self.chains.get(sensor).map_or(0, |chain| chain.report.batches)
    }

    /// The sensors whose keys are known.
    pub(crate) fn sensors(&self) -> Vec<Name> {
        self.keys.sensors.keys().cloned().collect()
    }

    /// The keys.
    pub(crate) const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What was found, by sensor, and the first fault of all.
    pub(crate) fn finish(self) -> (Vec<ChainReport>, Option<Fault>) {
        let report = |(sensor, chain): (Name, Chain)| ChainReport { sensor, ..chain.report };
        (self.chains.into_iter().map(report).collect(), self.first)
    }

    fn chain(&mut self, sensor: &Name) -> &mut Chain {
        self.chains.entry(Name::clone(sensor)).or_default()
    }

    /// All checks of one batch; an error is epoch, sequence and what is wrong.
    #[expect(clippy::type_complexity, reason = "the pair is what take gives")]
    fn check(
        &mut self,
        evidence: &Evidence,
    ) -> Result<(VerifiedBatch, Result<Contents, String>), (u64, u64, String)> {
        let unsealed = self.keys.unseal(&evidence.sensor, &evidence.sealed);
        let (verified, key) = unsealed.map_err(|problem| {
            let (epoch, sequence) = stated(&evidence.sealed);
            (epoch, sequence, problem)
        })?;
        let header = &verified.header;
        let at = |problem: String| (header.epoch, header.sequence, problem);
        if header.sensor != *evidence.sensor {
            return Err(at(format!(
                "the header says sensor {:?}, expected {}",
                header.sensor, evidence.sensor
            )));
        }
        if evidence.received_at.0.saturating_add(CLOCK_SLACK) < key.since.0 {
            let problem = format!(
                "received at {}, but sealed with a key that was enrolled only at {}",
                evidence.received_at, key.since
            );
            return Err(at(problem));
        }
        let selection = self.selection;
        let chain = self.chain(&evidence.sensor);
        let left_out = follow(chain, &verified, selection).map_err(at)?;
        if let Some(word) = &evidence.cosignature {
            self.keys
                .check_word(word, &evidence.sensor, &verified.head())
                .map_err(|error| at(format!("its cosignature does not hold: {error}")))?;
            if word.time != evidence.received_at.0 {
                let signed = Timestamp(word.time);
                let problem = format!("received at {}, but cosigned at {signed}", evidence.received_at);
                return Err(at(problem));
            }
        }
        let contents = Contents::of_batch(header, &evidence.sealed.body);
        self.chain(&evidence.sensor).count(evidence, &verified, &contents, left_out);
        Ok((verified, contents))
    }
}

impl Chain {
    fn count(
        &mut self,
        evidence: &Evidence,
        verified: &VerifiedBatch,
        contents: &Result<Contents, String>,
        left_out: bool,
    ) {
        if self.head.is_none_or(|head| head.epoch != verified.header.epoch) {
            self.report.epochs = self.report.epochs.saturating_add(1);
            self.note_start(verified, contents);
        }
        self.head = Some(verified.head());
        self.cosigned = evidence.cosignature.is_some();
        let report = &mut self.report;
        report.batches = report.batches.saturating_add(1);
        report.first.get_or_insert(evidence.received_at);
        report.last = Some(evidence.received_at);
        (report.epoch, report.sequence) = (verified.header.epoch, verified.header.sequence);
        report.cosigned = report.cosigned.saturating_add(self.cosigned.into());
        report.left_out = report.left_out.saturating_add(left_out.into());
        match contents {
            Ok(contents) => {
                report.records = report.records.saturating_add(contents.count() as u64);
                report.lost = report.lost.saturating_add(contents.others().lost());
            }
            Err(_) => report.poisoned = report.poisoned.saturating_add(1),
        }
    }

    /// What the sensor says of the epoch before, where that is not what is here. It proves no change of what is kept:
    /// a sensor whose spool was damaged has sealed batches that it could never deliver.
    fn note_start(&mut self, verified: &VerifiedBatch, contents: &Result<Contents, String>) {
        let (Some(head), Ok(contents)) = (self.head, contents) else { return };
        let Some(start) = &contents.others().epoch_start else { return };
        let named = (start.previous_epoch, start.previous_sequence, &start.previous_hash[..]);
        if named != (head.epoch, head.sequence, &head.hash[..]) && self.report.notes.len() < MAX_NOTES {
            self.report.notes.push(format!(
                "epoch {} ({}): the sensor says that epoch {} stood at {} before it, here epoch {} ends at {}",
                verified.header.epoch, start.reason, start.previous_epoch, start.previous_sequence, head.epoch,
                head.sequence,
            ));
        }
    }
}

/// Whether a batch has its place behind the ones before; says whether batches are left out before it.
fn follow(chain: &Chain, batch: &VerifiedBatch, selection: bool) -> Result<bool, String> {
    let (epoch, sequence) = (batch.header.epoch, batch.header.sequence);
    let head = match (chain.head, chain.start) {
        (Some(head), _) | (None, Start::After(head)) => head,
        (None, Start::Anywhere) if sequence > 1 => return Ok(false),
        (None, Start::Anywhere | Start::Beginning) => ChainHead { epoch, ..ChainHead::default() },
    };
    if epoch < head.epoch {
        return Err(format!("out of order: it stands behind epoch {}", head.epoch));
    }
    let head = if epoch > head.epoch { ChainHead { epoch, ..ChainHead::default() } } else { head };
    let expected = head.sequence.saturating_add(1);
    if sequence < expected {
        return Err(format!("out of order or there twice: expected sequence {expected}"));
    }
    if sequence > expected {
        let missing = sequence - expected;
        return if selection {
            Ok(true)
        } else {
            Err(format!("expected sequence {expected}: {missing} batches before it are missing"))
        };
    }
    if batch.previous_hash != head.hash {
        return Err(format!(
            "it follows the hash {}, expected {}: it is of another chain",
            hex(&batch.previous_hash),
            hex(&head.hash)
        ));
    }
    Ok(false)
}

/// Epoch and sequence as a header states them that nobody has vouched for; zeros where it does not parse.
fn stated(sealed: &SealedBatch) -> (u64, u64) {
    use prost::Message as _;
    let header = onenet_proto::v1::BatchHeader::decode(&sealed.header[..]).unwrap_or_default();
    (header.epoch, header.sequence)
}

/// A head for people.
pub(crate) fn shown(head: &ChainHead) -> String {
    let hash: &BatchHash = &head.hash;
    format!("epoch {} sequence {} ({})", head.epoch, head.sequence, hex(&hash[..8]))
}

#[cfg(test)]
mod tests {
    use onenet_proto::{
        cosign::cosign,
        seal::SigningKey,
        v1::{BatchBody, EpochStart},
    };

    use super::*;
    use crate::testing::Sensor;

    struct Rig {
        sensor: Sensor,
        collector: SigningKey,
        checker: Checker,
    }

    impl Rig {
        fn new(selection: bool) -> Self {
            let sensor = Sensor::new("boston-1");
            let (collector, _) = SigningKey::generate().expect("a key");
            let key = SensorKey { key: sensor.public_key, since: Timestamp(5_000 * CLOCK_SLACK) };
            let keys = Keys {
                sensors: [(Name::clone(&sensor.name), vec![key])].into(),
                collector: collector.public_key().to_vec(),
                former: Vec::new(),
            };
            Self { sensor, collector, checker: Checker::new(keys, selection) }
        }

        fn evidence(&self, sealed: SealedBatch) -> Evidence {
            let received_at = Timestamp(5_000 * CLOCK_SLACK);
            let cosignature = Some(cosign(&self.collector, "boston-1", &self.sensor.head(), received_at.0));
            let sensor = Name::clone(&self.sensor.name);
            Evidence { place: "here".into(), sensor, sealed, received_at, cosignature }
        }

        /// Takes the next batch as it is after a change; gives the fault.
        fn fault(mut self, change: impl FnOnce(&mut Evidence)) -> Option<String> {
            let sealed = self.sensor.batch(1);
            let mut evidence = self.evidence(sealed);
            change(&mut evidence);
            self.checker.take(&evidence);
            self.checker.finish().1.map(|fault| fault.to_string())
        }
    }

    #[test]
    fn a_batch_holds_for_its_sensor_time_and_cosignature_alone() {
        assert_eq!(Rig::new(false).fault(|_| {}), None);
        let is = |fault: Option<String>, expected: &str| {
            let fault = fault.expect("it is noticed");
            assert!(fault.starts_with("here: boston-1, epoch 1, sequence 1: "), "{fault}");
            assert!(fault.contains(expected), "{fault}");
        };
        let early = |evidence: &mut Evidence| {
            evidence.received_at = Timestamp(4_998 * CLOCK_SLACK);
            evidence.cosignature = None;
        };
        is(Rig::new(false).fault(early), "sealed with a key that was enrolled only at");
        let other_time = |evidence: &mut Evidence| evidence.received_at.0 += 1;
        is(Rig::new(false).fault(other_time), "but cosigned at");
        let other_word = |evidence: &mut Evidence| {
            let (other, _) = SigningKey::generate().expect("a key");
            let head = ChainHead { epoch: 1, sequence: 1, hash: [0; 32] };
            evidence.cosignature = Some(cosign(&other, "boston-1", &head, evidence.received_at.0));
        };
        is(Rig::new(false).fault(other_word), "its cosignature does not hold");
        let rig = Rig::new(false);
        let mut lowell = rig.sensor.named("lowell-1");
        let of_lowell = lowell.seal(&BatchBody::default(), onenet_proto::v1::BatchKind::Records, 1, 1);
        is(rig.fault(|evidence| evidence.sealed = of_lowell), "the header says sensor \"lowell-1\"");
    }

    #[test]
    fn a_batch_of_another_past_is_told_from_the_next_without_any_cosignature() {
        for (past, fits) in [(None, true), (Some([9; 32]), false)] {
            let mut rig = Rig::new(false);
            let first = rig.sensor.batch(1);
            assert!(rig.checker.take(&rig.evidence(first)).is_some());
            if let Some(hash) = past {
                rig.sensor.restore(ChainHead { epoch: 1, sequence: 1, hash });
            }
            let second = rig.sensor.batch(1);
            let evidence = Evidence { cosignature: None, ..rig.evidence(second) };
            assert_eq!(rig.checker.take(&evidence).is_some(), fits);
            let fault = rig.checker.finish().1.map(|fault| fault.to_string());
            assert_eq!(fault.is_some_and(|fault| fault.contains("it is of another chain")), !fits);
        }
    }

    #[test]
    fn a_batch_again_is_told_and_an_end_that_is_not_the_held_head_too() {
        let mut rig = Rig::new(true);
        let first = rig.sensor.batch(1);
        let first = rig.evidence(first);
        assert!(rig.checker.take(&first).is_some());
        assert!(rig.checker.take(&first).is_none());
        let fault = rig.checker.finish().1.expect("it is noticed").to_string();
        assert!(fault.contains("out of order or there twice: expected sequence 2"), "{fault}");
        for cut in [false, true] {
            let mut rig = Rig::new(false);
            let first = rig.sensor.batch(1);
            assert!(rig.checker.take(&rig.evidence(first)).is_some());
            if cut {
                rig.sensor.batch(1);
            }
            let (name, held) = (Name::clone(&rig.sensor.name), rig.sensor.head());
            let word = cosign(&rig.collector, &name, &held, 1);
            rig.checker.end(&name, "heads", &held, Some(&word));
            let fault = rig.checker.finish().1.map(|fault| fault.to_string());
            assert_eq!(fault.is_some_and(|fault| fault.contains("the end is cut off")), cut);
        }
    }

    #[test]
    fn a_batch_may_be_left_out_of_a_selection_alone() {
        for selection in [false, true] {
            let mut rig = Rig::new(selection);
            let first = rig.sensor.batch(1);
            assert!(rig.checker.take(&rig.evidence(first)).is_some());
            let _left_out = rig.sensor.batch(1);
            let third = rig.sensor.batch(1);
            assert_eq!(rig.checker.take(&rig.evidence(third)).is_some(), selection);
            let (chains, fault) = rig.checker.finish();
            assert_eq!((chains[0].left_out, fault.is_some()), (selection.into(), !selection));
        }
    }

    #[test]
    fn what_a_sensor_says_of_the_epoch_before_is_noted_where_it_is_not_what_is_here() {
        for (sequence, notes) in [(1, 0), (7, 1)] {
            let mut rig = Rig::new(false);
            let first = rig.sensor.batch(1);
            assert!(rig.checker.take(&rig.evidence(first)).is_some());
            let before = rig.sensor.head();
            rig.sensor.restore(ChainHead { epoch: 2, ..ChainHead::default() });
            let sealed = rig.sensor.seal(&BatchBody {
                epoch_start: Some(EpochStart {
                    previous_epoch: 1,
                    previous_sequence: sequence,
                    previous_hash: before.hash.to_vec().into(),
                    ..EpochStart::default()
                }),
                ..BatchBody::default()
            });
            assert!(rig.checker.take(&rig.evidence(sealed)).is_some());
            let (chains, fault) = rig.checker.finish();
            assert_eq!((chains[0].notes.len(), fault), (notes, None), "{chains:?}");
        }
    }
}
