//! Versions of the edge plan that this collector has issued, and which one each sensor says that it goes by.
//!
//! A version's number is the greatest before plus one, or the Unix time in seconds where that is more: a collector whose
//! database is new still numbers higher than before, and sensors take no lower number than they hold.

use std::{collections::BTreeMap, sync::Arc};

use onenet_core::{
    net::Name,
    plan::AddressPlan,
    time::{NANOS_PER_SECOND, Timestamp},
};
use onenet_proto::{
    edge_plan::{self, MAX_PLAN_BYTES},
    seal::ALGORITHM_ED25519_SHA256,
    v1::{PlanHeld, SignedPlan},
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;

use super::{Store, StoreError, flow_row::counter};
use crate::{
    audit::{Entry, Hex},
    ca::hex,
};

/// Bodies that are kept; the headers all are.
const BODIES: i64 = 16;

/// The tables.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS plan_versions (
    version INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,                  -- ns since the epoch, by the collector's clock
    sha256 BLOB NOT NULL,                   -- of the body
    bytes INTEGER NOT NULL,                 -- of the body
    prefixes INTEGER NOT NULL,
    body BLOB,                              -- none where it is too large to be sent, or of old
    key BLOB NOT NULL,                      -- Ed25519 public key
    signature BLOB NOT NULL
) STRICT;
-- What each sensor said with its last batch.
CREATE TABLE IF NOT EXISTS plan_held (
    sensor TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    own INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// One version, without its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PlanVersion {
    /// Number.
    pub(crate) version: u64,
    /// When it was issued.
    pub(crate) time: Timestamp,
    /// SHA-256 of the body.
    pub(crate) sha256: Hex,
    /// Bytes of the body.
    pub(crate) bytes: u64,
    /// Prefixes in it.
    pub(crate) prefixes: u64,
    /// Whether sensors are sent it: not where it is too large.
    pub(crate) sent: bool,
    #[serde(skip)]
    key: Vec<u8>,
}

const COLUMNS: &str = "version, time, sha256, bytes, prefixes, key";

impl PlanVersion {
    fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        let bytes = row.get::<_, i64>(3)?.cast_unsigned();
        Ok(Self {
            version: row.get::<_, i64>(0)?.cast_unsigned(),
            time: Timestamp(row.get(1)?),
            sha256: Hex(row.get(2)?),
            bytes,
            prefixes: row.get::<_, i64>(4)?.cast_unsigned(),
            sent: bytes <= MAX_PLAN_BYTES as u64,
            key: row.get(5)?,
        })
    }
}

#[cfg(test)]
impl PlanVersion {
    /// One to compare with.
    pub(crate) fn sample(version: u64, sha256: Hex, sent: bool) -> Self {
        Self { version, time: Timestamp(1), sha256, bytes: 2, prefixes: 0, sent, key: Vec::new() }
    }
}

/// All versions, the latest first.
pub(crate) fn versions(connection: &Connection) -> Result<Vec<PlanVersion>, rusqlite::Error> {
    let sql = format!("SELECT {COLUMNS} FROM plan_versions ORDER BY version DESC");
    connection.prepare_cached(&sql)?.query_map([], PlanVersion::read)?.collect()
}

/// The latest version, where there is one.
pub(crate) fn latest(connection: &Connection) -> Result<Option<PlanVersion>, rusqlite::Error> {
    let sql = format!("SELECT {COLUMNS} FROM plan_versions ORDER BY version DESC LIMIT 1");
    connection.prepare_cached(&sql)?.query_row([], PlanVersion::read).optional()
}

fn signed(connection: &Connection, version: u64) -> Result<Option<SignedPlan>, rusqlite::Error> {
    let sql = "SELECT version, time, key, body, signature FROM plan_versions
               WHERE version = ? AND body IS NOT NULL";
    let read = |row: &Row<'_>| {
        Ok(SignedPlan {
            version: row.get::<_, i64>(0)?.cast_unsigned(),
            time: row.get(1)?,
            algorithm: ALGORITHM_ED25519_SHA256,
            key: row.get::<_, Vec<u8>>(2)?.into(),
            body: row.get::<_, Vec<u8>>(3)?.into(),
            signature: row.get::<_, Vec<u8>>(4)?.into(),
        })
    };
    connection.prepare_cached(sql)?.query_row([counter(version)], read).optional()
}

/// What sensors said of their plans.
pub(crate) fn held(connection: &Connection) -> Result<BTreeMap<Name, PlanHeld>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT sensor, version, sha256, own FROM plan_held")?;
    let rows = statement.query_map([], |row| {
        let held = PlanHeld {
            version: row.get::<_, i64>(1)?.cast_unsigned(),
            sha256: row.get::<_, Vec<u8>>(2)?.into(),
            own: row.get(3)?,
        };
        Ok((row.get(0)?, held))
    })?;
    rows.collect()
}

