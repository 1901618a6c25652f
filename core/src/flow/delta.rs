//! Counts that were made elsewhere: what a kernel counted of one flow since it told last, as its packets would have
//! counted here.
//!
//! A delta says how much, and not in which order. What makes a connection (SYN, FIN, RST, first packets) is meant to
//! come as packets; where it did not, flags and times of the delta stand for it. Of retransmissions, gaps and
//! windows within a delta nothing is known, and nothing is said.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use super::{
    compact::Waiting,
    host::FlowHost,
    icmp,
    live::{Origin, PacketPlace, Tally},
    table::{ATTEMPT, FlowAddress, FlowTable, TcpPart},
    tcp::Outcome,
};
use crate::{
    decode::{InterfaceIndex, Link, LinkDirection, TcpSegment},
    net::MacAddress,
    time::Timestamp,
};

/// IP protocol number of TCP.
const TCP: u8 = 6;

/// What was counted of one flow on one interface. [`FlowDelta::ways`] has what the first of `ends` sent, then the
/// second.
#[derive(Clone, Debug)]
pub struct FlowDelta {
    /// Interface, or that of the mirror whose tunnel was stripped.
    pub interface: InterfaceIndex,
    /// 802.1Q VLAN ids, outermost first.
    pub vlans: ArrayVec<u16, 3>,
    /// MPLS labels, outermost first.
    pub mpls_labels: ArrayVec<u32, 4>,
    /// IP protocol, behind all extension headers.
    pub protocol: u8,
    /// Addresses and ports; for ICMP and ICMPv6 the first port is the type and the second the code, and all packets
    /// are of the first way. Ports are 0 where the protocol has none, and for later fragments.
    pub ends: [(IpAddr, u16); 2],
    /// What was sent by each.
    pub ways: [WayDelta; 2],
    /// Bytes of the tunnel of a mirror, which was stripped and is in no other count; none where there was no mirror.
    pub mirror_bytes: Option<u64>,
}

/// What was counted of one direction.
#[derive(Clone, Debug, Default)]
pub struct WayDelta {
    /// Packets on the wire.
    pub packets: u64,
    /// Bytes of their frames.
    pub wire_bytes: u64,
    /// Bytes by the length fields of the IP headers.
    pub ip_bytes: u64,
    /// Bytes behind the transport headers.
    pub payload_bytes: u64,
    /// Of the packets, those that are fragments.
    pub fragments: u64,
    /// All TCP flags seen, as [`TcpSegment::flags`].
    pub tcp_flags: u16,
    /// Least TTL or hop limit.
    pub ttl_min: u8,
    /// Greatest.
    pub ttl_max: u8,
    /// DSCP of the first packet.
    pub dscp: u8,
    /// Whether a count is an estimate.
    pub estimated: bool,
    /// Source MAC address.
    pub source_mac: Option<MacAddress>,
    /// Destination MAC address of the first packet.
    pub destination_mac: Option<MacAddress>,
    /// Way past the interface.
    pub direction: LinkDirection,
    /// Time of the first packet.
    pub first: Timestamp,
    /// Time of the last packet.
    pub last: Timestamp,
    /// Time of the first SYN without ACK.
    pub syn: Option<Timestamp>,
    /// Time of the first SYN with ACK.
    pub syn_ack: Option<Timestamp>,
    /// Time of the first ACK without SYN, FIN and RST.
    pub ack: Option<Timestamp>,
}

/// What stands for the packets of a way in the TCP state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    time: Timestamp,
    /// Ends come last, whatever their time: a way does not say when it sent its FIN.
    is_end: bool,
    way: usize,
    flags: u16,
    payload: u32,
}

/// Most steps: SYN, SYN-ACK, ACK, data, FIN, RST of each way.
const STEPS: usize = 12;

impl WayDelta {
    fn tally(&self) -> Tally {
        Tally {
            packets: self.packets,
            wire_bytes: self.wire_bytes,
            ip_bytes: self.ip_bytes,
            payload_bytes: self.payload_bytes,
            fragments: self.fragments,
            tcp_flags: self.tcp_flags,
            ttl_min: self.ttl_min,
            ttl_max: self.ttl_max,
            dscp: self.dscp,
            estimated: self.estimated,
            mac: self.source_mac,
            last: self.last,
            ..Tally::none(self.first)
        }
    }

    /// The latest moment of its part in the handshake.
    fn handshake(&self) -> Option<Timestamp> {
        [self.syn, self.syn_ack, self.ack].into_iter().flatten().max()
    }

