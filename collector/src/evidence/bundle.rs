//! The format of an evidence bundle: a plain tar (POSIX ustar) whose members stand in a fixed order.
//!
//! 1. `chains.json`: the keys, and behind which batch each sensor's chain begins here.
//! 2. `batches/SENSOR/EPOCH/SEQUENCE.batches`: [`Record`]s, each with its length before it (a varint), in the order of
//!    the chain; SEQUENCE is the first.
//! 3. `quarantine/SENSOR/NUMBER.batches`: batches that have no place in the chain.
//! 4. `audit/SEQUENCE.ndjson`: entries of the audit trail, one JSON object a line.
//! 5. `manifest.json`: what, when, by whom, and the SHA-256 of every member before it.
//! 6. `manifest.sig`: the collector's signature of the manifest (64 bytes), a statement with the manifest as its part.

use std::io::{self, Read, Write};

use onenet_core::time::Timestamp;
use onenet_proto::{
    seal::ChainHead,
    v1::{Cosignature, SealedBatch},
};
use serde::{Deserialize, Serialize};

use crate::{audit::Hex, ca::sha256};

/// What `format` says.
pub(crate) const FORMAT: &str = "onenet-evidence";
/// Version of the format.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a member of batches or entries after which the next begins.
pub(crate) const FULL: usize = 4 * 1024 * 1024;
/// No member is larger: a full one and the largest batch with what is stored beside it fit.
pub(crate) const MAX_MEMBER: u64 = 16 * 1024 * 1024;
/// The manifest may be larger, because it names the others.
pub(crate) const MAX_MANIFEST: u64 = 128 * 1024 * 1024;
/// Members of one bundle.
pub(crate) const MAX_MEMBERS: usize = 500_000;

pub(crate) const CHAINS: &str = "chains.json";
pub(crate) const BATCHES: &str = "batches/";
pub(crate) const QUARANTINE: &str = "quarantine/";
pub(crate) const AUDIT: &str = "audit/";
pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const SIGNATURE: &str = "manifest.sig";

/// A batch with what the collector knows of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Record {
    /// As sealed.
    #[prost(message, optional, tag = "1")]
    pub(crate) sealed: Option<SealedBatch>,
    /// Collector time of the commit, nanoseconds since the Unix epoch.
    #[prost(int64, tag = "2")]
    pub(crate) received_at: i64,
    /// The collector's word for the head that the batch made, where it gave it.
    #[prost(message, optional, tag = "3")]
    pub(crate) cosignature: Option<Cosignature>,
    /// Why the batch has no place in the chain; in the quarantine alone.
    #[prost(string, tag = "4")]
    pub(crate) reason: String,
}

/// `chains.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chains {
    /// [`FORMAT`].
    pub(crate) format: String,
    /// [`VERSION`].
    pub(crate) version: u32,
    /// The collector's public key, 32 bytes.
    pub(crate) collector_key: Hex,
    /// The keys that it had before.
    pub(crate) former_collector_keys: Vec<Hex>,
    /// Whether batches are left out, because a finding was asked for.
    pub(crate) selection: bool,
    /// By sensor.
    pub(crate) sensors: Vec<SensorChain>,
}

/// Where the chain of a sensor begins, and its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SensorChain {
    /// Name.
    pub(crate) sensor: String,
    /// Every key it ever signed with.
    pub(crate) keys: Vec<KeySince>,
    /// The batch before the first one here; none where nothing came before.
    pub(crate) before: Option<Head>,
}

/// A sensor's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeySince {
    /// Ed25519 public key, 32 bytes.
    pub(crate) key: Hex,
    /// Collector time of the enrolment that brought it.
    pub(crate) since: Timestamp,
}

/// A batch by its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Epoch.
    pub(crate) epoch: u64,
    /// Sequence.
    pub(crate) sequence: u64,
    /// Hash, 32 bytes.
    pub(crate) hash: Hex,
}

impl From<&ChainHead> for Head {
    fn from(head: &ChainHead) -> Self {
        Self { epoch: head.epoch, sequence: head.sequence, hash: Hex(head.hash.to_vec()) }
    }
}

impl Head {
    /// As chains are checked by; the error says what the hash should be.
    pub(crate) fn chain_head(&self) -> Result<ChainHead, String> {
        let hash = <[u8; 32]>::try_from(&self.hash.0[..])
            .map_err(|_| format!("a hash of {} bytes, expected 32", self.hash.0.len()))?;
        Ok(ChainHead { epoch: self.epoch, sequence: self.sequence, hash })
    }
}

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// [`FORMAT`].
    pub(crate) format: String,
    /// [`VERSION`].
    pub(crate) version: u32,
    /// The program that made it.
    pub(crate) tool: String,
    /// When.
    pub(crate) made_at: Timestamp,
    /// Unix user.
    pub(crate) made_by: String,
    /// What was asked for.
    pub(crate) asked: Asked,
    /// By sensor: where its chain ends here.
    pub(crate) ends: Vec<ChainEnd>,
    /// Batches of the quarantine.
    pub(crate) quarantined: u64,
    /// Entries of the audit trail.
    pub(crate) audit_entries: u64,
    /// Every member before the manifest, in order.
    pub(crate) members: Vec<Member>,
}

