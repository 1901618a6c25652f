//! From the link header to the network header: Ethernet, 802.2, VLAN and other tags, MPLS, PPP, PPPoE, and
//! frames within frames. Every step moves forward and the steps are counted, so work is bounded.

use etherparse::{Ethernet2HeaderSlice, MacsecHeaderSlice, SingleVlanHeaderSlice};

use super::{
    arp,
    cursor::{Cursor, at_link, at_network, at_shim},
    ip,
    packet::{Content, Link, Unparsed},
    read,
    trace::{Trace, between},
};
use crate::{net::MacAddress, record::Reason};

/// Ethertype of IPv4.
pub(super) const IPV4: u16 = 0x0800;
/// Ethertype of IPv6.
pub(super) const IPV6: u16 = 0x86dd;
/// Ethertype of transparent Ethernet bridging: a whole frame follows.
pub(super) const ETHERNET_BRIDGING: u16 = 0x6558;
/// Ethertype of PPP.
pub(super) const PPP: u16 = 0x880b;

/// Headers between link and network that are followed, whatever they are.
const MAX_STEPS: usize = 16;
/// Labels of one MPLS stack that are followed.
const MAX_LABELS: usize = 64;
/// Highest value of the type field that is an 802.3 length.
const MAX_802_3_LENGTH: u16 = 1500;

/// What the bytes at a cursor begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// An Ethernet header.
    Ethernet,
    /// What this ethertype says (or, up to 1500, an 802.2 header).
    EtherType(u16),
    /// An 802.2 header.
    Llc,
    /// An OUI and a protocol id of 802.2 SNAP.
    Snap,
    /// A PPP protocol field.
    Ppp,
    /// IPv4 or IPv6, as its version says.
    Ip,
    /// Something that is neither IP nor ARP nor leads to them.
    NotIp,
    /// A link's keep-alive.
    KeepAlive,
}

impl Next {
    /// Name of the header that this stands for.
    const fn name(self) -> &'static str {
        match self {
            Self::Ethernet => "Ethernet",
            Self::EtherType(ether_type) => name(ether_type),
            Self::Llc => "802.2 LLC",
            Self::Snap => "802.2 SNAP",
            Self::Ppp => "PPP",
            Self::Ip => "IP",
            Self::NotIp => "not IP",
            Self::KeepAlive => "no payload",
        }
    }
}

const fn name(ether_type: u16) -> &'static str {
    match ether_type {
        0..=MAX_802_3_LENGTH => "802.3 length",
        IPV4 => "IPv4",
        IPV6 => "IPv6",
        0x0806 => "ARP",
        0x8035 => "RARP",
        0x8100 => "802.1Q VLAN tag",
        0x88a8 => "802.1ad VLAN tag",
        0x9100 | 0x9200 | 0x9300 => "QinQ VLAN tag",
        0x8847 | 0x8848 => "MPLS label stack",
        PPP => "PPP in Ethernet",
        0x8864 => "PPPoE session",
        0x88e7 => "802.1ah I-TAG",
        0x8926 => "VN-Tag",
        0x8903 => "FabricPath",
        0x88e5 => "MACsec",
        0x894f => "NSH",
        0xdada => "Marvell DSA tag",
        0x8909 => "Cisco metadata",
        0x893f => "802.1BR E-tag",
        0xf1c1 => "802.1CB redundancy tag",
        0x892f => "HSR",
        0x8870 => "802.2 long frame",
        0x22f3 => "TRILL",
        ETHERNET_BRIDGING => "bridged frame",
        _ => "ethertype not decoded",
    }
}

