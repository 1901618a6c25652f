//! The check of a bundle, by nothing but the file. It is read once, member after member, and nothing in it is trusted;
//! what it says of itself holds only where the collector's key signed it.

use std::io::Read;

use onenet_core::{net::Name, time::Timestamp};
use onenet_proto::{
    seal::MAX_BATCH_BYTES,
    statement::{self, Domain},
    v1::Cosignature,
};
use prost::Message as _;

use super::{
    bundle::{
        AUDIT, BATCHES, BundleReader, CHAINS, ChainEnd, Chains, FORMAT, MANIFEST, MAX_MEMBERS, Manifest,
        Member, QUARANTINE, Record, SIGNATURE, VERSION,
    },
    check::{Checker, Evidence, Fault, Keys, SensorKey, Start, shown},
    stored::Findings,
};
use crate::{
    audit::{Entry, Trail},
    ca::hex,
};

/// A record may be so much larger than its batch: times, cosignature, reason.
const RECORD_OVERHEAD: usize = 64 * 1024;

/// Checks a bundle, by `trusted` where a key is stated and otherwise by the key that the bundle states.
pub(crate) fn verify(input: impl Read, trusted: Option<&[u8; 32]>) -> Findings {
    let mut reader = BundleReader::new(input);
    let mut bundle = match Bundle::begin(&mut reader, trusted) {
        Ok(bundle) => bundle,
        Err(fault) => return Findings { fault: Some(fault), ..Findings::default() },
    };
    if let Err(fault) = bundle.read(&mut reader) {
        bundle.checker.fail(fault);
    }
    let (public_key, quarantined, audit_entries) =
        (hex(&bundle.checker.keys().collector), bundle.quarantined, bundle.trail.count);
    let (chains, fault) = bundle.checker.finish();
    Findings { chains, audit_entries, quarantined, public_key, fault }
}

struct Bundle {
    checker: Checker,
    trail: Trail,
    quarantined: u64,
    members: Vec<Member>,
}

/// The next member, with an error where the bundle ends or does not read.
fn next(reader: &mut BundleReader<impl Read>) -> Result<(String, Vec<u8>), Fault> {
    let member = reader.next_member().map_err(|problem| Fault::at("bundle", problem))?;
    member.ok_or_else(|| Fault::at("bundle", format!("it ends without {MANIFEST} and {SIGNATURE}")))
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| Fault::at(name, format!("it does not parse: {error}")))
}

fn known_format(name: &str, format: &str, version: u32) -> Result<(), Fault> {
    if (format, version) == (FORMAT, VERSION) {
        return Ok(());
    }
    Err(Fault::at(
        name,
        format!("format {format:?} version {version}, expected {FORMAT:?} version {VERSION}"),
    ))
}

impl Bundle {
    /// Reads the keys and where the chains begin.
    fn begin(reader: &mut BundleReader<impl Read>, trusted: Option<&[u8; 32]>) -> Result<Self, Fault> {
        let (name, bytes) = next(reader)?;
        if name != CHAINS {
            return Err(Fault::at(name, format!("expected {CHAINS} as the first member")));
        }
        let chains: Chains = parse(CHAINS, &bytes)?;
        known_format(CHAINS, &chains.format, chains.version)?;
        if chains.collector_key.0.len() != 32 {
            return Err(Fault::at(CHAINS, "collector_key: expected 32 bytes"));
        }
        if let Some(trusted) = trusted
            && chains.collector_key.0 != trusted
        {
            let found = hex(&chains.collector_key.0);
            return Err(Fault::at(
                CHAINS,
                format!("it is by the collector {found}, which is not the trusted one"),
            ));
        }
        let former = chains.former_collector_keys.into_iter().map(|key| key.0).collect();
        let mut keys = Keys { collector: chains.collector_key.0, former, ..Keys::default() };
        let mut starts = Vec::new();
        for chain in chains.sensors {
            let sensor = Name::from(chain.sensor);
            let bad = |problem: String| Fault::at(CHAINS, format!("{sensor}: {problem}"));
            let mut known = Vec::new();
            for key in chain.keys {
                let length = key.key.0.len();
                let bytes =
                    key.key.0.try_into().map_err(|_| bad(format!("a key of {length} bytes, expected 32")))?;
                known.push(SensorKey { key: bytes, since: key.since });
            }
            let start = match chain.before {
                Some(head) => Start::After(head.chain_head().map_err(bad)?),
                None => Start::Beginning,
            };
            starts.push((Name::clone(&sensor), start));
            if keys.sensors.insert(Name::clone(&sensor), known).is_some() {
                return Err(bad("it is there twice".to_owned()));
            }
        }
        let mut checker = Checker::new(keys, chains.selection);
        for (sensor, start) in &starts {
            checker.begin(sensor, *start);
        }
        let members = vec![Member::of(CHAINS, &bytes)];
        Ok(Self { checker, trail: Trail::anywhere(), quarantined: 0, members })
    }

