//! Where the bytes of a capture come from: a file, a pipe or standard input, unpacked where they are gzip.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;

use super::error::{CaptureError, Problem};

/// An opened stream of capture bytes.
pub(super) struct Input {
    /// What errors and reports call it.
    pub(super) name: String,
    /// The bytes, unpacked.
    pub(super) bytes: Box<dyn Read + Send>,
    /// Bytes of the file read so far, before unpacking.
    pub(super) read: Arc<AtomicU64>,
    /// Size of the file; none for pipes.
    pub(super) size: Option<u64>,
}

impl Input {
    /// Opens a file, or standard input for `-`.
    pub(super) fn open(path: &Path) -> Result<Self, CaptureError> {
        if path == Path::new("-") {
            return Self::from_reader("standard input", Box::new(io::stdin()), None);
        }
        let name = path.display().to_string();
        let fail = |problem| CaptureError { name: name.clone(), offset: None, problem };
        let file = File::open(path).map_err(|error| fail(Problem::Open(error)))?;
        let about = file.metadata().map_err(|error| fail(Problem::Open(error)))?;
        if about.is_dir() {
            return Err(fail(Problem::Directory));
        }
        Self::from_reader(&name, Box::new(file), about.is_file().then_some(about.len()))
    }

    /// Unpacks a stream where it begins as gzip does (RFC 1952).
    pub(super) fn from_reader(
        name: &str,
        stream: Box<dyn Read + Send>,
        size: Option<u64>,
    ) -> Result<Self, CaptureError> {
        let read = Arc::new(AtomicU64::new(0));
        let mut counted = Counted { stream, read: Arc::clone(&read) };
        let mut start = Vec::new();
        if let Err(error) = counted.by_ref().take(2).read_to_end(&mut start) {
            let problem = Problem::Open(error);
            return Err(CaptureError { name: name.to_owned(), offset: None, problem });
        }
        let gzip = start == [0x1f, 0x8b];
        let whole = Cursor::new(start).chain(counted);
        let bytes: Box<dyn Read + Send> = if gzip {
            Box::new(MultiGzDecoder::new(BufReader::with_capacity(64 * 1024, whole)))
        } else {
            Box::new(whole)
        };
        Ok(Self { name: name.to_owned(), bytes, read, size })
    }
}

/// Counts what passes.
struct Counted {
    stream: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
