//! A hierarchical timing wheel with intrusive lists. Arming and disarming cost a constant; finding what is due
//! looks at occupied slots only, however far time jumps. Owners re-arm lazily: what fires too early is armed
//! again for its real time, so that work per packet touches no timer.

use arrayvec::ArrayVec;

use super::chunks::Chunks;
use crate::time::Timestamp;

const NONE: u32 = u32::MAX;
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const SLOT_MASK: u64 = (1 << BITS) - 1;
/// Levels of six bits each, the last one of bits 32 to 37: these hold every tick there is, so nothing is ever beyond.
const LEVELS: usize = 7;
/// A tick is 2^27 nanoseconds, 134 milliseconds.
const TICK_BITS: u32 = 27;

/// The tick that a moment lies in.
#[inline]
pub(super) fn tick_of(time: Timestamp) -> u64 {
    // With the sign bit turned, the order of unsigned numbers is the order of time.
    (time.as_nanos().cast_unsigned() ^ 1 << 63) >> TICK_BITS
}

/// Where an entry stands, in twelve bytes. A tick has 37 bits; what is above 32 its slot tells.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// The low half of the tick it is due.
    due: u32,
    /// The entry before it, or [`Node::HEAD`] and the slot it is the first of, or [`NONE`] if it is not armed.
    previous: u32,
    next: u32,
}

impl Node {
    /// Bit that no entry has.
    const HEAD: u32 = 1 << 31;

    #[inline]
    const fn is_armed(self) -> bool {
        self.previous != NONE
    }
}

impl Default for Node {
    fn default() -> Self {
        Self { due: 0, previous: NONE, next: NONE }
    }
}

/// Timers of the entries of a slab: at most one for each index. There are less than 2^31 of them.
#[derive(Clone, Debug)]
pub(super) struct TimerWheel {
    nodes: Chunks<Node>,
    heads: [u32; LEVELS * SLOTS],
    occupied: [u64; LEVELS],
    tick: u64,
}

impl Default for TimerWheel {
    fn default() -> Self {
        Self { nodes: Chunks::default(), heads: [NONE; LEVELS * SLOTS], occupied: [0; LEVELS], tick: 0 }
    }
}

impl TimerWheel {
    /// The tick up to which everything due was handed out.
    #[inline]
    pub(super) const fn tick(&self) -> u64 {
        self.tick
    }

    /// Arms the timer of an entry for the first tick in which `deadline` has certainly passed, in place of what
    /// it was armed for.
    pub(super) fn arm(&mut self, entry: u32, deadline: Timestamp) {
        self.disarm(entry);
        while self.nodes.len() <= entry as usize {
            self.nodes.push(Node::default());
        }
        self.insert(entry, tick_of(deadline).saturating_add(1).max(self.tick));
    }

    /// Disarms the timer of an entry, if it is armed.
    #[inline]
    pub(super) fn disarm(&mut self, entry: u32) {
        let Some(node) = self.nodes.get_mut(entry as usize).filter(|node| node.is_armed()) else { return };
        let Node { previous, next, .. } = *node;
        node.previous = NONE;
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if previous & Node::HEAD == 0 {
            self.nodes[previous as usize].next = next;
        } else {
            self.set_head((previous & !Node::HEAD) as usize, next);
        }
    }

    #[inline]
    fn set_head(&mut self, head: usize, entry: u32) {
        self.heads[head] = entry;
        if entry == NONE {
            self.occupied[head / SLOTS] &= !(1 << (head % SLOTS));
        }
    }

    /// The next entry that is due at `tick` or before; it is disarmed by that. None once there is no more, and
    /// then the wheel stands at `tick`.
    #[cfg(test)]
    pub(super) fn next_due(&mut self, tick: u64) -> Option<u32> {
        let mut one = ArrayVec::<u32, 1>::new();
        self.due_into(tick, &mut one);
        one.pop()
    }

