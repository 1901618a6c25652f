//! The pcapng format (IETF draft-ietf-opsawg-pcapng): sections, each with its own byte order and interfaces,
//! in blocks. Packets are read from enhanced, simple and the old packet blocks; the capture's own account of
//! lost packets from statistics blocks; every other block is passed over.

use onenet_core::{decode::LinkDirection, time::Timestamp};

use super::{
    capture::{CaptureDrops, CaptureInterface, CapturePacket, Found, Take},
    error::Problem,
    pcap::{ByteOrder, MAX_CAPTURED, link_type},
    window::Window,
};

/// Interfaces of one section at most.
pub(super) const MAX_INTERFACES: usize = 4096;

/// A packet block at most: the packet, and options beside it.
const MAX_PACKET_BLOCK: usize = MAX_CAPTURED as usize + (1 << 20);
const MAX_OTHER_BLOCK: usize = 1 << 20;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// What a section says of one of its interfaces.
struct SectionInterface {
    /// Number of it in the whole file.
    number: usize,
    snap_length: u32,
    resolution: Resolution,
    offset_seconds: i64,
    drops: CaptureDrops,
}

/// What one unit of a time stamp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    /// So many nanoseconds.
    Nanoseconds(u32),
    /// So many units in a second.
    PerSecond(u128),
    /// Finer than any time stamp can express.
    Nothing,
}

impl Resolution {
    /// From the option if_tsresol: a power of ten, or of two where the upper bit is set.
    fn from_option(value: u8) -> Self {
        let exponent = u32::from(value & 0x7f);
        if value & 0x80 != 0 {
            return Self::PerSecond(1 << exponent);
        }
        match exponent {
            0..=9 => Self::Nanoseconds(10_u32.pow(9 - exponent)),
            10..=38 => Self::PerSecond(10_u128.pow(exponent)),
            _ => Self::Nothing,
        }
    }

    /// A time stamp in nanoseconds, saturating.
    fn nanos(self, units: u64) -> i64 {
        match self {
            Self::Nanoseconds(each) => {
                i64::try_from(u128::from(units) * u128::from(each)).unwrap_or(i64::MAX)
            }
            Self::PerSecond(per_second) => {
                i64::try_from(u128::from(units) * 1_000_000_000 / per_second).unwrap_or(i64::MAX)
            }
            Self::Nothing => 0,
        }
    }
}

/// State of a reader of pcapng.
pub(super) struct PcapNgReader {
    order: ByteOrder,
    section: Vec<SectionInterface>,
    /// Interfaces of all sections.
    pub(super) interfaces: Vec<CaptureInterface>,
    /// Losses told in sections that have ended.
    drops_before: CaptureDrops,
    /// Blocks that contradict themselves, so that something in them could not be used.
    pub(super) irregular: u64,
    /// Time of the last packet that had one: simple packets have none of their own.
    last_time: Timestamp,
}

impl PcapNgReader {
    /// Whether a file of this format begins here.
    pub(super) fn open(window: &mut Window) -> Option<Self> {
        (window.have(4) == SECTION_HEADER.to_be_bytes()).then(|| Self {
            order: ByteOrder::Little,
            section: Vec::new(),
            interfaces: Vec::new(),
            drops_before: CaptureDrops::default(),
            irregular: 0,
            last_time: Timestamp::default(),
        })
    }

    /// What the capture says it lost.
    pub(super) fn drops(&self) -> CaptureDrops {
        self.section.iter().fold(self.drops_before, |sum, interface| sum.plus(interface.drops))
    }

    /// Whether the next block is a packet's and there without reading on.
    pub(super) fn is_at_hand(&self, window: &Window) -> bool {
        let bytes = window.at_hand();
        let is_packet = matches!(self.order.u32(bytes, 0), ENHANCED_PACKET | OLD_PACKET | SIMPLE_PACKET);
        is_packet && bytes.len() >= self.order.u32(bytes, 4) as usize
    }

