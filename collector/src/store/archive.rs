//! The store as an auditor reads it: read-only, whether or not a collector runs on it, one row after another, so that
//! memory does not grow with it. Nothing is made, brought up to date or repaired, and nothing that is read is trusted.

use std::path::{Path, PathBuf};

use onenet_core::{net::Name, time::Timestamp};
use onenet_proto::{
    seal::{ChainHead, MAX_BATCH_BYTES, SigningKey},
    v1::{Cosignature, SealedBatch},
};
use prost::Message as _;
use rusqlite::{
    Connection, OpenFlags, OptionalExtension as _, Params, Row, Rows,
    fallible_streaming_iterator::FallibleStreamingIterator as _, params,
};

use super::retention::{self, Anchor};
use super::{
    Contents, Cursor, SegmentNumber, StoreError,
    audit::{self, Mark},
    connection,
    contents::FlowRow,
    control_cursors,
    flow_row::IpBytes,
    segment,
};
use crate::evidence::check::{Keys, SensorKey};

/// A store on the disk.
#[derive(Debug)]
pub(crate) struct Archive {
    directory: PathBuf,
    /// The control database.
    pub(crate) control: Connection,
    /// How far the audit trail had come.
    pub(crate) mark: Option<Mark>,
}

/// One of its segments, as it was when it was opened.
#[derive(Debug)]
pub(crate) struct ArchiveSegment {
    /// Its number.
    pub(crate) number: SegmentNumber,
    /// Its file, for people.
    pub(crate) name: String,
    path: PathBuf,
    connection: Connection,
}

/// The row of a batch. Everything but the sealed bytes is a claim.
#[derive(Clone, Debug)]
pub(crate) struct BatchRow {
    /// Its number in the segment.
    pub(crate) id: i64,
    /// Whose it is meant to be.
    pub(crate) sensor: Name,
    /// Epoch.
    pub(crate) epoch: u64,
    /// Sequence.
    pub(crate) sequence: u64,
    /// Hash.
    pub(crate) hash: Vec<u8>,
    /// As sealed; empty where it is larger than any batch can be.
    pub(crate) sealed: SealedBatch,
    /// Collector time of its commit.
    pub(crate) received_at: Timestamp,
    /// Flows, observations and findings.
    pub(crate) records: u64,
    /// Why the body makes no sense.
    pub(crate) poison: Option<String>,
    /// The collector's word, encoded.
    pub(crate) cosignature: Option<Vec<u8>>,
}

/// The row of a head.
#[derive(Clone, Debug)]
pub(crate) struct HeadRow {
    /// Whose it is.
    pub(crate) sensor: Name,
    /// The last batch.
    pub(crate) head: ChainHead,
    /// Batches committed since the sensor was first heard.
    pub(crate) batches: u64,
    /// The collector's word for the head.
    pub(crate) cosignature: Option<Cosignature>,
}

/// A batch of the quarantine: sealed, but without a place in the chain.
#[derive(Clone, Debug)]
pub(crate) struct QuarantineRow {
    /// Whose it is.
    pub(crate) sensor: Name,
    /// Epoch.
    pub(crate) epoch: u64,
    /// Sequence.
    pub(crate) sequence: u64,
    /// Hash.
    pub(crate) hash: Vec<u8>,
    /// As sealed.
    pub(crate) sealed: SealedBatch,
    /// Collector time.
    pub(crate) received_at: Timestamp,
    /// Why it has no place.
    pub(crate) reason: String,
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        // One moment of the database, however long the reading takes.
        connection.execute_batch("BEGIN")?;
        connection::version(&connection)?;
        Ok(connection)
    };
    open().map_err(StoreError::sqlite(path))
}

/// Reads the rows of a query one after another and hands each over; no more than one is held.
fn each_row<T, E: From<StoreError>>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    failed: &impl Fn(rusqlite::Error) -> StoreError,
    mut read: impl FnMut(&Row<'_>) -> Result<T, rusqlite::Error>,
    mut each: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let mut rows = statement.query(params).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        each(read(row).map_err(failed)?)?;
    }
    Ok(())
}

