//! The row of a flow: what flows are searched by, and where the record is. The record itself stands once, in the body
//! of its batch as it was sealed: what is found is what was signed, and a row costs a quarter of what the record would.

use std::net::IpAddr;

use onenet_core::record::FlowRecord;
use onenet_proto::v1;
use prost::{
    DecodeError, Message as _,
    encoding::{DecodeContext, WireType, check_wire_type, decode_key, decode_varint, skip_field},
};
use rusqlite::{Connection, MAIN_DB, Statement, ToSql, blob::Blob};

use super::contents::{Contents, FlowRow};

/// The table, without its indexes.
pub(super) const TABLE: &str = "
CREATE TABLE flows (
    id INTEGER PRIMARY KEY,
    batch INTEGER NOT NULL,
    at INTEGER NOT NULL,                -- the record within the body of the batch: its first byte, from 0
    size INTEGER NOT NULL,              -- and its bytes
    start INTEGER NOT NULL,
    end INTEGER NOT NULL,
    protocol INTEGER NOT NULL,
    orig_ip BLOB NOT NULL,
    orig_port INTEGER NOT NULL,
    resp_ip BLOB NOT NULL,
    resp_port INTEGER NOT NULL,
    flow_id BLOB NOT NULL,
    community_id TEXT NOT NULL,
    site TEXT NOT NULL,
    orig_secretariat TEXT,
    resp_secretariat TEXT
) STRICT;
CREATE INDEX flows_start ON flows (start);
";

/// The statement that [`insert`] binds.
pub(super) const INSERT: &str = "
INSERT INTO flows (batch, at, size, start, end, protocol, orig_ip, orig_port, resp_ip, resp_port, flow_id,
    community_id, site, orig_secretariat, resp_secretariat)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Field of the flows in a `BatchBody`.
const FLOWS: u32 = 1;

/// A counter as SQLite's 64-bit integer; what does not fit (9.2e18) is cut there.
pub(super) fn counter(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The bytes of an address in network order, 4 or 16.
#[derive(Debug)]
pub(super) enum IpBytes {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl IpBytes {
    pub(super) fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => Self::V6(ip.octets()),
        }
    }
}

impl AsRef<[u8]> for IpBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::V4(bytes) => bytes,
            Self::V6(bytes) => bytes,
        }
    }
}

/// Where a record is within the body of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its first byte, from 0.
    pub(super) at: usize,
    /// Its bytes.
    pub(super) size: usize,
}

/// Where the flows are within a body, in its order; what does not parse ends the list.
pub(super) struct Places<'a> {
    body: &'a [u8],
    rest: &'a [u8],
    ended_early: bool,
}

impl<'a> Places<'a> {
    pub(super) const fn of(body: &'a [u8]) -> Self {
        Self { body, rest: body, ended_early: false }
    }

    /// Whether something did not parse.
    pub(super) const fn has_ended_early(&self) -> bool {
        self.ended_early
    }

    /// The next flow; an error of any kind says only that there is none.
    fn advance(&mut self) -> Result<Option<Place>, DecodeError> {
        while !self.rest.is_empty() {
            let (field, kind) = decode_key(&mut self.rest)?;
            if field != FLOWS {
                skip_field(kind, field, &mut self.rest, DecodeContext::default())?;
                continue;
            }
            check_wire_type(WireType::LengthDelimited, kind)?;
            let size = usize::try_from(decode_varint(&mut self.rest)?).unwrap_or(usize::MAX);
            let at = self.body.len() - self.rest.len();
            let Some(rest) = self.rest.get(size..) else {
                self.ended_early = true;
                return Ok(None);
            };
            self.rest = rest;
            return Ok(Some(Place { at, size }));
        }
        Ok(None)
    }
}

impl Iterator for Places<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        if self.ended_early {
            return None;
        }
        self.advance().unwrap_or_else(|_| {
            self.ended_early = true;
            None
        })
    }
}

/// Binds parameters one after another.
struct Binder<'a, 'c> {
    statement: &'a mut Statement<'c>,
    index: usize,
}

impl Binder<'_, '_> {
    fn put(&mut self, value: impl ToSql) -> Result<(), rusqlite::Error> {
        self.index += 1;
        self.statement.raw_bind_parameter(self.index, value)
    }
}

