//! Small network words that every floor uses: MAC addresses and names.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digits;

/// A name out of the configuration (site, interface, segment, secretariat, address space). Cloning it costs
/// no allocation, so records can carry names.
pub type Name = Arc<str>;

/// A 48-bit MAC address (IEEE 802 EUI-48), written as `00:1b:21:3c:4d:5e`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Whether the group bit is set: multicast or broadcast, never a station's own address.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether every bit is zero: no address.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }
}

impl MacAddress {
    /// It as text.
    #[inline]
    pub const fn to_text(self) -> [u8; 17] {
        let [a, b, c, d, e, f] = self.0;
        let [a1, a2, b1, b2, c1, c2, d1, d2] = digits::hex(u32::from_be_bytes([a, b, c, d]));
        let [.., e1, e2, f1, f2] = digits::hex(u32::from_be_bytes([0, 0, e, f]));
        [a1, a2, b':', b1, b2, b':', c1, c2, b':', d1, d2, b':', e1, e2, b':', f1, f2]
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(digits::text(&self.to_text()))
    }
}

/// What was expected where a text is not a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a MAC address such as 00:1b:21:3c:4d:5e")]
pub struct InvalidMac;

impl FromStr for MacAddress {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or(InvalidMac)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| InvalidMac)?;
        }
        if parts.next().is_some() { Err(InvalidMac) } else { Ok(Self(octets)) }
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(digits::text(&self.to_text()))
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// IANA keyword of an IP protocol (protocol-numbers registry), in lower case; none for those that are rare.
pub const fn protocol_keyword(protocol: u8) -> Option<&'static str> {
    Some(match protocol {
        1 => "icmp",
        2 => "igmp",
        4 => "ipv4",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        41 => "ipv6",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "ipv6-icmp",
        88 => "eigrp",
        89 => "ospf",
        97 => "etherip",
        103 => "pim",
        112 => "vrrp",
        115 => "l2tp",
        132 => "sctp",
        136 => "udplite",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_reads_and_writes() {
        let mac = MacAddress([0, 0x1b, 0x21, 0x3c, 0x4d, 0x5e]);
        assert_eq!(mac.to_string(), "00:1b:21:3c:4d:5e");
        assert_eq!("00-1B-21-3C-4D-5E".parse(), Ok(mac));
        for bad in ["", "00:1b:21:3c:4d", "00:1b:21:3c:4d:5e:6f", "00:1b:21:3c:4d:5g", "+0:1b:21:3c:4d:5e"] {
            assert_eq!(bad.parse::<MacAddress>(), Err(InvalidMac), "{bad}");
        }
    }
}
