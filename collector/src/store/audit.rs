//! The audit trail in the control database. Every event gets its entry in the transaction that records it; operators'
//! actions have entries of their own. Two processes may append: a transaction that writes excludes all others.
//!
//! How far the trail has come stands once more in a file beside the database, `audit.mark`, so that a tail that is cut
//! off is noticed. Where the trail no longer has the entry that the mark names, the mark stays as it is.

use std::{fs, path::Path};

use onenet_core::{net::Name, time::Timestamp};
use onenet_proto::{seal::ChainHead, statement};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

use super::{
    Event, EventKind, Records, Store, StoreError, StoredBatch, archive::Archive, cosign::Cosigner, events,
    private_draft, sync_directory,
};
use crate::audit::{Entry, Hex, actor};

/// The table.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS audit (
    sequence INTEGER PRIMARY KEY,           -- from 1 without gaps
    event INTEGER UNIQUE,                   -- events.id that it tells; none for what is no event
    time INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    sensor TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    batch_sequence INTEGER NOT NULL,
    batch_hash BLOB NOT NULL,
    detail TEXT NOT NULL,
    previous BLOB NOT NULL,
    hash BLOB NOT NULL,
    signature BLOB NOT NULL
) STRICT;
";

const COLUMNS: &str = "sequence, time, actor, action, sensor, epoch, batch_sequence, batch_hash, detail, previous, hash, signature";

const MARK: &str = "audit.mark";

/// How far the trail has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Number of the last entry.
    pub(crate) sequence: u64,
    /// Its hash.
    pub(crate) hash: Hex,
}

/// Reads the mark; none where there is no file.
pub(crate) fn read_mark(directory: &Path) -> Result<Option<Mark>, StoreError> {
    let path = directory.join(MARK);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| StoreError::Corrupt { path, problem: error.to_string() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io(&path)(error)),
    }
}

fn write_mark(directory: &Path, mark: &Mark) -> Result<(), StoreError> {
    let path = directory.join(MARK);
    let text = serde_json::to_vec(mark).map_err(std::io::Error::other).map_err(StoreError::io(&path))?;
    fs::rename(private_draft(directory, MARK, &text)?, &path).map_err(StoreError::io(&path))?;
    sync_directory(directory)
}

fn read(row: &Row<'_>) -> Result<Entry, rusqlite::Error> {
    Ok(Entry {
        sequence: row.get::<_, i64>(0)?.cast_unsigned(),
        time: Timestamp(row.get(1)?),
        actor: row.get(2)?,
        action: row.get(3)?,
        sensor: row.get(4)?,
        epoch: row.get::<_, i64>(5)?.cast_unsigned(),
        batch_sequence: row.get::<_, i64>(6)?.cast_unsigned(),
        batch_hash: Hex(row.get(7)?),
        detail: row.get(8)?,
        previous: Hex(row.get(9)?),
        hash: Hex(row.get(10)?),
        signature: Hex(row.get(11)?),
    })
}

/// The last entry: its number and hash.
fn last(connection: &Connection) -> Result<Option<Mark>, rusqlite::Error> {
    let sql = "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1";
    let row = connection.prepare_cached(sql)?.query_row([], |row| {
        Ok(Mark { sequence: row.get::<_, i64>(0)?.cast_unsigned(), hash: Hex(row.get(1)?) })
    });
    row.optional()
}

/// Appends an entry within a transaction; sequence, hashes, actor and signature are set here.
fn append(
    connection: &Connection,
    cosigner: &Cosigner,
    event: Option<i64>,
    entry: Entry,
) -> Result<Mark, rusqlite::Error> {
    let (sequence, previous) =
        last(connection)?.map_or((0, Hex(vec![0; 32])), |mark| (mark.sequence, mark.hash));
    let mut entry = Entry { sequence: sequence.saturating_add(1), previous, actor: actor(), ..entry };
    let digest = entry.digest();
    entry.hash = Hex(digest.to_vec());
    entry.signature = Hex(statement::sign(cosigner.key(), &digest));
    connection.prepare_cached("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(
        params![
            entry.sequence.cast_signed(),
            event,
            entry.time.0,
            entry.actor,
            entry.action,
            entry.sensor,
            entry.epoch.cast_signed(),
            entry.batch_sequence.cast_signed(),
            entry.batch_hash.0,
            entry.detail,
            entry.previous.0,
            entry.hash.0,
            entry.signature.0,
        ],
    )?;
    Ok(Mark { sequence: entry.sequence, hash: entry.hash })
}

/// Gives every event that has none its entry; says how far the trail has come, where it has moved.
pub(super) fn follow_events(
    connection: &Connection,
    cosigner: &Cosigner,
) -> Result<Option<Mark>, rusqlite::Error> {
    let followed: i64 = connection
        .prepare_cached("SELECT coalesce(max(event), 0) FROM audit")?
        .query_row([], |row| row.get(0))?;
    let mut mark = None;
    events::after(connection, followed, None, |event, hash| {
        let entry = Entry {
            time: event.time,
            action: event.kind,
            sensor: event.sensor,
            epoch: event.epoch,
            batch_sequence: event.sequence,
            batch_hash: Hex(hash),
            detail: event.message,
            ..Entry::default()
        };
        mark = Some(append(connection, cosigner, Some(event.id), entry)?);
        Ok(())
    })?;
    Ok(mark)
}

