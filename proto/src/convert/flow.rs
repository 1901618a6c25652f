//! Flow records.

use onenet_core::{
    record::{
        Aggregate, ConnState, Counting, Direction, DirectionReason, EndReason, FlowRecord, FlowSide,
        Locality, Tunnel, TunnelKind,
    },
    time::Timestamp,
};

use super::{
    InvalidField, bounded, code, flow_id_from_wire, flow_id_to_wire, invalid, ip_from_wire, ip_to_wire,
    mac_from_wire, mac_to_wire, name_from_wire, name_to_wire, narrow,
};
use crate::v1;

impl From<&FlowSide> for v1::FlowSide {
    fn from(side: &FlowSide) -> Self {
        Self {
            ip: ip_to_wire(side.ip),
            port: side.port.into(),
            mac: mac_to_wire(side.mac),
            packets: side.packets,
            wire_bytes: side.wire_bytes,
            ip_bytes: side.ip_bytes,
            payload_bytes: side.payload_bytes,
            tcp_flags: side.tcp_flags.into(),
            fragments: side.fragments,
            ttl_min: side.ttl_min.into(),
            ttl_max: side.ttl_max.into(),
            dscp: side.dscp.into(),
            retransmissions: side.retransmissions,
            missed_bytes: side.missed_bytes,
            zero_windows: side.zero_windows,
            bad_checksums: side.bad_checksums,
            overlapping_fragments: side.overlapping_fragments,
            locality: side.locality.code().into(),
            segment: name_to_wire(side.segment.as_ref()),
            secretariat: name_to_wire(side.secretariat.as_ref()),
        }
    }
}

impl TryFrom<v1::FlowSide> for FlowSide {
    type Error = InvalidField;

    fn try_from(side: v1::FlowSide) -> Result<Self, InvalidField> {
        Ok(Self {
            ip: ip_from_wire("ip", &side.ip)?,
            port: narrow("port", side.port)?,
            mac: mac_from_wire("mac", &side.mac)?,
            packets: side.packets,
            wire_bytes: side.wire_bytes,
            ip_bytes: side.ip_bytes,
            payload_bytes: side.payload_bytes,
            tcp_flags: narrow("tcp_flags", side.tcp_flags)?,
            fragments: side.fragments,
            ttl_min: narrow("ttl_min", side.ttl_min)?,
            ttl_max: narrow("ttl_max", side.ttl_max)?,
            dscp: narrow("dscp", side.dscp)?,
            retransmissions: side.retransmissions,
            missed_bytes: side.missed_bytes,
            zero_windows: side.zero_windows,
            bad_checksums: side.bad_checksums,
            overlapping_fragments: side.overlapping_fragments,
            locality: code("locality", side.locality, Locality::from_code)?,
            segment: name_from_wire(&side.segment),
            secretariat: name_from_wire(&side.secretariat),
        })
    }
}

impl From<Aggregate> for v1::Aggregate {
    fn from(aggregate: Aggregate) -> Self {
        Self {
            flows: aggregate.flows,
            originators: aggregate.originators,
            originator_prefix: aggregate.originator_prefix.into(),
            responder_prefix: aggregate.responder_prefix.into(),
        }
    }
}

impl TryFrom<v1::Aggregate> for Aggregate {
    type Error = InvalidField;

    fn try_from(aggregate: v1::Aggregate) -> Result<Self, InvalidField> {
        Ok(Self {
            flows: aggregate.flows,
            originators: aggregate.originators,
            originator_prefix: narrow("aggregate.originator_prefix", aggregate.originator_prefix)?,
            responder_prefix: narrow("aggregate.responder_prefix", aggregate.responder_prefix)?,
        })
    }
}

impl From<&FlowRecord> for v1::Flow {
    fn from(flow: &FlowRecord) -> Self {
        Self {
            flow_id: flow_id_to_wire(flow.flow_id),
            community_id: flow.community_id.clone(),
            flow_start: flow.flow_start.as_nanos(),
            start: flow.start.as_nanos(),
            end: flow.end.as_nanos(),
            part: flow.part,
            end_reason: flow.end_reason.code().into(),
            protocol: flow.protocol.into(),
            originator: Some((&flow.originator).into()),
            responder: Some((&flow.responder).into()),
            conn_state: flow.conn_state.code().into(),
            history: flow.history.clone(),
            direction_reason: flow.direction_reason.code().into(),
            direction: flow.direction.code().into(),
            site: flow.site.to_string(),
            interface: flow.interface.to_string(),
            vlans: flow.vlans.iter().copied().map(u32::from).collect(),
            mpls_labels: flow.mpls_labels.to_vec(),
            tunnel: flow.tunnel.map(|tunnel| v1::Tunnel { kind: tunnel.kind.code().into(), id: tunnel.id }),
            tunnel_parents: flow.tunnel_parents.iter().copied().map(flow_id_to_wire).collect(),
            rtt_syn_to_syn_ack: flow.rtt_syn_to_syn_ack,
            rtt_syn_ack_to_ack: flow.rtt_syn_ack_to_ack,
            counting: flow.counting.code().into(),
            sampling: if flow.sampling == 1 { 0 } else { flow.sampling },
            aggregate: flow.aggregate.map(Into::into),
        }
    }
}

impl TryFrom<v1::Flow> for FlowRecord {
    type Error = InvalidField;

    fn try_from(flow: v1::Flow) -> Result<Self, InvalidField> {
        let side = |field, side: Option<v1::FlowSide>| {
            side.ok_or_else(|| invalid(field, "a side of the flow")).and_then(FlowSide::try_from)
        };
        let tunnel = flow.tunnel.map(|tunnel| {
            code("tunnel.kind", tunnel.kind, TunnelKind::from_code).map(|kind| Tunnel { kind, id: tunnel.id })
        });
        Ok(Self {
            flow_id: flow_id_from_wire("flow_id", &flow.flow_id)?,
            community_id: flow.community_id,
            flow_start: Timestamp(flow.flow_start),
            start: Timestamp(flow.start),
            end: Timestamp(flow.end),
            part: flow.part,
            end_reason: code("end_reason", flow.end_reason, EndReason::from_code)?,
            protocol: narrow("protocol", flow.protocol)?,
            originator: side("originator", flow.originator)?,
            responder: side("responder", flow.responder)?,
            conn_state: code("conn_state", flow.conn_state, ConnState::from_code)?,
            history: flow.history,
            direction_reason: code("direction_reason", flow.direction_reason, DirectionReason::from_code)?,
            direction: code("direction", flow.direction, Direction::from_code)?,
            site: flow.site.into(),
            interface: flow.interface.into(),
            vlans: bounded("vlans", flow.vlans, |vlan| narrow("vlans", vlan))?,
            mpls_labels: bounded("mpls_labels", flow.mpls_labels, Ok)?,
            tunnel: tunnel.transpose()?,
            tunnel_parents: bounded("tunnel_parents", &flow.tunnel_parents, |id| {
                flow_id_from_wire("tunnel_parents", id)
            })?,
            rtt_syn_to_syn_ack: flow.rtt_syn_to_syn_ack,
            rtt_syn_ack_to_ack: flow.rtt_syn_ack_to_ack,
            counting: code("counting", flow.counting, Counting::from_code)?,
            sampling: flow.sampling.max(1),
            aggregate: flow.aggregate.map(Aggregate::try_from).transpose()?,
        })
    }
}
