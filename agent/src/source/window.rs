//! A window that slides over a stream: the reader asks for so many bytes in one piece, reads them in place,
//! and moves on. It grows only as far as data really arrives, whatever a length field claims.

use std::io::{self, Read};

/// Bytes asked of the stream at once: enough that the calls cost nothing, few enough to stay in the second-level
/// cache, beside what else is in it, until they are decoded.
const START_SIZE: usize = 128 * 1024;

/// The window.
pub(super) struct Window {
    input: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the stream before `start`.
    offset: u64,
    ended: bool,
    failure: Option<io::Error>,
}

impl Window {
    pub(super) fn new(input: Box<dyn Read + Send>) -> Self {
        let buffer = vec![0; START_SIZE];
        Self { input, buffer, start: 0, end: 0, offset: 0, ended: false, failure: None }
    }

    /// Bytes of the stream that have been consumed.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Why the stream ended early, where reading failed and everything before that has been consumed as far
    /// as the reader could use it.
    pub(super) const fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Where the window begins in [`Window::slice`].
    pub(super) const fn position(&self) -> usize {
        self.start
    }

    /// Bytes by position; they stay until the next [`Window::have`] or [`Window::skip`].
    #[inline]
    pub(super) fn slice(&self, range: std::ops::Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or(&[])
    }

    /// Bytes that are there without reading on.
    #[inline]
    pub(super) fn at_hand(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or(&[])
    }

    /// The first `length` bytes, or fewer where the stream ends.
    pub(super) fn have(&mut self, length: usize) -> &[u8] {
        if self.end - self.start < length {
            self.fill(length);
        }
        let end = self.end.min(self.start.saturating_add(length));
        self.buffer.get(self.start..end).unwrap_or(&[])
    }

    /// Moves on behind bytes that `have` returned.
    #[inline]
    pub(super) fn consume(&mut self, length: usize) {
        let length = length.min(self.end - self.start);
        self.start += length;
        self.offset += length as u64;
    }

    /// Moves on by `length` bytes without keeping them; how many there were.
    pub(super) fn skip(&mut self, length: u64) -> u64 {
        let mut left = length;
        while left > 0 {
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(START_SIZE);
            let have = self.have(step).len();
            if have == 0 {
                break;
            }
            self.consume(have);
            left -= have as u64;
        }
        length - left
    }

    #[cold]
    fn fill(&mut self, length: usize) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < length && !self.ended {
            if self.end == self.buffer.len() {
                let size = self.buffer.len().saturating_mul(2).min(length.max(START_SIZE));
                self.buffer.resize(size, 0);
            }
            let Some(room) = self.buffer.get_mut(self.end..) else { break };
            match self.input.read(room) {
                Ok(0) => self.ended = true,
                Ok(read) => self.end = self.end.saturating_add(read).min(self.buffer.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failure = Some(error);
                    self.ended = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, then an error.
    struct Drip(usize);

    impl Read for Drip {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("broken"));
            }
            self.0 -= 1;
            buffer[0] = 7;
            Ok(1)
        }
    }

    #[test]
    fn what_came_before_a_failure_is_still_there() {
        let mut window = Window::new(Box::new(Drip(5)));
        assert_eq!(window.have(3), [7; 3]);
        window.consume(3);
        assert_eq!(window.have(3), [7; 2]);
        assert_eq!(window.offset(), 3);
        assert_eq!(window.take_failure().map(|e| e.to_string()).as_deref(), Some("broken"));
    }

    #[test]
    fn the_window_grows_with_the_data_and_not_with_the_claim() {
        let mut window = Window::new(Box::new(io::repeat(1).take(400_000)));
        assert_eq!(window.have(1 << 24).len(), 400_000);
        assert!(window.buffer.len() <= 4 * START_SIZE, "{}", window.buffer.len());
        assert_eq!(window.skip(1 << 30), 400_000);
    }
}
