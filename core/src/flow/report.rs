//! Records and contexts: what is told of a flow, made from its two halves.

use arrayvec::ArrayVec;
use sha1::{Digest, Sha1};

use super::{
    community_id,
    direction::direction,
    event::{FlowContext, FlowEvent, Party},
    host::FlowHost,
    key::Side,
    live::{Cold, Flow, Origin, Past},
    table::FlowTable,
    tcp::TcpState,
};
use crate::{
    net::Name,
    record::{
        ConnState, Counting, Direction, DirectionReason, EndReason, FlowId, FlowRecord, FlowSide, Locality,
    },
    time::Timestamp,
};

/// What making records needs beside the flows: who we are, and a record that is filled over and over, so that
/// its texts need no allocation.
#[derive(Debug)]
pub(super) struct Reporter {
    site: Name,
    sensor: Name,
    community_id_seed: u16,
    scopes: Vec<Option<[u8; 8]>>,
    record: Option<Box<FlowRecord>>,
}

impl Reporter {
    pub(super) fn new(site: Name, sensor: &str, community_id_seed: u16) -> Self {
        Self { site, sensor: sensor.into(), community_id_seed, scopes: Vec::new(), record: None }
    }

    /// Scopes have new numbers.
    pub(super) fn forget_scopes(&mut self) {
        self.scopes.clear();
    }

    /// What stands for site, sensor and scope in identities: the same on every machine and in every run.
    fn scope_digest(&mut self, scope: u16, name: impl FnOnce() -> Name) -> [u8; 8] {
        let at = usize::from(scope);
        if self.scopes.len() <= at {
            self.scopes.resize(at + 1, None);
        }
        let (site, sensor) = (&self.site, &self.sensor);
        *self.scopes[at].get_or_insert_with(|| {
            let mut digest = Sha1::new();
            for text in [site, sensor, &name()] {
                digest.update((text.len() as u64).to_be_bytes());
                digest.update(text.as_bytes());
            }
            let [a, b, c, d, e, f, g, h, ..]: [u8; 20] = digest.finalize().into();
            [a, b, c, d, e, f, g, h]
        })
    }
}

impl FlowTable {
    /// Identity of a flow, made when it is first asked for.
    pub(super) fn identify<H: FlowHost>(&mut self, at: usize, host: &H) -> FlowId {
        let cold = &mut self.cold[at];
        if let Some(id) = cold.id {
            return id;
        }
        let key = &self.flows[at].key;
        let scope = self.reporter.scope_digest(key.scope(), || host.scope_name(key.scope(), cold.space));
        let mut input = ArrayVec::<u8, 56>::new();
        input.extend(scope);
        for side in 0..2 {
            let (ip, port) = key.end(side);
            match ip {
                std::net::IpAddr::V4(v4) => input.extend(v4.octets()),
                std::net::IpAddr::V6(v6) => input.extend(v6.octets()),
            }
            input.extend(port.to_be_bytes());
        }
        input.push(key.protocol());
        input.extend(cold.created.as_nanos().to_be_bytes());
        let tunnelled = if key.is_in_tunnel() { 0x8000 } else { 0 };
        input.extend((cold.serial ^ tunnelled).to_be_bytes());
        let digest = Sha1::digest(&input);
        let id = FlowId(digest.iter().take(16).fold(0, |id, &byte| id << 8 | u128::from(byte)));
        cold.id = Some(id);
        id
    }