impl Archive {
    /// Opens the store in `directory`, which has to be there.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        // Read before the trail, so that it cannot be ahead of it.
        let mark = audit::read_mark(directory)?;
        let control = open(&directory.join("control.db"))?;
        Ok(Self { directory: directory.to_owned(), control, mark })
    }

    /// Its segments, oldest first, without those whose deletion is published but not finished.
    pub(crate) fn segments(&self) -> Result<Vec<SegmentNumber>, StoreError> {
        let mut numbers = segment::list(&self.directory.join("segments"))?;
        if self.has_table("deleted_segments")? {
            let deleted = retention::deleted_segments(&self.control).map_err(self.failed())?;
            numbers.retain(|number| !deleted.contains(number));
        }
        Ok(numbers)
    }

    /// Opens one of them.
    pub(crate) fn segment(&self, number: SegmentNumber) -> Result<ArchiveSegment, StoreError> {
        let path = segment::path(&self.directory.join("segments"), number);
        let connection = open(&path)?;
        let found = connection::version(&connection).map_err(StoreError::sqlite(&path))?;
        if found != segment::VERSION {
            return Err(StoreError::Schema { path, found, expected: segment::VERSION });
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(ArchiveSegment { number, name: format!("segments/{file}"), path, connection })
    }

    /// The keys: those of the sensors, and the collector's own.
    pub(crate) fn keys(&self) -> Result<Keys, StoreError> {
        let path = self.directory.join("cosign.key");
        let bytes = std::fs::read(&path).map_err(StoreError::io(&path))?;
        let key = SigningKey::from_pkcs8(&bytes).map_err(|_| StoreError::BadKey { path })?;
        let mut keys = Keys { collector: key.public_key().to_vec(), ..Keys::default() };
        if self.has_table("cosign_keys")? {
            let sql = "SELECT key FROM cosign_keys ORDER BY since, key";
            self.rows(
                sql,
                |row| row.get(0),
                |key: Vec<u8>| {
                    if key != keys.collector {
                        keys.former.push(key);
                    }
                    Ok::<_, StoreError>(())
                },
            )?;
        }
        let sql = "SELECT sensor, signing_key, since FROM sensor_keys ORDER BY sensor, since";
        let key =
            |row: &Row<'_>| Ok((row.get(0)?, SensorKey { key: row.get(1)?, since: Timestamp(row.get(2)?) }));
        self.rows(sql, key, |(sensor, key)| {
            keys.sensors.entry(sensor).or_default().push(key);
            Ok::<_, StoreError>(())
        })?;
        Ok(keys)
    }

    /// The last batch of a sensor that retention has deleted.
    pub(crate) fn anchor(&self, sensor: &str) -> Result<Option<Anchor>, StoreError> {
        if !self.has_table("chain_anchors")? {
            return Ok(None);
        }
        retention::anchor(&self.control, sensor).map_err(self.failed())
    }

    /// Up to where the correlator has read: so much was there.
    pub(crate) fn correlated(&self) -> Result<Cursor, StoreError> {
        control_cursors::correlated(&self.control).map_err(self.failed())
    }

    /// Hands every batch of the quarantine over.
    pub(crate) fn quarantine<E: From<StoreError>>(
        &self,
        each: impl FnMut(QuarantineRow) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = format!(
            "SELECT sensor, epoch, sequence, hash, received_at, reason, {}
             FROM quarantine ORDER BY sensor, epoch, sequence, hash",
            sealed_columns()
        );
        self.rows(&sql, quarantined, each)
    }

    /// Hands every row of a query on the control database over, one after another.
    pub(super) fn rows<T, E: From<StoreError>>(
        &self,
        sql: &str,
        read: impl FnMut(&Row<'_>) -> Result<T, rusqlite::Error>,
        each: impl FnMut(T) -> Result<(), E>,
    ) -> Result<(), E> {
        each_row(&self.control, sql, [], &self.failed(), read, each)
    }

    /// Whether the control database has a table; one of an earlier version lacks some.
    pub(crate) fn has_table(&self, name: &str) -> Result<bool, StoreError> {
        let sql = "SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'table' AND name = ?";
        self.control.query_row(sql, [name], |row| row.get(0)).map_err(self.failed())
    }

    pub(super) fn failed(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let path = self.directory.join("control.db");
        move |error| StoreError::Sqlite { path: path.clone(), error }
    }
}

/// Which batches of a segment: by their numbers, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rowspan {
    /// The first.
    pub(crate) first: i64,
    /// The last.
    pub(crate) last: i64,
}

