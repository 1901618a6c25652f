//! Packets in batches: decoded one after the other, then taken together, so that the lookups of many flows wait
//! for memory at the same time. What comes out is what [`Sensor::handle_packet`] gives packet by packet.
//!
//! A batch owns what it holds, so that it can be filled on one thread and taken on another. Of the usual packets
//! it keeps the headers alone; others, whose payload says something, it keeps whole.

use std::ops::Range;

use arrayvec::ArrayVec;

use super::{Sensor, Wiring, is_counted, packet_place};
use crate::{
    decode::{
        self, CapturedPacket, InterfaceIndex, LinkDirection, LinkType, Plain, PlainTransport, checksum, stack,
    },
    flow::{ChecksumMode, FlowAddress, FlowTable, Origin, TOGETHER},
    plan::InterfacePlan,
    record::{RecordSink, StackSample},
    time::Timestamp,
};

/// Packets of one batch.
const PACKETS: usize = 256;
/// Bytes of whole packets, beyond which a batch is full.
const WHOLE_BYTES: usize = 256 * 1024;

/// IP protocol number of UDP, the only one of the usual packets that brings mirrors.
const UDP: u8 = 17;

/// What comes between plain packets.
#[derive(Debug)]
enum Other {
    Whole(Whole),
    Interface(InterfacePlan),
}

/// A packet with its bytes, which the batch holds.
#[derive(Debug)]
struct Whole {
    time: Timestamp,
    interface: InterfaceIndex,
    link_type: LinkType,
    direction: LinkDirection,
    wire_length: u32,
    bytes: Range<usize>,
}

/// Packets in the order they came, and the interfaces that became known between them.
#[derive(Debug, Default)]
pub struct Batch {
    plain: Vec<Plain>,
    /// Of each plain packet that opens a connection, in their order.
    stacks: Vec<Option<StackSample>>,
    /// Each with the number of plain packets before it.
    others: Vec<(usize, Other)>,
    bytes: Vec<u8>,
    /// Whether packets may be a mirror's, so that their payload says something.
    is_mirrored: bool,
    checksums: ChecksumMode,
}

impl Batch {
    /// Takes one packet in.
    #[inline]
    pub fn push(&mut self, packet: &CapturedPacket<'_>) {
        self.plain.push(Plain::EMPTY);
        if let Some(plain) = self.plain.last_mut()
            && let Some(bytes) = decode::read_usual(packet, plain)
            && !(self.is_mirrored && plain.protocol == UDP)
            && !plain.may_say_more()
        {
            let is_checked = self.checksums != ChecksumMode::Skip;
            plain.is_flawed = is_checked && !checksum::is_plain_sound(plain, bytes);
            // One that is to be rejected is for the general way to take.
            if !(plain.is_flawed && self.checksums == ChecksumMode::Verify) {
                if opens(plain) {
                    self.stacks.push(stack_of(plain, bytes));
                }
                return;
            }
        }
        self.plain.pop();
        self.push_whole(packet);
    }

    /// Takes a packet in with its bytes.
    #[cold]
    fn push_whole(&mut self, packet: &CapturedPacket<'_>) {
        let &CapturedPacket { time, interface, link_type, direction, wire_length, data } = packet;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(data);
        let bytes = start..self.bytes.len();
        let whole = Whole { time, interface, link_type, direction, wire_length, bytes };
        self.others.push((self.plain.len(), Other::Whole(whole)));
    }

    /// Makes an interface known before the packets that are still to come. Its index is that of the name among
    /// all interfaces of the sensor, in the order in which they became known.
    pub fn push_interface(&mut self, interface: InterfacePlan) {
        self.others.push((self.plain.len(), Other::Interface(interface)));
    }

    /// Whether it is time to hand the batch on.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.plain.len().saturating_add(self.others.len()) >= PACKETS || self.bytes.len() >= WHOLE_BYTES
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.others.is_empty()
    }

    /// Empties it for the next packets; its memory stays, but not that of an outsize packet.
    pub fn clear(&mut self) {
        self.plain.clear();
        self.stacks.clear();
        self.others.clear();
        self.bytes.clear();
        self.bytes.shrink_to(2 * WHOLE_BYTES);
    }
}

impl Sensor {
    /// An empty batch for this sensor, once its mirrors are known.
    pub fn batch(&self) -> Batch {
        Batch { is_mirrored: !self.mirrors.is_empty(), checksums: self.checksums, ..Batch::default() }
    }

