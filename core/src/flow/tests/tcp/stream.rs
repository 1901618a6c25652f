//! Sequence space of one end as the model has it: every number in full.

use arrayvec::ArrayVec;

use crate::flow::{key::Side, rare::Losses};

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

/// What is rare of one side, over the whole connection but for the losses.
#[derive(Clone, Debug, Default)]
pub(super) struct RareSide {
    pub(super) losses: Losses,
    pub(super) retransmissions: u64,
    pub(super) zero_windows: u32,
    pub(super) rejected: u32,
    pub(super) gaps: u32,
    pub(super) last_syn: u32,
    pub(super) parts: ArrayVec<(i64, i64), PARTS>,
}

/// A number of the stream has 48 bits.
const fn bounded(number: i64) -> i64 {
    const MOST: i64 = (1 << 47) - 1;
    if number > MOST {
        MOST
    } else if number < -MOST {
        -MOST
    } else {
        number
    }
}

/// What is known of the sequence numbers of one end. The SYN is 0, data starts at 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequence {
    start: u32,
    /// One past the highest number sent.
    last: i64,
    /// Highest number acknowledged.
    acknowledged: i64,
    /// Everything before was seen, or given up.
    delivered: i64,
    /// One past the FIN; zero without one.
    fin: i64,
}

impl Sequence {
    /// Sets the number of the SYN, and how far the end has sent.
    pub(super) fn begin(&mut self, start: u32, last: i64) {
        self.start = start;
        self.last = bounded(last);
        self.acknowledged = bounded(0);
        if self.delivered == 0 {
            self.delivered = bounded(1);
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
        self.fin = bounded(past);
    }

    /// Moves on to `past`, one past a segment. True if it brings nothing new. `trusted` is false once the end
    /// has sent a RST.
    pub(super) const fn advance(&mut self, past: u32, control: bool, fin: bool, trusted: bool) -> bool {
        let last = self.last;
        let delta = self.near(last, past).saturating_sub(last);
        if control && (delta > TOO_FAR || delta < -TOO_FAR) {
            return false;
        }
        if fin && last == 1 {
            // A FIN right behind the SYN: however far ahead it is, everything between was not seen.
            let absolute = self.start.wrapping_add(low(last));
            self.last = bounded(last.saturating_add(past.wrapping_sub(absolute) as i64));
            return false;
        }
        if !trusted {
            return false;
        }
        if delta > 0 {
            self.last = bounded(last.saturating_add(delta));
        }
        delta <= 0
    }

    /// Takes an acknowledgement; gives it relative to the start, 0 if it lies before.
    pub(super) const fn acknowledge(&mut self, number: u32, trusted: bool) -> i64 {
        let acknowledged = self.acknowledged;
        let relative = self.near(acknowledged, number);
        if relative < 0 {
            return 0;
        }
        let delta = relative.saturating_sub(acknowledged);
        let broken = number == 0 && delta > TOO_FAR;
        if trusted && delta > 0 && !broken {
            self.acknowledged = bounded(relative);
        }
        relative
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
    pub(super) fn deliver(&mut self, from: i64, length: u32, rare: &mut [RareSide; 2], side: Side) {
        let to = from.saturating_add(length.into());
        let acknowledged = self.acknowledged;
        if from < acknowledged && to <= acknowledged {
            return;
        }
        if from > self.delivered {
            self.remember(from, to, &mut rare[side]);
            return;
        }
        self.move_on(to);
        self.join(&mut rare[side]);
    }

    fn move_on(&mut self, to: i64) {
        self.delivered = bounded(self.delivered.max(to));
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
            if from > self.delivered {
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
        rare: &mut [RareSide; 2],
        side: Side,
        mut report: impl FnMut(Missing, &mut Losses) -> bool,
    ) {
        let fin = self.fin;
        if fin > 0 && number >= fin {
            number = fin.saturating_sub(1);
        }
        // A connection met in midstream starts with numbers made up for it.
        if number <= self.delivered || partial && number <= 2 {
            return;
        }
        let rare = &mut rare[side];
        while self.delivered < number {
            let delivered = self.delivered;
            let hole_end = match rare.parts.first() {
                Some(&(from, _)) if from < number => from,
                _ => number,
            };
            let bytes = hole_end.saturating_sub(delivered).cast_unsigned();
            self.delivered = bounded(hole_end);
            if self.delivered <= delivered {
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
