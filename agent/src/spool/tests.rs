//! The spool against a model: whatever is appended, flushed, acknowledged, killed, torn, flipped or refused by
//! the disk, what was durable and not acknowledged comes back whole and in order.

use std::{path::Path, sync::Arc};

use proptest::prelude::*;

use super::{
    disk::*,
    memory::{Fault, MemoryDisk, Plan},
    *,
};

const EPOCH: u64 = 1000;

/// A directory in memory where there is one, because every step here waits for the disk.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn settings() -> Settings {
    Settings { segment_bytes: 2048, reserve_bytes: 0, quarantine_bytes: 64 << 10 }
}

fn open_at(directory: &Path, filesystem: Arc<dyn Filesystem>) -> Opened {
    open(directory, settings(), EPOCH, filesystem).expect("the spool opens")
}

fn open_on_disk(directory: &Path) -> Opened {
    open_at(directory, Arc::new(Disk))
}

pub(super) fn chain(epoch: u64, sequence: u64) -> ChainHead {
    let byte = u8::try_from(sequence % 251).unwrap();
    ChainHead { epoch, sequence, hash: if sequence == 0 { [0; 32] } else { [byte; 32] } }
}

fn payload(sequence: u64) -> Vec<u8> {
    let length = usize::try_from(sequence * 7919 % 700).unwrap();
    let byte = u8::try_from(sequence % 256).unwrap();
    vec![byte; length]
}

pub(super) fn append(writer: &mut Writer, epoch: u64, sequence: u64) {
    writer.append(&Batch {
        payload: &payload(sequence),
        kind: 1,
        algorithm: 1,
        records: 1,
        previous_hash: chain(epoch, sequence - 1).hash,
        chain: chain(epoch, sequence),
        sealed_at: i64::try_from(sequence).unwrap(),
        mark: Mark { run: 5, run_records: sequence, ..Mark::default() },
    });
}

pub(super) fn read_after(shared: &Arc<Shared>, after: Position) -> Vec<u64> {
    let mut reader = Reader::new(shared.clone());
    reader.seek(after);
    let mut sequences = Vec::new();
    while let Some(entry) = reader.next().expect("the spool reads") {
        assert_eq!(entry.payload, payload(entry.header.position.sequence), "{:?}", entry.header.position);
        sequences.push(entry.header.position.sequence);
    }
    sequences
}

fn waiting(opened: &Opened) -> Vec<u64> {
    let shared = opened.writer.shared();
    read_after(shared, Position::from(&shared.acked()))
}

/// What a spool must hold.
struct Model {
    directory: tempfile::TempDir,
    opened: Option<Opened>,
    epoch: u64,
    appended: u64,
    durable: u64,
    acked: u64,
    /// What the state file may not know yet after a kill.
    acked_in_memory: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    Flush,
    Ack(u8),
    Tidy,
    Kill,
    Tear(prop::sample::Index),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6_u8).prop_map(Step::Append),
        3 => Just(Step::Flush),
        2 => (0..=100_u8).prop_map(Step::Ack),
        2 => Just(Step::Tidy),
        1 => Just(Step::Kill),
        1 => any::<prop::sample::Index>().prop_map(Step::Tear),
        1 => Just(Step::Close),
    ]
}

impl Model {
    fn new() -> Self {
        let directory = scratch();
        let opened = open_on_disk(directory.path());
        let epoch = opened.head.chain.epoch;
        let opened = Some(opened);
        Self { directory, opened, epoch, appended: 0, durable: 0, acked: 0, acked_in_memory: 0 }
    }

    fn writer(&mut self) -> &mut Writer {
        &mut self.opened.as_mut().unwrap().writer
    }

