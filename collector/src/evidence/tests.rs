//! A chain is mutated in every way that somebody without the keys could; each has to be noticed. Sizes: 1,000
//! mutations, and 10,000 where ONENET_SOAK is set.

use std::path::{Path, PathBuf};

use fastrand::Rng;
use onenet_proto::{
    seal::ChainHead,
    v1::{BatchBody, EpochStart, SealedBatch},
};
use rusqlite::{Connection, params};
use tempfile::TempDir;

use super::stored::{self, Findings, Scope};
use crate::{
    store::{Store, StoreConfig, Verdict, Writer},
    testing::{Sensor, store_config},
};

/// Mutations of each test.
fn mutations() -> u64 {
    if std::env::var_os("ONENET_SOAK").is_some() { 10_000 } else { 1_000 }
}

/// A store with the chains of two sensors over some segments and epochs, and what its directory is.
pub(super) struct Rig {
    pub(super) directory: TempDir,
    pub(super) config: StoreConfig,
    pub(super) boston: Sensor,
}

fn submit(writer: &Writer, sensor: &Sensor, sealed: &SealedBatch) -> Verdict {
    let handle = writer.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        handle.submit(sensor.incoming(sealed)).await.expect("it is taken").await.expect("an answer")
    })
}

impl Rig {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = StoreConfig { segment_max_flows: 12, ..store_config(&directory) };
        let (store, writer) = Store::open(&config).expect("a new store");
        let (mut boston, mut lowell) = (Sensor::new("boston-1"), Sensor::new("lowell-1"));
        boston.enter(&store);
        lowell.enter(&store);
        for round in 0..8_u32 {
            for sensor in [&mut boston, &mut lowell] {
                let sealed = if round == 5 { sensor.poison() } else { sensor.batch(round % 3 + 1) };
                assert!(matches!(submit(&writer, sensor, &sealed), Verdict::Stored(_)));
            }
            if round == 3 {
                next_epoch(&mut boston, &writer);
            }
        }
        // The other side of a fork.
        let head = boston.head();
        boston.restore(ChainHead { epoch: 2, sequence: 2, hash: [7; 32] });
        let fork = boston.batch(1);
        assert!(matches!(submit(&writer, &boston, &fork), Verdict::Refused(_)));
        boston.restore(head);
        writer.stop();
        drop(store);
        Self { directory, config, boston }
    }

    pub(super) fn copy(&self) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("data");
        copy(&self.config.directory, &data);
        (directory, data)
    }
}

fn next_epoch(sensor: &mut Sensor, writer: &Writer) {
    let before = sensor.head();
    sensor.restore(ChainHead { epoch: before.epoch + 1, ..ChainHead::default() });
    let sealed = sensor.seal(&BatchBody {
        epoch_start: Some(EpochStart {
            previous_epoch: before.epoch,
            previous_sequence: before.sequence,
            previous_hash: before.hash.to_vec().into(),
            reason: "sealed-anew".into(),
            ..EpochStart::default()
        }),
        ..BatchBody::default()
    });
    assert!(matches!(submit(writer, sensor, &sealed), Verdict::Stored(_)));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("listed").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

fn verified(data: &Path) -> Findings {
    stored::verify(data, &Scope::default(), None).expect("the store reads")
}

/// The segments of a store, open to be changed.
fn segments(data: &Path) -> Vec<Connection> {
    let mut files: Vec<_> = std::fs::read_dir(data.join("segments"))
        .expect("listed")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "db"));
    files.sort();
    let open = |file: &PathBuf| {
        let connection = Connection::open(file).expect("it opens");
        connection.pragma_update(None, "synchronous", "OFF").expect("set");
        connection
    };
    files.iter().map(open).collect()
}

