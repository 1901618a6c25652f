//! The walks of `scan`: what they are of, how they move, and those that are under way.

use std::{
    hash::{Hash, Hasher},
    net::IpAddr,
};

use arrayvec::ArrayVec;

use super::{config::ScanConfig, few::Few, view::Space};
use crate::{
    bounded::{Bounded, KeyHash, hash_address},
    distinct::hash_of,
    flow::{FlowContext, FlowIdentity, TOGETHER},
    time::Timestamp,
};

/// First contacts of one walk; most are decided long before.
pub(super) const MAX_CONTACTS: u32 = 64;
/// Groups of sources that are told apart before a walk is looked for.
const GROUPS: usize = 65_536;

/// The walk's parameters, ready for use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    failure: f64,
    success: f64,
    scanner: f64,
    benign: f64,
}

impl Walk {
    pub(crate) fn new(config: &ScanConfig) -> Self {
        let (theta0, theta1) = (config.benign_success, config.scanner_success);
        Self {
            failure: (1.0 - theta1) / (1.0 - theta0),
            success: theta1 / theta0,
            scanner: config.detection / config.false_positive,
            benign: (1.0 - config.detection) / (1.0 - config.false_positive),
        }
    }

    /// The ratio after one more first contact.
    pub(crate) fn step(&self, ratio: f64, failed: bool) -> f64 {
        // Bounded, so that one long walk can neither overflow nor take for ever to turn.
        (ratio * if failed { self.failure } else { self.success }).clamp(f64::MIN_POSITIVE, 1e12)
    }

    pub(crate) fn is_scanner(&self, ratio: f64) -> bool {
        ratio >= self.scanner
    }

    pub(crate) fn is_benign(&self, ratio: f64) -> bool {
        ratio <= self.benign
    }
}

/// Where a walk leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Over hosts, at this port.
    Hosts(u16),
    /// Over ports, of this host.
    Ports(IpAddr),
}

/// What a walk is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) space: Space,
    pub(super) source: IpAddr,
    pub(super) course: Course,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_address(self.source, state);
        self.space.hash(state);
        match self.course {
            Course::Hosts(port) => state.write_u16(port),
            Course::Ports(target) => hash_address(target, state),
        }
    }
}

/// A source on its walk.
#[derive(Clone, Debug)]
pub(super) struct Walker {
    pub(super) ratio: f64,
    pub(super) failures: u32,
    /// Destinations that were contacted, by hash.
    pub(super) contacts: Few<u64>,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// The first flows that failed.
    pub(super) flows: Few<FlowIdentity>,
}

impl Walker {
    pub(super) fn new(first: Timestamp) -> Self {
        let (contacts, flows) = (Few::default(), Few::default());
        Self { ratio: 1.0, failures: 0, contacts, first, last: first, flows }
    }

    /// Moves on at a first contact; false where the destination was contacted before.
    pub(super) fn step(&mut self, walk: Walk, destination: u64, failed: bool, flow: &FlowContext) -> bool {
        if self.contacts.iter().any(|&contact| contact == destination) {
            return false;
        }
        if self.contacts.len() >= MAX_CONTACTS as usize {
            // So long a walk without a decision leads nowhere; it begins anew from here.
            *self = Self::new(self.last);
        }
        self.contacts.push(destination);
        self.ratio = walk.step(self.ratio, failed);
        if failed {
            self.failures = self.failures.saturating_add(1);
            self.flows.keep(flow.identity);
        }
        true
    }
}

/// The walks under way, and how many of them each group of sources is on: most sources are on none, and then
/// nothing needs to be looked for.
#[derive(Clone, Debug)]
pub(super) struct Walkers {
    held: Bounded<Key, Walker>,
    /// At their greatest number they stay, because then it is not known how many there are.
    groups: Vec<u8>,
}

fn group_of(source: IpAddr) -> usize {
    let [a, b, ..] = hash_of(source, 0).to_be_bytes();
    u16::from_be_bytes([a, b]).into()
}

impl Walkers {
    pub(super) fn new(limit: usize, seed: [u64; 4]) -> Self {
        Self { held: Bounded::new(limit, seed), groups: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Makes ready for steps of walks with these keys.
    pub(super) fn warm(&self, keys: impl Iterator<Item = Key>) {
        let hashes: ArrayVec<KeyHash, { 2 * TOGETHER }> =
            keys.map(|key| self.held.hash_of(&key)).take(2 * TOGETHER).collect();
        self.held.warm(hashes.into_iter(), |_, walker| walker.failures.into());
    }

    /// Whether a source may be on a walk.
    pub(super) fn may_hold(&self, source: IpAddr) -> bool {
        !self.held.is_empty() && self.groups.get(group_of(source)).is_some_and(|&walks| walks > 0)
    }

    pub(super) fn get(&mut self, key: &Key) -> Option<&mut Walker> {
        if self.may_hold(key.source) { self.held.get(key) } else { None }
    }

    /// The walk of a key; one that begins at `start` where there is none.
    pub(super) fn begin(&mut self, key: Key, start: Timestamp) -> Option<&mut Walker> {
        let hash = self.held.hash_of(&key);
        if self.held.get_hashed(hash, &key).is_none() {
            if self.groups.is_empty() {
                self.groups = vec![0; GROUPS];
            }
            if let Some(walks) = self.groups.get_mut(group_of(key.source)) {
                *walks = walks.saturating_add(1);
            }
            if let Some((gone, _)) = self.held.insert_hashed(hash, key, Walker::new(start)) {
                self.leave(gone.source);
            }
        }
        self.held.get_hashed(hash, &key)
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Walker> {
        let walker = self.held.remove(key)?;
        self.leave(key.source);
        Some(walker)
    }

    /// Ends walks from the one that moved on longest ago, as long as `goes` says so.
    pub(super) fn expire(&mut self, goes: impl Fn(&Walker) -> bool) {
        while let Some((gone, _)) = self.held.pop_oldest_if(&goes) {
            self.leave(gone.source);
        }
    }

    fn leave(&mut self, source: IpAddr) {
        if let Some(walks) = self.groups.get_mut(group_of(source)) {
            *walks = if *walks == u8::MAX { u8::MAX } else { walks.saturating_sub(1) };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// No source on a walk is overlooked, and none is looked for once all its walks have ended.
        #[test]
        fn groups_count_the_walks_under_way(steps in prop::collection::vec((0u8..6, 0u8..4, 0u16..3), 0..120)) {
            let mut walkers = Walkers::new(5, [3; 4]);
            for (what, host, port) in steps {
                let source = IpAddr::from([10, 0, 0, host]);
                let key = Key { space: Space::default(), source, course: Course::Hosts(port) };
                match what {
                    0 => drop(walkers.remove(&key)),
                    1 => walkers.expire(|walker| walker.first == Timestamp(0)),
                    _ => drop(walkers.begin(key, Timestamp(what.into())).map(|walker| walker.failures)),
                }
                let held: Vec<_> = walkers.held.iter().map(|(key, _)| key.source).collect();
                for host in 0..4 {
                    let source = IpAddr::from([10, 0, 0, host]);
                    prop_assert_eq!(walkers.may_hold(source), held.contains(&source));
                }
            }
        }
    }
}
