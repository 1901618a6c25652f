//! The sealing thread: drafts and heartbeats become sealed batches in the spool, one fsync for many. Only this
//! thread writes to the spool, so a slow disk holds back the sources and the network holds back nobody.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use onenet_core::record::Ledger;
use onenet_proto::{
    seal::{ALGORITHM_ED25519_SHA256, ChainHead, SealError, Sealer, SigningKey},
    v1::{self, AuditEntry, BatchBody, BatchKind, EpochStart},
};
use prost::Message as _;
use tokio::sync::watch;

use super::{batch::Draft, loss::Losses, shed::Shedding};
use crate::{
    ship::Anew,
    spool::{Batch, Head, Mark, Opened, Writer},
};

/// Bytes that go to disk at once, at most, before the interval is over.
const FLUSH_BYTES: u64 = 2 << 20;
/// How long to leave a disk alone that has failed.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How often the thread looks up where nothing comes in.
const TICK: Duration = Duration::from_millis(50);
/// Bytes that a seal and its place in the spool add to a batch, at most.
const SEAL_BYTES: u64 = 512;
/// How often the reserve is taken again, if it was given back.
const RESERVE_INTERVAL: Duration = Duration::from_secs(1);

/// What to do with records that the spool has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// The source waits: it can read again later.
    Wait,
    /// The source cannot wait: detail is shed, in order, and the loss is sealed.
    Shed,
}

/// The wall clock, nanoseconds since the Unix epoch. It may be wrong and may step: nothing is ordered by it.
pub(crate) type Clock = fn() -> i64;

/// How to seal.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Name of the sensor.
    pub(crate) sensor: String,
    /// Its signing key, PKCS #8.
    pub(crate) signing_key: Vec<u8>,
    /// Bytes of the spool.
    pub(crate) limit_bytes: u64,
    /// Beyond them.
    pub(crate) when_full: WhenFull,
    /// Between heartbeats.
    pub(crate) heartbeat: Duration,
    /// Longest wait for an fsync.
    pub(crate) flush_interval: Duration,
    /// The plan that records are judged by at the start.
    pub(crate) plan: v1::PlanHeld,
    /// Fingerprint of the run; 0 for live sources.
    pub(crate) run: u64,
    /// The wall clock.
    pub(crate) clock: Clock,
}

/// What the sealing thread tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct SealState {
    /// The last batch sealed, durable or not.
    pub(crate) head: Head,
    /// Why the spool takes nothing, where it does not.
    pub(crate) failing: Option<String>,
    /// Whether a source is made to wait.
    pub(crate) waiting: bool,
    /// What was shed or is missing, since the start.
    pub(crate) losses: Losses,
}

/// What the shipper asks for.
enum Request {
    Anew(Anew),
    /// The collector's head that an operator accepted, and what to tell of it.
    Accept(ChainHead, String),
}

/// A request, and where the answer goes.
type Asked = (Request, SyncSender<Result<(), String>>);