/// The rows of one sensor in a segment: id, epoch, sequence.
fn rows(segment: &Connection, sensor: &str) -> Vec<(i64, i64, i64)> {
    let mut statement = segment
        .prepare("SELECT id, epoch, sequence FROM batches WHERE sensor = ? ORDER BY id")
        .expect("prepared");
    let rows =
        statement.query_map([sensor], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("asked");
    rows.map(|row| row.expect("a row")).collect()
}

/// Makes one change that the keys did not sign; says what it was, or none where this one cannot be made here.
fn mutate(rng: &mut Rng, rig: &Rig, data: &Path) -> Option<String> {
    let all = segments(data);
    let segment = rng.choice(&all).expect("segments");
    let sensor = *rng.choice(&["boston-1", "lowell-1"]).expect("two");
    let rows = rows(segment, sensor);
    let &(id, epoch, sequence) = rng.choice(&rows)?;
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| segment.execute(sql, values).expect("changed");
    let which = format!("{sensor} row {id} epoch {epoch} sequence {sequence}");
    let renumbered = rng.bool();
    Some(match rng.u8(0..11) {
        0 => {
            run("DELETE FROM flows WHERE batch = ?", &[&id]);
            run("DELETE FROM batches WHERE id = ?", &[&id]);
            if renumbered {
                run("UPDATE flows SET batch = -batch + 1 WHERE batch > ?", &[&id]);
                run("UPDATE flows SET batch = -batch WHERE batch < 0", &[]);
                run("UPDATE batches SET id = -id + 1 WHERE id > ?", &[&id]);
                run("UPDATE batches SET id = -id WHERE id < 0", &[]);
            }
            format!("{which} deleted, renumbered: {renumbered}")
        }
        1 => {
            run(
                "INSERT INTO batches SELECT (SELECT max(id) + 1 FROM batches), sensor, epoch, sequence + 1000, hash,
                     header, body, signature, received_at, 0, NULL, cosignature FROM batches WHERE id = ?",
                &[&id],
            );
            format!("{which} put in again at the end")
        }
        2 => {
            let &(other, ..) = rng.choice(&rows).filter(|other| other.0 != id)?;
            for column in
                ["header", "body", "signature", "hash", "cosignature", "received_at", "records", "poison"]
            {
                let sql = format!(
                    "UPDATE batches SET {column} = (SELECT {column} FROM batches AS b
                     WHERE b.id = CASE batches.id WHEN ?1 THEN ?2 ELSE ?1 END) WHERE id IN (?1, ?2)"
                );
                run(&sql, &[&id, &other]);
            }
            format!("{which} swapped with row {other}")
        }
        3 => {
            let last = all.last().expect("segments");
            let (tail, ..) = *super::tests::rows(last, sensor).last()?;
            last.execute("DELETE FROM flows WHERE batch >= ?", [tail]).expect("changed");
            last.execute("DELETE FROM batches WHERE id >= ?", [tail]).expect("changed");
            format!("{sensor} tail cut from row {tail} on")
        }
        4 => {
            // The sensor's key seals another batch in its place: a fork.
            let mut fork = Sensor::new("boston-1");
            fork.clone_keys(&rig.boston);
            if sensor != "boston-1" {
                return None;
            }
            let previous: Vec<u8> = segment
                .query_row("SELECT header FROM batches WHERE id = ?", [id], |row| row.get(0))
                .expect("there");
            let header: onenet_proto::v1::BatchHeader =
                prost::Message::decode(&previous[..]).expect("a header");
            let hash = header.previous_hash[..].try_into().expect("32 bytes");
            fork.restore(ChainHead {
                epoch: epoch.cast_unsigned(),
                sequence: (sequence - 1).cast_unsigned(),
                hash,
            });
            let sealed = fork.seal(&BatchBody::default());
            let hash = fork.head().hash;
            run("DELETE FROM flows WHERE batch = ?", &[&id]);
            segment
                .execute(
                    "UPDATE batches SET header = ?, body = ?, signature = ?, hash = ?, records = 0, poison = NULL WHERE id = ?",
                    params![&sealed.header[..], &sealed.body[..], &sealed.signature[..], hash, id],
                )
                .expect("changed");
            format!("{which} replaced by a fork")
        }
        5 => {
            run("UPDATE batches SET epoch = epoch + 1000 WHERE id = ?", &[&id]);
            format!("{which} moved to another epoch")
        }
        6 => {
            // An epoch that is past comes again behind the last.
            run(
                "INSERT INTO batches SELECT (SELECT max(id) FROM batches) + row_number() OVER (ORDER BY id), sensor,
                     epoch + 1000, sequence, hash, header, body, signature, received_at, 0, NULL, cosignature
                 FROM batches WHERE sensor = ? AND epoch = ?",
                &[&sensor, &epoch],
            );
            format!("{sensor} epoch {epoch} replayed")
        }
        7 => {
            let column = *rng.choice(&["header", "body", "signature", "cosignature", "hash"]).expect("five");
            let sql = format!("SELECT {column} FROM batches WHERE id = ?");
            let mut bytes: Vec<u8> = segment.query_row(&sql, [id], |row| row.get(0)).expect("there");
            if bytes.is_empty() {
                return None;
            }
            let at = rng.usize(0..bytes.len());
            bytes[at] ^= rng.u8(1..);
            let sql = format!("UPDATE batches SET {column} = ? WHERE id = ?");
            segment.execute(&sql, params![bytes, id]).expect("changed");
            format!("{which} a byte of {column} flipped at {at}")
        }
        8 => {
            let mut other = Sensor::new(sensor);
            let sealed = other.batch(1);
            segment
                .execute(
                    "UPDATE batches SET header = ?, body = ?, signature = ? WHERE id = ?",
                    params![&sealed.header[..], &sealed.body[..], &sealed.signature[..], id],
                )
                .expect("changed");
            format!("{which} sealed by another key")
        }
        9 => {
            run("UPDATE batches SET sequence = sequence + 500 WHERE id >= ?", &[&id]);
            format!("{which} renumbered from here on")
        }
        _ => {
            let column = *rng
                .choice(&["at", "size", "start", "end", "protocol", "orig_port", "resp_port", "batch"])
                .expect("eight");
            let sql = format!(
                "UPDATE flows SET {column} = {column} + 1
                 WHERE id = (SELECT id FROM flows WHERE batch = ? ORDER BY id LIMIT 1)"
            );
            if segment.execute(&sql, [id]).expect("changed") == 0 {
                return None;
            }
            format!("{which} {column} of a flow's row changed")
        }
    })
}