/// Longest line made of what a sensor told, in characters.
const MAX_TOLD: usize = 2_000;

/// Enters what a sensor told with a batch of what was done to it, or by it: once, however often the batch is applied.
pub(crate) fn sensor_told(
    connection: &Connection,
    batch: &StoredBatch,
    records: &Records,
) -> Result<(), rusqlite::Error> {
    let begun = records.epoch_start.iter().map(|start| {
        let (epoch, sequence) = (start.previous_epoch, start.previous_sequence);
        format!(
            "epoch {} ({}), behind sequence {sequence} of epoch {epoch}: {}",
            batch.epoch, start.reason, start.detail
        )
    });
    let done = records
        .audit
        .iter()
        .map(|told| format!("{} at {}: {}", told.action, Timestamp(told.time), told.detail));
    let told: Vec<String> = begun.chain(done).collect();
    if told.is_empty() {
        return Ok(());
    }
    let message = told.join("; ").chars().filter(|c| !c.is_control()).take(MAX_TOLD).collect();
    let event = Event {
        time: batch.received_at,
        kind: EventKind::SensorTold,
        sensor: batch.sensor.to_string(),
        batch: Some((batch.epoch, batch.sequence, batch.hash)),
        message,
    };
    events::insert(connection, &event)
}

/// What is entered of a head that the collector vouches for.
pub(crate) const HEAD_HELD: &str = "head-held";

impl Store {
    /// Vouches in the trail for heads that are held, each once: what is behind such a head cannot be taken out later
    /// without trace, not even with the head itself.
    pub(super) fn vouch_for<'h>(
        &self,
        heads: impl Iterator<Item = (&'h Name, &'h ChainHead)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut entries = Vec::new();
        for (sensor, head) in heads.filter(|(_, head)| head.sequence > 0) {
            let known = self.read(|connection| {
                let sql = "SELECT count(*) > 0 FROM audit
                           WHERE action = ? AND sensor = ? AND epoch = ? AND batch_sequence = ?";
                let batch = (head.epoch.cast_signed(), head.sequence.cast_signed());
                connection
                    .prepare_cached(sql)?
                    .query_row(params![HEAD_HELD, &**sensor, batch.0, batch.1], |row| row.get::<_, bool>(0))
            })?;
            if !known {
                entries.push(Entry {
                    time: now,
                    action: HEAD_HELD.to_owned(),
                    sensor: sensor.to_string(),
                    epoch: head.epoch,
                    batch_sequence: head.sequence,
                    batch_hash: Hex(head.hash.to_vec()),
                    detail: format!("the chain stands at sequence {} of epoch {}", head.sequence, head.epoch),
                    ..Entry::default()
                });
            }
        }
        if entries.is_empty() { Ok(()) } else { self.audit_entries(entries, |_| Ok(())) }
    }

    /// Enters what an operator did, or what is to be provable later, into the audit trail.
    pub(crate) fn audit(&self, time: Timestamp, action: &str, detail: String) -> Result<(), StoreError> {
        let entry = Entry { time, action: action.to_owned(), detail, ..Entry::default() };
        self.audit_entry(entry)
    }

    /// The same, about a sensor's batch.
    pub(super) fn audit_entry(&self, entry: Entry) -> Result<(), StoreError> {
        self.audit_entries(vec![entry], |_| Ok(()))
    }

    /// Appends entries in one transaction with what they tell.
    pub(super) fn audit_entries(
        &self,
        entries: Vec<Entry>,
        work: impl FnOnce(&Connection) -> Result<(), rusqlite::Error>,
    ) -> Result<(), StoreError> {
        let mark = self.inner.control.transaction(|transaction| {
            work(transaction)?;
            let mut mark = None;
            for entry in entries {
                mark = Some(append(transaction, self.cosigner(), None, entry)?);
            }
            Ok(mark)
        })?;
        self.mark(mark);
        Ok(())
    }

    /// Moves the mark on. Should that fail, the trail is only proved up to where the mark stood.
    pub(super) fn mark(&self, mark: Option<Mark>) {
        let Some(mark) = mark else { return };
        let directory = &self.inner.config.directory;
        let moved = read_mark(directory).and_then(|known| {
            if let Some(known) = known {
                if known.sequence >= mark.sequence {
                    return Ok(());
                }
                let sql = "SELECT hash FROM audit WHERE sequence = ?";
                let here: Option<Vec<u8>> = self.read(|connection| {
                    connection.query_row(sql, [known.sequence.cast_signed()], |row| row.get(0)).optional()
                })?;
                if here.as_ref() != Some(&known.hash.0) {
                    let problem =
                        format!("the trail no longer has the entry {} that {MARK} names", known.sequence);
                    return Err(StoreError::Corrupt { path: directory.join("control.db"), problem });
                }
            }
            write_mark(directory, &mark)
        });
        if let Err(error) = moved {
            tracing::error!("audit trail: {error}");
        }
    }
}

impl Archive {
    /// Hands every entry of the audit trail over, in order; none where an earlier version made the store.
    pub(crate) fn audit<E: From<StoreError>>(
        &self,
        each: impl FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.has_table("audit")? {
            return Ok(());
        }
        let sql = format!("SELECT {COLUMNS} FROM audit ORDER BY sequence");
        self.rows(&sql, read, each)
    }
}
