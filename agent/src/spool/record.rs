//! One record of a segment: a header of fixed size with its own CRC-32C, then a sealed batch as it goes on the
//! wire. The layout stands at the head of the module above.

use super::Position;

/// First bytes of every record; where a header is damaged, reading goes on at the next of these.
pub(crate) const MAGIC: [u8; 4] = *b"ONRB";
/// Version of this layout.
pub(crate) const VERSION: u8 = 1;
/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 160;
/// The longest payload that is written, and that memory is given for when one is read.
pub(crate) const MAX_PAYLOAD: u32 = 2 << 20;

/// How far the records of this agent have got: what has been sealed up to and with one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Fingerprint of the captures and settings the records come from; 0 for live sources.
    pub(crate) run: u64,
    /// Records of that run so far, in the order the engine told them.
    pub(crate) run_records: u64,
    /// Flow records since the chain began.
    pub(crate) flows: u64,
    /// Observations since the chain began.
    pub(crate) observations: u64,
    /// Finding changes since the chain began.
    pub(crate) findings: u64,
    /// Monotonic time of the batch, nanoseconds since the sensor's account began.
    pub(crate) monotonic: u64,
}

/// What stands before each payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The kind of batch, as on the wire.
    pub(crate) kind: u8,
    /// The signature's algorithm, as on the wire.
    pub(crate) algorithm: u16,
    /// Bytes of the payload.
    pub(crate) length: u32,
    /// Flows, observations and findings in the batch.
    pub(crate) records: u32,
    /// Epoch and sequence.
    pub(crate) position: Position,
    /// Hash of the batch before it.
    pub(crate) previous_hash: [u8; 32],
    /// Hash of this batch.
    pub(crate) hash: [u8; 32],
    /// When it was sealed, nanoseconds since the Unix epoch by the agent's clock.
    pub(crate) sealed_at: i64,
    /// How far the records had got with it.
    pub(crate) mark: Mark,
    /// CRC-32C of the payload.
    pub(crate) payload_crc: u32,
}

/// Writes little-endian fields one after the other.
pub(super) struct Fields<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub(super) const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Puts these bytes; a caller's buffer is as large as its layout, so nothing is ever cut.
    pub(super) fn put(&mut self, field: &[u8]) -> &mut Self {
        let end = self.at.saturating_add(field.len());
        if let Some(place) = self.bytes.get_mut(self.at..end) {
            place.copy_from_slice(field);
        }
        self.at = end;
        self
    }
}

/// Reads little-endian fields one after the other; bytes beyond the end read as zero.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn take<const N: usize>(&mut self) -> [u8; N] {
        let end = self.at.saturating_add(N);
        let field = self.bytes.get(self.at..end).and_then(|slice| slice.try_into().ok());
        self.at = end;
        field.unwrap_or([0; N])
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(super) fn position(&mut self) -> Position {
        Position { epoch: self.u64(), sequence: self.u64() }
    }

    pub(super) fn mark(&mut self) -> Mark {
        Mark {
            run: self.u64(),
            run_records: self.u64(),
            flows: self.u64(),
            observations: self.u64(),
            findings: self.u64(),
            monotonic: self.u64(),
        }
    }
}

impl Mark {
    pub(super) fn write(&self, fields: &mut Fields<'_>) {
        let counts = [self.run, self.run_records, self.flows, self.observations, self.findings];
        for value in counts {
            fields.put(&value.to_le_bytes());
        }
        fields.put(&self.monotonic.to_le_bytes());
    }
}

impl Header {
    /// The header as bytes, its CRC last.
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut fields = Fields::new(&mut bytes);
        fields.put(&MAGIC).put(&[VERSION, self.kind]).put(&self.algorithm.to_le_bytes());
        fields.put(&self.length.to_le_bytes()).put(&self.records.to_le_bytes());
        fields.put(&self.position.epoch.to_le_bytes()).put(&self.position.sequence.to_le_bytes());
        fields.put(&self.previous_hash).put(&self.hash).put(&self.sealed_at.to_le_bytes());
        self.mark.write(&mut fields);
        fields.put(&self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header back; none where magic, version, CRC or length are not what this version writes.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (covered, crc) = bytes.split_last_chunk::<4>()?;
        if !bytes.starts_with(&MAGIC) || crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut cursor = Cursor::new(&bytes[MAGIC.len()..]);
        let [version, kind] = cursor.take();
        let header = Self {
            kind,
            algorithm: u16::from_le_bytes(cursor.take()),
            length: cursor.u32(),
            records: cursor.u32(),
            position: cursor.position(),
            previous_hash: cursor.take(),
            hash: cursor.take(),
            sealed_at: i64::from_le_bytes(cursor.take()),
            mark: cursor.mark(),
            payload_crc: cursor.u32(),
        };
        (version == VERSION && header.length <= MAX_PAYLOAD).then_some(header)
    }

    /// Bytes of header and payload.
    pub(crate) fn total_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.length)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn header(sequence: u64, payload: &[u8]) -> Header {
        Header {
            kind: 1,
            algorithm: 1,
            length: u32::try_from(payload.len()).unwrap(),
            records: 3,
            position: Position { epoch: 7, sequence },
            previous_hash: [u8::try_from((sequence - 1) % 251).unwrap(); 32],
            hash: [u8::try_from(sequence % 251).unwrap(); 32],
            sealed_at: 1_795_251_661_000_000_000,
            mark: Mark {
                run: 9,
                run_records: sequence * 3,
                flows: sequence,
                observations: 2,
                findings: 1,
                monotonic: 77,
            },
            payload_crc: crc32c::crc32c(payload),
        }
    }

    #[test]
    fn the_checksum_is_castagnoli_as_rfc_3720_gives_it() {
        // RFC 3720 appendix B.4, and the check value of the CRC catalogue.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn a_header_is_laid_out_as_documented() {
        let bytes = header(1, b"abc").encode();
        assert_eq!(bytes[..16], [b'O', b'N', b'R', b'B', 1, 1, 1, 0, 3, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(bytes[16..24], 7_u64.to_le_bytes());
        assert_eq!(bytes[24..32], 1_u64.to_le_bytes());
        assert_eq!(bytes[32..64], [0; 32]);
        assert_eq!(bytes[64..96], [1; 32]);
        assert_eq!(bytes[104..112], 9_u64.to_le_bytes());
        assert_eq!(bytes[144..152], 77_u64.to_le_bytes());
        assert_eq!(bytes[152..156], 0x364b_3fb7_u32.to_le_bytes(), "CRC-32C of abc");
        assert_eq!(Header::decode(&bytes), Some(header(1, b"abc")));
    }

    #[test]
    fn a_flip_of_any_bit_of_a_header_is_seen() {
        let sound = header(1, b"abc").encode();
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = sound;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_memory_is_given() {
        let long = Header { length: MAX_PAYLOAD + 1, ..header(1, b"") };
        assert_eq!(Header::decode(&long.encode()), None);
    }
}
