//! A flow as a line. Most counters of most flows are zero and most options are not there, so what is so often the same
//! is written in one piece.

use onenet_core::record::{
    Aggregate, ConnState, Counting, Direction, DirectionReason, EndReason, FlowRecord, FlowSide, Locality,
    Tunnel,
};

use super::{
    Line,
    names::Names,
    pen::{Pen, ROOM, Word, words},
};

static END_REASONS: [Word<15>; EndReason::ALL.len()] = words!(EndReason, 15);
static CONN_STATES: [Word<7>; ConnState::ALL.len()] = words!(ConnState, 7);
static DIRECTION_REASONS: [Word<15>; DirectionReason::ALL.len()] = words!(DirectionReason, 15);
static DIRECTIONS: [Word<15>; Direction::ALL.len()] = words!(Direction, 15);
static COUNTINGS: [Word<15>; Counting::ALL.len()] = words!(Counting, 15);
static LOCALITIES: [Word<15>; Locality::ALL.len()] = words!(Locality, 15);

impl Line for FlowRecord {
    fn write_into(&self, room: &mut [u8; ROOM], names: &mut Names) -> Option<usize> {
        let mut pen = Pen::new(room, 0);
        pen.lend(|room, at| head(room, at, self));
        pen.put(b",\"originator\":{\"ip\":\"");
        pen.lend(|room, at| side(room, at, &self.originator, names));
        pen.put(b"},\"responder\":{\"ip\":\"");
        pen.lend(|room, at| side(room, at, &self.responder, names));
        pen.put(b"},\"conn_state\":\"");
        pen.word(&CONN_STATES, self.conn_state as usize);
        pen.put(b"\",\"history\":\"");
        pen.text(&self.history);
        pen.put(b"\",\"direction_reason\":\"");
        pen.word(&DIRECTION_REASONS, self.direction_reason as usize);
        pen.put(b"\",\"direction\":\"");
        pen.word(&DIRECTIONS, self.direction as usize);
        pen.put(b"\",\"site\":");
        pen.name(&self.site, names);
        pen.put(b",\"interface\":");
        pen.name(&self.interface, names);
        pen.put(b",\"vlans\":[");
        pen.numbers(self.vlans.iter().map(|&vlan| vlan.into()));
        if is_plain(self) {
            pen.put(b"],\"mpls_labels\":[],\"tunnel\":null,\"tunnel_parents\":[],\"rtt_syn_to_syn_ack\":null,\"rtt_syn_ack_to_ack\":null,\"counting\":\"exact\",\"sampling\":1,\"aggregate\":null}\n");
        } else {
            pen.lend(|room, at| tail(room, at, self));
        }
        pen.length()
    }
}

/// What is of the whole flow and stands before its sides.
fn head(room: &mut [u8; ROOM], at: usize, flow: &FlowRecord) -> usize {
    let mut pen = Pen::new(room, at);
    pen.put(b"{\"flow_id\":\"");
    pen.id(flow.flow_id);
    pen.put(b"\",\"community_id\":\"");
    pen.text_of::<30>(&flow.community_id);
    let start = flow.start.to_text();
    pen.put(b"\",\"flow_start\":\"");
    if flow.flow_start == flow.start {
        pen.put(&start);
    } else {
        pen.time(flow.flow_start);
    }
    pen.put(b"\",\"start\":\"");
    pen.put(&start);
    pen.put(b"\",\"end\":\"");
    pen.time(flow.end);
    pen.put(b"\",\"part\":");
    pen.number(flow.part.into());
    pen.put(b",\"end_reason\":\"");
    // Its codes begin with 1.
    pen.word(&END_REASONS, usize::from(flow.end_reason.code()).wrapping_sub(1));
    pen.put(b"\",\"protocol\":");
    pen.number(flow.protocol.into());
    pen.at()
}

/// A side, from its address to its secretariat.
#[inline(never)]
fn side(room: &mut [u8; ROOM], at: usize, side: &FlowSide, names: &mut Names) -> usize {
    let mut pen = Pen::new(room, at);
    pen.ip(side.ip);
    pen.put(b"\",\"port\":");
    pen.number(side.port.into());
    pen.put(b",\"mac\":");
    pen.mac(side.mac);
    let losses = side.retransmissions
        | side.missed_bytes
        | side.zero_windows
        | side.bad_checksums
        | side.overlapping_fragments;
    let counts = side.packets | side.wire_bytes | side.ip_bytes | side.payload_bytes | side.fragments;
    let header = side.tcp_flags | u16::from(side.ttl_min | side.ttl_max | side.dscp);
    if counts | losses | u64::from(header) == 0 {
        pen.put(b",\"packets\":0,\"wire_bytes\":0,\"ip_bytes\":0,\"payload_bytes\":0,\"tcp_flags\":0,\"fragments\":0,\"ttl_min\":0,\"ttl_max\":0,\"dscp\":0,\"retransmissions\":0,\"missed_bytes\":0,\"zero_windows\":0,\"bad_checksums\":0,\"overlapping_fragments\":0,\"locality\":\"");
    } else {
        put_counts(&mut pen, side);
        if losses == 0 {
            pen.put(b",\"retransmissions\":0,\"missed_bytes\":0,\"zero_windows\":0,\"bad_checksums\":0,\"overlapping_fragments\":0,\"locality\":\"");
        } else {
            put_losses(&mut pen, side);
        }
    }
    pen.word(&LOCALITIES, side.locality as usize);
    if side.segment.is_none() && side.secretariat.is_none() {
        pen.put(b"\",\"segment\":null,\"secretariat\":null");
    } else {
        pen.put(b"\",\"segment\":");
        pen.optional_name(side.segment.as_ref(), names);
        pen.put(b",\"secretariat\":");
        pen.optional_name(side.secretariat.as_ref(), names);
    }
    pen.at()
}