    /// The next entries that are due at `tick` or before, as many as there is room for and of one tick; they are
    /// disarmed by that. In the order in which [`Self::next_due`] would give them, if none of them is armed again
    /// for that very tick. Nothing once there is no more, and then the wheel stands at `tick`.
    #[inline]
    pub(super) fn due_into<const N: usize>(&mut self, tick: u64, due: &mut ArrayVec<u32, N>) {
        while let Some((level, slot, start)) = self.earliest() {
            if start > tick {
                break;
            }
            self.tick = self.tick.max(start);
            let head = level * SLOTS + slot;
            let entry = self.heads[head];
            if level == 0 {
                self.take(head, due);
                return;
            }
            // The whole slot comes down at once: lower levels are looked at first, so nothing earlier may stay.
            self.set_head(head, NONE);
            self.bring_down(entry, level, start);
        }
        self.tick = self.tick.max(tick);
    }

    /// Takes entries out of a slot, from the first one on.
    #[inline]
    fn take<const N: usize>(&mut self, head: usize, taken: &mut ArrayVec<u32, N>) {
        let mut entry = self.heads[head];
        while entry != NONE && taken.try_push(entry).is_ok() {
            let node = &mut self.nodes[entry as usize];
            node.previous = NONE;
            entry = node.next;
        }
        if entry != NONE {
            self.nodes[entry as usize].previous = link_to(head);
        }
        self.set_head(head, entry);
    }

    /// Puts the entries of a slot, which begins with tick `start`, where they belong now.
    fn bring_down(&mut self, mut entry: u32, level: usize, start: u64) {
        // What lies below the bits of the slot.
        let below = (1_u64 << shift_of(level)) - 1;
        while entry != NONE {
            let Node { due, next, .. } = self.nodes[entry as usize];
            self.insert(entry, start | u64::from(due) & below);
            entry = next;
        }
    }

    /// Links an entry into the slot of its tick, as seen from the wheel's own tick.
    #[inline]
    fn insert(&mut self, entry: u32, due: u64) {
        let highest_difference = 63 - (due ^ self.tick | SLOT_MASK).leading_zeros();
        let level = if highest_difference < 32 { (highest_difference / BITS) as usize } else { LEVELS - 1 };
        // Six bits fit everywhere.
        let [slot, ..] = (due >> shift_of(level) & SLOT_MASK).to_le_bytes();
        let head = level * SLOTS + usize::from(slot);
        let next = std::mem::replace(&mut self.heads[head], entry);
        if next != NONE {
            self.nodes[next as usize].previous = entry;
        }
        let [.., a, b, c, d] = due.to_be_bytes();
        let due = u32::from_be_bytes([a, b, c, d]);
        self.nodes[entry as usize] = Node { due, previous: link_to(head), next };
        self.occupied[head / SLOTS] |= 1 << slot;
    }

    /// The occupied slot with the earliest first tick: lower levels always come before higher ones.
    #[inline]
    fn earliest(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let shift = shift_of(level);
        let slot = self.occupied[level].trailing_zeros();
        let above = self.tick >> shift >> BITS << BITS;
        Some((level, slot as usize, (above | u64::from(slot)) << shift))
    }
}

/// The lowest bit of a tick that a level looks at.
const fn shift_of(level: usize) -> usize {
    if level == LEVELS - 1 { 32 } else { level * BITS as usize }
}