/// What the other threads share with the sealing thread.
pub(crate) struct SealControl {
    /// The sensor's account, as last told. None while records are passed over that are sealed already: the
    /// account of the run before holds until this one has caught up with it.
    pub(crate) ledger: Mutex<Option<Ledger>>,
    /// No batch that still waits for room is wanted any more.
    pub(crate) stopping: AtomicBool,
    /// The thread is to end.
    pub(crate) closing: AtomicBool,
    /// Grows as long as the thread is alive.
    pub(crate) beat: AtomicU64,
    /// True once there are no more drafts and everything is durable.
    pub(crate) finished: watch::Sender<bool>,
    state: Mutex<SealState>,
    asked: Mutex<Option<Asked>>,
    /// What is to be told in the next batch.
    audit: Mutex<Vec<AuditEntry>>,
    clock: Clock,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SealControl {
    pub(crate) fn new() -> Arc<Self> {
        Self::with_clock(wall_time)
    }

    /// With this wall clock.
    pub(crate) fn with_clock(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            ledger: Mutex::default(),
            stopping: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            beat: AtomicU64::new(0),
            finished: watch::Sender::new(false),
            state: Mutex::default(),
            asked: Mutex::default(),
            audit: Mutex::default(),
            clock,
        })
    }

    /// What the thread last told.
    pub(crate) fn state(&self) -> SealState {
        lock(&self.state).clone()
    }

    /// Has what the collector cannot take sealed anew; done on return.
    pub(crate) fn seal_anew(&self, anew: Anew) -> Result<(), String> {
        self.ask(Request::Anew(anew))
    }

    /// Has the cosigned head given up for the one that the collector holds; done on return.
    pub(crate) fn accept_head(&self, held: ChainHead, detail: String) -> Result<(), String> {
        self.ask(Request::Accept(held, detail))
    }

    fn ask(&self, request: Request) -> Result<(), String> {
        let (answer, answered) = sync_channel(1);
        *lock(&self.asked) = Some((request, answer));
        answered.recv().unwrap_or_else(|_| Err("sealing has stopped".to_owned()))
    }

    /// Enters what was done, to be told with the next batch, which is sealed at once. `detail` is one line.
    pub(crate) fn audit(&self, action: &str, detail: String) {
        lock(&self.audit).push(AuditEntry { time: (self.clock)(), action: action.to_owned(), detail });
    }
}

/// The wall clock, nanoseconds since the Unix epoch.
pub(crate) fn wall_time() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// An epoch that begins now: milliseconds since the Unix epoch. Where a greater one is known, that one counts.
pub(crate) fn epoch_now() -> u64 {
    epoch_at(wall_time())
}

fn epoch_at(wall_time: i64) -> u64 {
    u64::try_from(wall_time / 1_000_000).unwrap_or_default()
}

/// The sealing thread's own state.
pub(crate) struct SealLoop {
    pub(super) settings: Settings,
    pub(super) control: Arc<SealControl>,
    pub(super) writer: Writer,
    pub(super) sealer: Sealer,
    /// What the first batch of the epoch tells.
    pub(super) epoch_start: Option<EpochStart>,
    pub(super) mark: Mark,
    losses: Losses,
    pub(super) shedding: Shedding,
    reserve_tried: Instant,
    losses_sealed: Instant,
    started: Instant,
    /// Monotonic time at the start.
    account: u64,
    heartbeat_sealed: Instant,
    pub(super) failed_at: Option<Instant>,
    /// A draft was given up, so that none behind it may be sealed either.
    given_up: bool,
}

impl SealLoop {
    /// Goes on where a spool stands.
    pub(crate) fn new(
        settings: Settings,
        control: Arc<SealControl>,
        opened: Opened,
    ) -> Result<Self, SealError> {
        let Opened { writer, head, new_epoch, start } = opened;
        let key = SigningKey::from_pkcs8(&settings.signing_key)?;
        let sealer = Sealer::new(key, settings.sensor.clone(), head.chain);
        let mut mark = head.mark;
        if mark.run != settings.run || settings.run == 0 {
            mark = Mark { run: settings.run, run_records: 0, monotonic: 0, ..mark };
        }
        // Told from the start: what is in the spool does not begin with this process.
        lock(&control.state).head = Head { chain: head.chain, mark };
        // Before anything else that may be done to this run.
        control.audit("started", format!("onenet-agent {}", env!("CARGO_PKG_VERSION")));
        let now = Instant::now();
        Ok(Self {
            settings,
            control,
            writer,
            sealer,
            epoch_start: Some(start.to_wire(new_epoch.unwrap_or_default().to_owned())),
            mark,
            losses: Losses::default(),
            shedding: Shedding::new(),
            reserve_tried: now,
            losses_sealed: now,
            started: now,
            account: mark.monotonic,
            heartbeat_sealed: now,
            failed_at: None,
            given_up: false,
        })
    }

