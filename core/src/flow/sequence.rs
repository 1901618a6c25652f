//! Sequence space of one end of a TCP connection, in 64 bits relative to its SYN, and what of it was seen.

use arrayvec::ArrayVec;

/// Parts of the stream behind a hole that are remembered; with more, the earliest holes are taken as filled.
const PARTS: usize = 8;

/// A SYN or RST this far from what is expected is not believed.
const TOO_FAR: i64 = 1 << 20;

/// One hole in the stream that was acknowledged, so that it was never seen here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// Its length.
    pub bytes: u64,
    /// Which hole of this end it is, from 1.
    pub count: u64,
}

/// What is known of the sequence numbers of one end. The SYN is 0, data starts at 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequence {
    start: u32,
    gaps: u32,
    retransmissions: u64,
    /// One past the highest number sent.
    last: i64,
    /// Highest number acknowledged.
    acknowledged: i64,
    /// Everything before was seen, or given up.
    delivered: i64,
    /// One past the FIN; zero without one.
    fin: i64,
    /// Parts seen behind a hole, in order, apart from each other.
    parts: Option<Box<ArrayVec<(i64, i64), PARTS>>>,
}

impl Sequence {
    /// Sets the number of the SYN, and how far the end has sent.
    pub(super) fn begin(&mut self, start: u32, last: i64) {
        self.start = start;
        self.last = last;
        self.acknowledged = 0;
        if self.delivered == 0 {
            self.delivered = 1;
        }
    }

    /// Number of the SYN.
    pub(super) const fn start(&self) -> u32 {
        self.start
    }

    /// A sequence number relative to the start, by its distance from the last one.
    pub(super) const fn relative(&self, number: u32) -> i64 {
        self.near(self.last, number)
    }

    const fn near(&self, reference: i64, number: u32) -> i64 {
        let absolute = self.start.wrapping_add(low(reference));
        reference.saturating_add(number.wrapping_sub(absolute).cast_signed() as i64)
    }

    /// Notes a FIN that ends before `past`.
    pub(super) const fn fin(&mut self, past: i64) {
        self.fin = past;
    }

    /// Moves on to `past`, one past a segment. True if it brings nothing new. `trusted` is false once the end
    /// has sent a RST.
    pub(super) const fn advance(&mut self, past: u32, control: bool, fin: bool, trusted: bool) -> bool {
        let delta = self.near(self.last, past).saturating_sub(self.last);
        if control && (delta > TOO_FAR || delta < -TOO_FAR) {
            return false;
        }
        if fin && self.last == 1 {
            // A FIN right behind the SYN: however far ahead it is, everything between was not seen.
            let absolute = self.start.wrapping_add(low(self.last));
            self.last = self.last.saturating_add(past.wrapping_sub(absolute) as i64);
            return false;
        }
        if !trusted {
            return false;
        }
        if delta > 0 {
            self.last = self.last.saturating_add(delta);
        }
        delta <= 0
    }

    /// Takes an acknowledgement; gives it relative to the start, 0 if it lies before.
    pub(super) const fn acknowledge(&mut self, number: u32, trusted: bool) -> i64 {
        let relative = self.near(self.acknowledged, number);
        if relative < 0 {
            return 0;
        }
        let delta = relative.saturating_sub(self.acknowledged);
        let broken = number == 0 && delta > TOO_FAR;
        if trusted && delta > 0 && !broken {
            self.acknowledged = relative;
        }
        relative
    }

    /// Counts a retransmission; gives how many there were.
    pub(super) const fn count_retransmission(&mut self) -> u64 {
        self.retransmissions = self.retransmissions.saturating_add(1);
        self.retransmissions
    }

    /// Whether any data was acknowledged.
    pub(super) const fn is_anything_acknowledged(&self) -> bool {
        self.acknowledged > 0
    }

    /// Bytes of data by the numbers sent and acknowledged.
    pub(super) fn size(&self) -> i64 {
        let size = self.last.max(self.acknowledged);
        let without_syn = size.saturating_sub(1).max(0);
        if self.fin > 0 { without_syn.saturating_sub(1).max(0) } else { without_syn }
    }

