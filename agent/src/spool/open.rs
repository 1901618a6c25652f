//! Opens a spool: lock, state, what is left in the segments, and whether the disk takes anything at all.

use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::fcntl::{Flock, FlockArg};
use onenet_proto::seal::ChainHead;

use super::{
    Head, Position,
    disk::{Disk, Filesystem},
    record::Header,
    segment::{SEGMENT_HEADER_BYTES, SegmentReader, Step, segment_id, segment_path},
    shared::{Inner, Segment, Shared},
    state::{Start, StartReason, State, StateFile},
    writer::Writer,
};

/// What an empty spool must be able to write before an agent starts with it.
const PROBE_BYTES: usize = 1 << 20;

/// How a spool is to be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// A segment is ended when it has grown to this.
    pub(crate) segment_bytes: u64,
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
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(fail("make the directory"))?;
    let lock = lock(directory)?;
    let state_path = directory.join("state");
    let known = StateFile::read(&state_path).map_err(fail("read the state"))?;
    let had_state_file = state_path.exists();
    let mut inner = Inner::default();
    let ids = find_segments(directory, &filesystem, known.as_ref()).map_err(fail("read the segments"))?;
    inner.segments = index(directory, &ids).map_err(fail("read the segments"))?;
    let last = repair_tail(directory, &filesystem, &mut inner).map_err(fail("repair the last segment"))?;

    let (head, reason, start) = recover_head(known.as_ref(), last.as_ref(), had_state_file, new_epoch);
    let acked = known.map_or_else(ChainHead::default, |state| state.acked);
    let floor = known.map_or(0, |state| state.floor);
    let next_id = ids.last().map_or(1, |id| id.saturating_add(1)).max(floor).max(1);
    let is_empty = inner.segments.is_empty();
    inner.durable = head;
    inner.acked = acked;
    let cosigned = known.and_then(|state| state.cosigned);
    inner.cosigned = cosigned;
    let generation = known.map_or(0, |state| state.generation);
    let state = State { generation, floor, epoch: head.chain.epoch, head, acked, cosigned, start };
    let state = StateFile::start(&*filesystem, &state_path, state).map_err(fail("write the state"))?;
    match probe(directory, &filesystem) {
        Ok(()) => {}
        // What waits can still be delivered, and that makes room.
        Err(error) if !is_empty => tracing::warn!(%error, "the spool's disk takes nothing more"),
        Err(error) => return Err(fail("write")(error)),
    }
    let shared = Arc::new(Shared::new(directory.to_owned(), inner));
    let writer = Writer::new(filesystem, settings, shared, state, next_id, lock);
    Ok(Opened { writer, head, new_epoch: reason, start })
}

fn lock(directory: &Path) -> Result<Flock<fs::File>, OpenError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(directory.join("lock"))
        .map_err(|source| OpenError::Io { directory: directory.to_owned(), action: "write", source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => OpenError::InUse(directory.to_owned()),
        errno => OpenError::Io { directory: directory.to_owned(), action: "lock", source: errno.into() },
    })
}

/// The segments that count, in order. What the state says is deleted, or was never published, is removed.
fn find_segments(
    directory: &Path,
    filesystem: &Arc<dyn Filesystem>,
    state: Option<&State>,
) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(directory)? {
        ids.extend(entry?.file_name().to_str().and_then(segment_id));
    }
    ids.sort_unstable();
    let Some(state) = state else { return Ok(ids) };
    let mut kept = Vec::with_capacity(ids.len());
    for id in ids {
        let unpublished = || -> io::Result<bool> {
            let first = first_position(directory, id)?;
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

fn first_position(directory: &Path, id: u64) -> io::Result<Option<Position>> {
    let length = fs::metadata(segment_path(directory, id))?.len();
    let mut reader = SegmentReader::open(directory, id)?;
    loop {
        match reader.step(length, false)? {
            Step::Record(header, _) => return Ok(Some(header.position)),
            Step::End => return Ok(None),
            Step::BadPayload(_) | Step::Skipped(_) => {}
        }
    }
}

/// Length and first record of each segment.
fn index(directory: &Path, ids: &[u64]) -> io::Result<VecDeque<Segment>> {
    ids.iter()
        .map(|&id| {
            let length = fs::metadata(segment_path(directory, id))?.len();
            Ok(Segment { id, length, first: first_position(directory, id)?, last: None })
        })
        .collect()
}

fn read_tail(directory: &Path, segment: &Segment) -> io::Result<Tail> {
    let mut reader = SegmentReader::open(directory, segment.id)?;
    let mut tail = Tail { first: None, last: None, end: 0 };
    loop {
        match reader.step(segment.length, true)? {
            Step::Record(header, _) => {
                tail.first.get_or_insert(header.position);
                tail.last = Some(*header);
                tail.end = reader.offset();
            }
            Step::BadPayload(_) | Step::Skipped(_) => {}
            Step::End => return Ok(tail),
        }
    }
}

/// Cuts what follows the last sound record, which was never durable, and gives that record.
fn repair_tail(
    directory: &Path,
    filesystem: &Arc<dyn Filesystem>,
    inner: &mut Inner,
) -> io::Result<Option<Header>> {
    while let Some(segment) = inner.segments.back_mut() {
        let tail = read_tail(directory, segment)?;
        let path = segment_path(directory, segment.id);
        let torn = segment.length.saturating_sub(tail.end.max(SEGMENT_HEADER_BYTES as u64));
        inner.damage.torn_bytes = inner.damage.torn_bytes.saturating_add(torn);
        if let Some(last) = tail.last {
            if torn > 0 {
                let mut file = filesystem.open(&path)?;
                file.truncate(tail.end)?;
                file.sync()?;
                tracing::warn!(segment = segment.id, bytes = torn, "a torn write was cut off the spool");
            }
            segment.length = tail.end;
            segment.first = tail.first;
            segment.last = Some(last.position);
            return Ok(Some(last));
        }
        // Made, and the power went before its first record was whole.
        filesystem.remove(&path)?;
        inner.segments.pop_back();
    }
    Ok(None)
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
        file.write_at(&vec![0; PROBE_BYTES], 0)?;
        file.sync()
    });
    let removed = match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    written.and(removed)
}

/// Opens on the real disk.
pub(crate) fn on_disk() -> Arc<dyn Filesystem> {
    Arc::new(Disk)
}
