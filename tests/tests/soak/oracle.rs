//! The oracle: what was made is what is stored, each once, and what was signed away; and what is stored of a sensor is
//! one whole chain. Read from the collector's files and decoded here: no program of ours is asked.

use std::{collections::BTreeMap, fs, path::Path};

use onenet_proto::{
    seal::{self, ChainHead, SigningKey},
    v1::{BatchBody, BatchHeader, SealedBatch},
};
use prost::Message as _;
use rusqlite::{Connection, OpenFlags};

use crate::{harness::Lab, kit::Sensor};

/// What became of the flows of one sensor, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Flows that were made.
    pub(crate) truth: u64,
    /// Different ones that are stored.
    pub(crate) unique: u64,
    /// Flows that signed records say were lost.
    pub(crate) lost: u64,
    /// Batches that signed records say were lost: nobody knows how many flows these held.
    pub(crate) lost_batches: u64,
    /// Flows that are stored more often than once.
    pub(crate) twice: u64,
    /// Stored flows that were never made.
    pub(crate) never_made: u64,
    /// Batches.
    pub(crate) batches: u64,
    /// Chains, each from sequence 1.
    pub(crate) epochs: u64,
}

impl Account {
    /// Adds another sensor's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.truth += other.truth;
        self.unique += other.unique;
        self.lost += other.lost;
        self.lost_batches += other.lost_batches;
        self.twice += other.twice;
        self.never_made += other.never_made;
        self.batches += other.batches;
        self.epochs += other.epochs;
    }

    /// Why it does not balance, where it does not.
    pub(crate) fn complaint(&self) -> Option<String> {
        let balanced = self.unique + self.lost == self.truth;
        let clean = self.twice == 0 && self.never_made == 0 && self.lost_batches == 0;
        (!balanced || !clean).then(|| format!("it does not balance: {self:?}"))
    }
}

/// A stored batch.
pub(crate) struct Row {
    epoch: u64,
    sequence: u64,
    sealed: SealedBatch,
}

fn open(path: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).expect("a database");
    connection.busy_timeout(std::time::Duration::from_secs(10)).expect("a time-out");
    connection
}

/// Holds the segment that a collector writes to, so that it can commit nothing; gives the last sequence that is committed
/// of a sensor.
pub(crate) fn hold(lab: &Lab, sensor: &str) -> (Connection, u64) {
    let entries = fs::read_dir(lab.collector_dir().join("data").join("segments")).expect("segments");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let newest = paths.filter(|path| path.extension().is_some_and(|extension| extension == "db")).max();
    let segment = Connection::open(newest.expect("a segment")).expect("a database");
    segment.busy_timeout(std::time::Duration::from_secs(60)).expect("a time-out");
    segment.execute_batch("BEGIN IMMEDIATE").expect("the store is held");
    let sql = "SELECT coalesce(max(sequence), 0) FROM batches WHERE sensor = ?";
    let last: i64 = segment.query_row(sql, [sensor], |row| row.get(0)).expect("batches");
    (segment, last.cast_unsigned())
}

/// The last sequence that a collector which was killed has of a sensor. A copy of its files is opened, so that nothing of
/// them is touched before it starts again.
pub(crate) fn last_sequence(lab: &Lab, sensor: &str) -> u64 {
    let copies = tempfile::tempdir().expect("a directory");
    let mut last = 0;
    let entries = fs::read_dir(lab.collector_dir().join("data").join("segments")).expect("segments");
    let names: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    for path in &names {
        let name = path.file_name().expect("a name").to_str().expect("UTF-8");
        if name.ends_with(".db") || name.ends_with(".db-wal") {
            fs::copy(path, copies.path().join(name)).expect("a copy");
        }
    }
    for path in names.iter().filter(|path| path.extension().is_some_and(|extension| extension == "db")) {
        let copy =
            Connection::open(copies.path().join(path.file_name().expect("a name"))).expect("a database");
        let sql = "SELECT coalesce(max(sequence), 0) FROM batches WHERE sensor = ?";
        let found: i64 = copy.query_row(sql, [sensor], |row| row.get(0)).expect("batches");
        last = last.max(found.cast_unsigned());
    }
    last
}

