//! Sensors and the tokens by which they enrol.

use onenet_core::{net::Name, time::Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{
    Store, StoreError,
    events::{self, Event, EventKind},
};

/// SHA-256 of a certificate, a token's secret or a key.
pub type Sha256 = [u8; 32];

/// Whether a sensor may deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SensorState {
    /// It may.
    Active,
    /// It may not, for good: it has to enrol again.
    Revoked,
}

impl SensorState {
    /// Its name in the database and in text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
        }
    }
}

/// A sensor that has enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SensorEntry {
    /// Name.
    pub name: Name,
    /// Site.
    pub site: Name,
    /// Whether it may deliver.
    pub state: SensorState,
    /// SHA-256 of its certificate.
    pub fingerprint: Sha256,
    /// When its certificate ends.
    pub certificate_expires: Timestamp,
    /// Ed25519 public key of its seals.
    pub signing_key: [u8; 32],
    /// When it enrolled.
    pub enrolled_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

const COLUMNS: &str =
    "name, site, state, fingerprint, certificate_expires, signing_key, enrolled_at, revoked_at";

impl SensorEntry {
    fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        let active = row.get_ref(2)?.as_str()? == SensorState::Active.as_str();
        Ok(Self {
            name: row.get(0)?,
            site: row.get(1)?,
            state: if active { SensorState::Active } else { SensorState::Revoked },
            fingerprint: row.get(3)?,
            certificate_expires: Timestamp(row.get(4)?),
            signing_key: row.get(5)?,
            enrolled_at: Timestamp(row.get(6)?),
            revoked_at: row.get::<_, Option<i64>>(7)?.map(Timestamp),
        })
    }
}

/// Name and state of the sensor whose certificate this is.
pub(super) fn state_of(
    connection: &Connection,
    fingerprint: &Sha256,
) -> Result<Option<(Name, SensorState)>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT name, state FROM sensors WHERE fingerprint = ?")?;
    let row = statement.query_row(params![fingerprint], |row| {
        let active = row.get_ref(1)?.as_str()? == SensorState::Active.as_str();
        Ok((row.get(0)?, if active { SensorState::Active } else { SensorState::Revoked }))
    });
    row.optional()
}

/// A token that a sensor may enrol by, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// SHA-256 of its secret.
    pub hash: Sha256,
    /// Sensor it is for.
    pub sensor: String,
    /// Site of that sensor.
    pub site: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What a sensor asks for with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrollment {
    /// SHA-256 of the token's secret.
    pub token_hash: Sha256,
    /// SHA-256 of the key of its certificate request.
    pub key_hash: Sha256,
    /// Ed25519 public key of its seals.
    pub signing_key: [u8; 32],
    /// Name it asks for; empty for the token's.
    pub sensor: String,
    /// Site it asks for; empty for the token's.
    pub site: String,
    /// This moment.
    pub now: Timestamp,
}

/// A certificate for a sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// DER.
    pub der: Vec<u8>,
    /// SHA-256 of the DER.
    pub fingerprint: Sha256,
    /// When it ends.
    pub expires: Timestamp,
}

/// The answer to an enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// Name.
    pub sensor: String,
    /// Site.
    pub site: String,
    /// Certificate, DER.
    pub certificate: Vec<u8>,
}

/// Why an enrolment is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrollmentRefused {
    /// No such token.
    #[error("the token is not known here; make one with `onenet-collector token create`")]
    UnknownToken,
    /// Too late.
    #[error("the token expired at {0}; make a new one with `onenet-collector token create`")]
    Expired(Timestamp),
    /// Used by another key.
    #[error(
        "the token was used at {0} with another key; make a new one with `onenet-collector token create`"
    )]
    Used(Timestamp),
    /// The token is for another sensor.
    #[error("the token is for the sensor {expected:?}, not for {asked:?}")]
    OtherSensor {
        /// The token's.
        expected: String,
        /// The request's.
        asked: String,
    },
    /// The token is for another site.
    #[error("the token is for the site {expected:?}, not for {asked:?}")]
    OtherSite {
        /// The token's.
        expected: String,
        /// The request's.
        asked: String,
    },
    /// The certificate cannot be made.
    #[error("the certificate cannot be made: {0}")]
    Certificate(String),
}

/// A token as it is stored.
struct Token {
    sensor: String,
    site: String,
    expires_at: Timestamp,
    used_at: Option<Timestamp>,
    key_hash: Option<Sha256>,
    signing_key: Option<[u8; 32]>,
    certificate: Option<Vec<u8>>,
}

impl Token {
    fn find(connection: &Connection, hash: &Sha256) -> Result<Option<Self>, rusqlite::Error> {
        let sql = "SELECT sensor, site, expires_at, used_at, key_hash, signing_key, certificate
                   FROM tokens WHERE hash = ?";
        let row = connection.query_row(sql, params![hash], |row| {
            Ok(Self {
                sensor: row.get(0)?,
                site: row.get(1)?,
                expires_at: Timestamp(row.get(2)?),
                used_at: row.get::<_, Option<i64>>(3)?.map(Timestamp),
                key_hash: row.get(4)?,
                signing_key: row.get(5)?,
                certificate: row.get(6)?,
            })
        });
        row.optional()
    }

