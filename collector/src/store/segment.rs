//! A flow segment, `segments/flows-<number>.db`: sealed batches and their flows over a span of collector time. It
//! has a time index while it is written to; address indexes are built once it is closed, because live ones cost
//! a factor of ten in inserts.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::{
    StoreError, connection, flow_row,
    heads::{self, Heads},
};

/// Number of a segment; later segments have greater numbers.
pub type SegmentNumber = u32;

/// Version of the schema, in SQLite's `user_version`. Up to version 3 a flow's row held the whole record; [`upgrade`]
/// brings such segments up to date, from the batches that they hold.
pub(super) const VERSION: i64 = 4;

const BATCHES: &str = "
CREATE TABLE batches (
    id INTEGER PRIMARY KEY,             -- in order of commit
    sensor TEXT NOT NULL,
    epoch INTEGER NOT NULL,             -- 64 bits, as signed
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL,
    header BLOB NOT NULL,               -- as sealed, as are body and signature
    body BLOB NOT NULL,
    signature BLOB NOT NULL,
    received_at INTEGER NOT NULL,       -- ns since the epoch
    records INTEGER NOT NULL,
    poison TEXT,                        -- why the body makes no sense
    cosignature BLOB,                   -- a Cosignature, encoded: of the last batch of a sensor in each commit
    UNIQUE (sensor, epoch, sequence)
) STRICT;
";

/// Indexes of a closed segment.
const CLOSED_INDEXES: &str = "
CREATE INDEX IF NOT EXISTS flows_originator ON flows (orig_ip, start);
CREATE INDEX IF NOT EXISTS flows_responder ON flows (resp_ip, start);
CREATE INDEX IF NOT EXISTS flows_flow_id ON flows (flow_id);
";

/// Where a segment is.
pub(super) fn path(directory: &Path, number: SegmentNumber) -> PathBuf {
    directory.join(format!("flows-{number:08}.db"))
}

/// The numbers of the segments in a directory, in order.
pub(super) fn list(directory: &Path) -> Result<Vec<SegmentNumber>, StoreError> {
    let entries = std::fs::read_dir(directory).map_err(StoreError::io(directory))?;
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(StoreError::io(directory))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("flows-")?.strip_suffix(".db"));
        numbers.extend(number.and_then(|number| number.parse::<SegmentNumber>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// How many flows a segment holds, and the time they span: (first start, last end).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentStats {
    /// Flows.
    pub flows: u64,
    /// First start and last end, in nanoseconds of packet time; none without flows.
    pub span: Option<(i64, i64)>,
}

impl SegmentStats {
    /// Adds a flow with this start and end.
    pub(super) fn add(&mut self, start: i64, end: i64) {
        let end = end.max(start);
        self.flows = self.flows.saturating_add(1);
        self.span = Some(self.span.map_or((start, end), |(first, last)| (first.min(start), last.max(end))));
    }

    pub(super) fn read(connection: &Connection) -> Result<Self, rusqlite::Error> {
        connection.query_row("SELECT count(*), min(start), max(max(start, end)) FROM flows", [], |row| {
            let span = row.get::<_, Option<i64>>(1)?.zip(row.get(2)?);
            Ok(Self { flows: row.get::<_, i64>(0)?.cast_unsigned(), span })
        })
    }
}

/// Opens a segment for writing and makes its tables where they are absent; a new one starts with `heads`.
pub(super) fn open(path: &Path, heads: &Heads) -> Result<Connection, StoreError> {
    let mut connection = connection::open_writer(path)?;
    let found = connection::version(&connection).map_err(StoreError::sqlite(path))?;
    match found {
        0 => create(&mut connection, heads).map_err(StoreError::sqlite(path))?,
        VERSION => {}
        found => return Err(StoreError::Schema { path: path.to_owned(), found, expected: VERSION }),
    }
    Ok(connection)
}

fn create(connection: &mut Connection, heads: &Heads) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    transaction.execute_batch(BATCHES)?;
    transaction.execute_batch(heads::SCHEMA)?;
    transaction.execute_batch(flow_row::TABLE)?;
    for (sensor, head) in heads {
        heads::write(&transaction, sensor, head)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Brings a segment of an earlier version up to date, in one transaction. It takes seconds for a full one.
fn upgrade(path: &Path, connection: &mut Connection) -> Result<(), StoreError> {
    tracing::info!("{}: of an earlier version, brought up to date", path.display());
    let mut run = || {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        transaction.execute_batch(
            "ALTER TABLE batches ADD COLUMN cosignature BLOB; ALTER TABLE heads ADD COLUMN cosignature BLOB",
        )?;
        flow_row::rebuild(&transaction)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()
    };
    run().map_err(StoreError::sqlite(path))
}

/// Brings a segment up to date where it is of an earlier version; a closed one gets its indexes again.
pub(super) fn bring_up_to_date(path: &Path, closed: bool) -> Result<(), StoreError> {
    let mut connection = connection::open_writer(path)?;
    let found = connection::version(&connection).map_err(StoreError::sqlite(path))?;
    if !(1..VERSION).contains(&found) {
        return Ok(());
    }
    upgrade(path, &mut connection)?;
    let indexes = if closed { CLOSED_INDEXES } else { "" };
    connection.execute_batch(indexes).map_err(StoreError::sqlite(path))
}

/// Whether a file holds a segment's tables; one that was being made when the collector stopped does not.
pub(super) fn is_made(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection::version(connection).map(|version| version > 0)
}

/// Builds the indexes of a closed segment and folds its log into it. It takes seconds for a full segment.
pub(super) fn close(path: &Path) -> Result<SegmentStats, StoreError> {
    let connection = connection::open_writer(path)?;
    let run = || {
        connection.execute_batch(CLOSED_INDEXES)?;
        connection.execute_batch("PRAGMA optimize")?;
        let stats = SegmentStats::read(&connection)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(stats)
    };
    run().map_err(StoreError::sqlite(path))
}

/// The hash of the batch with this identity, where the segment holds it.
pub(super) fn hash_of(
    connection: &Connection,
    sensor: &str,
    epoch: u64,
    sequence: u64,
) -> Result<Option<[u8; 32]>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT hash FROM batches WHERE sensor = ? AND epoch = ? AND sequence = ?")?
        .query_row(params![sensor, epoch.cast_signed(), sequence.cast_signed()], |row| row.get(0))
        .optional()
}
