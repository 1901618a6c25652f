//! Attempts that are too many to be kept apart, added up by prefixes. Nothing is lost: every packet and byte of a
//! collapsed attempt is in exactly one aggregate, and every aggregate becomes a record.
//!
//! An attempt counts to its target (address and port). When there are too many targets, the smallest of a few gives
//! way: it becomes part of the sources' prefix (/24, IPv6: /48) if all its sources are in one, as with a scan, or
//! else of the rest of its scope. When there are too many such prefixes, the smallest of a few becomes part of the
//! rest. So the record of a target lacks at most what the wider records that cover it hold.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashTable;

use super::{
    key::{FlowKey, KeyedHash, Side},
    live::{SidePlace, Tally},
    path::Path,
};
use crate::{
    distinct::{Distinct, hash_of_words},
    record::Locality,
    time::{NANOS_PER_SECOND, Timestamp},
};

/// Targets, and prefixes of sources, that are told apart at a time.
pub(super) const LIMIT: usize = 1024;
/// How many are looked at for the one that gives way.
const CANDIDATES: usize = 8;
/// How long aggregates gather before they are told.
const GATHER: i64 = 60 * NANOS_PER_SECOND;

/// The longest prefix that holds some addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cover {
    v6: bool,
    /// The bits of one of them, from the top.
    bits: u128,
    pub length: u8,
}

impl Cover {
    /// One address in words, as keys have them.
    fn of(v6: bool, [high, low]: [u64; 2]) -> Self {
        let bits = u128::from(high) << 64 | u128::from(low);
        if v6 { Self { v6, bits, length: 128 } } else { Self { v6, bits: bits << 96, length: 32 } }
    }

    fn add(&mut self, other: Self) {
        // In a flood the sources soon have nothing in common, and the target is the same.
        if self.length == 0 || *self == other {
            return;
        }
        let same = (self.bits ^ other.bits).leading_zeros();
        self.length = self.length.min(other.length).min(u8::try_from(same).unwrap_or(u8::MAX));
    }

    /// Its first `length` bits.
    fn cut(&self, length: u8) -> u128 {
        self.bits & u128::MAX.checked_shl(128_u32.saturating_sub(length.into())).unwrap_or(0)
    }

    /// The prefix that sources are added up by, if all of these are in one.
    fn prefix(&self) -> Option<u128> {
        let length = if self.v6 { 48 } else { 24 };
        (self.length >= length).then(|| self.cut(length))
    }

    /// First address.
    pub(super) fn first(&self) -> IpAddr {
        let bits = self.cut(self.length);
        if self.v6 {
            Ipv6Addr::from_bits(bits).into()
        } else {
            let [a, b, c, d, ..] = bits.to_be_bytes();
            Ipv4Addr::new(a, b, c, d).into()
        }
    }
}

/// What attempts are added up by, in few words: it is compared for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Group {
    /// Kind, family, scope and port.
    what: u64,
    /// Bits of an address, from the top.
    bits: u128,
}

const TARGET: u64 = 1;
const SOURCES: u64 = 2;
const REST: u64 = 3;

impl Group {
    fn new(kind: u64, scope: u16, v6: bool, bits: u128, port: u16) -> Self {
        let what = kind << 40 | u64::from(v6) << 32 | u64::from(scope) << 16 | u64::from(port);
        Self { what, bits }
    }

    fn target(one: &Collapsed<'_>) -> Self {
        let Cover { v6, bits, .. } = one.responder;
        Self::new(TARGET, one.scope, v6, bits, one.port)
    }

    fn sources(scope: u16, v6: bool, prefix: u128) -> Self {
        Self::new(SOURCES, scope, v6, prefix, 0)
    }

    fn rest(scope: u16, v6: bool) -> Self {
        Self::new(REST, scope, v6, 0, 0)
    }

    const fn is_target(&self) -> bool {
        self.what >> 40 == TARGET
    }
}

/// One attempt, or what an attempt has become, as it is added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Collapsed<'a> {
    scope: u16,
    originator: Cover,
    /// What stands for the originator where different ones are counted.
    hash: u64,
    responder: Cover,
    port: u16,
    path: &'a Path,
    /// Originator and responder.
    places: [&'a SidePlace; 2],
}

