//! The one thread that commits batches. It takes what has queued up as a group, commits the group in one
//! transaction, and only then answers: whatever it calls stored or known is on the disk.

use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    thread::JoinHandle,
};

use onenet_core::net::Name;
use onenet_proto::{
    seal::{ChainHead, VerifiedBatch},
    v1::{Cosignature, SealedBatch},
};
use prost::Message as _;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    Contents, Cursor, Heads, SegmentFile, SegmentStats, SensorHead, SensorState, Sha256, Store, StoreConfig,
    StoreError,
    chain::{self, Judgement, Refusal},
    control_custody::OpenGap,
    events::{self, Event, EventKind},
    flow_row, heads, segment, sensors,
};
use crate::clock;

/// Batches that wait for the writer; more make the senders wait.
const QUEUE: usize = 64;

/// Batches committed together at most.
const GROUP_BATCHES: usize = 64;

/// Flows after which a group takes no further batch.
const GROUP_FLOWS: usize = 100_000;

/// Log pages after which SQLite folds the log into the database: 16 MiB, since batches are large.
const CHECKPOINT_PAGES: i64 = 4_096;

/// A batch whose seal fits, with what its body holds.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The sensor, by the certificate of its connection.
    pub sensor: Name,
    /// SHA-256 of that certificate.
    pub fingerprint: Sha256,
    /// The batch as it came.
    pub sealed: SealedBatch,
    /// Its header and hash.
    pub verified: VerifiedBatch,
    /// What its body holds, or why that makes no sense.
    pub contents: Result<Contents, String>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is on the disk, and was not before. The chain stands here.
    Stored(ChainHead),
    /// It was on the disk before. The chain stands here.
    Known(ChainHead),
    /// It is refused.
    Refused(Refusal),
}

struct Job {
    incoming: Incoming,
    memory: Option<OwnedSemaphorePermit>,
    answer: oneshot::Sender<Verdict>,
}

/// What the thread is told.
enum Message {
    Batch(Box<Job>),
    /// Answer that what came before is dealt with.
    Turn(oneshot::Sender<()>),
    Stop,
}

/// The way to the thread that commits. It runs until [`Writer::stop`].
#[derive(Debug)]
pub struct Writer {
    sender: WriterHandle,
    thread: JoinHandle<()>,
}

/// What a stream holds of the writer.
#[derive(Clone, Debug)]
pub struct WriterHandle {
    jobs: mpsc::Sender<Message>,
    heads: Arc<RwLock<Heads>>,
}

impl WriterHandle {
    /// Hands a batch over; waits where the queue is full. The verdict comes once the batch's group is committed.
    pub async fn submit(&self, incoming: Incoming) -> Result<oneshot::Receiver<Verdict>, StoreError> {
        self.submit_holding(incoming, None).await
    }

    /// The same; `memory`, a share of a budget, is given back once the batch is answered.
    pub(crate) async fn submit_holding(
        &self,
        incoming: Incoming,
        memory: Option<OwnedSemaphorePermit>,
    ) -> Result<oneshot::Receiver<Verdict>, StoreError> {
        let (answer, verdict) = oneshot::channel();
        let job = Message::Batch(Box::new(Job { incoming, memory, answer }));
        self.jobs.send(job).await.map_err(|_| StoreError::Stopping)?;
        Ok(verdict)
    }

    /// Ends once the thread has committed what was in the queue before, so it tells a thread that works from one that hangs.
    pub(crate) async fn turn(&self) -> Result<(), StoreError> {
        let (answer, turn) = oneshot::channel();
        self.jobs.send(Message::Turn(answer)).await.map_err(|_| StoreError::Stopping)?;
        turn.await.map_err(|_| StoreError::Stopping)
    }

    /// The head held for a sensor; the default where it has delivered nothing.
    pub fn head(&self, sensor: &str) -> ChainHead {
        self.held(sensor).0
    }

