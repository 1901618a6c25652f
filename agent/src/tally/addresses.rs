//! A table of addresses and what is counted of each. A place is one short entry, so that a lookup waits for memory
//! once, and places can be touched before they are needed, so that many lookups wait together.

use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Places of a table when the first address comes, as a power of two.
const FIRST_BITS: u32 = 8;

/// An address, and a number that goes with it, in words of which the first is not zero.
pub(super) trait Key: Copy + Default + PartialEq {
    /// Whether it stands for no address.
    fn is_vacant(&self) -> bool;
    /// All of it in one number.
    fn bits(&self) -> u128;
}

/// An IPv4 address in the lower half, and a number that is not zero in the upper.
impl Key for u64 {
    #[inline]
    fn is_vacant(&self) -> bool {
        *self == 0
    }

    #[inline]
    fn bits(&self) -> u128 {
        (*self).into()
    }
}

/// A number that is not zero, and both halves of an IPv6 address.
impl Key for [u64; 3] {
    #[inline]
    fn is_vacant(&self) -> bool {
        self[0] == 0
    }

    #[inline]
    fn bits(&self) -> u128 {
        // The number goes into the upper half, where the bits of all addresses of a site are mostly the same.
        u128::from(self[1] ^ self[0].rotate_left(48)) << 64 | u128::from(self[2])
    }
}

/// What is counted of an address.
pub(super) trait Value: Copy + Default {
    /// A word at its end.
    fn last_word(&self) -> u64;
}

impl Value for () {
    #[inline]
    fn last_word(&self) -> u64 {
        0
    }
}

/// One place of a table. It may lie across two cache lines.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Entry<K, V> {
    key: K,
    value: V,
}

/// Addresses of one family. A place is looked for from where the hash says on, and at most three of four are taken.
#[derive(Debug)]
struct Family<K, V> {
    entries: Vec<Entry<K, V>>,
    bits: u32,
    used: usize,
}

impl<K, V> Default for Family<K, V> {
    fn default() -> Self {
        Self { entries: Vec::new(), bits: 0, used: 0 }
    }
}

impl<K: Key, V: Value> Family<K, V> {
    /// Where a hash says: its highest bits, so that a table of twice the size has the same order.
    #[inline]
    fn place(&self, hash: u64) -> usize {
        let place = hash.checked_shr(u64::BITS.saturating_sub(self.bits)).unwrap_or(0);
        usize::try_from(place).unwrap_or(0)
    }

    /// Something made of both ends of what is in the place of a hash.
    #[inline]
    fn touch(&self, hash: u64) -> u64 {
        let entry = self.entries.get(self.place(hash));
        entry.map_or(0, |entry| u64::from(entry.key.is_vacant()) ^ entry.value.last_word())
    }

    /// The place of an address, or the vacant one where it belongs; none where nothing is vacant.
    #[inline]
    fn find(&self, key: K, hash: u64) -> Option<usize> {
        let mut at = self.place(hash);
        for _ in 0..self.entries.len() {
            let entry = self.entries.get(at)?;
            if entry.key == key || entry.key.is_vacant() {
                return Some(at);
            }
            at = if at + 1 == self.entries.len() { 0 } else { at + 1 };
        }
        None
    }

    /// Makes room for one more.
    fn reserve(&mut self, hash: impl Fn(K) -> u64) {
        if self.used < self.entries.len() / 4 * 3 {
            return;
        }
        self.bits = if self.bits == 0 { FIRST_BITS } else { self.bits + 1 };
        let entries = vec![Entry::default(); 1 << self.bits];
        for entry in std::mem::replace(&mut self.entries, entries) {
            if entry.key.is_vacant() {
                continue;
            }
            let place = self.find(entry.key, hash(entry.key)).and_then(|at| self.entries.get_mut(at));
            place.into_iter().for_each(|place| *place = entry);
        }
    }

    /// What is counted of an address; none where it is new and may not be added.
    fn entry(&mut self, key: K, hash: u64, may_add: bool, rehash: impl Fn(K) -> u64) -> Option<&mut V> {
        let mut at = self.find(key, hash);
        let known = |at: &usize| self.entries.get(*at).is_some_and(|entry| !entry.key.is_vacant());
        if !at.as_ref().is_some_and(known) {
            if !may_add {
                return None;
            }
            self.reserve(rehash);
            at = self.find(key, hash);
            self.used += 1;
        }
        let entry = self.entries.get_mut(at?)?;
        entry.key = key;
        Some(&mut entry.value)
    }
}

/// An address with its number and their hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hashed {
    key: Either,
    hash: u64,
}

#[derive(Clone, Copy, Debug)]
enum Either {
    V4(u64),
    V6([u64; 3]),
}