impl<'a> Collapsed<'a> {
    /// An attempt of one side of a key.
    #[inline]
    pub(super) fn new(key: &FlowKey, side: Side, path: &'a Path) -> Self {
        let (is_v6, from, (to, port)) = (key.is_v6(), key.words_of(side).0, key.words_of(1 - side));
        let [low, high] = &path.places;
        Self {
            scope: key.scope(),
            originator: Cover::of(is_v6, from),
            hash: hash_of_words(is_v6, from, 0),
            responder: Cover::of(is_v6, to),
            port,
            path,
            places: if side == 0 { [low, high] } else { [high, low] },
        }
    }
}

/// What an attempt counts.
pub(super) trait Counted {
    /// By itself.
    fn tally(&self) -> Tally;
    /// In a sum.
    fn add_to(&self, sum: &mut Tally);
}

impl Counted for Tally {
    fn tally(&self) -> Tally {
        *self
    }

    fn add_to(&self, sum: &mut Tally) {
        sum.add(self);
    }
}

/// Attempts added up.
#[derive(Clone, Debug)]
pub(super) struct Aggregate {
    group: Group,
    pub scope: u16,
    pub flows: u64,
    pub originators: Cover,
    pub responders: Cover,
    sources: Distinct,
    /// None where ports differ.
    pub port: Option<u16>,
    pub path: Path,
    /// Originators and responders, as far as they agree.
    pub places: [SidePlace; 2],
    pub tally: Tally,
}

impl Aggregate {
    fn new(group: Group, one: &Collapsed<'_>, tally: Tally) -> Self {
        let mut sources = Distinct::default();
        sources.add(one.hash);
        Self {
            group,
            scope: one.scope,
            flows: 1,
            originators: one.originator,
            responders: one.responder,
            sources,
            port: Some(one.port),
            path: one.path.clone(),
            places: one.places.map(|place| *place),
            tally,
        }
    }

    fn add(&mut self, one: &Collapsed<'_>, counted: &impl Counted) {
        self.flows = self.flows.saturating_add(1);
        self.originators.add(one.originator);
        self.responders.add(one.responder);
        self.sources.add(one.hash);
        self.join(Some(one.port), one.path, one.places);
        counted.add_to(&mut self.tally);
    }

    fn merge(&mut self, other: &Self) {
        self.flows = self.flows.saturating_add(other.flows);
        self.originators.add(other.originators);
        self.responders.add(other.responders);
        self.sources.merge(&other.sources);
        let [from, to] = &other.places;
        self.join(other.port, &other.path, [from, to]);
        self.tally.add(&other.tally);
    }

    #[inline]
    fn join(&mut self, port: Option<u16>, path: &Path, places: [&SidePlace; 2]) {
        if self.port != port {
            self.port = None;
        }
        // Nothing is cleared where nothing is.
        if !self.path.vlans.is_empty() && self.path.vlans != path.vlans {
            self.path.vlans.clear();
        }
        for (held, other) in self.places.iter_mut().zip(places) {
            agree(held, other);
        }
    }

    /// Different originators, as far as is known.
    pub(super) fn different_originators(&self) -> u64 {
        let alone = if self.originators.v6 { 128 } else { 32 };
        if self.originators.length == alone { 1 } else { self.sources.count().clamp(2, self.flows.max(2)) }
    }
}

/// Keeps what two places have in common.
#[inline]
fn agree(held: &mut SidePlace, other: &SidePlace) {
    if held == other {
        return;
    }
    if held.locality != other.locality {
        held.locality = Locality::Unknown;
    }
    held.segment = held.segment.filter(|_| held.segment == other.segment);
    held.secretariat = held.secretariat.filter(|_| held.secretariat == other.secretariat);
}

/// Aggregates of one kind of group.
#[derive(Clone, Debug, Default)]
struct Level {
    entries: Vec<Aggregate>,
    index: HashTable<u32>,
    /// Where looking for one that gives way goes on.
    hand: usize,
    /// The entry found last: floods ask for the same one again and again.
    latest: usize,
}

impl Level {
    fn find(&mut self, group: Group, hash: &KeyedHash) -> Option<&mut Aggregate> {
        if self.entries.get(self.latest).is_none_or(|entry| entry.group != group) {
            let entries = &self.entries;
            let found = self.index.find(hash.of(&group), |&at| entries[at as usize].group == group);
            self.latest = *found? as usize;
        }
        self.entries.get_mut(self.latest)
    }

