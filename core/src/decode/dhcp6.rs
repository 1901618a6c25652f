//! DHCP for IPv6 (RFC 8415), as far as it tells who is given which address.

use std::net::Ipv6Addr;

use arrayvec::ArrayVec;
use ipnet::Ipv6Net;

use super::read;
use crate::net::MacAddress;

/// Relays around one message that are unwrapped; RFC 8415 section 7.6 lets messages take 8 hops.
pub const MAX_RELAYS: usize = 8;
/// Options that are read at each level.
const MAX_OPTIONS: usize = 64;
/// Longest DUID: a type and 128 bytes (RFC 8415 section 11.1).
const MAX_DUID: usize = 130;

/// DHCPv6 message type (RFC 8415 section 7.3) of the innermost message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dhcp6Type {
    /// 1: a client looks for servers.
    Solicit,
    /// 2: a server answers a Solicit.
    Advertise,
    /// 3: a client asks for addresses.
    Request,
    /// 4: a client that moved asks whether its addresses still fit.
    Confirm,
    /// 5: a client extends its lease at its server.
    Renew,
    /// 6: a client extends its lease at any server.
    Rebind,
    /// 7: a server gives addresses, or confirms.
    Reply,
    /// 8: a client gives addresses back.
    Release,
    /// 9: a client found addresses in use.
    Decline,
    /// 10: a server tells a client to ask again.
    Reconfigure,
    /// 11: a client that has addresses asks for the rest.
    InformationRequest,
    /// Any other but relay messages.
    Other(u8),
}

impl Dhcp6Type {
    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Solicit,
            2 => Self::Advertise,
            3 => Self::Request,
            4 => Self::Confirm,
            5 => Self::Renew,
            6 => Self::Rebind,
            7 => Self::Reply,
            8 => Self::Release,
            9 => Self::Decline,
            10 => Self::Reconfigure,
            11 => Self::InformationRequest,
            other => Self::Other(other),
        }
    }

    /// Whether a server sends it.
    pub const fn is_from_server(self) -> bool {
        matches!(self, Self::Advertise | Self::Reply | Self::Reconfigure)
    }
}

/// One relay agent on the way (RFC 8415 section 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dhcp6Relay {
    /// Whether the message goes to the client (13 Relay-reply); else to the server (12 Relay-forward).
    pub is_reply: bool,
    /// An address on the client's link; unspecified where the relay gives none.
    pub link_address: Ipv6Addr,
    /// Whom the relay had the message from, or sends it to: the client for the innermost relay.
    pub peer_address: Ipv6Addr,
}

/// Which identity association an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dhcp6Association {
    /// IA_NA (option 3): an ordinary address.
    NonTemporary,
    /// IA_TA (option 4): a temporary address.
    Temporary,
}

/// An address inside an IA_NA or IA_TA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dhcp6Address {
    /// Which association.
    pub association: Dhcp6Association,
    /// Its number.
    pub iaid: u32,
    /// The address.
    pub address: Ipv6Addr,
    /// Seconds it is preferred.
    pub preferred_seconds: u32,
    /// Seconds it is valid; 0: it is no longer to be used, `u32::MAX`: for ever.
    pub valid_seconds: u32,
}

/// A prefix inside an IA_PD (option 25).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dhcp6Prefix {
    /// Number of the association.
    pub iaid: u32,
    /// The delegated prefix.
    pub prefix: Ipv6Net,
    /// Seconds it is preferred.
    pub preferred_seconds: u32,
    /// Seconds it is valid; 0: it is no longer to be used, `u32::MAX`: for ever.
    pub valid_seconds: u32,
}

/// One DHCPv6 message, out of the relay messages around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dhcp6Message {
    /// Which message.
    pub message_type: Dhcp6Type,
    /// Transaction id, 24 bits.
    pub transaction_id: u32,
    /// Relays around it, outermost first.
    pub relays: ArrayVec<Dhcp6Relay, MAX_RELAYS>,
    /// Option 1: unique identifier of the client.
    pub client_duid: Option<Vec<u8>>,
    /// Option 2: unique identifier of the server.
    pub server_duid: Option<Vec<u8>>,
    /// Client's link-layer address as a relay saw it (option 79, RFC 6939), or else out of a client DUID made
    /// from one (DUID-LLT, DUID-LL); Ethernet only. The latter may be of another interface of the client.
    pub client_mac: Option<MacAddress>,
    /// Addresses of the IA_NA and IA_TA whose status is success; the first sixteen.
    pub addresses: ArrayVec<Dhcp6Address, 16>,
    /// Prefixes of the IA_PD whose status is success; the first eight.
    pub prefixes: ArrayVec<Dhcp6Prefix, 8>,
    /// Option 13 of the message: 0 is success.
    pub status: u16,
    /// Option 39 (RFC 4704): name of the host with its domain.
    pub fqdn: Option<String>,
}

