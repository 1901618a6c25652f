//! Records and contexts: what is told of a flow, made from its two halves.

use arrayvec::ArrayVec;

use super::{
    aggregate::Aggregate,
    community_id,
    compact::{Flow, flag},
    direction::direction,
    event::{FlowContext, FlowEvent, Party},
    host::FlowHost,
    identity::{FlowIdentity, scope_digest},
    key::{FlowKey, Side},
    live::{Origin, SidePlace},
    path::Path,
    table::FlowTable,
    tcp::TcpState,
};
use crate::{
    net::Name,
    record::{
        self, ConnState, Counting, Direction, DirectionReason, EndReason, FlowId, FlowRecord, FlowSide,
        Locality,
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
    pub(super) fn scope_digest(&mut self, scope: u16, name: impl FnOnce() -> Name) -> [u8; 8] {
        let at = usize::from(scope);
        if self.scopes.len() <= at {
            self.scopes.resize(at + 1, None);
        }
        let (site, sensor) = (&self.site, &self.sensor);
        *self.scopes[at].get_or_insert_with(|| scope_digest(site, sensor, &name()))
    }
}

impl FlowTable {
    /// What the identity of a flow is made of.
    pub(super) fn identity(&self, flow: &Flow) -> FlowIdentity {
        if let Some(id) = self.extensions.of(flow).and_then(|more| more.id) {
            return FlowIdentity::Known(id);
        }
        FlowIdentity::Parts {
            scope: self.path(flow).scope,
            key: self.addresses.unpack(flow.key),
            created: flow.created,
            serial: flow.serial,
        }
    }

    /// Tells an event.
    pub(super) fn tell<H: FlowHost>(
        &mut self,
        at: usize,
        event: FlowEvent,
        packet: Option<(Side, &Origin<'_>)>,
        host: &mut H,
    ) {
        let flow = &self.flows[at];
        let path = self.path(flow);
        let key = self.addresses.unpack(flow.key);
        let originator = flow.originator();
        let wrapping = self.extensions.of(flow).and_then(|more| more.wrapping.as_ref());
        let context = FlowContext {
            identity: self.identity(flow),
            protocol: key.protocol(),
            originator: self.party(flow, &key, path, originator),
            responder: self.party(flow, &key, path, 1 - originator),
            conn_state: self.conn_state(flow),
            syn_seen: self.tcp.get(flow.tcp).is_some_and(TcpState::syn_seen),
            start: self.extensions.starts(flow).1,
            last: flow.end,
            now: self.clock,
            interface: path.interface,
            role: host.role(path.interface),
            vlans: path.vlans.clone(),
            tunnelled: wrapping.is_some_and(|wrapping| wrapping.tunnel.is_some()),
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
        host.record(&mut record);
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
    fn party(&self, flow: &Flow, key: &FlowKey, path: &Path, side: Side) -> Party {
        let (counts, totals) = (&flow.sides[side], self.extensions.totals(flow, side));
        let more = self.extensions.of(flow);
        let past = more.map(|more| more.past[side]).unwrap_or_default();
        let moved = more.map_or(0, |more| more.moved_packets[side]);
        let (ip, port) = key.end(side);
        let (ttl_min, ttl_max) = match (past.ttl, counts.packets) {
            (Some(ttl), 0) => ttl,
            (Some((min, max)), _) => (min.min(counts.ttl_min), max.max(counts.ttl_max)),
            (None, _) => (counts.ttl_min, counts.ttl_max),
        };
        let place = path.places[side];
        Party {
            ip,
            port,
            mac: counts.mac(),
            packets: past.packets.saturating_add(totals.packets),
            packets_by_mac: totals.packets.saturating_sub(moved),
            ip_bytes: past.ip_bytes.saturating_add(totals.ip_bytes),
            payload_bytes: past.payload_bytes.saturating_add(totals.payload_bytes),
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
        match (flow.key.protocol(), flow.sides[originator].heard(), flow.sides[1 - originator].heard()) {
            (17, true, true) => ConnState::SF,
            (17, true, false) => ConnState::S0,
            (17, false, true) => ConnState::Shr,
            _ => ConnState::Oth,
        }
    }

    fn fill_record<H: FlowHost>(&self, record: &mut FlowRecord, at: usize, reason: EndReason, host: &H) {
        let flow = &self.flows[at];
        let (path, more) = (self.path(flow), self.extensions.of(flow));
        let key = self.addresses.unpack(flow.key);
        let originator = flow.originator();
        let tcp = self.tcp.get(flow.tcp);
        record.flow_id = self.identity(flow).id();
        let (source, destination) = (key.end(originator), key.end(1 - originator));
        let protocol = key.protocol();
        community_id::write(
            &mut record.community_id,
            self.reporter.community_id_seed,
            protocol,
            source,
            destination,
            key.is_one_way(),
        );
        (record.start, record.flow_start) = self.extensions.starts(flow);
        record.end = flow.end;
        record.part = more.map_or(0, |more| more.part);
        record.end_reason = reason;
        record.protocol = protocol;
        (record.originator.ip, record.originator.port) = source;
        (record.responder.ip, record.responder.port) = destination;
        self.fill_side(&mut record.originator, flow, path, originator, host);
        self.fill_side(&mut record.responder, flow, path, 1 - originator, host);
        record.conn_state = self.conn_state(flow);
        self.write_history(&mut record.history, flow);
        record.direction_reason = flow.reason();
        record.direction = direction(record.originator.locality, record.responder.locality);
        record.interface = host.interface_name(path.interface);
        record.vlans.clone_from(&path.vlans);
        let wrapping = more.and_then(|more| more.wrapping.as_deref());
        record.mpls_labels = wrapping.map(|w| w.mpls_labels.clone()).unwrap_or_default();
        record.tunnel = wrapping.and_then(|w| w.tunnel);
        record.tunnel_parents = wrapping.map(|w| w.parents.clone()).unwrap_or_default();
        (record.rtt_syn_to_syn_ack, record.rtt_syn_ack_to_ack) =
            tcp.map(TcpState::round_trips).unwrap_or_default();
        record.counting = if flow.is(flag::ESTIMATED) { Counting::Estimated } else { Counting::Exact };
        record.aggregate = None;
    }

    fn fill_side<H: FlowHost>(&self, record: &mut FlowSide, flow: &Flow, path: &Path, side: Side, host: &H) {
        let (counts, totals) = (&flow.sides[side], self.extensions.totals(flow, side));
        let more = self.extensions.of(flow);
        record.mac = more.and_then(|more| more.first_mac[side]).unwrap_or_else(|| counts.mac());
        record.packets = totals.packets;
        record.wire_bytes = totals.wire_bytes;
        record.ip_bytes = totals.ip_bytes;
        record.payload_bytes = totals.payload_bytes;
        record.tcp_flags = counts.tcp_flags;
        record.fragments = totals.fragments;
        (record.ttl_min, record.ttl_max) = (counts.ttl_min, counts.ttl_max);
        record.dscp = counts.dscp();
        let losses = self.tcp.get(flow.tcp).map(|tcp| tcp.losses(side)).unwrap_or_default();
        (record.retransmissions, record.missed_bytes) = (losses.retransmissions, losses.missed_bytes);
        record.zero_windows = losses.zero_windows;
        let flaws =
            more.and_then(|more| more.flawed.as_ref()).map(|flawed| flawed.flaws[side]).unwrap_or_default();
        record.bad_checksums = flaws.bad_checksums;
        record.overlapping_fragments = flaws.overlapping_fragments;
        name_place(record, path.places[side], host);
    }

    /// Writes the record of an aggregate. No event is told: each of its attempts had its own.
    pub(super) fn report_aggregate<H: FlowHost>(&mut self, one: &Aggregate, host: &mut H) {
        let mut record = empty_record(self.reporter.site.clone());
        let (from, to) = (one.originators.first(), (one.responders.first(), one.port.unwrap_or(0)));
        let identity = FlowIdentity::Parts {
            scope: one.path.scope,
            key: FlowKey::new(one.scope, 6, (from, 0), to, true).0,
            created: one.tally.first,
            serial: AGGREGATE,
        };
        record.flow_id = identity.id();
        (record.start, record.flow_start, record.end) = (one.tally.first, one.tally.first, one.tally.last);
        record.end_reason = EndReason::Resources;
        record.protocol = 6;
        record.originator = FlowSide {
            ip: from,
            packets: one.tally.packets,
            wire_bytes: one.tally.wire_bytes,
            ip_bytes: one.tally.ip_bytes,
            payload_bytes: one.tally.payload_bytes,
            tcp_flags: one.tally.tcp_flags,
            ttl_min: one.tally.ttl_min,
            ttl_max: one.tally.ttl_max,
            dscp: one.tally.dscp,
            ..empty_side()
        };
        (record.responder.ip, record.responder.port) = to;
        name_place(&mut record.originator, one.places[0], host);
        name_place(&mut record.responder, one.places[1], host);
        record.conn_state = ConnState::S0;
        record.history.push('S');
        record.direction_reason = DirectionReason::Syn;
        record.direction = direction(record.originator.locality, record.responder.locality);
        record.interface = host.interface_name(one.path.interface);
        record.vlans.clone_from(&one.path.vlans);
        record.counting = if one.tally.estimated { Counting::Estimated } else { Counting::Exact };
        record.aggregate = Some(record::Aggregate {
            flows: one.flows,
            originators: one.different_originators(),
            originator_prefix: one.originators.length,
            responder_prefix: one.responders.length,
        });
        host.record(&mut record);
    }

    /// The letters of TCP, of a flow with rejected packets, or of the sides that were heard.
    fn write_history(&self, text: &mut String, flow: &Flow) {
        text.clear();
        let flawed = self.extensions.of(flow).and_then(|more| more.flawed.as_ref());
        if let Some(tcp) = self.tcp.get(flow.tcp) {
            tcp.history().write(text);
        } else if let Some(history) = flawed.and_then(|flawed| flawed.history.as_ref()) {
            history.write(text);
        } else {
            text.push_str(letters_by_sides(flow));
        }
    }

    fn begin_part(&mut self, at: usize, is_active: bool) {
        if !is_active {
            return;
        }
        let flow = &mut self.flows[at];
        self.extensions.begin_part(flow);
        if let Some(tcp) = self.tcp.get_mut(flow.tcp) {
            tcp.begin_part();
        }
    }
}

/// For UDP a D for each side that was heard.
pub(super) fn letters_by_sides(flow: &Flow) -> &'static str {
    if flow.key.protocol() != 17 {
        return "";
    }
    let originator = flow.originator();
    let heard = [flow.sides[originator].heard(), flow.sides[1 - originator].heard()];
    match (flow.reason(), heard) {
        (DirectionReason::ServerPort, [true, true]) => "^dD",
        (DirectionReason::ServerPort, [_, true]) => "^d",
        (DirectionReason::ServerPort, [_, false]) => "^",
        (_, [true, true]) => "Dd",
        (_, [true, false]) => "D",
        (_, [false, _]) => "",
    }
}

/// What sets the identity of an aggregate apart from that of a flow.
const AGGREGATE: u16 = 0x4000;

/// What a side is to the plan, by name.
fn name_place<H: FlowHost>(record: &mut FlowSide, place: SidePlace, host: &H) {
    record.locality = place.locality;
    record.segment = place.segment.and_then(|segment| host.segment_name(segment));
    record.secretariat = place.secretariat.and_then(|secretariat| host.secretariat_name(secretariat));
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