    /// Puts in an aggregate whose group is not here; gives the one that gave way.
    fn insert(&mut self, new: Aggregate, limit: usize, hash: &KeyedHash) -> Option<Aggregate> {
        let hashed = hash.of(&new.group);
        let (at, gone) = if self.entries.len() < limit {
            self.entries.push(new);
            (self.entries.len() - 1, None)
        } else {
            let at = self.smallest();
            let gone = std::mem::replace(&mut self.entries[at], new);
            if let Ok(found) = self.index.find_entry(hash.of(&gone.group), |&held| held as usize == at) {
                found.remove();
            }
            (at, Some(gone))
        };
        let Self { index, entries, .. } = self;
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        index.insert_unique(hashed, at, |&at| hash.of(&entries[at as usize].group));
        gone
    }

    /// The smallest of the next few.
    fn smallest(&mut self) -> usize {
        let count = self.entries.len();
        let next = (0..CANDIDATES).map(|ahead| (self.hand + ahead) % count);
        let smallest = next.min_by_key(|&at| self.entries[at].flows).unwrap_or(0);
        self.hand = (self.hand + CANDIDATES) % count;
        smallest
    }

    fn drain(&mut self) -> Vec<Aggregate> {
        std::mem::take(self).entries
    }
}

/// All aggregates.
#[derive(Clone, Debug)]
pub(super) struct Aggregates {
    targets: Level,
    prefixes: Level,
    rest: Level,
    hash: KeyedHash,
    /// When they are told; none while there is none.
    due: Option<Timestamp>,
    collapsed: u64,
}

impl Aggregates {
    pub(super) fn new(hash: KeyedHash) -> Self {
        let level = Level::default;
        Self { targets: level(), prefixes: level(), rest: level(), hash, due: None, collapsed: 0 }
    }

    /// Attempts that were added up so far.
    pub(super) const fn collapsed(&self) -> u64 {
        self.collapsed
    }

    /// Adds an attempt up.
    pub(super) fn add(&mut self, now: Timestamp, one: &Collapsed<'_>, counted: &impl Counted) {
        self.collapsed = self.collapsed.saturating_add(1);
        let group = Group::target(one);
        if let Some(held) = self.targets.find(group, &self.hash) {
            return held.add(one, counted);
        }
        self.due.get_or_insert(now.plus(GATHER));
        let new = Aggregate::new(group, one, counted.tally());
        if let Some(gone) = self.targets.insert(new, LIMIT, &self.hash) {
            self.widen(gone);
        }
    }

    /// Makes an aggregate that gave way part of a wider one.
    fn widen(&mut self, mut gone: Aggregate) {
        let v6 = gone.originators.v6;
        if let Some(prefix) = gone.originators.prefix()
            && gone.group.is_target()
        {
            gone.group = Group::sources(gone.scope, v6, prefix);
            if let Some(held) = self.prefixes.find(gone.group, &self.hash) {
                return held.merge(&gone);
            }
            let Some(next) = self.prefixes.insert(gone, LIMIT, &self.hash) else { return };
            gone = next;
        }
        gone.group = Group::rest(gone.scope, gone.originators.v6);
        match self.rest.find(gone.group, &self.hash) {
            Some(held) => held.merge(&gone),
            // One for each scope and family, so this needs no limit.
            None => {
                self.rest.insert(gone, usize::MAX, &self.hash);
            }
        }
    }

