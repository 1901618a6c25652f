//! The state file: what must be known of the chain and the acks when every segment has been deleted. Two slots
//! are written in turn, in place, so that one of them is whole whatever happens to the other, and so that a full
//! disk can still record a deletion.

use std::{
    io,
    path::{Path, PathBuf},
};

use onenet_proto::seal::ChainHead;

use super::{
    Head,
    disk::{Filesystem, WriteFile},
    record::{Cursor, Fields},
};

const MAGIC: [u8; 8] = *b"ONSTATE1";
/// Distance of the slots: two slots never share a sector.
const SLOT_STRIDE: usize = 4096;
const SLOT_BYTES: usize = 192;

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
}

impl State {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        let mut fields = Fields::new(&mut bytes);
        fields.put(&MAGIC);
        for value in [self.generation, self.floor, self.epoch] {
            fields.put(&value.to_le_bytes());
        }
        for chain in [&self.head.chain, &self.acked] {
            fields.put(&chain.epoch.to_le_bytes()).put(&chain.sequence.to_le_bytes()).put(&chain.hash);
        }
        self.head.mark.write(&mut fields);
        let crc = crc32c::crc32c(&bytes[..SLOT_BYTES - 4]);
        bytes[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (covered, crc) = bytes.get(..SLOT_BYTES)?.split_last_chunk::<4>()?;
        if !covered.starts_with(&MAGIC) || crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut cursor = Cursor::new(&covered[MAGIC.len()..]);
        let (generation, floor, epoch) = (cursor.u64(), cursor.u64(), cursor.u64());
        let chain = |cursor: &mut Cursor<'_>| {
            let position = cursor.position();
            ChainHead { epoch: position.epoch, sequence: position.sequence, hash: cursor.take() }
        };
        let (head, acked) = (chain(&mut cursor), chain(&mut cursor));
        Some(Self { generation, floor, epoch, head: Head { chain: head, mark: cursor.mark() }, acked })
    }
}

/// The state file, open for writing.
pub(super) struct StateFile {
    file: Box<dyn WriteFile>,
    state: State,
    path: PathBuf,
}

impl StateFile {
    /// Reads the state, none where there is none or no slot is sound.
    pub(super) fn read(path: &Path) -> io::Result<Option<State>> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let slots = [0, SLOT_STRIDE].map(|at| bytes.get(at..).and_then(State::decode));
        Ok(slots.into_iter().flatten().max_by_key(|state| state.generation))
    }

    /// Opens the file for writing and writes `state` durably into it.
    pub(super) fn start(filesystem: &dyn Filesystem, path: &Path, state: State) -> io::Result<Self> {
        let file = filesystem.open(path)?;
        let mut opened = Self { file, state, path: path.to_owned() };
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
        self.file.sync()?;
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::disk::Disk, *};

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
            ..State::default()
        }
    }

    #[test]
    fn the_state_reads_back_and_a_torn_write_leaves_the_one_before() {
        let dir = super::super::tests::scratch();
        let path = dir.path().join("state");
        assert_eq!(StateFile::read(&path).unwrap(), None);
        let mut file = StateFile::start(&Disk, &path, sample()).unwrap();
        file.write(|state| state.floor = 5).unwrap();
        let before = *file.state();
        file.write(|state| state.floor = 6).unwrap();
        let last = *file.state();
        assert_eq!(StateFile::read(&path).unwrap(), Some(last));
        let sound = std::fs::read(&path).unwrap();
        let slot = if last.generation.is_multiple_of(2) { 0 } else { SLOT_STRIDE };
        for bit in 0..SLOT_BYTES * 8 {
            let mut torn = sound.clone();
            torn[slot + bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, torn).unwrap();
            assert_eq!(StateFile::read(&path).unwrap(), Some(before), "bit {bit}");
        }
    }

    #[test]
    fn a_state_is_laid_out_as_documented() {
        let bytes = sample().encode();
        assert_eq!(bytes[..8], *b"ONSTATE1");
        assert_eq!(bytes[16..24], 4_u64.to_le_bytes(), "floor");
        assert_eq!(bytes[24..32], 11_u64.to_le_bytes(), "epoch");
        assert_eq!(bytes[40..48], 90_u64.to_le_bytes(), "head sequence");
        assert_eq!(bytes[80..88], 11_u64.to_le_bytes(), "acked epoch");
        assert_eq!(bytes[128..136], 1_u64.to_le_bytes(), "run");
    }
}
