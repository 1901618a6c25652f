//! `spool verify`: every checksum, seal and link of the chain.

use std::io::Write;

use onenet_proto::{
    cosign::verify_cosignature,
    seal::{ChainHead, SigningKey, verify},
    v1::{Cosignature, SealedBatch},
};
use prost::Message as _;

use super::Place;
use crate::{
    keys::KeyStore,
    spool::{Cosigned, Header, Position, What},
};

/// What `verify` has come to.
#[derive(Default)]
struct Chain {
    head: Option<ChainHead>,
    batches: u64,
    bytes: u64,
    torn_bytes: u64,
    bad: u64,
    first_bad: Option<String>,
}

impl Chain {
    /// What is wrong with a batch in its place, none if nothing is.
    fn judge(&mut self, header: &Header, payload: &[u8], sensor: &str, key: &[u8]) -> Option<String> {
        let sealed = match SealedBatch::decode(payload) {
            Ok(sealed) => sealed,
            Err(error) => return Some(format!("{error}, expected a sealed batch")),
        };
        let verified = match verify(&sealed, key) {
            Ok(verified) => verified,
            Err(error) => return Some(format!("{error}, expected a seal by this sensor's key")),
        };
        let before = self.head.replace(verified.head());
        if verified.header.sensor != sensor {
            return Some(format!("sealed by {:?}, expected {sensor:?}", verified.header.sensor));
        }
        if Position::from(&verified.head()) != header.position || verified.hash != header.hash {
            return Some(format!(
                "holds batch {} of epoch {}, expected what its header names",
                verified.header.sequence, verified.header.epoch
            ));
        }
        let before = before?;
        // Records that a rewrite after a failed fsync repeats.
        if Position::from(&verified.head()) <= Position::from(&before) {
            self.head = Some(before);
            return None;
        }
        let start = ChainHead { epoch: verified.header.epoch, ..ChainHead::default() };
        let begins = verified.header.epoch > before.epoch && verified.follows(&start);
        (!begins && !verified.follows(&before)).then(|| {
            format!(
                "does not follow what stands before it, expected batch {} of epoch {} with that one's hash",
                before.sequence.saturating_add(1),
                before.epoch
            )
        })
    }

    fn bad(&mut self, message: String) {
        self.bad += 1;
        self.first_bad.get_or_insert(message);
    }
}

/// Runs the command.
pub(super) fn check(place: &Place, out: &mut dyn Write) -> Result<(), anyhow::Error> {
    let identity = KeyStore::new(&place.config.sensor.state_dir).identity()?;
    let key = SigningKey::from_pkcs8(&identity.signing_key)?;
    let sensor = place.config.sensor.name.to_string();
    let survey = place.survey()?;
    let mut chain = Chain::default();
    survey.walk(|found| {
        if let Some(damage) = place.damage(&found) {
            chain.bad(damage);
        }
        match &found.what {
            What::Torn => chain.torn_bytes = chain.torn_bytes.saturating_add(found.bytes),
            What::Record(header, payload) => {
                chain.batches += 1;
                chain.bytes = chain.bytes.saturating_add(found.bytes);
                if let Some(wrong) = chain.judge(header, payload, &sensor, key.public_key()) {
                    let Position { epoch, sequence } = header.position;
                    chain.bad(format!(
                        "{} at offset {}: epoch {epoch}, batch {sequence}: {wrong}",
                        place.segment(found.segment),
                        found.offset
                    ));
                }
            }
            What::BadPayload(_) | What::Rubbish => {}
        }
        Ok(())
    })?;
    if survey.state.is_none() && !survey.segments.is_empty() {
        let state = place.directory.join("state");
        chain.bad(format!("{}: expected a slot with a sound CRC-32C", state.display()));
    }
    if let Some(wrong) =
        survey.state.and_then(|state| state.cosigned).and_then(|c| check_cosigned(&c, &sensor))
    {
        chain.bad(format!("{}: {wrong}", place.directory.join("state").display()));
    }
    writeln!(out, "{} batches, {} bytes in {} segments", chain.batches, chain.bytes, survey.segments.len())?;
    if chain.torn_bytes > 0 {
        writeln!(
            out,
            "{} bytes at the end are a torn write, which the next start cuts off",
            chain.torn_bytes
        )?;
    }
    for (name, bytes) in &survey.quarantine {
        writeln!(out, "quarantine: {name}, {bytes} bytes")?;
    }
    let Some(first) = chain.first_bad else {
        writeln!(out, "sound: every checksum, seal and link holds")?;
        return Ok(());
    };
    out.flush()?;
    let others = chain.bad.saturating_sub(1);
    anyhow::bail!("{first}{}", if others > 0 { format!("; and {others} more") } else { String::new() });
}

fn check_cosigned(cosigned: &Cosigned, sensor: &str) -> Option<String> {
    let cosignature = Cosignature {
        algorithm: cosigned.algorithm,
        key: cosigned.key.to_vec().into(),
        time: cosigned.time,
        signature: cosigned.signature.to_vec().into(),
    };
    verify_cosignature(&cosignature, &cosigned.key, sensor, &cosigned.head)
        .err()
        .map(|error| error.to_string())
}
