//! Records and contexts: what is told of a flow, made from its two halves.

use arrayvec::ArrayVec;

use super::{
    aggregate::Aggregate,
    community_id,
    compact::{self, Extension, Flow, flag},
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
    plan::Role,
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
    pub(super) community_id_seed: u16,
    scopes: Vec<Option<[u8; 8]>>,
    pub(super) record: Option<Box<FlowRecord>>,
}

impl Reporter {
    pub(super) fn new(site: Name, sensor: &str, community_id_seed: u16) -> Self {
        Self { site, sensor: sensor.into(), community_id_seed, scopes: Vec::new(), record: None }
    }

    /// A record that may be written over; its texts have room.
    pub(super) fn take_record(&mut self) -> Box<FlowRecord> {
        self.record.take().unwrap_or_else(|| Box::new(empty_record(self.site.clone())))
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

/// A flow, and whatever belongs to it wherever that stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub flow: &'a Flow,
    pub key: FlowKey,
    pub path: &'a Path,
    pub more: Option<&'a Extension>,
    pub tcp: Option<&'a TcpState>,
}

impl View<'_> {
    /// What the identity of the flow is made of.
    pub(super) fn identity(&self) -> FlowIdentity {
        if let Some(id) = self.more.and_then(|more| more.id) {
            return FlowIdentity::Known(id);
        }
        FlowIdentity::Parts {
            scope: self.path.scope,
            key: self.key,
            created: self.flow.created,
            serial: self.flow.serial,
        }
    }

