//! The `spool` commands on a spool with nine batches, of which two are acked.

use onenet_core::time::NANOS_PER_SECOND;
use onenet_proto::{
    cosign::cosign,
    seal::{Sealer, SigningKey, verify},
    v1::{AuditEntry, BatchKind, Flow, Loss},
};
use serde_json::json;

use super::*;
use crate::{
    keys::{Enrolment, KeyStore},
    run::wall_time,
    spool::{self, Cosigned, Mark},
};

struct Lab {
    directory: tempfile::TempDir,
    key: Vec<u8>,
}

impl Lab {
    /// A sensor with nine batches, of which two are acked.
    fn new() -> Self {
        let directory = spool::scratch();
        let text = "[sensor]\nname = \"boston-1\"\nsite = \"boston\"\nstate_dir = \"state\"\n";
        std::fs::write(directory.path().join("agent.toml"), text).unwrap();
        let state = directory.path().join("state");
        let store = KeyStore::new(&state);
        store.load_or_create().unwrap();
        let enrolment =
            Enrolment { sensor: "boston-1".into(), site: "boston".into(), endpoint: String::new() };
        let tls_key = std::fs::read(state.join("keys/tls.key")).unwrap();
        store.store(&enrolment, &[1], &[2], &[]).unwrap();
        assert!(!tls_key.is_empty());
        let key = std::fs::read(state.join("keys/signing.key")).unwrap();
        let lab = Self { directory, key };
        lab.seal(9, 2);
        lab
    }

    fn seal(&self, batches: u64, acked: u64) {
        let settings = spool::Settings { segment_bytes: 1200, reserve_bytes: 4096, quarantine_bytes: 4096 };
        let path = self.directory.path().join("state/spool");
        let mut opened = spool::open(&path, settings, 7, spool::on_disk()).unwrap();
        let key = SigningKey::from_pkcs8(&self.key).unwrap();
        let mut sealer = Sealer::new(key, "boston-1".into(), opened.head.chain);
        for number in 1..=batches {
            let previous_hash = sealer.head().hash;
            let loss = Loss { what: "flow".into(), count: 2, reason: "spool-full".into(), ..Loss::default() };
            let body = BatchBody {
                flows: vec![Flow::from(&crate::samples::flow())],
                losses: if number == 5 { vec![loss] } else { Vec::new() },
                audit: vec![AuditEntry { action: "started".into(), ..AuditEntry::default() }],
                ..BatchBody::default()
            };
            let sealed = sealer.seal(&body, BatchKind::Records, 1, 1);
            opened.writer.append(&spool::Batch {
                payload: &sealed.encode_to_vec(),
                kind: 1,
                algorithm: 1,
                records: 1,
                previous_hash,
                chain: sealer.head(),
                sealed_at: wall_time() - 100 * NANOS_PER_SECOND,
                mark: Mark::default(),
            });
            opened.writer.flush().unwrap();
            if number == acked {
                let (collector, _) = SigningKey::generate().unwrap();
                let head = sealer.head();
                opened.writer.shared().acknowledge(head);
                let signed = cosign(&collector, "boston-1", &head, 5);
                opened.writer.shared().keep_cosignature(Cosigned::new(head, &signed).unwrap());
            }
        }
        opened.writer.close().unwrap();
    }

    fn place(&self) -> Place {
        Place::of(&ConfigArgs { config: self.directory.path().join("agent.toml") }).unwrap()
    }

    fn run(
        &self,
        command: impl FnOnce(&Place, &mut dyn Write) -> Result<(), anyhow::Error>,
    ) -> (String, String) {
        let mut out = Vec::new();
        let error = command(&self.place(), &mut out).err().map(|error| format!("{error:#}"));
        (String::from_utf8_lossy(&out).into_owned(), error.unwrap_or_default())
    }

    /// The segment that holds this payload of the n-th waiting batch, and where.
    fn change(&self, sequence: u64, change: impl Fn(&mut [u8])) -> String {
        let place = self.place();
        let mut at = None;
        place
            .survey()
            .unwrap()
            .walk(|found| {
                if matches!(&found.what, What::Record(header, _) if header.position.sequence == sequence) {
                    at = Some((place.segment(found.segment), found.offset, found.bytes));
                }
                Ok(())
            })
            .unwrap();
        let (path, offset, length) = at.unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let start = usize::try_from(offset).unwrap();
        change(&mut bytes[start..start + usize::try_from(length).unwrap()]);
        std::fs::write(&path, bytes).unwrap();
        format!("{path} at offset {offset}")
    }
}

#[test]
fn inspect_says_what_waits_and_why_something_was_lost() {
    let lab = Lab::new();
    let (json, error) = lab.run(|place, out| inspect(place, InspectFormat::Json, out));
    assert_eq!(error, "");
    let json: Value = serde_json::from_str(&json).unwrap();
    for (key, expected) in [
        ("waiting_batches", 7),
        ("waiting_flows", 7),
        ("waiting_audit_entries", 7),
        ("reserve_bytes", 4096),
        ("epoch", 7),
    ] {
        assert_eq!(json[key], expected, "{key}");
    }
    assert_eq!(json["first"], json!({"epoch": 7, "sequence": 3}));
    assert_eq!(json["last"], json!({"epoch": 7, "sequence": 9}));
    assert_eq!(json["acked"]["sequence"], 2);
    assert_eq!(json["cosigned"]["sequence"], 2);
    assert!(json["oldest_seconds"].as_i64().unwrap() >= 100);
    assert_eq!(json["waiting_losses"][0]["count"], 2);
    let (table, _) = lab.run(|place, out| inspect(place, InspectFormat::Table, out));
    assert!(table.contains("lost       2 × flow: spool-full"), "{table}");
    assert!(table.contains("7 batches (0 heartbeats)") && table.contains("reserve    4 KiB"), "{table}");
}