/// Every batch of a sensor in the segments of a collector's directory, in the order of the chain.
pub(crate) fn rows(collector_dir: &Path, sensor: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(collector_dir.join("data").join("segments")).expect("segments") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "db") {
            continue;
        }
        let segment = open(&path);
        let mut batches = segment
            .prepare("SELECT epoch, sequence, header, body, signature FROM batches WHERE sensor = ?")
            .expect("batches");
        let found = batches.query_map([sensor], |row| {
            let blob = |index| row.get::<_, Vec<u8>>(index).map(Into::into);
            let sealed = SealedBatch { header: blob(2)?, body: blob(3)?, signature: blob(4)? };
            let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
            Ok(Row { epoch: number(0)?, sequence: number(1)?, sealed })
        });
        rows.extend(found.expect("batches").map(|row| row.expect("a batch")));
    }
    rows.sort_by_key(|row| (row.epoch, row.sequence));
    rows
}

/// The sensor's clock when it sealed each batch, nanoseconds since the Unix epoch.
pub(crate) fn sealed_at(collector_dir: &Path, sensor: &str) -> Vec<i64> {
    let rows = rows(collector_dir, sensor);
    let header = |row: &Row| BatchHeader::decode(&row.sealed.header[..]).expect("a header");
    rows.iter().map(|row| header(row).wall_time).collect()
}

/// Checks that the batches are whole chains, each signed by the sensor; gives how many chains.
pub(crate) fn check_chain(rows: &[Row], public_key: &[u8]) -> Result<u64, String> {
    let mut head = ChainHead::default();
    let mut epochs = 0;
    for Row { epoch, sequence, sealed } in rows {
        let here = |what: &str| format!("epoch {epoch}, sequence {sequence}: {what}");
        let verified = seal::verify(sealed, public_key).map_err(|error| here(&error.to_string()))?;
        if (verified.header.epoch, verified.header.sequence) != (*epoch, *sequence) {
            return Err(here("stored under another identity than the one that is signed"));
        }
        if *epoch != head.epoch {
            head = ChainHead { epoch: *epoch, ..ChainHead::default() };
            epochs += 1;
        }
        if !verified.follows(&head) {
            return Err(here("does not follow the batch before it"));
        }
        head = verified.head();
    }
    Ok(epochs)
}

/// Draws up the account of these batches. Only flows of this seed count as made.
pub(crate) fn account(rows: &[Row], seed: u64, truth: u64) -> Account {
    let mut account = Account { truth, batches: rows.len() as u64, ..Account::default() };
    let mut times: BTreeMap<u64, u64> = BTreeMap::new();
    for row in rows {
        let body = BatchBody::decode(&row.sealed.body[..]).expect("a body");
        for loss in &body.losses {
            match loss.what.as_str() {
                "flow" => account.lost += loss.count,
                "batch" => account.lost_batches += loss.count,
                _ => {}
            }
        }
        // An aggregate stands for flows that a loss record tells; it is none of those that were made.
        for flow in body.flows.iter().filter(|flow| flow.aggregate.is_none()) {
            let id = u128::from_be_bytes(flow.flow_id[..].try_into().expect("an identity of 16 bytes"));
            let number = u64::try_from(id & u128::from(u64::MAX)).expect("64 bits");
            if id >> 64 == u128::from(seed) && number < truth {
                *times.entry(number).or_default() += 1;
            } else {
                account.never_made += 1;
            }
        }
    }
    account.unique = times.len() as u64;
    account.twice = times.values().filter(|&&times| times > 1).count() as u64;
    account
}

