//! Reads durable batches in order, from any position, while the writer goes on.

use std::{io, sync::Arc};

use super::{
    Position, quarantine,
    record::Header,
    segment::{SegmentReader, Step},
    shared::Shared,
};

/// One durable batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What the spool knows of it.
    pub(crate) header: Header,
    /// The encoded `SealedBatch`.
    pub(crate) payload: Vec<u8>,
}

/// A place in the spool.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    /// Segments below this are behind.
    from: u64,
    current: Option<SegmentReader>,
    /// Everything up to here has been read, or is not wanted.
    last: Position,
}

impl Reader {
    /// A reader before the first batch.
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, from: 0, current: None, last: Position { epoch: 0, sequence: 0 } }
    }

    /// Moves to the first batch behind `after`.
    pub(crate) fn seek(&mut self, after: Position) {
        let inner = self.shared.lock();
        let behind = |position: Option<Position>| position.is_some_and(|first| first <= after);
        self.from = inner.segments.iter().rev().find(|s| behind(s.first)).map_or(0, |segment| segment.id);
        self.current = None;
        self.last = after;
    }

    /// The next durable batch; none while there is no more. Damage is passed over and counted.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        self.advance(true)
    }

    /// The header of the next durable batch, its payload unread. The reader moves on.
    pub(crate) fn peek(&mut self) -> io::Result<Option<Header>> {
        Ok(self.advance(false)?.map(|entry| entry.header))
    }

    fn advance(&mut self, with_payload: bool) -> io::Result<Option<Entry>> {
        loop {
            let Some((mut segment, limit)) = self.current_segment()? else { return Ok(None) };
            let start = segment.offset();
            let step = segment.step(limit, with_payload)?;
            let id = segment.id();
            let damage = match step {
                Step::BadPayload(position) if position > self.last => Some((1, 0)),
                Step::Skipped(bytes) => Some((0, bytes)),
                _ => None,
            };
            if let Some((records, bytes)) = damage {
                count(&self.shared, &segment, start, records, bytes);
            }
            self.current = Some(segment);
            match step {
                Step::Record(header, payload) if header.position > self.last => {
                    self.last = header.position;
                    return Ok(Some(Entry { header: *header, payload }));
                }
                Step::Record(..) | Step::BadPayload(_) | Step::Skipped(_) => {}
                Step::End => {
                    if !self.shared.lock().segments.iter().any(|s| s.id > id) {
                        return Ok(None);
                    }
                    // The list may have grown since the limit was read, this segment among it.
                    let grown = self.shared.lock().segments.iter().any(|s| s.id == id && s.length > limit);
                    if !grown {
                        self.from = id.saturating_add(1);
                        self.current = None;
                    }
                }
            }
        }
    }

    /// The segment to read from, open, and how far it is durable.
    fn current_segment(&mut self) -> io::Result<Option<(SegmentReader, u64)>> {
        loop {
            let wanted = self.current.as_ref().map_or(self.from, SegmentReader::id);
            let found = {
                let inner = self.shared.lock();
                inner.segments.iter().find(|s| s.id >= wanted).map(|s| (s.id, s.length))
            };
            let Some((id, length)) = found else { return Ok(None) };
            if let Some(open) = self.current.take().filter(|open| open.id() == id) {
                return Ok(Some((open, length)));
            }
            match SegmentReader::open(&*self.shared.filesystem, &self.shared.directory, id) {
                Ok(open) => return Ok(Some((open, length))),
                // Acknowledged and deleted in the meantime.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.from = id.saturating_add(1),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Counts damage once, however often it is passed over, and keeps what is damaged.
fn count(shared: &Shared, segment: &SegmentReader, start: u64, records: u64, bytes: u64) {
    let place = (segment.id(), start);
    {
        let mut inner = shared.lock();
        if place < inner.counted {
            return;
        }
        inner.counted = (place.0, place.1.saturating_add(1));
        inner.damage.records = inner.damage.records.saturating_add(records);
        inner.damage.skipped_bytes = inner.damage.skipped_bytes.saturating_add(bytes);
    }
    tracing::warn!(segment = place.0, offset = place.1, "the spool holds a damaged record");
    quarantine::keep(shared, segment.file(), place.0, start, segment.offset());
}
