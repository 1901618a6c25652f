//! The readers of capture files, on files in memory.
//!
//! Input: one byte for the header that is put before the file and for the way the bytes arrive, then the file behind
//! that header.

use std::io::{self, Cursor, Read, Write};

use flate2::{Compression, write::GzEncoder};
use onenet_agent::source::{Capture, CaptureError};

use super::Input;

/// A file may also be given as it is, header and all.
const AS_IT_IS: u8 = 7;

/// Reads a file of the classic format in one of its six variants.
pub fn pcap(bytes: &[u8]) {
    const MAGICS: [[u8; 4]; 6] = [
        [0xd4, 0xc3, 0xb2, 0xa1],
        [0xa1, 0xb2, 0xc3, 0xd4],
        [0x4d, 0x3c, 0xb2, 0xa1],
        [0xa1, 0xb2, 0x3c, 0x4d],
        [0x34, 0xcd, 0xb2, 0xa1],
        [0xa1, 0xb2, 0xcd, 0x34],
    ];
    let mut input = Input(bytes);
    let mode = input.byte();
    let header: &[u8] = match mode & 7 {
        AS_IT_IS => &[],
        magic => &MAGICS[usize::from(magic) % MAGICS.len()],
    };
    check(&[header, input.0].concat(), mode >> 3);
}

/// Reads a pcapng file whose first section header is sound, in either byte order.
pub fn pcapng(bytes: &[u8]) {
    const LITTLE: &[u8] =
        b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x4d\x3c\x2b\x1a\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x1c\0\0\0";
    const BIG: &[u8] =
        b"\x0a\x0d\x0d\x0a\0\0\0\x1c\x1a\x2b\x3c\x4d\0\x01\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x1c";
    let mut input = Input(bytes);
    let mode = input.byte();
    let header = match mode & 7 {
        AS_IT_IS => &[],
        even if even % 2 == 0 => LITTLE,
        _ => BIG,
    };
    check(&[header, input.0].concat(), mode >> 3);
}

/// What a file gave.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    packets: u64,
    data_bytes: u64,
    digest: u64,
    interfaces: usize,
    irregular: u64,
    error: Option<String>,
}

/// Reads the file in one piece, and again as `way` says: both must give the same.
fn check(file: &[u8], way: u8) {
    let whole = read(Box::new(Cursor::new(file.to_vec())), file.len() as u64);
    let packed = file.starts_with(&[0x1f, 0x8b]);
    if !packed {
        assert!(whole.data_bytes <= file.len() as u64, "more bytes came out than went in");
        assert!(whole.packets * 12 <= file.len() as u64, "a packet has a header");
    }
    match way % 4 {
        0 => {}
        step @ 1..=2 => {
            let drip = Drip { bytes: Cursor::new(file.to_vec()), step: usize::from(step) * 3 - 2 };
            assert_eq!(read(Box::new(drip), file.len() as u64), whole, "a pipe gives what a file gives");
        }
        _ if packed => {}
        _ => {
            // A member of stored blocks costs no compression and is unpacked as any other.
            let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
            let packed = encoder.write_all(file).and_then(|()| encoder.finish()).unwrap_or_default();
            if !whole.not_a_capture() {
                let unpacked = read(Box::new(Cursor::new(packed)), file.len() as u64);
                assert_eq!(unpacked, whole, "a packed file gives what it gives unpacked");
            }
        }
    }
}

impl Outcome {
    /// Whether it was not taken for a capture at all: then the error shows the first bytes as they are in the file.
    fn not_a_capture(&self) -> bool {
        self.error.as_ref().is_some_and(|error| !error.contains("broken at byte"))
    }
}

fn read(stream: Box<dyn Read + Send>, length: u64) -> Outcome {
    let mut outcome = Outcome::default();
    let mut capture = match Capture::from_reader("input", stream) {
        Ok(capture) => capture,
        Err(error) => return Outcome { error: Some(told(&error, u64::MAX)), ..outcome },
    };
    loop {
        match capture.advance() {
            Ok(true) => note(&capture, &mut outcome),
            Ok(false) => break,
            Err(error) => {
                let limit = if capture.format().is_empty() { 0 } else { length.saturating_mul(1100) };
                outcome.error = Some(told(&error, limit));
                assert_eq!(capture.advance().ok(), Some(false), "nothing comes after an error");
                break;
            }
        }
    }
    assert!(capture.packet().is_none(), "there is no packet behind the end");
    outcome.interfaces = capture.interfaces().len();
    outcome.irregular = capture.irregular_blocks();
    outcome
}

fn note(capture: &Capture, outcome: &mut Outcome) {
    let packet = capture.packet();
    assert!(packet.is_some(), "a packet that was announced is there");
    let Some(packet) = packet else { return };
    assert!(packet.interface < capture.interfaces().len());
    assert_eq!(capture.interfaces()[packet.interface].link_type, packet.link_type);
    outcome.packets += 1;
    outcome.data_bytes += packet.data.len() as u64;
    let facts = [packet.time.as_nanos().cast_unsigned(), packet.wire_length.into(), packet.data.len() as u64];
    let data = packet.data.iter().map(|&byte| u64::from(byte));
    outcome.digest = facts
        .into_iter()
        .chain(data)
        .fold(outcome.digest, |digest, fact| (digest ^ fact).wrapping_mul(0x0100_0000_01b3).rotate_left(7));
}

/// The error as text, which is one line that names the file and a byte that is in it.
fn told(error: &CaptureError, limit: u64) -> String {
    let text = error.to_string();
    assert!(text.starts_with("input: ") && text.lines().count() == 1, "{text:?}");
    assert!(error.offset.is_none_or(|offset| offset <= limit), "{text}");
    text
}

/// Gives a few bytes at a time.
struct Drip {
    bytes: Cursor<Vec<u8>>,
    step: usize,
}

impl Read for Drip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.step.min(buffer.len());
        self.bytes.read(&mut buffer[..length])
    }
}
