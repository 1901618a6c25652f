//! The audit trail: what operators did with this collector, and what happened to its sensors. Its entries are one chain,
//! each signed with the collector's own key, so that none can be changed, taken out or put in later.
//!
//! What is signed is a statement (`onenet_proto::statement`) of the domain audit with these parts, numbers as 8 bytes
//! little-endian: sequence, time, actor, action, sensor, epoch, batch sequence, batch hash, detail, hash before.

use clap::Args;
use onenet_core::time::Timestamp;
use onenet_proto::{
    seal::BatchHash,
    statement::{self, Domain},
};
use serde::{Deserialize, Serialize};

use crate::{
    cli::{self, CliError, Format, Place},
    render::{self, Column},
    store::archive::Archive,
};

/// Bytes as hexadecimal digits in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        crate::evidence::unhex(&text).map(Self).ok_or("expected an even number of hexadecimal digits")
    }
}

impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        crate::ca::hex(&hex.0)
    }
}

/// One entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Number, from 1 without gaps.
    pub(crate) sequence: u64,
    /// Collector time.
    pub(crate) time: Timestamp,
    /// The Unix user whose process entered it, and on whose behalf where it ran by sudo.
    pub(crate) actor: String,
    /// What was done or happened, such as `token-created`.
    pub(crate) action: String,
    /// The sensor it is about; empty where it is about none.
    pub(crate) sensor: String,
    /// Epoch of the batch it is about; 0 where it is about none.
    pub(crate) epoch: u64,
    /// Its sequence.
    pub(crate) batch_sequence: u64,
    /// Its hash; empty where it is about none.
    pub(crate) batch_hash: Hex,
    /// One line for people.
    pub(crate) detail: String,
    /// Hash of the entry before; zeros before the first.
    pub(crate) previous: Hex,
    /// Hash of this entry.
    pub(crate) hash: Hex,
    /// The collector's signature of the hash.
    pub(crate) signature: Hex,
}

impl Entry {
    /// Whether it bears the signature of this key of the collector.
    pub(crate) fn is_signed_by(&self, key: &[u8]) -> bool {
        statement::holds(key, &self.digest(), &self.signature.0)
    }

    /// What is signed.
    pub(crate) fn digest(&self) -> BatchHash {
        let number = u64::to_le_bytes;
        let parts: [&[u8]; 10] = [
            &number(self.sequence),
            &self.time.0.to_le_bytes(),
            self.actor.as_bytes(),
            self.action.as_bytes(),
            self.sensor.as_bytes(),
            &number(self.epoch),
            &number(self.batch_sequence),
            &self.batch_hash.0,
            self.detail.as_bytes(),
            &self.previous.0,
        ];
        statement::digest(Domain::Audit, &parts)
    }
}

/// Checks entries one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trail {
    head: Option<(u64, Vec<u8>)>,
    /// Entries that hold.
    pub(crate) count: u64,
    /// Whether the last entry is by the key that the collector has now.
    pub(crate) is_current: bool,
}

impl Trail {
    /// A trail that goes on from an entry which is not at hand.
    pub(crate) fn anywhere() -> Self {
        Self { head: Some((0, Vec::new())), ..Self::default() }
    }

    /// Checks the next entry by the collector's key; the error says what was expected.
    pub(crate) fn take(&mut self, entry: &Entry, key: &[u8]) -> Result<(), String> {
        let (last, hash) = self.head.clone().unwrap_or((0, vec![0; 32]));
        let anywhere = self.head.is_some() && self.count == 0;
        if !anywhere && Some(entry.sequence) != last.checked_add(1) {
            return Err(format!("entry {}, expected {}", entry.sequence, last.saturating_add(1)));
        }
        if !anywhere && entry.previous.0 != hash {
            return Err(format!("entry {} does not follow the one before it", entry.sequence));
        }
        let digest = entry.digest();
        if entry.hash.0 != digest {
            return Err(format!("entry {} is not what its hash says", entry.sequence));
        }
        if !statement::holds(key, &digest, &entry.signature.0) {
            return Err(format!(
                "the signature of entry {} does not fit the collector's key",
                entry.sequence
            ));
        }
        self.head = Some((entry.sequence, entry.hash.0.clone()));
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// The number of the last entry; 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.head.as_ref().map_or(0, |(sequence, _)| *sequence)
    }
}

