//! The search for flows over all segments, newest first, page by page.

use std::{fmt, str::FromStr};

use ipnet::IpNet;
use onenet_core::{
    net::Name,
    record::{FlowId, FlowRecord},
    time::Timestamp,
};
use rusqlite::{ToSql, types::Value};
use serde::{Serialize, Serializer};

use super::{
    SegmentFile, SegmentNumber, SegmentStats, Store, StoreError,
    flow_row::{Bodies, IpBytes},
};

/// What flows to look for. Every condition that is stated must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowQuery {
    /// Flows that end at this time or later.
    pub from: Option<Timestamp>,
    /// Flows that start before this time.
    pub to: Option<Timestamp>,
    /// One side is in this prefix.
    pub address: Option<IpNet>,
    /// The other side is in this prefix (with `address`), or either (without).
    pub peer: Option<IpNet>,
    /// One side has this port.
    pub port: Option<u16>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// The sensor that saw it.
    pub sensor: Option<String>,
    /// Its site.
    pub site: Option<String>,
    /// One side belongs to this secretariat.
    pub secretariat: Option<String>,
    /// All parts of this flow.
    pub flow_id: Option<FlowId>,
    /// All flows with this Community ID.
    pub community_id: Option<String>,
    /// Flows on a page.
    pub limit: usize,
    /// Flows after this one: the `next` of the page before.
    pub after: Option<FlowCursor>,
}

impl Default for FlowQuery {
    fn default() -> Self {
        Self {
            from: None,
            to: None,
            address: None,
            peer: None,
            port: None,
            protocol: None,
            sensor: None,
            site: None,
            secretariat: None,
            flow_id: None,
            community_id: None,
            limit: 100,
            after: None,
        }
    }
}

/// A place in the order of flows: start, then segment, then row. Newer is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowCursor {
    start: i64,
    segment: SegmentNumber,
    row: i64,
}

impl fmt::Display for FlowCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.start, self.segment, self.row)
    }
}

/// What was expected where a text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the `next` of the page before")]
pub struct InvalidCursor;

impl FromStr for FlowCursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().ok_or(InvalidCursor);
        Ok(Self {
            start: part()?.parse().map_err(|_| InvalidCursor)?,
            segment: part()?.parse().map_err(|_| InvalidCursor)?,
            row: part()?.parse().map_err(|_| InvalidCursor)?,
        })
    }
}

impl Serialize for FlowCursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A flow with the batch that proves it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoredFlow {
    /// Its place in the order.
    #[serde(skip)]
    pub cursor: FlowCursor,
    /// The sensor that saw it.
    pub sensor: Name,
    /// Epoch of the batch that carried it.
    pub epoch: u64,
    /// Sequence of that batch.
    pub sequence: u64,
    /// The record.
    #[serde(flatten)]
    pub record: FlowRecord,
}

/// Some of the flows found, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FlowPage {
    /// The flows.
    pub flows: Vec<StoredFlow>,
    /// Where the next page begins; none on the last.
    pub next: Option<FlowCursor>,
}

impl Store {
    /// Looks for flows.
    pub fn flows(&self, query: &FlowQuery) -> Result<FlowPage, StoreError> {
        let mut segments: Vec<_> = self
            .segments()
            .into_iter()
            .filter(|segment| segment.stats().is_none_or(|stats| may_hold(stats, query)))
            .collect();
        // Latest end first, so that a full page rules out the segments behind it.
        let last = |segment: &SegmentFile| segment.stats().map_or(i64::MAX, last_end);
        segments.sort_by_key(|segment| std::cmp::Reverse((last(segment), segment.number)));
        let wanted = query.limit.saturating_add(1);
        let mut flows: Vec<StoredFlow> = Vec::new();
        for segment in segments {
            let full = flows.get(wanted.saturating_sub(1));
            if full.is_some_and(|flow| flow.cursor.start > last(&segment)) {
                break;
            }
            flows.extend(search(&segment, query, wanted)?);
            flows.sort_by_key(|flow| std::cmp::Reverse(flow.cursor));
            flows.truncate(wanted);
        }
        let more = flows.len() > query.limit;
        flows.truncate(query.limit);
        Ok(FlowPage { next: flows.last().filter(|_| more).map(|flow| flow.cursor), flows })
    }
}

fn last_end(stats: SegmentStats) -> i64 {
    stats.span.map_or(i64::MIN, |(_, end)| end)
}

fn may_hold(stats: SegmentStats, query: &FlowQuery) -> bool {
    stats.span.is_some_and(|(first, last)| {
        query.from.is_none_or(|from| last >= from.0)
            && query.to.is_none_or(|to| first < to.0)
            && query.after.is_none_or(|after| first <= after.start)
    })
}

