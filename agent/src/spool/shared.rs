//! What the writer of a spool and its readers know in common.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use onenet_proto::seal::ChainHead;
use tokio::sync::watch;

use super::{
    Head, Position, disk::Filesystem, open::Settings, quarantine::Quarantine, reader::Reader, state::Cosigned,
};

/// One segment that may be read.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    /// Bytes that are durable; nothing beyond is ever read.
    pub(super) length: u64,
    /// First sound record, none where there is none.
    pub(super) first: Option<Position>,
    /// Last record; none until it is known.
    pub(super) last: Option<Position>,
}

/// What was found unreadable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Records whose payload does not fit its checksum.
    pub(crate) records: u64,
    /// Bytes between records that are no record.
    pub(crate) skipped_bytes: u64,
    /// Bytes of a torn write cut off at start.
    pub(crate) torn_bytes: u64,
}

/// What a spool has beside its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Storage {
    /// Segment files.
    pub(crate) segments: u64,
    /// Bytes kept back for a full disk; 0 while they are given back.
    pub(crate) reserve_bytes: u64,
    /// Files in quarantine.
    pub(crate) quarantine_files: u64,
    /// Their bytes.
    pub(crate) quarantine_bytes: u64,
    /// Files that were dropped from there, or never got there, for want of room.
    pub(crate) quarantine_dropped: u64,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) segments: VecDeque<Segment>,
    pub(super) durable: Head,
    pub(super) acked: ChainHead,
    pub(super) cosigned: Option<Cosigned>,
    pub(super) damage: Damage,
    /// Place up to which damage has been counted.
    pub(super) counted: (u64, u64),
    pub(super) quarantine: Quarantine,
    /// Bytes kept back for a full disk.
    pub(super) reserve: u64,
}

/// The account of a spool: segments, what is durable, what is acknowledged.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) directory: PathBuf,
    pub(super) filesystem: Arc<dyn Filesystem>,
    pub(super) settings: Settings,
    inner: Mutex<Inner>,
    acknowledged: Condvar,
    durable: watch::Sender<Position>,
}

impl Shared {
    pub(super) fn new(
        directory: PathBuf,
        filesystem: Arc<dyn Filesystem>,
        settings: Settings,
        inner: Inner,
    ) -> Self {
        let durable = watch::Sender::new(Position::from(&inner.durable.chain));
        Self {
            directory,
            filesystem,
            settings,
            inner: Mutex::new(inner),
            acknowledged: Condvar::new(),
            durable,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the spool is.
    pub(crate) fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// Tells the readers what is durable.
    pub(super) fn publish(&self, head: Head) {
        self.lock().durable = head;
        self.durable.send_replace(Position::from(&head.chain));
    }

    /// Watches the last durable batch.
    pub(crate) fn watch_durable(&self) -> watch::Receiver<Position> {
        self.durable.subscribe()
    }

    /// The last durable batch.
    pub(crate) fn durable(&self) -> Head {
        self.lock().durable
    }

    /// The last acknowledged batch.
    pub(crate) fn acked(&self) -> ChainHead {
        self.lock().acked
    }

    /// Whether every durable batch is acknowledged.
    pub(crate) fn all_acked(&self) -> bool {
        let inner = self.lock();
        inner.durable.chain.sequence == 0 || inner.acked == inner.durable.chain
    }

    /// Enters what the collector has committed; an older acknowledgement changes nothing.
    pub(crate) fn acknowledge(&self, head: ChainHead) {
        let mut inner = self.lock();
        if Position::from(&head) > Position::from(&inner.acked) {
            inner.acked = head;
            drop(inner);
            self.acknowledged.notify_all();
        }
    }

    /// The latest head that the collector has cosigned.
    pub(crate) fn cosigned(&self) -> Option<Cosigned> {
        self.lock().cosigned
    }

    /// Keeps a cosignature that was verified; it is durable with one of the next writes of the state. One for an older
    /// head, or for another one in the same place, changes nothing.
    pub(crate) fn keep_cosignature(&self, cosigned: Cosigned) {
        let mut inner = self.lock();
        let behind = |known: Cosigned| Position::from(&known.head) >= Position::from(&cosigned.head);
        if !inner.cosigned.is_some_and(behind) {
            inner.cosigned = Some(cosigned);
        }
    }

    /// Goes back to what the collector holds, and gives up the head that it cosigned.
    pub(crate) fn set_back(&self, held: ChainHead) {
        let mut inner = self.lock();
        inner.acked = held;
        inner.cosigned = None;
    }

    /// Waits for an acknowledgement, at most this long.
    pub(crate) fn wait_for_acknowledgement(&self, at_most: Duration) {
        let inner = self.lock();
        let seen = inner.acked;
        let waited = self.acknowledged.wait_timeout_while(inner, at_most, |inner| inner.acked == seen);
        drop(waited);
    }

    /// Bytes of all segments, the reserve and the quarantine.
    pub(crate) fn used_bytes(&self) -> u64 {
        let inner = self.lock();
        let segments: u64 = inner.segments.iter().map(|segment| segment.length).sum();
        segments.saturating_add(inner.reserve).saturating_add(inner.quarantine.bytes())
    }

    /// What is to be kept back for a full disk.
    pub(crate) const fn reserve_bytes(&self) -> u64 {
        self.settings.reserve_bytes
    }

    /// What is kept back for a full disk and what is kept of damage.
    pub(crate) fn storage(&self) -> Storage {
        let inner = self.lock();
        Storage {
            segments: inner.segments.len() as u64,
            reserve_bytes: inner.reserve,
            quarantine_files: inner.quarantine.files(),
            quarantine_bytes: inner.quarantine.bytes(),
            quarantine_dropped: inner.quarantine.dropped(),
        }
    }

    /// What was found unreadable so far.
    pub(crate) fn damage(&self) -> Damage {
        self.lock().damage
    }

    /// When the oldest batch that waits was sealed, nanoseconds since the Unix epoch.
    pub(crate) fn oldest_waiting(self: &Arc<Self>) -> Option<i64> {
        if self.all_acked() {
            return None;
        }
        let mut reader = Reader::new(self.clone());
        reader.seek(Position::from(&self.acked()));
        reader.peek().ok().flatten().map(|header| header.sealed_at)
    }
}
