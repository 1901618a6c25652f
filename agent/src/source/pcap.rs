//! The classic pcap format (IETF draft-ietf-opsawg-pcap): a file header, then packet records. Either byte
//! order, micro- or nanoseconds, and the "modified" variant of Alexey Kuznetsov's libpcap with its longer
//! record header.

use onenet_core::{
    decode::{LinkDirection, LinkType},
    time::Timestamp,
};

use super::{
    capture::{CaptureInterface, CapturePacket, Found, Take},
    error::Problem,
    window::Window,
};

/// Captured bytes of one packet at most; libpcap itself writes at most 256 KiB.
pub(super) const MAX_CAPTURED: u32 = 1 << 24;
pub(super) const MAX_CAPTURED_TEXT: &str = "at most 16777216";

const FILE_HEADER: usize = 24;

/// State of a reader of the classic format.
pub(super) struct PcapReader {
    layout: Layout,
    pub(super) interface: CaptureInterface,
}

/// How records are written.
#[derive(Clone, Copy)]
struct Layout {
    order: ByteOrder,
    nanoseconds: bool,
    modified: bool,
    link_type: LinkType,
}

/// Byte order of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    pub(super) fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let raw = *bytes.get(at..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; 2]);
        match self {
            Self::Little => u16::from_le_bytes(raw),
            Self::Big => u16::from_be_bytes(raw),
        }
    }

    #[inline]
    pub(super) fn u32(self, bytes: &[u8], at: usize) -> u32 {
        self.number(*bytes.get(at..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; 4]))
    }

    #[inline]
    const fn number(self, raw: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(raw),
            Self::Big => u32::from_be_bytes(raw),
        }
    }

    pub(super) fn u64(self, bytes: &[u8], at: usize) -> u64 {
        let raw = *bytes.get(at..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; 8]);
        match self {
            Self::Little => u64::from_le_bytes(raw),
            Self::Big => u64::from_be_bytes(raw),
        }
    }
}

/// The link type of a capture in the width of the registry; what does not fit is no known type.
pub(super) fn link_type(number: u32) -> LinkType {
    LinkType(u16::try_from(number).unwrap_or(u16::MAX))
}

impl PcapReader {
    /// Reads the file header; none where the file is of another format.
    pub(super) fn open(window: &mut Window) -> Option<Result<Self, Problem>> {
        let header = window.have(FILE_HEADER);
        let (order, nanoseconds, modified) = match *header.first_chunk::<4>()? {
            [0xd4, 0xc3, 0xb2, 0xa1] => (ByteOrder::Little, false, false),
            [0xa1, 0xb2, 0xc3, 0xd4] => (ByteOrder::Big, false, false),
            [0x4d, 0x3c, 0xb2, 0xa1] => (ByteOrder::Little, true, false),
            [0xa1, 0xb2, 0x3c, 0x4d] => (ByteOrder::Big, true, false),
            [0x34, 0xcd, 0xb2, 0xa1] => (ByteOrder::Little, false, true),
            [0xa1, 0xb2, 0xcd, 0x34] => (ByteOrder::Big, false, true),
            _ => return None,
        };
        if header.len() < FILE_HEADER {
            let have = header.len() as u64;
            return Some(Err(Problem::Truncated { what: "file header", needed: FILE_HEADER as u64, have }));
        }
        // The upper six bits state the length of the frame check sequence behind each packet. The engine goes
        // by the length fields, so it needs no cutting.
        let number = order.u32(header, 20) & 0x03ff_ffff;
        let interface = CaptureInterface { name: None, link_type: link_type(number) };
        window.consume(FILE_HEADER);
        let layout = Layout { order, nanoseconds, modified, link_type: interface.link_type };
        Some(Ok(Self { layout, interface }))
    }