/// Reads a DHCPv6 message out of the payload of UDP 546 or 547. None where it is another protocol, is cut
/// before the innermost message begins, or is wrapped in more than [`MAX_RELAYS`] relay messages.
pub fn parse(payload: &[u8]) -> Option<Dhcp6Message> {
    let mut relays = ArrayVec::new();
    let mut relay_mac = None;
    let mut left = payload;
    while let [kind @ (12 | 13), _hops, ..] = left {
        let relay = Dhcp6Relay {
            is_reply: *kind == 13,
            link_address: address(left, 2)?,
            peer_address: address(left, 18)?,
        };
        relays.try_push(relay).ok()?;
        let mut relayed = None;
        for (code, value) in options(left.get(34..)?) {
            match code {
                9 => relayed = Some(value),
                79 if read::be16(value, 0) == Some(1) => relay_mac = read::array(value, 2).map(MacAddress),
                _ => {}
            }
        }
        left = relayed?;
    }
    let [kind, high, middle, low] = read::array(left, 0)?;
    let mut message = Dhcp6Message {
        message_type: Dhcp6Type::from_code(kind),
        transaction_id: u32::from_be_bytes([0, high, middle, low]),
        relays,
        client_duid: None,
        server_duid: None,
        client_mac: None,
        addresses: ArrayVec::new(),
        prefixes: ArrayVec::new(),
        status: 0,
        fqdn: None,
    };
    for (code, value) in options(left.get(4..)?) {
        read_option(code, value, &mut message);
    }
    message.client_mac = relay_mac.or(message.client_duid.as_deref().and_then(mac_of_duid));
    Some(message)
}

/// Options of one level, up to the first that is cut.
fn options(data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut left = data;
    std::iter::from_fn(move || {
        let (code, length) = (read::be16(left, 0)?, read::be16(left, 2)?);
        let (value, behind) = left.get(4..)?.split_at_checked(usize::from(length))?;
        left = behind;
        Some((code, value))
    })
    .take(MAX_OPTIONS)
}

fn read_option(code: u16, value: &[u8], message: &mut Dhcp6Message) {
    match code {
        1 => message.client_duid = duid(value),
        2 => message.server_duid = duid(value),
        3 => read_association(Some(Dhcp6Association::NonTemporary), value, 12, message),
        4 => read_association(Some(Dhcp6Association::Temporary), value, 4, message),
        13 => message.status = read::be16(value, 0).unwrap_or(0),
        25 => read_association(None, value, 12, message),
        39 => message.fqdn = value.get(1..).and_then(read::domain_name),
        _ => {}
    }
}

fn duid(value: &[u8]) -> Option<Vec<u8>> {
    (3..=MAX_DUID).contains(&value.len()).then(|| value.to_vec())
}

/// Reads the addresses (IA_NA, IA_TA) or, with no `kind`, the prefixes (IA_PD) of one association, unless its
/// status code says that it failed.
fn read_association(
    kind: Option<Dhcp6Association>,
    value: &[u8],
    options_at: usize,
    message: &mut Dhcp6Message,
) {
    let (Some(iaid), Some(inner)) = (read::be32(value, 0), value.get(options_at..)) else { return };
    if options(inner).any(|(code, status)| code == 13 && read::be16(status, 0) != Some(0)) {
        return;
    }
    for (code, value) in options(inner) {
        // What is beyond the capacity is not kept.
        match (code, kind) {
            (5, Some(association)) => {
                let entry = ia_address(association, iaid, value);
                let _ = entry.map(|entry| message.addresses.try_push(entry));
            }
            (26, None) => {
                let entry = ia_prefix(iaid, value);
                let _ = entry.map(|entry| message.prefixes.try_push(entry));
            }
            _ => {}
        }
    }
}

fn ia_address(association: Dhcp6Association, iaid: u32, value: &[u8]) -> Option<Dhcp6Address> {
    Some(Dhcp6Address {
        association,
        iaid,
        address: address(value, 0)?,
        preferred_seconds: read::be32(value, 16)?,
        valid_seconds: read::be32(value, 20)?,
    })
}

fn ia_prefix(iaid: u32, value: &[u8]) -> Option<Dhcp6Prefix> {
    Some(Dhcp6Prefix {
        iaid,
        prefix: Ipv6Net::new(address(value, 9)?, *value.get(8)?).ok()?.trunc(),
        preferred_seconds: read::be32(value, 0)?,
        valid_seconds: read::be32(value, 4)?,
    })
}

fn address(data: &[u8], at: usize) -> Option<Ipv6Addr> {
    read::array::<16>(data, at).map(Ipv6Addr::from)
}

