//! DHCP for IPv4 (RFC 2131, options RFC 2132), as far as it tells who is given which address.

use std::net::Ipv4Addr;

use super::read;
use crate::net::MacAddress;

/// "99.130.83.99", RFC 2131 section 3.
const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Bytes of the field of the client's hardware address.
const MAX_HARDWARE_LENGTH: u8 = 16;
/// Options of one message that are read, over all the fields that can hold some.
const MAX_OPTIONS: usize = 256;
/// Longest value that is put together from parts (RFC 3396).
const MAX_VALUE: usize = 255;

/// Who sends a message to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dhcp4Operation {
    /// 1: client to server.
    Request,
    /// 2: server to client.
    Reply,
}

/// DHCP message type (option 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dhcp4Type {
    /// 1: a client looks for servers.
    Discover,
    /// 2: a server offers an address.
    Offer,
    /// 3: a client asks for, or wants to keep, an address.
    Request,
    /// 4: a client found the address in use.
    Decline,
    /// 5: a server gives the address.
    Ack,
    /// 6: a server refuses.
    Nak,
    /// 7: a client gives the address back.
    Release,
    /// 8: a client that has an address asks for the rest.
    Inform,
    /// Any other (RFC 3203, RFC 4388, RFC 6926, …).
    Other(u8),
}

impl Dhcp4Type {
    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Discover,
            2 => Self::Offer,
            3 => Self::Request,
            4 => Self::Decline,
            5 => Self::Ack,
            6 => Self::Nak,
            7 => Self::Release,
            8 => Self::Inform,
            other => Self::Other(other),
        }
    }
}

/// One DHCPv4 message. Addresses that are 0.0.0.0 in the message are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dhcp4Message {
    /// Who sends it.
    pub operation: Dhcp4Operation,
    /// Transaction id.
    pub transaction_id: u32,
    /// `ciaddr`: the address the client has and uses.
    pub client_ip: Option<Ipv4Addr>,
    /// `yiaddr`: the address the server gives ("your").
    pub your_ip: Option<Ipv4Addr>,
    /// `siaddr`: server of the next boot step.
    pub next_server_ip: Option<Ipv4Addr>,
    /// `giaddr`: relay agent.
    pub relay_ip: Option<Ipv4Addr>,
    /// `chaddr`, where the hardware is Ethernet and the address is not zero.
    pub client_mac: Option<MacAddress>,
    /// Option 53; none for plain BOOTP.
    pub message_type: Option<Dhcp4Type>,
    /// Option 50: the address a client asks for.
    pub requested_ip: Option<Ipv4Addr>,
    /// Option 54: the server.
    pub server_id: Option<Ipv4Addr>,
    /// Option 51: length of the lease in seconds; `u32::MAX` is for ever.
    pub lease_seconds: Option<u32>,
    /// Option 12: name of the host.
    pub hostname: Option<String>,
    /// Option 81 (RFC 4702): name of the host with its domain.
    pub fqdn: Option<String>,
    /// Option 60: vendor class.
    pub vendor_class: Option<String>,
    /// Option 61: what the client identifies itself by (type byte first).
    pub client_id: Option<Vec<u8>>,
}

