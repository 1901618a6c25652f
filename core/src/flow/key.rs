//! The canonical key of a biflow: both directions of a conversation give the same key, and a bit says which way
//! a packet went.

use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Scope, protocol and the two endpoints in canonical order (address, then port). VLAN ids, labels and
/// interfaces are not part of it: a flow whose directions take different ways is still one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowKey {
    low: [u64; 2],
    high: [u64; 2],
    /// Low port, high port, protocol, flags and scope: 16, 16, 8, 8, 16 bits.
    tuple: u64,
}

/// A key as live flows hold it: the addresses of IPv6, which most flows do not have, stand elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PackedKey {
    /// IPv4: the low address. IPv6: where the words of both stand.
    low: u32,
    /// IPv4: the high address.
    high: u32,
    tuple: u64,
}

const V6: u8 = 1;
const ONE_WAY: u8 = 2;
const ONE_WAY_FROM_HIGH: u8 = 4;
const TUNNELLED: u8 = 8;

/// One end of a packet: address and port (or ICMP type and code, see [`super::icmp`]).
pub type End = (IpAddr, u16);

/// Side of a key: 0 is the lower endpoint, 1 the higher.
pub type Side = usize;

impl FlowKey {
    /// The key of a packet, and the side that sent it. One-way flows (unpaired ICMP types) never share a key
    /// with packets of the other direction.
    pub fn new(scope: u16, protocol: u8, source: End, destination: End, one_way: bool) -> (Self, Side) {
        let (from, to) = ((words(source.0), source.1), (words(destination.0), destination.1));
        Self::of_words(scope, protocol, source.0.is_ipv6(), from, to, one_way)
    }

    /// The same for addresses in words: IPv4 in the low half of the second.
    #[inline]
    pub(crate) fn of_words(
        scope: u16,
        protocol: u8,
        is_v6: bool,
        source: ([u64; 2], u16),
        destination: ([u64; 2], u16),
        one_way: bool,
    ) -> (Self, Side) {
        let swapped = source > destination;
        let (low, high) = if swapped { (destination, source) } else { (source, destination) };
        let mut flags = if is_v6 { V6 } else { 0 };
        if one_way {
            flags |= if swapped { ONE_WAY | ONE_WAY_FROM_HIGH } else { ONE_WAY };
        }
        let tuple = u64::from(low.1) << 48
            | u64::from(high.1) << 32
            | u64::from(protocol) << 24
            | u64::from(flags) << 16
            | u64::from(scope);
        (Self { low: low.0, high: high.0, tuple }, Side::from(swapped))
    }

    /// Address and port of a side.
    #[inline]
    pub fn end(&self, side: Side) -> End {
        let (words, port) = self.words_of(side);
        (self.address(words), port)
    }

    /// Address of a side in words, IPv4 in the low half of the second, and its port.
    #[inline]
    pub(super) fn words_of(&self, side: Side) -> ([u64; 2], u16) {
        let (words, shift) = if side == 0 { (self.low, 48) } else { (self.high, 32) };
        (words, low_16(self.tuple >> shift))
    }

    /// Whether its addresses are of IPv6.
    #[inline]
    pub(super) fn is_v6(&self) -> bool {
        self.flags() & V6 != 0
    }

    /// IP protocol number.
    pub fn protocol(&self) -> u8 {
        self.tuple.to_be_bytes()[4]
    }

    /// Scope, see `ipam::Places`.
    pub fn scope(&self) -> u16 {
        low_16(self.tuple)
    }

    /// The key of the same flow inside a tunnel. A packet that passes both ways, by itself and inside a tunnel,
    /// would else count twice to one flow.
    pub const fn in_tunnel(self) -> Self {
        Self { tuple: self.tuple | (TUNNELLED as u64) << 16, ..self }
    }

    /// Whether this is the key of a flow inside a tunnel.
    pub fn is_in_tunnel(&self) -> bool {
        self.flags() & TUNNELLED != 0
    }

    /// Whether the flow has one direction by definition.
    pub fn is_one_way(&self) -> bool {
        self.flags() & ONE_WAY != 0
    }

    fn flags(&self) -> u8 {
        flags(self.tuple)
    }

    pub(super) const fn tuple(&self) -> u64 {
        self.tuple
    }

    /// Both addresses as words.
    pub(super) const fn words(&self) -> [u64; 4] {
        [self.low[0], self.low[1], self.high[0], self.high[1]]
    }

    /// Packs it; `keep` puts the words of IPv6 addresses where they are found by the number it gives.
    #[inline]
    pub(super) fn pack(&self, keep: impl FnOnce([u64; 4]) -> u32) -> PackedKey {
        let (low, high) =
            if self.flags() & V6 != 0 { (keep(self.words()), 0) } else { (v4(self.low), v4(self.high)) };
        PackedKey { low, high, tuple: self.tuple }
    }

    #[inline]
    fn address(&self, [upper, lower]: [u64; 2]) -> IpAddr {
        if self.is_v6() {
            return Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower)).into();
        }
        let [.., a, b, c, d] = lower.to_be_bytes();
        Ipv4Addr::new(a, b, c, d).into()
    }
}

impl PackedKey {
    pub(super) const fn tuple(self) -> u64 {
        self.tuple
    }

    pub(super) const fn protocol(self) -> u8 {
        self.tuple.to_be_bytes()[4]
    }

