//! Sequence space of one end of a TCP connection, in 48 bits relative to its SYN, and what of it was seen.

use super::{
    key::Side,
    rare::{Rare, RareSide},
};

/// Parts of the stream behind a hole that are remembered; with more, the earliest holes are taken as filled.
pub(super) const PARTS: usize = 8;

/// A SYN or RST this far from what is expected is not believed.
const TOO_FAR: i64 = 1 << 20;

/// A number of the stream is less than 140 terabytes; beyond, it stays where it is.
const MOST: i64 = (1 << 47) - 1;

/// The numbers of one end as they are kept: the low halves. What is above stands with what is rare.
#[derive(Clone, Debug, Default)]
pub(super) struct Packed {
    pub(super) start: u32,
    pub(super) last: u32,
    pub(super) acknowledged: u32,
    pub(super) delivered: u32,
}

/// What is known of the sequence numbers of one end. The SYN is 0, data starts at 1; no number is negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sequence {
    start: u32,
    /// One past the highest number sent.
    last: i64,
    /// Highest number acknowledged.
    acknowledged: i64,
    /// Everything before was seen, or given up.
    delivered: i64,
}

impl Packed {
    /// The numbers in full.
    #[inline]
    pub(super) fn open(&self, rare: Option<&RareSide>) -> Sequence {
        let high = match rare {
            None => [0; 3],
            Some(rare) => rare.high.map(|high| i64::from(high) << 32),
        };
        Sequence {
            start: self.start,
            last: high[0] | i64::from(self.last),
            acknowledged: high[1] | i64::from(self.acknowledged),
            delivered: high[2] | i64::from(self.delivered),
        }
    }
}

impl Sequence {
    /// A number within bounds.
    #[inline]
    pub(super) const fn bounded(number: i64) -> i64 {
        if number > MOST { MOST } else { number }
    }

    /// The low halves.
    #[inline]
    pub(super) const fn packed(&self) -> Packed {
        let &Self { start, last, acknowledged, delivered } = self;
        Packed { start, last: low(last), acknowledged: low(acknowledged), delivered: low(delivered) }
    }

    /// What is above the low halves.
    pub(super) const fn high(&self) -> [u16; 3] {
        [high(self.last), high(self.acknowledged), high(self.delivered)]
    }

    /// Whether anything is above the low halves.
    #[inline]
    pub(super) const fn is_long(&self) -> bool {
        (self.last | self.acknowledged | self.delivered) >> 32 != 0
    }

    /// Sets the number of the SYN, and how far the end has sent.
    #[inline]
    pub(super) const fn begin(&mut self, start: u32, last: i64) {
        self.start = start;
        self.last = last;
        self.acknowledged = 0;
        if self.delivered == 0 {
            self.delivered = 1;
        }
    }

    /// Number of the SYN.
    #[inline]
    pub(super) const fn start(&self) -> u32 {
        self.start
    }

    /// One past the highest number sent.
    #[inline]
    pub(super) const fn last(&self) -> i64 {
        self.last
    }

    /// A sequence number relative to the start, by its distance from the last one.
    #[inline]
    pub(super) const fn relative(&self, number: u32) -> i64 {
        self.near(self.last, number)
    }

    #[inline]
    const fn near(&self, reference: i64, number: u32) -> i64 {
        let absolute = self.start.wrapping_add(low(reference));
        // A number of 48 bits and a distance of 32.
        reference.wrapping_add(number.wrapping_sub(absolute).cast_signed() as i64)
    }

    /// Moves on to `past`, one past a segment. True if it brings nothing new. `trusted` is false once the end
    /// has sent a RST.
    #[inline]
    pub(super) const fn advance(&mut self, past: u32, control: bool, fin: bool, trusted: bool) -> bool {
        let ahead = past.wrapping_sub(self.start.wrapping_add(low(self.last)));
        let delta = ahead.cast_signed() as i64;
        if control && (delta > TOO_FAR || delta < -TOO_FAR) {
            return false;
        }
        if fin && self.last == 1 {
            // A FIN right behind the SYN: however far ahead it is, everything between was not seen.
            self.last = Self::bounded(self.last.wrapping_add(ahead as i64));
            return false;
        }
        if !trusted {
            return false;
        }
        if delta > 0 {
            self.last = Self::bounded(self.last.wrapping_add(delta));
        }
        delta <= 0
    }

    /// Takes an acknowledgement; gives it relative to the start, 0 if it lies before.
    #[inline]
    pub(super) const fn acknowledge(&mut self, number: u32, trusted: bool) -> i64 {
        let relative = self.near(self.acknowledged, number);
        if relative < 0 {
            return 0;
        }
        let delta = relative.wrapping_sub(self.acknowledged);
        let broken = number == 0 && delta > TOO_FAR;
        if trusted && delta > 0 && !broken {
            self.acknowledged = Self::bounded(relative);
        }
        relative
    }

    /// Whether any data was acknowledged.
    pub(super) const fn is_anything_acknowledged(&self) -> bool {
        self.acknowledged > 0
    }

    /// Bytes of data by the numbers sent and acknowledged.
    pub(super) fn size(&self, has_fin: bool) -> i64 {
        let size = self.last.max(self.acknowledged);
        size.saturating_sub(1).max(0).saturating_sub(has_fin.into()).max(0)
    }

