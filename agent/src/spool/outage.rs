//! The collector was away for 72 hours, and the agent starts with all that has gathered. At the size of a quick run 1 GB,
//! with `ONENET_SOAK=1` 10 GB: sparse files, with real headers, so that neither disk nor memory has to hold it.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use super::{
    record::{HEADER_BYTES, Header},
    segment::{SEGMENT_HEADER_BYTES, segment_header, segment_path},
    *,
};

const EPOCH: u64 = 1000;
const PAYLOAD: usize = 512 << 10;
const SEGMENT: u64 = 8 << 20;
const HOUR: i64 = 3600 * 1_000_000_000;
const MOST_MEMORY_KIB: u64 = 64 << 10;
/// Set in the process that is measured, which runs nothing else.
const CHILD: &str = "ONENET_OUTAGE_DIRECTORY";

fn settings() -> Settings {
    Settings::new(SEGMENT, 16 << 30)
}

/// Writes segments as an agent would have over 72 hours; gives the number of batches.
fn build(directory: &Path, bytes: u64) -> u64 {
    drop(open(directory, settings(), EPOCH, on_disk()).unwrap());
    let batches = bytes / (PAYLOAD + HEADER_BYTES) as u64;
    let payload_crc = crc32c::crc32c(&vec![0; PAYLOAD]);
    let (mut id, mut sequence) = (0, 0);
    while sequence < batches {
        id += 1;
        let file = File::create(segment_path(directory, id)).unwrap();
        file.write_all_at(&segment_header(id), 0).unwrap();
        let mut at = SEGMENT_HEADER_BYTES as u64;
        while at < SEGMENT && sequence < batches {
            sequence += 1;
            let header = Header {
                kind: 1,
                algorithm: 1,
                length: u32::try_from(PAYLOAD).unwrap(),
                records: 2000,
                position: Position { epoch: EPOCH, sequence },
                previous_hash: [0; 32],
                hash: [1; 32],
                sealed_at: 72 * HOUR / i64::try_from(batches).unwrap() * i64::try_from(sequence).unwrap(),
                mark: Mark::default(),
                payload_crc,
            };
            file.write_all_at(&header.encode(), at).unwrap();
            at += header.total_bytes();
        }
        file.set_len(at).unwrap();
    }
    batches
}

/// The most memory that this process ever had, KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn after_72_hours_without_a_collector_the_backlog_starts_at_once_and_drains_oldest_first() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return start_and_drain(Path::new(&directory));
    }
    let directory = tests::scratch();
    let bytes = if std::env::var_os("ONENET_SOAK").is_some() { 10 << 30 } else { 1 << 30 };
    let batches = build(directory.path(), bytes);
    println!("{batches} batches, {} MiB", bytes >> 20);
    let name = std::thread::current().name().unwrap().to_owned();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(CHILD, directory.path())
        .status()
        .unwrap();
    assert!(status.success());
}

fn start_and_drain(directory: &Path) {
    let begun = Instant::now();
    let mut opened = open(directory, settings(), EPOCH, on_disk()).unwrap();
    let (started, memory) = (begun.elapsed(), peak_kib());
    println!("started in {started:?} with {} KiB of memory at most", memory);
    assert!(started <= Duration::from_secs(2), "{started:?}");
    assert!(memory <= MOST_MEMORY_KIB, "{memory} KiB");
    let shared = opened.writer.shared().clone();
    let last = opened.head.chain;
    assert_eq!(last.epoch, EPOCH);
    let oldest = shared.oldest_waiting().unwrap();
    assert!(72 * HOUR - oldest > 71 * HOUR, "the oldest has waited for the whole of it");

    let begun = Instant::now();
    let mut reader = Reader::new(shared.clone());
    let mut expected = 1;
    while let Some(Entry { header, payload }) = reader.next().unwrap() {
        assert_eq!(
            (header.position.sequence, payload.len()),
            (expected, PAYLOAD),
            "oldest first, none left out"
        );
        expected += 1;
        if header.position.sequence.is_multiple_of(16) || header.position.sequence == last.sequence {
            shared.acknowledge(ChainHead { sequence: header.position.sequence, hash: header.hash, ..last });
            opened.writer.tidy().unwrap();
        }
    }
    assert_eq!(expected, last.sequence + 1);
    assert!(shared.all_acked());
    opened.writer.close().unwrap();
    assert!(shared.storage().segments <= 1, "what is acked is deleted");
    let memory = peak_kib();
    println!("drained in {:?}, {memory} KiB of memory at most", begun.elapsed());
    assert!(memory <= MOST_MEMORY_KIB, "{memory} KiB");
}
