//! Small lists that rules keep for very many hosts, most of which are seen once.

use arrayvec::ArrayVec;

use crate::{flow::FlowIdentity, record::FlowId};

/// Flows that become the evidence of one incident.
const MAX_IDS: usize = 8;

/// A list whose first item takes no memory of its own.
#[derive(Clone, Debug)]
pub(super) struct Few<T> {
    first: Option<T>,
    rest: Vec<T>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self { first: None, rest: Vec::new() }
    }
}

impl<T> Few<T> {
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(super) fn push(&mut self, item: T) {
        if self.first.is_none() {
            self.first = Some(item);
        } else {
            self.rest.push(item);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.rest)
    }
}

impl Few<FlowIdentity> {
    /// Adds a flow to the evidence; the first eight are kept.
    pub(super) fn keep(&mut self, identity: FlowIdentity) {
        if self.len() < MAX_IDS {
            self.push(identity);
        }
    }

    /// Identities, made now.
    pub(super) fn ids(&self) -> ArrayVec<FlowId, 8> {
        self.iter().map(FlowIdentity::id).take(MAX_IDS).collect()
    }
}

/// The latest eight flows. Their identities are made only if they become evidence.
#[derive(Clone, Debug, Default)]
pub(super) struct Latest {
    kept: Vec<FlowIdentity>,
    next: usize,
}

impl Latest {
    pub(super) fn push(&mut self, identity: FlowIdentity) {
        match self.kept.get_mut(self.next) {
            Some(oldest) => *oldest = identity,
            None => self.kept.push(identity),
        }
        self.next = (self.next + 1) % MAX_IDS;
    }

    /// The oldest first.
    pub(super) fn ids(&self) -> ArrayVec<FlowId, 8> {
        let (newer, older) = self.kept.split_at(self.next.min(self.kept.len()));
        older.iter().chain(newer).map(FlowIdentity::id).take(MAX_IDS).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: ArrayVec<FlowId, 8>) -> Vec<u128> {
        ids.iter().map(|id| id.0).collect()
    }

    #[test]
    fn the_first_or_the_latest_eight_are_kept_in_their_order() {
        let (mut first, mut latest) = (Few::default(), Latest::default());
        for number in 0..20u128 {
            first.keep(FlowId(number).into());
            latest.push(FlowId(number).into());
            let from = (number + 1).saturating_sub(8);
            assert_eq!(ids(first.ids()), (0..=number.min(7)).collect::<Vec<_>>());
            assert_eq!(ids(latest.ids()), (from..=number).collect::<Vec<_>>());
        }
    }
}
