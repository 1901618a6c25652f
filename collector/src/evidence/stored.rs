//! The check of a store: every batch of every segment, the rows beside it, the heads, the quarantine and the audit
//! trail, offline and read-only.

use std::{collections::BTreeMap, path::Path};

use onenet_core::{net::Name, time::Timestamp};
use onenet_proto::{seal::ChainHead, v1::Cosignature};
use prost::Message as _;

use super::check::{ChainReport, Checker, Evidence, Fault, Start};
use crate::{
    audit::Trail,
    ca::hex,
    store::{
        Contents, DELETED, StoreError,
        archive::{Archive, ArchiveSegment, BatchRow, FlowRows, HeadRow, QuarantineRow},
        audit,
    },
};

/// What is to be checked; all where nothing is stated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The sensor.
    pub(crate) sensor: Option<Name>,
    /// Batches received from this time on.
    pub(crate) from: Option<Timestamp>,
    /// Batches received before this time.
    pub(crate) to: Option<Timestamp>,
}

impl Scope {
    /// Whether it takes this sensor in.
    pub(crate) fn wants(&self, sensor: &str) -> bool {
        self.sensor.as_deref().is_none_or(|wanted| wanted == sensor)
    }

    /// Whether it takes in what the collector noted at this time.
    pub(crate) fn covers(&self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time < to)
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Findings {
    /// Of each sensor.
    pub(crate) chains: Vec<ChainReport>,
    /// Entries of the audit trail that hold.
    pub(crate) audit_entries: u64,
    /// Batches in quarantine whose seals hold.
    pub(crate) quarantined: u64,
    /// The collector's public key that vouches, in hexadecimal digits.
    pub(crate) public_key: String,
    /// The first that is wrong.
    pub(crate) fault: Option<Fault>,
}

/// Checks the store in `directory`; where a key is `trusted`, the collector's has to be that one.
pub(crate) fn verify(
    directory: &Path,
    scope: &Scope,
    trusted: Option<&[u8; 32]>,
) -> Result<Findings, StoreError> {
    let archive = Archive::open(directory)?;
    let keys = archive.keys()?;
    if let Some(trusted) = trusted
        && keys.collector != trusted
    {
        let problem = format!("the key is {}, which is not the trusted one", hex(&keys.collector));
        let fault = Some(Fault::at("cosign.key", problem));
        return Ok(Findings { public_key: hex(&keys.collector), fault, ..Findings::default() });
    }
    let public_key = hex(&keys.collector);
    let mut checker = Checker::new(keys, false);
    // Read before the segments, so that it cannot be ahead of them.
    let correlated = archive.correlated()?;
    let numbers = archive.segments()?;
    begin(&archive, scope, &mut checker)?;
    let mut expected = numbers.first().copied();
    let mut segments = Vec::new();
    for &number in &numbers {
        if let Some(missing) = expected.filter(|&expected| expected < number) {
            checker
                .fail(Fault::at("segments", format!("segment {missing} is missing, the next is {number}")));
        }
        expected = number.checked_add(1);
        let segment = archive.segment(number)?;
        verify_segment(&segment, scope, &mut checker)?;
        if correlated.segment == number && correlated.batch > segment.last_row()? {
            let (read, last) = (correlated.batch, segment.last_row()?);
            let problem = format!("row {read} has been read here, but the last that is left is {last}");
            checker.fail(Fault::at(&segment.name, problem));
        }
        segments.push(segment);
    }
    if correlated.segment > numbers.last().copied().unwrap_or(0) {
        let problem = format!("segment {} has been read, but is no longer here", correlated.segment);
        checker.fail(Fault::at("segments", problem));
    }
    if let (Some(newest), None) = (segments.last(), scope.to) {
        verify_heads(&archive, newest, scope, &mut checker)?;
    }
    let quarantined = verify_quarantine(&archive, scope, &mut checker)?;
    let audit_entries = verify_audit(&archive, &segments, scope, &mut checker)?;
    let (chains, fault) = checker.finish();
    Ok(Findings { chains, audit_entries, quarantined, public_key, fault })
}

/// Says where the chains begin: where retention has deleted segments, behind the last batch deleted, which the audit
/// trail has to vouch for.
fn begin(archive: &Archive, scope: &Scope, checker: &mut Checker) -> Result<(), StoreError> {
    for sensor in checker.sensors().into_iter().filter(|name| scope.wants(name)) {
        let start = match archive.anchor(&sensor)? {
            _ if scope.from.is_some() => Start::Anywhere,
            Some(anchor) => Start::After(anchor.head),
            None => Start::Beginning,
        };
        checker.begin(&sensor, start);
    }
    Ok(())
}

fn verify_segment(segment: &ArchiveSegment, scope: &Scope, checker: &mut Checker) -> Result<(), StoreError> {
    let Some(span) = segment.span(scope.from, scope.to)? else { return Ok(()) };
    let mut statement = segment.flow_rows()?;
    let failed = segment.failed();
    let mut flows = FlowRows::new(&mut statement).map_err(&failed)?;
    let whole = *scope == Scope::default();
    segment.batches::<StoreError>(span, scope.sensor.as_deref(), |row| {
        let row = match row {
            Ok(row) => row,
            Err(problem) => {
                checker.fail(Fault::at(&segment.name, problem));
                return Ok(());
            }
        };
        let place = format!("{}, row {}", segment.name, row.id);
        if whole && let Some(stray) = flows.next_batch().filter(|&next| next < row.id) {
            checker.fail(Fault::at(
                &segment.name,
                format!("flows of the batch in row {stray}, which is not there"),
            ));
        }
        flows.skip_to(row.id).map_err(&failed)?;
        let contents = take(checker, &row, &place);
        // Behind the first fault of a sensor, what its rows say is not judged.
        if let Some(contents) = contents
            && let Some(problem) = flows.compare(row.id, &contents).map_err(&failed)?
        {
            checker.fail(fault(&row, place, problem));
        }
        if checker.has_failed(&row.sensor) {
            flows.skip_to(row.id.saturating_add(1)).map_err(&failed)?;
        }
        Ok(())
    })?;
    if whole && let Some(stray) = flows.next_batch() {
        checker
            .fail(Fault::at(&segment.name, format!("flows of the batch in row {stray}, which is not there")));
    }
    if let Some(missing) = segment.missing_row()? {
        checker.fail(Fault::at(&segment.name, format!("row {missing} of the batches has been taken out")));
    }
    Ok(())
}

fn fault(row: &BatchRow, place: String, problem: String) -> Fault {
    Fault { place, batch: Some((Name::clone(&row.sensor), row.epoch, row.sequence)), problem }
}

/// Checks a batch and what its row claims of it.
fn take(checker: &mut Checker, row: &BatchRow, place: &str) -> Option<Result<Contents, String>> {
    let cosignature = match row.cosignature.as_deref().map(Cosignature::decode).transpose() {
        Ok(cosignature) => cosignature,
        Err(error) => {
            checker.fail(fault(row, place.to_owned(), format!("its cosignature does not parse: {error}")));
            return None;
        }
    };
    let (verified, contents) = checker.take(&Evidence {
        place: place.to_owned(),
        sensor: Name::clone(&row.sensor),
        sealed: row.sealed.clone(),
        received_at: row.received_at,
        cosignature,
    })?;
    let records = contents.as_ref().map_or(0, |contents| contents.count() as u64);
    let header = &verified.header;
    let problem = if (row.epoch, row.sequence) != (header.epoch, header.sequence) {
        Some(format!("the header says epoch {} sequence {}", header.epoch, header.sequence))
    } else if row.hash != verified.hash {
        Some(format!("its row says hash {}, the batch has {}", hex(&row.hash), hex(&verified.hash)))
    } else if row.records != records {
        Some(format!("its row says {} records, the batch holds {records}", row.records))
    } else {
        match (&row.poison, &contents) {
            (Some(_), Ok(_)) => Some("its row says that the body makes no sense, but it does".to_owned()),
            (None, Err(reason)) => Some(format!("its row says that the body makes sense, but {reason}")),
            _ => None,
        }
    };
    if let Some(problem) = problem {
        checker.fail(fault(row, place.to_owned(), problem));
        return None;
    }
    Some(contents)
}

/// Holds the heads that are written down against the batches.
fn verify_heads(
    archive: &Archive,
    newest: &ArchiveSegment,
    scope: &Scope,
    checker: &mut Checker,
) -> Result<(), StoreError> {
    let place = format!("{}, heads", newest.name);
    let heads = newest.heads()?;
    for HeadRow { sensor, head, batches, cosignature } in
        heads.iter().filter(|head| scope.wants(&head.sensor))
    {
        if scope.from.is_some() && checker.head(sensor).is_none() {
            continue;
        }
        checker.end(sensor, &place, head, cosignature.as_ref());
        let deleted = archive.anchor(sensor)?.map_or(0, |anchor| anchor.batches);
        let kept = checker.batches(sensor).saturating_add(deleted);
        if scope.from.is_none() && !checker.has_failed(sensor) && kept != *batches {
            let problem =
                format!("{batches} batches have been committed, {kept} are here or deleted by retention");
            let batch = Some((Name::clone(sensor), head.epoch, head.sequence));
            checker.fail(Fault { place: place.clone(), batch, problem });
        }
    }
    for sensor in checker.sensors().into_iter().filter(|name| scope.wants(name)) {
        let headless = heads.iter().all(|head| head.sensor != sensor);
        if headless && let Some(ChainHead { epoch, sequence, .. }) = checker.head(&sensor) {
            let problem = "no head is written down for this sensor".to_owned();
            checker.fail(Fault { place: place.clone(), batch: Some((sensor, epoch, sequence)), problem });
        }
    }
    Ok(())
}

/// Checks the seals of the batches that have no place in a chain.
fn verify_quarantine(archive: &Archive, scope: &Scope, checker: &mut Checker) -> Result<u64, StoreError> {
    let mut count = 0_u64;
    archive.quarantine::<StoreError>(|row: QuarantineRow| {
        if !scope.wants(&row.sensor) {
            return Ok(());
        }
        let problem = match checker.keys().unseal(&row.sensor, &row.sealed) {
            Err(_) => Some("its seal fits no key of the sensor".to_owned()),
            Ok((verified, _)) if row.hash != verified.hash => Some("its row says another hash".to_owned()),
            Ok((verified, _))
                if (row.epoch, row.sequence) != (verified.header.epoch, verified.header.sequence) =>
            {
                Some("its row says another epoch or sequence than its header".to_owned())
            }
            Ok(_) => None,
        };
        match problem {
            None => count = count.saturating_add(1),
            Some(problem) => {
                let batch = Some((Name::clone(&row.sensor), row.epoch, row.sequence));
                checker.fail(Fault { place: "control.db, quarantine".to_owned(), batch, problem });
            }
        }
        Ok(())
    })?;
    Ok(count)
}

/// The latest head of each sensor and epoch that the collector has vouched for in its trail: sequence and hash.
type Vouched = BTreeMap<(Name, u64), (u64, Vec<u8>)>;

/// The last batch of each sensor that the trail says was deleted.
type Deleted = BTreeMap<Name, (u64, u64, Vec<u8>)>;

/// Checks the audit trail, that it reaches as far as its mark says, and that what it vouches for is here.
fn verify_audit(
    archive: &Archive,
    segments: &[ArchiveSegment],
    scope: &Scope,
    checker: &mut Checker,
) -> Result<u64, StoreError> {
    const PLACE: &str = "control.db, audit trail";
    let mark = archive.mark.as_ref();
    let (mut trail, mut vouched, mut problem) = (Trail::default(), Vouched::new(), None);
    let mut deleted = Deleted::new();
    let mut reached = false;
    archive.audit::<StoreError>(|entry| {
        if problem.is_none() {
            problem = checker.keys().check_entry(&mut trail, &entry).err();
            reached |= mark.is_some_and(|mark| (mark.sequence, &mark.hash) == (entry.sequence, &entry.hash));
            if entry.action == DELETED && scope.wants(&entry.sensor) {
                deleted.insert(entry.sensor.into(), (entry.epoch, entry.batch_sequence, entry.batch_hash.0));
            } else if entry.action == audit::HEAD_HELD && scope.wants(&entry.sensor) {
                vouched
                    .insert((entry.sensor.into(), entry.epoch), (entry.batch_sequence, entry.batch_hash.0));
            }
        }
        Ok(())
    })?;
    let last = trail.last();
    let problem = problem.or_else(|| match mark {
        Some(mark) if !reached => Some(format!(
            "audit.mark names entry {}, the last here is {last}: the end is cut off or changed",
            mark.sequence
        )),
        _ if last > 0 && !trail.is_current => {
            Some(format!("entry {last}, the last, is not by the key that the collector has now"))
        }
        None if last > 0 => Some(format!("audit.mark is missing, which should name entry {last}")),
        _ => None,
    });
    if let Some(problem) = problem {
        checker.fail(Fault::at(PLACE, problem));
    } else if (scope.from, scope.to) == (None, None) {
        verify_deleted(&deleted, checker);
        verify_vouched(segments, &vouched, checker)?;
    }
    Ok(trail.count)
}

/// Where a chain begins behind deleted batches, the audit trail has to tell of just that deletion.
fn verify_deleted(deleted: &Deleted, checker: &mut Checker) {
    for sensor in checker.sensors() {
        let Start::After(head) = checker.start(&sensor) else { continue };
        if deleted.get(&sensor) != Some(&(head.epoch, head.sequence, head.hash.to_vec())) {
            let problem =
                "the batches up to this one are gone, but the audit trail tells of no such deletion";
            let batch = Some((sensor, head.epoch, head.sequence));
            checker.fail(Fault {
                place: "control.db, chain_anchors".to_owned(),
                batch,
                problem: problem.to_owned(),
            });
        }
    }
}

/// A head that the collector has vouched for has to be here, unless retention has deleted it.
fn verify_vouched(
    segments: &[ArchiveSegment],
    vouched: &Vouched,
    checker: &mut Checker,
) -> Result<(), StoreError> {
    for ((sensor, epoch), (sequence, hash)) in vouched {
        let deleted = matches!(checker.start(sensor), Start::After(head) if (head.epoch, head.sequence) >= (*epoch, *sequence));
        if deleted || checker.has_failed(sensor) {
            continue;
        }
        let mut found = None;
        for segment in segments.iter().rev() {
            found = segment.hash_of(sensor, *epoch, *sequence)?;
            if found.is_some() {
                break;
            }
        }
        let problem = match found {
            Some(found) if found[..] == hash[..] => continue,
            Some(found) => {
                format!("the audit trail vouches for the hash {}, here it is {}", hex(hash), hex(&found))
            }
            None => "the audit trail vouches for this batch, but it is not here".to_owned(),
        };
        let batch = Some((Name::clone(sensor), *epoch, *sequence));
        checker.fail(Fault { place: "segments".to_owned(), batch, problem });
    }
    Ok(())
}