    /// Whether the token stands for this request; the certificate where it was answered before.
    fn check(&self, request: &Enrollment) -> Result<Option<&Vec<u8>>, EnrollmentRefused> {
        let differs = |asked: &String, expected: &String| !asked.is_empty() && asked != expected;
        if differs(&request.sensor, &self.sensor) {
            let (expected, asked) = (self.sensor.clone(), request.sensor.clone());
            return Err(EnrollmentRefused::OtherSensor { expected, asked });
        }
        if differs(&request.site, &self.site) {
            let (expected, asked) = (self.site.clone(), request.site.clone());
            return Err(EnrollmentRefused::OtherSite { expected, asked });
        }
        if let Some(used_at) = self.used_at {
            let same =
                self.key_hash == Some(request.key_hash) && self.signing_key == Some(request.signing_key);
            return if same { Ok(self.certificate.as_ref()) } else { Err(EnrollmentRefused::Used(used_at)) };
        }
        if request.now >= self.expires_at {
            return Err(EnrollmentRefused::Expired(self.expires_at));
        }
        Ok(None)
    }
}

impl Store {
    /// All sensors, by name.
    pub fn sensors(&self) -> Result<Vec<SensorEntry>, StoreError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM sensors ORDER BY name"))?;
            let rows = statement.query_map([], SensorEntry::read)?;
            rows.collect()
        })
    }

    /// The sensor whose certificate this is.
    pub fn sensor_by_fingerprint(&self, fingerprint: &Sha256) -> Result<Option<SensorEntry>, StoreError> {
        self.read(|connection| {
            let sql = format!("SELECT {COLUMNS} FROM sensors WHERE fingerprint = ?");
            connection.prepare_cached(&sql)?.query_row(params![fingerprint], SensorEntry::read).optional()
        })
    }

    /// Revokes a sensor; says whether there was an active one of that name.
    pub fn revoke_sensor(&self, name: &str, now: Timestamp) -> Result<bool, StoreError> {
        self.transaction(|transaction| {
            let revoked = transaction.execute(
                "UPDATE sensors SET state = 'revoked', revoked_at = ? WHERE name = ? AND state = 'active'",
                params![now.0, name],
            )?;
            if revoked > 0 {
                let message = format!("sensor {name} is revoked");
                let sensor = name.to_owned();
                let kind = EventKind::Revoked;
                events::insert(transaction, &Event { time: now, kind, sensor, batch: None, message })?;
            }
            Ok(revoked > 0)
        })
    }

    /// Stores a token. Only the hash of its secret is kept.
    pub fn add_token(&self, token: &NewToken) -> Result<(), StoreError> {
        self.transaction(|transaction| {
            transaction.execute(
                "INSERT INTO tokens (hash, sensor, site, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
                params![token.hash, token.sensor, token.site, token.created_at.0, token.expires_at.0],
            )?;
            let message =
                format!("a token for {} at {}, valid until {}", token.sensor, token.site, token.expires_at);
            let event = Event {
                time: token.created_at,
                kind: EventKind::TokenCreated,
                sensor: token.sensor.clone(),
                batch: None,
                message,
            };
            events::insert(transaction, &event)
        })
    }

    /// Answers an enrolment: checks the token, has the certificate made by `issue` (for a sensor name) and stores
    /// both, in one transaction. The same request again gets the same answer.
    pub fn enroll(
        &self,
        request: &Enrollment,
        issue: impl FnOnce(&str) -> Result<IssuedCertificate, String>,
    ) -> Result<Result<Enrolled, EnrollmentRefused>, StoreError> {
        self.transaction(|transaction| {
            let Some(token) = Token::find(transaction, &request.token_hash)? else {
                return Ok(Err(EnrollmentRefused::UnknownToken));
            };
            let answer = |certificate: Vec<u8>| {
                Ok(Ok(Enrolled { sensor: token.sensor.clone(), site: token.site.clone(), certificate }))
            };
            match token.check(request) {
                Err(refused) => return Ok(Err(refused)),
                Ok(Some(certificate)) => return answer(certificate.clone()),
                Ok(None) => {}
            }
            let issued = match issue(&token.sensor) {
                Ok(issued) => issued,
                Err(error) => return Ok(Err(EnrollmentRefused::Certificate(error))),
            };
            store_sensor(transaction, &token, request, &issued)?;
            answer(issued.der)
        })
    }
}

fn store_sensor(
    connection: &Connection,
    token: &Token,
    request: &Enrollment,
    issued: &IssuedCertificate,
) -> Result<(), rusqlite::Error> {
    connection.execute(
        "INSERT INTO sensors VALUES (?, ?, 'active', ?, ?, ?, ?, ?, NULL)
         ON CONFLICT (name) DO UPDATE SET site = excluded.site, state = excluded.state,
            fingerprint = excluded.fingerprint, certificate = excluded.certificate,
            certificate_expires = excluded.certificate_expires, signing_key = excluded.signing_key,
            enrolled_at = excluded.enrolled_at, revoked_at = NULL",
        params![
            token.sensor,
            token.site,
            issued.fingerprint,
            issued.der,
            issued.expires.0,
            request.signing_key,
            request.now.0,
        ],
    )?;
    connection.execute(
        "INSERT OR IGNORE INTO sensor_keys VALUES (?, ?, ?)",
        params![token.sensor, request.signing_key, request.now.0],
    )?;
    connection.execute(
        "UPDATE tokens SET used_at = ?, key_hash = ?, signing_key = ?, certificate = ? WHERE hash = ?",
        params![request.now.0, request.key_hash, request.signing_key, issued.der, request.token_hash],
    )?;
    let message = format!("sensor {} enrolled at {}", token.sensor, token.site);
    let sensor = token.sensor.clone();
    let kind = EventKind::Enrolled;
    events::insert(connection, &Event { time: request.now, kind, sensor, batch: None, message })
}
