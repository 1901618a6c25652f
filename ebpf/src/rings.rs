//! Punted packets: their kinds, and how their records are read.

use aya::maps::{MapData, RingBuf};
use onenet_core::{decode::LinkDirection, time::Timestamp};

use crate::layout::PUNT_HEADER;

/// Why a packet was punted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// ARP and RARP.
    Arp,
    /// ICMPv6 133 to 137.
    Ndp,
    /// UDP 67, 68, 546, 547.
    Dhcp,
    /// One of the first packets of a direction of a flow.
    First,
    /// TCP with SYN, FIN or RST, or with a window of zero.
    Control,
    /// A fragment.
    Fragment,
    /// A tunnel that core's decode may open.
    Tunnel,
    /// ICMP, ICMPv6, IGMP.
    Icmp,
    /// What the kernel program cannot parse.
    Odd,
    /// A flow's packet from another MAC address than before.
    Moved,
    /// There was no room in the map.
    Overflow,
}

impl Kind {
    /// All of them, in order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Arp,
        Self::Ndp,
        Self::Dhcp,
        Self::First,
        Self::Control,
        Self::Fragment,
        Self::Tunnel,
        Self::Icmp,
        Self::Odd,
        Self::Moved,
        Self::Overflow,
    ];

    /// Its name, as metrics have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::Ndp => "ndp",
            Self::Dhcp => "dhcp",
            Self::First => "first",
            Self::Control => "control",
            Self::Fragment => "fragment",
            Self::Tunnel => "tunnel",
            Self::Icmp => "icmp",
            Self::Odd => "odd",
            Self::Moved => "moved",
            Self::Overflow => "overflow",
        }
    }

    /// Packets per second and CPU where nothing else is configured.
    pub const fn usual_rate(self) -> u32 {
        match self {
            Self::Arp | Self::Ndp | Self::Dhcp | Self::Odd | Self::Moved => 2000,
            Self::Fragment | Self::Tunnel | Self::Icmp => 5000,
            Self::First | Self::Control | Self::Overflow => 20_000,
        }
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// A punted packet.
#[derive(Clone, Copy, Debug)]
pub struct Punt<'a> {
    /// When it came, by the wall clock.
    pub time: Timestamp,
    /// Why it was punted.
    pub kind: Kind,
    /// Which way it passed the interface.
    pub direction: LinkDirection,
    /// Bytes of the frame: of one that stands for several packets (`segments`), as the kernel had it.
    pub wire_length: u32,
    /// Packets on the wire; at least 1.
    pub segments: u16,
    /// First bytes of the frame as it was on the wire, VLAN tag and all.
    pub data: &'a [u8],
}

/// Records that one call reads of a ring at most, so that a flood cannot keep it from ever ending.
const MOST: usize = 1 << 16;

/// Hands every waiting record of a ring to `take`; `offset` makes wall time of the kernel's. Gives how many.
pub(crate) fn read(ring: &mut RingBuf<MapData>, offset: i64, take: &mut dyn FnMut(&Punt<'_>)) -> usize {
    let mut count = 0;
    while count < MOST
        && let Some(record) = ring.next()
    {
        count += 1;
        if let Some(punt) = parse(&record, offset) {
            take(&punt);
        }
    }
    count
}

/// A record as `struct punt` and the frame behind it.
fn parse(record: &[u8], offset: i64) -> Option<Punt<'_>> {
    let (header, data) = record.split_first_chunk::<PUNT_HEADER>()?;
    let [time @ .., w0, w1, w2, w3, c0, c1, s0, s1, kind, hook, _, _, _, _, _, _] = *header;
    let captured = usize::from(u16::from_ne_bytes([c0, c1]));
    Some(Punt {
        time: wall(u64::from_ne_bytes(time), offset),
        kind: Kind::of(kind)?,
        direction: if hook == 1 { LinkDirection::Sent } else { LinkDirection::Received },
        wire_length: u32::from_ne_bytes([w0, w1, w2, w3]),
        segments: u16::from_ne_bytes([s0, s1]).max(1),
        data: data.get(..captured).unwrap_or(data),
    })
}

/// Wall time of a moment of the kernel's monotonic clock.
pub(crate) fn wall(monotonic: u64, offset: i64) -> Timestamp {
    Timestamp(i64::try_from(monotonic).unwrap_or(i64::MAX).saturating_add(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_numbers() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
            assert_eq!(Kind::of(kind as u8), Some(kind));
        }
        assert_eq!(Kind::of(11), None);
    }

    #[test]
    fn a_record_is_read_and_one_that_is_cut_is_not() {
        let mut record = vec![0; PUNT_HEADER + 8];
        record[..8].copy_from_slice(&1_000_u64.to_ne_bytes());
        record[8..12].copy_from_slice(&1514_u32.to_ne_bytes());
        record[12..14].copy_from_slice(&3_u16.to_ne_bytes());
        record[14..16].copy_from_slice(&2_u16.to_ne_bytes());
        record[16..18].copy_from_slice(&[4, 1]);
        record[PUNT_HEADER..].copy_from_slice(b"abcdefgh");
        let punt = parse(&record, 5).expect("a record");
        assert_eq!(
            (punt.time, punt.kind, punt.direction),
            (Timestamp(1_005), Kind::Control, LinkDirection::Sent)
        );
        assert_eq!((punt.wire_length, punt.segments, punt.data), (1514, 2, &b"abc"[..]));
        assert!(parse(&record[..PUNT_HEADER - 1], 0).is_none());
        record[16] = 200;
        assert!(parse(&record, 0).is_none(), "a kind that is none");
    }
}
