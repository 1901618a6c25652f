//! The state file: what must be known of the chain and the acks when every segment has been deleted. Two slots
//! are written in turn, in place, so that one of them is whole whatever happens to the other, and so that a full
//! disk can still record a deletion.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use onenet_proto::{
    seal::ChainHead,
    v1::{Cosignature, EpochStart},
};

use super::{
    Head,
    disk::{CommitPoint, Filesystem, WriteFile, read_start},
    record::{Cursor, Fields},
};

const MAGIC: [u8; 8] = *b"ONSTATE2";
/// Of the version before, which knew no cosignatures; it is read and never written.
const MAGIC_1: [u8; 8] = *b"ONSTATE1";
/// Distance of the slots: two slots never share a sector.
const SLOT_STRIDE: usize = 4096;
const SLOT_BYTES: usize = 512;
const SLOT_BYTES_1: usize = 192;

/// The collector's signed word that it holds a head, as it was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cosigned {
    /// The head.
    pub(crate) head: ChainHead,
    /// Algorithm of the signature, as on the wire; never 0.
    pub(crate) algorithm: u32,
    /// The collector's key.
    pub(crate) key: [u8; 32],
    /// The collector's clock, nanoseconds since the Unix epoch.
    pub(crate) time: i64,
    /// The signature.
    pub(crate) signature: [u8; 64],
}

impl Cosigned {
    /// What an ack for `head` carried; none where its fields have not the size that is stored.
    pub(crate) fn new(head: ChainHead, cosignature: &Cosignature) -> Option<Self> {
        Some(Self {
            head,
            algorithm: Some(cosignature.algorithm).filter(|&algorithm| algorithm != 0)?,
            key: cosignature.key[..].try_into().ok()?,
            time: cosignature.time,
            signature: cosignature.signature[..].try_into().ok()?,
        })
    }
}

/// Why an epoch begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StartReason {
    /// There was no spool.
    #[default]
    New,
    /// There was one, and what it knew of the chain is lost.
    StateLost,
    /// The collector could not take what was sealed.
    SealedAnew,
}

impl StartReason {
    /// The name on the wire.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::StateLost => "state-lost",
            Self::SealedAnew => "sealed-anew",
        }
    }
}

/// How an epoch begins: why, and where the chain stood before as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Start {
    /// Why.
    pub(crate) reason: StartReason,
    /// Head before; epoch 0 where none is known.
    pub(crate) previous: ChainHead,
}

impl Start {
    /// As it is told in the first batch of the epoch.
    pub(crate) fn to_wire(self, detail: String) -> EpochStart {
        let Self { reason, previous } = self;
        let known = previous.epoch > 0;
        EpochStart {
            previous_epoch: previous.epoch,
            previous_sequence: previous.sequence,
            previous_hash: if known { previous.hash.to_vec().into() } else { Default::default() },
            reason: reason.as_str().to_owned(),
            detail,
        }
    }
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Grows by one with every write; the sound slot with the greater one is the state.
    pub(crate) generation: u64,
    /// Segments below this number are deleted, or about to be.
    pub(crate) floor: u64,
    /// The epoch that new batches are sealed in. Segments of a later epoch were never published.
    pub(crate) epoch: u64,
    /// Last batch known to be durable when this was written.
    pub(crate) head: Head,
    /// Last batch the collector has committed.
    pub(crate) acked: ChainHead,
    /// The latest head that the collector has cosigned.
    pub(crate) cosigned: Option<Cosigned>,
    /// How the epoch begins, to be told by its first batch.
    pub(crate) start: Start,
}

fn put_chain(fields: &mut Fields<'_>, chain: &ChainHead) {
    fields.put(&chain.epoch.to_le_bytes()).put(&chain.sequence.to_le_bytes()).put(&chain.hash);
}

fn take_chain(cursor: &mut Cursor<'_>) -> ChainHead {
    let position = cursor.position();
    ChainHead { epoch: position.epoch, sequence: position.sequence, hash: cursor.take() }
}

