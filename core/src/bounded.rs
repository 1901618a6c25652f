//! A map with a limit that forgets what was touched longest ago. As the order of touch is an order of time, its
//! oldest end is also where entries expire, so expiry never scans.

use std::hash::Hash;

use ahash::RandomState;
use hashbrown::HashTable;

const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    newer: u32,
    older: u32,
}

/// A bounded map in order of touch. Lookup, insertion and removal cost one hash; memory grows with what is held,
/// up to the limit.
#[derive(Clone, Debug)]
pub struct Bounded<K, V> {
    slots: Vec<Option<Slot<K, V>>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: RandomState,
    newest: u32,
    oldest: u32,
    limit: usize,
    forgotten: u64,
}

impl<K: Hash + Eq + Clone, V> Bounded<K, V> {
    /// An empty map for at most `limit` entries (at least one), hashed with a key that the sender of packets
    /// does not know.
    pub fn new(limit: usize, seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::with_seeds(a, b, c, d),
            newest: NONE,
            oldest: NONE,
            limit: limit.clamp(1, NONE as usize),
            forgotten: 0,
        }
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Entries that gave way to others because the map was full.
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn find(&self, key: &K) -> Option<u32> {
        self.find_hashed(self.hasher.hash_one(key), key)
    }

    fn find_hashed(&self, hash: u64, key: &K) -> Option<u32> {
        self.index.find(hash, |&at| self.slot(at).is_some_and(|slot| slot.key == *key)).copied()
    }

    fn slot(&self, at: u32) -> Option<&Slot<K, V>> {
        self.slots.get(at as usize).and_then(Option::as_ref)
    }

    fn slot_mut(&mut self, at: u32) -> Option<&mut Slot<K, V>> {
        self.slots.get_mut(at as usize).and_then(Option::as_mut)
    }

    fn unlink(&mut self, at: u32) {
        let Some((newer, older)) = self.slot(at).map(|slot| (slot.newer, slot.older)) else { return };
        match self.slot_mut(newer) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slot_mut(older) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, at: u32) {
        let older = self.newest;
        if let Some(slot) = self.slot_mut(at) {
            slot.newer = NONE;
            slot.older = older;
        }
        match self.slot_mut(older) {
            Some(slot) => slot.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
    }

    /// The value of a key, without touching it.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.find(key).and_then(|at| self.slot(at)).map(|slot| &slot.value)
    }

    /// The value of a key, without touching it.
    pub fn peek_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key)?;
        self.slot_mut(at).map(|slot| &mut slot.value)
    }

    fn touch(&mut self, at: u32) {
        if self.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
    }

    /// The value of a key, which becomes the newest.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key)?;
        self.touch(at);
        self.slot_mut(at).map(|slot| &mut slot.value)
    }

    /// The value of a key, which becomes the newest; where there was none, this one is put in, and what has to give
    /// way for it is lost.
    pub fn get_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> Option<&mut V> {
        let hash = self.hasher.hash_one(&key);
        let at = match self.find_hashed(hash, &key) {
            Some(at) => {
                self.touch(at);
                at
            }
            None => {
                self.insert_new(hash, key, value());
                self.newest
            }
        };
        self.slot_mut(at).map(|slot| &mut slot.value)
    }

    /// Puts an entry in as the newest. Tells what it replaced, or what had to give way.
    pub fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        let hash = self.hasher.hash_one(&key);
        if let Some(at) = self.find_hashed(hash, &key) {
            self.touch(at);
            let held = self.slot_mut(at)?;
            return Some((key, std::mem::replace(&mut held.value, value)));
        }
        self.insert_new(hash, key, value)
    }

    /// Puts an entry in whose key is not there.
    fn insert_new(&mut self, hash: u64, key: K, value: V) -> Option<(K, V)> {
        let gone = if self.index.len() >= self.limit {
            self.forgotten += 1;
            self.pop_oldest()
        } else {
            None
        };
        let slot = Slot { key, value, newer: NONE, older: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(place) = self.slots.get_mut(at as usize) {
                    *place = Some(slot);
                }
                at
            }
            None => {
                self.slots.push(Some(slot));
                u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
            }
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, at, |&at| {
            slots.get(at as usize).and_then(Option::as_ref).map_or(0, |slot| hasher.hash_one(&slot.key))
        });
        self.link_newest(at);
        gone
    }

    /// The entry that was touched longest ago.
    pub fn oldest(&self) -> Option<(&K, &V)> {
        self.slot(self.oldest).map(|slot| (&slot.key, &slot.value))
    }

    /// Takes out the entry that was touched longest ago.
    pub fn pop_oldest(&mut self) -> Option<(K, V)> {
        self.take(self.oldest)
    }

    /// Takes out the oldest entry if it is to go.
    pub fn pop_oldest_if(&mut self, goes: impl FnOnce(&V) -> bool) -> Option<(K, V)> {
        if self.oldest().is_some_and(|(_, value)| goes(value)) { self.pop_oldest() } else { None }
    }

    /// Takes out one entry.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(key)?;
        self.take(at).map(|(_, value)| value)
    }

    fn take(&mut self, at: u32) -> Option<(K, V)> {
        let hash = self.hasher.hash_one(&self.slot(at)?.key);
        self.unlink(at);
        if let Ok(entry) = self.index.find_entry(hash, |&held| held == at) {
            entry.remove();
        }
        let slot = self.slots.get_mut(at as usize)?.take()?;
        self.free.push(at);
        Some((slot.key, slot.value))
    }

    /// Every key, from the oldest to the newest.
    pub fn keys(&self) -> impl Iterator<Item = &K> + '_ {
        let mut at = self.oldest;
        std::iter::from_fn(move || {
            let slot = self.slot(at)?;
            at = slot.newer;
            Some(&slot.key)
        })
    }

    /// Does something to every entry, from the oldest to the newest, without touching them.
    pub fn for_each(&mut self, mut what: impl FnMut(&K, &mut V)) {
        let mut at = self.oldest;
        while let Some(slot) = self.slot_mut(at) {
            what(&slot.key, &mut slot.value);
            at = slot.newer;
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
        assert_eq!(map.keys().copied().collect::<String>(), "ac");
        assert_eq!(map.forgotten(), 1);
    }

    proptest! {
        /// Against a plain list in order of touch.
        #[test]
        fn it_behaves_as_a_list_in_order_of_touch(
            limit in 1usize..6,
            steps in prop::collection::vec((0u8..6, 0u8..9), 0..200),
        ) {
            let mut map = Bounded::new(limit, [7; 4]);
            let mut list: Vec<(u8, u32)> = Vec::new();
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
                    5 => {
                        if known.is_none() && list.len() >= limit {
                            list.remove(0);
                        }
                        let entry = known.map_or((key, at), |i| list.remove(i));
                        list.push(entry);
                        prop_assert_eq!(map.get_or_insert_with(key, || at).copied(), Some(entry.1));
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
                prop_assert_eq!(map.keys().copied().collect::<Vec<_>>(), list.iter().map(|(k, _)| *k).collect::<Vec<_>>());
                prop_assert_eq!(map.len(), list.len());
            }
        }
    }
}