/// The Unix user of this process, and on whose behalf where it runs by sudo.
pub(crate) fn actor() -> String {
    let uid = nix::unistd::getuid();
    let user =
        nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    match std::env::var("SUDO_USER") {
        Ok(behind) if !behind.is_empty() && behind != user => {
            let behind: String = behind.chars().filter(|c| !c.is_control()).take(64).collect();
            format!("{user} for {behind}")
        }
        _ => user,
    }
}

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    place: Place,
    /// Entries to show at most, the latest.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const COLUMNS: [Column<Entry>; 6] = [
    Column::number("sequence", |e| e.sequence.to_string()),
    Column::text("time", |e| render::moment(e.time)),
    Column::text("actor", |e| e.actor.clone()),
    Column::text("action", |e| e.action.clone()),
    Column::text("sensor", |e| e.sensor.clone()),
    Column::text("detail", |e| e.detail.clone()),
];

/// Runs the command: the entries in their order. Whether they hold, `verify` says.
pub(crate) fn run(args: &AuditArgs) -> Result<(), CliError> {
    let config = args.place.config()?;
    let archive = Archive::open(&config.store.directory)?;
    let mut entries = std::collections::VecDeque::new();
    archive.audit(|entry| {
        if entries.len() >= args.limit {
            entries.pop_front();
        }
        entries.push_back(entry);
        Ok::<_, crate::store::StoreError>(())
    })?;
    entries.truncate(args.limit);
    cli::print(&render::render(args.format, &COLUMNS, entries.make_contiguous())?)
}

#[cfg(test)]
mod tests {
    use onenet_proto::seal::SigningKey;

    use super::*;

    #[test]
    fn what_is_signed_is_laid_out_as_documented() {
        let entry = Entry {
            sequence: 2,
            time: Timestamp(3),
            actor: "a".into(),
            action: "b".into(),
            sensor: "c".into(),
            epoch: 4,
            batch_sequence: 5,
            batch_hash: Hex(vec![6; 32]),
            detail: "d".into(),
            previous: Hex(vec![7; 32]),
            ..Entry::default()
        };
        let mut bytes = b"onenet-audit-v1\0".to_vec();
        let mut part = |part: &[u8]| {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        };
        for number in [2_u64, 3] {
            part(&number.to_le_bytes());
        }
        for text in ["a", "b", "c"] {
            part(text.as_bytes());
        }
        for number in [4_u64, 5] {
            part(&number.to_le_bytes());
        }
        part(&[6; 32]);
        part(b"d");
        part(&[7; 32]);
        assert_eq!(entry.digest(), crate::ca::sha256(&bytes));
        let hex = crate::ca::hex(&entry.digest());
        assert_eq!(hex, GOLDEN, "the layout may never change unnoticed");
    }

    const GOLDEN: &str = "333926cd55f37e9824de1168ffba09f48eebd1d69b4e9bc1d144bb98bdb07daf";

    #[test]
    fn a_trail_takes_each_entry_in_its_place_and_by_its_key_alone() {
        let (key, _) = SigningKey::generate().expect("a key");
        let (other, _) = SigningKey::generate().expect("a key");
        let sign = |sequence, previous: &[u8], key: &SigningKey| {
            let mut entry = Entry {
                sequence,
                action: "started".into(),
                previous: Hex(previous.to_vec()),
                ..Entry::default()
            };
            let digest = entry.digest();
            (entry.hash, entry.signature) = (Hex(digest.to_vec()), Hex(statement::sign(key, &digest)));
            entry
        };
        let first = sign(1, &[0; 32], &key);
        let second = sign(2, &first.hash.0, &key);
        let takes = |entries: &[&Entry]| {
            let mut trail = Trail::default();
            entries.iter().try_for_each(|entry| trail.take(entry, key.public_key()))
        };
        assert_eq!(takes(&[&first, &second]), Ok(()));
        assert!(takes(&[&second]).is_err(), "the first is cut off");
        assert!(takes(&[&first, &first]).is_err(), "twice");
        assert!(takes(&[&first, &sign(3, &first.hash.0, &key)]).is_err(), "one missing");
        assert!(takes(&[&first, &sign(2, &[9; 32], &key)]).is_err(), "another past");
        assert!(takes(&[&first, &sign(2, &first.hash.0, &other)]).is_err(), "another key");
        assert!(takes(&[&Entry { detail: "x".into(), ..first.clone() }]).is_err(), "changed");
        assert!(takes(&[&Entry { hash: Hex(vec![9; 32]), ..first.clone() }]).is_err(), "another hash");
        let mut from_the_middle = Trail::anywhere();
        assert_eq!(from_the_middle.take(&second, key.public_key()), Ok(()));
        assert_eq!((from_the_middle.last(), from_the_middle.count), (2, 1));
    }
}