/// Reads a DHCPv4 message out of the payload of UDP 67 or 68. None where it is another protocol, or is cut
/// before the client's hardware address ends. What is cut behind that is left out: without options a message
/// has no type, as one of BOOTP (RFC 951), whose vendor area may be all zero.
pub fn parse(payload: &[u8]) -> Option<Dhcp4Message> {
    let [operation, hardware, hardware_length, _hops] = read::array(payload, 0)?;
    let operation = match operation {
        1 => Dhcp4Operation::Request,
        2 => Dhcp4Operation::Reply,
        _ => return None,
    };
    let has_options = match read::array(payload, 236) {
        Some(MAGIC_COOKIE) => true,
        Some([0, 0, 0, 0]) | None => false,
        Some(_) => return None,
    };
    if hardware_length > MAX_HARDWARE_LENGTH {
        return None;
    }
    let mac = Some(MacAddress(read::array(payload, 28)?));
    let mut message = Dhcp4Message {
        operation,
        transaction_id: read::be32(payload, 4)?,
        client_ip: address(payload, 12),
        your_ip: address(payload, 16),
        next_server_ip: address(payload, 20),
        relay_ip: address(payload, 24),
        client_mac: mac.filter(|mac| (hardware, hardware_length) == (1, 6) && !mac.is_zero()),
        message_type: None,
        requested_ip: None,
        server_id: None,
        lease_seconds: None,
        hostname: None,
        fqdn: None,
        vendor_class: None,
        client_id: None,
    };
    if !has_options {
        return Some(message);
    }
    let mut texts = Texts::default();
    let mut budget = MAX_OPTIONS;
    let overload = read_options(read::rest(payload, 240), &mut budget, &mut message, &mut texts);
    // RFC 2132 section 9.3: the file field is read before the server name field; neither can overload again.
    if overload & 1 != 0 {
        read_options(payload.get(108..236)?, &mut budget, &mut message, &mut texts);
    }
    if overload & 2 != 0 {
        read_options(payload.get(44..108)?, &mut budget, &mut message, &mut texts);
    }
    message.hostname = read::text(&texts.hostname);
    message.vendor_class = read::text(&texts.vendor_class);
    message.fqdn = fqdn(&texts.fqdn);
    message.client_id = Some(texts.client_id).filter(|id| !id.is_empty());
    Some(message)
}

/// Values that can come in parts (RFC 3396).
#[derive(Default)]
struct Texts {
    hostname: Vec<u8>,
    fqdn: Vec<u8>,
    vendor_class: Vec<u8>,
    client_id: Vec<u8>,
}

fn append(value: &mut Vec<u8>, part: &[u8]) {
    let room = MAX_VALUE.saturating_sub(value.len());
    value.extend(part.iter().take(room));
}

fn address(data: &[u8], at: usize) -> Option<Ipv4Addr> {
    read::array::<4>(data, at).map(Ipv4Addr::from).filter(|address| !address.is_unspecified())
}

/// Reads one field of options; gives the value of the overload option (52), or 0.
fn read_options(field: &[u8], budget: &mut usize, message: &mut Dhcp4Message, texts: &mut Texts) -> u8 {
    let mut overload = 0;
    let mut left = field;
    while *budget > 0 {
        *budget -= 1;
        let (code, value) = match left {
            [] | [255, ..] => break,
            [0, behind @ ..] => {
                // A run of padding is one step, so that it cannot use up the budget.
                let end = behind.iter().position(|&byte| byte != 0).unwrap_or(behind.len());
                left = read::rest(behind, end);
                continue;
            }
            [code, length, behind @ ..] => {
                let Some((value, behind)) = behind.split_at_checked(usize::from(*length)) else { break };
                left = behind;
                (*code, value)
            }
            [_] => break,
        };
        match code {
            12 => append(&mut texts.hostname, value),
            50 => message.requested_ip = address(value, 0),
            51 => message.lease_seconds = read::be32(value, 0),
            52 => overload = value.first().copied().unwrap_or(0),
            53 => message.message_type = value.first().copied().map(Dhcp4Type::from_code),
            54 => message.server_id = address(value, 0),
            60 => append(&mut texts.vendor_class, value),
            61 => append(&mut texts.client_id, value),
            81 => append(&mut texts.fqdn, value),
            _ => {}
        }
    }
    overload
}