impl Manifest {
    /// Batches of all chains.
    pub(crate) fn batches(&self) -> u64 {
        self.ends.iter().map(|end| end.batches).sum()
    }
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// The sensor.
    pub(crate) sensor: Option<String>,
    /// Received from this time on.
    pub(crate) from: Option<Timestamp>,
    /// Received before this time.
    pub(crate) to: Option<Timestamp>,
    /// The finding.
    pub(crate) finding: Option<String>,
}

/// Where the chain of a sensor ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChainEnd {
    /// Name.
    pub(crate) sensor: String,
    /// Batches here.
    pub(crate) batches: u64,
    /// The last batch here; none where there is none.
    pub(crate) last: Option<Head>,
    /// The head that the collector held when the bundle was made.
    pub(crate) held: Option<Head>,
    /// Its word for that head: a Cosignature, encoded.
    pub(crate) cosignature: Option<Hex>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: String,
    /// Its bytes.
    pub(crate) size: u64,
    /// Their SHA-256.
    pub(crate) sha256: Hex,
}

impl Member {
    /// What is stated of a member with these bytes.
    pub(crate) fn of(name: &str, bytes: &[u8]) -> Self {
        Self { name: name.to_owned(), size: bytes.len() as u64, sha256: Hex(sha256(bytes).to_vec()) }
    }
}

/// The header of a member: nothing in it depends on anything but name and size.
fn header(name: &str, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

const BLOCK: usize = 512;

/// Zeros behind so many bytes, up to the next block.
fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if over == 0 { 0 } else { BLOCK - over }
}

/// Writes the members of a bundle.
#[derive(Debug)]
pub(crate) struct BundleWriter<W> {
    out: W,
    pub(crate) members: Vec<Member>,
}

impl<W: Write> BundleWriter<W> {
    pub(crate) const fn new(out: W) -> Self {
        Self { out, members: Vec::new() }
    }

    /// Writes one member.
    pub(crate) fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.members.len() >= MAX_MEMBERS {
            return Err(io::Error::other(format!("more than {MAX_MEMBERS} members; ask for a shorter time")));
        }
        let size = bytes.len() as u64;
        self.out.write_all(header(name, size)?.as_bytes())?;
        self.out.write_all(bytes)?;
        self.out.write_all(&[0; BLOCK][..padding(size)])?;
        self.members.push(Member::of(name, bytes));
        Ok(())
    }

    /// Writes the end.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Reads the members of a bundle that nobody has vouched for. Memory is that of one member.
#[derive(Debug)]
pub(crate) struct BundleReader<R> {
    input: R,
    at: u64,
}

impl<R: Read> BundleReader<R> {
    pub(crate) const fn new(input: R) -> Self {
        Self { input, at: 0 }
    }

    fn block(&mut self) -> Result<[u8; BLOCK], String> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        Ok(block)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), String> {
        self.input.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "the bundle is cut off".to_owned(),
            _ => format!("the bundle does not read: {error}"),
        })?;
        self.at = self.at.saturating_add(buffer.len() as u64);
        Ok(())
    }

    /// The next member: name and bytes; none at the end. The error says what is wrong, with the offset in the file.
    pub(crate) fn next_member(&mut self) -> Result<Option<(String, Vec<u8>)>, String> {
        let at = self.at;
        self.read_member().map_err(|problem| format!("at byte {at}: {problem}"))
    }

    fn read_member(&mut self) -> Result<Option<(String, Vec<u8>)>, String> {
        let block = self.block()?;
        if block == [0; BLOCK] {
            return self.end().map(|()| None);
        }
        let found = tar::Header::from_byte_slice(&block);
        let no_header = || "not the header of a member as a bundle has it".to_owned();
        let name = String::from_utf8(found.path_bytes().into_owned()).map_err(|_| no_header())?;
        let size = found.entry_size().map_err(|_| no_header())?;
        let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        let up = name.starts_with('/') || name.split('/').any(|part| matches!(part, "" | "." | ".."));
        if !name.chars().all(safe) || up {
            return Err(format!("{name:?} is not the name of a member"));
        }
        // Every bit of a header is accounted for.
        if header(&name, size).map_err(|_| no_header())?.as_bytes()[..] != block[..] {
            return Err(no_header());
        }
        let most = if name == MANIFEST { MAX_MANIFEST } else { MAX_MEMBER };
        let length = usize::try_from(size).ok().filter(|_| size <= most);
        let length = length.ok_or_else(|| format!("{name} has {size} bytes, expected at most {most}"))?;
        let mut bytes = Vec::new();
        // What a header says is not allocated before it is there.
        while bytes.len() < length {
            let more = (length - bytes.len()).min(1024 * 1024);
            let start = bytes.len();
            bytes.resize(start + more, 0);
            self.fill(&mut bytes[start..])?;
        }
        let mut rest = [0; BLOCK];
        let rest = &mut rest[..padding(size)];
        self.fill(rest)?;
        if rest.iter().any(|&byte| byte != 0) {
            return Err(format!("something stands between {name} and the next member"));
        }
        Ok(Some((name, bytes)))
    }

    fn end(&mut self) -> Result<(), String> {
        if self.block()? != [0; BLOCK] {
            return Err("something stands behind the end".to_owned());
        }
        match self.input.read(&mut [0; 1]) {
            Ok(0) => Ok(()),
            Ok(_) => Err("something stands behind the end".to_owned()),
            Err(error) => Err(format!("the bundle does not read: {error}")),
        }
    }
}
