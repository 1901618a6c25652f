//! A use of an address in 32 bytes, as nearly all of them are kept: one kind of observation, of one station, at one spot.

use std::{
    hash::{Hash, Hasher},
    net::IpAddr,
};

use ahash::RandomState;

use super::{Holder, ObservedOwner, Use};
use crate::{
    index::Index,
    net::{MacAddress, Name},
    record::{Observation, ObservationEvidence, ObservationKind, Strength},
    time::Timestamp,
};

/// One use in 32 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(4))]
pub(super) struct One {
    first_seen: Timestamp,
    last_seen: Timestamp,
    packets: u32,
    /// Number of its spot.
    spot: u32,
    mac: MacAddress,
    kind: ObservationKind,
    /// Strength of the use, and in the bits above that of the first observation, and whether there is a MAC address.
    marks: u8,
}

const OF_FIRST: u8 = 2;
const HAS_MAC: u8 = 0x10;
const STRENGTH: u8 = 3;

/// Where a use was seen, and whose it was taken for.
#[derive(Clone, Debug)]
struct Spot {
    space: Name,
    secretariat: Name,
    site: Name,
    segment: Option<Name>,
}

/// Every spot, by number. There are about as many as segments.
#[derive(Clone, Debug)]
pub(super) struct Spots {
    held: Vec<Spot>,
    index: Index,
    hasher: RandomState,
}

/// Spots that are told apart; a use at any other is written out.
const MAX_SPOTS: usize = 65_536;

impl Spot {
    fn is_of(&self, observation: &Observation) -> bool {
        self.space == observation.address_space
            && Some(&self.secretariat) == observation.secretariat.as_ref()
            && self.site == observation.site
            && self.segment == observation.segment
    }
}

impl Spots {
    pub(super) fn new([a, b, c, d]: [u64; 4]) -> Self {
        Self { held: Vec::new(), index: Index::default(), hasher: RandomState::with_seeds(a, b, c, d) }
    }

    fn get(&self, number: u32) -> Option<&Spot> {
        self.held.get(number as usize)
    }

    /// The number of an observation's spot; none where it has no secretariat, or there are too many.
    fn number(&mut self, observation: &Observation) -> Option<u32> {
        let Observation { address_space, secretariat, site, segment, .. } = observation;
        let [a, b, c, d, ..] =
            self.hasher.hash_one((address_space, secretariat, site, segment)).to_be_bytes();
        let hash = u32::from_be_bytes([a, b, c, d]);
        let is = |at: u32| self.get(at).is_some_and(|spot| spot.is_of(observation));
        if let Some(number) = self.index.find(hash, is) {
            return Some(number);
        }
        let number = u32::try_from(self.held.len()).ok().filter(|_| self.held.len() < MAX_SPOTS)?;
        self.held.push(Spot {
            space: address_space.clone(),
            secretariat: secretariat.clone()?,
            site: site.clone(),
            segment: segment.clone(),
        });
        self.index.insert(hash, number);
        Some(number)
    }
}

impl One {
    /// A use that was just seen for the first time; none where it does not fit.
    pub(super) fn of(observation: &Observation, spots: &mut Spots) -> Option<Self> {
        let packets = u32::try_from(observation.packets).ok()?;
        let strength = observation.strength.code();
        Some(Self {
            first_seen: observation.first_seen,
            last_seen: observation.last_seen,
            packets,
            spot: spots.number(observation)?,
            mac: observation.mac.unwrap_or_default(),
            kind: observation.kind,
            marks: strength | strength << OF_FIRST | if observation.mac.is_some() { HAS_MAC } else { 0 },
        })
    }

    pub(super) const fn last_seen(&self) -> Timestamp {
        self.last_seen
    }

    /// Who was seen with the address.
    pub(super) fn owner(&self, spots: &Spots) -> Option<ObservedOwner> {
        let spot = spots.get(self.spot)?;
        Some(ObservedOwner { secretariat: spot.secretariat.clone(), address_space: spot.space.clone() })
    }

    fn mac(&self) -> Option<MacAddress> {
        (self.marks & HAS_MAC != 0).then_some(self.mac)
    }

    /// Takes one more observation where it is of the same kind, station and spot; says whether it did.
    pub(super) fn take(&mut self, observation: &Observation, spots: &Spots) -> bool {
        let packets = u32::try_from(observation.packets).ok().and_then(|more| self.packets.checked_add(more));
        let is_same = self.kind == observation.kind
            && self.mac() == observation.mac
            && observation.strength > Strength::Weak
            && spots.get(self.spot).is_some_and(|spot| spot.is_of(observation));
        let Some(packets) = packets.filter(|_| is_same) else { return false };
        self.packets = packets;
        self.first_seen = { self.first_seen }.min(observation.first_seen);
        self.last_seen = { self.last_seen }.max(observation.last_seen);
        let strength = (self.marks & STRENGTH).max(observation.strength.code());
        self.marks = self.marks & !STRENGTH | strength;
        true
    }

    /// The use as it would be had it been written out from the start.
    pub(super) fn written_out(&self, address: IpAddr, spots: &Spots) -> Option<Use> {
        let Spot { space, secretariat, site, segment } = spots.get(self.spot)?;
        let strength = |bits: u8| Strength::from_code(bits & STRENGTH).unwrap_or(Strength::Medium);
        let (first_seen, last_seen) = (self.first_seen, self.last_seen);
        let observation = ObservationEvidence {
            address_space: space.clone(),
            site: site.clone(),
            segment: segment.clone(),
            kind: self.kind,
            strength: strength(self.marks >> OF_FIRST),
            address,
            mac: self.mac(),
            first_seen,
            last_seen,
        };
        Some(Use {
            space: space.clone(),
            strength: strength(self.marks),
            packets: self.packets.into(),
            first_seen,
            last_seen,
            holders: vec![Holder { secretariat: secretariat.clone(), used: Some(last_seen) }],
            observations: vec![observation],
        })
    }
}

/// An address in 16 bytes: IPv4 as mapped into IPv6, which no private address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address([u32; 4]);

impl Address {
    pub(super) fn of(ip: IpAddr) -> Self {
        let bits = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bits.to_be_bytes();
        Self([[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_be_bytes))
    }
}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d] = self.0.map(u64::from);
        state.write_u64(a << 32 | b);
        state.write_u64(c << 32 | d);
    }
}