    /// The next packet; none at the end of the file.
    pub(super) fn advance(&mut self, window: &mut Window) -> Result<Option<Found>, Problem> {
        loop {
            let header = window.have(12);
            if header.len() < 12 {
                return match header.len() as u64 {
                    0 => Ok(None),
                    have => Err(Problem::Truncated { what: "block header", needed: 12, have }),
                };
            }
            if header.first_chunk() == Some(&SECTION_HEADER.to_be_bytes()) {
                self.begin_section(window)?;
                continue;
            }
            let kind = self.order.u32(header, 0);
            let length = self.order.u32(header, 4);
            if length < 12 {
                let stated = u64::from(length);
                return Err(Problem::BadLength { what: "block", stated, expected: "at least 12" });
            }
            match kind {
                ENHANCED_PACKET | OLD_PACKET | SIMPLE_PACKET => {
                    let block = whole_block(window, length, MAX_PACKET_BLOCK, "at most 17825792")?;
                    let body = self.body(block);
                    let found = match kind {
                        SIMPLE_PACKET => self.simple_packet(body),
                        _ => self.packet(kind, body),
                    };
                    let position = window.position() + 8;
                    window.consume(length as usize);
                    match found {
                        Some(mut found) => {
                            found.data = position + found.data.start..position + found.data.end;
                            self.last_time = found.time;
                            return Ok(Some(found));
                        }
                        None => self.irregular += 1,
                    }
                }
                INTERFACE_DESCRIPTION => {
                    let block = whole_block(window, length, MAX_OTHER_BLOCK, "at most 1048576")?;
                    let body = self.body(block);
                    self.describe_interface(body)?;
                    window.consume(length as usize);
                }
                INTERFACE_STATISTICS if (length as usize) <= MAX_OTHER_BLOCK => {
                    let block = whole_block(window, length, MAX_OTHER_BLOCK, "at most 1048576")?;
                    let body = self.body(block);
                    self.statistics(body);
                    window.consume(length as usize);
                }
                _ => skip(window, u64::from(length))?,
            }
        }
    }

    /// Hands over the packets that are at hand up to this time, until `take` wants no more. Where another
    /// block comes, or one that is not there whole or contradicts itself, [`Self::advance`] goes on.
    pub(super) fn follow(
        &mut self,
        window: &mut Window,
        until: Timestamp,
        mut take: impl FnMut(&CapturePacket<'_>) -> Take,
    ) {
        let mut left = window.at_hand();
        let before = left.len();
        let mut last_time = self.last_time;
        while let Some((packet, behind)) = self.enhanced(left) {
            if packet.time > until {
                break;
            }
            let taken = take(&packet);
            if taken == Take::Leave {
                break;
            }
            (last_time, left) = (packet.time, behind);
            if taken == Take::Last {
                break;
            }
        }
        self.last_time = last_time;
        let length = before.saturating_sub(left.len());
        window.consume(length);
    }

    /// The enhanced packet that bytes begin with, and what is behind it.
    fn enhanced<'a>(&self, bytes: &'a [u8]) -> Option<(CapturePacket<'a>, &'a [u8])> {
        let header = bytes.first_chunk::<8>()?;
        let length = self.order.u32(header, 4) as usize;
        let is_sound = self.order.u32(header, 0) == ENHANCED_PACKET
            && (12..=MAX_PACKET_BLOCK).contains(&length)
            && length.is_multiple_of(4);
        if !is_sound {
            return None;
        }
        let (block, behind) = bytes.split_at_checked(length)?;
        let (body, end) = block.get(8..)?.split_last_chunk::<4>()?;
        if self.order.u32(end, 0) as usize != length {
            return None;
        }
        let found = self.packet(ENHANCED_PACKET, body)?;
        let packet = CapturePacket {
            time: found.time,
            interface: found.interface,
            link_type: self.interfaces.get(found.interface)?.link_type,
            direction: found.direction,
            wire_length: found.wire_length,
            data: body.get(found.data)?,
        };
        Some((packet, behind))
    }