/// Notes what a sensor said with a batch; an earlier version of the agent says nothing.
pub(crate) fn put_held(
    connection: &Connection,
    sensor: &str,
    held: Option<&PlanHeld>,
) -> Result<(), rusqlite::Error> {
    let Some(held) = held else {
        connection.prepare_cached("DELETE FROM plan_held WHERE sensor = ?")?.execute([sensor])?;
        return Ok(());
    };
    connection.prepare_cached("INSERT OR REPLACE INTO plan_held VALUES (?, ?, ?, ?)")?.execute(params![
        sensor,
        counter(held.version),
        &held.sha256[..],
        held.own
    ])?;
    Ok(())
}

/// Whether a sensor holds a later version than any that is known here, as after a restore of the database: it would take
/// none of ours. A number from the future is nobody's.
fn is_overtaken(connection: &Connection, latest: u64, now: u64) -> Result<bool, rusqlite::Error> {
    let sql = "SELECT count(*) > 0 FROM plan_held WHERE version > ? AND version <= ?";
    connection.prepare_cached(sql)?.query_row([counter(latest), counter(now)], |row| row.get(0))
}

impl Store {
    /// Issues `plan` to the sensors, as a new version where it is not the latest one; gives what to send them, which is
    /// nothing where the plan is too large. Issues are entered into the audit trail.
    pub(crate) fn issue_plan(
        &self,
        plan: &AddressPlan,
        now: Timestamp,
    ) -> Result<Option<Arc<SignedPlan>>, StoreError> {
        let key = self.cosigner().key();
        let body = edge_plan::encode(plan).map_err(std::io::Error::other);
        let body = body.map_err(StoreError::io(&self.inner.config.directory.join("control.db")))?;
        let sha256 = edge_plan::hash(&body);
        let seconds = u64::try_from(now.0 / NANOS_PER_SECOND).unwrap_or_default();
        let (latest, overtaken) = self.read(|connection| {
            let latest = latest(connection)?;
            let number = latest.as_ref().map_or(0, |latest| latest.version);
            Ok((latest, is_overtaken(connection, number, seconds)?))
        })?;
        let same = latest.as_ref().filter(|latest| {
            latest.sha256.0 == sha256 && latest.key == self.cosigner().public_key() && !overtaken
        });
        if let Some(same) = same {
            let version = same.version;
            return Ok(self.read(|connection| signed(connection, version))?.map(Arc::new));
        }
        let version = latest.map_or(0, |latest| latest.version).saturating_add(1).max(seconds);
        let bytes = body.len();
        let issued = edge_plan::sign(key, body, version, now.0);
        let sent = bytes <= MAX_PLAN_BYTES;
        let mut detail = format!(
            "version {version}, {} prefixes, {} segments, {bytes} bytes, SHA-256 {}",
            plan.prefixes.len(),
            plan.segments.len(),
            hex(&sha256)
        );
        if sent {
            tracing::info!("the address plan is issued to the sensors: {detail}");
        } else {
            detail.push_str(&format!(
                "; it is sent to no sensor, since it has more than {MAX_PLAN_BYTES} bytes: they go on under the plans \
                 that they hold"
            ));
            tracing::error!("the address plan: {detail}");
        }
        let entry = Entry { time: now, action: "plan-issued".to_owned(), detail, ..Entry::default() };
        self.audit_entries(vec![entry], |connection| {
            connection.execute(
                "INSERT INTO plan_versions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                params![
                    counter(version),
                    now.0,
                    sha256,
                    counter(bytes as u64),
                    counter(plan.prefixes.len() as u64),
                    sent.then_some(&issued.body[..]),
                    &issued.key[..],
                    &issued.signature[..],
                ],
            )?;
            let sql = "UPDATE plan_versions SET body = NULL WHERE body IS NOT NULL AND version NOT IN
                       (SELECT version FROM plan_versions ORDER BY version DESC LIMIT ?)";
            connection.execute(sql, [BODIES]).map(drop)
        })?;
        Ok(sent.then(|| Arc::new(issued)))
    }
}

#[cfg(test)]
mod tests {
    use onenet_core::plan::Secretariat;

    use super::*;
    use crate::{store::StoreConfig, testing::store_config};

    fn plan(id: &str) -> AddressPlan {
        toml::from_str(&format!("[[secretariat]]\nid = '{id}'\n")).expect("a plan")
    }

    fn store() -> (Store, StoreConfig, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        let config = store_config(&directory);
        (Store::attach(&config).expect("a store"), config, directory)
    }

    const NOW: Timestamp = Timestamp(1_000 * NANOS_PER_SECOND);