    /// The same, with the collector's word for it.
    pub fn held(&self, sensor: &str) -> (ChainHead, Option<Cosignature>) {
        let heads = self.heads.read().unwrap_or_else(PoisonError::into_inner);
        heads.get(sensor).map(|head| (head.head, head.cosignature.clone())).unwrap_or_default()
    }
}

impl Writer {
    /// The way to submit batches.
    pub fn handle(&self) -> WriterHandle {
        self.sender.clone()
    }

    /// Commits what has been submitted and ends the thread; whatever is submitted later is refused. It blocks.
    pub fn stop(self) {
        // Where the thread has ended already there is nobody to tell.
        let _ = self.sender.jobs.blocking_send(Message::Stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread that commits batches has panicked");
        }
    }
}

impl Store {
    /// Opens the store to commit batches. Only one process can: another gets [`StoreError::Locked`].
    pub fn open(config: &StoreConfig) -> Result<(Self, Writer), StoreError> {
        super::make_directory(&config.directory)?;
        let lock = lock(&config.directory.join("lock"))?;
        let store = Self::attach_unchecked(config)?;
        let mut committer = Committer::start(store.clone(), lock)?;
        let (jobs, mut queue) = mpsc::channel(QUEUE);
        let heads = Arc::clone(&committer.heads);
        let run = move || committer.run(&mut queue);
        let thread = std::thread::Builder::new()
            .name("commit".to_owned())
            .spawn(run)
            .map_err(StoreError::io(&config.directory))?;
        Ok((store, Writer { sender: WriterHandle { jobs, heads }, thread }))
    }
}

pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let open = File::options().create(true).truncate(false).write(true).open(path);
    let file = open.map_err(StoreError::io(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked { path: path.to_owned() }),
        Err(std::fs::TryLockError::Error(error)) => Err(StoreError::io(path)(error)),
    }
}

/// The state of the thread.
struct Committer {
    store: Store,
    heads: Arc<RwLock<Heads>>,
    segment: Arc<SegmentFile>,
    connection: Connection,
    stats: SegmentStats,
    /// Collector time of the segment's first batch, in nanoseconds.
    begun: i64,
    closers: Vec<JoinHandle<()>>,
    /// Held as long as this process may commit.
    _lock: File,
}

/// What a group changes, kept apart until it is committed.
#[derive(Default)]
struct Draft {
    /// Of each sensor, and the row of its last batch.
    heads: BTreeMap<Name, (SensorHead, i64)>,
    stats: SegmentStats,
    last: Option<i64>,
    verdicts: Vec<Verdict>,
}

impl Committer {
    fn start(store: Store, lock: File) -> Result<Self, StoreError> {
        for (later, segment) in store.segments().iter().rev().enumerate() {
            segment::bring_up_to_date(segment.readers.path(), later > 0)?;
        }
        let mut heads = store.heads()?;
        let number = store.segments().last().map_or(1, |segment| segment.number);
        let (segment, mut connection) = begin(&store, number, &heads)?;
        let path = segment.readers.path();
        let signed = store.cosigner().sign_held(&mut connection, &mut heads, clock::now());
        signed.map_err(StoreError::sqlite(path))?;
        let stats = SegmentStats::read(&connection).map_err(StoreError::sqlite(path))?;
        segment.set_stats(stats);
        let (begun, last) = connection
            .query_row("SELECT min(received_at), max(id) FROM batches", [], |row| {
                Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
            })
            .map_err(StoreError::sqlite(path))?;
        store.inner.committed.send_replace(Cursor { segment: number, batch: last.unwrap_or(0) });
        let held = Arc::clone(&store.inner.held);
        *held.write().unwrap_or_else(PoisonError::into_inner) = heads;
        let mut committer = Self {
            heads: held,
            segment,
            connection,
            stats,
            begun: begun.unwrap_or_else(|| clock::now().0),
            closers: Vec::new(),
            _lock: lock,
            store,
        };
        // Closing a segment may have been cut short by the end of the process before.
        for segment in committer.store.segments() {
            if segment.number != number && segment.stats().is_none() {
                committer.close(segment);
            }
        }
        committer.vouch();
        Ok(committer)
    }