#[inline(always)]
fn put_counts(pen: &mut Pen<'_>, side: &FlowSide) {
    pen.put(b",\"packets\":");
    pen.number(side.packets);
    pen.put(b",\"wire_bytes\":");
    pen.number(side.wire_bytes);
    pen.put(b",\"ip_bytes\":");
    pen.number(side.ip_bytes);
    pen.put(b",\"payload_bytes\":");
    pen.number(side.payload_bytes);
    pen.put(b",\"tcp_flags\":");
    pen.number(side.tcp_flags.into());
    pen.put(b",\"fragments\":");
    pen.number(side.fragments);
    pen.put(b",\"ttl_min\":");
    pen.number(side.ttl_min.into());
    pen.put(b",\"ttl_max\":");
    pen.number(side.ttl_max.into());
    pen.put(b",\"dscp\":");
    pen.number(side.dscp.into());
}

#[inline(always)]
fn put_losses(pen: &mut Pen<'_>, side: &FlowSide) {
    pen.put(b",\"retransmissions\":");
    pen.number(side.retransmissions);
    pen.put(b",\"missed_bytes\":");
    pen.number(side.missed_bytes);
    pen.put(b",\"zero_windows\":");
    pen.number(side.zero_windows);
    pen.put(b",\"bad_checksums\":");
    pen.number(side.bad_checksums);
    pen.put(b",\"overlapping_fragments\":");
    pen.number(side.overlapping_fragments);
    pen.put(b",\"locality\":\"");
}

/// What stands behind the VLANs, where there is something.
#[inline(never)]
fn tail(room: &mut [u8; ROOM], at: usize, flow: &FlowRecord) -> usize {
    let mut pen = Pen::new(room, at);
    pen.put(b"],\"mpls_labels\":[");
    pen.numbers(flow.mpls_labels.iter().map(|&label| label.into()));
    pen.put(b"],\"tunnel\":");
    match flow.tunnel {
        Some(Tunnel { kind, id }) => {
            pen.put(b"{\"kind\":\"");
            pen.put_slice(kind.as_str().as_bytes());
            pen.put(b"\",\"id\":");
            pen.optional(id.map(i64::from));
            pen.put(b"}");
        }
        None => pen.put(b"null"),
    }
    pen.put(b",\"tunnel_parents\":[");
    for (index, &parent) in flow.tunnel_parents.iter().enumerate() {
        if index > 0 {
            pen.put(b",");
        }
        pen.put(b"\"");
        pen.id(parent);
        pen.put(b"\"");
    }
    pen.put(b"],\"rtt_syn_to_syn_ack\":");
    pen.optional(flow.rtt_syn_to_syn_ack);
    pen.put(b",\"rtt_syn_ack_to_ack\":");
    pen.optional(flow.rtt_syn_ack_to_ack);
    pen.put(b",\"counting\":\"");
    pen.word(&COUNTINGS, flow.counting as usize);
    pen.put(b"\",\"sampling\":");
    pen.number(flow.sampling.into());
    match &flow.aggregate {
        Some(Aggregate { flows, originators, originator_prefix, responder_prefix }) => {
            pen.put(b",\"aggregate\":{\"flows\":");
            pen.number(*flows);
            pen.put(b",\"originators\":");
            pen.number(*originators);
            pen.put(b",\"originator_prefix\":");
            pen.number((*originator_prefix).into());
            pen.put(b",\"responder_prefix\":");
            pen.number((*responder_prefix).into());
            pen.put(b"}}\n");
        }
        None => pen.put(b",\"aggregate\":null}\n"),
    }
    pen.at()
}

/// Whether nothing of what stands behind the VLANs is there.
fn is_plain(flow: &FlowRecord) -> bool {
    flow.mpls_labels.is_empty()
        && flow.tunnel.is_none()
        && flow.tunnel_parents.is_empty()
        && flow.rtt_syn_to_syn_ack.is_none()
        && flow.rtt_syn_ack_to_ack.is_none()
        && flow.counting == Counting::Exact
        && flow.sampling == 1
        && flow.aggregate.is_none()
}
