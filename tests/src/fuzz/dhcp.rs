//! The parsers of what hosts say about addresses: DHCPv4, DHCPv6, and the options of Neighbour Discovery.
//!
//! Input: one byte for what is put before the message, then the message.

use onenet_core::{
    decode::{
        self, CapturedPacket, Content, InterfaceIndex, LinkDirection, LinkType, dhcp4,
        dhcp6::{self, MAX_RELAYS},
        ndp,
    },
    time::Timestamp,
};

use super::Input;

/// Longest text of a message: what a value put together from parts can be (RFC 3396), each byte of which can become
/// a replacement character of three.
const LONGEST: usize = 255 * 3;

/// Reads the message that `bytes` describe.
pub fn dhcp(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.byte() % 5 {
        0 => v4(input.0),
        1 => {
            let fixed = [input.bytes(236), &[99, 130, 83, 99], input.0].concat();
            v4(&fixed);
        }
        2 => v6(input.0),
        3 => {
            let relay = [&[12, 0][..], &[0xfe; 32]].concat();
            let wrapped = [&relay[..], &[0, 9], &saturated(input.0.len()), input.0].concat();
            v6(&wrapped);
        }
        _ => neighbour(input.byte(), input.0),
    }
}

fn saturated(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

fn text(text: Option<&String>) {
    if let Some(text) = text {
        assert!(!text.is_empty() && text.len() <= LONGEST, "{} bytes", text.len());
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

fn v4(payload: &[u8]) {
    let Some(message) = dhcp4::parse(payload) else { return };
    for field in [&message.hostname, &message.fqdn, &message.vendor_class] {
        text(field.as_ref());
    }
    assert!(message.client_id.as_ref().is_none_or(|id| (1..=255).contains(&id.len())));
    assert!(message.client_ip.is_none_or(|ip| !ip.is_unspecified()));
    assert!(message.client_mac.is_none_or(|mac| !mac.is_zero()));
}

fn v6(payload: &[u8]) {
    let Some(message) = dhcp6::parse(payload) else { return };
    // A name is a whole option, of which a message can carry 64 KiB.
    assert!(message.fqdn.as_ref().is_none_or(|name| !name.contains(char::is_control)));
    assert!(message.relays.len() <= MAX_RELAYS && message.transaction_id < 1 << 24);
    for duid in [&message.client_duid, &message.server_duid].into_iter().flatten() {
        assert!(duid.len() <= 130, "a DUID of {} bytes", duid.len());
    }
    assert!(message.prefixes.iter().all(|prefix| prefix.prefix.prefix_len() <= 128));
}

/// A sound IPv6 header with hop limit 255 and ICMPv6, then the message.
fn neighbour(kind: u8, message: &[u8]) {
    let length = saturated(message.len() + 4);
    let kind = 133 + kind % 5;
    let header = [0x60, 0, 0, 0, length[0], length[1], 58, 255];
    let packet =
        [&header[..], &[0xfe, 0x80], &[1; 14], &[0xff, 2], &[1; 14], &[kind, 0, 0, 0], message].concat();
    let captured = CapturedPacket {
        time: Timestamp(0),
        interface: InterfaceIndex(0),
        link_type: LinkType::RAW,
        direction: LinkDirection::Unknown,
        wire_length: u32::try_from(packet.len()).unwrap_or(u32::MAX),
        data: &packet,
    };
    let Ok(decoded) = decode::decode(&captured) else { return };
    let Content::Ip(ip) = &decoded.content else { return };
    if let Some(message) = ndp::parse(ip) {
        assert!(message.prefixes.iter().all(|prefix| prefix.prefix.prefix_len() <= 128));
        assert_eq!(std::net::IpAddr::V6(message.source), ip.source);
    }
}