    fn run(&mut self, queue: &mut mpsc::Receiver<Message>) {
        let size = |job: &Job| job.incoming.contents.as_ref().map_or(0, |contents| contents.flows.len());
        while let Some(message) = queue.blocking_recv() {
            let (mut flows, mut group, mut turns) = (0, Vec::new(), Vec::new());
            let mut next = Some(message);
            while let Some(message) = next {
                match message {
                    Message::Batch(job) => {
                        flows = size(&job).saturating_add(flows);
                        group.push(*job);
                    }
                    Message::Turn(answer) => turns.push(answer),
                    // What is in the queue still comes; nothing new enters it.
                    Message::Stop => queue.close(),
                }
                let full = group.len() >= GROUP_BATCHES || flows >= GROUP_FLOWS;
                next = if full { None } else { queue.try_recv().ok() };
            }
            if !group.is_empty() {
                self.handle(group);
            }
            for turn in turns {
                // Who asked may have given up.
                let _ = turn.send(());
            }
        }
        self.vouch();
        for closer in self.closers.drain(..) {
            // A panic has been logged by the closer's own thread.
            let _ = closer.join();
        }
    }

    /// Enters the heads into the audit trail; where that fails, their cosignatures vouch for them.
    fn vouch(&self) {
        let heads = self.heads.read().unwrap_or_else(PoisonError::into_inner);
        let heads = heads.iter().map(|(sensor, head)| (sensor, &head.head));
        if let Err(error) = self.store.vouch_for(heads, clock::now()) {
            tracing::error!("the heads could not be entered into the audit trail: {error}");
        }
    }

    /// Commits a group and answers it. Where the group fails as a whole for a reason that lies in one of its
    /// batches, each is tried alone, so that one cannot hold up the others.
    fn handle(&mut self, group: Vec<Job>) {
        let (incoming, answers): (Vec<_>, Vec<_>) =
            group.into_iter().map(|job| (job.incoming, (job.answer, job.memory))).unzip();
        let verdicts = match self.rotate_if_due().and_then(|()| self.commit(&incoming)) {
            Ok(verdicts) => verdicts,
            Err(error) if error.is_transient() || incoming.len() == 1 => {
                tracing::error!("{} batches could not be stored: {error}", incoming.len());
                let refusal = Verdict::Refused(Refusal::NotStored(error.to_string()));
                vec![refusal; incoming.len()]
            }
            Err(_) => incoming.iter().map(|one| self.commit_alone(one)).collect(),
        };
        for ((answer, _memory), verdict) in answers.into_iter().zip(verdicts) {
            // The stream may be gone; the agent will ask again.
            let _ = answer.send(verdict);
        }
    }

    fn commit_alone(&mut self, incoming: &Incoming) -> Verdict {
        let not_stored = |error: &dyn std::fmt::Display| {
            tracing::error!(sensor = %incoming.sensor, "a batch could not be stored: {error}");
            Verdict::Refused(Refusal::NotStored(error.to_string()))
        };
        match self.commit(std::slice::from_ref(incoming)) {
            Ok(mut verdicts) => verdicts.pop().unwrap_or_else(|| not_stored(&"no verdict")),
            Err(error) => not_stored(&error),
        }
    }