    fn last_segment(&self) -> Option<(std::path::PathBuf, u64)> {
        let files = std::fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let last = files.filter(|path| path.extension().is_some_and(|e| e == "segment")).max()?;
        let length = std::fs::metadata(&last).unwrap().len();
        Some((last, length))
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Append(count) => {
                for _ in 0..*count {
                    self.appended += 1;
                    let (epoch, sequence) = (self.epoch, self.appended);
                    append(self.writer(), epoch, sequence);
                }
            }
            Step::Flush => {
                self.writer().flush().unwrap();
                self.durable = self.appended;
            }
            Step::Ack(percent) => {
                let sequence = self.durable * u64::from(*percent) / 100;
                self.acked_in_memory = self.acked_in_memory.max(sequence);
                let head = chain(self.epoch, sequence);
                self.writer().shared().acknowledge(head);
            }
            Step::Tidy => self.writer().tidy().unwrap(),
            Step::Kill => self.reopen(self.durable),
            Step::Tear(index) => {
                // Killed while the last write was on its way to the disk: any part of it may have arrived.
                let before = self.last_segment();
                self.writer().flush().unwrap();
                let Some((path, length)) = self.last_segment() else { return };
                let old: u64 = before.filter(|(old, _)| *old == path).map_or(0, |(_, length)| length);
                if length > old {
                    let cut = old + index.index(usize::try_from(length - old).unwrap()) as u64;
                    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
                }
                self.reopen(self.durable);
            }
            Step::Close => {
                self.writer().close().unwrap();
                self.durable = self.appended;
                self.acked = self.acked_in_memory;
                self.reopen(self.durable);
            }
        }
    }

    fn reopen(&mut self, at_least: u64) {
        self.opened = None;
        let opened = open_on_disk(self.directory.path());
        let head = opened.head;
        let (sequence, acked) = (head.chain.sequence, opened.writer.shared().acked().sequence);
        assert_eq!(head.chain, chain(self.epoch, sequence), "the chain goes on in its epoch");
        assert_eq!(head.mark.run_records, sequence, "the mark belongs to the head");
        assert!(sequence >= at_least && sequence <= self.appended, "{sequence} of {at_least}");
        assert!(acked >= self.acked && acked <= self.acked_in_memory);
        assert_eq!(waiting(&opened), (acked + 1..=sequence).collect::<Vec<_>>());
        self.opened = Some(opened);
        (self.appended, self.durable) = (sequence, sequence);
        (self.acked, self.acked_in_memory) = (acked, acked);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_was_durable_and_not_acknowledged_comes_back(steps in prop::collection::vec(step(), 1..60)) {
        let mut model = Model::new();
        for step in &steps {
            model.apply(step);
        }
        model.apply(&Step::Kill);
    }

    #[test]
    fn a_flipped_bit_costs_at_most_one_record(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let directory = scratch();
        let mut opened = open_on_disk(directory.path());
        let epoch = opened.head.chain.epoch;
        for sequence in 1..=20 {
            append(&mut opened.writer, epoch, sequence);
            opened.writer.flush().unwrap();
        }
        drop(opened);
        let files = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == "segment")).collect();
        let file = at.get(&files);
        let mut bytes = std::fs::read(file).unwrap();
        let byte = 24 + at.index(bytes.len() - 24);
        bytes[byte] ^= 1 << bit;
        std::fs::write(file, bytes).unwrap();
        let opened = open_on_disk(directory.path());
        let read = waiting(&opened);
        let damage = opened.writer.shared().damage();
        prop_assert_eq!(read.len(), 19);
        prop_assert!(read.is_sorted());
        prop_assert!(damage.records > 0 || damage.skipped_bytes > 0 || damage.torn_bytes > 0);
    }
}

#[test]
fn nothing_is_readable_before_its_fsync() {
    let directory = scratch();
    let mut opened = open_on_disk(directory.path());
    let epoch = opened.head.chain.epoch;
    append(&mut opened.writer, epoch, 1);
    assert_eq!(waiting(&opened), Vec::<u64>::new());
    assert!(opened.writer.pending_bytes() > 0 && opened.writer.pending_age().is_some());
    opened.writer.flush().unwrap();
    assert_eq!(waiting(&opened), [1]);
    assert_eq!(opened.writer.shared().oldest_waiting(), Some(1));
    opened.writer.shared().acknowledge(chain(epoch, 1));
    assert!(opened.writer.shared().all_acked());
    assert_eq!(opened.writer.shared().oldest_waiting(), None);
}

