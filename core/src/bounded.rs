//! A map with a limit that forgets what was touched longest ago. As the order of touch is an order of time, its
//! oldest end is also where entries expire, so expiry never scans.
//!
//! A touch only notes its number in the entry, which is at hand then; nothing else is read or written. Where an entry
//! stands in the order is looked after when it comes up as the oldest: if it was touched since it was put there, it
//! is put where it belongs. So what is forgotten is exactly what was touched longest ago.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    hash::{Hash, Hasher},
    net::IpAddr,
};

use crate::index::Index;
use ahash::RandomState;

/// Numbers of touches begin behind this one, which free slots have.
const NEVER: u32 = 0;

#[derive(Clone, Debug)]
struct Slot<K, V> {
    /// Number of the touch that its place in the order is by.
    placed: u32,
    /// Number of its last touch.
    touched: u32,
    entry: Option<(K, V)>,
}

/// A place in the order: number of a touch, and slot. Void where the slot is placed by another touch.
type Turn = (u32, u32);

/// Hashes an address in one or two words; what is derived for it goes byte by byte.
pub fn hash_address(ip: IpAddr, state: &mut impl Hasher) {
    match ip {
        IpAddr::V4(v4) => state.write_u32(v4.to_bits()),
        IpAddr::V6(v6) => state.write_u128(v6.to_bits()),
    }
}

/// The hash of a key in one map.
#[derive(Clone, Copy, Debug)]
pub struct KeyHash(u32);

/// Where the entry of a key was found, which is where it is looked for first. It may be another's by then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Near(u32);

/// A bounded map in order of touch. Lookup, insertion and removal cost one hash; memory grows with what is held,
/// up to the limit.
#[derive(Clone, Debug)]
pub struct Bounded<K, V> {
    slots: Vec<Slot<K, V>>,
    free: Vec<u32>,
    index: Index,
    hasher: RandomState,
    /// Number of the last touch.
    clock: u32,
    /// Entries in the order they were put in.
    turns: VecDeque<Turn>,
    /// Entries that had been touched again when they came up as the oldest.
    late: BinaryHeap<Reverse<Turn>>,
    limit: usize,
    forgotten: u64,
}

