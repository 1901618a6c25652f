//! Events: what happened to sensors, keys and batches that an operator must be able to look up later.

use onenet_core::time::Timestamp;
use onenet_proto::{
    seal::{BatchHash, VerifiedBatch},
    v1::SealedBatch,
};
use rusqlite::{Connection, Row, Transaction, params};

use super::{
    Store, StoreError,
    control_custody::{self, OpenGap},
};

/// Batches of one sensor kept in quarantine; more are only told of.
const QUARANTINE_LIMIT: i64 = 1_000;

const COLUMNS: &str = "id, time, kind, sensor, epoch, sequence, message, hash";

/// Seals of one sensor that do not hold, recorded within a day.
const BAD_SEALS_A_DAY: i64 = 100;

/// In nanoseconds.
const DAY: i64 = 86_400 * 1_000_000_000;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A token was made.
    TokenCreated,
    /// A sensor got its certificate.
    Enrolled,
    /// A token was wrong, expired or used.
    EnrollmentRefused,
    /// A sensor was revoked.
    Revoked,
    /// A batch's signature or header does not hold.
    BadSeal,
    /// Two batches with one sequence, or a batch that does not follow the one before it.
    Fork,
    /// A batch of an epoch that is past and is not known.
    Rollback,
    /// A sealed batch whose body makes no sense.
    Poison,
    /// A sensor began a new chain.
    EpochStarted,
    /// A sensor told what was done to it, or by it.
    SensorTold,
}

impl EventKind {
    /// Its name in the database and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenCreated => "token-created",
            Self::Enrolled => "enrolled",
            Self::EnrollmentRefused => "enrollment-refused",
            Self::Revoked => "revoked",
            Self::BadSeal => "bad-seal",
            Self::Fork => "fork",
            Self::Rollback => "rollback",
            Self::Poison => "poison",
            Self::EpochStarted => "epoch-started",
            Self::SensorTold => "sensor-told",
        }
    }
}

/// One event to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Collector time.
    pub time: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// To which sensor; empty where none can be named.
    pub sensor: String,
    /// The batch it is about: epoch, sequence, hash. The same batch gives one event of a kind.
    pub batch: Option<(u64, u64, BatchHash)>,
    /// One line for a person.
    pub message: String,
}

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StoredEvent {
    /// Number, in order.
    pub id: i64,
    /// Collector time.
    pub time: Timestamp,
    /// What happened.
    pub kind: String,
    /// To which sensor.
    pub sensor: String,
    /// Epoch of the batch, 0 where it is about none.
    pub epoch: u64,
    /// Sequence of the batch, 0 where it is about none.
    pub sequence: u64,
    /// One line for a person.
    pub message: String,
}

/// Reads an event and the hash of its batch, which is empty where it is about none.
fn read(row: &Row<'_>) -> Result<(StoredEvent, Vec<u8>), rusqlite::Error> {
    let event = StoredEvent {
        id: row.get(0)?,
        time: Timestamp(row.get(1)?),
        kind: row.get(2)?,
        sensor: row.get(3)?,
        epoch: row.get::<_, i64>(4)?.cast_unsigned(),
        sequence: row.get::<_, i64>(5)?.cast_unsigned(),
        message: row.get(6)?,
    };
    Ok((event, row.get(7)?))
}

/// Hands the events behind the one with this number over, oldest first, at most so many where a limit is stated, each
/// with the hash of its batch.
pub(crate) fn after(
    connection: &Connection,
    id: i64,
    limit: Option<u32>,
    mut each: impl FnMut(StoredEvent, Vec<u8>) -> Result<(), rusqlite::Error>,
) -> Result<(), rusqlite::Error> {
    let mut statement = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM events WHERE id > ? ORDER BY id LIMIT ?"))?;
    // A negative limit is none.
    let mut rows = statement.query(params![id, limit.map_or(-1, i64::from)])?;
    while let Some(row) = rows.next()? {
        let (event, hash) = read(row)?;
        each(event, hash)?;
    }
    Ok(())
}

/// Records an event within a transaction.
pub(super) fn insert(connection: &Connection, event: &Event) -> Result<(), rusqlite::Error> {
    let (epoch, sequence, hash) = event.batch.unwrap_or_default();
    let hash: &[u8] = if event.batch.is_some() { &hash } else { &[] };
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO events (time, kind, sensor, epoch, sequence, hash, message)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            event.time.0,
            event.kind.as_str(),
            event.sensor,
            epoch.cast_signed(),
            sequence.cast_signed(),
            hash,
            event.message,
        ])?;
    Ok(())
}

/// Keeps a sealed batch that has no place in the chain.
pub(super) fn quarantine(
    transaction: &Transaction<'_>,
    sealed: &SealedBatch,
    verified: &VerifiedBatch,
    event: &Event,
) -> Result<(), rusqlite::Error> {
    insert(transaction, event)?;
    let kept: i64 = transaction.query_row(
        "SELECT count(*) FROM quarantine WHERE sensor = ?",
        params![event.sensor],
        |row| row.get(0),
    )?;
    if kept >= QUARANTINE_LIMIT {
        return Ok(());
    }
    transaction.execute(
        "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            event.sensor,
            verified.header.epoch.cast_signed(),
            verified.header.sequence.cast_signed(),
            verified.hash,
            event.time.0,
            event.message,
            &sealed.header[..],
            &sealed.body[..],
            &sealed.signature[..],
        ],
    )?;
    Ok(())
}

impl Store {
    /// Notes that a sensor wants to go on behind batches that are not held. The same gap again changes nothing.
    pub(super) fn note_gap(&self, gap: OpenGap) -> Result<(), StoreError> {
        let known = self.read(|control| control_custody::gap_of(control, &gap.sensor))?;
        if known.is_some_and(|known| (known.epoch, known.expected) == (gap.epoch, gap.expected)) {
            return Ok(());
        }
        self.transaction(|transaction| control_custody::put_gap(transaction, &gap))
    }

    /// Records a seal that does not hold. Of one sensor so many are recorded within a day; more change nothing, so that
    /// nobody can fill the disk with them.
    pub(crate) fn record_bad_seal(&self, event: &Event) -> Result<(), StoreError> {
        let since = event.time.plus(-DAY);
        self.transaction(|transaction| {
            let recorded: i64 = transaction
                .prepare_cached(
                    "SELECT count(*) FROM events WHERE kind = ? AND sensor = ? AND sequence > 0 AND time > ?",
                )?
                .query_row(params![event.kind.as_str(), event.sensor, since.0], |row| row.get(0))?;
            if recorded >= BAD_SEALS_A_DAY { Ok(()) } else { insert(transaction, event) }
        })
    }

    /// Records an event.
    pub fn record_event(&self, event: &Event) -> Result<(), StoreError> {
        self.transaction(|transaction| insert(transaction, event))
    }

    /// The latest events, newest first; those of one sensor where one is named.
    pub fn events(&self, sensor: Option<&str>, limit: usize) -> Result<Vec<StoredEvent>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM events WHERE ?1 IS NULL OR sensor = ?1 ORDER BY id DESC LIMIT ?2"
            ))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows =
                statement.query_map(params![sensor, limit], |row| read(row).map(|(event, _)| event))?;
            rows.collect()
        })
    }
}