    /// Notes data that was seen.
    #[inline]
    pub(super) fn deliver(&mut self, from: i64, length: u32, rare: &mut Rare, side: Side) {
        let to = from.saturating_add(length.into());
        if from < self.acknowledged && to <= self.acknowledged {
            return;
        }
        if from > self.delivered {
            self.remember(from, to, rare.make(side));
            return;
        }
        self.move_on(to);
        if let Some(rare) = rare.get_mut(side) {
            self.join(rare);
        }
    }

    #[inline]
    fn move_on(&mut self, to: i64) {
        self.delivered = Self::bounded(self.delivered.max(to));
    }

    /// Keeps a part that lies behind a hole.
    #[cold]
    fn remember(&mut self, mut from: i64, mut to: i64, rare: &mut RareSide) {
        let parts = rare.parts.all();
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
            self.move_on(first.1);
        }
        let at = parts.partition_point(|part| part.0 < from);
        parts.insert(at, (from, to));
        self.join(rare);
    }

    /// Moves on over remembered parts that are no longer behind a hole.
    fn join(&mut self, rare: &mut RareSide) {
        while let Some((from, to)) = rare.parts.first() {
            if from > self.delivered {
                return;
            }
            self.move_on(to);
            rare.parts.pop_first();
        }
    }

    /// Whether data before an acknowledged number was not seen; `fin` is one past the FIN, zero without one. Gives
    /// where that data ends.
    #[inline]
    pub(super) const fn lacks(&self, number: i64, fin: i64, partial: bool) -> Option<i64> {
        let number = if fin > 0 && number >= fin { fin.saturating_sub(1) } else { number };
        // A connection met in midstream starts with numbers made up for it.
        if number <= self.delivered || partial && number <= 2 { None } else { Some(number) }
    }

    /// Gives up everything before a number, where no part behind a hole is remembered.
    pub(super) const fn give_up(&mut self, number: i64) {
        self.delivered = Self::bounded(number);
    }

    /// Gives up the first hole before a number; gives its length. None where there is none.
    pub(super) fn give_up_hole(&mut self, number: i64, rare: &mut RareSide) -> Option<u64> {
        let before = self.delivered;
        if before >= number {
            return None;
        }
        let hole_end = match rare.parts.first() {
            Some((from, _)) if from < number => from,
            _ => number,
        };
        self.delivered = Self::bounded(hole_end);
        if self.delivered <= before {
            // At the end of 48 bits.
            return None;
        }
        self.join(rare);
        Some(hole_end.saturating_sub(before).cast_unsigned())
    }
}

/// The low half: the distance in sequence space.
#[inline]
pub(super) const fn low(relative: i64) -> u32 {
    let [.., a, b, c, d] = relative.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// What a number of 48 bits has above 32.
const fn high(number: i64) -> u16 {
    let [_, _, a, b, ..] = number.to_be_bytes();
    u16::from_be_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream with what is rare of it.
    #[derive(Default)]
    struct Stream(Sequence, Rare);

    impl Stream {
        fn begun() -> Self {
            let mut stream = Self::default();
            stream.0.begin(0, 1);
            stream
        }

        fn deliver(&mut self, from: i64, length: u32) {
            self.0.deliver(from, length, &mut self.1, 0);
        }
    }

    fn gaps(Stream(sequence, rare): &mut Stream, acknowledged: i64) -> Vec<u64> {
        std::iter::from_fn(|| sequence.give_up_hole(acknowledged, rare.make(0))).collect()
    }

    #[test]
    fn numbers_are_kept_in_halves_and_stay_within_48_bits() {
        let mut rare = RareSide::default();
        for number in [0, 1, 0xffff_ffff, 1 << 32, 1 << 40, MOST] {
            let mut sequence = Sequence { start: 7, last: number, acknowledged: 5, delivered: number };
            sequence.move_on(i64::MAX);
            rare.high = sequence.high();
            assert_eq!(sequence.packed().open(Some(&rare)), sequence);
            assert_eq!(sequence.is_long(), rare.high != [0; 3]);
            assert_eq!(sequence.delivered, MOST);
        }
    }

    #[test]
    fn numbers_are_followed_over_the_end_of_32_bits() {
        let mut sequence = Sequence::default();
        sequence.begin(u32::MAX - 9, 1);
        for step in 0..20_u32 {
            let past = (u32::MAX - 8).wrapping_add((step + 1).wrapping_mul(1 << 30));
            assert!(!sequence.advance(past, false, false, true));
        }
        assert_eq!(sequence.size(false), 20 << 30);
        assert!(sequence.advance(u32::MAX - 8, false, false, true) || sequence.size(false) == 20 << 30);
    }

    #[test]
    fn a_hole_that_is_filled_in_time_is_no_gap() {
        let mut sequence = Stream::begun();
        sequence.deliver(101, 100);
        sequence.deliver(1, 100);
        assert_eq!(gaps(&mut sequence, 201), Vec::<u64>::new());
    }

    #[test]
    fn acknowledged_holes_are_told_one_by_one() {
        let mut sequence = Stream::begun();
        sequence.deliver(11, 10);
        sequence.deliver(31, 10);
        assert_eq!(gaps(&mut sequence, 51), [10, 10, 10]);
        assert_eq!(gaps(&mut sequence, 51), Vec::<u64>::new());
    }

    #[test]
    fn memory_for_holes_is_bounded_and_the_earliest_are_given_up_silently() {
        let mut sequence = Stream::begun();
        for part in 1..100 {
            sequence.deliver(part * 100, 10);
        }
        let found = gaps(&mut sequence, 10_000);
        assert!(found.len() <= PARTS + 1, "{found:?}");
    }
}