    /// Adds what stands for its packets.
    /// `begun` is the latest moment of the handshake that is known.
    fn steps(&self, way: usize, begun: Option<Timestamp>, steps: &mut ArrayVec<Step, STEPS>) {
        const DATA: u16 = TcpSegment::ACK | TcpSegment::PSH;
        let has = |flag| self.tcp_flags & flag != 0;
        let ends = has(TcpSegment::FIN) || has(TcpSegment::RST);
        let mut add = |time: Option<Timestamp>, flags, payload, is_end| {
            if let Some(time) = time {
                // Room for all of them.
                let _ = steps.try_push(Step { time, is_end, way, flags, payload });
            }
        };
        add(self.syn, TcpSegment::SYN, 0, false);
        add(self.syn_ack, TcpSegment::SYN | TcpSegment::ACK, 0, false);
        add(self.ack, TcpSegment::ACK, 0, false);
        if self.payload_bytes > 0 {
            add(Some(begun.map_or(self.first, |begun| begun.max(self.first))), DATA, 1, false);
        } else if self.handshake().is_none() && !ends {
            add(Some(self.first), self.tcp_flags & TcpSegment::ACK, 0, false);
        }
        let acks = self.tcp_flags & TcpSegment::ACK;
        if has(TcpSegment::FIN) {
            add(Some(self.last), TcpSegment::FIN | acks, 0, true);
        }
        if has(TcpSegment::RST) {
            add(Some(self.last), TcpSegment::RST | acks, 0, true);
        }
    }
}

impl FlowDelta {
    /// Time of its first packet; none where nothing was counted.
    pub fn first(&self) -> Option<Timestamp> {
        self.counted().map(|(_, way)| way.first).min()
    }

    /// Packets of both ways.
    pub fn packets(&self) -> u64 {
        self.ways.iter().fold(0, |sum, way| sum.saturating_add(way.packets))
    }

    /// Bytes of their frames.
    pub fn wire_bytes(&self) -> u64 {
        self.ways.iter().fold(0, |sum, way| sum.saturating_add(way.wire_bytes))
    }

    /// Link header of what a way sent.
    pub(crate) fn link(&self, way: usize) -> Link {
        let sent = self.ways.get(way);
        Link {
            source_mac: sent.and_then(|sent| sent.source_mac),
            destination_mac: sent.and_then(|sent| sent.destination_mac),
            vlans: self.vlans.clone(),
            mpls_labels: self.mpls_labels.clone(),
            direction: sent.map(|sent| sent.direction).unwrap_or_default(),
        }
    }

    /// The ways that were counted.
    pub(crate) fn counted(&self) -> impl Iterator<Item = (usize, &WayDelta)> {
        self.ways.iter().enumerate().filter(|(_, way)| way.packets > 0)
    }

    /// What stands for its packets, in the order in which they will have come. Of two at a time the one of the
    /// first way comes first.
    fn steps(&self) -> ArrayVec<Step, STEPS> {
        let mut steps = ArrayVec::new();
        if self.protocol == TCP {
            let begun = self.counted().filter_map(|(_, sent)| sent.handshake()).max();
            self.counted().for_each(|(way, sent)| sent.steps(way, begun, &mut steps));
            steps.sort_by_key(|step: &Step| (step.is_end, step.flags & TcpSegment::RST, step.time));
        }
        steps
    }

    /// Ports as a flow's key has them, sender's first, and whether the flow is one-way.
    fn ports(&self, way: usize) -> (u16, u16, bool) {
        let [first, second] = self.ends;
        if matches!(self.protocol, icmp::ICMP | icmp::ICMPV6)
            && self.ways.iter().all(|way| way.fragments == 0)
        {
            let octet = |number: u16| u8::try_from(number).unwrap_or(u8::MAX);
            return icmp::ports(self.protocol, first.0.is_ipv6(), octet(first.1), octet(second.1));
        }
        if way == 0 { (first.1, second.1, false) } else { (second.1, first.1, false) }
    }
}

/// Where the packets of a way belong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeltaOrigin<'a> {
    pub(crate) link: &'a Link,
    pub(crate) place: PacketPlace,
    pub(crate) leaving: Option<bool>,
}

