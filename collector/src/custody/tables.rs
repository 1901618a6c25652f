//! Where each sensor stood when its last batch was judged, and up to which event was judged. The tables are the control
//! database's (`store/control_custody.rs`).

use onenet_core::time::Timestamp;
use onenet_proto::seal::ChainHead;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::clock::Clock;

/// Where the chain and the clock of a sensor stood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stand {
    pub(super) head: ChainHead,
    pub(super) clock: Clock,
    pub(super) stopped: Option<String>,
}

pub(super) fn stand(connection: &Connection, sensor: &str) -> Result<Option<Stand>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT epoch, sequence, hash, received_at, wall_time, monotonic_time, anchor_received,
                anchor_monotonic, live, stopped
             FROM custody_sensors WHERE sensor = ?",
        )?
        .query_row([sensor], |row| {
            Ok(Stand {
                head: ChainHead {
                    epoch: row.get::<_, i64>(0)?.cast_unsigned(),
                    sequence: row.get::<_, i64>(1)?.cast_unsigned(),
                    hash: row.get(2)?,
                },
                clock: Clock {
                    received_at: Timestamp(row.get(3)?),
                    wall_time: Timestamp(row.get(4)?),
                    monotonic_time: row.get(5)?,
                    anchor_received: Timestamp(row.get(6)?),
                    anchor_monotonic: row.get(7)?,
                    live: row.get(8)?,
                },
                stopped: row.get(9)?,
            })
        })
        .optional()
}

pub(super) fn put_stand(connection: &Connection, sensor: &str, stand: &Stand) -> Result<(), rusqlite::Error> {
    let (head, clock) = (&stand.head, &stand.clock);
    connection
        .prepare_cached("INSERT OR REPLACE INTO custody_sensors VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?
        .execute(params![
            sensor,
            head.epoch.cast_signed(),
            head.sequence.cast_signed(),
            head.hash,
            clock.received_at.0,
            clock.wall_time.0,
            clock.monotonic_time,
            clock.anchor_received.0,
            clock.anchor_monotonic,
            clock.live,
            stand.stopped,
        ])?;
    Ok(())
}

/// The last event that was judged; 0 before the first.
pub(super) fn position(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection
        .prepare_cached("SELECT position FROM custody_events")?
        .query_row([], |row| row.get(0))
        .optional()
        .map(Option::unwrap_or_default)
}

pub(super) fn put_position(connection: &Connection, position: i64) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("INSERT OR REPLACE INTO custody_events VALUES (0, ?)")?.execute([position])?;
    Ok(())
}