    fn issue(store: &Store, plan: &AddressPlan, now: Timestamp) -> u64 {
        store.issue_plan(plan, now).expect("it is issued").expect("it is sent").version
    }

    /// What the audit trail says of issues.
    fn entered(store: &Store) -> Vec<String> {
        let read = |connection: &Connection| {
            let mut statement = connection
                .prepare("SELECT detail FROM audit WHERE action = 'plan-issued' ORDER BY sequence")?;
            statement.query_map([], |row| row.get(0))?.collect()
        };
        store.read(read).expect("readable")
    }

    #[test]
    fn a_plan_is_issued_once_signed_and_entered_and_a_change_is_a_version_of_its_own() {
        let (store, config, _directory) = store();
        let first = store.issue_plan(&plan("eohhs"), NOW).expect("issued").expect("sent");
        assert_eq!(first.version, 1_000, "Unix time where no version is known");
        let read = edge_plan::verify(&first, store.cosigner().public_key()).expect("it holds");
        assert_eq!(read, plan("eohhs"));
        let again = Store::attach(&config).expect("it opens");
        let later = NOW.plus(NANOS_PER_SECOND);
        assert_eq!(again.issue_plan(&plan("eohhs"), later).expect("known").expect("sent"), first);
        // The clock went back: numbers do not.
        assert_eq!(issue(&again, &plan("massdot"), Timestamp(0)), 1_001);
        assert_eq!(issue(&again, &plan("eohhs"), Timestamp(0)), 1_002, "an earlier plan is a new version");
        let issued = entered(&again);
        assert_eq!(issued.len(), 3);
        assert!(issued[0].starts_with("version 1000, 0 prefixes, "), "{issued:?}");
    }

    #[test]
    fn the_latest_bodies_are_kept_and_every_header() {
        let (store, _, _directory) = store();
        for number in 0..20 {
            issue(&store, &plan(&format!("s{number}")), NOW);
        }
        let (headers, bodies) = store
            .read(|connection| {
                let sql = "SELECT count(*) FROM plan_versions WHERE body IS NOT NULL";
                Ok((versions(connection)?, connection.query_row(sql, [], |row| row.get::<_, i64>(0))?))
            })
            .expect("readable");
        assert_eq!((headers.len(), bodies), (20, BODIES));
        assert_eq!(headers[0].version, 1_019);
    }

    #[test]
    fn a_plan_that_is_too_large_is_known_and_not_sent() {
        let (store, _, _directory) = store();
        issue(&store, &plan("eohhs"), NOW);
        let name: Name = "x".repeat(MAX_PLAN_BYTES).into();
        let large = AddressPlan {
            secretariats: vec![Secretariat {
                id: "eohhs".into(),
                name: Some(name),
                contact: None,
                address_space: None,
            }],
            ..AddressPlan::default()
        };
        for _ in 0..2 {
            assert_eq!(store.issue_plan(&large, NOW).expect("entered"), None);
        }
        let known = store.read(versions).expect("readable");
        assert_eq!(known.iter().map(|version| version.sent).collect::<Vec<_>>(), [false, true]);
        assert!(entered(&store)[1].contains("it is sent to no sensor"));
    }

    #[test]
    fn a_database_that_was_set_back_and_another_key_get_a_version_that_sensors_take() {
        let (store, config, _directory) = store();
        let first = issue(&store, &plan("eohhs"), NOW);
        let put = |version| {
            let held = PlanHeld { version, sha256: vec![1; 32].into(), own: false };
            store.transaction(|transaction| put_held(transaction, "boston-1", Some(&held))).expect("noted");
        };
        // Nobody can hold what the future brings, whatever a sensor says.
        put(u64::MAX);
        assert_eq!(issue(&store, &plan("eohhs"), NOW), first);
        put(first + 500);
        let now = NOW.plus(600 * NANOS_PER_SECOND);
        assert_eq!(issue(&store, &plan("eohhs"), now), 1_600);
        assert_eq!(issue(&store, &plan("eohhs"), now), 1_600);
        drop(store);
        crate::store::cosign::renew(&config).expect("a new key");
        let store = Store::attach(&config).expect("it opens");
        assert_eq!(issue(&store, &plan("eohhs"), now), 1_601);
    }

    #[test]
    fn what_a_sensor_says_is_kept_until_it_says_otherwise() {
        let (store, _, _directory) = store();
        let said = PlanHeld { version: 7, sha256: vec![1; 32].into(), own: true };
        let put = |held: Option<&PlanHeld>| {
            store.transaction(|transaction| put_held(transaction, "boston-1", held)).expect("noted");
        };
        put(Some(&said));
        assert_eq!(store.read(held).expect("readable").get("boston-1"), Some(&said));
        put(None);
        assert!(store.read(held).expect("readable").is_empty());
    }
}
