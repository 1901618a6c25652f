//! A flow record as a row: every field a column, in one table of names, one writer and one reader.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use onenet_core::{
    net::{MacAddress, Name},
    record::{
        Aggregate, ConnState, Counting, Direction, DirectionReason, EndReason, FlowId, FlowRecord, FlowSide,
        Locality, Tunnel, TunnelKind,
    },
    time::Timestamp,
};
use rusqlite::{
    Row, Statement, ToSql,
    types::{FromSql, Type},
};

/// Columns of a flow in the order in which they are written and read, without `id` and `batch`.
pub(super) const COLUMNS: &[&str] = &[
    "flow_id BLOB NOT NULL",
    "community_id TEXT NOT NULL",
    "flow_start INTEGER NOT NULL",
    "start INTEGER NOT NULL",
    "end INTEGER NOT NULL",
    "part INTEGER NOT NULL",
    "end_reason INTEGER NOT NULL",
    "protocol INTEGER NOT NULL",
    "orig_ip BLOB NOT NULL",
    "orig_port INTEGER NOT NULL",
    "orig_mac BLOB",
    "orig_packets INTEGER NOT NULL",
    "orig_wire_bytes INTEGER NOT NULL",
    "orig_ip_bytes INTEGER NOT NULL",
    "orig_payload_bytes INTEGER NOT NULL",
    "orig_tcp_flags INTEGER NOT NULL",
    "orig_fragments INTEGER NOT NULL",
    "orig_ttl_min INTEGER NOT NULL",
    "orig_ttl_max INTEGER NOT NULL",
    "orig_dscp INTEGER NOT NULL",
    "orig_retransmissions INTEGER NOT NULL",
    "orig_missed_bytes INTEGER NOT NULL",
    "orig_locality INTEGER NOT NULL",
    "orig_segment TEXT",
    "orig_secretariat TEXT",
    "resp_ip BLOB NOT NULL",
    "resp_port INTEGER NOT NULL",
    "resp_mac BLOB",
    "resp_packets INTEGER NOT NULL",
    "resp_wire_bytes INTEGER NOT NULL",
    "resp_ip_bytes INTEGER NOT NULL",
    "resp_payload_bytes INTEGER NOT NULL",
    "resp_tcp_flags INTEGER NOT NULL",
    "resp_fragments INTEGER NOT NULL",
    "resp_ttl_min INTEGER NOT NULL",
    "resp_ttl_max INTEGER NOT NULL",
    "resp_dscp INTEGER NOT NULL",
    "resp_retransmissions INTEGER NOT NULL",
    "resp_missed_bytes INTEGER NOT NULL",
    "resp_locality INTEGER NOT NULL",
    "resp_segment TEXT",
    "resp_secretariat TEXT",
    "conn_state INTEGER NOT NULL",
    "history TEXT NOT NULL",
    "direction_reason INTEGER NOT NULL",
    "direction INTEGER NOT NULL",
    "site TEXT NOT NULL",
    "interface TEXT NOT NULL",
    "vlans BLOB",
    "mpls_labels BLOB",
    "tunnel_kind INTEGER",
    "tunnel_id INTEGER",
    "tunnel_parents BLOB",
    "rtt_syn_to_syn_ack INTEGER",
    "rtt_syn_ack_to_ack INTEGER",
    "counting INTEGER NOT NULL",
    "aggregate_flows INTEGER",
    "aggregate_originators INTEGER",
    "aggregate_originator_prefix INTEGER",
    "aggregate_responder_prefix INTEGER",
    "orig_zero_windows INTEGER NOT NULL DEFAULT 0",
    "orig_bad_checksums INTEGER NOT NULL DEFAULT 0",
    "orig_overlapping_fragments INTEGER NOT NULL DEFAULT 0",
    "resp_zero_windows INTEGER NOT NULL DEFAULT 0",
    "resp_bad_checksums INTEGER NOT NULL DEFAULT 0",
    "resp_overlapping_fragments INTEGER NOT NULL DEFAULT 0",
    "sampling INTEGER NOT NULL DEFAULT 1",
];

/// Columns that segments of this schema version have: the first so many of [`COLUMNS`].
fn columns_of(version: i64) -> usize {
    match version {
        ..2 => COLUMNS.len() - 11,
        2 => COLUMNS.len() - 1,
        _ => COLUMNS.len(),
    }
}

/// The columns that a segment of this schema version is without.
pub(super) fn columns_since(version: i64) -> &'static [&'static str] {
    &COLUMNS[columns_of(version)..]
}

/// The names of the columns, separated by commas, each behind `prefix`, in a segment of this schema version; for
/// those that it is without stands what they are by default.
pub(super) fn names(prefix: &str, version: i64) -> String {
    let known = columns_of(version);
    let names = COLUMNS.iter().enumerate().map(|(at, column)| {
        let name = column.split(' ').next().unwrap_or_default();
        if at < known {
            return format!("{prefix}{name}");
        }
        column.split_once(" DEFAULT ").map_or("NULL", |(_, default)| default).to_owned()
    });
    names.collect::<Vec<_>>().join(", ")
}