    /// Reads the members behind the first. Faults of batches are entered; an error is what ends the reading.
    fn read(&mut self, reader: &mut BundleReader<impl Read>) -> Result<(), Fault> {
        loop {
            let (name, bytes) = next(reader)?;
            if name == MANIFEST {
                self.end(reader, &bytes)?;
                let more = reader.next_member().map_err(|problem| Fault::at("bundle", problem))?;
                return match more {
                    Some((name, _)) => Err(Fault::at(name, "a member behind the signature of the manifest")),
                    None => Ok(()),
                };
            }
            if self.members.len() >= MAX_MEMBERS {
                return Err(Fault::at(name, format!("more than {MAX_MEMBERS} members")));
            }
            if let Some(rest) = name.strip_prefix(BATCHES) {
                self.batches(&name, rest, &bytes)?;
            } else if let Some(rest) = name.strip_prefix(QUARANTINE) {
                self.quarantine(&name, rest, &bytes)?;
            } else if name.starts_with(AUDIT) {
                self.audit(&name, &bytes)?;
            } else {
                return Err(Fault::at(name, "not a member that a bundle has"));
            }
            self.members.push(Member::of(&name, &bytes));
        }
    }

    /// The sensor that a member's name names; it has to be one whose keys are here.
    fn sensor(&self, name: &str, rest: &str) -> Result<Name, Fault> {
        let sensor = rest.split('/').next().unwrap_or_default();
        let known = self.checker.keys().sensors.get_key_value(sensor);
        known
            .map(|(name, _)| Name::clone(name))
            .ok_or_else(|| Fault::at(name, format!("{sensor:?} is no sensor of {CHAINS}")))
    }

    fn batches(&mut self, name: &str, rest: &str, bytes: &[u8]) -> Result<(), Fault> {
        let sensor = self.sensor(name, rest)?;
        for_each_record(name, bytes, |place, record| {
            self.checker.take(&Evidence {
                place,
                sensor: Name::clone(&sensor),
                sealed: record.sealed.unwrap_or_default(),
                received_at: Timestamp(record.received_at),
                cosignature: record.cosignature,
            });
            Ok(())
        })
    }

    fn quarantine(&mut self, name: &str, rest: &str, bytes: &[u8]) -> Result<(), Fault> {
        let sensor = self.sensor(name, rest)?;
        for_each_record(name, bytes, |place, record| {
            let sealed = record.sealed.unwrap_or_default();
            if self.checker.keys().unseal(&sensor, &sealed).is_err() {
                return Err(Fault::at(place, format!("the seal fits no key of {sensor}")));
            }
            self.quarantined = self.quarantined.saturating_add(1);
            Ok(())
        })
    }

    fn audit(&mut self, name: &str, bytes: &[u8]) -> Result<(), Fault> {
        let lines = bytes.split_inclusive(|&byte| byte == b'\n');
        for (number, line) in lines.enumerate() {
            let place = format!("{name}, line {}", number + 1);
            let entry: Entry = parse(&place, line)?;
            let taken = self.checker.keys().check_entry(&mut self.trail, &entry);
            taken.map_err(|problem| Fault::at(&place, problem))?;
        }
        Ok(())
    }