    /// Takes everything out once it has gathered for long enough by the clock, or in any case.
    pub(super) fn take(&mut self, now: Option<Timestamp>) -> Vec<Aggregate> {
        match (self.due, now) {
            (None, _) => return Vec::new(),
            (Some(due), Some(now)) if now < due => return Vec::new(),
            _ => self.due = None,
        }
        let mut all = self.targets.drain();
        all.append(&mut self.prefixes.drain());
        all.append(&mut self.rest.drain());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(all: &mut Aggregates, path: &Path, originator: [u8; 4], responder: [u8; 4], port: u16) {
        let (from, to) = ((originator.into(), 9), (responder.into(), port));
        let (key, side) = FlowKey::new(0, 6, from, to, false);
        all.add(Timestamp(0), &Collapsed::new(&key, side, path), &tally());
    }

    fn tally() -> Tally {
        Tally { packets: 1, ip_bytes: 40, wire_bytes: 60, ..Tally::none(Timestamp(5)) }
    }

    fn aggregates() -> Aggregates {
        Aggregates::new(KeyedHash::new([1, 2, 3, 4]))
    }

    fn told(all: &[Aggregate]) -> Vec<(String, u8, String, u8, Option<u16>, u64)> {
        let mut told: Vec<_> = all
            .iter()
            .map(|one| {
                let (from, to) = (one.originators, one.responders);
                let (first, last) = (from.first().to_string(), to.first().to_string());
                (first, from.length, last, to.length, one.port, one.flows)
            })
            .collect();
        told.sort();
        told
    }

    #[test]
    fn a_flood_is_one_aggregate_with_the_prefix_of_its_sources() {
        let (mut all, path) = (aggregates(), Path::default());
        for number in 0..200 {
            add(&mut all, &path, [10, 0, 1, number], [192, 0, 2, 1], 80);
            add(&mut all, &path, [number, 7, 1, 9], [192, 0, 2, 2], 443);
        }
        assert!(all.take(Some(Timestamp(GATHER - 1))).is_empty());
        let taken = all.take(Some(Timestamp(GATHER)));
        assert_eq!(
            told(&taken),
            [
                ("0.0.0.0".into(), 0, "192.0.2.2".into(), 32, Some(443), 200),
                ("10.0.1.0".into(), 24, "192.0.2.1".into(), 32, Some(80), 200),
            ]
        );
        let sources = taken[0].different_originators();
        assert!((160..=200).contains(&sources), "{sources}");
        assert_eq!((taken[0].tally.packets, taken[0].tally.wire_bytes), (200, 12_000));
        assert!(all.take(None).is_empty());
    }

    #[test]
    fn a_scan_becomes_the_prefix_of_its_source_and_a_flood_beside_it_stays_whole() {
        let (mut all, path) = (aggregates(), Path::default());
        for number in 0..20_000_u32 {
            let [_, _, high, low] = number.to_be_bytes();
            add(&mut all, &path, [10, 0, 0, 7], [172, 16, high, low], 23);
            add(&mut all, &path, [low, high, 3, 4], [192, 0, 2, 1], 80);
        }
        let taken = all.take(None);
        assert!(taken.len() <= LIMIT + 2, "{}", taken.len());
        let all_flows: u64 = taken.iter().map(|one| one.flows).sum();
        assert_eq!(all_flows, 40_000);
        let largest: Vec<_> = {
            let mut told = told(&taken);
            told.sort_by_key(|one| std::cmp::Reverse(one.5));
            told.into_iter().take(2).collect()
        };
        assert_eq!(largest[0], ("0.0.0.0".into(), 0, "192.0.2.1".into(), 32, Some(80), 20_000));
        let (from, length, to, bits, port, flows) = largest[1].clone();
        assert_eq!((from.as_str(), length, to.as_str(), port), ("10.0.0.7", 32, "172.16.0.0", Some(23)));
        assert!(bits <= 18 && flows >= 20_000 - 1024, "{bits} {flows}");
    }

    #[test]
    fn sources_and_targets_without_number_end_in_the_rest() {
        let (mut all, path) = (aggregates(), Path::default());
        for number in 0..100_000_u32 {
            let [_, top, high, low] = number.to_be_bytes();
            add(&mut all, &path, [low, high, top, 1], [172, top, high, low], low.into());
        }
        let taken = all.take(None);
        assert!(taken.len() <= 2 * LIMIT + 1, "{}", taken.len());
        assert_eq!(taken.iter().map(|one| one.tally.ip_bytes).sum::<u64>(), 4_000_000);
        let rest = taken.last().expect("the rest");
        let far = (rest.originators.length, rest.port);
        assert_eq!((far, rest.responders.first().to_string()), ((0, None), "172.0.0.0".into()));
        let sources = rest.different_originators() as f64 / rest.flows as f64;
        assert!((0.8..=1.0).contains(&sources), "{sources}");
    }
}
