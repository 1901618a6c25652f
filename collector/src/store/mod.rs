//! The store: a control database and flow segments, all SQLite with write-ahead logs and durable commits.
//!
//! - `control.db` holds what is small: sensors, tokens, events, findings, inventory, cursors.
//! - `segments/flows-<n>.db` holds sealed batches and their flows, one file for each span of collector time. A
//!   batch, its flows and the sensor's chain head are committed in one transaction of one file, because a
//!   transaction over two files is not atomic.
//!
//! Exactly one [`Writer`] commits batches, on its own thread. Everything else may read at the same time, also from
//! another process. All functions here block; async code calls them through [`Store::call`].

pub(crate) mod acknowledgements;
pub(crate) mod archive;
pub(crate) mod audit;
mod batches;
mod chain;
mod connection;
mod contents;
mod control;
pub(crate) mod control_cursors;
pub(crate) mod control_custody;
pub(crate) mod control_findings;
pub(crate) mod control_inventory;
pub(crate) mod control_losses;
pub(crate) mod control_overlaps;
pub(crate) mod cosign;
mod error;
pub(crate) mod events;
mod flow_row;
mod flows;
mod heads;
pub(crate) mod inventory_list;
pub(crate) mod inventory_sweep;
pub(crate) mod plans;
mod records;
mod retention;
mod segment;
mod sensors;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use onenet_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use serde::Deserialize;
use tokio::sync::watch;

use crate::files;

pub use batches::{Cursor, StoredBatch};
pub use chain::Refusal;
pub use contents::Contents;
pub use error::StoreError;
pub use events::{Event, EventKind, StoredEvent};
pub use flows::{FlowCursor, FlowPage, FlowQuery, StoredFlow};
pub use heads::{Heads, SensorHead};
pub use records::Records;
pub(crate) use retention::DELETED;
pub use segment::{SegmentNumber, SegmentStats};
pub use sensors::{
    Enrolled, Enrollment, EnrollmentRefused, IssuedCertificate, NewToken, SensorEntry, SensorState, Sha256,
};
pub use writer::{Incoming, Verdict, Writer, WriterHandle};

/// The section `[store]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Where everything is kept.
    pub directory: PathBuf,
    /// Flows after which the next segment begins.
    pub segment_max_flows: u64,
    /// Hours of collector time after which the next segment begins.
    pub segment_max_hours: u64,
    /// Days for which batches and their flows are kept, by the time they were received; 0 = for ever.
    pub keep_days: u32,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("data"),
            segment_max_flows: 5_000_000,
            segment_max_hours: 24,
            keep_days: 400,
        }
    }
}

/// The store, to be cloned and shared.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: StoreConfig,
    control: control::Control,
    cosigner: cosign::Cosigner,
    segments: RwLock<BTreeMap<SegmentNumber, Arc<SegmentFile>>>,
    committed: watch::Sender<Cursor>,
    /// The heads as they were committed last; filled where this process commits.
    held: Arc<RwLock<Heads>>,
}

/// One segment as readers see it.
#[derive(Debug)]
struct SegmentFile {
    number: SegmentNumber,
    readers: connection::Readers,
    /// What it holds; none where that is not known, as for a segment another process writes.
    stats: RwLock<Option<SegmentStats>>,
}

impl SegmentFile {
    fn new(number: SegmentNumber, path: PathBuf) -> Self {
        Self { number, readers: connection::Readers::new(path), stats: RwLock::default() }
    }

    fn stats(&self) -> Option<SegmentStats> {
        *self.stats.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_stats(&self, stats: SegmentStats) {
        *self.stats.write().unwrap_or_else(PoisonError::into_inner) = Some(stats);
    }
}

impl Store {
    /// Opens the store beside whoever writes it, and makes its directories and the control database where they
    /// are absent. Segments that begin later are seen after [`Store::refresh`].
    ///
    /// A segment of an earlier version is an error: the collector brings it up to date when it starts.
    pub fn attach(config: &StoreConfig) -> Result<Self, StoreError> {
        let store = Self::attach_unchecked(config)?;
        for file in store.segments() {
            let found = file.readers.with(connection::version)?;
            if found != segment::VERSION {
                let path = file.readers.path().to_owned();
                return Err(StoreError::Schema { path, found, expected: segment::VERSION });
            }
        }
        Ok(store)
    }

