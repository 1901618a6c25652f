//! Records as JSON lines. Flows and observations, which come by the hundred thousand, have an encoder of their own
//! (`flow.rs`, `observation.rs`) that writes straight into the buffer of the file; what it does not know how to write
//! takes the general way (`general.rs`), as findings always do. Both write byte for byte what `serde_json` writes.

mod flow;
mod general;
mod names;
mod observation;
mod pen;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use onenet_core::record::FindingChange;
use serde::Serialize;

use self::{general::Json, names::Names, pen::ROOM};
use super::RecordWriter;

/// Bytes of one write. Writes of this size, each at a multiple of it, cost the system least: half of what 64 KiB at any
/// place do, and a fourth of 1 MiB.
const WRITE: usize = 128 * 1024;

/// A record that can be a line.
pub(crate) trait Line: Serialize {
    /// Writes it and a line feed at the beginning of a place, and says how long it is; none where it has to take the
    /// general way, whatever stands in the place then.
    fn write_into(&self, _room: &mut [u8; ROOM], _names: &mut Names) -> Option<usize> {
        None
    }
}

impl Line for FindingChange {}

/// One JSON object per line.
pub(super) struct JsonWriter<W: Write> {
    out: W,
    /// Lines that are not written out yet, less than one write, and room for a line behind them.
    buffer: Vec<u8>,
    used: usize,
    names: Names,
    /// A line that took the general way.
    line: Vec<u8>,
}

impl<W: Write> JsonWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self::with_writes(out, WRITE)
    }

    /// With writes of so many bytes.
    pub(super) fn with_writes(out: W, bytes: usize) -> Self {
        let buffer = vec![0; bytes.max(1).saturating_add(ROOM)];
        Self { out, buffer, used: 0, names: Names::default(), line: Vec::new() }
    }

    /// Takes so many bytes more as written, and writes out what is whole writes.
    fn advance(&mut self, bytes: usize) -> io::Result<()> {
        self.used = self.used.saturating_add(bytes).min(self.buffer.len());
        let write = self.buffer.len().saturating_sub(ROOM).max(1);
        if self.used < write {
            return Ok(());
        }
        let whole = self.used - self.used % write;
        self.out.write_all(self.buffer.get(..whole).unwrap_or_default())?;
        self.buffer.copy_within(whole..self.used, 0);
        self.used -= whole;
        Ok(())
    }

    /// Writes out all there is.
    fn hand_on(&mut self) -> io::Result<()> {
        let gathered = self.buffer.get(..self.used).unwrap_or_default();
        self.used = 0;
        self.out.write_all(gathered)
    }

    /// Writes a record the general way.
    fn write_line(&mut self, record: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        record.serialize(Json(&mut self.line))?;
        self.line.push(b'\n');
        match self.buffer.get_mut(self.used..).and_then(|free| free.get_mut(..self.line.len())) {
            Some(place) => {
                place.copy_from_slice(&self.line);
                self.advance(self.line.len())
            }
            None => {
                self.hand_on()?;
                self.out.write_all(&self.line)
            }
        }
    }
}

impl<W: Write, R: Line> RecordWriter<R> for JsonWriter<W> {
    fn write(&mut self, record: &R) -> io::Result<()> {
        let room = self.buffer.get_mut(self.used..).and_then(|free| free.first_chunk_mut());
        match room.and_then(|room| record.write_into(room, &mut self.names)) {
            Some(length) => self.advance(length),
            None => self.write_line(record),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_on()?;
        self.out.flush()
    }
}
