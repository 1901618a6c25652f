//! Quarantine: damaged bytes are copied to `quarantine/` before anything deletes them, so that somebody can look at them
//! later. It is bounded: the oldest give way, and are counted. A quarantine that cannot be written holds nothing up.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::{
    disk::{Filesystem, ReadFile, read_up_to},
    segment::segment_path,
    shared::Shared,
};

/// Bytes copied at a time.
const COPY_BYTES: usize = 64 << 10;

/// What is in quarantine: name and bytes. Names begin with the number of the segment, so their order is that of age.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    files: BTreeMap<String, u64>,
    dropped: u64,
}

/// The directory.
pub(super) fn directory(spool: &Path) -> PathBuf {
    spool.join("quarantine")
}

impl Quarantine {
    /// What is there from before.
    pub(super) fn load(filesystem: &dyn Filesystem, spool: &Path) -> io::Result<Self> {
        let directory = directory(spool);
        let names = match filesystem.list(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        let mut files = BTreeMap::new();
        for name in names {
            let bytes = filesystem.length(&directory.join(&name)).unwrap_or_default();
            files.insert(name, bytes);
        }
        Ok(Self { files, dropped: 0 })
    }

    pub(super) fn files(&self) -> u64 {
        self.files.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.values().sum()
    }

    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Copies bytes of a segment that are damaged. What does not fit the quarantine as a whole is cut to it.
pub(super) fn keep(shared: &Shared, file: &dyn ReadFile, segment: u64, from: u64, to: u64) {
    let limit = shared.settings.quarantine_bytes;
    let bytes = to.saturating_sub(from).min(limit);
    if bytes == 0 {
        return;
    }
    let name = format!("{segment:016x}-{from:016x}.damaged");
    let kept = make_room(shared, bytes).and_then(|()| copy(shared, file, &name, from, bytes));
    enter(shared, name, bytes, kept);
}

/// Moves a whole segment that is not to be trusted; false where that fails.
pub(super) fn keep_segment(shared: &Shared, segment: u64, bytes: u64) -> bool {
    if bytes > shared.settings.quarantine_bytes {
        return false;
    }
    let name = format!("{segment:016x}.segment");
    let moved = make_room(shared, bytes).and_then(|()| {
        let directory = directory(&shared.directory);
        shared.filesystem.make_directory(&directory)?;
        shared.filesystem.rename(&segment_path(&shared.directory, segment), &directory.join(&name))
    });
    let is_kept = moved.is_ok();
    enter(shared, name, bytes, moved);
    is_kept
}

fn enter(shared: &Shared, name: String, bytes: u64, kept: io::Result<()>) {
    let mut inner = shared.lock();
    match kept {
        Ok(()) => {
            inner.quarantine.files.insert(name, bytes);
        }
        Err(error) => {
            inner.quarantine.dropped = inner.quarantine.dropped.saturating_add(1);
            drop(inner);
            tracing::warn!(%error, %name, "damaged bytes cannot be kept");
        }
    }
}

/// Drops the oldest until so many bytes fit.
fn make_room(shared: &Shared, bytes: u64) -> io::Result<()> {
    loop {
        let mut inner = shared.lock();
        if inner.quarantine.bytes().saturating_add(bytes) <= shared.settings.quarantine_bytes {
            return Ok(());
        }
        let Some((name, _)) = inner.quarantine.files.pop_first() else { return Ok(()) };
        inner.quarantine.dropped = inner.quarantine.dropped.saturating_add(1);
        drop(inner);
        shared.filesystem.remove(&directory(&shared.directory).join(name))?;
    }
}

fn copy(shared: &Shared, file: &dyn ReadFile, name: &str, from: u64, bytes: u64) -> io::Result<()> {
    let directory = directory(&shared.directory);
    shared.filesystem.make_directory(&directory)?;
    let mut target = shared.filesystem.open(&directory.join(name))?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut done = 0;
    while done < bytes {
        let wanted = usize::try_from(bytes - done).unwrap_or(COPY_BYTES).min(COPY_BYTES);
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let got = read_up_to(file, part, from.saturating_add(done))?;
        if got == 0 {
            break;
        }
        target.write_at(part.get(..got).unwrap_or_default(), done)?;
        done += got as u64;
    }
    target.truncate(done)?;
    target.sync()?;
    shared.filesystem.sync_directory(&directory)
}
