//! A hierarchical timing wheel with intrusive lists. Arming and disarming cost a constant; finding what is due
//! looks at occupied slots only, however far time jumps. Owners re-arm lazily: what fires too early is armed
//! again for its real time, so that work per packet touches no timer.

use crate::time::Timestamp;

const NONE: u32 = u32::MAX;
const UNARMED: u16 = u16::MAX;
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const SLOT_MASK: u64 = (1 << BITS) - 1;
/// Seven levels of six bits hold every tick there is, so nothing is ever beyond the last level.
const LEVELS: usize = 7;
/// A tick is 2^27 nanoseconds, 134 milliseconds.
const TICK_BITS: u32 = 27;

/// The tick that a moment lies in.
pub(super) fn tick_of(time: Timestamp) -> u64 {
    // With the sign bit turned, the order of unsigned numbers is the order of time.
    (time.as_nanos().cast_unsigned() ^ 1 << 63) >> TICK_BITS
}

/// Sixteen bytes for each entry: a tick has 37 bits, which leaves room for the slot beside it.
#[derive(Clone, Copy, Debug)]
struct Node {
    due_and_slot: u64,
    previous: u32,
    next: u32,
}

impl Node {
    const EMPTY: Self = Self { due_and_slot: UNARMED as u64, previous: NONE, next: NONE };

    const fn due(&self) -> u64 {
        self.due_and_slot >> 16
    }

    fn slot(&self) -> u16 {
        let [.., a, b] = self.due_and_slot.to_be_bytes();
        u16::from_be_bytes([a, b])
    }

    fn set(&mut self, due: u64, slot: u16) {
        self.due_and_slot = due << 16 | u64::from(slot);
    }
}

/// Timers of the entries of a slab: at most one for each index.
#[derive(Clone, Debug)]
pub(super) struct TimerWheel {
    nodes: Vec<Node>,
    heads: Vec<u32>,
    occupied: [u64; LEVELS],
    tick: u64,
}

impl Default for TimerWheel {
    fn default() -> Self {
        Self { nodes: Vec::new(), heads: vec![NONE; LEVELS * SLOTS], occupied: [0; LEVELS], tick: 0 }
    }
}

impl TimerWheel {
    /// The tick up to which everything due was handed out.
    pub(super) const fn tick(&self) -> u64 {
        self.tick
    }

    /// Arms the timer of an entry for the first tick in which `deadline` has certainly passed, in place of what
    /// it was armed for.
    pub(super) fn arm(&mut self, entry: u32, deadline: Timestamp) {
        self.disarm(entry);
        let at = entry as usize;
        if self.nodes.len() <= at {
            self.nodes.resize(at + 1, Node::EMPTY);
        }
        self.nodes[at].set(tick_of(deadline).saturating_add(1).max(self.tick), UNARMED);
        self.insert(entry);
    }

    /// Disarms the timer of an entry, if it is armed.
    pub(super) fn disarm(&mut self, entry: u32) {
        let Some(&node) = self.nodes.get(entry as usize) else { return };
        let (Node { previous, next, .. }, slot) = (node, node.slot());
        if slot == UNARMED {
            return;
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if previous != NONE {
            self.nodes[previous as usize].next = next;
        } else {
            self.heads[usize::from(slot)] = next;
            if next == NONE {
                self.occupied[usize::from(slot) / SLOTS] &= !(1 << (usize::from(slot) % SLOTS));
            }
        }
        self.nodes[entry as usize].set(node.due(), UNARMED);
    }

    /// The next entry that is due at `tick` or before; it is disarmed by that. None once there is no more, and
    /// then the wheel stands at `tick`.
    pub(super) fn next_due(&mut self, tick: u64) -> Option<u32> {
        while let Some((level, slot, start)) = self.earliest() {
            if start > tick {
                break;
            }
            self.tick = self.tick.max(start);
            let mut entry = self.heads[level * SLOTS + slot];
            if level == 0 {
                self.disarm(entry);
                return Some(entry);
            }
            // The whole slot comes down at once: lower levels are looked at first, so nothing earlier may stay.
            self.heads[level * SLOTS + slot] = NONE;
            self.occupied[level] &= !(1 << slot);
            while entry != NONE {
                let next = self.nodes[entry as usize].next;
                self.insert(entry);
                entry = next;
            }
        }
        self.tick = self.tick.max(tick);
        None
    }

    /// Links an entry into the slot of its tick, as seen from the wheel's own tick.
    fn insert(&mut self, entry: u32) {
        let due = self.nodes[entry as usize].due();
        let highest_difference = 63 - (due ^ self.tick | SLOT_MASK).leading_zeros();
        let level = highest_difference / BITS;
        // Six bits fit everywhere.
        let slot = (due >> (level * BITS) & SLOT_MASK).to_le_bytes()[0];
        let head = level.to_le_bytes()[0] as usize * SLOTS + usize::from(slot);
        let next = std::mem::replace(&mut self.heads[head], entry);
        if next != NONE {
            self.nodes[next as usize].previous = entry;
        }
        let node = &mut self.nodes[entry as usize];
        (node.previous, node.next) = (NONE, next);
        node.set(due, u16::try_from(head).unwrap_or(UNARMED));
        self.occupied[head / SLOTS] |= 1 << slot;
    }

    /// The occupied slot with the earliest first tick: lower levels always come before higher ones.
    fn earliest(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let shift = u32::try_from(level).unwrap_or(0) * BITS;
        let slot = self.occupied[level].trailing_zeros();
        let above = self.tick >> shift >> BITS << BITS;
        Some((level, slot as usize, (above | u64::from(slot)) << shift))
    }
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

    proptest! {
        /// Against a model that scans: the same entries fire at the same steps.
        #[test]
        fn the_wheel_fires_what_a_scan_would_find(
            steps in prop::collection::vec((0_u32..40, 0_i64..1 << 45, any::<bool>(), 0_i64..1 << 44), 1..200),
        ) {
            let mut wheel = TimerWheel::default();
            let mut model = BTreeMap::new();
            let mut now = 0;
            for (entry, ahead, cancel, forward) in steps {
                if cancel {
                    wheel.disarm(entry);
                    model.remove(&entry);
                } else {
                    wheel.arm(entry, Timestamp(now + ahead));
                    model.insert(entry, tick_of(Timestamp(now + ahead)) + 1);
                }
                now += forward;
                let tick = tick_of(Timestamp(now));
                let mut fired = Vec::new();
                while let Some(entry) = wheel.next_due(tick) {
                    fired.push(entry);
                }
                fired.sort_unstable();
                let expected: Vec<u32> =
                    model.iter().filter(|&(_, &due)| due <= tick).map(|(&entry, _)| entry).collect();
                model.retain(|_, due| *due > tick);
                prop_assert_eq!(fired, expected);
            }
        }
    }
}
