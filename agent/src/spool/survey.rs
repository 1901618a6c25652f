//! A look into a spool from outside: without its lock, and without a change, while its agent runs or does not.

use std::{io, path::Path};

use super::{
    Position,
    disk::{Disk, Filesystem as _},
    quarantine,
    record::Header,
    segment::{SegmentReader, Step, segment_id, segment_path},
    state::{State, StateFile},
    writer::reserve_path,
};

/// What stands at one place of a segment.
#[derive(Debug)]
pub(crate) struct Found {
    /// Number of the segment.
    pub(crate) segment: u64,
    /// Offset of the first byte.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) bytes: u64,
    /// What it is.
    pub(crate) what: What,
}

/// What can stand in a segment.
#[derive(Debug)]
pub(crate) enum What {
    /// A record that fits its checksums.
    Record(Box<Header>, Vec<u8>),
    /// A record whose payload does not fit its checksum.
    BadPayload(Position),
    /// Bytes that are no record.
    Rubbish,
    /// The end of the last segment is no whole record: a torn write, which the next start cuts off.
    Torn,
}

/// A spool as it stands on disk.
#[derive(Debug)]
pub(crate) struct Survey {
    directory: std::path::PathBuf,
    /// Its state; none where no slot is sound.
    pub(crate) state: Option<State>,
    /// Segments that count, with their bytes.
    pub(crate) segments: Vec<(u64, u64)>,
    /// Bytes of the reserve.
    pub(crate) reserve_bytes: u64,
    /// Files in quarantine, with their bytes.
    pub(crate) quarantine: Vec<(String, u64)>,
    /// Whether an agent is at work in it: what is at the end may be on its way.
    is_running: bool,
}

impl Survey {
    /// Looks at the spool in `directory`.
    pub(crate) fn new(directory: &Path, is_running: bool) -> io::Result<Self> {
        let state = StateFile::read(&Disk, &directory.join("state"))?;
        let floor = state.as_ref().map_or(0, |state| state.floor);
        let mut ids: Vec<u64> = Disk.list(directory)?.iter().filter_map(|name| segment_id(name)).collect();
        ids.sort_unstable();
        ids.retain(|&id| id >= floor);
        // One that has been deleted in the meantime is no part of it any more.
        let length = |id| Some((id, Disk.length(&segment_path(directory, id)).ok()?));
        let segments = ids.into_iter().filter_map(length).collect();
        let aside = quarantine::directory(directory);
        let mut quarantine: Vec<(String, u64)> = Disk
            .list(&aside)
            .unwrap_or_default()
            .into_iter()
            .map(|name| {
                let bytes = Disk.length(&aside.join(&name)).unwrap_or_default();
                (name, bytes)
            })
            .collect();
        quarantine.sort_unstable();
        let reserve_bytes = Disk.length(&reserve_path(directory)).unwrap_or_default();
        Ok(Self { directory: directory.to_owned(), state, segments, reserve_bytes, quarantine, is_running })
    }

    /// Shows everything in order, one at a time.
    pub(crate) fn walk(&self, mut see: impl FnMut(Found) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let last = self.segments.last().map(|&(id, _)| id);
        for &(id, length) in &self.segments {
            match self.walk_segment(id, length, Some(id) == last, &mut see) {
                Err(error)
                    if error
                        .downcast_ref::<io::Error>()
                        .is_some_and(|e| e.kind() == io::ErrorKind::NotFound) => {}
                walked => walked?,
            }
        }
        Ok(())
    }

    fn walk_segment(
        &self,
        id: u64,
        length: u64,
        is_last: bool,
        see: &mut impl FnMut(Found) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut reader = SegmentReader::open(&Disk, &self.directory, id)?;
        // What is no sound record counts as damage once one follows; at the very end it is a write that did not finish.
        let mut unsure: Vec<Found> = Vec::new();
        loop {
            let offset = reader.offset();
            let step = reader.step(length, true)?;
            let bytes = reader.offset().saturating_sub(offset);
            let found = |what| Found { segment: id, offset, bytes, what };
            match step {
                Step::Record(header, payload) => {
                    if self.state.as_ref().is_some_and(|state| header.position.epoch > state.epoch) {
                        // An epoch that is still being sealed.
                        return Ok(());
                    }
                    unsure.drain(..).try_for_each(&mut *see)?;
                    see(found(What::Record(header, payload)))?;
                }
                Step::BadPayload(position) => unsure.push(found(What::BadPayload(position))),
                Step::Skipped(_) => unsure.push(found(What::Rubbish)),
                Step::End => break,
            }
        }
        if is_last && self.is_running {
            return Ok(());
        }
        for mut found in unsure {
            if is_last && matches!(found.what, What::Rubbish) {
                found.what = What::Torn;
            }
            see(found)?;
        }
        Ok(())
    }
}