impl FlowTable {
    /// Counts what was counted elsewhere. `origins` are those of the ways. Time moves on to its first packet.
    pub(crate) fn observe_delta<H: FlowHost>(
        &mut self,
        delta: &FlowDelta,
        origins: [DeltaOrigin<'_>; 2],
        host: &mut H,
    ) {
        let Some(first) = delta.first() else { return };
        self.advance(first, host);
        let mut steps = delta.steps();
        let mut untold: ArrayVec<usize, 2> = delta.counted().map(|(way, _)| way).collect();
        untold.sort_by_key(|&way| (steps.iter().position(|step| step.way == way), delta.ways[way].first));
        // Each way is counted with its first step, and begins the flow if there is none.
        for step in steps.drain(..) {
            let segment = step.segment(delta);
            let part = TcpPart { header: &segment, payload: step.payload, fragment: true };
            if let Some(at) = untold.iter().position(|&way| way == step.way) {
                untold.remove(at);
                self.count_way(delta, step.way, &origins, Some(part), host);
            } else {
                self.count_step(delta, step, &origins, part, host);
            }
        }
        for way in untold {
            self.count_way(delta, way, &origins, None, host);
        }
    }

    fn origin<'a>(delta: &FlowDelta, from: DeltaOrigin<'a>) -> Origin<'a> {
        let DeltaOrigin { link, place, leaving } = from;
        Origin { interface: delta.interface, link, place, tunnel: None, parents: &[], leaving }
    }

    fn address_of_delta(&self, delta: &FlowDelta, way: usize, origin: &Origin<'_>) -> FlowAddress {
        let (source_port, destination_port, one_way) = delta.ports(way);
        let [from, to] = [delta.ends[way & 1].0, delta.ends[!way & 1].0];
        self.locate(origin, delta.protocol, (from, source_port), (to, destination_port), one_way)
    }

    /// Counts a way, and its first step in the state machine.
    fn count_way<H: FlowHost>(
        &mut self,
        delta: &FlowDelta,
        way: usize,
        origins: &[DeltaOrigin<'_>; 2],
        tcp: Option<TcpPart<'_>>,
        host: &mut H,
    ) {
        let origin = Self::origin(delta, origins[way & 1]);
        let address = self.address_of_delta(delta, way, &origin);
        let tally = delta.ways[way & 1].tally();
        let entry = tcp.and_then(|_| self.find(address.hash, &address.key));
        let header = tcp.map(|part| self.expected(entry, address.side, part.header));
        let tcp = tcp.zip(header.as_ref()).map(|(part, header)| TcpPart { header, ..part });
        let entry = self.account(address, &origin, &tally, tcp, None, host);
        if entry & ATTEMPT == 0
            && let Some(flow) = self.flows.get_mut(entry as usize)
        {
            // It was heard of until then, though the clock stands at its first packet.
            flow.seen = flow.seen.max(tally.last);
        }
        self.delay_end(entry, tally.last);
    }

    /// What ended with a delta ended at its last packet.
    fn delay_end(&mut self, entry: u32, last: Timestamp) {
        let closing = self.timeouts.closing;
        if entry & ATTEMPT == 0
            && let Some(flow) = self.flows.get_mut(entry as usize)
            && flow.waiting() == Waiting::Late
        {
            flow.wait_until = flow.wait_until.max(last.plus(closing));
            self.arm(entry);
        }
    }

    /// Takes a further step of a way that was counted.
    fn count_step<H: FlowHost>(
        &mut self,
        delta: &FlowDelta,
        step: Step,
        origins: &[DeltaOrigin<'_>; 2],
        part: TcpPart<'_>,
        host: &mut H,
    ) {
        let origin = Self::origin(delta, origins[step.way & 1]);
        let address = self.address_of_delta(delta, step.way, &origin);
        if let Some(entry) = self.find(address.hash, &address.key)
            && entry & ATTEMPT == 0
        {
            let header = self.expected(Some(entry), address.side, part.header);
            let part = TcpPart { header: &header, ..part };
            let outcome = self.track(entry as usize, address.side, &part, step.time);
            if outcome != Outcome::default() {
                self.react(entry, &outcome, false, (address.side, &origin), host);
                self.delay_end(entry, step.time);
            }
        }
    }

    /// A segment with the numbers that its connection expects next, since a delta has none.
    fn expected(&self, entry: Option<u32>, side: usize, header: &TcpSegment) -> TcpSegment {
        let state = entry.and_then(|entry| {
            let flow = self.flows.get(entry as usize).filter(|_| entry & ATTEMPT == 0)?;
            self.tcp.get(flow.tcp)
        });
        let is_syn = header.has(TcpSegment::SYN);
        let sequence = state.map_or(0, |state| state.number(side, is_syn));
        let acknowledgement = state.map_or(0, |state| state.number(1 - side, false));
        TcpSegment { sequence, acknowledgement, ..*header }
    }
}

impl Step {
    /// The segment that it stands for, but for its numbers.
    fn segment(&self, delta: &FlowDelta) -> TcpSegment {
        let (source, destination, _) = delta.ports(self.way);
        TcpSegment { source, destination, sequence: 0, acknowledgement: 0, flags: self.flags, window: 1 }
    }
}