    /// Checks the manifest: its signature, that it names just the members that are here, and where the chains end.
    fn end(&mut self, reader: &mut BundleReader<impl Read>, bytes: &[u8]) -> Result<(), Fault> {
        let (name, signature) = next(reader)?;
        if name != SIGNATURE {
            return Err(Fault::at(name, format!("expected {SIGNATURE} behind {MANIFEST}")));
        }
        let digest = statement::digest(Domain::Manifest, &[bytes]);
        if !statement::holds(&self.checker.keys().collector, &digest, &signature) {
            return Err(Fault::at(MANIFEST, "its signature does not fit the collector's key"));
        }
        let manifest: Manifest = parse(MANIFEST, bytes)?;
        known_format(MANIFEST, &manifest.format, manifest.version)?;
        for (here, named) in self.members.iter().zip(&manifest.members) {
            if here != named {
                let problem = if here.name == named.name {
                    "it is not what the manifest says: size or SHA-256 differ".to_owned()
                } else {
                    format!("the manifest names {} in its place", named.name)
                };
                return Err(Fault::at(&here.name, problem));
            }
        }
        if self.members.len() != manifest.members.len() {
            let (here, named) = (self.members.len(), manifest.members.len());
            return Err(Fault::at(MANIFEST, format!("it names {named} members, {here} are here")));
        }
        let counted = (self.quarantined, self.trail.count);
        if (manifest.quarantined, manifest.audit_entries) != counted {
            return Err(Fault::at(
                MANIFEST,
                format!(
                    "it says {} batches in quarantine and {} entries of the audit trail, here are {} and {}",
                    manifest.quarantined, manifest.audit_entries, counted.0, counted.1
                ),
            ));
        }
        // Without a later bound, a chain ends where the collector held it.
        let to_the_end = manifest.asked.to.is_none() && manifest.asked.finding.is_none();
        manifest.ends.iter().for_each(|end| self.check_end(end, to_the_end));
        Ok(())
    }

    /// Holds the end of a chain against what the manifest says of it.
    fn check_end(&mut self, end: &ChainEnd, to_the_end: bool) {
        let sensor = Name::from(end.sensor.as_str());
        if self.checker.has_failed(&sensor) {
            return;
        }
        let head = self.checker.head(&sensor);
        let here = (self.checker.batches(&sensor), head.as_ref().map(Into::into));
        let problem = if here != (end.batches, end.last.clone()) {
            let stands = head.map_or_else(|| "at nothing".to_owned(), |head| format!("at {}", shown(&head)));
            Some(format!(
                "the manifest says {} batches and another end; here are {}, {stands}",
                end.batches, here.0
            ))
        } else if to_the_end && end.batches > 0 && end.last != end.held {
            Some("the chain does not end with the head that the collector held".to_owned())
        } else {
            match (&end.held, &end.cosignature) {
                (Some(held), Some(word)) => held
                    .chain_head()
                    .and_then(|held| {
                        let word = Cosignature::decode(&word.0[..]).map_err(|error| error.to_string())?;
                        self.checker
                            .keys()
                            .check_word(&word, &sensor, &held)
                            .map_err(|error| error.to_string())
                    })
                    .err()
                    .map(|error| format!("the cosignature of the head does not hold: {error}")),
                _ => None,
            }
        };
        if let Some(problem) = problem {
            let (epoch, sequence) = head.map_or((0, 0), |head| (head.epoch, head.sequence));
            self.checker.fail(Fault {
                place: MANIFEST.to_owned(),
                batch: Some((sensor, epoch, sequence)),
                problem,
            });
        }
    }
}

/// Hands the records of a member over, each with its place.
fn for_each_record(
    name: &str,
    mut bytes: &[u8],
    mut each: impl FnMut(String, Record) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut number = 0_u64;
    while !bytes.is_empty() {
        number = number.saturating_add(1);
        let place = format!("{name}, record {number}");
        let length = prost::decode_length_delimiter(bytes)
            .ok()
            .filter(|&length| length <= MAX_BATCH_BYTES + RECORD_OVERHEAD);
        let record = length.and_then(|length| {
            let start = prost::length_delimiter_len(length);
            let end = start.checked_add(length)?;
            let record = Record::decode(bytes.get(start..end)?).ok()?;
            // One way to write it alone is taken.
            let same = record.encode_length_delimited_to_vec() == bytes[..end];
            same.then_some((record, end))
        });
        let Some((record, end)) = record else { return Err(Fault::at(place, "the record does not parse")) };
        each(place, record)?;
        bytes = &bytes[end..];
    }
    Ok(())
}
