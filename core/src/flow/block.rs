//! SHA-1 of messages that fit one block: the block is filled in place and compressed once, which spares most of what
//! a hash of bytes that come piece by piece costs.

use sha1::block_api::compress;

/// Bytes of message that one block holds; the rest is the padding.
const ROOM: usize = 55;

/// A message that is being put together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    bytes: [u8; 64],
    length: usize,
}

impl Block {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; 64], length: 0 }
    }

    /// Puts bytes behind what is there. What no longer fits is left out; messages here are made to fit.
    #[inline(always)]
    pub(super) fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        let place = self.bytes.get_mut(self.length..).and_then(|rest| rest.first_chunk_mut());
        if let Some(place) = place.filter(|_| self.length.saturating_add(N) <= ROOM) {
            *place = bytes;
            self.length += N;
        }
    }

    /// The SHA-1 of the message, as words.
    pub(super) fn digest(mut self) -> [u32; 5] {
        if let Some(end) = self.bytes.get_mut(self.length) {
            *end = 0x80;
        }
        if let Some(bits) = self.bytes.last_chunk_mut() {
            *bits = (self.length as u64 * 8).to_be_bytes();
        }
        let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
        compress(&mut state, &[self.bytes]);
        state
    }
}

#[cfg(test)]
mod tests {
    use sha1::{Digest, Sha1};

    use super::*;

    #[test]
    fn a_message_of_any_length_that_fits_is_hashed() {
        for length in 0..=ROOM {
            let (mut block, mut message) = (Block::new(), Vec::new());
            for byte in (0..length).filter_map(|at| u8::try_from(at * 7).ok()) {
                block.put([byte]);
                message.push(byte);
            }
            let words = block.digest().map(u32::to_be_bytes);
            assert_eq!(words.as_flattened(), Sha1::digest(&message).as_slice(), "{length}");
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut block = Block::new();
        block.put([1; 50]);
        let before = block.digest();
        block.put([2; 6]);
        assert_eq!(block.digest(), before);
        block.put([2; 5]);
        assert_ne!(block.digest(), before);
    }
}