/// A counter as SQLite's 64-bit integer; what does not fit (9.2e18) is cut there.
pub(super) fn counter(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Big-endian bytes of a list; none where it is empty.
fn list<const N: usize>(items: impl Iterator<Item = [u8; N]>) -> Option<Vec<u8>> {
    let bytes = items.flatten().collect::<Vec<u8>>();
    (!bytes.is_empty()).then_some(bytes)
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

    fn side_since_2(&mut self, side: &FlowSide) -> Result<(), rusqlite::Error> {
        self.put(counter(side.zero_windows))?;
        self.put(counter(side.bad_checksums))?;
        self.put(counter(side.overlapping_fragments))
    }

    fn side(&mut self, side: &FlowSide) -> Result<(), rusqlite::Error> {
        self.put(IpBytes::of(side.ip).as_ref())?;
        self.put(side.port)?;
        self.put(side.mac.as_ref().map(|mac| &mac.0[..]))?;
        self.put(counter(side.packets))?;
        self.put(counter(side.wire_bytes))?;
        self.put(counter(side.ip_bytes))?;
        self.put(counter(side.payload_bytes))?;
        self.put(side.tcp_flags)?;
        self.put(counter(side.fragments))?;
        self.put(side.ttl_min)?;
        self.put(side.ttl_max)?;
        self.put(side.dscp)?;
        self.put(counter(side.retransmissions))?;
        self.put(counter(side.missed_bytes))?;
        self.put(side.locality.code())?;
        self.put(side.segment.as_deref())?;
        self.put(side.secretariat.as_deref())
    }
}

/// Inserts one flow by the statement that [`insert_sql`] gives.
pub(super) fn insert(
    statement: &mut Statement<'_>,
    batch: i64,
    flow: &FlowRecord,
) -> Result<(), rusqlite::Error> {
    let mut row = Binder { statement, index: 0 };
    row.put(batch)?;
    row.put(&flow.flow_id.0.to_be_bytes()[..])?;
    row.put(flow.community_id.as_str())?;
    row.put(flow.flow_start.0)?;
    row.put(flow.start.0)?;
    row.put(flow.end.0)?;
    row.put(flow.part)?;
    row.put(flow.end_reason.code())?;
    row.put(flow.protocol)?;
    row.side(&flow.originator)?;
    row.side(&flow.responder)?;
    row.put(flow.conn_state.code())?;
    row.put(flow.history.as_str())?;
    row.put(flow.direction_reason.code())?;
    row.put(flow.direction.code())?;
    row.put(&*flow.site)?;
    row.put(&*flow.interface)?;
    row.put(list(flow.vlans.iter().map(|id| id.to_be_bytes())))?;
    row.put(list(flow.mpls_labels.iter().map(|label| label.to_be_bytes())))?;
    row.put(flow.tunnel.map(|tunnel| tunnel.kind.code()))?;
    row.put(flow.tunnel.and_then(|tunnel| tunnel.id))?;
    row.put(list(flow.tunnel_parents.iter().map(|id| id.0.to_be_bytes())))?;
    row.put(flow.rtt_syn_to_syn_ack)?;
    row.put(flow.rtt_syn_ack_to_ack)?;
    row.put(flow.counting.code())?;
    row.put(flow.aggregate.map(|aggregate| counter(aggregate.flows)))?;
    row.put(flow.aggregate.map(|aggregate| counter(aggregate.originators)))?;
    row.put(flow.aggregate.map(|aggregate| aggregate.originator_prefix))?;
    row.put(flow.aggregate.map(|aggregate| aggregate.responder_prefix))?;
    row.side_since_2(&flow.originator)?;
    row.side_since_2(&flow.responder)?;
    row.put(flow.sampling)?;
    statement.raw_execute().map(|_| ())
}

/// The statement that [`insert`] binds.
pub(super) fn insert_sql() -> String {
    let marks = vec!["?"; COLUMNS.len() + 1].join(", ");
    format!("INSERT INTO flows (batch, {}) VALUES ({marks})", names("", super::segment::VERSION))
}

/// Reads columns one after another.
struct Reader<'a, 'r> {
    row: &'a Row<'r>,
    index: usize,
}

impl Reader<'_, '_> {
    fn get<T: FromSql>(&mut self) -> Result<T, rusqlite::Error> {
        self.index += 1;
        self.row.get(self.index - 1)
    }

    fn wrong(&self, expected: &str) -> rusqlite::Error {
        rusqlite::Error::FromSqlConversionFailure(
            self.index.saturating_sub(1),
            Type::Blob,
            format!("expected {expected}").into(),
        )
    }

    fn counter(&mut self) -> Result<u64, rusqlite::Error> {
        self.get::<i64>().map(|value| u64::try_from(value).unwrap_or(0))
    }

    fn code<T>(&mut self, from_code: fn(u8) -> Option<T>) -> Result<T, rusqlite::Error> {
        let code = self.get()?;
        from_code(code).ok_or_else(|| self.wrong("a known code"))
    }

    fn ip(&mut self) -> Result<IpAddr, rusqlite::Error> {
        let bytes: Vec<u8> = self.get()?;
        let v4 = <[u8; 4]>::try_from(&bytes[..]).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(&bytes[..]).map(IpAddr::from))
            .map_err(|_| self.wrong("an address of 4 or 16 bytes"))
    }

    fn id(&mut self) -> Result<FlowId, rusqlite::Error> {
        Ok(FlowId(u128::from_be_bytes(self.get::<[u8; 16]>()?)))
    }

    fn list<T, const N: usize, const LIMIT: usize>(
        &mut self,
        item: fn([u8; N]) -> T,
    ) -> Result<ArrayVec<T, LIMIT>, rusqlite::Error> {
        let bytes: Option<Vec<u8>> = self.get()?;
        let (items, rest) = bytes.as_deref().unwrap_or_default().as_chunks::<N>();
        if !rest.is_empty() || items.len() > LIMIT {
            return Err(self.wrong("a list of whole items within its limit"));
        }
        Ok(items.iter().map(|&bytes| item(bytes)).collect())
    }

    fn side_since_2(&mut self, side: &mut FlowSide) -> Result<(), rusqlite::Error> {
        side.zero_windows = self.counter()?;
        side.bad_checksums = self.counter()?;
        side.overlapping_fragments = self.counter()?;
        Ok(())
    }

    fn side(&mut self) -> Result<FlowSide, rusqlite::Error> {
        Ok(FlowSide {
            ip: self.ip()?,
            port: self.get()?,
            mac: self.get::<Option<[u8; 6]>>()?.map(MacAddress),
            packets: self.counter()?,
            wire_bytes: self.counter()?,
            ip_bytes: self.counter()?,
            payload_bytes: self.counter()?,
            tcp_flags: self.get()?,
            fragments: self.counter()?,
            ttl_min: self.get()?,
            ttl_max: self.get()?,
            dscp: self.get()?,
            retransmissions: self.counter()?,
            missed_bytes: self.counter()?,
            zero_windows: 0,
            bad_checksums: 0,
            overlapping_fragments: 0,
            locality: self.code(Locality::from_code)?,
            segment: self.get()?,
            secretariat: self.get()?,
        })
    }
}