    /// Tells an event at this time, and with the packet that raised it, if one did.
    pub(super) fn tell<H: FlowHost>(
        &self,
        event: FlowEvent,
        now: Timestamp,
        packet: Option<(Side, &Origin<'_>)>,
        host: &mut H,
    ) {
        let role = host.role(self.path.interface);
        host.tell(event, self.key.protocol(), now, |context| self.write_context(context, now, packet, role));
    }

    /// Written field by field: what is written in pieces and copied as a whole makes the copy wait for the pieces.
    fn write_context(
        &self,
        context: &mut FlowContext,
        now: Timestamp,
        packet: Option<(Side, &Origin<'_>)>,
        role: Role,
    ) {
        let originator = self.flow.originator();
        let wrapping = self.more.and_then(|more| more.wrapping.as_ref());
        match self.more.and_then(|more| more.id) {
            Some(id) => context.identity = FlowIdentity::Known(id),
            None => {
                let Flow { created, serial, .. } = self.flow;
                context.identity.write_parts(self.path.scope, &self.key, *created, *serial);
            }
        }
        context.protocol = self.key.protocol();
        self.write_party(&mut context.originator, originator);
        self.write_party(&mut context.responder, 1 - originator);
        context.conn_state = self.conn_state();
        context.syn_seen = self.tcp.is_some_and(TcpState::syn_seen);
        context.start = self.starts().1;
        context.last = self.flow.end;
        context.now = now;
        context.interface = self.path.interface;
        context.role = role;
        context.vlans.clone_from(&self.path.vlans);
        context.tunnelled = wrapping.is_some_and(|wrapping| wrapping.tunnel.is_some());
        context.leaving = packet.and_then(|(_, origin)| origin.leaving);
        context.by_originator = packet.map(|(side, _)| side == originator);
    }

    /// Tells the record of the current part, and that it was told.
    pub(super) fn tell_record<H: FlowHost>(
        &self,
        record: &mut Box<FlowRecord>,
        reason: EndReason,
        now: Timestamp,
        community_id_seed: u16,
        host: &mut H,
    ) {
        self.fill_record(record, reason, host.wants_identities(), community_id_seed, host);
        host.record(record);
        self.tell(FlowEvent::Reported(reason), now, None, host);
    }

    fn starts(&self) -> (Timestamp, Timestamp) {
        compact::starts(self.flow, self.more)
    }

    /// Totals of a side over the whole flow.
    fn write_party(&self, party: &mut Party, side: Side) {
        let (counts, place) = (&self.flow.sides[side], &self.path.places[side]);
        (party.ip, party.port) = self.key.end(side);
        party.mac = counts.mac();
        (party.locality, party.segment, party.secretariat) =
            (place.locality, place.segment, place.secretariat);
        (party.ttl_min, party.ttl_max) = (counts.ttl_min, counts.ttl_max);
        (party.packets, party.ip_bytes) = (counts.packets.into(), counts.ip_bytes.into());
        (party.packets_by_mac, party.payload_bytes) = (party.packets, counts.payload_bytes.into());
        if let Some(more) = self.more {
            self.add_past(party, more, side);
        }
    }

    /// Adds what the flow's own counters do not hold.
    fn add_past(&self, party: &mut Party, more: &Extension, side: Side) {
        let counts = &self.flow.sides[side];
        let (totals, past) = (compact::totals(counts, side, self.more), &more.past[side]);
        (party.ttl_min, party.ttl_max) = match (past.ttl, counts.packets) {
            (Some(ttl), 0) => ttl,
            (Some((min, max)), _) => (min.min(counts.ttl_min), max.max(counts.ttl_max)),
            (None, _) => (counts.ttl_min, counts.ttl_max),
        };
        party.packets = past.packets.saturating_add(totals.packets);
        party.packets_by_mac = totals.packets.saturating_sub(more.moved_packets[side]);
        party.ip_bytes = past.ip_bytes.saturating_add(totals.ip_bytes);
        party.payload_bytes = past.payload_bytes.saturating_add(totals.payload_bytes);
    }

    fn conn_state(&self) -> ConnState {
        let originator = self.flow.originator();
        if let Some(tcp) = self.tcp {
            return tcp.conn_state(originator);
        }
        let heard = |side: Side| self.flow.sides[side].heard();
        match (self.key.protocol(), heard(originator), heard(1 - originator)) {
            (17, true, true) => ConnState::SF,
            (17, true, false) => ConnState::S0,
            (17, false, true) => ConnState::Shr,
            _ => ConnState::Oth,
        }
    }

    /// Writes the record of the current part over another one.
    fn fill_record<H: FlowHost>(
        &self,
        record: &mut FlowRecord,
        reason: EndReason,
        identities: bool,
        community_id_seed: u16,
        host: &H,
    ) {
        let Self { flow, path, more, tcp, ref key } = *self;
        let originator = flow.originator();
        let (source, destination) = (key.end(originator), key.end(1 - originator));
        let protocol = key.protocol();
        if identities {
            record.flow_id = self.identity().id();
            let id = &mut record.community_id;
            community_id::write(id, community_id_seed, protocol, source, destination, key.is_one_way());
            self.write_history(&mut record.history);
        }
        (record.start, record.flow_start) = self.starts();
        record.end = flow.end;
        record.part = more.map_or(0, |more| more.part);
        record.end_reason = reason;
        record.protocol = protocol;
        (record.originator.ip, record.originator.port) = source;
        (record.responder.ip, record.responder.port) = destination;
        self.fill_side(&mut record.originator, originator, host);
        self.fill_side(&mut record.responder, 1 - originator, host);
        record.conn_state = self.conn_state();
        record.direction_reason = flow.reason();
        record.direction = direction(record.originator.locality, record.responder.locality);
        host.name_interface(path.interface, &mut record.interface);
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

    fn fill_side<H: FlowHost>(&self, record: &mut FlowSide, side: Side, host: &H) {
        let counts = &self.flow.sides[side];
        let totals = compact::totals(counts, side, self.more);
        record.mac = self.more.and_then(|more| more.first_mac[side]).unwrap_or_else(|| counts.mac());
        record.packets = totals.packets;
        record.wire_bytes = totals.wire_bytes;
        record.ip_bytes = totals.ip_bytes;
        record.payload_bytes = totals.payload_bytes;
        record.tcp_flags = counts.tcp_flags;
        record.fragments = totals.fragments;
        (record.ttl_min, record.ttl_max) = (counts.ttl_min, counts.ttl_max);
        record.dscp = counts.dscp();
        let losses = self.tcp.map(|tcp| tcp.losses(side)).unwrap_or_default();
        (record.retransmissions, record.missed_bytes) = (losses.retransmissions, losses.missed_bytes);
        record.zero_windows = losses.zero_windows;
        let flaws = self.more.and_then(|more| more.flawed.as_ref()).map(|flawed| flawed.flaws[side]);
        let flaws = flaws.unwrap_or_default();
        record.bad_checksums = flaws.bad_checksums;
        record.overlapping_fragments = flaws.overlapping_fragments;
        name_place(record, self.path.places[side], host);
    }

    /// The letters of TCP, of a flow with rejected packets, or of the sides that were heard.
    fn write_history(&self, text: &mut String) {
        text.clear();
        let flawed = self.more.and_then(|more| more.flawed.as_ref());
        if let Some(tcp) = self.tcp {
            tcp.history().write(text);
        } else if let Some(history) = flawed.and_then(|flawed| flawed.history.as_ref()) {
            history.write(text);
        } else {
            text.push_str(letters_by_sides(self.flow));
        }
    }
}

impl FlowTable {
    /// A flow, and whatever belongs to it.
    pub(super) fn view(&self, at: usize) -> View<'_> {
        let flow = &self.flows[at];
        View {
            flow,
            key: self.addresses.unpack(flow.key),
            path: self.path(flow),
            more: self.extensions.of(flow),
            tcp: self.tcp.get(flow.tcp),
        }
    }

    /// Tells an event.
    pub(super) fn tell<H: FlowHost>(
        &self,
        at: usize,
        event: FlowEvent,
        packet: Option<(Side, &Origin<'_>)>,
        host: &mut H,
    ) {
        self.view(at).tell(event, self.clock, packet, host);
    }

    /// Writes the record of the current part, tells it, and begins the next part.
    pub(super) fn report<H: FlowHost>(&mut self, at: usize, reason: EndReason, host: &mut H) {
        let mut record = self.reporter.take_record();
        self.view(at).tell_record(&mut record, reason, self.clock, self.reporter.community_id_seed, host);
        self.reporter.record = Some(record);
        self.begin_part(at, reason == EndReason::Active);
    }

    /// The record of the current part as it stands.
    pub(super) fn peek_at<H: FlowHost>(&mut self, at: usize, host: &H) -> FlowRecord {
        let mut record = empty_record(self.reporter.site.clone());
        let seed = self.reporter.community_id_seed;
        self.view(at).fill_record(&mut record, EndReason::Active, true, seed, host);
        record
    }

    /// Writes the record of an aggregate. No event is told: each of its attempts had its own.
    pub(super) fn report_aggregate<H: FlowHost>(&mut self, one: &Aggregate, host: &mut H) {
        let mut record = Box::new(empty_record(self.reporter.site.clone()));
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
        host.name_interface(one.path.interface, &mut record.interface);
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
    if place.segment.is_some() || record.segment.is_some() {
        record.segment = place.segment.and_then(|segment| host.segment_name(segment));
    }
    if place.secretariat.is_some() || record.secretariat.is_some() {
        record.secretariat = place.secretariat.and_then(|secretariat| host.secretariat_name(secretariat));
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
