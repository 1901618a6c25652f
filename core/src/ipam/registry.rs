//! The IANA special-purpose address registries (RFC 6890, RFC 8190) as code: what an address is for and
//! whether it is globally reachable. The most specific entry wins.
//!
//! Three decisions that the registries leave open: Teredo (2001::/32) and 6to4 (2002::/16) are as reachable
//! as the IPv4 address inside them, because RFC 4380 and RFC 3964 have the others dropped; deprecated
//! 192.88.99.0/24 counts as reachable, being ordinary routed space again (RFC 7526); and IPv6 outside of
//! 2000::/3 that no entry names is reserved (IANA "IPv6 Address Space"), so it is not reachable.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What kind of address it is, as far as rules tell addresses apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// Ordinary unicast, or a special entry that is reachable.
    Global,
    /// RFC 1918.
    Private,
    /// Shared address space, 100.64.0.0/10 (RFC 6598).
    Shared,
    /// Unique local, fc00::/7 (RFC 4193).
    UniqueLocal,
    /// 169.254.0.0/16 (RFC 3927) and fe80::/10 (RFC 4291).
    LinkLocal,
    /// 127.0.0.0/8 and ::1.
    Loopback,
    /// 0.0.0.0 and ::.
    Unspecified,
    /// 255.255.255.255.
    Broadcast,
    /// 224.0.0.0/4 and ff00::/8.
    Multicast,
    /// Anything else that is not reachable: documentation, benchmarking, reserved, protocol assignments.
    Reserved,
}

/// One entry of the registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// Name of the entry, as IANA has it.
    pub name: &'static str,
    /// Kind of address.
    pub class: AddressClass,
    /// Whether a packet with this address may cross the internet.
    pub globally_reachable: bool,
}

impl Special {
    /// Whether it must be unique only within one address space: RFC 1918, ULA and shared address space.
    pub const fn is_private(&self) -> bool {
        matches!(self.class, AddressClass::Private | AddressClass::Shared | AddressClass::UniqueLocal)
    }

    /// Whether one station can have it: neither multicast, nor broadcast, nor unspecified.
    pub const fn is_unicast(&self) -> bool {
        !matches!(self.class, AddressClass::Multicast | AddressClass::Broadcast | AddressClass::Unspecified)
    }
}

macro_rules! entries {
    ($($id:ident $class:ident $reachable:literal $name:literal;)+) => {
        $(static $id: Special =
            Special { name: $name, class: AddressClass::$class, globally_reachable: $reachable };)+
    };
}

entries! {
    GLOBAL Global true "Global unicast";
    REACHABLE_ASSIGNMENT Global true "IETF protocol assignment, reachable";
    THIS_HOST Unspecified false "Unspecified address";
    THIS_NETWORK Reserved false "\"This network\"";
    PRIVATE Private false "Private-Use";
    SHARED Shared false "Shared Address Space";
    LOOPBACK Loopback false "Loopback";
    LINK_LOCAL LinkLocal false "Link Local";
    PROTOCOL Reserved false "IETF Protocol Assignments";
    DOCUMENTATION Reserved false "Documentation";
    BENCHMARKING Reserved false "Benchmarking";
    RESERVED Reserved false "Reserved";
    BROADCAST Broadcast false "Limited Broadcast";
    MULTICAST Multicast false "Multicast";
    RELAY_6A44 Reserved false "6a44-relay anycast address";
    UNIQUE_LOCAL UniqueLocal false "Unique-Local";
    MAPPED Reserved false "IPv4-mapped Address";
    TRANSLATION_LOCAL Reserved false "IPv4-IPv6 Translation, local";
    DISCARD Reserved false "Discard-Only Address Block";
    SEGMENT_ROUTING Reserved false "Segment Routing (SRv6) SIDs";
    TEREDO Global true "TEREDO";
    TEREDO_UNREACHABLE Reserved false "TEREDO of an address that is not reachable";
    SIX_TO_FOUR Global true "6to4";
    SIX_TO_FOUR_UNREACHABLE Reserved false "6to4 of an address that is not reachable";
}

/// What the registries say about an address. No allocation; for ordinary addresses one or two compares.
#[inline]
pub fn classify(ip: IpAddr) -> &'static Special {
    match ip {
        IpAddr::V4(ip) if is_ordinary(ip.octets()[0]) => &GLOBAL,
        IpAddr::V4(ip) => classify_v4(ip),
        IpAddr::V6(ip) => classify_v6(ip),
    }
}

/// Whether no entry begins with this octet, as with most.
#[inline]
const fn is_ordinary(first: u8) -> bool {
    !matches!(first, 0 | 10 | 100 | 127 | 169 | 172 | 192 | 198 | 203 | 224..=255)
}