    /// Where the words of IPv6 addresses stand; none for IPv4.
    pub(super) fn slot(self) -> Option<u32> {
        (flags(self.tuple) & V6 != 0).then_some(self.low)
    }

    /// Whether it has the addresses of an IPv4 key.
    pub(super) fn is_v4_of(self, key: &FlowKey) -> bool {
        self.low == v4(key.low) && self.high == v4(key.high)
    }

    /// The key in full.
    pub(super) fn unpack(self, words: impl FnOnce(u32) -> [u64; 4]) -> FlowKey {
        let [low_upper, low, high_upper, high] =
            self.slot().map_or_else(|| [0, self.low.into(), 0, self.high.into()], words);
        FlowKey { low: [low_upper, low], high: [high_upper, high], tuple: self.tuple }
    }

    /// The same key in another scope.
    pub(super) const fn with_scope(self, scope: u16) -> Self {
        Self { tuple: self.tuple & !0xffff | scope as u64, ..self }
    }

    /// Scope, see `ipam::Places`.
    pub(super) fn scope(self) -> u16 {
        low_16(self.tuple)
    }
}

impl Hash for FlowKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        if self.flags() & V6 == 0 {
            state.write_u64(self.low[1] << 32 | self.high[1]);
        } else {
            self.words().into_iter().for_each(|word| state.write_u64(word));
        }
        state.write_u64(self.tuple);
    }
}

const fn flags(tuple: u64) -> u8 {
    tuple.to_be_bytes()[5]
}

/// The bits of an IPv4 address.
fn v4([_, bits]: [u64; 2]) -> u32 {
    let [.., a, b, c, d] = bits.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn low_16(bits: u64) -> u16 {
    let [.., a, b] = bits.to_be_bytes();
    u16::from_be_bytes([a, b])
}

fn words(ip: IpAddr) -> [u64; 2] {
    match ip {
        IpAddr::V4(v4) => [0, u64::from(v4.to_bits())],
        IpAddr::V6(v6) => {
            let bits = v6.to_bits().to_be_bytes();
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bits;
            [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes([i, j, k, l, m, n, o, p])]
        }
    }
}

/// The hash of flow tables: keyed, so that nobody who does not know the seed can aim collisions.
#[derive(Clone, Debug)]
pub struct KeyedHash(ahash::RandomState);

impl KeyedHash {
    /// With the seed of the sensor.
    pub const fn new(seed: [u64; 4]) -> Self {
        Self(ahash::RandomState::with_seeds(seed[0], seed[1], seed[2], seed[3]))
    }

    /// Hash of a key.
    pub fn of<T: Hash>(&self, key: &T) -> u64 {
        self.0.hash_one(key)
    }

    /// Hash of a key in half the bits, for an index.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "both halves are in it")]
    pub fn short<T: Hash>(&self, key: &T) -> u32 {
        let hash = self.0.hash_one(key);
        (hash ^ hash >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn end(ip: &str, port: u16) -> End {
        (ip.parse().expect("an address"), port)
    }

    #[test]
    fn both_directions_have_one_key_and_opposite_sides() {
        let (a, b) = (end("10.0.0.1", 4000), end("192.0.2.7", 53));
        let (there, side) = FlowKey::new(3, 17, a, b, false);
        let (back, other) = FlowKey::new(3, 17, b, a, false);
        assert_eq!((there, side), (back, 1 - other));
        assert_eq!((there.end(side), there.end(other)), (a, b));
        assert_eq!((there.protocol(), there.scope()), (17, 3));
        assert_eq!(there.pack(|_| 0).with_scope(9).scope(), 9);
    }

    #[test]
    fn scope_family_and_one_way_keep_keys_apart() {
        let (a, b) = (end("10.0.0.1", 3), end("10.0.0.2", 1));
        let key = |scope, a, b, one_way| FlowKey::new(scope, 1, a, b, one_way).0;
        assert_ne!(key(1, a, b, false), key(2, a, b, false));
        assert_ne!(key(1, a, b, true), key(1, b, a, true));
        assert_ne!(key(1, a, b, true), key(1, a, b, false));
        let (v4, v6) = (end("0.0.0.1", 3), end("::1", 3));
        assert_ne!(key(1, v4, v4, false), key(1, v6, v6, false));
    }

    proptest! {
        #[test]
        fn ends_come_back_as_they_went_in(a: [u8; 16], b: [u8; 16], ports: (u16, u16), v6: bool, scope: u16) {
            let ip = |bytes: [u8; 16]| -> IpAddr {
                if v6 { bytes.into() } else { [bytes[0], bytes[1], bytes[2], bytes[3]].into() }
            };
            let (a, b) = ((ip(a), ports.0), (ip(b), ports.1));
            let (key, side) = FlowKey::new(scope, 6, a, b, false);
            prop_assert_eq!((key.end(side), key.end(1 - side)), (a, b));
            let mut kept = None;
            let packed = key.pack(|words| {
                kept = Some(words);
                7
            });
            prop_assert_eq!((kept.is_some(), packed.slot()), (v6, v6.then_some(7)));
            prop_assert_eq!(packed.unpack(|_| kept.unwrap_or_default()), key);
            prop_assert_eq!((packed.protocol(), packed.scope(), packed.tuple()), (6, scope, key.tuple()));
            prop_assert_eq!(key.scope(), scope);
        }
    }
}
