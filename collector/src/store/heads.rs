//! Where each sensor's chain stands, with its running totals. A head is written in the transaction of the batches
//! that move it, and copied into each new segment, so that the newest segment knows the heads of all sensors.

use std::collections::BTreeMap;

use onenet_core::{net::Name, record::Ledger, time::Timestamp};
use onenet_proto::{
    seal::ChainHead,
    v1::{self, Cosignature},
};
use prost::Message;
use rusqlite::{Connection, params};

use super::flow_row::counter;

/// Where the chain of one sensor stands, and what it has delivered since it was first heard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SensorHead {
    /// The last batch committed.
    pub head: ChainHead,
    /// Collector time of that batch.
    pub received_at: Timestamp,
    /// Sensor's clock when it sealed that batch.
    pub wall_time: Timestamp,
    /// Nanoseconds since the sensor started, when it sealed that batch.
    pub monotonic_time: i64,
    /// Batches committed, quarantined ones included.
    pub batches: u64,
    /// Flows committed.
    pub flows: u64,
    /// Observations committed.
    pub observations: u64,
    /// Finding changes committed.
    pub findings: u64,
    /// Batches whose seal fits but whose body makes no sense.
    pub poisoned: u64,
    /// Records the sensor told it lost.
    pub lost: u64,
    /// The sensor's account since it started, as it last told.
    pub ledger: Option<Ledger>,
    /// The accounts of its earlier runs, added up.
    pub ledger_before: Ledger,
    /// The collector's word for the head; none where an earlier version committed it.
    pub cosignature: Option<Cosignature>,
}

impl SensorHead {
    /// The account over all runs of the sensor.
    pub fn ledger_total(&self) -> Ledger {
        let mut total = self.ledger_before.clone();
        if let Some(ledger) = &self.ledger {
            total.merge(ledger);
        }
        total
    }
}

/// Heads by sensor.
pub type Heads = BTreeMap<Name, SensorHead>;

/// The table of heads in a segment.
pub(super) const SCHEMA: &str = "
CREATE TABLE heads (
    sensor TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    wall_time INTEGER NOT NULL,
    monotonic_time INTEGER NOT NULL,
    batches INTEGER NOT NULL,
    flows INTEGER NOT NULL,
    observations INTEGER NOT NULL,
    findings INTEGER NOT NULL,
    poisoned INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    ledger BLOB,
    ledger_before BLOB NOT NULL,        -- what follows is a Cosignature, encoded
    cosignature BLOB
) STRICT, WITHOUT ROWID;
";

/// Writes a head in place of the one before it.
pub(super) fn write(connection: &Connection, sensor: &str, head: &SensorHead) -> Result<(), rusqlite::Error> {
    let encode = |ledger: &Ledger| v1::Ledger::from(ledger).encode_to_vec();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            sensor,
            head.head.epoch.cast_signed(),
            head.head.sequence.cast_signed(),
            head.head.hash,
            head.received_at.0,
            head.wall_time.0,
            head.monotonic_time,
            counter(head.batches),
            counter(head.flows),
            counter(head.observations),
            counter(head.findings),
            counter(head.poisoned),
            counter(head.lost),
            head.ledger.as_ref().map(encode),
            encode(&head.ledger_before),
            head.cosignature.as_ref().map(Message::encode_to_vec),
        ])?;
    Ok(())
}

/// Reads all heads of a segment, and sets each to the last batch of its sensor that the segment holds.
pub(super) fn read(connection: &Connection) -> Result<Heads, rusqlite::Error> {
    let mut heads = Heads::new();
    let mut statement = connection.prepare("SELECT * FROM heads")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
        let decode = |bytes: Vec<u8>| {
            v1::Ledger::decode(&bytes[..]).ok().and_then(|ledger| Ledger::try_from(&ledger).ok())
        };
        let head = SensorHead {
            head: ChainHead { epoch: number(1)?, sequence: number(2)?, hash: row.get(3)? },
            received_at: Timestamp(row.get(4)?),
            wall_time: Timestamp(row.get(5)?),
            monotonic_time: row.get(6)?,
            batches: number(7)?,
            flows: number(8)?,
            observations: number(9)?,
            findings: number(10)?,
            poisoned: number(11)?,
            lost: number(12)?,
            ledger: row.get::<_, Option<Vec<u8>>>(13)?.and_then(decode),
            ledger_before: decode(row.get(14)?).unwrap_or_default(),
            cosignature: row
                .get::<_, Option<Vec<u8>>>(15)?
                .and_then(|bytes| Cosignature::decode(&bytes[..]).ok()),
        };
        heads.insert(row.get(0)?, head);
    }
    let mut statement = connection.prepare(
        "SELECT sensor, epoch, sequence, hash FROM batches
         WHERE id IN (SELECT max(id) FROM batches GROUP BY sensor)",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let head: &mut SensorHead = heads.entry(row.get(0)?).or_default();
        let last = ChainHead {
            epoch: row.get::<_, i64>(1)?.cast_unsigned(),
            sequence: row.get::<_, i64>(2)?.cast_unsigned(),
            hash: row.get(3)?,
        };
        if head.head != last {
            // What was signed was another head.
            (head.head, head.cosignature) = (last, None);
        }
    }
    Ok(heads)
}
