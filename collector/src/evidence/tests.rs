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

use super::{
    bundle::{self, BundleReader, BundleWriter, Manifest, Record},
    bundled, export,
    stored::{self, Findings, Scope},
};
use crate::{
    store::{Cursor, Store, StoreConfig, Verdict, Writer, control_cursors, cosign},
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
        let config = StoreConfig { segment_max_flows: 8, ..store_config(&directory) };
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
    Some(match rng.u8(0..13) {
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
        10 => {
            // The tail is cut and everything that no key vouches for is made to fit: the head, its count, the cursor.
            let last = all.last().expect("segments");
            let held = self::rows(last, sensor);
            let [.., (kept, ..), (tail, ..)] = held[..] else { return None };
            last.execute("DELETE FROM flows WHERE batch >= ?", [tail]).expect("changed");
            last.execute("DELETE FROM batches WHERE id >= ?", [tail]).expect("changed");
            last.execute(
                "UPDATE heads SET (epoch, sequence, hash, cosignature) =
                     (SELECT epoch, sequence, hash, cosignature FROM batches WHERE id = ?1), batches = batches - 1
                 WHERE sensor = ?2",
                params![kept, sensor],
            )
            .expect("changed");
            format!("{sensor} x x x x x tail cut cleverly from row {tail} on")
        }
        11 => {
            let control = Connection::open(data.join("control.db")).expect("it opens");
            let count: i64 =
                control.query_row("SELECT count(*) FROM audit", [], |row| row.get(0)).expect("counted");
            let at = rng.i64(1..=count);
            let sql = *rng
                .choice(&[
                    "DELETE FROM audit WHERE sequence = ?",
                    "DELETE FROM audit WHERE sequence >= ?",
                    "UPDATE audit SET detail = detail || '.' WHERE sequence = ?",
                    "UPDATE audit SET actor = 'nobody' WHERE sequence = ?",
                    "UPDATE audit SET time = time + 1 WHERE sequence = ?",
                    "UPDATE audit SET sequence = -sequence WHERE sequence = ?",
                    "UPDATE audit SET signature = zeroblob(64) WHERE sequence = ?",
                    "INSERT INTO audit SELECT (SELECT max(sequence) + 1 FROM audit), NULL, time, actor, action, sensor,
                         epoch, batch_sequence, batch_hash, detail, previous, hash, signature
                     FROM audit WHERE sequence = ?",
                ])
                .expect("eight");
            control.execute(sql, [at]).expect("changed");
            format!("x x x x x x x audit {sql} at {at}")
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
    // Two enrolments with a token each, a fork, three starts of epochs, two poisoned batches, three heads.
    assert_eq!(findings.audit_entries, 13);
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

/// The bundle of a store.
fn bundle_of(rig: &Rig, wanted: &export::Wanted) -> Vec<u8> {
    let store = Store::attach(&rig.config).expect("it opens");
    let file = rig.directory.path().join(format!("{}.tar", fastrand::u64(..)));
    let now = crate::clock::now();
    export::export(&rig.config.directory, store.cosigner().key(), wanted, &file, now).expect("it is written");
    std::fs::read(file).expect("it reads")
}

fn members(bundle: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut reader = BundleReader::new(bundle);
    std::iter::from_fn(|| reader.next_member().expect("a sound bundle")).collect()
}

fn write(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = BundleWriter::new(Vec::new());
    members.iter().for_each(|(name, bytes)| out.put(name, bytes).expect("written"));
    out.finish().expect("written")
}

/// Writes a bundle anew with a manifest that fits its members, signed by the collector's key: what somebody could do
/// who has that key, but not those of the sensors.
fn resign(rig: &Rig, mut members: Vec<(String, Vec<u8>)>) -> Vec<u8> {
    use onenet_proto::statement::{self, Domain};
    let store = Store::attach(&rig.config).expect("it opens");
    let (_signature, manifest) = (members.pop(), members.pop().expect("a manifest"));
    let mut manifest: Manifest = serde_json::from_slice(&manifest.1).expect("it parses");
    manifest.members = members.iter().map(|(name, bytes)| bundle::Member::of(name, bytes)).collect();
    let text = serde_json::to_vec(&manifest).expect("it is written");
    let signature = statement::sign(store.cosigner().key(), &statement::digest(Domain::Manifest, &[&text]));
    members.extend([(bundle::MANIFEST.to_owned(), text), (bundle::SIGNATURE.to_owned(), signature)]);
    write(&members)
}

fn decode(bytes: &[u8]) -> Vec<Record> {
    let mut rest = bytes;
    let mut records = Vec::new();
    while !rest.is_empty() {
        records.push(<Record as prost::Message>::decode_length_delimited(&mut rest).expect("a record"));
    }
    records
}

fn encode(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        prost::Message::encode_length_delimited(record, &mut out).expect("it is written");
    }
    out
}

#[test]
fn a_bundle_is_whole_by_itself_and_says_the_same_as_the_store() {
    let rig = Rig::new();
    let bundle = bundle_of(&rig, &export::Wanted::default());
    let (from_bundle, from_store) = (bundled::verify(&bundle[..], None), verified(&rig.config.directory));
    assert_eq!(from_bundle, from_store);
    assert_eq!(from_bundle.fault, None);
    let fault = bundled::verify(&bundle[..], Some(&[7; 32])).fault.expect("not the trusted key");
    assert!(fault.to_string().starts_with("chains.json: it is by the collector "), "{fault}");
}

#[test]
fn a_bundle_of_a_span_begins_behind_the_batch_before_and_ends_before_the_head() {
    let rig = Rig::new();
    let time = |sql: &str| -> i64 {
        segments(&rig.config.directory)[1].query_row(sql, [], |row| row.get(0)).expect("there")
    };
    let from = onenet_core::time::Timestamp(time("SELECT min(received_at) FROM batches"));
    for scope in [
        Scope { from: Some(from), ..Scope::default() },
        Scope { to: Some(from), ..Scope::default() },
        Scope { sensor: Some("lowell-1".into()), ..Scope::default() },
    ] {
        let wanted = export::Wanted { scope: scope.clone(), finding: None };
        let findings = bundled::verify(&bundle_of(&rig, &wanted)[..], None);
        assert_eq!(findings.fault, None, "{scope:?}");
        let batches: u64 = findings.chains.iter().map(|chain| chain.batches).sum();
        assert!((1..17).contains(&batches), "{scope:?}: {batches}");
    }
}

#[test]
fn every_mutation_of_a_bundle_is_noticed() {
    let rig = Rig::new();
    let whole = bundle_of(&rig, &export::Wanted::default());
    let members = members(&whole);
    let mut rng = Rng::with_seed(7);
    for round in 0..mutations() {
        let mut changed = members.clone();
        let at = rng.usize(0..changed.len());
        let (what, bundle) = match rng.u8(0..8) {
            0 => {
                let mut bytes = whole.clone();
                let at = rng.usize(0..bytes.len());
                bytes[at] ^= rng.u8(1..);
                (format!("byte {at} flipped"), bytes)
            }
            1 => {
                let length = rng.usize(0..whole.len());
                (format!("cut at {length}"), whole[..length].to_vec())
            }
            2 => {
                let name = changed.remove(at).0;
                (format!("{name} taken out"), write(&changed))
            }
            3 => {
                let copy = changed[at].clone();
                changed.insert(at, copy);
                (format!("member {at} twice"), write(&changed))
            }
            4 => {
                let other = rng.usize(0..changed.len());
                if at == other {
                    continue;
                }
                changed.swap(at, other);
                (format!("members {at} and {other} swapped"), write(&changed))
            }
            5 => {
                let bytes = &mut changed[at].1;
                bytes.push(b'\n');
                (format!("a byte behind member {at}"), write(&changed))
            }
            6 => {
                let last: Vec<u8> = (0..rng.usize(1..600)).map(|_| rng.u8(..)).collect();
                (format!("{} bytes behind the end", last.len()), [&whole[..], &last].concat())
            }
            _ => match mutate_records(&mut rng, &mut changed) {
                Some(what) => (what, resign(&rig, changed)),
                None => continue,
            },
        };
        let findings = bundled::verify(&bundle[..], None);
        assert!(findings.fault.is_some(), "mutation {round}: {what}: not noticed");
    }
}

/// Changes the records of one member, as somebody could who has the collector's key.
fn mutate_records(rng: &mut Rng, members: &mut [(String, Vec<u8>)]) -> Option<String> {
    let batches: Vec<usize> =
        (0..members.len()).filter(|&at| members[at].0.starts_with(bundle::BATCHES)).collect();
    let at = *rng.choice(&batches)?;
    let mut records = decode(&members[at].1);
    let index = rng.usize(0..records.len());
    let what = match rng.u8(0..6) {
        0 => {
            records.remove(index);
            "deleted"
        }
        1 => {
            let copy = records[index].clone();
            records.push(copy);
            "replayed"
        }
        2 => {
            let other = rng.usize(0..records.len());
            if other == index {
                return None;
            }
            records.swap(index, other);
            "swapped"
        }
        3 => {
            let mut other = Sensor::new("boston-1");
            records[index].sealed = Some(other.batch(1));
            "by another key"
        }
        4 => {
            let sealed = records[index].sealed.as_mut()?;
            let mut body = sealed.body.to_vec();
            let at = rng.usize(0..body.len().max(1));
            *body.get_mut(at)? ^= rng.u8(1..);
            sealed.body = body.into();
            "changed"
        }
        _ => {
            let sealed = records[index].sealed.as_mut()?;
            let mut header: onenet_proto::v1::BatchHeader =
                prost::Message::decode(&sealed.header[..]).ok()?;
            header.sequence += 100;
            sealed.header = prost::Message::encode_to_vec(&header).into();
            "renumbered"
        }
    };
    members[at].1 = encode(&records);
    Some(format!("{} record {index} {what}, signed anew", members[at].0))
}

#[test]
fn a_hostile_bundle_is_refused_with_what_was_expected() {
    let refused = |bytes: &[u8], expected: &str| {
        let fault = bundled::verify(bytes, None).fault.expect("it is refused").to_string();
        assert!(fault.contains(expected), "{fault}");
    };
    refused(b"", "cut off");
    refused(&[0; 1024], "ends without manifest.json");
    refused(&[7; 512], "not the header of a member");
    for name in ["../chains.json", "a//b", "/etc/passwd", "batches/../../x"] {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes().copy_from_slice(&block);
        header.set_size(0);
        header.set_cksum();
        refused(header.as_bytes(), "is not the name of a member");
    }
    let mut header = tar::Header::new_ustar();
    header.set_path("chains.json").expect("a name");
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(1 << 33);
    header.set_cksum();
    refused(header.as_bytes(), "chains.json has 8589934592 bytes, expected at most 16777216");
    refused(&write(&[("x".to_owned(), vec![1])]), "expected chains.json as the first member");
    refused(&write(&[("chains.json".to_owned(), b"{".to_vec())]), "chains.json: it does not parse");
}

#[test]
fn what_is_older_than_what_is_kept_is_deleted_and_the_rest_still_verifies() {
    let rig = Rig::new();
    let before = verified(&rig.config.directory);
    let count = segments(&rig.config.directory).len();
    let (store, writer) = Store::open(&rig.config).expect("it opens");
    let now = crate::clock::now();
    let unread = store.delete_before(now.plus(1), now).expect("the store works");
    assert_eq!(unread, Vec::<u32>::new(), "the correlator has not read them");
    let newest = Cursor { segment: u32::try_from(count).expect("few"), batch: 0 };
    store.transaction(|control| control_cursors::put_correlated(control, newest)).expect("moved on");
    let kept = store.delete_before(onenet_core::time::Timestamp(0), now).expect("the store works");
    assert_eq!(kept, Vec::<u32>::new());
    let (_uncut, uncut) = rig.copy();
    let deleted = store.delete_before(now.plus(1), now).expect("the store works");
    assert_eq!(deleted.len(), count - 1, "all but the newest");
    let heads = store.heads().expect("readable");
    assert_eq!(heads.len(), 2, "the heads stay");
    writer.stop();
    drop(store);
    assert_eq!(segments(&rig.config.directory).len(), 1);
    let after = verified(&rig.config.directory);
    assert_eq!(after.fault, None);
    for (before, after) in before.chains.iter().zip(&after.chains) {
        assert!(after.batches < before.batches, "{after:?}");
    }
    let bundle = bundle_of(&rig, &export::Wanted::default());
    assert_eq!(bundled::verify(&bundle[..], None).fault, None);
    // A kill between the publication of a deletion and the removal of the files: nothing is wrong, and the files go later.
    let (_directory, killed) = rig.copy();
    for number in &deleted {
        let name = format!("segments/flows-{number:08}.db");
        std::fs::copy(uncut.join(&name), killed.join(&name)).expect("copied");
        let control = Connection::open(killed.join("control.db")).expect("it opens");
        control.execute("INSERT INTO deleted_segments VALUES (?)", [number]).expect("put in");
    }
    assert_eq!(verified(&killed).fault, None);
    let config = StoreConfig { directory: killed.clone(), ..rig.config.clone() };
    let store = Store::attach(&config).expect("it opens");
    store.delete_before(onenet_core::time::Timestamp(0), now).expect("the store works");
    assert_eq!(segments(&killed).len(), 1);
    assert_eq!(verified(&killed).fault, None);
    // What proves the deletion cannot be moved on to hide another one.
    let (_directory, data) = rig.copy();
    segments(&data)[0]
        .execute_batch("DELETE FROM flows WHERE batch = 1; DELETE FROM batches WHERE id = 1")
        .expect("changed");
    assert!(verified(&data).fault.is_some());
    // Nor where everything but the audit trail is made to fit.
    let (_directory, data) = rig.copy();
    let newest = segments(&data).remove(0);
    let (sensor, epoch, sequence, hash): (String, i64, i64, Vec<u8>) = newest
        .query_row("SELECT sensor, epoch, sequence, hash FROM batches WHERE id = 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .expect("there");
    newest
        .execute_batch(
            "DELETE FROM flows WHERE batch = 1; DELETE FROM batches WHERE id = 1;
             UPDATE flows SET batch = -batch + 1; UPDATE flows SET batch = -batch;
             UPDATE batches SET id = -id + 1; UPDATE batches SET id = -id",
        )
        .expect("changed");
    Connection::open(data.join("control.db"))
        .expect("it opens")
        .execute(
            "UPDATE chain_anchors SET epoch = ?, sequence = ?, hash = ?, batches = batches + 1 WHERE sensor = ?",
            params![epoch, sequence, hash, sensor],
        )
        .expect("changed");
    let fault = verified(&data).fault.expect("it is noticed").to_string();
    assert!(fault.contains("the audit trail tells of no such deletion"), "{fault}");
}

#[test]
fn behind_a_new_key_of_the_collector_what_the_former_signed_still_holds_and_goes_on_no_more() {
    let rig = Rig::new();
    let former: Vec<u8> = std::fs::read(rig.config.directory.join("cosign.key")).expect("a key");
    let former = onenet_proto::seal::SigningKey::from_pkcs8(&former).expect("a key");
    let key = cosign::renew(&rig.config).expect("a new key");
    let (store, writer) = Store::open(&rig.config).expect("it opens");
    store.audit(crate::clock::now(), "cosign-key-renewed", "new".to_owned()).expect("entered");
    writer.stop();
    let findings = verified(&rig.config.directory);
    assert_eq!((findings.fault, &findings.public_key), (None, &crate::ca::hex(&key)));
    let bundle = bundle_of(&rig, &export::Wanted::default());
    assert_eq!(bundled::verify(&bundle[..], None).fault, None);
    // An entry by the former key behind one by the new.
    let (_directory, data) = rig.copy();
    let mut entries = Vec::new();
    let archive = crate::store::archive::Archive::open(&data).expect("it opens");
    archive
        .audit(|entry| {
            entries.push(entry);
            Ok::<_, crate::store::StoreError>(())
        })
        .expect("it reads");
    let last = entries.last().expect("entries");
    let mut forged = crate::audit::Entry {
        sequence: last.sequence + 1,
        previous: last.hash.clone(),
        detail: "forged".to_owned(),
        ..last.clone()
    };
    let digest = forged.digest();
    forged.signature = crate::audit::Hex(onenet_proto::statement::sign(&former, &digest));
    drop(archive);
    Connection::open(data.join("control.db"))
        .expect("it opens")
        .execute(
            "INSERT INTO audit SELECT ?1, NULL, time, actor, action, sensor, epoch, batch_sequence, batch_hash,
                 'forged', ?2, ?3, ?4 FROM audit WHERE sequence = ?1 - 1",
            params![forged.sequence.cast_signed(), forged.previous.0, digest, forged.signature.0],
        )
        .expect("put in");
    let fault = verified(&data).fault.expect("it is noticed").to_string();
    assert!(fault.contains("does not fit the collector's key"), "{fault}");
}