impl<K: Hash + Eq, V> Bounded<K, V> {
    /// An empty map for at most `limit` entries (at least one), hashed with a key that the sender of packets
    /// does not know.
    pub fn new(limit: usize, seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: Index::default(),
            hasher: RandomState::with_seeds(a, b, c, d),
            clock: NEVER,
            turns: VecDeque::new(),
            late: BinaryHeap::new(),
            // Half of the numbers, so that those of touches last when they are given out anew.
            limit: limit.clamp(1, u32::MAX as usize / 2),
            forgotten: 0,
        }
    }

    /// Entries held.
    pub const fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nothing is held.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries that gave way to others because the map was full.
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The hash of a key, for lookups that follow each other.
    pub fn hash_of(&self, key: &K) -> KeyHash {
        let [a, b, c, d, ..] = self.hasher.hash_one(key).to_be_bytes();
        KeyHash(u32::from_be_bytes([a, b, c, d]))
    }

    fn find(&self, key: &K) -> Option<u32> {
        if self.is_empty() { None } else { self.find_hashed(self.hash_of(key), key) }
    }

    fn find_hashed(&self, hash: KeyHash, key: &K) -> Option<u32> {
        let is = |at: u32| {
            self.slots
                .get(at as usize)
                .and_then(|slot| slot.entry.as_ref())
                .is_some_and(|held| held.0 == *key)
        };
        self.index.find(hash.0, is)
    }

    /// Reads what lookups with these hashes are going to read, so that they wait for memory together and not one
    /// after the other. `read` makes some number of all that will be asked of an entry.
    pub fn warm(&self, hashes: impl ExactSizeIterator<Item = KeyHash> + Clone, read: impl Fn(&K, &V) -> u64) {
        if self.is_empty() {
            return;
        }
        // The index first, all of it without a branch that would have to wait for what is read; and where the map is
        // full, what those are found by that will give way.
        let mut index = hashes.clone().fold(0, |all, hash| all ^ self.index.first(hash.0));
        if self.len() >= self.limit {
            let next =
                self.turns.iter().take(hashes.len()).filter_map(|&(_, at)| self.slots.get(at as usize));
            let keys = next.filter_map(|slot| slot.entry.as_ref());
            index ^= keys.fold(0, |all, (key, _)| all ^ self.index.first(self.hash_of(key).0));
        }
        let slots = hashes.fold(0, |all, hash| {
            // The first candidate is all but certainly the entry.
            let slot = self.index.find(hash.0, |_| true).and_then(|at| self.slots.get(at as usize));
            let entry = slot.and_then(|slot| slot.entry.as_ref()).map_or(0, |(key, value)| read(key, value));
            all ^ entry ^ slot.map_or(0, |slot| slot.touched.into())
        });
        std::hint::black_box((index, slots));
    }

    fn slot_mut(&mut self, at: u32) -> Option<&mut Slot<K, V>> {
        self.slots.get_mut(at as usize)
    }

    fn value_mut(&mut self, at: u32) -> Option<&mut V> {
        self.slot_mut(at)?.entry.as_mut().map(|(_, value)| value)
    }

    /// The value of a key, without touching it, where its hash is known.
    pub fn peek_hashed(&self, hash: KeyHash, key: &K) -> Option<&V> {
        let at = self.find_hashed(hash, key)?;
        self.slots.get(at as usize)?.entry.as_ref().map(|(_, value)| value)
    }

    /// Whether the entry of a key is there.
    #[inline]
    fn is_at(&self, Near(at): Near, key: &K) -> bool {
        let held = self.slots.get(at as usize).and_then(|slot| slot.entry.as_ref());
        held.is_some_and(|(held, _)| held == key)
    }

    /// The value of what stands there, without touching it, if it is that of the right key.
    #[inline]
    pub fn peek_near(&self, Near(at): Near, is: impl FnOnce(&K) -> bool) -> Option<&V> {
        let (key, value) = self.slots.get(at as usize)?.entry.as_ref()?;
        is(key).then_some(value)
    }

    /// The same as [`Self::get_or_insert_with`] for a key that is probably the one of the last time, which `near` is
    /// of.
    #[inline]
    pub fn get_or_insert_near(
        &mut self,
        near: &mut Near,
        key: K,
        value: impl FnOnce() -> V,
    ) -> Option<&mut V> {
        if !self.is_at(*near, &key) {
            let hash = self.hash_of(&key);
            let found = self.find_hashed(hash, &key);
            near.0 = match found {
                Some(at) => at,
                None => {
                    self.insert_new(hash, key, value());
                    let newest = self.turns.back()?.1;
                    *near = Near(newest);
                    return self.value_mut(newest);
                }
            };
        }
        self.touch(near.0)
    }

    /// The value of a key, without touching it.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.peek_hashed(self.hash_of(key), key)
    }

    /// The value of a key, without touching it.
    pub fn peek_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key)?;
        self.value_mut(at)
    }

    /// The number of a touch that happens now.
    fn stamp(&mut self) -> u32 {
        if self.clock == u32::MAX {
            self.sort();
        }
        self.clock += 1;
        self.clock
    }

    fn touch(&mut self, at: u32) -> Option<&mut V> {
        let stamp = self.stamp();
        let slot = self.slot_mut(at)?;
        slot.touched = stamp;
        slot.entry.as_mut().map(|(_, value)| value)
    }

    /// The value of a key, which becomes the newest.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key)?;
        self.touch(at)
    }

    /// The same where the hash is known.
    pub fn get_hashed(&mut self, hash: KeyHash, key: &K) -> Option<&mut V> {
        let at = self.find_hashed(hash, key)?;
        self.touch(at)
    }

    /// The same with where it stands.
    pub fn get_with_place(&mut self, hash: KeyHash, key: &K) -> Option<(Near, &mut V)> {
        let at = self.find_hashed(hash, key)?;
        Some((Near(at), self.touch(at)?))
    }

    /// What stands there, whose ever it is by now, without touching it.
    pub fn at_mut(&mut self, Near(at): Near) -> Option<(&K, &mut V)> {
        self.slot_mut(at)?.entry.as_mut().map(|(key, value)| (&*key, value))
    }

    /// The value of a key, which becomes the newest; where there was none, this one is put in, and what has to give
    /// way for it is lost.
    pub fn get_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> Option<&mut V> {
        let hash = self.hash_of(&key);
        self.get_or_insert_hashed(hash, key, value)
    }

    /// The same where the hash is known.
    pub fn get_or_insert_hashed(
        &mut self,
        hash: KeyHash,
        key: K,
        value: impl FnOnce() -> V,
    ) -> Option<&mut V> {
        match self.find_hashed(hash, &key) {
            Some(at) => self.touch(at),
            None => {
                self.insert_new(hash, key, value());
                let newest = self.turns.back()?.1;
                self.value_mut(newest)
            }
        }
    }

    /// Puts an entry in as the newest. Tells what it replaced, or what had to give way.
    pub fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        let hash = self.hash_of(&key);
        self.insert_hashed(hash, key, value)
    }

    /// The same where the hash is known.
    pub fn insert_hashed(&mut self, hash: KeyHash, key: K, value: V) -> Option<(K, V)> {
        if let Some(at) = self.find_hashed(hash, &key) {
            let held = self.touch(at)?;
            return Some((key, std::mem::replace(held, value)));
        }
        self.insert_new(hash, key, value)
    }

    /// Puts an entry in whose key is not there.
    fn insert_new(&mut self, hash: KeyHash, key: K, value: V) -> Option<(K, V)> {
        let gone = if self.len() >= self.limit {
            self.forgotten += 1;
            self.pop_oldest()
        } else {
            None
        };
        let stamp = self.stamp();
        let slot = Slot { placed: stamp, touched: stamp, entry: Some((key, value)) };
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(place) = self.slot_mut(at) {
                    *place = slot;
                }
                at
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.index.insert(hash.0, at);
        self.turns.push_back((stamp, at));
        // Turns of entries that were taken out are void; half of them at most.
        if self.turns.len().saturating_add(self.late.len()) > self.len().saturating_mul(2).saturating_add(64)
        {
            self.sort();
        }
        gone
    }

    /// Puts every entry in its place, and gives the numbers of touches out anew.
    #[cold]
    fn sort(&mut self) {
        let live = (0u32..).zip(&self.slots).filter(|(_, slot)| slot.entry.is_some());
        let mut turns: Vec<Turn> = live.map(|(at, slot)| (slot.touched, at)).collect();
        turns.sort_unstable();
        self.late.clear();
        self.clock = NEVER;
        for turn in &mut turns {
            self.clock += 1;
            turn.0 = self.clock;
            let slot = self.slots.get_mut(turn.1 as usize);
            if let Some(slot) = slot {
                (slot.placed, slot.touched) = (turn.0, turn.0);
            }
        }
        self.turns = turns.into();
    }

    /// The slot that was touched longest ago.
    fn oldest(&mut self) -> Option<u32> {
        loop {
            let late = self.late.peek().map(|&Reverse(turn)| turn);
            let (turn, is_late) = match (self.turns.front().copied(), late) {
                (Some(turn), Some(late)) if late < turn => (late, true),
                (Some(turn), _) => (turn, false),
                (None, late) => (late?, true),
            };
            let (placed, at) = turn;
            let slot = self.slots.get_mut(at as usize).filter(|slot| slot.placed == placed);
            if let Some(slot) = &slot
                && slot.touched == placed
            {
                return Some(at);
            }
            let again = slot.map(|slot| {
                slot.placed = slot.touched;
                Reverse((slot.touched, at))
            });
            if is_late {
                self.late.pop();
            } else {
                self.turns.pop_front();
            }
            self.late.extend(again);
        }
    }

    /// Takes out the entry that was touched longest ago.
    pub fn pop_oldest(&mut self) -> Option<(K, V)> {
        let at = self.oldest()?;
        self.take(at)
    }

    /// Takes out the oldest entry if it is to go.
    pub fn pop_oldest_if(&mut self, goes: impl FnOnce(&V) -> bool) -> Option<(K, V)> {
        let at = self.oldest()?;
        if self.value_mut(at).is_some_and(|value| goes(value)) { self.take(at) } else { None }
    }

    /// Takes out one entry.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(key)?;
        self.take(at).map(|(_, value)| value)
    }

    fn take(&mut self, at: u32) -> Option<(K, V)> {
        let slot = self.slots.get_mut(at as usize)?;
        let entry = slot.entry.take()?;
        slot.placed = NEVER;
        // Hashed anew, because few are taken out, and all would have to hold theirs.
        let hash = self.hash_of(&entry.0);
        self.index.remove(hash.0, at);
        self.free.push(at);
        Some(entry)
    }

    /// Every key with its value, from the oldest to the newest.
    pub fn iter(&mut self) -> impl Iterator<Item = (&K, &V)> {
        self.sort();
        let Self { slots, turns, .. } = self;
        turns.iter().filter_map(|&(_, at)| {
            slots.get(at as usize).and_then(|slot| slot.entry.as_ref()).map(|(key, value)| (key, value))
        })
    }

    /// Does something to every entry, from the oldest to the newest, without touching them.
    pub fn for_each(&mut self, mut what: impl FnMut(&K, &mut V)) {
        self.sort();
        let Self { slots, turns, .. } = self;
        for &(_, at) in turns.iter() {
            if let Some((key, value)) = slots.get_mut(at as usize).and_then(|slot| slot.entry.as_mut()) {
                what(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_entry_touched_longest_ago_gives_way() {
        let mut map = Bounded::new(2, [1; 4]);
        assert_eq!(map.insert('a', 1), None);
        assert_eq!(map.insert('b', 2), None);
        assert_eq!(map.get(&'a').copied(), Some(1));
        assert_eq!(map.insert('c', 3), Some(('b', 2)));
        assert_eq!(map.iter().map(|(key, _)| *key).collect::<String>(), "ac");
        assert_eq!(map.forgotten(), 1);
    }

    #[test]
    fn making_ready_changes_nothing() {
        let mut map = Bounded::new(3, [1; 4]);
        let hashes: Vec<KeyHash> = (0..5).map(|key| map.hash_of(&key)).collect();
        map.warm(hashes.iter().copied(), |_, _| 1);
        for key in 0..3 {
            map.insert(key, key);
        }
        map.warm(hashes.iter().copied(), |key, value| key ^ value);
        assert_eq!(map.insert(3, 3), Some((0, 0)));
    }

    proptest! {
        /// Against a plain list in order of touch.
        #[test]
        fn it_behaves_as_a_list_in_order_of_touch(
            limit in 1usize..6,
            look in 1u32..60,
            clock in prop::option::of(0u32..90),
            steps in prop::collection::vec((0u8..7, 0u8..9), 0..200),
        ) {
            let mut map = Bounded::new(limit, [7; 4]);
            // Numbers of touches run out on the way.
            map.clock = clock.map_or(0, |left| u32::MAX - left);
            let mut list: Vec<(u8, u32)> = Vec::new();
            let mut near = Near::default();
            for (at, (what, key)) in (0u32..).zip(steps) {
                let known = list.iter().position(|(k, _)| *k == key);
                match what {
                    0 | 1 => {
                        let expected = known.map(|i| list.remove(i)).or_else(|| {
                            (list.len() >= limit).then(|| list.remove(0))
                        });
                        list.push((key, at));
                        prop_assert_eq!(map.insert(key, at), expected);
                    }
                    2 => {
                        let expected = known.map(|i| list.remove(i));
                        list.extend(expected);
                        prop_assert_eq!(map.get(&key).copied(), expected.map(|(_, v)| v));
                    }
                    5 | 6 => {
                        if known.is_none() && list.len() >= limit {
                            list.remove(0);
                        }
                        let entry = known.map_or((key, at), |i| list.remove(i));
                        list.push(entry);
                        let held = if what == 5 {
                            map.get_or_insert_with(key, || at)
                        } else {
                            map.get_or_insert_near(&mut near, key, || at)
                        };
                        prop_assert_eq!(held.copied(), Some(entry.1));
                        for (key, value) in &list {
                            let there = map.peek_near(near, |held| held == key);
                            prop_assert!(there.is_none_or(|held| held == value));
                        }
                    }
                    3 => {
                        let expected = known.map(|i| list.remove(i).1);
                        prop_assert_eq!(map.remove(&key), expected);
                    }
                    _ => {
                        let expected = (!list.is_empty()).then(|| list.remove(0));
                        prop_assert_eq!(map.pop_oldest(), expected);
                    }
                }
                prop_assert_eq!(map.len(), list.len());
                // Each look at the order also puts it right, so not after every step.
                if at % look == 0 {
                    let order: Vec<_> = map.iter().map(|(key, _)| *key).collect();
                    prop_assert_eq!(order, list.iter().map(|(k, _)| *k).collect::<Vec<_>>());
                }
                prop_assert!(map.turns.len() + map.late.len() <= 2 * limit + 65);
            }
            for entry in list {
                prop_assert_eq!(map.pop_oldest(), Some(entry));
            }
            prop_assert!(map.is_empty() && map.pop_oldest().is_none());
        }
    }
}
