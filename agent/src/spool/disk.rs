//! What the spool does to a disk, behind a trait, so that tests can put a failing disk beside the real one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

/// A file that is being written.
pub(crate) trait WriteFile: Send {
    /// Writes all of these bytes at this offset.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns once what was written is on stable storage.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// The changes that a spool makes to its directory.
pub(crate) trait Filesystem: Send + Sync {
    /// Makes a file that is not there yet, for its owner only.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;
    /// Opens a file for writing, made if it is not there.
    fn open(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes what was created and removed in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// The real disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disk;

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
}

/// Options under which only the owner can read what is made.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Filesystem for Disk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(private().create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(private().create(true).truncate(false).open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
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

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;

    /// A disk that fails on request: call number `fail_at` (from 1, over writes, syncs, creations and removals)
    /// fails, and so do the `for_calls - 1` after it.
    #[derive(Clone, Default)]
    pub(crate) struct FaultyDisk(pub(crate) Arc<Faults>);

    #[derive(Default)]
    pub(crate) struct Faults {
        pub(crate) calls: AtomicU64,
        pub(crate) fail_at: AtomicU64,
        pub(crate) for_calls: AtomicU64,
        pub(crate) failed: Mutex<Vec<&'static str>>,
    }

    impl Faults {
        fn pass(&self, what: &'static str) -> io::Result<()> {
            let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
            let first = self.fail_at.load(Ordering::SeqCst);
            if first > 0 && call >= first && call - first < self.for_calls.load(Ordering::SeqCst) {
                self.failed.lock().unwrap().push(what);
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            Ok(())
        }
    }

    /// A file whose failed sync loses what was written since the last good one, as a kernel may do.
    struct FaultyFile {
        file: Box<dyn WriteFile>,
        faults: Arc<Faults>,
        unsynced: Vec<(u64, usize)>,
    }

    impl WriteFile for FaultyFile {
        fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.unsynced.push((offset, bytes.len()));
            if let Err(error) = self.faults.pass("write") {
                // A full disk takes a part.
                self.file.write_at(&bytes[..bytes.len() / 2], offset)?;
                return Err(error);
            }
            self.file.write_at(bytes, offset)
        }

        fn sync(&mut self) -> io::Result<()> {
            if let Err(error) = self.faults.pass("sync") {
                for (offset, length) in self.unsynced.drain(..) {
                    self.file.write_at(&vec![0; length], offset)?;
                }
                return Err(error);
            }
            self.unsynced.clear();
            self.file.sync()
        }

        fn truncate(&mut self, length: u64) -> io::Result<()> {
            self.faults.pass("truncate")?;
            self.file.truncate(length)
        }
    }

    impl FaultyDisk {
        fn wrap(&self, file: Box<dyn WriteFile>) -> Box<dyn WriteFile> {
            Box::new(FaultyFile { file, faults: self.0.clone(), unsynced: Vec::new() })
        }
    }

    impl Filesystem for FaultyDisk {
        fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
            self.0.pass("create")?;
            Ok(self.wrap(Disk.create(path)?))
        }

        fn open(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
            Ok(self.wrap(Disk.open(path)?))
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            self.0.pass("remove")?;
            Disk.remove(path)
        }

        fn sync_directory(&self, path: &Path) -> io::Result<()> {
            self.0.pass("sync directory")?;
            Disk.sync_directory(path)
        }
    }
}
