//! What can be wrong with a capture: which file, at which byte, and what was expected.

use std::{fmt, io};

/// Why a capture cannot be read, or read on.
#[derive(Debug)]
pub struct CaptureError {
    /// The file, or `standard input`.
    pub name: String,
    /// Byte at which it broke (of the decompressed data where the file is compressed); none where the file
    /// could not be opened or recognised at all.
    pub offset: Option<u64>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a capture.
#[derive(Debug)]
pub enum Problem {
    /// It cannot be opened.
    Open(io::Error),
    /// It is a directory.
    Directory,
    /// It has no bytes.
    Empty,
    /// It begins with bytes that no capture begins with.
    NotACapture {
        /// The first bytes.
        start: Vec<u8>,
        /// What they look like, where that is known.
        looks_like: Option<&'static str>,
    },
    /// It ends in the middle of something.
    Truncated {
        /// Of what.
        what: &'static str,
        /// How many bytes that has.
        needed: u64,
        /// How many there are.
        have: u64,
    },
    /// A length is out of its range, so that nothing behind it can be found.
    BadLength {
        /// Of what.
        what: &'static str,
        /// The length as stated.
        stated: u64,
        /// What it may be.
        expected: &'static str,
    },
    /// A mark that tells the byte order has no known value.
    BadMagic {
        /// Of what.
        what: &'static str,
        /// The mark, read as big endian.
        stated: u64,
    },
    /// More interfaces than are followed.
    TooManyInterfaces,
    /// Reading failed: a disk error, or damaged compressed data.
    Read(io::Error),
}

impl std::error::Error for CaptureError {}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        if let Some(offset) = self.offset {
            write!(f, "broken at byte {offset}: ")?;
        }
        write!(f, "{}", self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) if error.kind() == io::ErrorKind::NotFound => f.write_str("no such file"),
            Self::Open(error) => write!(f, "cannot be opened: {error}"),
            Self::Directory => f.write_str("is a directory, expected a capture file"),
            Self::Empty => f.write_str("is empty, expected a pcap or pcapng capture"),
            Self::NotACapture { start, looks_like } => {
                f.write_str("is not a capture: it begins with")?;
                for byte in start {
                    write!(f, " {byte:02x}")?;
                }
                if let Some(kind) = looks_like {
                    write!(f, " ({kind})")?;
                }
                f.write_str(", expected pcap or pcapng")
            }
            Self::Truncated { what, needed, have } => {
                write!(f, "the file ends after {have} of the {needed} bytes of a {what}")
            }
            Self::BadLength { what, stated, expected } => {
                write!(f, "a {what} states a length of {stated}, expected {expected}")
            }
            Self::BadMagic { what, stated } => {
                write!(f, "a {what} states the byte order {stated:08x}, expected 1a2b3c4d or 4d3c2b1a")
            }
            Self::TooManyInterfaces => {
                write!(f, "more than {} interfaces in one section", super::pcapng::MAX_INTERFACES)
            }
            Self::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("the compressed data ends too early")
            }
            Self::Read(error) => write!(f, "reading failed: {error}"),
        }
    }
}

/// What a file looks like that is not a capture.
pub(super) fn looks_like(start: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 11] = [
        (b"snoop\0\0\0", "snoop; convert it with `editcap -F pcap`"),
        (b"BZh", "bzip2; decompress it first"),
        (b"\xfd7zXZ\0", "xz; decompress it first"),
        (b"\x28\xb5\x2f\xfd", "zstd; decompress it first"),
        (b"\x04\x22\x4d\x18", "lz4; decompress it first"),
        (b"PK\x03\x04", "zip; unpack it first"),
        (b"#separator", "a Zeek log"),
        (b"{", "JSON"),
        (b"RTSS", "Microsoft Network Monitor; convert it with `editcap -F pcap`"),
        (b"GMBU", "Microsoft Network Monitor; convert it with `editcap -F pcap`"),
        (b"\x7fELF", "a program"),
    ];
    let known = KNOWN.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, kind)| *kind);
    known.or_else(|| {
        let printable = |b: &u8| b.is_ascii_graphic() || b.is_ascii_whitespace();
        (!start.is_empty() && start.iter().all(printable)).then_some("text")
    })
}