    /// Commits a group in one transaction. On an error nothing has changed, on the disk or here.
    fn commit(&mut self, group: &[Incoming]) -> Result<Vec<Verdict>, StoreError> {
        let path = self.segment.readers.path().to_owned();
        let mut draft = Draft { stats: self.stats, ..Draft::default() };
        let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)
            .map_err(StoreError::sqlite(&path))?;
        for incoming in group {
            let verdict = self.take(&transaction, incoming, &mut draft)?;
            draft.verdicts.push(verdict);
        }
        self.sign_heads(&transaction, &mut draft.heads).map_err(StoreError::sqlite(&path))?;
        transaction.commit().map_err(StoreError::sqlite(&path))?;
        self.stats = draft.stats;
        self.segment.set_stats(draft.stats);
        self.heads
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(draft.heads.into_iter().map(|(sensor, (head, _))| (sensor, head)));
        if let Some(batch) = draft.last {
            self.store.inner.committed.send_replace(Cursor { segment: self.segment.number, batch });
        }
        Ok(draft.verdicts)
    }

    /// Judges one batch and writes it into the transaction if it is the next of its chain.
    fn take(
        &self,
        transaction: &Transaction<'_>,
        incoming: &Incoming,
        draft: &mut Draft,
    ) -> Result<Verdict, StoreError> {
        let state = self.store.read(|control| sensors::state_of(control, &incoming.fingerprint))?;
        if !matches!(&state, Some((name, SensorState::Active)) if *name == incoming.sensor) {
            return Ok(Verdict::Refused(Refusal::NotAllowed));
        }
        let drafted = draft.heads.get(&incoming.sensor).map(|(head, _)| head.clone());
        let mut head = drafted.unwrap_or_else(|| {
            let heads = self.heads.read().unwrap_or_else(PoisonError::into_inner);
            heads.get(&incoming.sensor).cloned().unwrap_or_default()
        });
        let judgement =
            chain::judge(&incoming.verified, &head.head, || self.stored_hash(transaction, incoming))?;
        match judgement {
            Judgement::Known => Ok(Verdict::Known(head.head)),
            Judgement::Refused(refusal) => {
                self.record_refusal(incoming, &refusal)?;
                Ok(Verdict::Refused(refusal))
            }
            Judgement::Next => {
                let now = clock::now();
                self.record_unusual(incoming, &head, now)?;
                head.advance(&incoming.verified, &incoming.contents, now);
                let id = self
                    .insert(transaction, incoming, &head, &mut draft.stats)
                    .map_err(StoreError::sqlite(self.segment.readers.path()))?;
                draft.last = Some(id);
                let stands = head.head;
                draft.heads.insert(Name::clone(&incoming.sensor), (head, id));
                Ok(Verdict::Stored(stands))
            }
        }
    }

    /// Writes the heads that a group has moved, each with the collector's word for it.
    fn sign_heads(
        &self,
        transaction: &Transaction<'_>,
        heads: &mut BTreeMap<Name, (SensorHead, i64)>,
    ) -> Result<(), rusqlite::Error> {
        for (sensor, (head, batch)) in heads {
            let signed = self.store.cosigner().cosign(sensor, &head.head, head.received_at.0);
            transaction
                .prepare_cached("UPDATE batches SET cosignature = ? WHERE id = ?")?
                .execute(params![signed.encode_to_vec(), *batch])?;
            head.cosignature = Some(signed);
            heads::write(transaction, sensor, head)?;
        }
        Ok(())
    }

    /// The hash stored for the batch's epoch and sequence, in this segment or an earlier one.
    fn stored_hash(
        &self,
        transaction: &Transaction<'_>,
        incoming: &Incoming,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        let header = &incoming.verified.header;
        let find = |connection: &Connection| {
            segment::hash_of(connection, &incoming.sensor, header.epoch, header.sequence)
        };
        if let Some(hash) = find(transaction).map_err(StoreError::sqlite(self.segment.readers.path()))? {
            return Ok(Some(hash));
        }
        for segment in self.store.segments().iter().rev().skip(1) {
            if let Some(hash) = segment.readers.with(find)? {
                return Ok(Some(hash));
            }
        }
        Ok(None)
    }

    fn insert(
        &self,
        transaction: &Transaction<'_>,
        incoming: &Incoming,
        head: &SensorHead,
        stats: &mut SegmentStats,
    ) -> Result<i64, rusqlite::Error> {
        let sealed = &incoming.sealed;
        transaction
            .prepare_cached(
                "INSERT INTO batches
                 (sensor, epoch, sequence, hash, header, body, signature, received_at, records, poison)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                &*incoming.sensor,
                head.head.epoch.cast_signed(),
                head.head.sequence.cast_signed(),
                head.head.hash,
                &sealed.header[..],
                &sealed.body[..],
                &sealed.signature[..],
                head.received_at.0,
                incoming.contents.as_ref().map_or(0, |contents| flow_row::counter(contents.count() as u64)),
                incoming.contents.as_ref().err(),
            ])?;
        let batch = transaction.last_insert_rowid();
        if let Ok(contents) = &incoming.contents {
            flow_row::insert_all(transaction, batch, &contents.flows)?;
            contents.flows.iter().for_each(|flow| stats.add(flow.start, flow.end));
        }
        Ok(batch)
    }

    /// Records a fork or a rollback and keeps the batch. A gap is what every reconnection may bring; it is noted, so that
    /// one that lasts is seen.
    fn record_refusal(&self, incoming: &Incoming, refusal: &Refusal) -> Result<(), StoreError> {
        let kind = match refusal {
            Refusal::Fork { .. } => EventKind::Fork,
            Refusal::Rollback { .. } => EventKind::Rollback,
            &Refusal::Gap { epoch, expected, got } => {
                let (sensor, since) = (Name::clone(&incoming.sensor), clock::now());
                return self.store.note_gap(OpenGap { sensor, epoch, expected, got, since, told: false });
            }
            Refusal::NotAllowed | Refusal::NotStored(_) => return Ok(()),
        };
        tracing::warn!(sensor = %incoming.sensor, "{refusal}");
        let event = self.event(incoming, kind, refusal.to_string());
        self.store
            .transaction(|control| events::quarantine(control, &incoming.sealed, &incoming.verified, &event))
    }

    /// Records what is unusual about a batch that is accepted. This comes before the commit: should the commit
    /// fail, the batch comes again and the event is the same.
    fn record_unusual(
        &self,
        incoming: &Incoming,
        head: &SensorHead,
        now: onenet_core::time::Timestamp,
    ) -> Result<(), StoreError> {
        let header = &incoming.verified.header;
        let mut unusual = Vec::new();
        if let Err(reason) = &incoming.contents {
            let message = format!("batch {} of epoch {}: {reason}", header.sequence, header.epoch);
            tracing::warn!(sensor = %incoming.sensor, "{message}");
            unusual.push(self.event(incoming, EventKind::Poison, message));
        }
        if header.sequence == 1 {
            let before = std::iter::once((&incoming.sensor, &head.head));
            self.store.vouch_for(before, now)?;
            let message = match head.batches {
                0 => format!("first batch, epoch {}", header.epoch),
                _ => format!("epoch {} after epoch {}", header.epoch, head.head.epoch),
            };
            unusual.push(self.event(incoming, EventKind::EpochStarted, message));
        }
        if unusual.is_empty() {
            return Ok(());
        }
        self.store.transaction(|control| {
            unusual
                .iter()
                .try_for_each(|event| events::insert(control, &Event { time: now, ..event.clone() }))
        })
    }

    fn event(&self, incoming: &Incoming, kind: EventKind, message: String) -> Event {
        let header = &incoming.verified.header;
        Event {
            time: clock::now(),
            kind,
            sensor: incoming.sensor.to_string(),
            batch: Some((header.epoch, header.sequence, incoming.verified.hash)),
            message,
        }
    }

    fn rotate_if_due(&mut self) -> Result<(), StoreError> {
        let config = &self.store.inner.config;
        let hours = i64::try_from(config.segment_max_hours).unwrap_or(i64::MAX);
        let max_age = hours.saturating_mul(3_600_000_000_000);
        let now = clock::now().0;
        let old = self.stats.flows > 0 && now.saturating_sub(self.begun) >= max_age;
        if self.stats.flows < config.segment_max_flows && !old {
            return Ok(());
        }
        let heads = self.heads.read().unwrap_or_else(PoisonError::into_inner).clone();
        let number = self.segment.number.saturating_add(1);
        let (segment, connection) = begin(&self.store, number, &heads)?;
        let closed = std::mem::replace(&mut self.segment, segment);
        self.connection = connection;
        self.stats = SegmentStats::default();
        self.segment.set_stats(self.stats);
        self.begun = now;
        self.close(closed);
        Ok(())
    }

    /// Builds the indexes of a segment that is written no more, on a thread of its own.
    fn close(&mut self, segment: Arc<SegmentFile>) {
        let store = self.store.clone();
        let close = move || {
            let path = segment.readers.path();
            let closed = segment::close(path).and_then(|stats| {
                store.register_closed(segment.number, stats, clock::now())?;
                segment.set_stats(stats);
                Ok(())
            });
            if let Err(error) = closed {
                tracing::warn!("closing a segment failed and is tried again at the next start: {error}");
            }
        };
        match std::thread::Builder::new().name("close-segment".to_owned()).spawn(close) {
            Ok(closer) => self.closers.push(closer),
            Err(error) => {
                tracing::warn!("no thread to close a segment, tried again at the next start: {error}")
            }
        }
        self.closers.retain(|closer| !closer.is_finished());
    }
}

