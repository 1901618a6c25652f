//! Retention: segments that are older than what is kept are deleted whole, with their flows. The deletion is entered into
//! the audit trail, and leaves for each sensor an anchor, the last batch deleted, so that the chain can still be verified
//! from there on. The newest segment is never deleted, and with it the heads of all sensors stay.

use onenet_core::{net::Name, time::Timestamp};
use onenet_proto::seal::ChainHead;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{SegmentNumber, Store, StoreError, control_cursors, segment, sync_directory};
use crate::audit::{Entry, Hex};

/// The table.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS chain_anchors (
    sensor TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,                 -- of the last batch deleted
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL,
    batches INTEGER NOT NULL                -- deleted so far
) STRICT, WITHOUT ROWID;
-- Segments whose deletion is published, and whose files may still be there.
CREATE TABLE IF NOT EXISTS deleted_segments (number INTEGER PRIMARY KEY) STRICT;
";

/// What is entered of a sensor's batches that are deleted.
pub(crate) const DELETED: &str = "batches-deleted";

/// Up to where the batches of a sensor have been deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// The last batch deleted.
    pub(crate) head: ChainHead,
    /// Batches deleted so far.
    pub(crate) batches: u64,
}

/// The anchor of a sensor.
pub(super) fn anchor(connection: &Connection, sensor: &str) -> Result<Option<Anchor>, rusqlite::Error> {
    let sql = "SELECT epoch, sequence, hash, batches FROM chain_anchors WHERE sensor = ?";
    let row = connection.prepare_cached(sql)?.query_row([sensor], |row| {
        let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
        let head = ChainHead { epoch: number(0)?, sequence: number(1)?, hash: row.get(2)? };
        Ok(Anchor { head, batches: number(3)? })
    });
    row.optional()
}

/// The segments whose deletion is published and not finished.
pub(super) fn deleted_segments(connection: &Connection) -> Result<Vec<SegmentNumber>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT number FROM deleted_segments ORDER BY number")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    rows.collect()
}

/// What a segment holds of one sensor.
struct Held {
    sensor: Name,
    last: ChainHead,
    batches: u64,
}

impl Store {
    /// Deletes the segments whose batches were all received before `before`, oldest first; gives their numbers. What
    /// the correlator has not read yet is kept; a feed whose receiver has been away for longer goes on behind it.
    pub fn delete_before(&self, before: Timestamp, now: Timestamp) -> Result<Vec<SegmentNumber>, StoreError> {
        self.finish_deletions()?;
        let mut deleted = Vec::new();
        let mut segments = self.segments();
        // The newest is written to.
        segments.pop();
        for segment in segments {
            let latest: Option<i64> = segment.readers.with(|connection| {
                // The last that was committed; the time of each would have to be read past all bodies.
                let sql = "SELECT received_at FROM batches ORDER BY id DESC LIMIT 1";
                connection.query_row(sql, [], |row| row.get(0)).optional()
            })?;
            let followed = self.read(control_cursors::correlated)?.segment > segment.number;
            let closed = segment.stats().is_some();
            if !(closed && followed && latest.is_none_or(|latest| latest < before.0)) {
                break;
            }
            self.delete(segment.number, &segment.readers.with(held)?, now)?;
            deleted.push(segment.number);
        }
        Ok(deleted)
    }

    /// The deletion is published, with what proves it, before the file is removed; one that was cut short in between is
    /// finished by [`Store::finish_deletions`].
    fn delete(&self, number: SegmentNumber, held: &[Held], now: Timestamp) -> Result<(), StoreError> {
        let entries = held.iter().map(|held| Entry {
            time: now,
            action: DELETED.to_owned(),
            sensor: held.sensor.to_string(),
            epoch: held.last.epoch,
            batch_sequence: held.last.sequence,
            batch_hash: Hex(held.last.hash.to_vec()),
            detail: format!(
                "{} batches with their flows, up to sequence {} of epoch {}: segment {number} is older than what is kept",
                held.batches, held.last.sequence, held.last.epoch
            ),
            ..Entry::default()
        });
        self.audit_entries(entries.collect(), |connection| {
            for held in held {
                connection.execute(
                    "INSERT INTO chain_anchors VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (sensor) DO UPDATE SET
                         epoch = ?2, sequence = ?3, hash = ?4, batches = batches + ?5",
                    params![
                        &*held.sensor,
                        held.last.epoch.cast_signed(),
                        held.last.sequence.cast_signed(),
                        held.last.hash,
                        held.batches.cast_signed(),
                    ],
                )?;
            }
            connection.execute("DELETE FROM segments WHERE number = ?", [number])?;
            connection.execute("INSERT OR REPLACE INTO deleted_segments VALUES (?)", [number])?;
            Ok(())
        })?;
        self.finish_deletions()
    }

    /// Removes the files of segments whose deletion has been published.
    pub(super) fn finish_deletions(&self) -> Result<(), StoreError> {
        let numbers = self.read(deleted_segments)?;
        let directory = self.segment_directory();
        for number in &numbers {
            self.forget_segment(*number);
            let path = segment::path(&directory, *number);
            for end in ["", "-wal", "-shm"] {
                let mut file = path.clone().into_os_string();
                file.push(end);
                let file = std::path::PathBuf::from(file);
                match std::fs::remove_file(&file) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(StoreError::io(&file)(error));
                    }
                    _ => {}
                }
            }
        }
        if !numbers.is_empty() {
            sync_directory(&directory)?;
            self.transaction(|transaction| {
                transaction.execute("DELETE FROM deleted_segments", []).map(|_| ())
            })?;
        }
        Ok(())
    }
}

/// What a segment holds, by sensor.
fn held(connection: &Connection) -> Result<Vec<Held>, rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT sensor, epoch, sequence, hash, batches FROM batches JOIN (
             SELECT max(id) AS last, count(*) AS batches FROM batches GROUP BY sensor
         ) ON id = last ORDER BY sensor",
    )?;
    let rows = statement.query_map([], |row| {
        let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
        Ok(Held {
            sensor: row.get(0)?,
            last: ChainHead { epoch: number(1)?, sequence: number(2)?, hash: row.get(3)? },
            batches: number(4)?,
        })
    })?;
    rows.collect()
}
