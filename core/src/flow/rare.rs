//! What only odd TCP connections have: losses, holes, closed windows, repeated numbers, numbers past 32 bits. It
//! stands in memory of its own, made when the first of it happens.

use arrayvec::ArrayVec;

use super::{history::Many, key::Side, sequence::PARTS};

/// What was sent again by one side, what of it was never seen, and how often it had no room, in the current
/// part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// Segments with payload that brought nothing new.
    pub(super) retransmissions: u64,
    /// Payload bytes that were acknowledged and never seen.
    pub(super) missed_bytes: u64,
    /// Segments that closed the window.
    pub(super) zero_windows: u64,
}

/// What is rare of one side, over the whole connection but for the losses.
#[derive(Clone, Debug, Default)]
pub(super) struct RareSide {
    pub(super) losses: Losses,
    pub(super) retransmissions: u64,
    pub(super) zero_windows: u32,
    /// Segments rejected for their checksum.
    pub(super) rejected: u32,
    /// Holes in the stream.
    pub(super) gaps: u32,
    /// Number of the last SYN, where that is not where the stream begins.
    pub(super) last_syn: u32,
    /// One past the FIN, where that is not the last number sent; zero without one.
    pub(super) fin: i64,
    /// Number of the last FIN for the history, where that is not the one before [`Self::fin`].
    pub(super) last_fin: Option<u32>,
    /// Number of the last RST, where that is not the last number sent or the one before.
    pub(super) last_rst: u32,
    /// What the numbers of the stream have above 32 bits.
    pub(super) high: [u16; 3],
    /// Parts of the stream seen behind a hole.
    pub(super) parts: Parts,
}

/// Parts of the stream seen behind a hole, in order, apart from each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts(Option<Box<ArrayVec<(i64, i64), PARTS>>>);

impl Parts {
    pub(super) fn is_empty(&self) -> bool {
        self.first().is_none()
    }

    /// The part that begins first.
    pub(super) fn first(&self) -> Option<(i64, i64)> {
        self.0.as_ref()?.first().copied()
    }

    /// Takes out the part that begins first.
    pub(super) fn pop_first(&mut self) {
        if let Some(parts) = self.0.as_mut().filter(|parts| !parts.is_empty()) {
            parts.remove(0);
        }
    }

    /// All of them, to be changed.
    pub(super) fn all(&mut self) -> &mut ArrayVec<(i64, i64), PARTS> {
        self.0.get_or_insert_default()
    }
}

/// What is rare of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct RareBoth {
    pub(super) sides: [RareSide; 2],
    /// The history behind its first few letters.
    pub(super) many: Option<Box<Many>>,
    /// Nanoseconds from SYN to SYN-ACK, where that is more than 32 bits of them.
    pub(super) out: i64,
}

/// The same, where there is any.
#[derive(Clone, Debug, Default)]
pub(super) struct Rare(Option<Box<RareBoth>>);

impl Rare {
    #[inline]
    pub(super) const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn both(&self) -> Option<&RareBoth> {
        self.0.as_deref()
    }

    #[inline]
    pub(super) fn get(&self, side: Side) -> Option<&RareSide> {
        self.0.as_ref().map(|both| &both.sides[side & 1])
    }

    #[inline]
    pub(super) fn get_mut(&mut self, side: Side) -> Option<&mut RareSide> {
        self.0.as_mut().map(|both| &mut both.sides[side & 1])
    }

    /// The same, made where there was none.
    pub(super) fn make_both(&mut self) -> &mut RareBoth {
        self.0.get_or_insert_default()
    }

    /// The same, made where there was none.
    pub(super) fn make(&mut self, side: Side) -> &mut RareSide {
        &mut self.make_both().sides[side & 1]
    }

    /// Begins a new part.
    pub(super) fn begin_part(&mut self) {
        for side in self.0.iter_mut().flat_map(|both| both.sides.iter_mut()) {
            side.losses = Losses::default();
        }
    }
}