/// What stands before the first entry of a slot.
#[inline]
fn link_to(head: usize) -> u32 {
    Node::HEAD | u32::try_from(head).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_fires_once_its_time_has_passed_and_not_before() {
        let mut wheel = TimerWheel::default();
        let deadline = Timestamp::from_parts(1_700_000_000, 5);
        wheel.arm(7, deadline);
        assert_eq!(wheel.next_due(tick_of(deadline)), None);
        assert_eq!(wheel.next_due(tick_of(deadline) + 1), Some(7));
        assert_eq!(wheel.next_due(u64::MAX >> TICK_BITS), None);
    }

    #[test]
    fn the_ends_of_time_are_ticks_too() {
        let mut wheel = TimerWheel::default();
        wheel.arm(0, Timestamp(i64::MIN));
        wheel.arm(1, Timestamp(i64::MAX));
        assert_eq!(wheel.next_due(1), Some(0));
        assert_eq!(wheel.next_due(tick_of(Timestamp(i64::MAX)) + 1), Some(1));
    }

    #[test]
    fn a_timer_is_twelve_bytes() {
        assert_eq!(size_of::<Node>(), 12);
    }

    #[test]
    fn what_is_disarmed_between_two_takings_does_not_come() {
        let mut wheel = TimerWheel::default();
        assert_eq!(wheel.next_due(tick_of(Timestamp(0))), None);
        for entry in 0..6 {
            wheel.arm(entry, Timestamp(0));
        }
        let (tick, mut due) = (tick_of(Timestamp(0)) + 1, ArrayVec::<u32, 2>::new());
        wheel.due_into(tick, &mut due);
        assert_eq!(due.as_slice(), [5, 4]);
        wheel.disarm(3);
        wheel.disarm(1);
        assert_eq!(many_at_once(&mut wheel, tick), [2, 0]);
    }

    /// Everything due, by as many as come at once.
    fn many_at_once(wheel: &mut TimerWheel, tick: u64) -> Vec<u32> {
        let (mut all, mut due) = (Vec::new(), ArrayVec::<u32, 3>::new());
        loop {
            wheel.due_into(tick, &mut due);
            if due.is_empty() {
                return all;
            }
            all.extend(due.drain(..));
        }
    }

    proptest! {
        /// Against a model that scans: the same entries fire at the same steps, in one order however they are asked
        /// for.
        #[test]
        fn the_wheel_fires_what_a_scan_would_find(
            steps in prop::collection::vec((0_u32..40, 0_i64..1 << 45, any::<bool>(), 0_i64..1 << 44), 1..200),
            bits in 20_u32..46, begin: i64,
        ) {
            let mut wheel = TimerWheel::default();
            let mut model = BTreeMap::new();
            let mut now = begin / 2;
            prop_assert_eq!(wheel.next_due(tick_of(Timestamp(now))), None);
            for (entry, ahead, cancel, forward) in steps {
                let ahead = ahead & ((1 << bits) - 1);
                if cancel {
                    wheel.disarm(entry);
                    model.remove(&entry);
                } else {
                    wheel.arm(entry, Timestamp(now + ahead));
                    model.insert(entry, tick_of(Timestamp(now + ahead)) + 1);
                }
                now += forward;
                let tick = tick_of(Timestamp(now));
                let at_once = many_at_once(&mut wheel.clone(), tick);
                let mut fired: Vec<u32> = std::iter::from_fn(|| wheel.next_due(tick)).collect();
                prop_assert_eq!(&fired, &at_once);
                fired.sort_unstable();
                let expected: Vec<u32> =
                    model.iter().filter(|&(_, &due)| due <= tick).map(|(&entry, _)| entry).collect();
                model.retain(|_, due| *due > tick);
                prop_assert_eq!(fired, expected);
            }
        }

        /// Over all of time, too.
        #[test]
        fn timers_over_centuries_fire_in_time(
            now: i64, deadlines in prop::collection::vec(any::<i64>(), 1..40), steps in prop::collection::vec(any::<i64>(), 1..20),
        ) {
            let mut wheel = TimerWheel::default();
            prop_assert_eq!(wheel.next_due(tick_of(Timestamp(now))), None);
            let mut waiting = BTreeMap::new();
            for (entry, &deadline) in (0_u32..).zip(&deadlines) {
                wheel.arm(entry, Timestamp(deadline));
                waiting.insert(entry, deadline);
            }
            let mut times: Vec<i64> = steps.into_iter().map(|step| step.max(now)).collect();
            times.sort_unstable();
            for time in times {
                let tick = tick_of(Timestamp(time));
                while let Some(entry) = wheel.next_due(tick) {
                    let deadline = waiting.remove(&entry);
                    prop_assert!(deadline.is_some_and(|deadline| tick_of(Timestamp(deadline.max(now))) <= tick));
                }
                prop_assert!(waiting.values().all(|&deadline| tick_of(Timestamp(deadline)) >= tick));
            }
        }
    }
}
