//! What makes two sightings one observation, in 40 bytes: it is hashed and compared for each flow.

use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use arrayvec::ArrayVec;

use crate::{decode::InterfaceIndex, net::MacAddress, record::ObservationKind};

const V6: u8 = 1;
const HAS_MAC: u8 = 2;
const HAS_SEGMENT: u8 = 4;
const HAS_SECRETARIAT: u8 = 8;
/// Where the number of VLANs stands in the flags.
const VLANS: u8 = 4;

/// Where an address was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) space: u16,
    pub(super) segment: Option<u16>,
    pub(super) secretariat: Option<u16>,
    pub(super) interface: InterfaceIndex,
}

/// The key of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    address: [u64; 2],
    /// MAC address, flags, kind.
    station: u64,
    /// Space, segment, secretariat, interface.
    spot: u64,
    vlans: [u16; 3],
    kind: ObservationKind,
}

impl Hash for Key {
    /// All but the VLANs, in few words.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.address[0] ^ self.spot.rotate_left(32));
        state.write_u64(self.address[1]);
        state.write_u64(self.station);
    }
}

fn words_of(bits: u128) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bits.to_be_bytes();
    [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes([i, j, k, l, m, n, o, p])]
}

fn address_words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(v4) => [0, v4.to_bits().into()],
        IpAddr::V6(v6) => words_of(v6.to_bits()),
    }
}

impl Key {
    pub(super) fn new(
        kind: ObservationKind,
        address: IpAddr,
        mac: Option<MacAddress>,
        spot: Spot,
        vlans: &ArrayVec<u16, 3>,
    ) -> Self {
        let count = u8::try_from(vlans.len()).unwrap_or(3) << VLANS;
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags = count
            | flag(address.is_ipv6(), V6)
            | flag(mac.is_some(), HAS_MAC)
            | flag(spot.segment.is_some(), HAS_SEGMENT)
            | flag(spot.secretariat.is_some(), HAS_SECRETARIAT);
        let [a, b, c, d, e, f] = mac.unwrap_or_default().0;
        let Spot { space, segment, secretariat, interface } = spot;
        let vlan = |at: usize| vlans.get(at).copied().unwrap_or(0);
        Self {
            address: address_words(address),
            station: u64::from_be_bytes([a, b, c, d, e, f, flags, kind.code()]),
            spot: u64::from(space) << 48
                | u64::from(segment.unwrap_or(0)) << 32
                | u64::from(secretariat.unwrap_or(0)) << 16
                | u64::from(interface.0),
            vlans: [vlan(0), vlan(1), vlan(2)],
            kind,
        }
    }

    /// The same key of another address of the family.
    pub(super) fn with_address(&self, address: IpAddr) -> Self {
        Self { address: address_words(address), ..*self }
    }

    /// Some word of it.
    pub(super) const fn word(&self) -> u64 {
        self.address[1] ^ self.station
    }

    pub(super) const fn kind(&self) -> ObservationKind {
        self.kind
    }

    const fn flags(&self) -> u8 {
        let [.., flags, _] = self.station.to_be_bytes();
        flags
    }

    pub(super) fn address(&self) -> IpAddr {
        let [high, low] = self.address;
        if self.flags() & V6 != 0 {
            return Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into();
        }
        let [.., a, b, c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d).into()
    }

    pub(super) fn mac(&self) -> Option<MacAddress> {
        let [a, b, c, d, e, f, ..] = self.station.to_be_bytes();
        (self.flags() & HAS_MAC != 0).then_some(MacAddress([a, b, c, d, e, f]))
    }

    pub(super) fn spot(&self) -> Spot {
        let [a, b, c, d, e, f, g, h] = self.spot.to_be_bytes();
        let [space, segment, secretariat, interface] =
            [[a, b], [c, d], [e, f], [g, h]].map(u16::from_be_bytes);
        Spot {
            space,
            segment: (self.flags() & HAS_SEGMENT != 0).then_some(segment),
            secretariat: (self.flags() & HAS_SECRETARIAT != 0).then_some(secretariat),
            interface: InterfaceIndex(interface),
        }
    }

    pub(super) fn vlans(&self) -> ArrayVec<u16, 3> {
        self.vlans.iter().copied().take((self.flags() >> VLANS).into()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Parts = ([u8; 16], bool, Option<[u8; 6]>, u16, Option<u16>, Option<u16>, u16, Vec<u16>, u8);

    fn parts() -> impl Strategy<Value = Parts> {
        let vlans = prop::collection::vec(0u16..3, 0..4);
        (
            prop::array::uniform16(0u8..2),
            any::<bool>(),
            prop::option::of(prop::array::uniform6(0u8..2)),
            0u16..2,
            prop::option::of(prop_oneof![Just(0u16), Just(u16::MAX)]),
            prop::option::of(prop_oneof![Just(0u16), Just(u16::MAX)]),
            0u16..2,
            vlans,
            0u8..17,
        )
    }

    fn key(parts: &Parts) -> (Key, IpAddr, Spot) {
        let (ip, v6, mac, space, segment, secretariat, interface, vlans, kind) = parts.clone();
        let address = if v6 { IpAddr::from(ip) } else { IpAddr::from([ip[0], ip[1], ip[2], ip[3]]) };
        let spot = Spot { space, segment, secretariat, interface: InterfaceIndex(interface) };
        let kind = ObservationKind::from_code(kind).unwrap();
        (Key::new(kind, address, mac.map(MacAddress), spot, &vlans.into_iter().collect()), address, spot)
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_and_keys_are_equal_where_their_parts_are(one in parts(), mut other in parts()) {
            let (made, address, spot) = key(&one);
            prop_assert_eq!((made.address(), made.spot()), (address, spot));
            prop_assert_eq!((made.mac(), made.kind().code()), (one.2.map(MacAddress), one.8));
            prop_assert_eq!(made.vlans().to_vec(), one.7.clone());
            // One part of another key in the place of this one's.
            let (bytes, v6) = (one.0, one.1);
            for part in 0..9 {
                let mut mixed = one.clone();
                match part {
                    0 => mixed.0 = other.0,
                    1 => mixed.1 = other.1,
                    2 => mixed.2 = other.2,
                    3 => mixed.3 = other.3,
                    4 => mixed.4 = other.4,
                    5 => mixed.5 = other.5,
                    6 => mixed.6 = other.6,
                    7 => mixed.7 = std::mem::take(&mut other.7),
                    _ => mixed.8 = other.8,
                }
                let is_same_v4 = !v6 && !mixed.1 && bytes[..4] == mixed.0[..4];
                if is_same_v4 {
                    mixed.0 = bytes;
                }
                prop_assert_eq!(key(&mixed).0 == made, mixed == one, "{:?} {:?}", mixed, one);
            }
        }
    }

    #[test]
    fn it_takes_forty_bytes() {
        assert_eq!(size_of::<Key>(), 40);
    }
}
