//! The way flows take: interface, VLANs, and what their sides are to the plan. Few ways exist beside many flows, so
//! each stands once and flows name it by number.

use std::hash::{Hash, Hasher};

use arrayvec::ArrayVec;
use hashbrown::HashTable;

use super::{
    chunks::Chunks,
    key::KeyedHash,
    live::{NO_ENTRY, SidePlace},
};
use crate::{decode::InterfaceIndex, record::Locality};

/// Ways that are kept apart at most; a flow on another one carries it by itself.
const LIMIT: usize = 65_536;

/// One way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path {
    /// Site, sensor and scope, as identities have them.
    pub scope: [u8; 8],
    pub interface: InterfaceIndex,
    /// Address space of the flow's scope.
    pub space: u16,
    pub vlans: ArrayVec<u16, 3>,
    /// By side of the key.
    pub places: [SidePlace; 2],
}

/// The way of nothing.
pub(super) static NOWHERE: Path = Path {
    scope: [0; 8],
    interface: InterfaceIndex(0),
    space: 0,
    vlans: ArrayVec::new_const(),
    places: [SidePlace { locality: Locality::Unknown, segment: None, secretariat: None }; 2],
};

impl Hash for Path {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let place = |place: &SidePlace| {
            let part = |index: Option<u16>| index.map_or(0, |index| u64::from(index) + 1);
            u64::from(place.locality.code()) << 40 | part(place.segment) << 20 | part(place.secretariat)
        };
        let vlans = self.vlans.iter().fold(1, |all: u64, &vlan| all << 16 | u64::from(vlan));
        let way = u64::from(self.interface.0) << 16 | u64::from(self.space);
        let scope = u64::from_be_bytes(self.scope);
        for word in [scope, way, vlans, place(&self.places[0]), place(&self.places[1])] {
            state.write_u64(word);
        }
    }
}

/// Where a path is remembered by its places.
fn turn(places: &[SidePlace; 2]) -> usize {
    usize::from(places[0].locality.code() & 3) << 2 | usize::from(places[1].locality.code() & 3)
}

#[derive(Clone, Debug, Default)]
struct Shared {
    path: Path,
    flows: u32,
}

/// The ways that live flows take.
#[derive(Debug)]
pub(super) struct Paths {
    index: HashTable<u32>,
    shared: Chunks<Shared>,
    free: Vec<u32>,
    hash: KeyedHash,
    /// The paths that were taken last, by the localities of both sides, and the numbers of their scopes: most flows
    /// take one of these again.
    latest: [(u32, u16); 16],
}

impl Paths {
    pub(super) fn new(hash: KeyedHash) -> Self {
        Self {
            index: HashTable::new(),
            shared: Chunks::default(),
            free: Vec::new(),
            hash,
            latest: [(NO_ENTRY, 0); 16],
        }
    }

    /// The number of the path that was taken last, for one more flow, if it is this one.
    #[inline]
    pub(super) fn take_again(
        &mut self,
        scope: u16,
        interface: InterfaceIndex,
        space: u16,
        vlans: &[u16],
        places: &[SidePlace; 2],
    ) -> Option<u32> {
        let (latest, latest_scope) = self.latest[turn(places)];
        let held = self.shared.get_mut(latest as usize)?;
        let path = &held.path;
        let same = held.flows > 0
            && latest_scope == scope
            && path.interface == interface
            && path.space == space
            && path.places == *places
            && path.vlans.as_slice() == vlans;
        same.then(|| {
            held.flows = held.flows.saturating_add(1);
            latest
        })
    }

    /// Scopes have new numbers.
    pub(super) const fn forget_scopes(&mut self) {
        self.latest = [(NO_ENTRY, 0); 16];
    }

    /// The number of a path in a scope, for one more flow; none where there is no room for another path.
    pub(super) fn take(&mut self, path: &Path, scope: u16) -> Option<u32> {
        let Self { index, shared, free, hash, latest } = self;
        let hashed = hash.of(path);
        if let Some(&at) = index.find(hashed, |&at| shared[at as usize].path == *path) {
            shared[at as usize].flows += 1;
            latest[turn(&path.places)] = (at, scope);
            return Some(at);
        }
        if index.len() >= LIMIT {
            return None;
        }
        let new = Shared { path: path.clone(), flows: 1 };
        let at = match free.pop() {
            Some(at) => {
                shared[at as usize] = new;
                at
            }
            None => u32::try_from(shared.push(new)).ok()?,
        };
        index.insert_unique(hashed, at, |&at| hash.of(&shared[at as usize].path));
        latest[turn(&path.places)] = (at, scope);
        Some(at)
    }

    /// The path of a number, unless it is [`NO_ENTRY`].
    pub(super) fn get(&self, at: u32) -> Option<&Path> {
        if at == NO_ENTRY { None } else { self.shared.get(at as usize).map(|shared| &shared.path) }
    }

    /// One flow less takes it.
    pub(super) fn release(&mut self, at: u32) {
        if at == NO_ENTRY {
            return;
        }
        let Self { index, shared, free, hash, .. } = self;
        let held = &mut shared[at as usize];
        held.flows = held.flows.saturating_sub(1);
        if held.flows == 0 {
            if let Ok(found) = index.find_entry(hash.of(&held.path), |&other| other == at) {
                found.remove();
            }
            free.push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stands_once_and_goes_with_its_last_flow() {
        let mut paths = Paths::new(KeyedHash::new([1, 2, 3, 4]));
        let other = Path { space: 7, ..Path::default() };
        let numbers = [&Path::default(), &other, &Path::default()].map(|path| paths.take(path, 0));
        assert_eq!(numbers, [Some(0), Some(1), Some(0)]);
        paths.release(1);
        assert_eq!(paths.take(&Path { space: 8, ..Path::default() }, 0), Some(1));
        paths.release(0);
        assert_eq!((paths.get(0), paths.index.len()), (Some(&Path::default()), 2));
        paths.release(0);
        assert_eq!((paths.index.len(), paths.get(NO_ENTRY)), (1, None));
    }

    #[test]
    fn beyond_the_limit_a_path_has_no_number() {
        let mut paths = Paths::new(KeyedHash::new([1, 2, 3, 4]));
        let path = |number: u32| {
            let [_, _, high, low] = number.to_be_bytes();
            let vlans = [u16::from(high) + 1, u16::from(low)].into_iter().collect();
            Path { vlans, ..Path::default() }
        };
        for number in 0..65_536 {
            assert!(paths.take(&path(number), 0).is_some());
        }
        assert_eq!(paths.take(&Path::default(), 0), None);
        assert!(paths.take(&path(3), 0).is_some());
    }
}