    /// Seals until there are no more drafts, and keeps the spool until told to close.
    pub(crate) fn run(mut self, drafts: &Receiver<Draft>) {
        self.seal_heartbeat();
        let mut open = true;
        loop {
            if open {
                match drafts.recv_timeout(self.tick()) {
                    Ok(draft) => self.take(draft),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => {
                        open = false;
                        self.tell_aggregates(true);
                        let stopping = self.control.stopping.load(Ordering::SeqCst);
                        let why = if stopping { "asked to stop" } else { "every source has ended" };
                        self.control.audit("stopped", why.to_owned());
                        self.seal_heartbeat();
                        self.flush();
                    }
                }
            } else {
                std::thread::sleep(TICK);
            }
            self.look_after();
            if !open && self.writer.pending_bytes() == 0 {
                self.control.finished.send_replace(true);
            }
            if !open && self.control.closing.load(Ordering::SeqCst) {
                break;
            }
        }
        if let Err(error) = self.writer.close() {
            tracing::error!(%error, "the spool cannot be closed in order; nothing that was durable is lost");
        }
        self.tell(false);
    }

    fn tick(&self) -> Duration {
        let flush = self.writer.pending_age().map(|age| self.settings.flush_interval.saturating_sub(age));
        flush.unwrap_or(TICK * 2).min(TICK * 2)
    }

    /// What is due at any time: fsync, heartbeat, losses, deletion, requests.
    fn look_after(&mut self) {
        self.control.beat.fetch_add(1, Ordering::Relaxed);
        if self.reserve_tried.elapsed() >= RESERVE_INTERVAL {
            self.reserve_tried = Instant::now();
            if self.writer.is_tight() && self.writer.take_reserve().is_ok() {
                tracing::info!("the spool's disk has room again, and its reserve is taken");
            }
        }
        self.tell_aggregates(false);
        let due = self.heartbeat_sealed.elapsed() >= self.heartbeat_interval();
        if due || !lock(&self.control.audit).is_empty() {
            self.seal_heartbeat();
        }
        if !self.losses.is_empty() && self.losses_sealed.elapsed() >= self.loss_interval() {
            self.seal_heartbeat();
        }
        let old = self.writer.pending_age().is_some_and(|age| age >= self.settings.flush_interval);
        if old {
            self.flush();
        }
        if let Err(error) = self.writer.tidy() {
            tracing::warn!(%error, state = %self.writer.state_path().display(), "acks cannot be recorded yet");
        }
        let asked = lock(&self.control.asked).take();
        if let Some((request, answer)) = asked {
            let done = match request {
                Request::Anew(anew) => self.seal_anew(&anew),
                Request::Accept(held, detail) => self.accept_head(&held, detail),
            };
            // Whoever asked may be gone.
            let _ = answer.send(done);
        }
        self.tell(false);
    }

    fn tell(&self, waiting: bool) {
        let mut state = lock(&self.control.state);
        state.head = Head { chain: self.sealer.head(), mark: self.mark };
        state.waiting = waiting;
    }

    /// Takes a draft, once there is room for it or what there is no room for is shed.
    fn take(&mut self, mut draft: Draft) {
        let bytes = u64::try_from(draft.bytes).unwrap_or(u64::MAX);
        match self.settings.when_full {
            WhenFull::Wait => {
                self.given_up = self.given_up || !self.wait_for_room(bytes);
                if self.given_up {
                    return;
                }
            }
            WhenFull::Shed => self.shed(&mut draft.body),
        }
        let BatchBody { flows, observations, findings, .. } = &draft.body;
        let (flows, observations, findings) = (flows.len(), observations.len(), findings.len());
        if let Some(plan) = draft.body.plan.take() {
            // Said once more where no audit entry goes with it, as when a file was read again.
            self.settings.plan = plan;
            self.seal_heartbeat();
        }
        self.mark.run_records = draft.run_records;
        if flows + observations + findings == 0 {
            return;
        }
        self.mark.flows += flows as u64;
        self.mark.observations += observations as u64;
        self.mark.findings += findings as u64;
        self.seal(draft.body, BatchKind::Records, self.mark);
    }

