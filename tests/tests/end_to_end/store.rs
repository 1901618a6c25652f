//! What the collector's databases hold, read from the files themselves: the programs are not asked.

use std::{collections::BTreeMap, fs, path::Path};

use onenet_proto::v1;
use prost::Message as _;
use rusqlite::{Connection, OpenFlags};

/// What is stored of one sensor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// (epoch, sequence) of every batch, in order.
    pub(crate) batches: Vec<(i64, i64)>,
    /// (flow id, part) with packets and bytes both ways, in order.
    pub(crate) flows: Vec<FlowTotals>,
}

/// (flow id, part, packets, bytes of IP, bytes of payload) of both sides.
pub(crate) type FlowTotals = (Vec<u8>, i64, [i64; 6]);

impl Stored {
    /// The batches that are stored twice.
    pub(crate) fn batches_twice(&self) -> Vec<(i64, i64)> {
        self.batches.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect()
    }

    /// Whether the sequence of each epoch begins at 1 and has no gap.
    pub(crate) fn has_no_gap(&self) -> bool {
        let mut expected = (0, 1);
        self.batches.iter().all(|&(epoch, sequence)| {
            if epoch != expected.0 {
                expected = (epoch, 1);
            }
            let right = sequence == expected.1;
            expected.1 += 1;
            right
        })
    }

    /// How many parts of flows are stored twice.
    pub(crate) fn flows_twice(&self) -> usize {
        self.flows.windows(2).filter(|pair| (&pair[0].0, pair[0].1) == (&pair[1].0, pair[1].1)).count()
    }

    /// Parts of flows, and the sums of their counters.
    pub(crate) fn totals(&self) -> (usize, [i64; 6]) {
        let mut sums = [0; 6];
        for (_, _, counters) in &self.flows {
            for (sum, counter) in sums.iter_mut().zip(counters) {
                *sum += counter;
            }
        }
        (self.flows.len(), sums)
    }
}

fn open(path: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).expect("a database");
    connection.busy_timeout(std::time::Duration::from_secs(10)).expect("a time-out");
    connection
}

/// What is compared of a flow, from its record as it was sealed.
fn totals(record: &[u8]) -> FlowTotals {
    let flow = v1::Flow::decode(record).expect("a flow record");
    let sides = [flow.originator.expect("a side"), flow.responder.expect("a side")];
    let of = |counter: fn(&v1::FlowSide) -> u64| sides.each_ref().map(|side| counter(side).cast_signed());
    let ([a, b], [c, d], [e, f]) =
        (of(|side| side.packets), of(|side| side.ip_bytes), of(|side| side.payload_bytes));
    (flow.flow_id.to_vec(), flow.part.into(), [a, b, c, d, e, f])
}

/// Everything in the segments of a collector's directory, by sensor.
pub(crate) fn read(collector_dir: &Path) -> BTreeMap<String, Stored> {
    let mut stored: BTreeMap<String, Stored> = BTreeMap::new();
    for entry in fs::read_dir(collector_dir.join("data").join("segments")).expect("segments") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "db") {
            continue;
        }
        let segment = open(&path);
        let mut rows = segment.prepare("SELECT sensor, epoch, sequence FROM batches").expect("batches");
        let batches = rows.query_map([], |row| Ok((row.get::<_, String>(0)?, (row.get(1)?, row.get(2)?))));
        for batch in batches.expect("batches") {
            let (sensor, batch) = batch.expect("a batch");
            stored.entry(sensor).or_default().batches.push(batch);
        }
        let mut rows = segment
            .prepare("SELECT sensor, substr(body, at + 1, size) FROM flows JOIN batches ON batches.id = flows.batch")
            .expect("flows");
        let flows = rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)));
        for flow in flows.expect("flows") {
            let (sensor, record) = flow.expect("a flow");
            stored.entry(sensor).or_default().flows.push(totals(&record));
        }
    }
    for sensor in stored.values_mut() {
        sensor.batches.sort_unstable();
        sensor.flows.sort_unstable();
    }
    stored
}

/// How many changes of findings the collector has recorded, its own among them.
pub(crate) fn finding_changes(collector_dir: &Path) -> u64 {
    let control = open(&collector_dir.join("data").join("control.db"));
    let count: i64 = control
        .query_row("SELECT count(*) FROM finding_changes", [], |row| row.get(0))
        .expect("changes of findings");
    count.cast_unsigned()
}
