//! The places where the correlator and the SIEM feeds stand, in the control database.

use onenet_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::Cursor;

/// The tables.
pub(super) const SCHEMA: &str = "
-- Places among the committed batches: the correlator's, and those of feeds of flows.
CREATE TABLE batch_cursors (
    name TEXT PRIMARY KEY,
    segment INTEGER NOT NULL,
    batch INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Places among the finding changes: finding_changes.id that a feed's receiver has.
CREATE TABLE change_cursors (
    feed TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    moved_at INTEGER NOT NULL,
    configured INTEGER NOT NULL             -- whether the collector that runs, or ran last, has this feed
) STRICT, WITHOUT ROWID;
";

/// Where a follower of batches stands; before the first where it has not begun.
pub(crate) fn batch_cursor(connection: &Connection, name: &str) -> Result<Cursor, rusqlite::Error> {
    connection
        .prepare_cached("SELECT segment, batch FROM batch_cursors WHERE name = ?")?
        .query_row([name], |row| Ok(Cursor { segment: row.get(0)?, batch: row.get(1)? }))
        .optional()
        .map(Option::unwrap_or_default)
}

/// Moves a follower of batches on.
pub(crate) fn put_batch_cursor(
    connection: &Connection,
    name: &str,
    cursor: Cursor,
) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("INSERT OR REPLACE INTO batch_cursors VALUES (?, ?, ?)")?.execute(params![
        name,
        cursor.segment,
        cursor.batch
    ])?;
    Ok(())
}

/// Where a feed stands among the finding changes; 0 where it has not begun.
pub(crate) fn change_cursor(connection: &Connection, feed: &str) -> Result<i64, rusqlite::Error> {
    connection
        .prepare_cached("SELECT position FROM change_cursors WHERE feed = ?")?
        .query_row([feed], |row| row.get(0))
        .optional()
        .map(Option::unwrap_or_default)
}

/// Moves a feed on.
pub(crate) fn put_change_cursor(
    connection: &Connection,
    feed: &str,
    position: i64,
    now: Timestamp,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "INSERT INTO change_cursors VALUES (?1, ?2, ?3, true)
             ON CONFLICT DO UPDATE SET position = ?2, moved_at = ?3",
        )?
        .execute(params![feed, position, now.0])?;
    Ok(())
}

/// Name of the correlator's place.
const CORRELATOR: &str = "correlator";

/// Where the correlator stands.
pub(crate) fn correlated(connection: &Connection) -> Result<Cursor, rusqlite::Error> {
    batch_cursor(connection, CORRELATOR)
}

/// Moves the correlator on.
pub(crate) fn put_correlated(connection: &Connection, cursor: Cursor) -> Result<(), rusqlite::Error> {
    put_batch_cursor(connection, CORRELATOR, cursor)
}

/// The number of the latest finding change; 0 before the first.
pub(crate) fn latest_change(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.query_row("SELECT coalesce(max(id), 0) FROM finding_changes", [], |row| row.get(0))
}

/// Says which feeds there are. The place of one that is gone is kept, should it come back.
pub(crate) fn configure(
    connection: &Connection,
    feeds: &[&str],
    now: Timestamp,
) -> Result<(), rusqlite::Error> {
    connection.execute("UPDATE change_cursors SET configured = false", [])?;
    for feed in feeds {
        connection
            .prepare_cached(
                "INSERT INTO change_cursors VALUES (?1, 0, ?2, true)
                 ON CONFLICT DO UPDATE SET configured = true",
            )?
            .execute(params![feed, now.0])?;
    }
    Ok(())
}

/// The feeds there are: name, position and when it moved.
pub(crate) fn feeds(connection: &Connection) -> Result<Vec<(String, i64, Timestamp)>, rusqlite::Error> {
    let sql = "SELECT feed, position, moved_at FROM change_cursors WHERE configured ORDER BY feed";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, Timestamp(row.get(2)?))))?;
    rows.collect()
}