/// The block of addresses that a made-up source is likely drawn from together with this one: the registry's entry
/// for private and reserved space, /16 (IPv6: /32) of ordinary space.
pub fn block_of(ip: IpAddr) -> IpNet {
    let length = match ip {
        IpAddr::V4(ip) => match ip.octets() {
            [240..=255, ..] => 4,
            [0 | 10 | 127, ..] => 8,
            [100, b, ..] if b & 0xc0 == 64 => 10,
            [172, b, ..] if b & 0xf0 == 16 => 12,
            [198, 18 | 19, ..] => 15,
            _ => 16,
        },
        IpAddr::V6(ip) => match ip.segments()[0] {
            0x2000..=0x3fff => 32,
            0xfc00..=0xfdff => 7,
            0xfe80..=0xfebf => 10,
            _ => 4,
        },
    };
    IpNet::new(ip, length).map_or_else(|_| IpNet::from(ip), |net| net.trunc())
}

fn classify_v4(ip: Ipv4Addr) -> &'static Special {
    let [a, b, c, d] = ip.octets();
    match a {
        0 if (b, c, d) == (0, 0, 0) => &THIS_HOST,
        0 => &THIS_NETWORK,
        10 => &PRIVATE,
        100 if b & 0xc0 == 64 => &SHARED,
        127 => &LOOPBACK,
        169 if b == 254 => &LINK_LOCAL,
        172 if b & 0xf0 == 16 => &PRIVATE,
        192 => match (b, c, d) {
            (0, 0, 9 | 10) => &REACHABLE_ASSIGNMENT,
            (0, 0, _) => &PROTOCOL,
            (0, 2, _) => &DOCUMENTATION,
            (88, 99, 2) => &RELAY_6A44,
            (168, ..) => &PRIVATE,
            _ => &GLOBAL,
        },
        198 if b & 0xfe == 18 => &BENCHMARKING,
        198 if (b, c) == (51, 100) => &DOCUMENTATION,
        203 if (b, c) == (0, 113) => &DOCUMENTATION,
        224..=239 => &MULTICAST,
        240..=255 if ip == Ipv4Addr::BROADCAST => &BROADCAST,
        240..=255 => &RESERVED,
        _ => &GLOBAL,
    }
}

fn classify_v6(ip: Ipv6Addr) -> &'static Special {
    let s = ip.segments();
    match s[0] {
        0x2001 if s[1] < 0x200 => classify_protocol_assignment(ip),
        0x2001 if s[1] == 0xdb8 => &DOCUMENTATION,
        0x2002 if embedded_is_reachable(s[1], s[2]) => &SIX_TO_FOUR,
        0x2002 => &SIX_TO_FOUR_UNREACHABLE,
        0x3fff if s[1] & 0xf000 == 0 => &DOCUMENTATION,
        0x2000..=0x3fff => &GLOBAL,
        0x5f00 => &SEGMENT_ROUTING,
        0xfc00..=0xfdff => &UNIQUE_LOCAL,
        0xfe80..=0xfebf => &LINK_LOCAL,
        0xff00..=0xffff => &MULTICAST,
        0x0064 if (s[1], s[2]) == (0xff9b, 1) => &TRANSLATION_LOCAL,
        0x0064 if s[1..6] == [0xff9b, 0, 0, 0, 0] => &GLOBAL,
        0x0100 if s[1..4] == [0, 0, 0] || s[1..4] == [0, 0, 1] => &DISCARD,
        0 if ip == Ipv6Addr::UNSPECIFIED => &THIS_HOST,
        0 if ip == Ipv6Addr::LOCALHOST => &LOOPBACK,
        0 if s[1..6] == [0, 0, 0, 0, 0xffff] => &MAPPED,
        _ => &RESERVED,
    }
}

/// 2001::/23, which is not reachable but for the entries within it that are.
fn classify_protocol_assignment(ip: Ipv6Addr) -> &'static Special {
    let s = ip.segments();
    match s[1] {
        // RFC 4380: the client's mapped IPv4 address stands last, with every bit inverted.
        0 if embedded_is_reachable(!s[6], !s[7]) => &TEREDO,
        0 => &TEREDO_UNREACHABLE,
        1 if s[2..7] == [0, 0, 0, 0, 0] && (1..=3).contains(&s[7]) => &REACHABLE_ASSIGNMENT,
        2 if s[2] == 0 => &BENCHMARKING,
        3 | 0x20..=0x3f => &REACHABLE_ASSIGNMENT,
        4 if s[2] == 0x112 => &REACHABLE_ASSIGNMENT,
        _ => &PROTOCOL,
    }
}