/// Follows headers until the network header, which it decodes. Fills in what they say about the link.
pub(super) fn content<'a, T: Trace>(
    mut next: Next,
    mut at: Cursor<'a>,
    link: &mut Link,
    trace: &mut T,
) -> Result<Content<'a>, Unparsed> {
    for _ in 0..MAX_STEPS {
        let step = match next {
            Next::EtherType(IPV4) => return ip::v4(at, trace).map(Content::Ip),
            Next::EtherType(IPV6) => return ip::v6(at, trace).map(Content::Ip),
            Next::EtherType(0x0806 | 0x8035) => {
                trace.header(next.name(), at.data, Some(link));
                return arp::decode(at).map(Content::Arp);
            }
            Next::Ethernet => ethernet(at, link),
            Next::EtherType(0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300) => vlan(at, link)?,
            Next::EtherType(0x8847 | 0x8848) => mpls(at, link)?,
            Next::EtherType(ether_type) => tag(ether_type, at)?,
            Next::Llc => llc(at),
            Next::Snap => snap(at),
            Next::Ppp => ppp(at),
            Next::Ip => match at.byte(0).map(|byte| byte >> 4) {
                Some(4) => Some((Next::EtherType(IPV4), at)),
                Some(6) => Some((Next::EtherType(IPV6), at)),
                Some(_) => return Err(at_network(Reason::BadVersion)),
                None => return Err(at_network(Reason::Truncated)),
            },
            Next::NotIp => return Err(at_network(Reason::NotIp)),
            Next::KeepAlive => return Err(at_network(Reason::NoPayload)),
        };
        (next, at) = match step {
            Some(step) => {
                trace.header(next.name(), between(at.data, step.1.data), Some(link));
                step
            }
            None if next == Next::Ethernet => return Err(at_link(Reason::Truncated)),
            None => return Err(at_shim(Reason::Truncated)),
        };
    }
    Err(at_shim(Reason::TooDeep))
}

type Step<'a> = Option<(Next, Cursor<'a>)>;

/// An inner frame's addresses replace those of the frame around it, because they are the stations'.
fn ethernet<'a>(at: Cursor<'a>, link: &mut Link) -> Step<'a> {
    let header = Ethernet2HeaderSlice::from_slice(at.data).ok()?;
    link.source_mac = Some(MacAddress(header.source()));
    link.destination_mac = Some(MacAddress(header.destination()));
    Some((Next::EtherType(header.ether_type().0), at.skip(14)?))
}

fn vlan<'a>(at: Cursor<'a>, link: &mut Link) -> Result<Step<'a>, Unparsed> {
    let Ok(header) = SingleVlanHeaderSlice::from_slice(at.data) else { return Ok(None) };
    link.vlans.try_push(header.vlan_identifier().value()).map_err(|_| at_shim(Reason::TooDeep))?;
    Ok(at.skip(4).map(|at| (Next::EtherType(header.ether_type().0), at)))
}

/// A label stack (RFC 3032) and what its first nibble says is behind it.
fn mpls<'a>(mut at: Cursor<'a>, link: &mut Link) -> Result<Step<'a>, Unparsed> {
    for _ in 0..MAX_LABELS {
        let (Some(entry), Some(behind)) = (at.be32(0), at.skip(4)) else { return Ok(None) };
        at = behind;
        // Labels beyond the first four are followed, not kept.
        let _ = link.mpls_labels.try_push(entry >> 12);
        if entry & 0x100 != 0 {
            return Ok(under_labels(at));
        }
    }
    Err(at_shim(Reason::TooDeep))
}