impl State {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        let mut fields = Fields::new(&mut bytes);
        fields.put(&MAGIC);
        for value in [self.generation, self.floor, self.epoch] {
            fields.put(&value.to_le_bytes());
        }
        put_chain(&mut fields, &self.head.chain);
        put_chain(&mut fields, &self.acked);
        self.head.mark.write(&mut fields);
        let cosigned = self.cosigned.unwrap_or(Cosigned {
            head: ChainHead::default(),
            algorithm: 0,
            key: [0; 32],
            time: 0,
            signature: [0; 64],
        });
        put_chain(&mut fields, &cosigned.head);
        fields.put(&cosigned.algorithm.to_le_bytes()).put(&[0; 4]);
        fields.put(&cosigned.key).put(&cosigned.time.to_le_bytes()).put(&cosigned.signature);
        let reason: u64 = match self.start.reason {
            StartReason::New => 0,
            StartReason::StateLost => 1,
            StartReason::SealedAnew => 2,
        };
        fields.put(&reason.to_le_bytes());
        put_chain(&mut fields, &self.start.previous);
        let crc = crc32c::crc32c(&bytes[..SLOT_BYTES - 4]);
        bytes[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let length = match bytes.first_chunk::<8>()? {
            magic if *magic == MAGIC => SLOT_BYTES,
            magic if *magic == MAGIC_1 => SLOT_BYTES_1,
            _ => return None,
        };
        let (covered, crc) = bytes.get(..length)?.split_last_chunk::<4>()?;
        if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        // Fields that the version before did not have read as zero: its rest was zeros, and ends.
        let mut cursor = Cursor::new(&covered[MAGIC.len()..]);
        let (generation, floor, epoch) = (cursor.u64(), cursor.u64(), cursor.u64());
        let (head, acked) = (take_chain(&mut cursor), take_chain(&mut cursor));
        let head = Head { chain: head, mark: cursor.mark() };
        let cosigned_head = take_chain(&mut cursor);
        let algorithm = cursor.u32();
        let _: [u8; 4] = cursor.take();
        let cosigned = Cosigned {
            head: cosigned_head,
            algorithm,
            key: cursor.take(),
            time: i64::from_le_bytes(cursor.take()),
            signature: cursor.take(),
        };
        let reason = match cursor.u64() {
            1 => StartReason::StateLost,
            2 => StartReason::SealedAnew,
            _ => StartReason::New,
        };
        let start = Start { reason, previous: take_chain(&mut cursor) };
        let cosigned = (algorithm != 0).then_some(cosigned);
        Some(Self { generation, floor, epoch, head, acked, cosigned, start })
    }
}

/// The state file, open for writing.
pub(super) struct StateFile {
    filesystem: Arc<dyn Filesystem>,
    file: Box<dyn WriteFile>,
    state: State,
    path: PathBuf,
}

impl StateFile {
    /// Reads the state, none where there is none or no slot is sound.
    pub(super) fn read(filesystem: &dyn Filesystem, path: &Path) -> io::Result<Option<State>> {
        let Some(bytes) = read_start(filesystem, path, SLOT_STRIDE + SLOT_BYTES)? else { return Ok(None) };
        let slots = [0, SLOT_STRIDE].map(|at| bytes.get(at..).and_then(State::decode));
        Ok(slots.into_iter().flatten().max_by_key(|state| state.generation))
    }

    /// Opens the file for writing and writes `state` durably into it.
    pub(super) fn start(filesystem: &Arc<dyn Filesystem>, path: &Path, state: State) -> io::Result<Self> {
        let file = filesystem.open(path)?;
        let mut opened = Self { filesystem: filesystem.clone(), file, state, path: path.to_owned() };
        // Both slots, so that the file has its full size from here on.
        opened.write(|_| ())?;
        opened.write(|_| ())?;
        filesystem.sync_directory(path.parent().unwrap_or_else(|| Path::new(".")))?;
        Ok(opened)
    }