    /// Notes data that was seen.
    pub(super) fn deliver(&mut self, from: i64, length: u32) {
        let to = from.saturating_add(length.into());
        if from < self.acknowledged && to <= self.acknowledged {
            return;
        }
        if from > self.delivered {
            self.remember(from, to);
            return;
        }
        self.delivered = self.delivered.max(to);
        self.join();
    }

    /// Keeps a part that lies behind a hole.
    fn remember(&mut self, mut from: i64, mut to: i64) {
        let parts = self.parts.get_or_insert_default();
        parts.retain(|part| {
            let apart = part.1 < from || to < part.0;
            if !apart {
                from = from.min(part.0);
                to = to.max(part.1);
            }
            apart
        });
        if parts.is_full() {
            let first = parts.remove(0);
            self.delivered = self.delivered.max(first.1);
        }
        let at = parts.partition_point(|part| part.0 < from);
        parts.insert(at, (from, to));
        self.join();
    }

    /// Moves on over remembered parts that are no longer behind a hole.
    fn join(&mut self) {
        let Some(parts) = &mut self.parts else { return };
        while let Some(&(from, to)) = parts.first() {
            if from > self.delivered {
                return;
            }
            self.delivered = self.delivered.max(to);
            parts.remove(0);
        }
        self.parts = None;
    }

    /// Gives up the holes before an acknowledged number, telling each; `report` says whether it counts as a gap
    /// of this end.
    pub(super) fn acknowledged_up_to(
        &mut self,
        mut number: i64,
        partial: bool,
        mut report: impl FnMut(Missing) -> bool,
    ) {
        if self.fin > 0 && number >= self.fin {
            number = self.fin.saturating_sub(1);
        }
        // A connection met in midstream starts with numbers made up for it.
        if number <= self.delivered || partial && number <= 2 {
            return;
        }
        while self.delivered < number {
            let hole_end = match self.parts.as_ref().and_then(|parts| parts.first()) {
                Some(&(from, _)) if from < number => from,
                _ => number,
            };
            let bytes = hole_end.saturating_sub(self.delivered).cast_unsigned();
            self.delivered = hole_end;
            if report(Missing { bytes, count: u64::from(self.gaps).saturating_add(1) }) {
                self.gaps = self.gaps.saturating_add(1);
            }
            self.join();
        }
    }
}

/// The low half: the distance in sequence space.
pub(super) const fn low(relative: i64) -> u32 {
    let [.., a, b, c, d] = relative.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(sequence: &mut Sequence, acknowledged: i64) -> Vec<u64> {
        let mut found = Vec::new();
        sequence.acknowledged_up_to(acknowledged, false, |missing| {
            found.push(missing.bytes);
            true
        });
        found
    }

    #[test]
    fn numbers_are_followed_over_the_end_of_32_bits() {
        let mut sequence = Sequence::default();
        sequence.begin(u32::MAX - 9, 1);
        for step in 0..20_u32 {
            let past = (u32::MAX - 8).wrapping_add((step + 1).wrapping_mul(1 << 30));
            assert!(!sequence.advance(past, false, false, true));
        }
        assert_eq!(sequence.size(), 20 << 30);
        assert!(sequence.advance(u32::MAX - 8, false, false, true) || sequence.size() == 20 << 30);
    }

    #[test]
    fn a_hole_that_is_filled_in_time_is_no_gap() {
        let mut sequence = Sequence::default();
        sequence.begin(0, 1);
        sequence.deliver(101, 100);
        sequence.deliver(1, 100);
        assert_eq!(gaps(&mut sequence, 201), Vec::<u64>::new());
    }

    #[test]
    fn acknowledged_holes_are_told_one_by_one() {
        let mut sequence = Sequence::default();
        sequence.begin(0, 1);
        sequence.deliver(11, 10);
        sequence.deliver(31, 10);
        assert_eq!(gaps(&mut sequence, 51), [10, 10, 10]);
        assert_eq!(gaps(&mut sequence, 51), Vec::<u64>::new());
    }

    #[test]
    fn memory_for_holes_is_bounded_and_the_earliest_are_given_up_silently() {
        let mut sequence = Sequence::default();
        sequence.begin(0, 1);
        for part in 1..100 {
            sequence.deliver(part * 100, 10);
        }
        let found = gaps(&mut sequence, 10_000);
        assert!(found.len() <= PARTS + 1, "{found:?}");
    }
}
