//! The spool on a disk that fails: whatever call fails, wherever the power goes, whichever bit flips, nothing that a
//! reader was given or that was called durable is missing afterwards without being told, and nothing is there twice.
//! Sizes are those of a quick run; `ONENET_SOAK=1` takes the full ones.

use std::{path::Path, sync::Arc, time::Instant};

use super::{
    disk::CommitPoint,
    memory::{Fault, MemoryDisk, Plan},
    tests::{append, chain, read_after},
    *,
};

const EPOCH: u64 = 1000;
const SPOOL: &str = "/spool";

fn soak() -> bool {
    std::env::var_os("ONENET_SOAK").is_some()
}

fn settings(reserve_bytes: u64) -> Settings {
    Settings { segment_bytes: 2048, reserve_bytes, quarantine_bytes: 16 << 10 }
}

fn try_open(disk: &MemoryDisk) -> Result<Opened, String> {
    open(Path::new(SPOOL), settings(4096), EPOCH, Arc::new(disk.clone())).map_err(|error| error.to_string())
}

fn opened(disk: &MemoryDisk) -> Opened {
    try_open(disk).unwrap()
}

/// What the test knows of a spool.
#[derive(Clone, Copy, Debug)]
struct Known {
    epoch: u64,
    appended: u64,
    durable: u64,
    /// Acks told to the spool.
    acked: u64,
}

/// A while of an agent's life: batches, flushes, acks, deletion, and once a new epoch. Failures are tried again later.
fn work(disk: &MemoryDisk, opened: &mut Opened, rounds: u64, seed: u64) -> Known {
    let mut random = fastrand::Rng::with_seed(seed);
    let head = opened.head.chain;
    let mut known = Known { epoch: head.epoch, appended: head.sequence, durable: head.sequence, acked: 0 };
    let writer = &mut opened.writer;
    for round in 1..=rounds {
        if disk.killed().is_some() {
            break;
        }
        for _ in 0..random.u64(1..4) {
            known.appended += 1;
            append(writer, known.epoch, known.appended);
        }
        let before = writer.shared().durable();
        if writer.flush().is_ok() {
            known.durable = known.appended;
        } else {
            assert_eq!(writer.shared().durable(), before, "a failed flush publishes nothing");
        }
        if disk.killed().is_some() {
            break;
        }
        if round % 3 == 0 {
            known.acked = random.u64(known.acked..=known.durable);
            writer.shared().acknowledge(chain(known.epoch, known.acked));
            let _ = writer.close();
            known.durable = writer.shared().durable().chain.sequence;
        }
        let _ = writer.take_reserve();
        let read = read_after(writer.shared(), Position { epoch: known.epoch, sequence: known.acked });
        assert_eq!(read, (known.acked + 1..=known.durable).collect::<Vec<_>>(), "round {round}");
    }
    known
}

/// What a spool holds when it is opened again must be what was durable, and what may have become so.
fn check(disk: &MemoryDisk, known: &Known, what: &str) {
    let opened = opened(disk);
    let head = opened.head.chain;
    assert_eq!(head.epoch, known.epoch, "{what}");
    assert!(head.sequence >= known.durable, "{what}: {} of {known:?}", head.sequence);
    assert!(head.sequence <= known.appended, "{what}: {} of {known:?}", head.sequence);
    assert_eq!(head, chain(known.epoch, head.sequence), "{what}");
    let shared = opened.writer.shared();
    let acked = shared.acked().sequence;
    assert!(acked <= known.acked, "{what}: no ack that was not given");
    let read = read_after(shared, Position::from(&shared.acked()));
    assert_eq!(read, (acked + 1..=head.sequence).collect::<Vec<_>>(), "{what}: {known:?}");
}

#[test]
fn whatever_call_fails_nothing_counts_that_is_not_there() {
    let begun = Instant::now();
    let step = if soak() { 1 } else { 9 };
    let mut runs = 0_u64;
    let mut fired = [0_u64; Fault::ALL.len()];
    for (index, fault) in Fault::ALL.into_iter().enumerate() {
        for first in (1..=500).step_by(step) {
            for count in [1, 4, u64::MAX] {
                let disk = MemoryDisk::default();
                drop(opened(&disk));
                let mut spool = opened(&disk);
                disk.plan(Some(Plan { fault, first, count }));
                let known = work(&disk, &mut spool, 60, first ^ count);
                fired[index] += u64::from(!disk.failed().is_empty());
                disk.plan(None);
                drop(spool);
                let what = format!("{fault:?} on call {first} for {count}");
                check(&disk.power_cut(first), &known, &what);
                check(&disk, &known, &what);
                runs += 1;
            }
        }
    }
    assert!(fired.iter().all(|&n| n > 0), "{fired:?}");
    println!("{runs} runs with failing calls (each fault fired in {fired:?}) in {:?}", begun.elapsed());
}

