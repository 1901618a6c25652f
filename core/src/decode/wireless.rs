//! IEEE 802.11 data frames, and the radiotap header that capturing systems put before them.

use super::{
    cursor::{Cursor, at_link},
    packet::{Link, Unparsed},
    read,
    shim::Next,
};
use crate::{net::MacAddress, record::Reason};

/// A data frame without options: frame control, duration, three addresses, sequence control.
const HEADER: usize = 24;
/// Where the fragment's number is, in the lower half of the byte.
const SEQUENCE: usize = 22;
const TO_DS: u8 = 0x01;
const FROM_DS: u8 = 0x02;
const PROTECTED: u8 = 0x40;
/// In a QoS frame: four bytes of HT control follow the header.
const ORDER: u8 = 0x80;
/// Radiotap flag: the header is padded to a multiple of four bytes.
const DATA_PAD: u8 = 0x20;

/// Reads an 802.11 header. Frames that carry no data (management, control, null, all fragments but the first)
/// are [`Reason::NoPayload`].
pub(super) fn ieee80211<'a>(
    at: Cursor<'a>,
    link: &mut Link,
    padded: bool,
) -> Result<(Next, Cursor<'a>), Unparsed> {
    let [control, flags] = read::array(at.data, 0).ok_or(at_link(Reason::Truncated))?;
    frame(at, link, [control, flags], SEQUENCE, padded)
}

/// The same of a frame whose frame control and sequence control have their two bytes in the wrong order.
pub(super) fn swapped<'a>(at: Cursor<'a>, link: &mut Link) -> Result<(Next, Cursor<'a>), Unparsed> {
    let [flags, control] = read::array(at.data, 0).ok_or(at_link(Reason::Truncated))?;
    frame(at, link, [control, flags], SEQUENCE + 1, false)
}

/// Whether the first byte of frame control is that of a data frame.
pub(super) const fn is_data(control: u8) -> bool {
    control & 0x0f == 0x08
}

/// Skips the header that captures had before radiotap: AVS, which shows by its version, or that of Prism cards,
/// whose length is in the byte order of the capturing machine.
pub(super) fn older_header(at: Cursor<'_>) -> Option<Cursor<'_>> {
    let stated = at.be32(4)?;
    let is_avs = at.be32(0)? >> 12 == 0x80211;
    let length = if is_avs || stated < 0x1000 { stated } else { stated.swap_bytes() };
    at.skip(usize::try_from(length).ok()?.max(8))
}

fn frame<'a>(
    at: Cursor<'a>,
    link: &mut Link,
    [control, flags]: [u8; 2],
    sequence: usize,
    padded: bool,
) -> Result<(Next, Cursor<'a>), Unparsed> {
    let (version, kind, subtype) = (control & 0x03, (control >> 2) & 0x03, control >> 4);
    if version != 0 || kind != 2 || subtype & 0x04 != 0 {
        return Err(at_link(Reason::NoPayload));
    }
    if flags & PROTECTED != 0 {
        return Err(at_link(Reason::Encrypted));
    }
    if at.byte(sequence).is_some_and(|number| number & 0x0f != 0) {
        // A later fragment.
        return Err(at_link(Reason::NoPayload));
    }
    data_frame(at, link, flags, subtype & 0x08 != 0, padded).ok_or(at_link(Reason::Truncated))
}

/// None where the frame is cut.
fn data_frame<'a>(
    at: Cursor<'a>,
    link: &mut Link,
    flags: u8,
    is_qos: bool,
    padded: bool,
) -> Option<(Next, Cursor<'a>)> {
    let mac = |place| read::array(at.data, place).map(MacAddress);
    let mut size = HEADER;
    let (destination, source) = match (flags & TO_DS != 0, flags & FROM_DS != 0) {
        (false, false) => (mac(4), mac(10)),
        (false, true) => (mac(4), mac(16)),
        (true, false) => (mac(16), mac(10)),
        (true, true) => {
            size += 6;
            (mac(16), mac(24))
        }
    };
    link.destination_mac = Some(destination?);
    link.source_mac = Some(source?);
    // Bit 7 of QoS control: several frames in one (A-MSDU), each with addresses and a length like 802.3's.
    let mut is_aggregate = false;
    if is_qos {
        is_aggregate = at.byte(size)? & 0x80 != 0;
        size += if flags & ORDER == 0 { 2 } else { 6 };
    }
    if padded {
        size = size.next_multiple_of(4);
    }
    let next = if is_aggregate { Next::Ethernet } else { Next::Llc };
    Some((next, at.skip(size)?))
}