impl Rowspan {
    /// All there are.
    pub(crate) const ALL: Self = Self { first: i64::MIN, last: i64::MAX };
}

impl ArchiveSegment {
    /// The numbers of the batches received from `from` on and before `to`: one piece, whatever the clock did between.
    /// None where there are none.
    pub(crate) fn span(
        &self,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<Option<Rowspan>, StoreError> {
        if (from, to) == (None, None) {
            return Ok(Some(Rowspan::ALL));
        }
        let sql = "SELECT min(id), max(id) FROM batches WHERE received_at >= ? AND received_at < ?";
        let from = from.map_or(i64::MIN, |from| from.0);
        let to = to.map_or(i64::MAX, |to| to.0);
        let span = self.connection.query_row(sql, params![from, to], |row| {
            let first: Option<i64> = row.get(0)?;
            Ok(first.zip(row.get(1)?).map(|(first, last)| Rowspan { first, last }))
        });
        span.map_err(self.failed())
    }

    /// Hands every batch in the span over, in the order of commits; those of one sensor where one is named. A row
    /// that does not read is told by its number.
    pub(crate) fn batches<E: From<StoreError>>(
        &self,
        span: Rowspan,
        sensor: Option<&str>,
        each: impl FnMut(Result<BatchRow, String>) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = format!(
            "SELECT id, sensor, epoch, sequence, hash, received_at, records, poison, cosignature, {}
             FROM batches WHERE id BETWEEN ?1 AND ?2 AND (?3 IS NULL OR sensor = ?3) ORDER BY id",
            sealed_columns()
        );
        let read = |row: &Row<'_>| {
            let id: i64 = row.get(0)?;
            Ok(batch(row).map_err(|error| format!("row {id} does not read: {error}")))
        };
        let params = params![span.first, span.last, sensor];
        each_row(&self.connection, &sql, params, &self.failed(), read, each)
    }

