//! Who gives way first when the table is full: flows that nobody has answered, the oldest first, and then whatever a
//! hand that goes round over the entries finds quiet (the CLOCK policy).
//!
//! A flow that is answered or ends is not searched in the line of the unanswered: its entry forgets its place there,
//! which is void by that, and void places go when there are more of them than others. So what happens to a flow
//! writes to no other.

use std::collections::VecDeque;

/// Void places that are always suffered.
const SUFFERED: usize = 1024;

/// The line.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// Entries with their places, in order.
    waiting: VecDeque<(u32, u32)>,
    /// The place of each entry; 0 where it has none.
    places: Vec<u32>,
    /// The last place that was given.
    place: u32,
    count: usize,
    hand: u32,
}

impl Line {
    /// Puts an entry at the end of the line.
    pub(super) fn push(&mut self, entry: u32) {
        self.remove(entry);
        let Self { waiting, places, .. } = self;
        if waiting.len() > SUFFERED.saturating_add(self.count.saturating_mul(2)) {
            waiting.retain(|&(entry, place)| holds(places, entry, place));
        }
        if places.len() <= entry as usize {
            places.resize(entry as usize + 1, 0);
        }
        // A place that comes again after four billions of others is void long before.
        self.place = self.place.checked_add(1).unwrap_or(1);
        if let Some(held) = places.get_mut(entry as usize) {
            *held = self.place;
            self.count += 1;
            waiting.push_back((entry, self.place));
        }
    }

    /// Reads what taking an entry out will read.
    #[inline]
    pub(super) fn touch(&self, entry: u32) -> u32 {
        self.places.get(entry as usize).copied().unwrap_or(0)
    }

    /// Takes an entry out, if it is in.
    pub(super) fn remove(&mut self, entry: u32) {
        if let Some(place) = self.places.get_mut(entry as usize)
            && *place != 0
        {
            *place = 0;
            self.count = self.count.saturating_sub(1);
        }
    }

    /// The entry that has stood in line longest.
    pub(super) fn first(&mut self) -> Option<u32> {
        while let Some(&(entry, place)) = self.waiting.front() {
            if holds(&self.places, entry, place) {
                return Some(entry);
            }
            self.waiting.pop_front();
        }
        None
    }

    /// The entry that the hand points to, of so many; it moves on by that.
    pub(super) fn turn(&mut self, entries: usize) -> u32 {
        let at = if (self.hand as usize) < entries { self.hand } else { 0 };
        self.hand = at.saturating_add(1);
        at
    }
}

/// Whether an entry still has this place.
fn holds(places: &[u32], entry: u32, place: u32) -> bool {
    places.get(entry as usize) == Some(&place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hand_goes_round() {
        let mut line = Line::default();
        let turns: Vec<u32> = (0..7).map(|_| line.turn(3)).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!((line.turn(0), line.turn(1)), (0, 0));
    }

    proptest! {
        /// Against a plain list of entries.
        #[test]
        fn entries_leave_in_the_order_they_came_unless_they_were_taken_out(
            steps in prop::collection::vec((0u32..200, 0u8..4), 0..4000),
        ) {
            let mut line = Line::default();
            let mut model: Vec<u32> = Vec::new();
            for (entry, what) in steps {
                match what {
                    0 => {
                        line.remove(entry);
                        model.retain(|&held| held != entry);
                    }
                    1 => prop_assert_eq!(line.first(), model.first().copied()),
                    _ => {
                        line.push(entry);
                        model.retain(|&held| held != entry);
                        model.push(entry);
                        // What is void goes when an entry comes, so those that leave may leave more of it for a while.
                        prop_assert!(line.waiting.len() <= SUFFERED + 2 * model.len() + 4);
                    }
                }
                prop_assert_eq!(line.count, model.len());
            }
        }
    }
}