    /// A section header: the byte order of what follows, and a fresh list of interfaces.
    fn begin_section(&mut self, window: &mut Window) -> Result<(), Problem> {
        let header = window.have(28);
        if header.len() < 28 {
            let have = header.len() as u64;
            return Err(Problem::Truncated { what: "section header", needed: 28, have });
        }
        self.order = match header.get(8..12) {
            Some([0x4d, 0x3c, 0x2b, 0x1a]) => ByteOrder::Little,
            Some([0x1a, 0x2b, 0x3c, 0x4d]) => ByteOrder::Big,
            _ => {
                let stated = u64::from(ByteOrder::Big.u32(header, 8));
                return Err(Problem::BadMagic { what: "section header", stated });
            }
        };
        let length = self.order.u32(header, 4);
        if length < 28 {
            let stated = u64::from(length);
            return Err(Problem::BadLength { what: "section header", stated, expected: "at least 28" });
        }
        skip(window, u64::from(length))?;
        self.drops_before = self.drops();
        self.section.clear();
        Ok(())
    }

    /// What stands between the two lengths of a block.
    fn body<'a>(&mut self, block: &'a [u8]) -> &'a [u8] {
        let end = block.len().saturating_sub(4);
        let regular = block.len().is_multiple_of(4)
            && usize::try_from(self.order.u32(block, end)).is_ok_and(|length| length == block.len());
        if !regular {
            self.irregular += 1;
        }
        block.get(8..end).unwrap_or(&[])
    }

    fn describe_interface(&mut self, body: &[u8]) -> Result<(), Problem> {
        if body.len() < 8 {
            let stated = body.len() as u64 + 12;
            return Err(Problem::BadLength { what: "interface block", stated, expected: "at least 20" });
        }
        if self.section.len() >= MAX_INTERFACES {
            return Err(Problem::TooManyInterfaces);
        }
        let mut name = None;
        let mut resolution = Resolution::from_option(6);
        let mut offset_seconds = 0;
        for (code, value) in options(self.order, body.get(8..).unwrap_or(&[])) {
            match (code, value) {
                (2, name_bytes) => name = interface_name(name_bytes),
                (9, [value, ..]) => resolution = Resolution::from_option(*value),
                (14, value) if value.len() == 8 => {
                    offset_seconds = self.order.u64(value, 0).cast_signed();
                }
                _ => {}
            }
        }
        let described = CaptureInterface {
            name: name.or_else(|| match self.section.len() {
                0 => None,
                index => Some(format!("#{index}")),
            }),
            link_type: link_type(u32::from(self.order.u16(body, 0))),
        };
        // Sections repeat their interfaces (a file appended to a file), which must not make them more.
        let number = self.interfaces.iter().position(|known| *known == described).unwrap_or_else(|| {
            self.interfaces.push(described);
            self.interfaces.len() - 1
        });
        if number >= MAX_INTERFACES {
            return Err(Problem::TooManyInterfaces);
        }
        self.section.push(SectionInterface {
            number,
            snap_length: self.order.u32(body, 4),
            resolution,
            offset_seconds,
            drops: CaptureDrops::default(),
        });
        Ok(())
    }

    /// An enhanced packet, or the old form of it. The range of the data is relative to the body.
    fn packet(&self, kind: u32, body: &[u8]) -> Option<Found> {
        if body.len() < 20 {
            return None;
        }
        let number = match kind {
            ENHANCED_PACKET => self.order.u32(body, 0),
            _ => u32::from(self.order.u16(body, 0)),
        };
        let interface = self.section.get(usize::try_from(number).ok()?)?;
        let units = u64::from(self.order.u32(body, 4)) << 32 | u64::from(self.order.u32(body, 8));
        let captured = self.order.u32(body, 12) as usize;
        let end = body.len().min(captured.saturating_add(20));
        let mut direction = LinkDirection::Unknown;
        let options_at = captured.next_multiple_of(4).saturating_add(20);
        if let Some(rest) = body.get(options_at..) {
            for (code, value) in options(self.order, rest) {
                if code == 2 && value.len() == 4 {
                    direction = match self.order.u32(value, 0) & 3 {
                        1 => LinkDirection::Received,
                        2 => LinkDirection::Sent,
                        _ => LinkDirection::Unknown,
                    };
                }
            }
        }
        Some(Found {
            time: Timestamp::from_parts(interface.offset_seconds, interface.resolution.nanos(units)),
            interface: interface.number,
            direction,
            wire_length: self.order.u32(body, 16),
            data: 20..end,
        })
    }

    /// A simple packet: of the first interface, without a time. It takes that of the packet before it.
    fn simple_packet(&self, body: &[u8]) -> Option<Found> {
        let interface = self.section.first()?;
        let room = body.len().checked_sub(4)?;
        let wire_length = self.order.u32(body, 0);
        let snapped = match interface.snap_length {
            0 => wire_length,
            limit => wire_length.min(limit),
        };
        Some(Found {
            time: self.last_time,
            interface: interface.number,
            direction: LinkDirection::Unknown,
            wire_length,
            data: 4..4 + room.min(snapped as usize),
        })
    }

    /// The counters of an interface are since its start, so the last ones told stand.
    fn statistics(&mut self, body: &[u8]) {
        let number = self.order.u32(body, 0) as usize;
        let Some(interface) = self.section.get_mut(number).filter(|_| body.len() >= 12) else {
            self.irregular += 1;
            return;
        };
        for (code, value) in options(self.order, body.get(12..).unwrap_or(&[])) {
            match code {
                5 if value.len() == 8 => interface.drops.interface = self.order.u64(value, 0),
                7 if value.len() == 8 => interface.drops.kernel = self.order.u64(value, 0),
                _ => {}
            }
        }
    }
}