    /// Takes the packets of a batch, as [`Sensor::handle_packet`] takes them one by one.
    pub fn handle_batch(&mut self, batch: &Batch, sink: &mut dyn RecordSink) {
        let mut done = 0;
        let mut stacks = batch.stacks.iter();
        for (before, other) in &batch.others {
            self.handle_plain(batch.plain.get(done..*before).unwrap_or(&[]), &mut stacks, sink);
            done = *before;
            match other {
                Other::Interface(interface) => {
                    self.add_interface(interface.clone());
                }
                Other::Whole(whole) => {
                    let packet = CapturedPacket {
                        time: whole.time,
                        interface: whole.interface,
                        link_type: whole.link_type,
                        direction: whole.direction,
                        wire_length: whole.wire_length,
                        data: batch.bytes.get(whole.bytes.clone()).unwrap_or(&[]),
                    };
                    self.handle_packet(&packet, sink);
                }
            }
        }
        self.handle_plain(batch.plain.get(done..).unwrap_or(&[]), &mut stacks, sink);
    }

    fn handle_plain(&mut self, packets: &[Plain], stacks: &mut Stacks<'_>, sink: &mut dyn RecordSink) {
        self.change_if_asked(sink);
        for together in packets.chunks(TOGETHER) {
            self.handle_together(together, stacks, sink);
        }
    }

    /// Locates every packet first, then lets the lookups wait together, then counts one by one.
    fn handle_together(&mut self, packets: &[Plain], stacks: &mut Stacks<'_>, sink: &mut dyn RecordSink) {
        let count = packets.len() as u64;
        self.ledger.packets = self.ledger.packets.saturating_add(count);
        self.ledger.parsed = self.ledger.parsed.saturating_add(count);
        let bytes: u64 = packets.iter().map(|packet| u64::from(packet.wire_length)).sum();
        self.ledger.wire_bytes = self.ledger.wire_bytes.saturating_add(bytes);
        let places = &self.places;
        let addresses: ArrayVec<_, TOGETHER> = packets
            .iter()
            .map(|packet| self.flows.address_of_plain(packet, places.locate_plain(packet).scope))
            .collect();
        let found = self.flows.find_together(&addresses);
        self.flows.touch_oldest(packets.len());
        let (flows, mut wiring) = self.split(sink);
        for ((packet, address), entry) in packets.iter().zip(&addresses).zip(found) {
            wiring.tick(packet.time);
            if flows.advance(packet.time, &mut wiring) {
                wiring.advance(packet.time);
            }
            if !flows.pass(packet, address, entry) {
                handle_plain(flows, &mut wiring, packet, address, entry, stacks);
            } else if opens(packet) {
                stacks.next();
            }
        }
    }
}

/// Counts a plain packet in the general way.
#[inline(never)]
fn handle_plain(
    flows: &mut FlowTable,
    wiring: &mut Wiring<'_>,
    packet: &Plain,
    address: &FlowAddress,
    found: u32,
    stacks: &mut Stacks<'_>,
) {
    wiring.stack = if opens(packet) { stacks.next().copied().flatten() } else { None };
    let link = packet.link();
    let origin = Origin {
        interface: packet.interface,
        link: &link,
        place: packet_place(wiring.places.locate_plain(packet)),
        tunnel: None,
        parents: &[],
        leaving: wiring.places.leaving(packet.interface, &link),
    };
    flows.observe_plain(packet, address, found, &origin, wiring);
}

/// What connections that are opened say of stacks, in the order of their packets.
type Stacks<'a> = std::slice::Iter<'a, Option<StackSample>>;

/// Whether a plain packet opens a connection: then the batch has what it says of its sender's stack.
#[inline]
fn opens(packet: &Plain) -> bool {
    packet.transport == PlainTransport::Tcp && stack::opens(packet.tcp_flags)
}

#[inline(never)]
fn stack_of(packet: &Plain, bytes: &[u8]) -> Option<StackSample> {
    if !is_counted(packet.source_address()) {
        return None;
    }
    let (ip, tcp) = bytes.split_at_checked(if packet.is_v6 { 40 } else { 20 })?;
    stack::sample_of(packet.ttl, packet.tcp_flags, ip, tcp)
}
