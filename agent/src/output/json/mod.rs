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

/// What is gathered before it is written out: enough that the calls do not count, and little enough that it is still
/// in the cache when it is copied.
const BUFFER: usize = 256 * 1024;

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
    /// Lines that are not written out yet, and room behind them.
    buffer: Vec<u8>,
    used: usize,
    names: Names,
    /// A line that took the general way.
    line: Vec<u8>,
}

impl<W: Write> JsonWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self::with_buffer(out, BUFFER)
    }

    /// With a buffer of so many bytes beside the room for one line.
    pub(super) fn with_buffer(out: W, bytes: usize) -> Self {
        let buffer = vec![0; bytes.saturating_add(ROOM)];
        Self { out, buffer, used: 0, names: Names::default(), line: Vec::new() }
    }

    /// Writes out what has gathered.
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
        if self.line.len() > self.buffer.len().saturating_sub(self.used) {
            self.hand_on()?;
        }
        match self.buffer.get_mut(self.used..).and_then(|free| free.get_mut(..self.line.len())) {
            Some(place) => {
                place.copy_from_slice(&self.line);
                self.used += self.line.len();
                Ok(())
            }
            None => self.out.write_all(&self.line),
        }
    }
}

impl<W: Write, R: Line> RecordWriter<R> for JsonWriter<W> {
    fn write(&mut self, record: &R) -> io::Result<()> {
        if self.buffer.len().saturating_sub(self.used) < ROOM {
            self.hand_on()?;
        }
        let room = self.buffer.get_mut(self.used..).and_then(|free| free.first_chunk_mut());
        match room.and_then(|room| record.write_into(room, &mut self.names)) {
            Some(length) => {
                self.used += length;
                Ok(())
            }
            None => self.write_line(record),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_on()?;
        self.out.flush()
    }
}
