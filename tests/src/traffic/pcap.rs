//! Writes a capture file in the classic libpcap format: microseconds, little-endian, LINKTYPE_ETHERNET.

use std::{fs::File, io::BufWriter, io::Write, path::Path};

use anyhow::{Context, Result};
use onenet_core::time::Timestamp;

const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const SNAP_LENGTH: u32 = 262_144;
const LINKTYPE_ETHERNET: u32 = 1;

/// A capture file that is being written.
#[derive(Debug)]
pub(crate) struct PcapWriter {
    out: BufWriter<File>,
    packets: u64,
    bytes: u64,
}

impl PcapWriter {
    /// Creates the file and writes its header.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("{}: cannot be created", path.display()))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&MAGIC_MICROSECONDS.to_le_bytes())?;
        out.write_all(&[2, 0, 4, 0])?;
        for field in [0, 0, SNAP_LENGTH, LINKTYPE_ETHERNET] {
            out.write_all(&field.to_le_bytes())?;
        }
        Ok(Self { out, packets: 0, bytes: 0 })
    }

    /// Appends one packet.
    pub(crate) fn write(&mut self, time: Timestamp, frame: &[u8]) -> Result<()> {
        self.write_cut(time, frame, usize::MAX)
    }

    /// Appends one packet of which at most so many octets are kept.
    pub(crate) fn write_cut(&mut self, time: Timestamp, frame: &[u8], most: usize) -> Result<()> {
        let (seconds, nanos) = time.parts();
        let length = u32::try_from(frame.len())?;
        let kept = frame.get(..most).unwrap_or(frame);
        let header =
            [u32::try_from(seconds)?, u32::try_from(nanos / 1000)?, u32::try_from(kept.len())?, length];
        for field in header {
            self.out.write_all(&field.to_le_bytes())?;
        }
        self.out.write_all(kept)?;
        self.packets += 1;
        self.bytes += u64::from(length);
        Ok(())
    }

    /// Flushes the file and tells packets and bytes.
    pub(crate) fn finish(mut self) -> Result<(u64, u64)> {
        self.out.flush()?;
        Ok((self.packets, self.bytes))
    }
}