impl Reader<'_, '_> {
    fn aggregate(&mut self) -> Result<Option<Aggregate>, rusqlite::Error> {
        let count = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let (flows, originators) = (count(self.get()?), count(self.get()?).unwrap_or(0));
        let prefixes: (Option<u8>, Option<u8>) = (self.get()?, self.get()?);
        Ok(flows.map(|flows| Aggregate {
            flows,
            originators,
            originator_prefix: prefixes.0.unwrap_or(0),
            responder_prefix: prefixes.1.unwrap_or(0),
        }))
    }
}

/// Reads the columns that [`names`] lists, from column `first` on.
pub(super) fn read(row: &Row<'_>, first: usize) -> Result<FlowRecord, rusqlite::Error> {
    let mut row = Reader { row, index: first };
    let mut flow = FlowRecord {
        flow_id: row.id()?,
        community_id: row.get()?,
        flow_start: Timestamp(row.get()?),
        start: Timestamp(row.get()?),
        end: Timestamp(row.get()?),
        part: row.get()?,
        end_reason: row.code(EndReason::from_code)?,
        protocol: row.get()?,
        originator: row.side()?,
        responder: row.side()?,
        conn_state: row.code(ConnState::from_code)?,
        history: row.get()?,
        direction_reason: row.code(DirectionReason::from_code)?,
        direction: row.code(Direction::from_code)?,
        site: row.get::<Name>()?,
        interface: row.get::<Name>()?,
        vlans: row.list(u16::from_be_bytes)?,
        mpls_labels: row.list(u32::from_be_bytes)?,
        tunnel: {
            let kind: Option<u8> = row.get()?;
            let id = row.get()?;
            let known = |kind| TunnelKind::from_code(kind).ok_or_else(|| row.wrong("a known tunnel"));
            kind.map(known).transpose()?.map(|kind| Tunnel { kind, id })
        },
        tunnel_parents: row.list(|bytes| FlowId(u128::from_be_bytes(bytes)))?,
        rtt_syn_to_syn_ack: row.get()?,
        rtt_syn_ack_to_ack: row.get()?,
        counting: row.code(Counting::from_code)?,
        sampling: 1,
        aggregate: row.aggregate()?,
    };
    row.side_since_2(&mut flow.originator)?;
    row.side_since_2(&mut flow.responder)?;
    flow.sampling = row.get()?;
    Ok(flow)
}