    /// Tells an event.
    pub(super) fn tell<H: FlowHost>(
        &mut self,
        at: usize,
        event: FlowEvent,
        packet: Option<(Side, &Origin<'_>)>,
        host: &mut H,
    ) {
        let flow_id = self.identify(at, host);
        let (flow, cold) = (&self.flows[at], &self.cold[at]);
        let originator = flow.originator();
        let context = FlowContext {
            flow_id,
            protocol: flow.key.protocol(),
            originator: self.party(at, originator),
            responder: self.party(at, 1 - originator),
            conn_state: self.conn_state(flow),
            syn_seen: self.tcp.get(flow.tcp).is_some_and(TcpState::syn_seen),
            start: cold.flow_start,
            last: flow.end,
            now: self.clock,
            interface: cold.interface,
            role: host.role(cold.interface),
            vlans: cold.vlans.clone(),
            tunnelled: cold.wrapping.as_ref().is_some_and(|wrapping| wrapping.tunnel.is_some()),
            leaving: packet.and_then(|(_, origin)| origin.leaving),
            by_originator: packet.map(|(side, _)| side == originator),
        };
        host.event(event, &context);
    }

    /// Writes the record of the current part, tells it, and begins the next part.
    pub(super) fn report<H: FlowHost>(&mut self, at: usize, reason: EndReason, host: &mut H) {
        let site = &self.reporter.site;
        let mut record = self.reporter.record.take().unwrap_or_else(|| Box::new(empty_record(site.clone())));
        self.fill_record(&mut record, at, reason, host);
        host.record(&record);
        self.reporter.record = Some(record);
        self.tell(at, FlowEvent::Reported(reason), None, host);
        self.begin_part(at, reason == EndReason::Active);
    }

    /// The record of the current part as it stands.
    pub(super) fn peek_at<H: FlowHost>(&mut self, at: usize, host: &H) -> FlowRecord {
        let mut record = empty_record(self.reporter.site.clone());
        self.fill_record(&mut record, at, EndReason::Active, host);
        record
    }

    /// Totals of a side over the whole flow.
    fn party(&self, at: usize, side: Side) -> Party {
        let (flow, cold) = (&self.flows[at], &self.cold[at]);
        let counters = &flow.sides[side];
        let past = cold.past.as_ref().map(|past| past[side]).unwrap_or_default();
        let (ip, port) = flow.key.end(side);
        let (ttl_min, ttl_max) = match (past.ttl, counters.packets) {
            (Some(ttl), 0) => ttl,
            (Some((min, max)), _) => (min.min(counters.ttl_min), max.max(counters.ttl_max)),
            (None, _) => (counters.ttl_min, counters.ttl_max),
        };
        let place = cold.places[side];
        Party {
            ip,
            port,
            mac: counters.mac,
            packets: past.packets.saturating_add(counters.packets),
            packets_by_mac: counters.packets.saturating_sub(cold.moved_packets[side]),
            ip_bytes: past.ip_bytes.saturating_add(counters.ip_bytes),
            payload_bytes: past.payload_bytes.saturating_add(counters.payload_bytes),
            ttl_min,
            ttl_max,
            locality: place.locality,
            segment: place.segment,
            secretariat: place.secretariat,
        }
    }

    fn conn_state(&self, flow: &Flow) -> ConnState {
        let originator = flow.originator();
        if let Some(tcp) = self.tcp.get(flow.tcp) {
            return tcp.conn_state(originator);
        }
        match (flow.key.protocol(), flow.sides[originator].heard, flow.sides[1 - originator].heard) {
            (17, true, true) => ConnState::SF,
            (17, true, false) => ConnState::S0,
            (17, false, true) => ConnState::Shr,
            _ => ConnState::Oth,
        }
    }

    fn fill_record<H: FlowHost>(&mut self, record: &mut FlowRecord, at: usize, reason: EndReason, host: &H) {
        let flow_id = self.identify(at, host);
        let (flow, cold) = (&self.flows[at], &self.cold[at]);
        let originator = flow.originator();
        let tcp = self.tcp.get(flow.tcp);
        record.flow_id = flow_id;
        let (source, destination) = (flow.key.end(originator), flow.key.end(1 - originator));
        community_id::write(
            &mut record.community_id,
            self.reporter.community_id_seed,
            flow.key.protocol(),
            source,
            destination,
            flow.key.is_one_way(),
        );
        record.flow_start = cold.flow_start;
        (record.start, record.end) = (flow.start, flow.end);
        record.part = cold.part;
        record.end_reason = reason;
        record.protocol = flow.key.protocol();
        self.fill_side(&mut record.originator, at, originator, host);
        self.fill_side(&mut record.responder, at, 1 - originator, host);
        record.conn_state = self.conn_state(flow);
        self.write_history(&mut record.history, flow, cold);
        record.direction_reason = cold.reason;
        record.direction = direction(record.originator.locality, record.responder.locality);
        record.interface = host.interface_name(cold.interface);
        record.vlans.clone_from(&cold.vlans);
        let wrapping = cold.wrapping.as_deref();
        record.mpls_labels = wrapping.map(|w| w.mpls_labels.clone()).unwrap_or_default();
        record.tunnel = wrapping.and_then(|w| w.tunnel);
        record.tunnel_parents = wrapping.map(|w| w.parents.clone()).unwrap_or_default();
        (record.rtt_syn_to_syn_ack, record.rtt_syn_ack_to_ack) =
            tcp.map(TcpState::round_trips).unwrap_or_default();
        record.counting = if flow.estimated { Counting::Estimated } else { Counting::Exact };
    }

    fn fill_side<H: FlowHost>(&self, record: &mut FlowSide, at: usize, side: Side, host: &H) {
        let (flow, cold) = (&self.flows[at], &self.cold[at]);
        let counters = &flow.sides[side];
        let place = cold.places[side];
        (record.ip, record.port) = flow.key.end(side);
        record.mac = cold.first_mac[side];
        record.packets = counters.packets;
        record.wire_bytes = counters.wire_bytes;
        record.ip_bytes = counters.ip_bytes;
        record.payload_bytes = counters.payload_bytes;
        record.tcp_flags = counters.tcp_flags;
        record.fragments = counters.fragments;
        (record.ttl_min, record.ttl_max) = (counters.ttl_min, counters.ttl_max);
        record.dscp = counters.dscp;
        let losses = self.tcp.get(flow.tcp).map(|tcp| tcp.losses(side)).unwrap_or_default();
        (record.retransmissions, record.missed_bytes) = (losses.retransmissions, losses.missed_bytes);
        record.zero_windows = losses.zero_windows;
        let flaws = cold.flawed.as_ref().map(|flawed| flawed.flaws[side]).unwrap_or_default();
        record.bad_checksums = flaws.bad_checksums;
        record.overlapping_fragments = flaws.overlapping_fragments;
        record.locality = place.locality;
        record.segment = place.segment.and_then(|segment| host.segment_name(segment));
        record.secretariat = place.secretariat.and_then(|secretariat| host.secretariat_name(secretariat));
    }

    /// The letters of TCP, of a flow with rejected packets, or of the sides that were heard.
    fn write_history(&self, text: &mut String, flow: &Flow, cold: &Cold) {
        text.clear();
        if let Some(tcp) = self.tcp.get(flow.tcp) {
            tcp.history().write(text);
        } else if let Some(history) = cold.flawed.as_ref().and_then(|flawed| flawed.history.as_ref()) {
            history.write(text);
        } else {
            text.push_str(self.letters_by_sides(flow, cold.reason));
        }
    }

    /// For UDP a D for each side that was heard.
    pub(super) fn letters_by_sides(&self, flow: &Flow, reason: DirectionReason) -> &'static str {
        if flow.key.protocol() != 17 {
            return "";
        }
        let originator = flow.originator();
        let heard = [flow.sides[originator].heard, flow.sides[1 - originator].heard];
        match (reason, heard) {
            (DirectionReason::ServerPort, [true, true]) => "^dD",
            (DirectionReason::ServerPort, [_, true]) => "^d",
            (DirectionReason::ServerPort, [_, false]) => "^",
            (_, [true, true]) => "Dd",
            (_, [true, false]) => "D",
            (_, [false, _]) => "",
        }
    }