#[test]
fn verify_finds_nothing_where_nothing_is_wrong_and_else_names_the_first_bad_record() {
    let lab = Lab::new();
    let (out, error) = lab.run(check);
    assert_eq!(error, "");
    assert!(out.ends_with("sound: every checksum, seal and link holds\n"), "{out}");

    let at = lab.change(6, |record| record[200] ^= 1);
    let (_, error) = lab.run(check);
    let expected = format!("{at}: epoch 7, batch 6: expected a payload that fits its CRC-32C; and 1 more");
    assert_eq!(error, expected, "the one behind it follows nothing any more");
    let at = lab.change(4, |record| record[0] ^= 1);
    let (_, error) = lab.run(check);
    assert!(error.starts_with(&at) && error.contains("expected a record with the magic ONRB"), "{error}");
}

#[test]
fn verify_finds_a_batch_with_sound_checksums_that_another_key_sealed() {
    let lab = Lab::new();
    let forge = |record: &mut [u8]| {
        let (header, payload) = record.split_first_chunk_mut::<160>().unwrap();
        let at = payload.len() - 5;
        payload[at] ^= 1;
        header[152..156].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        let crc = crc32c::crc32c(&header[..156]);
        header[156..].copy_from_slice(&crc.to_le_bytes());
    };
    let at = lab.change(8, forge);
    let (_, error) = lab.run(check);
    assert!(error.starts_with(&format!("{at}: epoch 7, batch 8: the signature does not fit")), "{error}");
}

#[test]
fn a_torn_end_is_no_damage() {
    let lab = Lab::new();
    let place = lab.place();
    let survey = place.survey().unwrap();
    let &(last, length) = survey.segments.last().unwrap();
    std::fs::File::options().write(true).open(place.segment(last)).unwrap().set_len(length - 3).unwrap();
    let (out, error) = lab.run(check);
    assert_eq!(error, "");
    assert!(out.contains("at the end are a torn write"), "{out}");
}

#[test]
fn what_waits_is_exported_whole_and_what_is_damaged_is_left_out_and_named() {
    let lab = Lab::new();
    let to = lab.directory.path().join("out.bin");
    let (_, error) = lab.run(|place, out| export(place, &to, ExportFormat::Protobuf, out));
    assert_eq!(error, "");
    let bytes = std::fs::read(&to).unwrap();
    let mut rest = &bytes[..];
    let key = SigningKey::from_pkcs8(&lab.key).unwrap();
    let mut sequences = Vec::new();
    while !rest.is_empty() {
        let batch = SealedBatch::decode_length_delimited(&mut rest).unwrap();
        sequences.push(verify(&batch, key.public_key()).unwrap().header.sequence);
    }
    assert_eq!(sequences, [3, 4, 5, 6, 7, 8, 9]);
    let (_, error) = lab.run(|place, out| export(place, &to, ExportFormat::Protobuf, out));
    assert!(error.contains("expected a file that is not there yet"), "{error}");
    lab.change(6, |record| record[200] ^= 1);
    let stdout = std::path::Path::new("-");
    let (_, error) = lab.run(|place, out| export(place, stdout, ExportFormat::Protobuf, out));
    assert!(
        error.starts_with("1 damaged places left out, the first: ") && error.contains("batch 6"),
        "{error}"
    );
}

#[test]
fn a_head_is_accepted_only_where_the_collector_was_found_to_be_set_back() {
    let lab = Lab::new();
    let status = lab.directory.path().join("state/status.json");
    std::fs::write(&status, r#"{"collector_set_back": false, "collector_untrusted": null}"#).unwrap();
    let (_, error) = lab.run(accept_head);
    assert!(error.starts_with("nothing to accept"), "{error}");
    let text =
        r#"{"collector_set_back": true, "collector_untrusted": "it was set back; nothing is sent until"}"#;
    std::fs::write(&status, text).unwrap();
    let (out, error) = lab.run(accept_head);
    assert_eq!(error, "");
    assert!(out.starts_with("accepted: it was set back. The agent takes it up with its next start"), "{out}");
    let cosigned = lab.place().survey().unwrap().state.unwrap().cosigned.unwrap();
    assert!(Acceptance::new(&lab.place().directory).covers(&cosigned.head));
}

#[test]
fn a_last_record_that_is_whole_and_damaged_is_no_torn_end() {
    let lab = Lab::new();
    let at = lab.change(9, |record| record[200] ^= 1);
    let (_, error) = lab.run(check);
    assert_eq!(error, format!("{at}: epoch 7, batch 9: expected a payload that fits its CRC-32C"));
}

#[test]
fn json_lines_say_what_each_batch_holds() {
    let lab = Lab::new();
    let (text, error) =
        lab.run(|place, out| export(place, std::path::Path::new("-"), ExportFormat::Json, out));
    assert_eq!(error, "");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines.iter().map(|line| line["sequence"].as_u64().unwrap()).collect::<Vec<_>>(),
        [3, 4, 5, 6, 7, 8, 9]
    );
    let flow = serde_json::to_value(crate::samples::flow()).unwrap();
    assert_eq!(lines[0]["flows"], json!([flow]));
    assert_eq!(lines[2]["losses"][0]["reason"], "spool-full");
    assert_eq!(lines[1]["previous_hash"], lines[0]["hash"]);
}
