//! Who gives way first when the table is full: flows that nobody has answered, the oldest first, and then whatever a
//! hand that goes round over the entries finds quiet (the CLOCK policy).
//!
//! A flow that is answered or ends is not searched in the line of the unanswered: a bit says that its place there is
//! void, and void places go when there are more of them than others. So what happens to a flow writes to no other.

use std::collections::VecDeque;

/// Void places that are always suffered.
const SUFFERED: usize = 1024;

/// The line.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// Unanswered entries in the order in which they came, each with what tells its flow from others that the entry
    /// holds at other times.
    waiting: VecDeque<(u32, u32)>,
    /// A bit for each entry that is unanswered.
    unanswered: Vec<u64>,
    count: usize,
    hand: u32,
}

impl Line {
    /// Puts an entry at the end of the line. `is` tells whether an entry holds the flow of a mark.
    pub(super) fn push(&mut self, entry: u32, mark: u32, is: impl Fn(u32, u32) -> bool) {
        let (word, bit) = place(entry);
        if self.unanswered.len() <= word {
            self.unanswered.resize(word + 1, 0);
        }
        if self.waiting.len() > SUFFERED.saturating_add(self.count.saturating_mul(2)) {
            let unanswered = &self.unanswered;
            self.waiting.retain(|&(entry, mark)| has(unanswered, entry) && is(entry, mark));
        }
        if self.unanswered[word] & bit == 0 {
            self.unanswered[word] |= bit;
            self.count += 1;
        }
        self.waiting.push_back((entry, mark));
    }

    /// Takes an entry out, if it is in.
    pub(super) fn remove(&mut self, entry: u32) {
        let (word, bit) = place(entry);
        if let Some(bits) = self.unanswered.get_mut(word)
            && *bits & bit != 0
        {
            *bits &= !bit;
            self.count = self.count.saturating_sub(1);
        }
    }

    /// The entry that has stood in line longest.
    pub(super) fn first(&mut self, is: impl Fn(u32, u32) -> bool) -> Option<u32> {
        while let Some(&(entry, mark)) = self.waiting.front() {
            if has(&self.unanswered, entry) && is(entry, mark) {
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

const fn place(entry: u32) -> (usize, u64) {
    ((entry / 64) as usize, 1 << (entry % 64))
}

fn has(unanswered: &[u64], entry: u32) -> bool {
    let (word, bit) = place(entry);
    unanswered.get(word).is_some_and(|bits| bits & bit != 0)
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
        /// Against a plain list of entries and marks.
        #[test]
        fn entries_leave_in_the_order_they_came_unless_they_were_taken_out(
            steps in prop::collection::vec((0u32..200, 0u8..4), 0..4000),
        ) {
            let mut line = Line::default();
            let mut model: Vec<(u32, u32)> = Vec::new();
            let mut marks = vec![0u32; 200];
            for (number, (entry, what)) in (1u32..).zip(steps) {
                let at = entry as usize;
                let known = model.iter().position(|&(held, _)| held == entry);
                match what {
                    0 => {
                        line.remove(entry);
                        known.map(|known| model.remove(known));
                    }
                    1 if known.is_some() => {
                        let first = line.first(|entry, mark| marks[entry as usize] == mark);
                        prop_assert_eq!(first, model.first().map(|&(entry, _)| entry));
                    }
                    _ if known.is_none() => {
                        marks[at] = number;
                        line.push(entry, number, |entry, mark| marks[entry as usize] == mark);
                        model.push((entry, number));
                    }
                    _ => {}
                }
                prop_assert!(line.waiting.len() <= SUFFERED + 2 * model.len() + 2);
                prop_assert_eq!(line.count, model.len());
            }
        }
    }
}
