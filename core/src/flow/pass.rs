//! The fast way of a packet: one that only adds to the counters of a flow that lives. Nearly all are; any other is
//! left to the general way, and nothing has changed then.

use arrayvec::ArrayVec;

use super::{
    compact::{Waiting, flag},
    host::FlowHost,
    icmp,
    key::FlowKey,
    live::{NO_ENTRY, Origin, Tally},
    table::{ATTEMPT, FlowAddress, FlowTable, TcpPart},
    tcp::TcpState,
};
use crate::decode::{Plain, PlainTransport};

/// Packets, flows or events that are taken together: what they look up is read at once, so that they wait for memory
/// once.
pub const TOGETHER: usize = 32;

/// What was found at the addresses of packets that are looked up together, by their order; `u32::MAX` for none.
pub type Found = ArrayVec<u32, TOGETHER>;

impl FlowTable {
    /// Where the flow of a plain packet is looked for.
    #[inline]
    pub(crate) fn address_of_plain(&self, packet: &Plain, scope: u16) -> FlowAddress {
        let (source, destination, one_way) = match packet.transport {
            PlainTransport::Tcp | PlainTransport::Udp => (packet.source_port, packet.destination_port, false),
            PlainTransport::Icmp => {
                let [[_, kind], [_, code]] =
                    [packet.source_port.to_be_bytes(), packet.destination_port.to_be_bytes()];
                icmp::ports(packet.protocol, packet.is_v6, kind, code)
            }
        };
        let (source, destination) = ((packet.source, source), (packet.destination, destination));
        let (key, side) =
            FlowKey::of_words(scope, packet.protocol, packet.is_v6, source, destination, one_way);
        FlowAddress { key, side, hash: self.hash.short(&key) }
    }

    /// Looks up all of these addresses, and touches what counting there will read. The reads of different packets
    /// do not depend on each other, so the processor waits for them all at once. What is found holds until the
    /// table changes. Of more than [`TOGETHER`] addresses the first are looked up.
    pub fn find_together(&mut self, addresses: &[FlowAddress]) -> Found {
        let mut found = Found::new();
        self.index.mark();
        // Where nothing is found each search ends somewhere else, and what comes after it would wait for it.
        let first = addresses.iter().fold(0, |all, address| all ^ self.index.first(address.hash));
        std::hint::black_box(first);
        // The first candidate is nearly always the flow.
        for address in addresses.iter().take(TOGETHER) {
            found.push(self.index.find(address.hash, |_| true).unwrap_or(NO_ENTRY));
        }
        for (entry, address) in found.iter_mut().zip(addresses) {
            if *entry != NO_ENTRY && !self.addresses.is(self.key(*entry), &address.key) {
                *entry = self.find(address.hash, &address.key).unwrap_or(NO_ENTRY);
            }
        }
        let mut touched = 0;
        for &entry in &found {
            if entry & ATTEMPT == 0 {
                touched ^= self.tcp.get(self.flows[entry as usize].tcp).map_or(0, TcpState::touch);
            }
        }
        std::hint::black_box(touched);
        found
    }

    /// Touches what ending these flows will read.
    pub(super) fn touch(&self, entries: &[u32]) {
        let mut touched = 0;
        for &entry in entries {
            let Some(flow) = self.flows.get(entry as usize) else { continue };
            let hash = self.addresses.hash(&self.hash, flow.key);
            touched ^= self.index.first(hash) ^ u64::from(self.line.touch(entry));
            touched ^= self.tcp.get(flow.tcp).map_or(0, TcpState::touch);
        }
        std::hint::black_box(touched);
    }

    /// Counts a packet to the flow that was found, if counters are all that it changes. The clock stands at the
    /// packet's time or later.
    #[inline]
    pub(crate) fn pass(&mut self, packet: &Plain, address: &FlowAddress, entry: u32) -> bool {
        // An attempt has the bit of NO_ENTRY, too.
        if entry & ATTEMPT != 0 || packet.is_flawed {
            return false;
        }
        let clock = self.clock;
        let idle = self.timeouts.idle(packet.protocol);
        let active = self.timeouts.active();
        let Some(flow) = self.flows.get_mut(entry as usize) else { return false };
        let side = address.side;
        let goes_on = flow.is(flag::LIVE)
            && self.addresses.is(flow.key, &address.key)
            && flow.waiting() == Waiting::No
            && packet.time >= flow.end
            && flow.seen.plus(idle) > clock
            && flow.part_since.plus(active) > clock
            && flow.sides[side].goes_on(packet.source_mac)
            && flow.sides[side].has_room()
            && packet.wire_length < 1 << 31;
        if !goes_on {
            return false;
        }
        let flags = if packet.transport == PlainTransport::Tcp {
            let Some(state) = self.tcp.get_mut(flow.tcp) else { return false };
            let passes = state.pass(
                side,
                flow.originator(),
                packet.sequence,
                packet.acknowledgement,
                packet.tcp_flags,
                packet.window,
                packet.payload_bytes,
            );
            if !passes {
                return false;
            }
            packet.tcp_flags
        } else {
            0
        };
        flow.sides[side].count_one(packet, flags);
        flow.end = packet.time;
        flow.seen = clock;
        flow.set(flag::REFERENCED, true);
        true
    }

    /// Counts a packet that does more than add to counters, in the general way. `found` is where its flow was found
    /// before its turn.
    pub(crate) fn observe_plain<H: FlowHost>(
        &mut self,
        packet: &Plain,
        address: &FlowAddress,
        found: u32,
        origin: &Origin<'_>,
        host: &mut H,
    ) {
        let FlowAddress { key, side, hash } = address;
        let holds = found & ATTEMPT == 0
            && self
                .flows
                .get(found as usize)
                .is_some_and(|flow| flow.is(flag::LIVE) && self.addresses.is(flow.key, key));
        // What was not there before its turn is there now only if it came since.
        let is_new = found == NO_ENTRY && !self.index.may_be_recent(*hash);
        let found = match found {
            found if holds => Some(found),
            _ if is_new => None,
            _ => self.find(*hash, key),
        };
        if found.is_none() && self.attempt(packet, address, origin, host) {
            return;
        }
        let header = packet.segment();
        let tcp = (packet.transport == PlainTransport::Tcp).then_some(TcpPart {
            header: &header,
            payload: packet.payload_bytes,
            fragment: false,
        });
        let tally = Tally::of_plain(packet);
        let (entry, _) = self.go_on_or_begin(found, *address, origin, &tally, tcp, None, host);
        self.count(entry, *side, origin, &tally, tcp, host);
    }
}