    /// Waits until the spool takes so many bytes; false where that is not wanted any more. The draft is then
    /// dropped: its records are made again from the same capture.
    fn wait_for_room(&mut self, bytes: u64) -> bool {
        let spool = self.writer.shared().clone();
        loop {
            let needed = self.writer.used_bytes().saturating_add(bytes).saturating_add(SEAL_BYTES);
            let fits = needed <= self.settings.limit_bytes;
            if fits && self.failed_at.is_none() && !self.writer.is_tight() {
                return true;
            }
            if self.control.stopping.load(Ordering::SeqCst) {
                return false;
            }
            self.flush();
            self.look_after();
            self.tell(true);
            spool.wait_for_acknowledgement(TICK);
        }
    }

    pub(super) fn lose(&mut self, lost: &Losses) {
        self.losses.merge(lost);
        lock(&self.control.state).losses.total(lost);
    }

    pub(super) fn wall_time(&self) -> i64 {
        (self.settings.clock)()
    }

    pub(super) fn epoch_now(&self) -> u64 {
        epoch_at(self.wall_time())
    }

    pub(super) fn seal_heartbeat(&mut self) {
        if self.may_seal_heartbeat() {
            self.seal_heartbeat_at_any_rate();
        }
    }

    pub(super) fn seal_heartbeat_at_any_rate(&mut self) {
        let ledger = lock(&self.control.ledger).as_ref().map(v1::Ledger::from);
        self.heartbeat_sealed = Instant::now();
        self.seal(BatchBody { ledger, ..BatchBody::default() }, BatchKind::Heartbeat, self.mark);
    }

    pub(super) fn seal(&mut self, mut body: BatchBody, kind: BatchKind, mut mark: Mark) {
        if !self.losses.is_empty() {
            body.losses.extend(self.losses.take());
            self.losses_sealed = Instant::now();
        }
        body.audit.append(&mut lock(&self.control.audit));
        // What is sealed anew was judged by the plan that it says.
        body.plan.get_or_insert_with(|| self.settings.plan.clone());
        let first = self.sealer.head().sequence == 0;
        body.epoch_start = self.epoch_start.take().filter(|_| first);
        let previous_hash = self.sealer.head().hash;
        let sealed_at = self.wall_time();
        let elapsed = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        mark.monotonic = self.account.saturating_add(elapsed);
        let monotonic = i64::try_from(mark.monotonic).unwrap_or(i64::MAX);
        let sealed = self.sealer.seal(&body, kind, sealed_at, monotonic);
        let records = body.flows.len() + body.observations.len() + body.findings.len();
        self.writer.append(&Batch {
            payload: &sealed.encode_to_vec(),
            kind: u8::try_from(i32::from(kind)).unwrap_or_default(),
            algorithm: u16::try_from(ALGORITHM_ED25519_SHA256).unwrap_or_default(),
            records: u32::try_from(records).unwrap_or(u32::MAX),
            previous_hash,
            chain: self.sealer.head(),
            sealed_at,
            mark,
        });
        if self.writer.pending_bytes() >= FLUSH_BYTES {
            self.flush();
        }
    }

    /// Makes what is sealed durable, unless the disk failed a moment ago.
    pub(super) fn flush(&mut self) {
        if self.failed_at.is_some_and(|at| at.elapsed() < RETRY_INTERVAL) {
            return;
        }
        match self.writer.flush() {
            Ok(()) => {
                if self.failed_at.take().is_some() {
                    tracing::info!("the spool takes batches again");
                    lock(&self.control.state).failing = None;
                }
            }
            Err(error) => {
                if self.failed_at.is_none() {
                    tracing::error!(%error, "the spool cannot be written; trying again");
                }
                self.failed_at = Some(Instant::now());
                lock(&self.control.state).failing = Some(error.to_string());
            }
        }
    }
}

pub(super) fn sum<M: prost::Message>(messages: &[M]) -> usize {
    messages.iter().map(prost::Message::encoded_len).sum()
}
