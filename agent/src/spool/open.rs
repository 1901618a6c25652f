//! Opens a spool: lock, state, what is left in the segments, and whether the disk takes anything at all.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use onenet_proto::seal::ChainHead;

use super::{
    Head, Position,
    disk::{Disk, Filesystem, Lock},
    quarantine::{self, Quarantine},
    record::Header,
    segment::{SEGMENT_HEADER_BYTES, SegmentReader, Step, segment_id, segment_path},
    shared::{Inner, Segment, Shared},
    state::{Start, StartReason, State, StateFile},
    writer::{Writer, reserve_path},
};

/// What an empty spool must be able to write before an agent starts with it.
const PROBE_BYTES: u64 = 1 << 20;

/// How long a lock that is held is waited for, and how often it is tried.
const LOCK_LIMIT: Duration = Duration::from_secs(1);
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// How a spool is to be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// A segment is ended when it has grown to this.
    pub(crate) segment_bytes: u64,
    /// Bytes kept back for a full disk; 0 for none.
    pub(crate) reserve_bytes: u64,
    /// Bytes of damage that are kept at most.
    pub(crate) quarantine_bytes: u64,
}

/// Bytes kept back for a full disk, where the spool is large enough for it.
const RESERVE_BYTES: u64 = 4 << 20;