impl Hashed {
    /// The address and its number.
    pub(super) fn parts(&self) -> (IpAddr, u64) {
        match self.key {
            Either::V4(key) => (v4_of(key), (key >> 32) - 1),
            Either::V6(key) => (v6_of(key), key[0] - 1),
        }
    }
}

/// Addresses, and what is counted of each.
#[derive(Debug)]
pub(super) struct Addresses<V> {
    hash: ahash::RandomState,
    v4: Family<u64, V>,
    v6: Family<[u64; 3], V>,
}

impl<V> Default for Addresses<V> {
    fn default() -> Self {
        // Keyed, because addresses are chosen by others; the standard library's hasher has the system's randomness.
        let random = RandomState::new();
        let [a, b, c, d] = [0_u8, 1, 2, 3].map(|word| random.hash_one(word));
        Self {
            hash: ahash::RandomState::with_seeds(a, b, c, d),
            v4: Family::default(),
            v6: Family::default(),
        }
    }
}

impl<V: Value> Addresses<V> {
    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.v4.used + self.v6.used
    }

    /// An address with a number that goes with it, ready to be looked up.
    #[inline]
    pub(super) fn hashed(&self, ip: IpAddr, number: u32) -> Hashed {
        let number = u64::from(number) + 1;
        match ip {
            IpAddr::V4(v4) => {
                let key = number << 32 | u64::from(v4.to_bits());
                Hashed { key: Either::V4(key), hash: self.hash.hash_one(key.bits()) }
            }
            IpAddr::V6(v6) => {
                let [upper, lower] = halves(v6);
                let key = [number, upper, lower];
                Hashed { key: Either::V6(key), hash: self.hash.hash_one(key.bits()) }
            }
        }
    }

    /// Touches the place of an address, so that it is at hand when it is looked up. What it gives is of no meaning,
    /// only made of what was touched.
    #[inline]
    pub(super) fn touch(&self, hashed: &Hashed) -> u64 {
        match hashed.key {
            Either::V4(_) => self.v4.touch(hashed.hash),
            Either::V6(_) => self.v6.touch(hashed.hash),
        }
    }

    /// What is counted of an address; none where it is new and may not be added.
    #[inline]
    pub(super) fn entry(&mut self, hashed: &Hashed, may_add: bool) -> Option<&mut V> {
        let Self { hash, v4, v6 } = self;
        match hashed.key {
            Either::V4(key) => v4.entry(key, hashed.hash, may_add, |key| hash.hash_one(key.bits())),
            Either::V6(key) => v6.entry(key, hashed.hash, may_add, |key| hash.hash_one(key.bits())),
        }
    }

    /// All addresses, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, V)> {
        let v4 = self.v4.entries.iter().filter(|entry| !entry.key.is_vacant());
        let v6 = self.v6.entries.iter().filter(|entry| !entry.key.is_vacant());
        v4.map(|entry| (v4_of(entry.key), entry.value)).chain(v6.map(|entry| (v6_of(entry.key), entry.value)))
    }
}

fn v4_of(key: u64) -> IpAddr {
    let [.., a, b, c, d] = key.to_be_bytes();
    Ipv4Addr::new(a, b, c, d).into()
}

fn v6_of([_, upper, lower]: [u64; 3]) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower)).into()
}

fn halves(ip: Ipv6Addr) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = ip.octets();
    [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes([i, j, k, l, m, n, o, p])]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    impl Value for u64 {
        #[inline]
        fn last_word(&self) -> u64 {
            *self
        }
    }

    fn ip(v6: bool, bits: u32) -> IpAddr {
        if v6 { Ipv6Addr::from_bits(bits.into()).into() } else { Ipv4Addr::from_bits(bits).into() }
    }

    proptest! {
        #[test]
        fn it_counts_as_a_map_does(
            steps in prop::collection::vec((any::<bool>(), 0..5000_u32, 0..2_u32, 1..9_u64), 0..6000),
            limit in prop_oneof![Just(10_usize), Just(usize::MAX)],
        ) {
            let (mut table, mut map) = (Addresses::<u64>::default(), HashMap::new());
            for (v6, bits, number, more) in steps {
                let hashed = table.hashed(ip(v6, bits), number);
                table.touch(&hashed);
                let may_add = table.len() < limit;
                let (entry, known) = (table.entry(&hashed, may_add), map.contains_key(&(v6, bits, number)));
                prop_assert_eq!(entry.is_some(), may_add || known);
                if let Some(count) = entry {
                    *count += more;
                    *map.entry((v6, bits, number)).or_insert(0) += more;
                }
                prop_assert_eq!(table.len(), map.len());
            }
            let mut counted: Vec<_> = table.iter().collect();
            let mut expected: Vec<_> = map.into_iter().map(|((v6, bits, _), n)| (ip(v6, bits), n)).collect();
            counted.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(counted, expected);
        }
    }
}
