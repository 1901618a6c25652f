//! What only odd TCP connections have: losses, holes, closed windows, repeated numbers. It stands in memory of its
//! own, made when the first of it happens.

use arrayvec::ArrayVec;

use super::{key::Side, sequence::PARTS};

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
    /// Parts of the stream seen behind a hole, in order, apart from each other.
    pub(super) parts: ArrayVec<(i64, i64), PARTS>,
}

/// What is rare of both sides, where there is any.
#[derive(Clone, Debug, Default)]
pub(super) struct Rare(Option<Box<[RareSide; 2]>>);

impl Rare {
    pub(super) fn get(&self, side: Side) -> Option<&RareSide> {
        self.0.as_ref().map(|sides| &sides[side])
    }

    pub(super) fn get_mut(&mut self, side: Side) -> Option<&mut RareSide> {
        self.0.as_mut().map(|sides| &mut sides[side])
    }

    /// The same, made where there was none.
    pub(super) fn make(&mut self, side: Side) -> &mut RareSide {
        &mut self.0.get_or_insert_default()[side]
    }

    /// Begins a new part.
    pub(super) fn begin_part(&mut self) {
        for side in self.0.iter_mut().flat_map(|sides| sides.iter_mut()) {
            side.losses = Losses::default();
        }
    }
}