    pub(super) const fn format(&self) -> &'static str {
        match (self.layout.modified, self.layout.nanoseconds) {
            (true, _) => "pcap (modified)",
            (false, true) => "pcap (nanoseconds)",
            (false, false) => "pcap",
        }
    }

    /// Whether the next packet is there without reading on.
    pub(super) fn is_at_hand(&self, window: &Window) -> bool {
        let bytes = window.at_hand();
        let length = self.layout.header_length() + self.layout.order.u32(bytes, 8) as usize;
        bytes.len() >= length
    }

    /// The next packet; none at the end of the file.
    pub(super) fn advance(&mut self, window: &mut Window) -> Result<Option<Found>, Problem> {
        let header_length = self.layout.header_length();
        let header = window.have(header_length);
        if header.len() < header_length {
            return match header.len() as u64 {
                0 => Ok(None),
                have => Err(Problem::Truncated { what: "packet header", needed: header_length as u64, have }),
            };
        }
        let captured = self.layout.order.u32(header, 8);
        if captured > MAX_CAPTURED {
            let stated = u64::from(captured);
            return Err(Problem::BadLength { what: "packet record", stated, expected: MAX_CAPTURED_TEXT });
        }
        let length = header_length.saturating_add(captured as usize);
        let record = window.have(length);
        let (needed, have) = (length as u64, record.len() as u64);
        let Some((packet, _)) = self.layout.record(record) else {
            return Err(Problem::Truncated { what: "packet record", needed, have });
        };
        let CapturePacket { time, interface, direction, wire_length, .. } = packet;
        let data = window.position() + header_length..window.position() + length;
        window.consume(length);
        Ok(Some(Found { time, interface, direction, wire_length, data }))
    }

    /// Hands over the packets that are at hand up to this time, until `take` wants no more. Where a record is not there
    /// whole, or is not sound, [`Self::advance`] goes on.
    #[inline]
    pub(super) fn follow(
        &self,
        window: &mut Window,
        until: Timestamp,
        take: impl FnMut(&CapturePacket<'_>) -> Take,
    ) {
        // Nearly every file is of one kind, which has a loop that asks for nothing else.
        if (self.layout.order, self.layout.modified) == (ByteOrder::Little, false) {
            self.layout.follow::<true>(window, until, take);
        } else {
            self.layout.follow::<false>(window, until, take);
        }
    }
}

impl Layout {
    /// [`PcapReader::follow`], in a copy for records of the `USUAL` kind.
    #[inline]
    fn follow<const USUAL: bool>(
        mut self,
        window: &mut Window,
        until: Timestamp,
        mut take: impl FnMut(&CapturePacket<'_>) -> Take,
    ) {
        if USUAL {
            (self.order, self.modified) = (ByteOrder::Little, false);
        }
        let mut left = window.at_hand();
        let before = left.len();
        while let Some((packet, behind)) = self.record(left) {
            if packet.time > until {
                break;
            }
            let taken = take(&packet);
            if taken == Take::Leave {
                break;
            }
            left = behind;
            if taken == Take::Last {
                break;
            }
        }
        let length = before.saturating_sub(left.len());
        window.consume(length);
    }

    #[inline]
    const fn header_length(self) -> usize {
        if self.modified { 24 } else { 16 }
    }

    /// The packet that bytes begin with, and what is behind it.
    #[inline]
    fn record<'a>(self, bytes: &'a [u8]) -> Option<(CapturePacket<'a>, &'a [u8])> {
        let ([seconds, fraction, captured, wire_length], _) = bytes.first_chunk::<16>()?.as_chunks() else {
            return None;
        };
        let captured = self.order.number(*captured);
        let length = self.header_length().saturating_add(captured as usize);
        if captured > MAX_CAPTURED {
            return None;
        }
        let (record, behind) = bytes.split_at_checked(length)?;
        let packet = CapturePacket {
            time: self.time(self.order.number(*seconds).into(), self.order.number(*fraction).into()),
            interface: 0,
            link_type: self.link_type,
            direction: self.direction(record),
            wire_length: self.order.number(*wire_length),
            data: record.get(self.header_length()..)?,
        };
        Some((packet, behind))
    }

    /// The variant's packet type is that of Linux: 0 to us, 4 sent by us (packet(7)).
    #[inline]
    fn direction(self, header: &[u8]) -> LinkDirection {
        if !self.modified {
            return LinkDirection::Unknown;
        }
        match header.get(22) {
            Some(0) => LinkDirection::Received,
            Some(4) => LinkDirection::Sent,
            _ => LinkDirection::Unknown,
        }
    }

    #[inline]
    const fn time(self, seconds: i64, fraction: i64) -> Timestamp {
        let nanos = if self.nanoseconds { fraction } else { fraction * 1_000 };
        Timestamp::from_parts(seconds, nanos)
    }
}
