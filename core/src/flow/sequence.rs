//! Sequence space of one end of a TCP connection, in 64 bits relative to its SYN, and what of it was seen.

use super::{
    key::Side,
    rare::{Losses, Rare, RareSide},
};

/// Parts of the stream behind a hole that are remembered; with more, the earliest holes are taken as filled.
pub(super) const PARTS: usize = 8;

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

/// A number of the stream in 48 bits, which is 140 terabytes either way; beyond, it stays where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Number([u8; 6]);

impl Number {
    const fn new(number: i64) -> Self {
        const MOST: i64 = (1 << 47) - 1;
        let within = if number > MOST {
            MOST
        } else if number < -MOST {
            -MOST
        } else {
            number
        };
        let [a, b, c, d, e, f, ..] = within.to_le_bytes();
        Self([a, b, c, d, e, f])
    }

    const fn get(self) -> i64 {
        let [a, b, c, d, e, f] = self.0;
        let sign = if f & 0x80 == 0 { 0 } else { 0xff };
        i64::from_le_bytes([a, b, c, d, e, f, sign, sign])
    }
}

/// What is known of the sequence numbers of one end. The SYN is 0, data starts at 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequence {
    start: u32,
    /// One past the highest number sent.
    last: Number,
    /// Highest number acknowledged.
    acknowledged: Number,
    /// Everything before was seen, or given up.
    delivered: Number,
    /// One past the FIN; zero without one.
    fin: Number,
}

impl Sequence {
    /// Sets the number of the SYN, and how far the end has sent.
    pub(super) fn begin(&mut self, start: u32, last: i64) {
        self.start = start;
        self.last = Number::new(last);
        self.acknowledged = Number::new(0);
        if self.delivered.get() == 0 {
            self.delivered = Number::new(1);
        }
    }

    pub(super) const fn size_raw(&self) -> i64 {
        self.last.get()
    }

    /// Number of the SYN.
    pub(super) const fn start(&self) -> u32 {
        self.start
    }

    /// A sequence number relative to the start, by its distance from the last one.
    pub(super) const fn relative(&self, number: u32) -> i64 {
        self.near(self.last.get(), number)
    }

    const fn near(&self, reference: i64, number: u32) -> i64 {
        let absolute = self.start.wrapping_add(low(reference));
        reference.saturating_add(number.wrapping_sub(absolute).cast_signed() as i64)
    }

    /// Notes a FIN that ends before `past`.
    pub(super) const fn fin(&mut self, past: i64) {
        self.fin = Number::new(past);
    }

    /// Moves on to `past`, one past a segment. True if it brings nothing new. `trusted` is false once the end
    /// has sent a RST.
    pub(super) const fn advance(&mut self, past: u32, control: bool, fin: bool, trusted: bool) -> bool {
        let last = self.last.get();
        let delta = self.near(last, past).saturating_sub(last);
        if control && (delta > TOO_FAR || delta < -TOO_FAR) {
            return false;
        }
        if fin && last == 1 {
            // A FIN right behind the SYN: however far ahead it is, everything between was not seen.
            let absolute = self.start.wrapping_add(low(last));
            self.last = Number::new(last.saturating_add(past.wrapping_sub(absolute) as i64));
            return false;
        }
        if !trusted {
            return false;
        }
        if delta > 0 {
            self.last = Number::new(last.saturating_add(delta));
        }
        delta <= 0
    }

    /// Takes an acknowledgement; gives it relative to the start, 0 if it lies before.
    pub(super) const fn acknowledge(&mut self, number: u32, trusted: bool) -> i64 {
        let acknowledged = self.acknowledged.get();
        let relative = self.near(acknowledged, number);
        if relative < 0 {
            return 0;
        }
        let delta = relative.saturating_sub(acknowledged);
        let broken = number == 0 && delta > TOO_FAR;
        if trusted && delta > 0 && !broken {
            self.acknowledged = Number::new(relative);
        }
        relative
    }

    /// Whether any data was acknowledged.
    pub(super) const fn is_anything_acknowledged(&self) -> bool {
        self.acknowledged.get() > 0
    }

    /// Bytes of data by the numbers sent and acknowledged.
    pub(super) fn size(&self) -> i64 {
        let size = self.last.get().max(self.acknowledged.get());
        let without_syn = size.saturating_sub(1).max(0);
        if self.fin.get() > 0 { without_syn.saturating_sub(1).max(0) } else { without_syn }
    }

    /// Notes data that was seen.
    pub(super) fn deliver(&mut self, from: i64, length: u32, rare: &mut Rare, side: Side) {
        let to = from.saturating_add(length.into());
        let acknowledged = self.acknowledged.get();
        if from < acknowledged && to <= acknowledged {
            return;
        }
        if from > self.delivered.get() {
            self.remember(from, to, rare.make(side));
            return;
        }
        self.move_on(to);
        if let Some(rare) = rare.get_mut(side) {
            self.join(rare);
        }
    }

    fn move_on(&mut self, to: i64) {
        self.delivered = Number::new(self.delivered.get().max(to));
    }

    /// Keeps a part that lies behind a hole.
    fn remember(&mut self, mut from: i64, mut to: i64, rare: &mut RareSide) {
        let parts = &mut rare.parts;
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
        while let Some(&(from, to)) = rare.parts.first() {
            if from > self.delivered.get() {
                return;
            }
            self.move_on(to);
            rare.parts.remove(0);
        }
    }

    /// Gives up the holes before an acknowledged number, telling each; `report` says whether it counts as a gap
    /// of this end.
    pub(super) fn acknowledged_up_to(
        &mut self,
        mut number: i64,
        partial: bool,
        rare: &mut Rare,
        side: Side,
        mut report: impl FnMut(Missing, &mut Losses) -> bool,
    ) {
        let fin = self.fin.get();
        if fin > 0 && number >= fin {
            number = fin.saturating_sub(1);
        }
        // A connection met in midstream starts with numbers made up for it.
        if number <= self.delivered.get() || partial && number <= 2 {
            return;
        }
        let rare = rare.make(side);
        while self.delivered.get() < number {
            let delivered = self.delivered.get();
            let hole_end = match rare.parts.first() {
                Some(&(from, _)) if from < number => from,
                _ => number,
            };
            let bytes = hole_end.saturating_sub(delivered).cast_unsigned();
            self.delivered = Number::new(hole_end);
            if self.delivered.get() <= delivered {
                // At the end of 48 bits.
                return;
            }
            let count = u64::from(rare.gaps).saturating_add(1);
            if report(Missing { bytes, count }, &mut rare.losses) {
                rare.gaps = rare.gaps.saturating_add(1);
            }
            self.join(rare);
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
        let mut found = Vec::new();
        sequence.acknowledged_up_to(acknowledged, false, rare, 0, |missing, _| {
            found.push(missing.bytes);
            true
        });
        found
    }

    #[test]
    fn numbers_keep_their_sign_and_stay_within_48_bits() {
        for number in [0, 1, -1, 1 << 40, -(1 << 40)] {
            assert_eq!(Number::new(number).get(), number);
        }
        assert_eq!(
            (Number::new(i64::MAX).get(), Number::new(i64::MIN).get()),
            ((1 << 47) - 1, 1 - (1 << 47))
        );
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