#[test]
fn a_spool_killed_at_any_commit_point_loses_nothing_and_repeats_nothing() {
    let begun = Instant::now();
    let mut reached = 0;
    for point in CommitPoint::ALL {
        let mut kills = 0;
        for seed in 0..50_u64 {
            let disk = MemoryDisk::default();
            drop(opened(&disk));
            let mut spool = opened(&disk);
            disk.kill_at(point, seed % 7 + 1, seed);
            let known = match point {
                CommitPoint::EpochSealed | CommitPoint::EpochNamed | CommitPoint::EpochPublished => {
                    disk.kill_at(point, 1, seed);
                    kill_in_a_new_epoch(&disk, &mut spool, seed);
                    continue;
                }
                CommitPoint::ReserveReleased => {
                    disk.kill_at(point, 1, seed);
                    disk.set_capacity(Some(disk.used() + 3000));
                    work(&disk, &mut spool, 30, seed)
                }
                _ => work(&disk, &mut spool, 40, seed),
            };
            let image = disk.killed().unwrap_or_else(|| panic!("{point:?} is not reached"));
            image.set_capacity(None);
            drop(spool);
            check(&image, &known, &format!("killed at {point:?}, {seed}"));
            kills += 1;
        }
        reached += kills;
    }
    println!("{reached} kills at commit points in {:?}", begun.elapsed());
}

/// Kills while a new epoch is published: the old one holds whole, or the new one does.
fn kill_in_a_new_epoch(disk: &MemoryDisk, spool: &mut Opened, seed: u64) {
    let count = 5 + seed % 20;
    for sequence in 1..=count {
        append(&mut spool.writer, EPOCH, sequence);
        spool.writer.flush().unwrap();
    }
    let floor = spool.writer.begin_epoch().unwrap();
    for sequence in 1..=count {
        append(&mut spool.writer, EPOCH + 5, sequence);
    }
    let _ = spool.writer.publish_epoch(floor, EPOCH + 5, Start::default());
    let image = disk.killed().expect("the point is reached");
    let opened = opened(&image);
    let head = opened.head.chain;
    assert!(head == chain(EPOCH, count) || head == chain(EPOCH + 5, count), "{head:?}");
    let all = read_after(opened.writer.shared(), Position::default());
    assert_eq!(all, (1..=count).collect::<Vec<_>>(), "one epoch, whole and once");
}

#[test]
fn a_single_flipped_bit_is_always_seen_and_costs_at_most_one_record() {
    const LAST: u64 = 12;
    let begun = Instant::now();
    let flips = if soak() { 100_000 } else { 10_000 };
    let sound = MemoryDisk::default();
    let mut spool = opened(&sound);
    for sequence in 1..=LAST {
        append(&mut spool.writer, EPOCH, sequence);
        spool.writer.flush().unwrap();
    }
    spool.writer.shared().acknowledge(chain(EPOCH, 1));
    spool.writer.close().unwrap();
    spool.writer.close().unwrap();
    drop(spool);
    let mut files = sound.files(".segment");
    files.push(Path::new(SPOOL).join("state"));
    let mut random = fastrand::Rng::with_seed(5);
    let (mut lost, mut of_state) = (0_u64, 0_u64);
    for flip in 0..flips {
        let disk = sound.copy();
        let file = &files[random.usize(0..files.len())];
        let is_state = file.ends_with("state");
        let mut at = 0;
        disk.damage(file, |bytes| {
            at = if is_state {
                random.usize(0..512) + 4096 * random.usize(0..2)
            } else {
                random.usize(0..bytes.len())
            };
            bytes[at] ^= 1 << random.u8(0..8);
        });
        let spool = opened(&disk);
        assert_eq!(
            spool.head.chain,
            chain(EPOCH, LAST),
            "flip {flip} in {file:?} at {at}: the chain is known"
        );
        let read = read_after(spool.writer.shared(), Position { epoch: EPOCH, sequence: 1 });
        let damage = spool.writer.shared().damage();
        if is_state || at < 24 {
            // Nothing of a segment's own header is needed to read it.
            assert_eq!(read.len() as u64, LAST - 1, "flip {flip} in {file:?} at {at}");
            of_state += u64::from(is_state);
            continue;
        }
        assert!(
            read.len() as u64 >= LAST - 2 && read.is_sorted(),
            "flip {flip} in {file:?} at {at}: {}",
            read.len()
        );
        if read.len() as u64 == LAST - 1 {
            // Record 1 is acked.
            continue;
        }
        lost += 1;
        assert!(
            damage.records + damage.skipped_bytes + damage.torn_bytes > 0,
            "flip {flip} in {file:?} at {at} is not seen"
        );
        let storage = spool.writer.shared().storage();
        assert!(storage.quarantine_files == 1 && storage.quarantine_bytes > 0, "{storage:?}");
    }
    assert!(lost > flips / 2 && of_state > 0);
    println!(
        "{flips} bits flipped, {of_state} in the state, {lost} records lost and seen, in {:?}",
        begun.elapsed()
    );
}