    /// How the numbers of the batches, which are given without gaps from 1 on, show that some were taken out.
    pub(crate) fn missing_row(&self) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT count(*), coalesce(max(id), 0) FROM batches";
        let counted = self.connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        let (count, last): (i64, i64) = counted.map_err(self.failed())?;
        if count == last {
            return Ok(None);
        }
        let sql = "SELECT min(n) FROM (SELECT 1 AS n UNION ALL SELECT id + 1 FROM batches)
                   WHERE n NOT IN (SELECT id FROM batches)";
        self.connection.query_row(sql, [], |row| row.get(0)).map_err(self.failed())
    }

    /// The number of its last batch, 0 where it has none.
    pub(crate) fn last_row(&self) -> Result<i64, StoreError> {
        let sql = "SELECT coalesce(max(id), 0) FROM batches";
        self.connection.query_row(sql, [], |row| row.get(0)).map_err(self.failed())
    }

    /// The hash of the batch of this identity, where the segment holds it.
    pub(crate) fn hash_of(
        &self,
        sensor: &str,
        epoch: u64,
        sequence: u64,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        segment::hash_of(&self.connection, sensor, epoch, sequence).map_err(self.failed())
    }

    /// The batches that hold a flow: their numbers.
    pub(crate) fn batches_of_flow(&self, flow: &[u8; 16]) -> Result<Vec<i64>, StoreError> {
        let run = || {
            let mut statement =
                self.connection.prepare_cached("SELECT DISTINCT batch FROM flows WHERE flow_id = ?")?;
            let rows = statement.query_map(params![flow], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()
        };
        run().map_err(self.failed())
    }

    /// The numbers of a sensor's batches in the span, in order.
    pub(crate) fn rows_of_sensor(&self, sensor: &str, span: Rowspan) -> Result<Vec<i64>, StoreError> {
        let run = || {
            let sql = "SELECT id FROM batches WHERE sensor = ? AND id BETWEEN ? AND ? ORDER BY id";
            let mut statement = self.connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![sensor, span.first, span.last], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()
        };
        run().map_err(self.failed())
    }

    /// The last batch of a sensor before a number in this segment.
    pub(crate) fn head_before(&self, sensor: &str, first: i64) -> Result<Option<ChainHead>, StoreError> {
        let sql =
            "SELECT epoch, sequence, hash FROM batches WHERE sensor = ? AND id < ? ORDER BY id DESC LIMIT 1";
        let found = self.connection.query_row(sql, params![sensor, first], |row| {
            Ok(ChainHead {
                epoch: row.get::<_, i64>(0)?.cast_unsigned(),
                sequence: row.get::<_, i64>(1)?.cast_unsigned(),
                hash: row.get(2)?,
            })
        });
        found.optional().map_err(self.failed())
    }

    /// The heads as they are written down, not as the batches say.
    pub(crate) fn heads(&self) -> Result<Vec<HeadRow>, StoreError> {
        let run = || {
            let mut statement = self.connection.prepare(
                "SELECT sensor, epoch, sequence, hash, batches, cosignature FROM heads ORDER BY sensor",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(HeadRow {
                    sensor: row.get(0)?,
                    head: ChainHead {
                        epoch: row.get::<_, i64>(1)?.cast_unsigned(),
                        sequence: row.get::<_, i64>(2)?.cast_unsigned(),
                        hash: row.get(3)?,
                    },
                    batches: row.get::<_, i64>(4)?.cast_unsigned(),
                    cosignature: row
                        .get::<_, Option<Vec<u8>>>(5)?
                        .map(|bytes| Cosignature::decode(&bytes[..]).unwrap_or_default()),
                })
            })?;
            rows.collect::<Result<_, _>>()
        };
        run().map_err(self.failed())
    }

    /// The rows of the flows, to be held against the bodies in the same order.
    pub(crate) fn flow_rows(&self) -> Result<rusqlite::Statement<'_>, StoreError> {
        let sql =
            "SELECT batch, at, size, start, end, protocol, orig_ip, orig_port, resp_ip, resp_port, flow_id,
                       community_id, site, orig_secretariat, resp_secretariat FROM flows ORDER BY id";
        self.connection.prepare(sql).map_err(self.failed())
    }

    /// An error of this segment.
    pub(crate) fn failed(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |error| StoreError::Sqlite { path: path.clone(), error }
    }
}

/// The sealed bytes where they are of a size that a batch can have, so that a planted row cannot fill the memory.
fn sealed_columns() -> String {
    let fits = format!("length(header) + length(body) <= {MAX_BATCH_BYTES} AND length(signature) <= 1024");
    ["header", "body", "signature"]
        .map(|name| format!("CASE WHEN {fits} THEN {name} ELSE x'' END"))
        .join(", ")
}

fn sealed(row: &Row<'_>, first: usize) -> Result<SealedBatch, rusqlite::Error> {
    Ok(SealedBatch {
        header: row.get::<_, Vec<u8>>(first)?.into(),
        body: row.get::<_, Vec<u8>>(first + 1)?.into(),
        signature: row.get::<_, Vec<u8>>(first + 2)?.into(),
    })
}

fn batch(row: &Row<'_>) -> Result<BatchRow, rusqlite::Error> {
    Ok(BatchRow {
        id: row.get(0)?,
        sensor: row.get(1)?,
        epoch: row.get::<_, i64>(2)?.cast_unsigned(),
        sequence: row.get::<_, i64>(3)?.cast_unsigned(),
        hash: row.get(4)?,
        received_at: Timestamp(row.get(5)?),
        records: row.get::<_, i64>(6)?.cast_unsigned(),
        poison: row.get(7)?,
        cosignature: row.get(8)?,
        sealed: sealed(row, 9)?,
    })
}

fn quarantined(row: &Row<'_>) -> Result<QuarantineRow, rusqlite::Error> {
    Ok(QuarantineRow {
        sensor: row.get(0)?,
        epoch: row.get::<_, i64>(1)?.cast_unsigned(),
        sequence: row.get::<_, i64>(2)?.cast_unsigned(),
        hash: row.get(3)?,
        received_at: Timestamp(row.get(4)?),
        reason: row.get(5)?,
        sealed: sealed(row, 6)?,
    })
}

