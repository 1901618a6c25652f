//! What the spool does to a disk, behind a trait, so that tests can put a failing disk beside the real one.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, Flock, FlockArg, fallocate},
};

/// Bytes that are written at a time where a file cannot be given its size otherwise.
const ZEROS: usize = 64 << 10;

/// A file that is being read.
pub(crate) trait ReadFile: Send {
    /// Reads at this offset, and says how much that was; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// A file that is being written.
pub(crate) trait WriteFile: Send {
    /// Writes all of these bytes at this offset.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns once what was written is on stable storage.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Takes so many bytes of the disk, so that they are nobody else's.
    fn allocate(&mut self, length: u64) -> io::Result<()>;
}

/// Moments between which a spool may be killed, in the order in which they come. At each of them what is on the disk
/// must be a spool that loses nothing that was published and repeats nothing that was acknowledged for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitPoint {
    /// A new segment has its name, and nothing of it is durable.
    SegmentCreated,
    /// Records are written, before their fsync.
    Written,
    /// They are durable, before the readers are told.
    Synced,
    /// The readers are told, before the state is written.
    Published,
    /// The state is written, before its fsync.
    StateWritten,
    /// It is durable, before segments that nobody needs are deleted.
    StateSynced,
    /// A segment is deleted, before the directory's fsync.
    Unlinked,
    /// The deletion is durable.
    DirectorySynced,
    /// All of a new epoch is durable, before the state names it.
    EpochSealed,
    /// One slot of the state names the new epoch, the other the one before.
    EpochNamed,
    /// Both do, before the segments of the epoch before are deleted.
    EpochPublished,
    /// The reserve is given back to a full disk.
    ReserveReleased,
}

impl CommitPoint {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 12] = [
        Self::SegmentCreated,
        Self::Written,
        Self::Synced,
        Self::Published,
        Self::StateWritten,
        Self::StateSynced,
        Self::Unlinked,
        Self::DirectorySynced,
        Self::EpochSealed,
        Self::EpochNamed,
        Self::EpochPublished,
        Self::ReserveReleased,
    ];
}

/// A lock, held until it is dropped.
pub(crate) type Lock = Box<dyn Send>;

/// Everything that a spool does to its directory.
pub(crate) trait Filesystem: Send + Sync + fmt::Debug {
    /// Makes a directory, for its owner only, and those above it; one that is there is well.
    fn make_directory(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Bytes of a file.
    fn length(&self, path: &Path) -> io::Result<u64>;
    /// Opens a file for reading.
    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;
    /// Makes a file that is not there yet, for its owner only.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;
    /// Opens a file for writing, made if it is not there.
    fn open(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;
    /// Gives a file another name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes what was created, renamed and removed in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Locks a file, made if it is not there; none where another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;
    /// Told at each commit point; tests kill here.
    fn reached(&self, _: CommitPoint) {}
}

/// The first bytes of a file, at most so many; none where it is not there.
pub(super) fn read_start(
    filesystem: &dyn Filesystem,
    path: &Path,
    most: usize,
) -> io::Result<Option<Vec<u8>>> {
    let file = match filesystem.open_to_read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = vec![0; most];
    let got = read_up_to(&*file, &mut bytes, 0)?;
    bytes.truncate(got);
    Ok(Some(bytes))
}

/// Fills the buffer from this offset on as far as the file goes, and says how far that is.
pub(super) fn read_up_to(file: &dyn ReadFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(got as u64)) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// Whether a failure means that the disk is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The real disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disk;

impl ReadFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }
}

impl WriteFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn allocate(&mut self, length: u64) -> io::Result<()> {
        let signed = i64::try_from(length).map_err(io::Error::other)?;
        match fallocate(&*self, FallocateFlags::empty(), 0, signed) {
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
            result => return Ok(result?),
        }
        let zeros = vec![0; ZEROS];
        let mut at = 0;
        while at < length {
            let count = usize::try_from(length - at).unwrap_or(ZEROS).min(ZEROS);
            self.write_all_at(zeros.get(..count).unwrap_or_default(), at)?;
            at += count as u64;
        }
        Ok(())
    }
}

/// Options under which only the owner can read what is made.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Filesystem for Disk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(File::open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(private().create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(private().create(true).truncate(false).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let file = private().create(true).truncate(false).open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Box::new(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

/// Replaces a file whole: a reader sees the old content or the new, also after a power cut.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let draft = path.with_file_name(name);
    let mut file = private().create(true).truncate(true).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    Disk.sync_directory(path.parent().unwrap_or_else(|| Path::new(".")))
}