/// DUID-LLT (1) and DUID-LL (3) of Ethernet hold a MAC address (RFC 8415 section 11).
fn mac_of_duid(duid: &[u8]) -> Option<MacAddress> {
    let at = match (read::be16(duid, 0)?, read::be16(duid, 2)?) {
        (1, 1) => 8,
        (3, 1) => 4,
        _ => return None,
    };
    read::array(duid, at).map(MacAddress)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77];
    const LINK: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01];
    const DUID: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 0x4d];

    fn option(code: u8, value: &[&[u8]]) -> Vec<u8> {
        let value = value.concat();
        [&[0, code][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), &value].concat()
    }

    fn lifetimes() -> [u8; 8] {
        [0, 0, 0x0e, 0x10, 0, 0, 0x1c, 0x20]
    }

    fn reply() -> Vec<u8> {
        let address = option(5, &[&ADDRESS, &lifetimes(), &option(13, &[&[0, 0]])]);
        let prefix = option(26, &[&lifetimes(), &[56], &ADDRESS]);
        [
            &[7, 0xab, 0xcd, 0xef][..],
            &option(1, &[&DUID]),
            &option(2, &[&[0, 2, 0, 0, 0, 9, 1]]),
            &option(3, &[&[0, 0, 0, 5], &[0; 8], &address]),
            &option(4, &[&[0, 0, 0, 6], &address]),
            &option(25, &[&[0, 0, 0, 7], &[0; 8], &prefix]),
            &option(39, &[b"\x01\x04pc77\x03gov\0"]),
        ]
        .concat()
    }

    #[test]
    fn a_reply_gives_addresses_prefixes_and_identities() {
        let message = parse(&reply()).unwrap();
        assert_eq!((message.message_type, message.transaction_id), (Dhcp6Type::Reply, 0x00ab_cdef));
        let address = Dhcp6Address {
            association: Dhcp6Association::NonTemporary,
            iaid: 5,
            address: ADDRESS.into(),
            preferred_seconds: 3600,
            valid_seconds: 7200,
        };
        let temporary = Dhcp6Address { association: Dhcp6Association::Temporary, iaid: 6, ..address };
        assert_eq!(message.addresses.as_slice(), [address, temporary]);
        let prefix = Dhcp6Prefix {
            iaid: 7,
            prefix: "2001:db8::/56".parse().unwrap(),
            preferred_seconds: 3600,
            valid_seconds: 7200,
        };
        assert_eq!(message.prefixes.as_slice(), [prefix]);
        assert_eq!(message.client_duid.as_deref(), Some(&DUID[..]));
        assert_eq!(message.server_duid.as_deref(), Some(&[0, 2, 0, 0, 0, 9, 1][..]));
        assert_eq!(message.client_mac, Some(MacAddress([2, 0, 0, 0, 0, 0x4d])));
        assert_eq!((message.fqdn.as_deref(), message.status), (Some("pc77.gov"), 0));
        assert!(message.message_type.is_from_server());
    }

    #[test]
    fn a_failed_association_gives_no_address() {
        let address = option(5, &[&ADDRESS, &lifetimes()]);
        let failed = option(3, &[&[0, 0, 0, 5], &[0; 8], &option(13, &[&[0, 2]]), &address]);
        let message = parse(&[&[7, 0, 0, 1][..], &failed, &option(13, &[&[0, 4]])].concat()).unwrap();
        assert_eq!((message.addresses.len(), message.status), (0, 4));
    }

    fn relayed(inner: &[u8], hops: usize) -> Vec<u8> {
        (0..hops).fold(inner.to_vec(), |message, _| {
            let seen = option(79, &[&[0, 1, 2, 0, 0, 0, 0, 0x99]]);
            [&[12, 0][..], &ADDRESS, &LINK, &seen, &option(9, &[&message])].concat()
        })
    }

    #[test]
    fn relays_are_unwrapped_outermost_first_up_to_a_bound() {
        let message = parse(&relayed(&reply(), 2)).unwrap();
        let relay = Dhcp6Relay { is_reply: false, link_address: ADDRESS.into(), peer_address: LINK.into() };
        assert_eq!(message.relays.as_slice(), [relay, relay]);
        assert_eq!(message.client_mac, Some(MacAddress([2, 0, 0, 0, 0, 0x99])), "as the relay saw it");
        assert!(parse(&relayed(&reply(), MAX_RELAYS)).is_some());
        assert_eq!(parse(&relayed(&reply(), MAX_RELAYS + 1)), None);
    }

    #[test]
    fn a_message_that_is_cut_gives_what_is_whole() {
        let bytes = reply();
        assert_eq!(parse(&bytes[..3]), None);
        let message = parse(&bytes[..bytes.len() - 1]).unwrap();
        assert_eq!((message.addresses.len(), message.fqdn), (2, None));
        assert_eq!(parse(&relayed(&bytes, 1)[..60]), None, "the relayed message is cut");
    }
}