fn embedded_is_reachable(high: u16, low: u16) -> bool {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    classify_v4(Ipv4Addr::new(a, b, c, d)).globally_reachable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(ip: &str) -> (AddressClass, bool) {
        let special = classify(ip.parse().expect(ip));
        (special.class, special.globally_reachable)
    }

    /// First and last address of each entry of the registries that is not reachable, and the addresses beside.
    #[test]
    fn no_address_of_an_unreachable_entry_is_reachable_and_its_neighbours_are_told_apart() {
        for cidr in [
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/29",
            "192.0.0.8/32",
            "192.0.0.170/32",
            "192.0.0.171/32",
            "192.0.2.0/24",
            "192.88.99.2/32",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "240.0.0.0/4",
            "255.255.255.255/32",
            "::1/128",
            "::/128",
            "::ffff:0:0/96",
            "64:ff9b:1::/48",
            "100::/64",
            "100:0:0:1::/64",
            "2001:2::/48",
            "2001:db8::/32",
            "3fff::/20",
            "5f00::/16",
            "fc00::/7",
            "fe80::/10",
        ] {
            let net: IpNet = cidr.parse().expect(cidr);
            for ip in [net.network(), net.broadcast()] {
                assert!(!classify(ip).globally_reachable, "{ip} of {cidr}");
            }
        }
        for (ip, class) in [
            ("9.255.255.255", AddressClass::Global),
            ("11.0.0.0", AddressClass::Global),
            ("100.63.255.255", AddressClass::Global),
            ("100.128.0.0", AddressClass::Global),
            ("172.15.255.255", AddressClass::Global),
            ("172.32.0.0", AddressClass::Global),
            ("192.167.255.255", AddressClass::Global),
            ("198.17.255.255", AddressClass::Global),
            ("198.20.0.0", AddressClass::Global),
            ("223.255.255.255", AddressClass::Global),
            ("224.0.0.1", AddressClass::Multicast),
            ("239.255.255.255", AddressClass::Multicast),
            ("fbff::1", AddressClass::Reserved),
            ("fe00::1", AddressClass::Reserved),
            ("fec0::1", AddressClass::Reserved),
            ("ff02::1", AddressClass::Multicast),
            ("2001:db9::1", AddressClass::Global),
            ("3fff:1000::1", AddressClass::Global),
            ("4000::1", AddressClass::Reserved),
        ] {
            assert_eq!(class_of(ip).0, class, "{ip}");
        }
    }

    #[test]
    fn no_entry_begins_with_an_ordinary_octet() {
        for first in (0..=255).filter(|&first| is_ordinary(first)) {
            for rest in [[0, 0, 0], [0, 0, 9], [88, 99, 2], [168, 0, 0], [255, 255, 255]] {
                let ip = Ipv4Addr::new(first, rest[0], rest[1], rest[2]);
                assert_eq!(classify_v4(ip), &GLOBAL, "{ip}");
            }
        }
    }

    #[test]
    fn the_most_specific_entry_wins() {
        for (ip, reachable) in [
            ("192.0.0.9", true),
            ("192.0.0.10", true),
            ("192.0.0.11", false),
            ("192.31.196.1", true),
            ("192.52.193.1", true),
            ("192.175.48.1", true),
            ("192.88.99.1", true),
            ("192.88.99.2", false),
            ("2001:1::1", true),
            ("2001:1::3", true),
            ("2001:1::4", false),
            ("2001:3::1", true),
            ("2001:4:112::1", true),
            ("2001:4:113::1", false),
            ("2001:20::1", true),
            ("2001:30::1", true),
            ("2001:40::1", false),
            ("2001:1ff::1", false),
            ("2001:200::1", true),
            ("2620:4f:8000::1", true),
            ("64:ff9b::808:808", true),
            ("64:ff9b:2::1", false),
        ] {
            assert_eq!(class_of(ip).1, reachable, "{ip}");
        }
    }

    #[test]
    fn teredo_and_6to4_are_as_reachable_as_the_address_inside_them() {
        // RFC 4380 §4: 192.0.2.45 obscured is 3fff:fdd2; 8.8.8.8 obscured is f7f7:f7f7.
        assert_eq!(class_of("2001:0:4136:e378:8000:63bf:3fff:fdd2"), (AddressClass::Reserved, false));
        assert_eq!(class_of("2001:0:4136:e378:8000:63bf:f7f7:f7f7"), (AddressClass::Global, true));
        assert_eq!(class_of("2002:808:808::1"), (AddressClass::Global, true));
        assert_eq!(class_of("2002:a00:1::1"), (AddressClass::Reserved, false));
    }

    #[test]
    fn a_block_is_the_entry_of_private_space_and_a_piece_of_ordinary_space() {
        for (ip, block) in [
            ("10.1.2.3", "10.0.0.0/8"),
            ("172.31.0.1", "172.16.0.0/12"),
            ("255.1.1.1", "240.0.0.0/4"),
            ("192.168.9.9", "192.168.0.0/16"),
            ("146.243.7.7", "146.243.0.0/16"),
            ("fd12::1", "fc00::/7"),
            ("2600:1:2::3", "2600:1::/32"),
        ] {
            assert_eq!(block_of(ip.parse().unwrap()).to_string(), block);
        }
    }

    #[test]
    fn private_means_unique_within_one_address_space_only() {
        for (ip, private) in [
            ("10.1.1.1", true),
            ("100.64.0.1", true),
            ("fd00::1", true),
            ("169.254.1.1", false),
            ("127.0.0.1", false),
            ("8.8.8.8", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("224.0.0.5", false),
        ] {
            assert_eq!(classify(ip.parse().unwrap()).is_private(), private, "{ip}");
        }
    }
}