/// Labels do not tell what they carry, so that a frame without control word (RFC 4448 section 4.2) is taken for
/// one only where it has the ethertype of one and the bytes cannot be anything else.
fn under_labels(at: Cursor<'_>) -> Step<'_> {
    let first = at.byte(0)?;
    match first >> 4 {
        4 if first & 0x0f >= 5 || !is_frame(at) => Some((Next::EtherType(IPV4), at)),
        6 if !is_frame(at) || at.be16(4).is_some_and(|length| u32::from(length) + 40 <= at.wire) => {
            Some((Next::EtherType(IPV6), at))
        }
        // A pseudowire's control word (RFC 4385), then a frame (RFC 4448).
        0 => {
            let behind = at.skip(4)?;
            Some((Next::Ethernet, if is_frame(at) && !is_frame(behind) { at } else { behind }))
        }
        _ if is_frame(at) => Some((Next::Ethernet, at)),
        // An associated channel header (RFC 4385 section 5); its type can be a PPP number of IP.
        1 => {
            let next = match at.be16(2)? {
                0x0021 => Next::EtherType(IPV4),
                0x0057 => Next::EtherType(IPV6),
                _ => Next::NotIp,
            };
            Some((next, at.skip(4)?))
        }
        _ => Some((Next::NotIp, at)),
    }
}

/// Whether the ethertype of a frame here would be a common one.
fn is_frame(at: Cursor<'_>) -> bool {
    matches!(at.be16(12), Some(IPV4 | IPV6 | 0x0806 | 0x8100 | 0x88a8 | 0x8847 | 0x8864))
}

fn llc(at: Cursor<'_>) -> Step<'_> {
    match at.data {
        [0xaa, 0xaa, 0x03, ..] => Some((Next::Snap, at.skip(3)?)),
        // RFC 1042's own number for IP, unnumbered information.
        [0x06, 0x06, 0x03, ..] => Some((Next::EtherType(IPV4), at.skip(3)?)),
        // ISO network layer: the protocol id follows (RFC 2427).
        [0xfe, 0xfe, 0x03, 0xcc, ..] => Some((Next::EtherType(IPV4), at.skip(4)?)),
        [0xfe, 0xfe, 0x03, 0x8e, ..] => Some((Next::EtherType(IPV6), at.skip(4)?)),
        [_, _, _, ..] => Some((Next::NotIp, at)),
        _ => None,
    }
}

/// RFC 1042 and 802.1H tunnels carry ethertypes; 00-80-C2 carries bridged frames (RFC 2684).
fn snap(at: Cursor<'_>) -> Step<'_> {
    let [a, b, c, high, low] = read::array(at.data, 0)?;
    let id = u16::from_be_bytes([high, low]);
    let at = at.skip(5)?;
    match ([a, b, c], id) {
        ([0, 0, 0 | 0xf8], 0x0601..) => Some((Next::EtherType(id), at)),
        ([0, 0x80, 0xc2], 0x0001 | 0x0007) => Some((Next::Ethernet, at)),
        _ => Some((Next::NotIp, at)),
    }
}

/// A PPP protocol field, one byte where it is compressed (RFC 1661 section 2).
pub(super) fn ppp(at: Cursor<'_>) -> Step<'_> {
    let (protocol, length) = match at.byte(0)? {
        odd if odd & 1 == 1 => (u16::from(odd), 1),
        _ => (at.be16(0)?, 2),
    };
    let next = match protocol {
        0x0021 => Next::EtherType(IPV4),
        0x0057 => Next::EtherType(IPV6),
        0x0281 => Next::EtherType(0x8847),
        0x0283 => Next::EtherType(0x8848),
        0x003d => return multilink(at.skip(length)?),
        _ => Next::NotIp,
    };
    Some((next, at.skip(length)?))
}

/// PPP multilink (RFC 1990) with long sequence numbers, unless two bytes lead to IP and four do not: a whole
/// packet, or its first fragment; later ones carry no header.
fn multilink(at: Cursor<'_>) -> Step<'_> {
    if at.byte(0)? & 0x80 == 0 {
        return Some((Next::KeepAlive, at));
    }
    let [long, short] = [4, 2].map(|length| at.skip(length));
    let is_known = |at: Option<Cursor<'_>>| {
        at.is_some_and(|at| matches!(at.data, [0x21 | 0x57, ..] | [0, 0x21 | 0x57, ..]))
    };
    Some((Next::Ppp, if is_known(short) && !is_known(long) { short? } else { long? }))
}

/// The other tags and frames within frames.
fn tag(ether_type: u16, at: Cursor<'_>) -> Result<Step<'_>, Unparsed> {
    Ok(match ether_type {
        0..=MAX_802_3_LENGTH => Some((Next::Llc, at)),
        ETHERNET_BRIDGING => Some((Next::Ethernet, at)),
        PPP => Some((Next::Ppp, at)),
        0x8864 => pppoe(at),
        // 802.1ah I-TAG: flags and service id, then the customer's frame.
        0x88e7 => at.skip(4).map(|at| (Next::Ethernet, at)),
        // VN-Tag: four bytes, then the ethertype.
        0x8926 => then_ether_type(at, 4),
        // FabricPath: two bytes, then the frame whole.
        0x8903 => at.skip(2).map(|at| (Next::Ethernet, at)),
        0x88e5 => macsec(at)?,
        0x894f => nsh(at),
        // Marvell's switch tag: two reserved bytes, four of the tag, then the ethertype.
        0xdada => then_ether_type(at, 6),
        // Cisco metadata (TrustSec): version, options of four bytes and their number, then the ethertype.
        0x8909 => at.byte(1).and_then(|options| then_ether_type(at, 2 + usize::from(options) * 4)),
        // The E-tag of 802.1BR: six bytes, then the ethertype.
        0x893f => then_ether_type(at, 6),
        // The redundancy tag of 802.1CB, and HSR: four bytes, then the ethertype.
        0xf1c1 | 0x892f => then_ether_type(at, 4),
        // A long frame of 802.2 (draft-ietf-isis-ext-eth).
        0x8870 => Some((Next::Llc, at)),
        // TRILL (RFC 6325): six bytes, options counted in four bytes, then the frame whole.
        0x22f3 => {
            let Some(flags) = at.be16(0) else { return Ok(None) };
            at.skip(6 + usize::from((flags >> 6) & 0x1f) * 4).map(|at| (Next::Ethernet, at))
        }
        // Ethernet configuration test and pause frames.
        0x9000 | 0x8808 => Some((Next::KeepAlive, at)),
        _ => Some((Next::NotIp, at)),
    })
}

fn then_ether_type(at: Cursor<'_>, length: usize) -> Step<'_> {
    Some((Next::EtherType(at.be16(length)?), at.skip(length.saturating_add(2))?))
}

/// RFC 2516: version and type 1, code 0 for a session packet, session, length; then PPP.
fn pppoe(at: Cursor<'_>) -> Step<'_> {
    let is_session = at.be16(0)? == 0x1100;
    Some((if is_session { Next::Ppp } else { Next::NotIp }, at.skip(6)?))
}

/// 802.1AE: readable where it protects integrity only.
fn macsec(at: Cursor<'_>) -> Result<Step<'_>, Unparsed> {
    let Ok(header) = MacsecHeaderSlice::from_slice(at.data) else { return Ok(None) };
    match header.next_ether_type() {
        // The header's length counts the ethertype behind the security tag.
        Some(ether_type) => Ok(at.skip(header.header_len()).map(|at| (Next::EtherType(ether_type.0), at))),
        None => Err(at_shim(Reason::Encrypted)),
    }
}

/// Network Service Header (RFC 8300): its length counts four-byte words.
fn nsh(at: Cursor<'_>) -> Step<'_> {
    let words = usize::from(at.be16(0)? & 0x3f);
    let next = match at.byte(3)? {
        1 => Next::EtherType(IPV4),
        2 => Next::EtherType(IPV6),
        3 => Next::Ethernet,
        5 => Next::EtherType(0x8847),
        _ => Next::NotIp,
    };
    Some((if words < 2 { Next::NotIp } else { next }, at.skip(words * 4)?))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{IPV4_UDP, error, ip_packet, link_of};
    use crate::{
        decode::LinkType,
        net::MacAddress,
        record::{Layer, Reason},
    };

    const MACS: [u8; 12] = [0x02, 0, 0, 0, 0, 0x0d, 0x02, 0, 0, 0, 0, 0x05];

    fn frame(parts: &[&[u8]]) -> Vec<u8> {
        [&MACS[..], &parts.concat()].concat()
    }

    /// The frame holds the packet of the tests behind its shims.
    fn assert_opens(parts: &[&[u8]]) {
        let bytes = frame(&[&parts.concat(), &IPV4_UDP]);
        let packet = ip_packet(LinkType::ETHERNET, &bytes);
        assert_eq!((packet.ip_bytes, packet.payload), (32, &b"data"[..]), "{parts:02x?}");
    }

    #[test]
    fn ethernet_gives_both_mac_addresses() {
        let link = link_of(LinkType::ETHERNET, &frame(&[&[0x08, 0x00], &IPV4_UDP]));
        assert_eq!(link.destination_mac, Some(MacAddress([2, 0, 0, 0, 0, 0x0d])));
        assert_eq!(link.source_mac, Some(MacAddress([2, 0, 0, 0, 0, 5])));
    }

    #[test]
    fn three_vlan_tags_of_any_kind_are_kept_outermost_first() {
        let tags = [0x88, 0xa8, 0x20, 0x64, 0x91, 0x00, 0x00, 0x65, 0x81, 0x00, 0xe0, 0x66, 0x08, 0x00];
        let link = link_of(LinkType::ETHERNET, &frame(&[&tags, &IPV4_UDP]));
        assert_eq!(link.vlans.as_slice(), [100, 101, 102]);
    }

    #[test]
    fn a_fourth_vlan_tag_is_too_deep_and_a_cut_one_truncated() {
        let four = frame(&[&[0x81, 0x00, 0x00, 0x01].repeat(4), &[0x08, 0x00], &IPV4_UDP]);
        assert_eq!(error(LinkType::ETHERNET, &four), (Layer::Shim, Reason::TooDeep));
        let cut = frame(&[&[0x81, 0x00, 0x00, 0x01, 0x08]]);
        assert_eq!(error(LinkType::ETHERNET, &cut), (Layer::Shim, Reason::Truncated));
    }

    #[test]
    fn mpls_labels_are_kept_and_the_nibble_behind_them_decides() {
        let two = [0x88, 0x47, 0x00, 0x01, 0x00, 0x40, 0x00, 0x02, 0x01, 0x40];
        let link = link_of(LinkType::ETHERNET, &frame(&[&two, &IPV4_UDP]));
        assert_eq!(link.mpls_labels.as_slice(), [16, 32]);
        let pseudowire = [0x88, 0x47, 0x00, 0x01, 0x01, 0x40, 0, 0, 0, 0];
        let customer = [0x0a; 12];
        let link = link_of(LinkType::ETHERNET, &frame(&[&pseudowire, &customer, &[0x08, 0x00], &IPV4_UDP]));
        assert_eq!(link.source_mac, Some(MacAddress([0x0a; 6])), "the station is the inner frame's");
        assert_opens(&[&[0x88, 0x48, 0x00, 0x01, 0x01, 0x40, 0x10, 0x00, 0x00, 0x21]]);
        for first in [0x02, 0x40, 0x52] {
            // A frame without control word, whatever its first byte is.
            let customer = [first, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
            assert_opens(&[&[0x88, 0x47, 0x00, 0x01, 0x01, 0x40], &customer]);
        }
        let other = frame(&[&[0x88, 0x47, 0x00, 0x01, 0x01, 0x40, 0x25]]);
        assert_eq!(error(LinkType::ETHERNET, &other), (Layer::Network, Reason::NotIp));
    }

    #[test]
    fn a_label_stack_without_a_bottom_ends_the_work() {
        let endless = frame(&[&[0x88, 0x47], &[0; 4].repeat(400)]);
        assert_eq!(error(LinkType::ETHERNET, &endless), (Layer::Shim, Reason::TooDeep));
    }

    #[test]
    fn tags_and_frames_within_frames_lead_to_the_packet() {
        let pppoe = [0x88, 0x64, 0x11, 0, 0, 1, 0, 34, 0x00, 0x21];
        assert_opens(&[&pppoe]);
        assert_opens(&[&pppoe[..8], &[0x21]]); // protocol field compressed
        assert_opens(&[&[0x00, 0x28], &[0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00]]); // SNAP
        assert_opens(&[&[0x00, 0x23], &[0x06, 0x06, 0x03]]);
        assert_opens(&[&[0x00, 0x24], &[0xfe, 0xfe, 0x03, 0xcc]]);
        assert_opens(&[&[0x88, 0xe7], &[0, 0, 0, 7], &MACS, &[0x08, 0x00]]); // 802.1ah
        assert_opens(&[&[0x89, 0x26], &[0; 4], &[0x08, 0x00]]); // VN-Tag
        assert_opens(&[&[0x89, 0x03], &[0; 2], &MACS, &[0x08, 0x00]]); // FabricPath
        assert_opens(&[&[0x89, 0x09], &[1, 1, 0, 1, 0, 5], &[0x08, 0x00]]); // Cisco metadata
        assert_opens(&[&[0x89, 0x4f], &[0, 2, 1, 1], &[0; 4]]); // NSH of 8 bytes
        assert_opens(&[&[0x65, 0x58], &MACS, &[0x08, 0x00]]);
        assert_opens(&[&[0x89, 0x3f], &[0; 6], &[0x08, 0x00]]); // E-tag
        assert_opens(&[&[0xf1, 0xc1], &[0, 0, 0, 7], &[0x08, 0x00]]);
        assert_opens(&[&[0x89, 0x2f], &[0, 40, 0, 7], &[0x08, 0x00]]); // HSR
        assert_opens(&[&[0x88, 0x70], &[0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00]]);
        assert_opens(&[&[0x22, 0xf3], &[0x00, 0x41, 0, 1, 0, 2], &[0; 4], &MACS, &[0x08, 0x00]]); // TRILL
        assert_opens(&[&pppoe[..8], &[0x00, 0x3d, 0xc0, 0, 0, 1, 0x00, 0x21]]); // multilink
        assert_opens(&[&pppoe[..8], &[0x3d, 0x80, 1, 0x21]]);
    }

    #[test]
    fn macsec_is_followed_unless_it_encrypts() {
        let integrity_only = [0x88, 0xe5, 0x00, 0, 0, 0, 0, 1];
        assert_opens(&[&integrity_only, &[0x08, 0x00]]);
        let encrypted = frame(&[&[0x88, 0xe5, 0x0c, 0, 0, 0, 0, 1], &[0x5a; 40]]);
        assert_eq!(error(LinkType::ETHERNET, &encrypted), (Layer::Shim, Reason::Encrypted));
    }

    #[test]
    fn what_is_not_ip_is_counted_as_that() {
        let lldp = frame(&[&[0x88, 0xcc], &[0; 46]]);
        assert_eq!(error(LinkType::ETHERNET, &lldp), (Layer::Network, Reason::NotIp));
        let spanning_tree = frame(&[&[0x00, 0x26], &[0x42, 0x42, 0x03], &[0; 35]]);
        assert_eq!(error(LinkType::ETHERNET, &spanning_tree), (Layer::Network, Reason::NotIp));
        let keep_alive = frame(&[&[0x90, 0x00], &[0; 46]]);
        assert_eq!(error(LinkType::ETHERNET, &keep_alive), (Layer::Network, Reason::NoPayload));
        let discovery = frame(&[&[0x88, 0x64, 0x11, 0x09, 0, 0, 0, 0], &[0; 40]]);
        assert_eq!(error(LinkType::ETHERNET, &discovery), (Layer::Network, Reason::NotIp));
    }

    #[test]
    fn frames_within_frames_without_end_are_too_deep() {
        let nested = frame(&[&[&[0x65, 0x58][..], &MACS].concat().repeat(30)]);
        assert_eq!(error(LinkType::ETHERNET, &nested), (Layer::Shim, Reason::TooDeep));
    }
}