/// A WHERE clause and its parameters.
#[derive(Default)]
struct Conditions {
    sql: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    fn add(&mut self, sql: impl Into<String>, values: impl IntoIterator<Item = Value>) {
        self.sql.push(sql.into());
        self.values.extend(values);
    }

    /// The column `side_ip` lies in the prefix. Addresses compare as bytes; the length tells the families apart.
    fn within(side: &str, net: IpNet) -> (String, [Value; 2]) {
        let (first, last) = (IpBytes::of(net.network()), IpBytes::of(net.broadcast()));
        let length = first.as_ref().len();
        let sql = format!("({side}_ip BETWEEN ? AND ? AND length({side}_ip) = {length})");
        (sql, [Value::Blob(first.as_ref().to_vec()), Value::Blob(last.as_ref().to_vec())])
    }

    fn addresses(&mut self, query: &FlowQuery) {
        match (query.address, query.peer) {
            (None, None) => {}
            (Some(net), None) | (None, Some(net)) => {
                let (orig, low) = Self::within("orig", net);
                let (resp, high) = Self::within("resp", net);
                self.add(format!("({orig} OR {resp})"), low.into_iter().chain(high));
            }
            (Some(net), Some(peer)) => {
                let mut sql = Vec::new();
                for (one, other) in [("orig", "resp"), ("resp", "orig")] {
                    let ((left, a), (right, b)) = (Self::within(one, net), Self::within(other, peer));
                    sql.push(format!("({left} AND {right})"));
                    self.values.extend(a.into_iter().chain(b));
                }
                self.sql.push(format!("({})", sql.join(" OR ")));
            }
        }
    }

    fn of(query: &FlowQuery, segment: SegmentNumber) -> Self {
        let mut conditions = Self::default();
        let text = |text: &String| Value::Text(text.clone());
        if let Some(from) = query.from {
            conditions.add("end >= ?", [Value::Integer(from.0)]);
        }
        if let Some(to) = query.to {
            conditions.add("start < ?", [Value::Integer(to.0)]);
        }
        conditions.addresses(query);
        if let Some(port) = query.port {
            let port = Value::Integer(port.into());
            conditions.add("(orig_port = ? OR resp_port = ?)", [port.clone(), port]);
        }
        if let Some(protocol) = query.protocol {
            conditions.add("protocol = ?", [Value::Integer(protocol.into())]);
        }
        if let Some(sensor) = &query.sensor {
            conditions.add("sensor = ?", [text(sensor)]);
        }
        if let Some(site) = &query.site {
            conditions.add("site = ?", [text(site)]);
        }
        if let Some(secretariat) = &query.secretariat {
            let sql = "(orig_secretariat = ? OR resp_secretariat = ?)";
            conditions.add(sql, [text(secretariat), text(secretariat)]);
        }
        if let Some(id) = query.flow_id {
            conditions.add("flow_id = ?", [Value::Blob(id.0.to_be_bytes().to_vec())]);
        }
        if let Some(id) = &query.community_id {
            conditions.add("community_id = ?", [text(id)]);
        }
        if let Some(after) = query.after {
            let start = Value::Integer(after.start);
            match segment.cmp(&after.segment) {
                std::cmp::Ordering::Less => conditions.add("start <= ?", [start]),
                std::cmp::Ordering::Greater => conditions.add("start < ?", [start]),
                std::cmp::Ordering::Equal => {
                    conditions.add("(start, flows.id) < (?, ?)", [start, Value::Integer(after.row)]);
                }
            }
        }
        conditions
    }
}

/// The newest flows of one segment that the query asks for.
fn search(segment: &SegmentFile, query: &FlowQuery, wanted: usize) -> Result<Vec<StoredFlow>, StoreError> {
    let mut conditions = Conditions::of(query, segment.number);
    conditions.sql.push("true".to_owned());
    conditions.values.push(Value::Integer(i64::try_from(wanted).unwrap_or(i64::MAX)));
    segment.readers.with(|connection| {
        let sql = format!(
            "SELECT flows.id, sensor, epoch, sequence, batch, at, size
             FROM flows JOIN batches ON batches.id = batch
             WHERE {} ORDER BY start DESC, flows.id DESC LIMIT ?",
            conditions.sql.join(" AND ")
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let parameters: Vec<&dyn ToSql> = conditions.values.iter().map(|value| value as &dyn ToSql).collect();
        let mut bodies = Bodies::new(connection);
        let rows = statement.query_map(&parameters[..], |row| {
            let record = bodies.read(row.get(4)?, row.get(5)?, row.get(6)?)?;
            Ok(StoredFlow {
                cursor: FlowCursor { start: record.start.0, segment: segment.number, row: row.get(0)? },
                sensor: row.get(1)?,
                epoch: row.get::<_, i64>(2)?.cast_unsigned(),
                sequence: row.get::<_, i64>(3)?.cast_unsigned(),
                record,
            })
        })?;
        rows.collect()
    })
}