/// RFC 4702: flags, two retired bytes, then the name in labels (flag E) or as text.
fn fqdn(value: &[u8]) -> Option<String> {
    let (&[flags, _, _], name) = value.split_first_chunk()?;
    if flags & 0x04 != 0 { read::domain_name(name) } else { read::text(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of 10.0.0.1 that gives 10.0.0.77 over the relay 10.0.0.254 to 02:00:00:00:00:4d.
    fn message(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 236];
        bytes[..8].copy_from_slice(&[2, 1, 6, 1, 0xde, 0xad, 0xbe, 0xef]);
        bytes[16..20].copy_from_slice(&[10, 0, 0, 77]);
        bytes[20..24].copy_from_slice(&[10, 0, 0, 1]);
        bytes[24..28].copy_from_slice(&[10, 0, 0, 254]);
        bytes[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 0x4d]);
        [&bytes[..], &MAGIC_COOKIE, options].concat()
    }

    #[test]
    fn an_acknowledgement_is_read_field_by_field() {
        let options = [
            &[53, 1, 5, 54, 4, 10, 0, 0, 1, 51, 4, 0, 1, 0x51, 0x80, 0, 0, 12, 4][..],
            b"pc77",
            &[60, 8],
            b"MSFT 5.0",
            &[61, 7, 1, 2, 0, 0, 0, 0, 0x4d, 81, 12, 4, 0, 0, 4],
            b"pc77\x03gov",
            &[255, 53, 1, 6],
        ];
        let read = parse(&message(&options.concat())).unwrap();
        let expected = Dhcp4Message {
            operation: Dhcp4Operation::Reply,
            transaction_id: 0xdead_beef,
            client_ip: None,
            your_ip: Some(Ipv4Addr::new(10, 0, 0, 77)),
            next_server_ip: Some(Ipv4Addr::new(10, 0, 0, 1)),
            relay_ip: Some(Ipv4Addr::new(10, 0, 0, 254)),
            client_mac: Some(MacAddress([2, 0, 0, 0, 0, 0x4d])),
            message_type: Some(Dhcp4Type::Ack),
            requested_ip: None,
            server_id: Some(Ipv4Addr::new(10, 0, 0, 1)),
            lease_seconds: Some(86_400),
            hostname: Some("pc77".to_owned()),
            fqdn: Some("pc77.gov".to_owned()),
            vendor_class: Some("MSFT 5.0".to_owned()),
            client_id: Some(vec![1, 2, 0, 0, 0, 0, 0x4d]),
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn overloaded_fields_hold_options_too() {
        let mut bytes = message(&[53, 1, 3, 52, 1, 3, 255]);
        bytes[108..118].copy_from_slice(&[50, 4, 10, 0, 0, 9, 12, 2, b'a', b'b']);
        bytes[44..50].copy_from_slice(&[52, 1, 3, 12, 1, b'c']);
        let read = parse(&bytes).unwrap();
        assert_eq!(read.requested_ip, Some(Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!(read.hostname.as_deref(), Some("abc"), "parts of a value are put together");
        let not_overloaded = [&bytes[..243], &[255]].concat();
        assert_eq!(parse(&not_overloaded).unwrap().requested_ip, None);
    }

    #[test]
    fn an_option_that_is_cut_ends_the_options() {
        let read = parse(&message(&[53, 1, 1, 12, 9, b'a'])).unwrap();
        assert_eq!((read.message_type, read.hostname), (Some(Dhcp4Type::Discover), None));
    }

    #[test]
    fn a_value_of_many_parts_is_bounded() {
        let part = [&[12, 200][..], &[b'a'; 200]].concat();
        let read = parse(&message(&part.repeat(50))).unwrap();
        assert_eq!(read.hostname.map(|name| name.len()), Some(MAX_VALUE));
    }

    #[test]
    fn what_is_not_dhcp_is_none_and_bootp_has_no_type() {
        assert_eq!(parse(&message(&[])[..33]), None);
        let mut no_cookie = message(&[53, 1, 1]);
        no_cookie[239] = 0;
        assert_eq!(parse(&no_cookie), None);
        let mut operation = message(&[]);
        operation[0] = 3;
        assert_eq!(parse(&operation), None);
        let mut long_address = message(&[]);
        long_address[2] = 17;
        assert_eq!(parse(&long_address), None);
        assert_eq!(parse(&message(&[])).unwrap().message_type, None);
    }

    #[test]
    fn a_message_that_is_cut_before_its_options_gives_its_addresses_and_no_type() {
        let whole = message(&[53, 1, 5, 51, 4, 0, 0, 0, 9]);
        for length in [34, 54, 239] {
            let read = parse(&whole[..length]).unwrap();
            assert_eq!((read.message_type, read.lease_seconds), (None, None));
            let macs = Some(MacAddress([2, 0, 0, 0, 0, 0x4d]));
            assert_eq!((read.your_ip, read.client_mac), (Some(Ipv4Addr::new(10, 0, 0, 77)), macs));
        }
        let mut without_vendor_area = whole;
        without_vendor_area[236..].fill(0);
        assert_eq!(parse(&without_vendor_area).unwrap().message_type, None);
    }

    #[test]
    fn a_client_without_an_ethernet_address_has_none() {
        let mut bytes = message(&[53, 1, 1]);
        bytes[1] = 32; // InfiniBand
        assert_eq!(parse(&bytes).unwrap().client_mac, None);
    }
}