    /// The same, whatever version its segments are of.
    fn attach_unchecked(config: &StoreConfig) -> Result<Self, StoreError> {
        let segments = config.directory.join("segments");
        make_directory(&segments)?;
        let control = control::Control::open(&config.directory.join("control.db"))?;
        let cosigner = cosign::Cosigner::load_or_create(&config.directory, &control)?;
        let inner = Inner {
            config: config.clone(),
            control,
            cosigner,
            segments: RwLock::default(),
            committed: watch::Sender::new(Cursor::default()),
            held: Arc::default(),
        };
        let store = Self { inner: Arc::new(inner) };
        store.refresh()?;
        Ok(store)
    }

    /// Looks for segments that another process has begun.
    pub fn refresh(&self) -> Result<(), StoreError> {
        let directory = self.segment_directory();
        for number in segment::list(&directory)? {
            let known =
                self.inner.segments.read().unwrap_or_else(PoisonError::into_inner).contains_key(&number);
            let file = SegmentFile::new(number, segment::path(&directory, number));
            if known || !file.readers.with(segment::is_made)? {
                continue;
            }
            if let Some(stats) = self.closed_stats(number)? {
                file.set_stats(stats);
            }
            self.add_segment(file);
        }
        Ok(())
    }

    /// Runs blocking work on the store off the async executor.
    pub async fn call<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    {
        let store = self.clone();
        tokio::task::spawn_blocking(move || work(&store)).await.map_err(|_| StoreError::Stopping)?
    }

    /// Runs `work` in one transaction of the control database and commits it; an error undoes it whole.
    pub fn transaction<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let (value, mark) = self.inner.control.transaction(|transaction| {
            let value = work(transaction)?;
            Ok((value, audit::follow_events(transaction, &self.inner.cosigner)?))
        })?;
        self.mark(mark);
        Ok(value)
    }

    /// Runs `work` on a read-only connection to the control database.
    pub fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        self.inner.control.read(work)
    }

    /// Follows the commits: the newest batch committed by this process. Whoever follows batches waits here.
    pub fn committed(&self) -> watch::Receiver<Cursor> {
        self.inner.committed.subscribe()
    }

    /// The same as [`Store::heads`], from memory; nothing where another process commits.
    pub(crate) fn held(&self) -> Heads {
        self.inner.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where each sensor's chain stands on the disk, with its totals.
    pub fn heads(&self) -> Result<Heads, StoreError> {
        let newest = self.segments().pop();
        newest.map_or_else(|| Ok(Heads::new()), |segment| segment.readers.with(heads::read))
    }

    fn segment_directory(&self) -> PathBuf {
        self.inner.config.directory.join("segments")
    }

    /// The segments, oldest first.
    fn segments(&self) -> Vec<Arc<SegmentFile>> {
        self.inner.segments.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Takes a segment out of those that readers see.
    fn forget_segment(&self, number: SegmentNumber) {
        self.inner.segments.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    fn add_segment(&self, segment: SegmentFile) -> Arc<SegmentFile> {
        let segment = Arc::new(segment);
        let mut segments = self.inner.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.insert(segment.number, Arc::clone(&segment));
        segment
    }

    /// Enters a closed segment into the registry.
    fn register_closed(
        &self,
        number: SegmentNumber,
        stats: SegmentStats,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transaction(|transaction| {
            let (first, last) = stats.span.unzip();
            transaction.execute(
                "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?)",
                params![number, flow_row::counter(stats.flows), first, last, now.0],
            )?;
            Ok(())
        })
    }

    /// What the registry says of a closed segment.
    fn closed_stats(&self, number: SegmentNumber) -> Result<Option<SegmentStats>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT flows, min_start, max_end FROM segments WHERE number = ?";
            let stats = connection.query_row(sql, params![number], |row| {
                let span = row.get::<_, Option<i64>>(1)?.zip(row.get(2)?);
                Ok(SegmentStats { flows: row.get::<_, i64>(0)?.cast_unsigned(), span })
            });
            stats.optional()
        })
    }
}

/// Makes a directory that only its owner can read, where it is absent: flows tell who talked to whom.
fn make_directory(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StoreError::io(path))
}

/// Writes a file that is to take the place of `name` in `directory`, whole: its owner alone may read it.
fn private_draft(directory: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, StoreError> {
    files::draft(directory, name, bytes, files::PRIVATE)
        .map_err(StoreError::io(&files::draft_of(directory, name)))
}

/// Makes a directory's entries durable.
fn sync_directory(path: &Path) -> Result<(), StoreError> {
    files::sync_directory(path).map_err(StoreError::io(path))
}