    fn begin_part(&mut self, at: usize, is_active: bool) {
        let (flow, cold) = (&mut self.flows[at], &mut self.cold[at]);
        if !is_active {
            return;
        }
        let past = cold.past.get_or_insert_with(|| Box::new([Past::default(); 2]));
        for (past, counters) in past.iter_mut().zip(&mut flow.sides) {
            past.packets = past.packets.saturating_add(counters.packets);
            past.ip_bytes = past.ip_bytes.saturating_add(counters.ip_bytes);
            past.payload_bytes = past.payload_bytes.saturating_add(counters.payload_bytes);
            if counters.packets > 0 {
                let (min, max) = past.ttl.unwrap_or((u8::MAX, 0));
                past.ttl = Some((min.min(counters.ttl_min), max.max(counters.ttl_max)));
            }
            counters.reset();
        }
        flow.start = flow.end;
        flow.estimated = false;
        cold.part = cold.part.saturating_add(1);
        cold.moves = 0;
        if let Some(flawed) = &mut cold.flawed {
            flawed.flaws = Default::default();
        }
        cold.moved_packets = [0; 2];
        if let Some(tcp) = self.tcp.get_mut(flow.tcp) {
            tcp.begin_part();
        }
    }
}

fn empty_side() -> FlowSide {
    FlowSide {
        ip: std::net::Ipv4Addr::UNSPECIFIED.into(),
        port: 0,
        mac: None,
        packets: 0,
        wire_bytes: 0,
        ip_bytes: 0,
        payload_bytes: 0,
        tcp_flags: 0,
        fragments: 0,
        ttl_min: 0,
        ttl_max: 0,
        dscp: 0,
        retransmissions: 0,
        missed_bytes: 0,
        zero_windows: 0,
        bad_checksums: 0,
        overlapping_fragments: 0,
        locality: Locality::Unknown,
        segment: None,
        secretariat: None,
    }
}

fn empty_record(site: Name) -> FlowRecord {
    FlowRecord {
        flow_id: FlowId(0),
        community_id: String::new(),
        flow_start: Timestamp(0),
        start: Timestamp(0),
        end: Timestamp(0),
        part: 0,
        end_reason: EndReason::Forced,
        protocol: 0,
        originator: empty_side(),
        responder: empty_side(),
        conn_state: ConnState::Oth,
        history: String::new(),
        direction_reason: DirectionReason::FirstPacket,
        direction: Direction::Unknown,
        interface: site.clone(),
        site,
        vlans: ArrayVec::new(),
        mpls_labels: ArrayVec::new(),
        tunnel: None,
        tunnel_parents: ArrayVec::new(),
        rtt_syn_to_syn_ack: None,
        rtt_syn_ack_to_ack: None,
        counting: Counting::Exact,
        aggregate: None,
    }
}
