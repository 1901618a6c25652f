//! Two intrusive queues over the entries of a slab: who gives way first when the table is full.

use super::live::NO_ENTRY;

/// Which queue an entry stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// Nobody has answered it. Gives way first, oldest first.
    Unanswered,
    /// Gives way when nothing is unanswered, least recently active first.
    Answered,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
}

/// The queues. An entry stands in one of them at most.
#[derive(Clone, Debug)]
pub(super) struct Queues {
    nodes: Vec<Node>,
    /// Which queue each entry stands in; apart from the nodes, which would else be half as big again.
    ranks: Vec<Option<Rank>>,
    ends: [Ends; 2],
}

impl Default for Queues {
    fn default() -> Self {
        Self { nodes: Vec::new(), ranks: Vec::new(), ends: [Ends { first: NO_ENTRY, last: NO_ENTRY }; 2] }
    }
}

impl Queues {
    /// Puts an entry at the end of a queue, taking it out of where it stood.
    pub(super) fn append(&mut self, entry: u32, rank: Rank) {
        self.remove(entry);
        let at = entry as usize;
        if self.nodes.len() <= at {
            self.nodes.resize(at + 1, Node { previous: NO_ENTRY, next: NO_ENTRY });
            self.ranks.resize(at + 1, None);
        }
        let ends = &mut self.ends[rank as usize];
        let previous = std::mem::replace(&mut ends.last, entry);
        if previous == NO_ENTRY {
            ends.first = entry;
        } else {
            self.nodes[previous as usize].next = entry;
        }
        self.nodes[at] = Node { previous, next: NO_ENTRY };
        self.ranks[at] = Some(rank);
    }

    /// Moves an entry from the unanswered to the end of the answered, if it stands there.
    pub(super) fn promote(&mut self, entry: u32) {
        if self.rank(entry) == Some(Rank::Unanswered) {
            self.append(entry, Rank::Answered);
        }
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, entry: u32) {
        let Some(rank) = self.rank(entry) else { return };
        let Node { previous, next } = self.nodes[entry as usize];
        match previous {
            NO_ENTRY => self.ends[rank as usize].first = next,
            _ => self.nodes[previous as usize].next = next,
        }
        match next {
            NO_ENTRY => self.ends[rank as usize].last = previous,
            _ => self.nodes[next as usize].previous = previous,
        }
        self.ranks[entry as usize] = None;
    }

    fn rank(&self, entry: u32) -> Option<Rank> {
        self.ranks.get(entry as usize).copied().flatten()
    }

    /// The entry at the front of a queue.
    pub(super) fn first(&self, rank: Rank) -> Option<u32> {
        let first = self.ends[rank as usize].first;
        (first != NO_ENTRY).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queues: &mut Queues, rank: Rank) -> Vec<u32> {
        std::iter::from_fn(|| queues.first(rank).inspect(|&entry| queues.remove(entry))).collect()
    }

    #[test]
    fn entries_leave_in_the_order_they_came_unless_they_moved() {
        let mut queues = Queues::default();
        for entry in [4, 1, 3, 0] {
            queues.append(entry, Rank::Unanswered);
        }
        queues.append(1, Rank::Answered);
        queues.append(4, Rank::Answered);
        queues.append(1, Rank::Answered);
        queues.remove(3);
        queues.remove(3);
        assert_eq!(drain(&mut queues, Rank::Unanswered), [0]);
        assert_eq!(drain(&mut queues, Rank::Answered), [4, 1]);
    }
}