/// Opens the segment that is written to, and makes it known to readers.
fn begin(store: &Store, number: u32, heads: &Heads) -> Result<(Arc<SegmentFile>, Connection), StoreError> {
    let directory = store.segment_directory();
    let path = segment::path(&directory, number);
    let connection = segment::open(&path, heads)?;
    connection
        .pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
        .map_err(StoreError::sqlite(&path))?;
    super::sync_directory(&directory)?;
    let known = store.segments().into_iter().find(|segment| segment.number == number);
    let segment = known.unwrap_or_else(|| store.add_segment(SegmentFile::new(number, path)));
    Ok((segment, connection))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Sensor, store_config};

    /// What a kill at this moment would leave on the disk: a copy of every file.
    fn image(config: &StoreConfig) -> (tempfile::TempDir, StoreConfig) {
        let directory = tempfile::tempdir().expect("a directory");
        let copy = store_config(&directory);
        std::fs::create_dir_all(copy.directory.join("segments")).expect("made");
        for part in ["", "segments"] {
            for entry in std::fs::read_dir(config.directory.join(part)).expect("listed").flatten() {
                // The shared memory of the log lives in the memory of the process that is killed.
                let name = entry.file_name();
                if entry.path().is_file() && !name.to_string_lossy().ends_with("-shm") {
                    std::fs::copy(entry.path(), copy.directory.join(part).join(name)).expect("copied");
                }
            }
        }
        (directory, copy)
    }

    fn held(config: &StoreConfig) -> (u64, usize, usize) {
        let (store, writer) = Store::open(config).expect("the image opens");
        let head = writer.handle().head("boston-1").sequence;
        let batches = store.batches_after(Cursor::default(), 10).expect("readable").len();
        let flows = store.flows(&super::super::FlowQuery::default()).expect("readable").flows.len();
        writer.stop();
        (head, batches, flows)
    }

    #[test]
    fn a_kill_between_write_and_commit_leaves_nothing_and_after_the_commit_leaves_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = store_config(&directory);
        std::fs::create_dir_all(&config.directory).expect("made");
        let lock = lock(&config.directory.join("lock")).expect("it is free");
        let store = Store::attach(&config).expect("a new store");
        let mut sensor = Sensor::new("boston-1");
        sensor.enter(&store);
        let mut committer = Committer::start(store, lock).expect("it starts");
        let incoming = [sensor.batch(2), sensor.batch(3)].map(|batch| sensor.incoming(&batch));

        let mut draft = Draft::default();
        let transaction = Transaction::new_unchecked(&committer.connection, TransactionBehavior::Immediate)
            .expect("a transaction");
        for batch in &incoming {
            let verdict = committer.take(&transaction, batch, &mut draft).expect("it is written");
            assert!(matches!(verdict, Verdict::Stored(_)));
        }
        transaction.cache_flush().expect("written to the log, not committed");
        let (_directory, before) = image(&config);
        assert_eq!(held(&before), (0, 0, 0));
        drop(transaction);

        let verdicts = committer.commit(&incoming).expect("it is committed");
        assert_eq!(verdicts.len(), 2);
        let (_directory, after) = image(&config);
        assert_eq!(held(&after), (2, 2, 5));
    }
}
