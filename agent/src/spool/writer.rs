//! The one writer of a spool: records wait in memory, go to disk together, and count once they are durable.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use onenet_proto::seal::ChainHead;

use super::{
    Head, Mark, Position,
    disk::{CommitPoint, Filesystem, Lock, WriteFile, is_full},
    open::Settings,
    quarantine,
    record::Header,
    segment::{SEGMENT_HEADER_BYTES, SegmentReader, Step, segment_header, segment_path},
    shared::{Segment, Shared},
    state::{Start, StateFile},
};

/// The shortest time between two writes of the state that only record acks.
const STATE_INTERVAL: Duration = Duration::from_millis(200);

/// A sealed batch to be stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    /// The encoded `SealedBatch`, at most [`MAX_PAYLOAD`](super::record::MAX_PAYLOAD) bytes.
    pub(crate) payload: &'a [u8],
    /// Kind on the wire.
    pub(crate) kind: u8,
    /// Algorithm on the wire.
    pub(crate) algorithm: u16,
    /// Flows + observations + findings in it.
    pub(crate) records: u32,
    /// Hash of the batch before.
    pub(crate) previous_hash: [u8; 32],
    /// Identity and hash.
    pub(crate) chain: ChainHead,
    /// When sealed, nanoseconds since the Unix epoch.
    pub(crate) sealed_at: i64,
    /// How far the records have got with it.
    pub(crate) mark: Mark,
}

/// The segment that is being written.
struct Active {
    file: Box<dyn WriteFile>,
    path: PathBuf,
    id: u64,
    /// Durable bytes.
    length: u64,
}

/// Records that are not durable yet.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    first: Option<Position>,
    last: Head,
    since: Option<Instant>,
}

/// The writer.
pub(crate) struct Writer {
    filesystem: Arc<dyn Filesystem>,
    settings: Settings,
    shared: Arc<Shared>,
    state: StateFile,
    active: Option<Active>,
    pending: Pending,
    next_id: u64,
    state_written: Option<Instant>,
    /// The head is to be written down too.
    closing: bool,
    _lock: Lock,
}

impl Writer {
    pub(super) fn new(
        filesystem: Arc<dyn Filesystem>,
        settings: Settings,
        shared: Arc<Shared>,
        state: StateFile,
        next_id: u64,
        lock: Lock,
    ) -> Self {
        let pending = Pending::default();
        let state_written = None;
        Self {
            filesystem,
            settings,
            shared,
            state,
            active: None,
            pending,
            next_id,
            state_written,
            closing: false,
            _lock: lock,
        }
    }

    /// The account that readers share.
    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Takes a batch; it is durable after the next [`Writer::flush`] that succeeds.
    pub(crate) fn append(&mut self, batch: &Batch<'_>) {
        let position = Position::from(&batch.chain);
        let header = Header {
            kind: batch.kind,
            algorithm: batch.algorithm,
            length: u32::try_from(batch.payload.len()).unwrap_or(u32::MAX),
            records: batch.records,
            position,
            previous_hash: batch.previous_hash,
            hash: batch.chain.hash,
            sealed_at: batch.sealed_at,
            mark: batch.mark,
            payload_crc: crc32c::crc32c(batch.payload),
        };
        self.pending.bytes.extend_from_slice(&header.encode());
        self.pending.bytes.extend_from_slice(batch.payload);
        self.pending.first.get_or_insert(position);
        self.pending.last = Head { chain: batch.chain, mark: batch.mark };
        self.pending.since.get_or_insert_with(Instant::now);
    }

    /// Bytes that are not durable yet.
    pub(crate) const fn pending_bytes(&self) -> u64 {
        self.pending.bytes.len() as u64
    }

    /// How long the oldest of them has waited.
    pub(crate) fn pending_age(&self) -> Option<Duration> {
        self.pending.since.map(|since| since.elapsed())
    }