#[test]
fn acknowledged_segments_are_deleted_and_the_chain_goes_on_over_a_restart() {
    let directory = scratch();
    let mut opened = open_on_disk(directory.path());
    let epoch = opened.head.chain.epoch;
    assert_eq!(epoch, EPOCH);
    for sequence in 1..=40 {
        append(&mut opened.writer, epoch, sequence);
        opened.writer.flush().unwrap();
    }
    let full = opened.writer.used_bytes();
    assert!(full > 10_000);
    opened.writer.shared().acknowledge(chain(epoch, 40));
    opened.writer.close().unwrap();
    assert!(opened.writer.used_bytes() < 4096, "only the segment in use is left");
    drop(opened);
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|e| e == "segment") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let opened = open_on_disk(directory.path());
    assert_eq!(opened.head.chain, chain(epoch, 40), "the state remembers what no segment does");
    assert_eq!(opened.new_epoch, None);
}

#[test]
fn a_lost_state_begins_a_greater_epoch_and_keeps_what_waits() {
    let directory = scratch();
    let mut opened = open_on_disk(directory.path());
    for sequence in 1..=3 {
        append(&mut opened.writer, EPOCH, sequence);
    }
    opened.writer.flush().unwrap();
    drop(opened);
    std::fs::write(directory.path().join("state"), b"rubbish").unwrap();
    let opened = open_on_disk(directory.path());
    assert!(opened.new_epoch.is_some());
    assert_eq!(opened.head.chain, ChainHead { epoch: EPOCH + 1, ..ChainHead::default() });
    assert_eq!(opened.head.mark.run_records, 3);
    assert_eq!(waiting(&opened), [1, 2, 3]);
}

#[test]
fn an_epoch_that_was_not_published_leaves_no_trace() {
    let directory = scratch();
    let mut opened = open_on_disk(directory.path());
    append(&mut opened.writer, EPOCH, 1);
    let floor = opened.writer.begin_epoch().unwrap();
    append(&mut opened.writer, EPOCH + 5, 1);
    opened.writer.flush().unwrap();
    drop(opened);
    let mut opened = open_on_disk(directory.path());
    assert_eq!(opened.head.chain, chain(EPOCH, 1));
    assert_eq!(waiting(&opened), [1]);

    let again = opened.writer.begin_epoch().unwrap();
    assert!(again >= floor);
    append(&mut opened.writer, EPOCH + 5, 1);
    append(&mut opened.writer, EPOCH + 5, 2);
    opened.writer.publish_epoch(again, EPOCH + 5, Start::default()).unwrap();
    assert_eq!(waiting(&opened), [1, 2]);
    drop(opened);
    let opened = open_on_disk(directory.path());
    assert_eq!(opened.head.chain, chain(EPOCH + 5, 2));
    assert_eq!(waiting(&opened), [1, 2]);
}

#[test]
fn a_spool_has_one_agent_and_its_files_one_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = scratch();
    let path = directory.path().join("spool");
    let mut opened = open_on_disk(&path);
    append(&mut opened.writer, EPOCH, 1);
    opened.writer.flush().unwrap();
    let again = open(&path, settings(), EPOCH, Arc::new(Disk)).err().unwrap();
    assert_eq!(again.to_string(), format!("spool {} is in use by another agent", path.display()));
    for file in std::fs::read_dir(&path).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_place_that_cannot_be_written_is_refused_with_the_reason() {
    let directory = scratch();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = open(&file.join("spool"), settings(), EPOCH, Arc::new(Disk)).err().unwrap().to_string();
    assert!(error.contains("cannot make the directory: Not a directory"), "{error}");

    let full = MemoryDisk::default();
    full.plan(Some(Plan { fault: Fault::Full, first: 1, count: u64::MAX }));
    let error = open(directory.path(), settings(), EPOCH, Arc::new(full)).err().unwrap().to_string();
    assert!(error.contains("cannot write"), "{error}");
}

#[test]
fn somebody_who_looks_whether_an_agent_runs_keeps_none_from_starting() {
    use nix::fcntl::{Flock, FlockArg};
    let directory = scratch();
    drop(open_on_disk(directory.path()));
    let file = std::fs::File::open(directory.path().join("lock")).unwrap();
    let look = Flock::lock(file, FlockArg::LockShared).unwrap();
    let looking = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        drop(look);
    });
    open_on_disk(directory.path());
    looking.join().unwrap();
}