/// Holds the rows of flows against what the bodies of the batches hold, in the order of both.
pub(crate) struct FlowRows<'s> {
    rows: Rows<'s>,
    /// The batch whose row comes next, and whether that row has been looked at.
    next: Option<i64>,
}

impl<'s> FlowRows<'s> {
    /// Begins before the first row.
    pub(crate) fn new(statement: &'s mut rusqlite::Statement<'_>) -> Result<Self, rusqlite::Error> {
        let mut rows = Self { rows: statement.query([])?, next: None };
        rows.advance()?;
        Ok(rows)
    }

    fn advance(&mut self) -> Result<(), rusqlite::Error> {
        self.next = self.rows.next()?.map(|row| row.get(0)).transpose()?;
        Ok(())
    }

    /// Passes over the rows of the batches before `batch`, which are not looked at.
    pub(crate) fn skip_to(&mut self, batch: i64) -> Result<(), rusqlite::Error> {
        while self.next.is_some_and(|next| next < batch) {
            self.advance()?;
        }
        Ok(())
    }

    /// The batch whose row comes next.
    pub(crate) const fn next_batch(&self) -> Option<i64> {
        self.next
    }

    /// Whether the next rows are those of this batch; says what is wrong where they are not.
    pub(crate) fn compare(
        &mut self,
        batch: i64,
        contents: &Result<Contents, String>,
    ) -> Result<Option<String>, rusqlite::Error> {
        let flows = contents.as_ref().map_or(&[][..], |contents| &contents.flows[..]);
        for (index, flow) in flows.iter().enumerate() {
            if self.next != Some(batch) {
                return Ok(Some(format!(
                    "{index} rows of flows, expected {}: the others are missing",
                    flows.len()
                )));
            }
            if let Some(row) = self.rows.get()
                && let Some(column) = differs(row, flow)?
            {
                return Ok(Some(format!("flow {index}: its row says another {column} than the batch")));
            }
            self.advance()?;
        }
        let more = self.next == Some(batch);
        Ok(more.then(|| format!("more rows of flows than the {} that it holds", flows.len())))
    }
}

/// The column in which the row of a flow is not what the body says.
fn differs(row: &Row<'_>, flow: &FlowRow) -> Result<Option<&'static str>, rusqlite::Error> {
    let number = |column: usize| row.get::<_, i64>(column);
    let bytes = |column: usize, expected: &[u8]| -> Result<bool, rusqlite::Error> {
        Ok(row.get_ref(column)?.as_blob().is_ok_and(|found| found == expected))
    };
    let text = |column: usize, expected: Option<&str>| -> Result<bool, rusqlite::Error> {
        Ok(row.get_ref(column)?.as_str_or_null().is_ok_and(|found| found == expected))
    };
    let (originator, responder) = (&flow.originator, &flow.responder);
    let fits = [
        ("place", number(1)? == i64::try_from(flow.place.at).unwrap_or(-1)),
        ("size", number(2)? == i64::try_from(flow.place.size).unwrap_or(-1)),
        ("start", number(3)? == flow.start),
        ("end", number(4)? == flow.end),
        ("protocol", number(5)? == i64::from(flow.protocol)),
        ("originator", bytes(6, IpBytes::of(originator.ip).as_ref())?),
        ("originator's port", number(7)? == i64::from(originator.port)),
        ("responder", bytes(8, IpBytes::of(responder.ip).as_ref())?),
        ("responder's port", number(9)? == i64::from(responder.port)),
        ("flow id", bytes(10, &flow.flow_id.0.to_be_bytes())?),
        ("community id", text(11, Some(&flow.community_id))?),
        ("site", text(12, Some(&flow.site))?),
        ("originator's secretariat", text(13, originator.secretariat.as_deref())?),
        ("responder's secretariat", text(14, responder.secretariat.as_deref())?),
    ];
    Ok(fits.into_iter().find(|(_, fits)| !fits).map(|(column, _)| column))
}
