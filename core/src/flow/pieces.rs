//! What of a fragmented datagram was seen: ranges of bytes, and no bytes.

/// Fragments of one datagram that are told apart: as many as the longest datagram has over a link of 576 bytes
/// (RFC 791). Of a datagram in more than that no overlap is seen, and it never is whole.
const PIECES: usize = 128;

/// One fragment: the bytes it covers, and a digest of what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: u16,
    end: u16,
    digest: u32,
}

/// The fragments of one datagram, in order of their start.
#[derive(Clone, Debug, Default)]
pub(super) struct Pieces {
    pieces: Vec<Piece>,
    total: Option<u16>,
    /// There were more than are told apart.
    too_many: bool,
}

/// What a fragment is to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It covers what none of them does.
    New,
    /// One of them was the same, as when a packet is captured twice.
    Repeat,
    /// It covers bytes that others cover, or ends the datagram elsewhere.
    Overlap,
}

impl Pieces {
    /// Takes a fragment of `length` bytes at `start`.
    pub(super) fn add(&mut self, start: u16, length: u32, more: bool, digest: u32) -> Fit {
        let end = u16::try_from(u32::from(start).saturating_add(length)).unwrap_or(u16::MAX);
        let piece = Piece { start, end, digest };
        if self.pieces.contains(&piece) {
            return Fit::Repeat;
        }
        let mut overlaps = self.pieces.iter().any(|other| start < other.end && other.start < end);
        if !more {
            overlaps |= self.total.is_some_and(|total| total != end);
            self.total = Some(self.total.map_or(end, |total| total.min(end)));
        }
        if self.pieces.len() < PIECES {
            let at = self.pieces.partition_point(|other| other.start <= start);
            self.pieces.insert(at, piece);
        } else {
            self.too_many = true;
        }
        if overlaps { Fit::Overlap } else { Fit::New }
    }

    /// Bytes of the datagram behind its headers, once none is missing.
    pub(super) fn whole(&self) -> Option<u16> {
        let total = self.total.filter(|_| !self.too_many)?;
        let mut seen = 0;
        for piece in &self.pieces {
            if piece.start > seen {
                return None;
            }
            seen = seen.max(piece.end);
        }
        (seen >= total).then_some(total)
    }

    /// Begins anew: identifications are used again.
    pub(super) fn clear(&mut self) {
        *self = Self { pieces: std::mem::take(&mut self.pieces), ..Self::default() };
        self.pieces.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(fragments: &[(u16, u32, bool, u32)]) -> (Vec<Fit>, Option<u16>) {
        let mut pieces = Pieces::default();
        let fits =
            fragments.iter().map(|&(start, length, more, digest)| pieces.add(start, length, more, digest));
        (fits.collect(), pieces.whole())
    }

    #[test]
    fn a_datagram_is_whole_in_any_order_and_not_before() {
        let [a, b, c] = [(0, 16, true, 1), (16, 16, true, 2), (32, 5, false, 3)];
        for order in [[a, b, c], [c, b, a], [b, c, a], [c, a, b]] {
            assert_eq!(run(&order), (vec![Fit::New; 3], Some(37)));
            assert_eq!(run(&order[..2]).1, None);
        }
    }

    #[test]
    fn repeats_are_no_overlaps_and_overlaps_of_every_kind_are() {
        use Fit::{New, Overlap, Repeat};
        let base = (8, 16, true, 1);
        for (other, fit) in [
            (base, Repeat),
            ((8, 16, true, 2), Overlap),
            ((0, 8, true, 2), New),
            ((24, 8, true, 2), New),
            ((0, 16, true, 2), Overlap),
            ((16, 16, true, 2), Overlap),
            ((16, 8, true, 2), Overlap),
            ((0, 40, true, 2), Overlap),
        ] {
            assert_eq!(run(&[base, other]).0, [New, fit], "{other:?}");
        }
        assert_eq!(run(&[(16, 8, false, 1), (32, 8, false, 1)]).0, [New, Overlap], "two ends");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_lengths_beyond_the_largest_datagram_harm_nothing() {
        let mut pieces = Pieces::default();
        for start in 0..1_000 {
            pieces.add(start * 8, 8, start < 999, 0);
        }
        assert_eq!((pieces.pieces.len(), pieces.whole()), (PIECES, None));
        assert_eq!(run(&[(65_528, u32::MAX, false, 0)]).1, None);
    }
}
