//! What custody keeps in the control database (see [`crate::custody`]), and the gaps that the writer notes for it.

use onenet_core::{net::Name, time::Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

/// The tables.
pub(super) const SCHEMA: &str = "
-- Where the chain and the clock of each sensor stood after the last batch that was judged.
CREATE TABLE IF NOT EXISTS custody_sensors (
    sensor TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,                 -- 64 bits, as signed
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL,
    received_at INTEGER NOT NULL,           -- ns since the epoch, by the collector's clock
    wall_time INTEGER NOT NULL,             -- by the sensor's
    monotonic_time INTEGER NOT NULL,
    anchor_received INTEGER NOT NULL,       -- where it began to be looked whether the sensor is heard as it seals
    anchor_monotonic INTEGER NOT NULL,
    live INTEGER NOT NULL,
    stopped TEXT                            -- why it stopped in order, where that is the last it said
) STRICT, WITHOUT ROWID;
-- The one finding of each rule and sensor as it is known: what was told, and what has been counted since.
CREATE TABLE IF NOT EXISTS custody_incidents (
    key TEXT PRIMARY KEY,
    change TEXT NOT NULL,                   -- FindingChange as JSON
    told INTEGER NOT NULL,                  -- what its counts added up to when it was last told
    quiet_at INTEGER                        -- when it is closed unless there is news
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS custody_quiet ON custody_incidents (quiet_at) WHERE quiet_at IS NOT NULL;
-- Sensors that want to go on behind batches that are not held.
CREATE TABLE IF NOT EXISTS custody_gaps (
    sensor TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    expected INTEGER NOT NULL,              -- sequence
    got INTEGER NOT NULL,
    since INTEGER NOT NULL,
    told INTEGER NOT NULL                   -- whether there is a finding
) STRICT, WITHOUT ROWID;
-- The last event that was judged.
CREATE TABLE IF NOT EXISTS custody_events (
    only INTEGER PRIMARY KEY CHECK (only = 0),
    position INTEGER NOT NULL
) STRICT;
";

/// A sensor that wants to go on behind batches that are not held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenGap {
    pub(crate) sensor: Name,
    pub(crate) epoch: u64,
    /// The sequence that has to come next.
    pub(crate) expected: u64,
    /// The one that came.
    pub(crate) got: u64,
    /// Collector time at which it came first.
    pub(crate) since: Timestamp,
    /// Whether a finding tells of it.
    pub(crate) told: bool,
}

pub(crate) fn gap_of(connection: &Connection, sensor: &str) -> Result<Option<OpenGap>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT sensor, epoch, expected, got, since, told FROM custody_gaps WHERE sensor = ?",
        )?
        .query_row([sensor], read_gap)
        .optional()
}

pub(crate) fn gaps(connection: &Connection) -> Result<Vec<OpenGap>, rusqlite::Error> {
    let sql = "SELECT sensor, epoch, expected, got, since, told FROM custody_gaps ORDER BY sensor";
    connection.prepare_cached(sql)?.query_map([], read_gap)?.collect()
}

fn read_gap(row: &rusqlite::Row<'_>) -> Result<OpenGap, rusqlite::Error> {
    Ok(OpenGap {
        sensor: row.get(0)?,
        epoch: row.get::<_, i64>(1)?.cast_unsigned(),
        expected: row.get::<_, i64>(2)?.cast_unsigned(),
        got: row.get::<_, i64>(3)?.cast_unsigned(),
        since: Timestamp(row.get(4)?),
        told: row.get(5)?,
    })
}

/// Notes a gap; one at another place begins anew.
pub(crate) fn put_gap(connection: &Connection, gap: &OpenGap) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("INSERT OR REPLACE INTO custody_gaps VALUES (?, ?, ?, ?, ?, ?)")?.execute(
        params![
            &*gap.sensor,
            gap.epoch.cast_signed(),
            gap.expected.cast_signed(),
            gap.got.cast_signed(),
            gap.since.0,
            gap.told,
        ],
    )?;
    Ok(())
}

pub(crate) fn drop_gap(connection: &Connection, sensor: &str) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("DELETE FROM custody_gaps WHERE sensor = ?")?.execute([sensor])?;
    Ok(())
}
