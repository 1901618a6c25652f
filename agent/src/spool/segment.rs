//! Segment files: how they are named, and reading one from start to end over whatever damage it has.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    Position,
    disk::{Filesystem, ReadFile, read_up_to},
    record::{HEADER_BYTES, Header, MAGIC},
};

/// First bytes of every segment.
const SEGMENT_MAGIC: [u8; 8] = *b"ONSEGM01";
/// Bytes that are searched for a header at a time.
const SCAN_WINDOW: usize = 64 << 10;
/// Bytes before the first record: magic, segment number, CRC-32C of both, four zero bytes.
pub(super) const SEGMENT_HEADER_BYTES: usize = 24;

/// The bytes before the first record.
pub(super) fn segment_header(id: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
    bytes[8..16].copy_from_slice(&id.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..16]);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Where the segment with this number is.
pub(super) fn segment_path(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("{id:016x}.segment"))
}

/// The number of the segment with this file name; none for other files.
pub(super) fn segment_id(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// One step through a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A sound record; `payload` is empty where it was not asked for.
    Record(Box<Header>, Vec<u8>),
    /// A record whose payload does not fit its checksum.
    BadPayload(Position),
    /// Bytes that are no record were passed over.
    Skipped(u64),
    /// Nothing more up to the limit.
    End,
}

/// Reads the records of one segment in order. Nothing at or beyond the limit of a step is ever looked at: the
/// writer may be at work there.
pub(super) struct SegmentReader {
    file: Box<dyn ReadFile>,
    /// Offset of the next record.
    offset: u64,
    id: u64,
}

impl SegmentReader {
    /// Opens a segment at its first record.
    pub(super) fn open(filesystem: &dyn Filesystem, directory: &Path, id: u64) -> io::Result<Self> {
        let file = filesystem.open_to_read(&segment_path(directory, id))?;
        Ok(Self { file, offset: SEGMENT_HEADER_BYTES as u64, id })
    }

    /// The segment's number.
    pub(super) const fn id(&self) -> u64 {
        self.id
    }

    /// Offset behind what has been read.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record that ends at or before `limit`. Damage is passed over and told, one step at a time, and
    /// every step but the last moves on, so that no damage can hold the reader. Without `with_payload` the
    /// payload is neither read nor checked.
    pub(super) fn step(&mut self, limit: u64, with_payload: bool) -> io::Result<Step> {
        if self.offset >= limit {
            return Ok(Step::End);
        }
        let mut bytes = [0; HEADER_BYTES];
        let whole = self.read_at(&mut bytes, self.offset, limit)? == HEADER_BYTES;
        let header = if whole { Header::decode(&bytes) } else { None };
        let Some(header) = header.filter(|h| self.offset.saturating_add(h.total_bytes()) <= limit) else {
            return self.skip_to_next_record(limit);
        };
        let start = self.offset + HEADER_BYTES as u64;
        self.offset += header.total_bytes();
        if !with_payload {
            return Ok(Step::Record(Box::new(header), Vec::new()));
        }
        let mut payload = vec![0; usize::try_from(header.length).unwrap_or_default()];
        let whole = self.read_at(&mut payload, start, limit)? == payload.len();
        if !whole || crc32c::crc32c(&payload) != header.payload_crc {
            return Ok(Step::BadPayload(header.position));
        }
        Ok(Step::Record(Box::new(header), payload))
    }

    /// From a place that holds no sound header to the next place that does.
    fn skip_to_next_record(&mut self, limit: u64) -> io::Result<Step> {
        let start = self.offset;
        let mut from = start + 1;
        let mut window = vec![0; SCAN_WINDOW];
        loop {
            let got = self.read_at(&mut window, from, limit)?;
            let candidates = window.get(..got).unwrap_or_default().windows(HEADER_BYTES);
            for (at, candidate) in candidates.enumerate().filter(|(_, c)| c.starts_with(&MAGIC)) {
                let place = from + at as u64;
                let header = candidate.first_chunk().and_then(Header::decode);
                if header.is_some_and(|h| place.saturating_add(h.total_bytes()) <= limit) {
                    self.offset = place;
                    return Ok(Step::Skipped(place - start));
                }
            }
            if got < SCAN_WINDOW {
                self.offset = limit;
                return Ok(Step::Skipped(limit - start));
            }
            from += (SCAN_WINDOW - HEADER_BYTES + 1) as u64;
        }
    }