    /// What was last written.
    pub(super) const fn state(&self) -> &State {
        &self.state
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Changes the state; durable on return. On failure the state before stands.
    pub(super) fn write(&mut self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.state;
        change(&mut state);
        state.generation = self.state.generation.saturating_add(1);
        let offset = if state.generation.is_multiple_of(2) { 0 } else { SLOT_STRIDE as u64 };
        self.file.write_at(&state.encode(), offset)?;
        self.filesystem.reached(CommitPoint::StateWritten);
        self.file.sync()?;
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::disk::Disk, *};

    fn disk() -> Arc<dyn Filesystem> {
        Arc::new(Disk)
    }

    fn sample() -> State {
        State {
            floor: 4,
            epoch: 11,
            head: Head {
                chain: ChainHead { epoch: 11, sequence: 90, hash: [5; 32] },
                mark: super::super::Mark {
                    run: 1,
                    run_records: 2,
                    flows: 3,
                    observations: 4,
                    findings: 5,
                    monotonic: 6,
                },
            },
            acked: ChainHead { epoch: 11, sequence: 80, hash: [6; 32] },
            cosigned: Some(Cosigned {
                head: ChainHead { epoch: 11, sequence: 79, hash: [7; 32] },
                algorithm: 1,
                key: [8; 32],
                time: -9,
                signature: [10; 64],
            }),
            start: Start {
                reason: StartReason::StateLost,
                previous: ChainHead { epoch: 10, sequence: 3, hash: [11; 32] },
            },
            ..State::default()
        }
    }

    #[test]
    fn the_state_reads_back_and_a_torn_write_leaves_the_one_before() {
        let dir = super::super::tests::scratch();
        let path = dir.path().join("state");
        assert_eq!(StateFile::read(&Disk, &path).unwrap(), None);
        let mut file = StateFile::start(&disk(), &path, sample()).unwrap();
        file.write(|state| state.floor = 5).unwrap();
        let before = *file.state();
        file.write(|state| state.floor = 6).unwrap();
        let last = *file.state();
        assert_eq!(StateFile::read(&Disk, &path).unwrap(), Some(last));
        let sound = std::fs::read(&path).unwrap();
        let slot = if last.generation.is_multiple_of(2) { 0 } else { SLOT_STRIDE };
        for bit in 0..SLOT_BYTES * 8 {
            let mut torn = sound.clone();
            torn[slot + bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, torn).unwrap();
            assert_eq!(StateFile::read(&Disk, &path).unwrap(), Some(before), "bit {bit}");
        }
    }

    #[test]
    fn a_state_is_laid_out_as_documented() {
        let bytes = sample().encode();
        assert_eq!(bytes[..8], *b"ONSTATE2");
        assert_eq!(bytes[16..24], 4_u64.to_le_bytes(), "floor");
        assert_eq!(bytes[24..32], 11_u64.to_le_bytes(), "epoch");
        assert_eq!(bytes[40..48], 90_u64.to_le_bytes(), "head sequence");
        assert_eq!(bytes[80..88], 11_u64.to_le_bytes(), "acked epoch");
        assert_eq!(bytes[128..136], 1_u64.to_le_bytes(), "run");
        assert_eq!(bytes[184..192], 79_u64.to_le_bytes(), "cosigned sequence");
        assert_eq!(bytes[224..228], 1_u32.to_le_bytes(), "algorithm");
        assert_eq!(bytes[232..264], [8; 32], "the collector's key");
        assert_eq!(bytes[264..272], (-9_i64).to_le_bytes(), "the collector's time");
        assert_eq!(bytes[272..336], [10; 64], "its signature");
        assert_eq!(bytes[336..344], 1_u64.to_le_bytes(), "why the epoch begins");
        assert_eq!(bytes[344..352], 10_u64.to_le_bytes(), "epoch before");
        assert_eq!(State::decode(&bytes), Some(sample()));
    }

    #[test]
    fn a_state_of_the_version_before_is_read_and_written_as_this_one() {
        let dir = super::super::tests::scratch();
        let path = dir.path().join("state");
        let mut old = [0; SLOT_BYTES_1];
        old[..176].copy_from_slice(&sample().encode()[..176]);
        old[..8].copy_from_slice(b"ONSTATE1");
        let crc = crc32c::crc32c(&old[..188]);
        old[188..].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, old).unwrap();
        let expected = State { cosigned: None, start: Start::default(), ..sample() };
        assert_eq!(StateFile::read(&Disk, &path).unwrap(), Some(expected));
        drop(StateFile::start(&disk(), &path, expected).unwrap());
        let read = StateFile::read(&Disk, &path).unwrap().unwrap();
        assert_eq!(State { generation: 0, ..read }, expected);
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.starts_with(&MAGIC) && bytes[SLOT_STRIDE..].starts_with(&MAGIC));
    }
}