#[test]
fn a_store_that_nobody_touched_is_whole() {
    let rig = Rig::new();
    let findings = verified(&rig.config.directory);
    assert_eq!(findings.fault, None);
    let [boston, lowell] = &findings.chains[..] else { panic!("two sensors: {:?}", findings.chains) };
    assert_eq!((boston.epochs, boston.batches, boston.poisoned, boston.cosigned), (2, 9, 1, 9));
    assert_eq!((lowell.epochs, lowell.batches, lowell.poisoned), (1, 8, 1));
    assert_eq!((boston.epoch, boston.sequence), (2, 5));
    assert_eq!(findings.quarantined, 1);
    assert_eq!(boston.notes, Vec::<String>::new());
    assert!(segments(&rig.config.directory).len() > 1, "the chain spans segments");
}

#[test]
fn every_mutation_of_a_stored_chain_is_noticed() {
    let rig = Rig::new();
    let mut rng = Rng::with_seed(6);
    let (mut done, mut kinds) = (0, std::collections::BTreeMap::<String, u64>::new());
    while done < mutations() {
        let (_directory, data) = rig.copy();
        let Some(what) = mutate(&mut rng, &rig, &data) else { continue };
        let findings = verified(&data);
        assert!(findings.fault.is_some(), "mutation {done}: {what}: not noticed");
        done += 1;
        let kind = what.split_whitespace().skip(7).take(3).collect::<Vec<_>>().join(" ");
        *kinds.entry(kind).or_default() += 1;
    }
    assert!(kinds.len() >= 8, "{kinds:?}");
}

#[test]
fn the_first_bad_record_is_named_with_file_row_sensor_epoch_and_sequence() {
    let rig = Rig::new();
    let (_directory, data) = rig.copy();
    let first = segments(&data).remove(0);
    first
        .execute("UPDATE batches SET body = x'00' WHERE sensor = 'lowell-1' AND sequence = 2", [])
        .expect("changed");
    first
        .execute("UPDATE batches SET body = x'00' WHERE sensor = 'lowell-1' AND sequence = 3", [])
        .expect("changed");
    let fault = verified(&data).fault.expect("it is noticed").to_string();
    let expected = "segments/flows-00000001.db, row 4: lowell-1, epoch 1, sequence 2: the signature does not fit \
                    the batch and the sensor's key";
    assert_eq!(fault, expected);
}

#[test]
fn a_span_or_a_sensor_alone_can_be_checked() {
    let rig = Rig::new();
    let (_directory, data) = rig.copy();
    segments(&data)[0]
        .execute("UPDATE batches SET body = x'00' WHERE sensor = 'lowell-1'", [])
        .expect("changed");
    let boston = Scope { sensor: Some("boston-1".into()), ..Scope::default() };
    let findings = stored::verify(&data, &boston, None).expect("it reads");
    assert_eq!((findings.fault, findings.chains.len()), (None, 1));
    let from: i64 = segments(&data)[1]
        .query_row("SELECT min(received_at) FROM batches", [], |row| row.get(0))
        .expect("there");
    let late = Scope { from: Some(onenet_core::time::Timestamp(from)), ..Scope::default() };
    let findings = stored::verify(&data, &late, None).expect("it reads");
    assert_eq!(findings.fault, None);
    let batches: u64 = findings.chains.iter().map(|chain| chain.batches).sum();
    assert!((1..17).contains(&batches), "{batches}");
    let early = Scope { to: Some(onenet_core::time::Timestamp(from)), ..Scope::default() };
    let fault = stored::verify(&data, &early, None).expect("it reads").fault.expect("the body is changed");
    assert_eq!(fault.batch.expect("about a batch").0.as_ref(), "lowell-1");
}