/// A block in one piece.
fn whole_block<'a>(
    window: &'a mut Window,
    length: u32,
    limit: usize,
    expected: &'static str,
) -> Result<&'a [u8], Problem> {
    let wanted = length as usize;
    if wanted > limit {
        return Err(Problem::BadLength { what: "block", stated: u64::from(length), expected });
    }
    let block = window.have(wanted);
    if block.len() < wanted {
        let (needed, have) = (u64::from(length), block.len() as u64);
        return Err(Problem::Truncated { what: "block", needed, have });
    }
    Ok(block)
}

fn skip(window: &mut Window, length: u64) -> Result<(), Problem> {
    match window.skip(length) {
        have if have < length => Err(Problem::Truncated { what: "block", needed: length, have }),
        _ => Ok(()),
    }
}

/// The options in these bytes: code and value, until their end or the first that does not fit.
fn options(order: ByteOrder, mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let code = order.u16(bytes, 0);
        let length = usize::from(order.u16(bytes, 2));
        let value = bytes.get(4..4 + length)?;
        bytes = bytes.get(4 + length.next_multiple_of(4)..).unwrap_or(&[]);
        (code != 0).then_some((code, value))
    })
}

/// The name of an interface as text of bounded length; none where it is empty.
fn interface_name(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes.get(..256).unwrap_or(bytes));
    let name: String = text.trim_end_matches('\0').chars().filter(|c| !c.is_control()).take(64).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_stamp_is_read_in_its_resolution() {
        for (option, units, nanos) in [
            (6, 1_500_000, 1_500_000_000),
            (9, 1_500_000_000, 1_500_000_000),
            (0, 2, 2_000_000_000),
            (12, 1_500_000_000_000, 1_500_000_000),
            (0x80 | 10, 1536, 1_500_000_000),
            (0x80, 3, 3_000_000_000),
            (0xff, u64::MAX, 0),
            (0x7f, u64::MAX, 0),
            (0, u64::MAX, i64::MAX),
        ] {
            assert_eq!(Resolution::from_option(option).nanos(units), nanos, "{option:#x}");
        }
    }
}