/// Reads a radiotap header (radiotap.org): little endian; gives what is behind it, and whether the 802.11
/// header there is padded.
pub(super) fn radiotap(at: Cursor<'_>) -> Option<(Cursor<'_>, bool)> {
    let [0, _, l0, l1] = read::array(at.data, 0)? else { return None };
    let present = u32::from_le_bytes(read::array(at.data, 4)?);
    let mut fields = 8;
    let mut word = present;
    // Bit 31 of a word of field bits: another word follows. The loop ends with the bytes.
    while word & 0x8000_0000 != 0 {
        word = u32::from_le_bytes(read::array(at.data, fields)?);
        fields += 4;
    }
    if present & 0x01 != 0 {
        fields = fields.next_multiple_of(8) + 8;
    }
    let padded = present & 0x02 != 0 && at.byte(fields)? & DATA_PAD != 0;
    Some((at.skip(usize::from(u16::from_le_bytes([l0, l1])).max(8))?, padded))
}

#[cfg(test)]
mod tests {
    use super::super::{
        LinkType,
        testing::{assert_opens, error, link_of, with_packet},
    };
    use super::*;
    use crate::record::Layer;

    const LLC: [u8; 8] = [0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00];

    fn frame(control: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
        [&[control, flags, 0, 0][..], &[1; 6], &[2; 6], &[3; 6], &[0x10, 0], rest].concat()
    }

    fn stations(flags: u8, rest: &[u8]) -> [u8; 2] {
        let bytes = with_packet(&frame(0x08, flags, &[rest, &LLC].concat()));
        let link = link_of(LinkType::IEEE802_11, &bytes);
        [link.source_mac.unwrap().0[0], link.destination_mac.unwrap().0[0]]
    }

    #[test]
    fn the_stations_depend_on_the_way_over_the_distribution_system() {
        assert_eq!(stations(0, &[]), [2, 1]);
        assert_eq!(stations(FROM_DS, &[]), [3, 1]);
        assert_eq!(stations(TO_DS, &[]), [2, 3]);
        assert_eq!(stations(TO_DS | FROM_DS, &[4; 6]), [4, 3]);
    }

    #[test]
    fn qos_ht_control_and_aggregates_are_followed() {
        assert_opens(LinkType::IEEE802_11, &frame(0x88, 0, &[&[0, 0][..], &LLC].concat()));
        assert_opens(LinkType::IEEE802_11, &frame(0x88, ORDER, &[&[0; 6][..], &LLC].concat()));
        let aggregate = [&[0x80, 0][..], &[5; 6], &[6; 6], &[0, 40], &LLC].concat();
        assert_opens(LinkType::IEEE802_11, &frame(0x88, 0, &aggregate));
    }

    #[test]
    fn frames_without_readable_data_say_why() {
        let at = |reason| (Layer::Link, reason);
        assert_eq!(error(LinkType::IEEE802_11, &frame(0x80, 0, &[0; 20])), at(Reason::NoPayload));
        assert_eq!(error(LinkType::IEEE802_11, &frame(0x48, 0, &[])), at(Reason::NoPayload));
        assert_eq!(error(LinkType::IEEE802_11, &frame(0x08, PROTECTED, &[0; 20])), at(Reason::Encrypted));
        assert_eq!(error(LinkType::IEEE802_11, &frame(0x08, 0, &LLC)[..20]), at(Reason::Truncated));
        let mut later_fragment = frame(0x08, 0, &LLC);
        later_fragment[22] = 0x11;
        assert_eq!(error(LinkType::IEEE802_11, &later_fragment), at(Reason::NoPayload));
    }

    #[test]
    fn headers_older_than_radiotap_are_skipped() {
        let data = frame(0x08, 0, &LLC);
        let prism = [&[0x44, 0, 0, 0, 144, 0, 0, 0][..], &[0; 136], &data].concat();
        assert_opens(LinkType::PRISM, &prism);
        let prism = [&[0, 0, 0, 0x44, 0, 0, 0, 144][..], &[0; 136], &data].concat();
        assert_opens(LinkType::PRISM, &prism);
        let avs = [&[0x80, 0x21, 0x10, 1, 0, 0, 0, 64][..], &[0; 56], &data].concat();
        assert_opens(LinkType::AVS, &avs);
        assert_opens(LinkType::PRISM, &avs);
        assert_eq!(error(LinkType::AVS, &avs[..20]), (Layer::Link, Reason::Truncated));
    }

    #[test]
    fn radiotap_is_skipped_and_its_padding_minded() {
        let plain = [&[0, 0, 8, 0, 0, 0, 0, 0][..], &frame(0x08, 0, &LLC)].concat();
        assert_opens(LinkType::RADIOTAP, &plain);
        // Two words of field bits, a time stamp aligned to eight, flags with padding.
        let header =
            [&[0, 0, 25, 0, 3, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0][..], &[9; 8], &[DATA_PAD]].concat();
        let padded = [&header[..], &frame(0x88, 0, &[0; 4]), &LLC].concat();
        assert_opens(LinkType::RADIOTAP, &padded);
        let endless = [&[0, 0, 8, 0][..], &[0xff; 40]].concat();
        assert_eq!(error(LinkType::RADIOTAP, &endless), (Layer::Link, Reason::Truncated));
    }
}