impl Settings {
    /// For a spool of at most `limit_bytes`: a reserve of 4 MiB, or an eighth of it where that is less, and a sixteenth
    /// for what is damaged.
    pub(crate) fn new(segment_bytes: u64, limit_bytes: u64) -> Self {
        Self {
            segment_bytes,
            reserve_bytes: RESERVE_BYTES.min(limit_bytes / 8),
            quarantine_bytes: limit_bytes / 16,
        }
    }
}

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Another process holds the lock.
    #[error("spool {0} is in use by another agent")]
    InUse(PathBuf),
    /// The directory cannot be used.
    #[error("spool {directory}: cannot {action}: {source}")]
    Io {
        /// The directory.
        directory: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// An open spool.
pub(crate) struct Opened {
    /// Its writer.
    pub(crate) writer: Writer,
    /// Where the chain goes on. A sequence of 0 begins an epoch.
    pub(crate) head: Head,
    /// Why the epoch is a new one, where it is.
    pub(crate) new_epoch: Option<&'static str>,
    /// What the epoch's first batch tells, where that is still to be sealed.
    pub(crate) start: Start,
}

/// The last sound record of a segment, and where it ends.
struct Tail {
    first: Option<Position>,
    last: Option<Header>,
    end: u64,
}

/// Opens the spool in `directory`, made if it is not there. `new_epoch` is the epoch of a chain that begins
/// here, such as the time in milliseconds; it is raised where a greater one is known.
pub(crate) fn open(
    directory: &Path,
    settings: Settings,
    new_epoch: u64,
    filesystem: Arc<dyn Filesystem>,
) -> Result<Opened, OpenError> {
    let fail = |action| move |source| OpenError::Io { directory: directory.to_owned(), action, source };
    filesystem.make_directory(directory).map_err(fail("make the directory"))?;
    let lock = take_lock(&*filesystem, directory)
        .map_err(fail("write"))?
        .ok_or_else(|| OpenError::InUse(directory.to_owned()))?;
    let state_path = directory.join("state");
    let known = StateFile::read(&*filesystem, &state_path).map_err(fail("read the state"))?;
    let had_state_file = filesystem.length(&state_path).is_ok();
    let ids = find_segments(directory, &filesystem, known.as_ref()).map_err(fail("read the segments"))?;
    let inner = Inner {
        segments: index(directory, &*filesystem, &ids).map_err(fail("read the segments"))?,
        quarantine: Quarantine::load(&*filesystem, directory).map_err(fail("read the quarantine"))?,
        ..Inner::default()
    };
    let shared = Arc::new(Shared::new(directory.to_owned(), filesystem.clone(), settings, inner));
    let last = repair_tail(&shared).map_err(fail("repair the last segment"))?;

    let (head, reason, start) = recover_head(known.as_ref(), last.as_ref(), had_state_file, new_epoch);
    let acked = known.map_or_else(ChainHead::default, |state| state.acked);
    let floor = known.map_or(0, |state| state.floor);
    let next_id = ids.last().map_or(1, |id| id.saturating_add(1)).max(floor).max(1);
    let cosigned = known.and_then(|state| state.cosigned);
    let is_empty = {
        let mut inner = shared.lock();
        inner.acked = acked;
        inner.cosigned = cosigned;
        let reserved = filesystem.length(&reserve_path(directory)).unwrap_or_default();
        inner.reserve = if reserved >= settings.reserve_bytes { settings.reserve_bytes } else { 0 };
        inner.segments.is_empty()
    };
    shared.publish(head);
    let generation = known.map_or(0, |state| state.generation);
    let state = State { generation, floor, epoch: head.chain.epoch, head, acked, cosigned, start };
    let state = StateFile::start(&filesystem, &state_path, state).map_err(fail("write the state"))?;
    let mut writer = Writer::new(filesystem.clone(), settings, shared, state, next_id, lock);
    match probe(directory, &filesystem) {
        // Where there is room for the probe there mostly is for the reserve.
        Ok(()) => {
            let _ = writer.take_reserve();
        }
        // What waits can still be delivered, and that makes room.
        Err(error) if !is_empty => tracing::warn!(%error, "the spool's disk takes nothing more"),
        Err(error) => return Err(fail("write")(error)),
    }
    Ok(Opened { writer, head, new_epoch: reason, start })
}

/// Takes the lock. Whoever looks whether an agent runs holds it for a moment, so one that is held is tried again.
fn take_lock(filesystem: &dyn Filesystem, directory: &Path) -> io::Result<Option<Lock>> {
    let begun = Instant::now();
    loop {
        let lock = filesystem.lock(&directory.join("lock"))?;
        if lock.is_some() || begun.elapsed() >= LOCK_LIMIT {
            return Ok(lock);
        }
        std::thread::sleep(LOCK_INTERVAL);
    }
}

/// The segments that count, in order. What the state says is deleted, or was never published, is removed.
fn find_segments(
    directory: &Path,
    filesystem: &Arc<dyn Filesystem>,
    state: Option<&State>,
) -> io::Result<Vec<u64>> {
    let names = filesystem.list(directory)?;
    let mut ids: Vec<u64> = names.iter().filter_map(|name| segment_id(name)).collect();
    ids.sort_unstable();
    let Some(state) = state else { return Ok(ids) };
    let mut kept = Vec::with_capacity(ids.len());
    for id in ids {
        let unpublished = || -> io::Result<bool> {
            let first = first_position(directory, &**filesystem, id)?;
            Ok(first.is_some_and(|first| first.epoch > state.epoch))
        };
        if id < state.floor || unpublished()? {
            filesystem.remove(&segment_path(directory, id))?;
        } else {
            kept.push(id);
        }
    }
    Ok(kept)
}

fn first_position(directory: &Path, filesystem: &dyn Filesystem, id: u64) -> io::Result<Option<Position>> {
    let length = filesystem.length(&segment_path(directory, id))?;
    let mut reader = SegmentReader::open(filesystem, directory, id)?;
    loop {
        match reader.step(length, false)? {
            Step::Record(header, _) => return Ok(Some(header.position)),
            Step::End => return Ok(None),
            Step::BadPayload(_) | Step::Skipped(_) => {}
        }
    }
}

/// Length and first record of each segment.
fn index(directory: &Path, filesystem: &dyn Filesystem, ids: &[u64]) -> io::Result<VecDeque<Segment>> {
    ids.iter()
        .map(|&id| {
            let length = filesystem.length(&segment_path(directory, id))?;
            Ok(Segment { id, length, first: first_position(directory, filesystem, id)?, last: None })
        })
        .collect()
}

fn read_tail(shared: &Shared, segment: &Segment) -> io::Result<(Tail, SegmentReader)> {
    let mut reader = SegmentReader::open(&*shared.filesystem, &shared.directory, segment.id)?;
    let mut tail = Tail { first: None, last: None, end: 0 };
    loop {
        match reader.step(segment.length, true)? {
            Step::Record(header, _) => {
                tail.first.get_or_insert(header.position);
                tail.last = Some(*header);
                tail.end = reader.offset();
            }
            Step::BadPayload(_) | Step::Skipped(_) => {}
            Step::End => return Ok((tail, reader)),
        }
    }
}

/// Cuts what follows the last sound record, after it has been copied to quarantine, and gives that record.
fn repair_tail(shared: &Shared) -> io::Result<Option<Header>> {
    loop {
        let Some(segment) = shared.lock().segments.back().cloned() else { return Ok(None) };
        let (tail, reader) = read_tail(shared, &segment)?;
        let path = segment_path(&shared.directory, segment.id);
        let end = tail.end.max(SEGMENT_HEADER_BYTES as u64);
        let torn = segment.length.saturating_sub(end);
        if torn > 0 {
            quarantine::keep(shared, reader.file(), segment.id, end, segment.length);
            tracing::warn!(segment = segment.id, bytes = torn, "a torn write is cut off the spool");
        }
        if tail.last.is_some() && torn > 0 {
            let mut file = shared.filesystem.open(&path)?;
            file.truncate(end)?;
            file.sync()?;
        }
        if tail.last.is_none() {
            // Made, and the power went before its first record was whole.
            shared.filesystem.remove(&path)?;
        }
        let mut inner = shared.lock();
        inner.damage.torn_bytes = inner.damage.torn_bytes.saturating_add(torn);
        let Some(last) = tail.last else {
            inner.segments.pop_back();
            continue;
        };
        if let Some(segment) = inner.segments.back_mut() {
            segment.length = end;
            segment.first = tail.first;
            segment.last = Some(last.position);
        }
        return Ok(Some(last));
    }
}

/// Where the chain goes on: behind the last batch that is known, or in a new epoch; why it is a new one; and what is
/// known of the chain before.
fn recover_head(
    known: Option<&State>,
    last: Option<&Header>,
    had_state_file: bool,
    new_epoch: u64,
) -> (Head, Option<&'static str>, Start) {
    let from_segments = last.map(|last| Head {
        chain: ChainHead { epoch: last.position.epoch, sequence: last.position.sequence, hash: last.hash },
        mark: last.mark,
    });
    let Some(state) = known else {
        let lost = had_state_file || last.is_some();
        let (reason, text) = if lost {
            (StartReason::StateLost, "the spool's state was lost")
        } else {
            (StartReason::New, "the spool is new")
        };
        let previous = from_segments.map_or_else(ChainHead::default, |head| head.chain);
        let epoch = new_epoch.max(previous.epoch.saturating_add(1));
        let mark = last.map_or_else(Default::default, |last| last.mark);
        let head = Head { chain: ChainHead { epoch, ..ChainHead::default() }, mark };
        return (head, Some(text), Start { reason, previous });
    };
    let later = |head: &Head| Position::from(&head.chain) > Position::from(&state.head.chain);
    (from_segments.filter(later).unwrap_or(state.head), None, state.start)
}

/// Whether the disk takes a few more bytes.
fn probe(directory: &Path, filesystem: &Arc<dyn Filesystem>) -> io::Result<()> {
    let path = directory.join("probe");
    let written = filesystem.open(&path).and_then(|mut file| {
        file.write_at(&[0; 4096], 0)?;
        file.allocate(PROBE_BYTES)?;
        file.sync()
    });
    let removed = match filesystem.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    written.and(removed)
}

/// Opens on the real disk.
pub(crate) fn on_disk() -> Arc<dyn Filesystem> {
    Arc::new(Disk)
}
