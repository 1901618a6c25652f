//! The control database, `control.db`: sensors, tokens, events, what the correlator knows, and the cursors of the
//! SIEM feeds. Flows live in segments; what is large here is the inventory.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{
    StoreError, acknowledgements, audit, connection, control_cursors, control_custody, control_findings,
    control_inventory, control_losses, control_overlaps, cosign, plans, retention,
};

/// Version of the schema, in SQLite's `user_version`.
const VERSION: i64 = 1;

/// Tables of sensors and of what happens to them.
const SENSORS: &str = "
CREATE TABLE sensors (
    name TEXT PRIMARY KEY,
    site TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'revoked')),
    fingerprint BLOB NOT NULL UNIQUE,       -- SHA-256 of the certificate
    certificate BLOB NOT NULL,              -- DER
    certificate_expires INTEGER NOT NULL,   -- ns since the epoch, as all times here
    signing_key BLOB NOT NULL,              -- Ed25519 public key, 32 bytes
    enrolled_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;
-- Every key a sensor ever signed with, so that old batches can be verified again.
CREATE TABLE sensor_keys (
    sensor TEXT NOT NULL,
    signing_key BLOB NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (sensor, signing_key)
) STRICT, WITHOUT ROWID;
CREATE TABLE tokens (
    hash BLOB PRIMARY KEY,                  -- SHA-256 of the secret
    sensor TEXT NOT NULL,
    site TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER,
    key_hash BLOB,                          -- SHA-256 of the key of the request that used it
    signing_key BLOB,
    certificate BLOB
) STRICT, WITHOUT ROWID;
-- What an operator must be able to look up later.
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    kind TEXT NOT NULL,
    sensor TEXT NOT NULL DEFAULT '',
    epoch INTEGER NOT NULL DEFAULT 0,
    sequence INTEGER NOT NULL DEFAULT 0,
    hash BLOB NOT NULL DEFAULT x'',
    message TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_once ON events (kind, sensor, epoch, sequence, hash) WHERE sequence > 0;
-- Sealed batches that have no place in the chain: the other side of a fork.
CREATE TABLE quarantine (
    sensor TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    header BLOB NOT NULL,
    body BLOB NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (sensor, epoch, sequence, hash)
) STRICT;
-- Closed segments: how many flows they hold and from when to when.
CREATE TABLE segments (
    number INTEGER PRIMARY KEY,
    flows INTEGER NOT NULL,
    min_start INTEGER,
    max_end INTEGER,
    closed_at INTEGER NOT NULL
) STRICT;
";

/// Tables that came later than version 1, each made where it is absent. They may be named by others from then on.
const LATER: [&str; 6] = [
    acknowledgements::SCHEMA,
    cosign::SCHEMA,
    control_custody::SCHEMA,
    audit::SCHEMA,
    retention::SCHEMA,
    plans::SCHEMA,
];

/// KiB of pages that the writer keeps. The inventory is as large as the networks have hosts and is touched all over; with SQLite's
/// two MiB every observation would read its pages anew.
const CACHE_KIB: i64 = 65_536;
/// Pages in the log at which they are put in their places: the more there are, the more of them were changed twice.
const CHECKPOINT_PAGES: u32 = 16_384;

/// The control database: one connection that writes, some that read.
#[derive(Debug)]
pub(super) struct Control {
    writer: Mutex<Connection>,
    readers: connection::Readers,
}

impl Control {
    /// Opens the database and makes its tables where they are absent.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut writer = connection::open_writer(path)?;
        let found = connection::version(&writer).map_err(StoreError::sqlite(path))?;
        match found {
            0 => create(&mut writer).map_err(StoreError::sqlite(path))?,
            VERSION => {}
            found => return Err(StoreError::Schema { path: path.to_owned(), found, expected: VERSION }),
        }
        for schema in LATER {
            writer.execute_batch(schema).map_err(StoreError::sqlite(path))?;
        }
        control_inventory::upgrade(&writer).map_err(StoreError::sqlite(path))?;
        control_overlaps::upgrade(&writer).map_err(StoreError::sqlite(path))?;
        // A negative number is in KiB, a positive one in pages.
        writer
            .pragma_update(None, "cache_size", -CACHE_KIB)
            .and_then(|()| writer.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES))
            .map_err(StoreError::sqlite(path))?;
        Ok(Self { writer: Mutex::new(writer), readers: connection::Readers::new(path.to_owned()) })
    }

    /// Runs `work` in one transaction and commits it; an error undoes it whole. It blocks.
    pub(super) fn transaction<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let run = || {
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(StoreError::sqlite(self.readers.path()))
    }

    /// Runs `work` on a read-only connection. It blocks.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        self.readers.with(work)
    }
}

fn create(writer: &mut Connection) -> Result<(), rusqlite::Error> {
    let transaction = writer.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    // Another process may have made it while this one waited.
    if connection::version(&transaction)? == 0 {
        transaction.execute_batch(SENSORS)?;
        for schema in [
            control_findings::SCHEMA,
            control_inventory::SCHEMA,
            control_losses::SCHEMA,
            control_cursors::SCHEMA,
        ] {
            transaction.execute_batch(schema)?;
        }
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}
