//! Where parsing stands in a packet: the captured bytes from here on, and how many there were on the wire.

use super::{packet::Unparsed, read};
use crate::record::{Layer, Reason};

/// A position in a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    /// Captured bytes from here on.
    pub(super) data: &'a [u8],
    /// Bytes on the wire from here on; never fewer than are captured.
    pub(super) wire: u32,
}

impl<'a> Cursor<'a> {
    /// The start of a packet whose stated wire length is taken only where it is not below what is there.
    pub(super) fn new(data: &'a [u8], wire_length: u32) -> Self {
        Self { data, wire: wire_length.max(saturate(data.len())) }
    }

    /// The position `count` bytes on; none where fewer are captured.
    pub(super) fn skip(self, count: usize) -> Option<Self> {
        let data = self.data.get(count..)?;
        Some(Self { data, wire: self.wire.saturating_sub(saturate(count)) })
    }

    /// The 16 bits `at` bytes on.
    pub(super) fn be16(self, at: usize) -> Option<u16> {
        read::be16(self.data, at)
    }

    /// The 32 bits `at` bytes on.
    pub(super) fn be32(self, at: usize) -> Option<u32> {
        read::be32(self.data, at)
    }

    /// The byte `at` bytes on.
    pub(super) fn byte(self, at: usize) -> Option<u8> {
        self.data.get(at).copied()
    }
}

/// A length as 32 bits; no packet is longer.
#[inline]
pub(super) fn saturate(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Parsing stopped at the link header.
pub(super) const fn at_link(reason: Reason) -> Unparsed {
    Unparsed { layer: Layer::Link, reason }
}

/// Parsing stopped at a tag or shim.
pub(super) const fn at_shim(reason: Reason) -> Unparsed {
    Unparsed { layer: Layer::Shim, reason }
}

/// Parsing stopped at the network header.
pub(super) const fn at_network(reason: Reason) -> Unparsed {
    Unparsed { layer: Layer::Network, reason }
}