/// What became of a sensor's flows; fails where anything does not add up. The collector must have been stopped.
pub(crate) fn settle(lab: &Lab, sensor: &Sensor, truth: u64) -> Account {
    let rows = rows(&lab.collector_dir(), &sensor.edge.sensor);
    let pkcs8 = fs::read(sensor.edge.state_dir.join("keys").join("signing.key")).expect("a key");
    let key = SigningKey::from_pkcs8(&pkcs8).expect("a key");
    let epochs = check_chain(&rows, key.public_key());
    let account = account(&rows, sensor.seed, truth);
    match epochs {
        Ok(epochs) => {
            let account = Account { epochs, ..account };
            assert_eq!(account.complaint(), None, "{}", sensor.edge.sensor);
            account
        }
        Err(error) => panic!("{}: {error}; {account:?}", sensor.edge.sensor),
    }
}

#[cfg(test)]
mod tests {
    use onenet_proto::{
        seal::Sealer,
        v1::{BatchKind, Flow, Loss},
    };

    use super::*;

    /// Batches of two flows each, numbered from 0.
    fn rows_of(batches: u64, key: SigningKey) -> Vec<Row> {
        let head = ChainHead { epoch: 7, ..ChainHead::default() };
        let mut sealer = Sealer::new(key, "boston-1".to_owned(), head);
        let flow = |number: u64| Flow {
            flow_id: onenet_tests::feed::flow_id(9, number).0.to_be_bytes().to_vec().into(),
            ..Flow::default()
        };
        let batch = |number| {
            let body =
                BatchBody { flows: vec![flow(2 * number), flow(2 * number + 1)], ..BatchBody::default() };
            let sealed = sealer.seal(&body, BatchKind::Records, 1, 1);
            Row { epoch: 7, sequence: number + 1, sealed }
        };
        (0..batches).map(batch).collect()
    }

    fn key() -> (SigningKey, Vec<u8>) {
        let (key, _) = SigningKey::generate().expect("a key");
        let public = key.public_key().to_vec();
        (key, public)
    }

    #[test]
    fn the_oracle_balances_where_everything_is_stored_once() {
        let (key, public) = key();
        let rows = rows_of(5, key);
        assert_eq!(check_chain(&rows, &public), Ok(1));
        let account = account(&rows, 9, 10);
        assert_eq!((account.unique, account.complaint()), (10, None));
    }

    #[test]
    fn the_oracle_complains_of_a_flow_too_few_too_many_or_never_made() {
        let (key, _) = key();
        let rows = rows_of(5, key);
        for (seed, truth) in [(9, 11), (9, 9), (8, 10)] {
            assert!(account(&rows, seed, truth).complaint().is_some(), "{seed} {truth}");
        }
        let again: Vec<Row> = rows.into_iter().chain(rows_of(1, self::key().0)).collect();
        let account = account(&again, 9, 10);
        assert_eq!((account.twice, account.complaint().is_some()), (2, true));
    }

    #[test]
    fn a_signed_loss_balances_and_a_lost_batch_does_not() {
        let (key, _) = key();
        let mut rows = rows_of(2, key);
        let tell = |what: &str| {
            let loss = Loss { what: what.to_owned(), count: 3, ..Loss::default() };
            BatchBody { losses: vec![loss], ..BatchBody::default() }.encode_to_vec().into()
        };
        rows[1].sealed.body = tell("flow");
        assert_eq!(account(&rows, 9, 5).complaint(), None);
        rows[1].sealed.body = tell("batch");
        assert!(account(&rows, 9, 2).complaint().is_some());
    }

    #[test]
    fn a_chain_with_a_batch_taken_out_moved_or_changed_is_no_chain() {
        let (key, public) = key();
        let whole = rows_of(5, key);
        let check = |rows: &[Row]| check_chain(rows, &public);
        let mut rows = whole;
        let taken = rows.remove(2);
        assert!(check(&rows).expect_err("a gap").contains("does not follow"));
        rows.insert(2, taken);
        rows.swap(1, 2);
        assert!(check(&rows).is_err());
        rows.swap(1, 2);
        assert_eq!(check(&rows), Ok(1));
        rows[3].sequence = 9;
        assert!(check(&rows).expect_err("another identity").contains("another identity"));
        rows[3].sequence = 4;
        rows[3].sealed.body = Vec::new().into();
        assert!(check(&rows).is_err());
    }
}