#[test]
fn an_active_segment_cut_at_any_byte_gives_what_was_whole() {
    let sound = MemoryDisk::default();
    let mut spool = opened(&sound);
    let mut ends = vec![24];
    for sequence in 1..=4 {
        append(&mut spool.writer, EPOCH, sequence);
        spool.writer.flush().unwrap();
        ends.push(spool.writer.shared().used_bytes() - spool.writer.shared().storage().reserve_bytes);
    }
    drop(spool);
    let file = sound.files(".segment").remove(0);
    let length = *ends.last().unwrap();
    for cut in 0..length {
        let disk = sound.copy();
        disk.damage(&file, |bytes| bytes.truncate(usize::try_from(cut).unwrap()));
        let spool = opened(&disk);
        let whole = ends.iter().filter(|&&end| end <= cut).count().saturating_sub(1) as u64;
        assert_eq!(spool.head.chain, chain(EPOCH, whole), "cut at {cut}");
        assert_eq!(read_after(spool.writer.shared(), Position::default()), (1..=whole).collect::<Vec<_>>());
    }
}

#[test]
fn on_a_full_disk_the_reserve_carries_what_must_be_written_and_deletion_makes_room() {
    let disk = MemoryDisk::default();
    let mut spool = opened(&disk);
    let writer = &mut spool.writer;
    assert_eq!(writer.shared().storage().reserve_bytes, 4096);
    let mut sequence = 0;
    for _ in 0..50 {
        disk.set_capacity(Some(disk.used() + 1500));
        let first = sequence + 1;
        while !writer.is_tight() {
            sequence += 1;
            append(writer, EPOCH, sequence);
            writer.flush().unwrap();
        }
        // The disk is full, and this still fits.
        sequence += 1;
        append(writer, EPOCH, sequence);
        writer.flush().unwrap();
        writer.take_reserve().unwrap_err();
        let read = read_after(writer.shared(), Position { epoch: EPOCH, sequence: first - 1 });
        assert_eq!(read, (first..=sequence).collect::<Vec<_>>());
        writer.shared().acknowledge(chain(EPOCH, sequence));
        writer.close().unwrap();
        disk.set_capacity(Some(disk.used() + 8192));
        writer.take_reserve().unwrap();
        assert!(!writer.is_tight());
    }
}

#[test]
fn a_segment_whose_first_fsync_failed_is_kept_and_the_oldest_of_the_quarantine_give_way() {
    let disk = MemoryDisk::default();
    let mut spool = opened(&disk);
    let writer = &mut spool.writer;
    for sequence in 1..=60 {
        append(writer, EPOCH, sequence);
        disk.plan(Some(Plan { fault: Fault::Sync, first: 1, count: 1 }));
        let failed = writer.flush().is_err();
        writer.flush().unwrap();
        disk.plan(None);
        assert!(failed);
        // The next one goes to a segment of its own.
        let _ = writer.begin_epoch();
    }
    let storage = writer.shared().storage();
    assert!(storage.quarantine_files > 1 && storage.quarantine_bytes <= 16 << 10, "{storage:?}");
    assert!(storage.quarantine_dropped > 0);
    assert_eq!(
        disk.files("").iter().filter(|p| p.starts_with("/spool/quarantine")).count() as u64,
        storage.quarantine_files
    );
    assert_eq!(read_after(writer.shared(), Position::default()), (1..=60).collect::<Vec<_>>());
}

#[test]
fn a_new_epoch_outlives_damage_to_either_slot_of_the_state() {
    let sound = MemoryDisk::default();
    let mut spool = opened(&sound);
    append(&mut spool.writer, EPOCH, 1);
    let floor = spool.writer.begin_epoch().unwrap();
    append(&mut spool.writer, EPOCH + 5, 1);
    spool.writer.publish_epoch(floor, EPOCH + 5, Start::default()).unwrap();
    drop(spool);
    for slot in [0, 4096] {
        let disk = sound.copy();
        disk.damage(&Path::new(SPOOL).join("state"), |bytes| bytes[slot + 20] ^= 1);
        assert_eq!(opened(&disk).head.chain, chain(EPOCH + 5, 1), "slot at {slot}");
    }
}