    /// Reads from `offset` up to `limit`, the end of the file or of the buffer, and says how much that was.
    fn read_at(&self, buffer: &mut [u8], offset: u64, limit: u64) -> io::Result<usize> {
        let room = usize::try_from(limit.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        read_up_to(&*self.file, buffer.get_mut(..room).unwrap_or_default(), offset)
    }

    /// The file itself.
    pub(super) fn file(&self) -> &dyn ReadFile {
        &*self.file
    }
}

#[cfg(test)]
mod tests {
    use super::{super::record::tests::header, *};

    fn segment(payloads: &[&[u8]]) -> (tempfile::TempDir, Vec<u8>) {
        let dir = super::super::tests::scratch();
        let mut bytes = segment_header(1).to_vec();
        for (index, payload) in payloads.iter().enumerate() {
            bytes.extend(header(index as u64 + 1, payload).encode());
            bytes.extend(*payload);
        }
        std::fs::write(segment_path(dir.path(), 1), &bytes).unwrap();
        (dir, bytes)
    }

    fn read(dir: &Path, limit: u64) -> (Vec<u64>, u64, u64) {
        let mut reader = SegmentReader::open(&super::super::disk::Disk, dir, 1).unwrap();
        let (mut sequences, mut bad, mut skipped) = (Vec::new(), 0, 0);
        loop {
            match reader.step(limit, true).unwrap() {
                Step::Record(header, _) => sequences.push(header.position.sequence),
                Step::BadPayload(_) => bad += 1,
                Step::Skipped(bytes) => skipped += bytes,
                Step::End => return (sequences, bad, skipped),
            }
        }
    }

    #[test]
    fn names_and_numbers_of_segments_fit_each_other() {
        let path = segment_path(Path::new("/x"), 255);
        assert_eq!(path, Path::new("/x/00000000000000ff.segment"));
        assert_eq!(segment_id("00000000000000ff.segment"), Some(255));
        assert_eq!(segment_id("state"), None);
        assert_eq!(segment_id("ff.segment"), None);
    }

    #[test]
    fn a_flip_of_any_bit_costs_at_most_one_record_and_reading_ends() {
        let (dir, sound) = segment(&[b"first", b"second payload", b"", b"fourth"]);
        let limit = sound.len() as u64;
        assert_eq!(read(dir.path(), limit), (vec![1, 2, 3, 4], 0, 0));
        for bit in SEGMENT_HEADER_BYTES * 8..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(segment_path(dir.path(), 1), &bytes).unwrap();
            let (sequences, bad, skipped) = read(dir.path(), limit);
            assert_eq!(sequences.len(), 3, "bit {bit}");
            assert!((bad == 1) != (skipped > 0), "bit {bit}: {bad} bad, {skipped} skipped");
        }
    }

    #[test]
    fn a_segment_cut_at_any_byte_gives_the_whole_records_before_the_cut() {
        let (dir, sound) = segment(&[b"first", b"second payload", b"third"]);
        let ends = [b"first".len(), b"second payload".len(), b"third".len()];
        for cut in SEGMENT_HEADER_BYTES..sound.len() {
            std::fs::write(segment_path(dir.path(), 1), &sound[..cut]).unwrap();
            let mut end = SEGMENT_HEADER_BYTES;
            let whole = ends
                .iter()
                .take_while(|&&length| {
                    end += HEADER_BYTES + length;
                    end <= cut
                })
                .count();
            let (sequences, bad, _) = read(dir.path(), cut as u64);
            assert_eq!((sequences.len(), bad), (whole, 0), "cut at {cut}");
        }
    }
}
