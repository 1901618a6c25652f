//! What sensors told they lost, in the control database.

use onenet_core::{net::Name, time::Timestamp};
use onenet_proto::v1::Loss;
use rusqlite::{Connection, params};
use serde::Serialize;

use super::{StoredBatch, flow_row::counter};

/// The table.
pub(super) const SCHEMA: &str = "
-- Signed loss records of the sensors.
CREATE TABLE losses (
    sensor TEXT NOT NULL,
    epoch INTEGER NOT NULL,                 -- of the batch that tells it
    sequence INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    what TEXT NOT NULL,
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (sensor, epoch, sequence, ordinal)
) STRICT, WITHOUT ROWID;
";

/// What one sensor lost of one class for one reason, added up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LossTotal {
    /// The sensor.
    #[serde(skip)]
    pub(crate) sensor: Name,
    /// Class of record.
    pub(crate) what: String,
    /// Why.
    pub(crate) reason: String,
    /// Records.
    pub(crate) count: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Collector time of the latest.
    pub(crate) last: Timestamp,
}

/// Enters one loss record.
pub(crate) fn put(
    connection: &Connection,
    batch: &StoredBatch,
    ordinal: usize,
    loss: &Loss,
) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("INSERT OR IGNORE INTO losses VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(
        params![
            &*batch.sensor,
            batch.epoch.cast_signed(),
            batch.sequence.cast_signed(),
            i64::try_from(ordinal).unwrap_or(i64::MAX),
            batch.received_at.0,
            loss.what,
            counter(loss.count),
            counter(loss.bytes),
            loss.reason,
        ],
    )?;
    Ok(())
}

/// What each sensor lost, by class and reason.
pub(crate) fn totals(connection: &Connection) -> Result<Vec<LossTotal>, rusqlite::Error> {
    // total() does not overflow; what it rounds beyond 2^53 nobody counts record by record.
    let sql = "SELECT sensor, what, reason, CAST(total(count) AS INTEGER), CAST(total(bytes) AS INTEGER),
                   max(received_at)
               FROM losses GROUP BY sensor, what, reason ORDER BY sensor, what, reason";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(LossTotal {
            sensor: row.get(0)?,
            what: row.get(1)?,
            reason: row.get(2)?,
            count: row.get::<_, i64>(3)?.cast_unsigned(),
            bytes: row.get::<_, i64>(4)?.cast_unsigned(),
            last: Timestamp(row.get(5)?),
        })
    })?;
    rows.collect()
}