/// Inserts the row of one flow by the statement [`INSERT`].
fn insert(statement: &mut Statement<'_>, batch: i64, flow: &FlowRow) -> Result<(), rusqlite::Error> {
    let (originator, responder) = (&flow.originator, &flow.responder);
    let mut row = Binder { statement, index: 0 };
    row.put(batch)?;
    row.put(counter(flow.place.at as u64))?;
    row.put(counter(flow.place.size as u64))?;
    row.put(flow.start)?;
    row.put(flow.end)?;
    row.put(flow.protocol)?;
    row.put(IpBytes::of(originator.ip).as_ref())?;
    row.put(originator.port)?;
    row.put(IpBytes::of(responder.ip).as_ref())?;
    row.put(responder.port)?;
    row.put(&flow.flow_id.0.to_be_bytes()[..])?;
    row.put(flow.community_id.as_str())?;
    row.put(&*flow.site)?;
    row.put(originator.secretariat.as_deref())?;
    row.put(responder.secretariat.as_deref())?;
    statement.raw_execute().map(|_| ())
}

/// Inserts the rows of the flows of a batch.
pub(super) fn insert_all(
    connection: &Connection,
    batch: i64,
    flows: &[FlowRow],
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached(INSERT)?;
    flows.iter().try_for_each(|flow| insert(&mut statement, batch, flow))
}

/// Makes the table anew from the bodies of the batches, for a segment of an earlier version.
pub(super) fn rebuild(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch("DROP TABLE IF EXISTS flows")?;
    connection.execute_batch(TABLE)?;
    let mut batches = connection
        .prepare("SELECT id, body FROM batches WHERE poison IS NULL AND records > 0 ORDER BY id")?;
    let mut rows = batches.query([])?;
    while let Some(row) = rows.next()? {
        let (batch, body): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        // What was poison then has no rows; what is so by today's reading gets none either.
        if let Ok(contents) = Contents::check(&body.into()) {
            insert_all(connection, batch, &contents.flows)?;
        }
    }
    Ok(())
}

/// Reads records out of the bodies of their batches.
pub(super) struct Bodies<'c> {
    connection: &'c Connection,
    open: Option<Blob<'c>>,
}

impl<'c> Bodies<'c> {
    pub(super) const fn new(connection: &'c Connection) -> Self {
        Self { connection, open: None }
    }

    /// The record at a place in the body of this batch.
    pub(super) fn read(&mut self, batch: i64, at: i64, size: i64) -> Result<FlowRecord, rusqlite::Error> {
        let blob = match &mut self.open {
            Some(blob) => {
                blob.reopen(batch)?;
                blob
            }
            none => none.insert(self.connection.blob_open(MAIN_DB, "batches", "body", batch, true)?),
        };
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default().min(blob.len())];
        blob.read_at_exact(&mut bytes, usize::try_from(at).unwrap_or(usize::MAX))?;
        let flow = v1::Flow::decode(&bytes[..]).map_err(|error| wrong(error.to_string()))?;
        FlowRecord::try_from(flow).map_err(|error| wrong(error.to_string()))
    }
}

/// A row that does not fit its batch.
fn wrong(problem: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, problem.into())
}

#[cfg(test)]
mod tests {
    use onenet_proto::v1::{BatchBody, Flow, Loss};

    use super::*;

    #[test]
    fn the_places_of_flows_are_found_among_other_fields_and_damage_ends_them() {
        let flow = |part| Flow { part, site: "boston".into(), ..Flow::default() };
        let loss = Loss { count: 9, ..Loss::default() };
        let body = BatchBody { flows: vec![flow(1), flow(2)], losses: vec![loss], ..BatchBody::default() };
        let mut bytes = body.encode_to_vec();
        // A third behind everything else, as another encoder may put it.
        bytes.extend(BatchBody { flows: vec![flow(3)], ..BatchBody::default() }.encode_to_vec());
        let parts = |bytes: &[u8]| -> Vec<u32> {
            Places::of(bytes)
                .map(|place| Flow::decode(&bytes[place.at..place.at + place.size]).expect("a flow").part)
                .collect()
        };
        assert_eq!(parts(&bytes), [1, 2, 3]);
        for cut in 0..bytes.len() {
            assert!(Places::of(&bytes[..cut]).count() < 3, "cut at {cut}");
        }
    }
}
