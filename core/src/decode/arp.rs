//! ARP and RARP (RFC 826, RFC 903) for IPv4 over Ethernet.

use std::net::Ipv4Addr;

use etherparse::ArpPacketSlice;

use super::{
    cursor::{Cursor, at_network},
    packet::{ArpOperation, ArpPacket, Unparsed},
    read,
    shim::IPV4,
};
use crate::{net::MacAddress, record::Reason};

/// Hardware types whose addresses are MAC addresses: Ethernet, and IEEE 802 (RFC 1042 networks).
const HARDWARE_WITH_MAC: [u16; 2] = [1, 6];

/// Decodes an ARP packet; ARP for other hardware or protocols is [`Reason::NotIp`].
pub(super) fn decode(at: Cursor<'_>) -> Result<ArpPacket, Unparsed> {
    let arp = ArpPacketSlice::from_slice(at.data).map_err(|_| at_network(Reason::Truncated))?;
    let hardware = arp.hw_addr_type().0;
    if !HARDWARE_WITH_MAC.contains(&hardware) || arp.proto_addr_type().0 != IPV4 {
        return Err(at_network(Reason::NotIp));
    }
    let mac = |field| read::array(field, 0).map(MacAddress);
    let ip = |field| read::array::<4>(field, 0).map(Ipv4Addr::from);
    if (arp.hw_addr_size(), arp.proto_addr_size()) != (6, 4) {
        return Err(at_network(Reason::BadLength));
    }
    let fields = || {
        Some(ArpPacket {
            operation: match arp.operation().0 {
                1 => ArpOperation::Request,
                2 => ArpOperation::Reply,
                other => ArpOperation::Other(other),
            },
            sender_mac: mac(arp.sender_hw_addr())?,
            sender_ip: ip(arp.sender_protocol_addr())?,
            target_mac: mac(arp.target_hw_addr())?,
            target_ip: ip(arp.target_protocol_addr())?,
        })
    };
    fields().ok_or(at_network(Reason::Truncated))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: [u8; 28] =
        [0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2];

    fn read(bytes: &[u8]) -> Result<ArpPacket, Unparsed> {
        decode(Cursor::new(bytes, 0))
    }

    #[test]
    fn a_reply_is_read_field_by_field() {
        let expected = ArpPacket {
            operation: ArpOperation::Reply,
            sender_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            sender_ip: Ipv4Addr::new(10, 0, 0, 1),
            target_mac: MacAddress([2, 0, 0, 0, 0, 2]),
            target_ip: Ipv4Addr::new(10, 0, 0, 2),
        };
        assert_eq!(read(&REPLY), Ok(expected));
    }

    #[test]
    fn operations_have_their_names_and_others_their_number() {
        for (code, operation) in [(1, ArpOperation::Request), (3, ArpOperation::Other(3))] {
            let mut bytes = REPLY;
            bytes[7] = code;
            assert_eq!(read(&bytes).unwrap().operation, operation);
        }
    }

    #[test]
    fn other_hardware_protocols_and_lengths_are_refused() {
        for (at, value, reason) in [
            (1, 15, Reason::NotIp),
            (2, 0x86, Reason::NotIp),
            (4, 5, Reason::BadLength),
            (5, 3, Reason::BadLength),
            (4, 200, Reason::Truncated),
        ] {
            let mut bytes = REPLY;
            bytes[at] = value;
            assert_eq!(read(&bytes), Err(at_network(reason)), "{at}");
        }
        assert_eq!(read(&REPLY[..27]), Err(at_network(Reason::Truncated)));
        assert_eq!(read(&[]), Err(at_network(Reason::Truncated)));
    }
}