    /// Bytes on disk and waiting for it.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.shared.used_bytes().saturating_add(self.pending_bytes())
    }

    /// Makes everything taken so far durable. On failure nothing of it counts; it is kept and goes to a new
    /// segment with the next call.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(first) = self.pending.first else { return Ok(()) };
        let mut written = self.write_or_leave();
        if written.as_ref().is_err_and(is_full) && self.release_reserve() {
            written = self.write_or_leave();
        }
        match written {
            Ok(()) => {
                let head = self.pending.last;
                self.enter(first, Position::from(&head.chain));
                self.pending =
                    Pending { bytes: std::mem::take(&mut self.pending.bytes), ..Pending::default() };
                self.pending.bytes.clear();
                self.filesystem.reached(CommitPoint::Synced);
                self.shared.publish(head);
                self.filesystem.reached(CommitPoint::Published);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Writes, and leaves the segment where that fails.
    fn write_or_leave(&mut self) -> io::Result<()> {
        let written = self.write_pending();
        if let Err(error) = &written {
            self.abandon(is_full(error));
        }
        written
    }

    /// Gives the reserve back to a full disk; false where there is none, or it cannot be.
    fn release_reserve(&mut self) -> bool {
        if self.shared.lock().reserve == 0 {
            return false;
        }
        let path = reserve_path(&self.shared.directory);
        let released = self
            .filesystem
            .remove(&path)
            .and_then(|()| self.filesystem.sync_directory(&self.shared.directory));
        match released {
            Ok(()) => {
                tracing::warn!(
                    "the spool's disk is full: its reserve is given back for heartbeats, losses and deletion"
                );
                self.shared.lock().reserve = 0;
                self.filesystem.reached(CommitPoint::ReserveReleased);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the reserve cannot be given back");
                false
            }
        }
    }

    /// Whether the disk is too full for anything that can be done without.
    pub(crate) fn is_tight(&self) -> bool {
        self.settings.reserve_bytes > 0 && self.shared.lock().reserve == 0
    }

    /// Takes the reserve (again), where there is room for it.
    pub(crate) fn take_reserve(&mut self) -> io::Result<()> {
        if !self.is_tight() {
            return Ok(());
        }
        let path = reserve_path(&self.shared.directory);
        let bytes = self.settings.reserve_bytes;
        let taken = self.filesystem.open(&path).and_then(|mut file| {
            file.allocate(bytes)?;
            file.sync()?;
            self.filesystem.sync_directory(&self.shared.directory)
        });
        if taken.is_err() {
            // A part of it would only keep room from others.
            let _ = self.filesystem.remove(&path);
        } else {
            self.shared.lock().reserve = bytes;
        }
        taken
    }

    fn write_pending(&mut self) -> io::Result<()> {
        self.end_full_segment();
        let directory = &self.shared.directory;
        let active = match &mut self.active {
            Some(active) => active,
            none => {
                let id = self.next_id;
                let path = segment_path(directory, id);
                let file = self.filesystem.create(&path)?;
                self.filesystem.reached(CommitPoint::SegmentCreated);
                // The number is spent, whatever becomes of the file.
                self.next_id = id.saturating_add(1);
                none.insert(Active { file, path, id, length: 0 })
            }
        };
        let fresh = active.length == 0;
        let mut end = active.length;
        if fresh {
            active.file.write_at(&segment_header(active.id), 0)?;
            end = SEGMENT_HEADER_BYTES as u64;
        }
        active.file.write_at(&self.pending.bytes, end)?;
        self.filesystem.reached(CommitPoint::Written);
        active.file.sync()?;
        if fresh {
            self.filesystem.sync_directory(directory)?;
        }
        active.length = end.saturating_add(self.pending.bytes.len() as u64);
        Ok(())
    }

    /// Leaves a segment that has grown to its size, so that it can be deleted.
    fn end_full_segment(&mut self) {
        if self.active.as_ref().is_some_and(|active| active.length >= self.settings.segment_bytes) {
            self.active = None;
        }
    }

    /// Enters what has become durable into the account.
    fn enter(&self, first: Position, last: Position) {
        let Some(active) = &self.active else { return };
        let mut inner = self.shared.lock();
        match inner.segments.back_mut().filter(|segment| segment.id == active.id) {
            Some(segment) => {
                segment.length = active.length;
                segment.last = Some(last);
            }
            None => inner.segments.push_back(Segment {
                id: active.id,
                length: active.length,
                first: Some(first),
                last: Some(last),
            }),
        }
    }

    /// Leaves a segment whose last write failed, cut back to what was durable as far as the disk still allows. A segment
    /// that holds nothing durable goes to quarantine, or away where the disk is full.
    fn abandon(&mut self, full: bool) {
        let Some(mut active) = self.active.take() else { return };
        if active.length > 0 {
            if let Err(error) = active.file.truncate(active.length) {
                tracing::warn!(segment = active.id, %error, "cannot cut a failed write off its segment");
            }
            return;
        }
        let bytes = self.filesystem.length(&active.path).unwrap_or_default();
        if (full || !quarantine::keep_segment(&self.shared, active.id, bytes))
            && let Err(error) = self.filesystem.remove(&active.path)
        {
            tracing::warn!(segment = active.id, %error, "cannot remove a segment that holds nothing");
        }
    }

    /// Records what was acknowledged and deletes the segments that nobody needs any more.
    pub(crate) fn tidy(&mut self) -> io::Result<()> {
        self.end_full_segment();
        let floor = self.first_needed()?;
        let (acked, durable, cosigned) = (self.shared.acked(), self.shared.durable(), self.shared.cosigned());
        let state = self.state.state();
        let frees = floor > state.floor && self.shared.lock().segments.front().is_some_and(|s| s.id < floor);
        let due = self.state_written.is_none_or(|at| at.elapsed() >= STATE_INTERVAL);
        let news =
            state.acked != acked || state.cosigned != cosigned || (self.closing && state.head != durable);
        if frees || (news && due) {
            let write = |file: &mut StateFile| {
                file.write(|state| {
                    state.floor = state.floor.max(floor);
                    state.acked = acked;
                    state.cosigned = cosigned;
                    state.head = durable;
                })
            };
            if let Err(error) = write(&mut self.state) {
                if !(is_full(&error) && self.release_reserve()) {
                    return Err(error);
                }
                write(&mut self.state)?;
            }
            self.filesystem.reached(CommitPoint::StateSynced);
            self.state_written = Some(Instant::now());
        }
        self.delete_below_floor()
    }

    /// Writes the acks down whatever the interval says; for the end of a run.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.flush()?;
        self.state_written = None;
        self.closing = true;
        self.tidy()
    }

    /// Goes back to what the collector holds: its ack counts as the last, and the head that it cosigned is given up.
    /// Durable on return.
    pub(crate) fn set_back(&mut self, held: &ChainHead) -> io::Result<()> {
        let held = if Position::from(&self.shared.acked()) < Position::from(held) {
            self.shared.acked()
        } else {
            *held
        };
        self.state.write(|state| {
            state.acked = held;
            state.cosigned = None;
        })?;
        self.shared.set_back(held);
        Ok(())
    }

    /// The first segment that holds anything not acknowledged, or is still written to.
    fn first_needed(&self) -> io::Result<u64> {
        let mut floor = self.state.state().floor;
        loop {
            let (segment, acked) = {
                let inner = self.shared.lock();
                (inner.segments.iter().find(|s| s.id >= floor).cloned(), Position::from(&inner.acked))
            };
            let Some(segment) = segment else { return Ok(floor) };
            if self.active.as_ref().is_some_and(|active| active.id == segment.id)
                || segment.first.is_some_and(|first| first > acked)
            {
                return Ok(segment.id);
            }
            let last = match segment.last {
                Some(last) => Some(last),
                None => self.find_last(&segment)?,
            };
            if last.is_some_and(|last| last > acked) {
                return Ok(segment.id);
            }
            floor = segment.id.saturating_add(1);
        }
    }

    /// The last record of a segment from before this start.
    fn find_last(&self, segment: &Segment) -> io::Result<Option<Position>> {
        let mut reader = SegmentReader::open(&*self.filesystem, &self.shared.directory, segment.id)?;
        let mut last = None;
        loop {
            match reader.step(segment.length, false)? {
                Step::Record(header, _) => last = Some(header.position),
                Step::BadPayload(_) | Step::Skipped(_) => {}
                Step::End => break,
            }
        }
        let mut inner = self.shared.lock();
        if let Some(known) = inner.segments.iter_mut().find(|known| known.id == segment.id) {
            known.last = last;
        }
        Ok(last)
    }

    fn delete_below_floor(&self) -> io::Result<()> {
        let floor = self.state.state().floor;
        let mut deleted = false;
        loop {
            let front = self.shared.lock().segments.front().map(|segment| segment.id);
            let Some(id) = front.filter(|&id| id < floor) else { break };
            match self.filesystem.remove(&segment_path(&self.shared.directory, id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.shared.lock().segments.pop_front();
            deleted = true;
            self.filesystem.reached(CommitPoint::Unlinked);
        }
        if deleted {
            self.filesystem.sync_directory(&self.shared.directory)?;
            self.filesystem.reached(CommitPoint::DirectorySynced);
        }
        Ok(())
    }

    /// Ends the segment in use, so that the records of a new epoch begin in one of their own; gives its number.
    pub(crate) fn begin_epoch(&mut self) -> io::Result<u64> {
        self.flush()?;
        self.active = None;
        Ok(self.next_id)
    }

    /// Makes the epoch that begins at segment `floor` the one that holds: everything before is deleted.
    pub(crate) fn publish_epoch(&mut self, floor: u64, epoch: u64, start: Start) -> io::Result<()> {
        self.flush()?;
        let durable = self.shared.durable();
        self.filesystem.reached(CommitPoint::EpochSealed);
        // Both slots: with one of the epoch before, damage to the other would have the new epoch deleted.
        for point in [CommitPoint::EpochNamed, CommitPoint::EpochPublished] {
            self.state.write(|state| {
                state.floor = floor;
                state.epoch = epoch;
                state.head = durable;
                state.start = start;
            })?;
            self.filesystem.reached(point);
        }
        self.delete_below_floor()
    }

    /// Where the state is kept, for messages.
    pub(crate) fn state_path(&self) -> &std::path::Path {
        self.state.path()
    }
}

/// Where the reserve is.
pub(super) fn reserve_path(directory: &Path) -> PathBuf {
    directory.join("reserve")
}
