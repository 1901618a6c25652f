//! The records as flat columns, for CSV. A column is named by the path of its field in JSON, such as
//! `originator.ip`; a list is joined by `;`; what is not there is empty.

use std::fmt::{Display, Write};

use onenet_core::record::{FindingChange, FlowRecord, Observation};

/// One value as text, before it is quoted.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    pub(super) text: String,
}

impl Cell {
    fn put(&mut self, value: impl Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{value}");
    }

    fn put_option(&mut self, value: Option<impl Display>) {
        if let Some(value) = value {
            self.put(value);
        }
    }

    fn put_list(&mut self, values: impl IntoIterator<Item = impl Display>) {
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                self.text.push(';');
            }
            self.put(value);
        }
    }

    /// A text that a host on the network chose. A spreadsheet would run one that begins like a formula.
    fn put_foreign(&mut self, value: Option<&str>) {
        if let Some(value) = value {
            if value.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
                self.text.push('\'');
            }
            self.text.push_str(value);
        }
    }
}

/// A column of a record.
pub(crate) struct Column<R: 'static> {
    pub(super) name: &'static str,
    pub(super) put: fn(&R, &mut Cell),
}

/// A record that can be written as columns.
pub(crate) trait Columns: Sized + 'static {
    /// Its columns, in order.
    const COLUMNS: &'static [Column<Self>];
}

macro_rules! columns {
    ($($name:literal => |$record:ident, $cell:ident| $put:expr),+ $(,)?) => {
        &[$(Column { name: $name, put: |$record, $cell| $put }),+]
    };
}

/// The columns of a flow: what is of the whole flow, then each side.
impl Columns for FlowRecord {
    const COLUMNS: &'static [Column<Self>] = columns! {
        "flow_id" => |r, c| c.put(r.flow_id),
        "community_id" => |r, c| c.put(&r.community_id),
        "flow_start" => |r, c| c.put(r.flow_start),
        "start" => |r, c| c.put(r.start),
        "end" => |r, c| c.put(r.end),
        "part" => |r, c| c.put(r.part),
        "end_reason" => |r, c| c.put(r.end_reason),
        "protocol" => |r, c| c.put(r.protocol),
        "originator.ip" => |r, c| c.put(r.originator.ip),
        "originator.port" => |r, c| c.put(r.originator.port),
        "originator.mac" => |r, c| c.put_option(r.originator.mac),
        "originator.packets" => |r, c| c.put(r.originator.packets),
        "originator.wire_bytes" => |r, c| c.put(r.originator.wire_bytes),
        "originator.ip_bytes" => |r, c| c.put(r.originator.ip_bytes),
        "originator.payload_bytes" => |r, c| c.put(r.originator.payload_bytes),
        "originator.tcp_flags" => |r, c| c.put(r.originator.tcp_flags),
        "originator.fragments" => |r, c| c.put(r.originator.fragments),
        "originator.ttl_min" => |r, c| c.put(r.originator.ttl_min),
        "originator.ttl_max" => |r, c| c.put(r.originator.ttl_max),
        "originator.dscp" => |r, c| c.put(r.originator.dscp),
        "originator.retransmissions" => |r, c| c.put(r.originator.retransmissions),
        "originator.missed_bytes" => |r, c| c.put(r.originator.missed_bytes),
        "originator.zero_windows" => |r, c| c.put(r.originator.zero_windows),
        "originator.bad_checksums" => |r, c| c.put(r.originator.bad_checksums),
        "originator.overlapping_fragments" => |r, c| c.put(r.originator.overlapping_fragments),
        "originator.locality" => |r, c| c.put(r.originator.locality),
        "originator.segment" => |r, c| c.put_option(r.originator.segment.as_ref()),
        "originator.secretariat" => |r, c| c.put_option(r.originator.secretariat.as_ref()),
        "responder.ip" => |r, c| c.put(r.responder.ip),
        "responder.port" => |r, c| c.put(r.responder.port),
        "responder.mac" => |r, c| c.put_option(r.responder.mac),
        "responder.packets" => |r, c| c.put(r.responder.packets),
        "responder.wire_bytes" => |r, c| c.put(r.responder.wire_bytes),
        "responder.ip_bytes" => |r, c| c.put(r.responder.ip_bytes),
        "responder.payload_bytes" => |r, c| c.put(r.responder.payload_bytes),
        "responder.tcp_flags" => |r, c| c.put(r.responder.tcp_flags),
        "responder.fragments" => |r, c| c.put(r.responder.fragments),
        "responder.ttl_min" => |r, c| c.put(r.responder.ttl_min),
        "responder.ttl_max" => |r, c| c.put(r.responder.ttl_max),
        "responder.dscp" => |r, c| c.put(r.responder.dscp),
        "responder.retransmissions" => |r, c| c.put(r.responder.retransmissions),
        "responder.missed_bytes" => |r, c| c.put(r.responder.missed_bytes),
        "responder.zero_windows" => |r, c| c.put(r.responder.zero_windows),
        "responder.bad_checksums" => |r, c| c.put(r.responder.bad_checksums),
        "responder.overlapping_fragments" => |r, c| c.put(r.responder.overlapping_fragments),
        "responder.locality" => |r, c| c.put(r.responder.locality),
        "responder.segment" => |r, c| c.put_option(r.responder.segment.as_ref()),
        "responder.secretariat" => |r, c| c.put_option(r.responder.secretariat.as_ref()),
        "conn_state" => |r, c| c.put(r.conn_state),
        "history" => |r, c| c.put(&r.history),
        "direction_reason" => |r, c| c.put(r.direction_reason),
        "direction" => |r, c| c.put(r.direction),
        "site" => |r, c| c.put(&r.site),
        "interface" => |r, c| c.put(&r.interface),
        "vlans" => |r, c| c.put_list(&r.vlans),
        "mpls_labels" => |r, c| c.put_list(&r.mpls_labels),
        "tunnel.kind" => |r, c| c.put_option(r.tunnel.map(|tunnel| tunnel.kind)),
        "tunnel.id" => |r, c| c.put_option(r.tunnel.and_then(|tunnel| tunnel.id)),
        "tunnel_parents" => |r, c| c.put_list(&r.tunnel_parents),
        "rtt_syn_to_syn_ack" => |r, c| c.put_option(r.rtt_syn_to_syn_ack),
        "rtt_syn_ack_to_ack" => |r, c| c.put_option(r.rtt_syn_ack_to_ack),
        "counting" => |r, c| c.put(r.counting),
        "sampling" => |r, c| c.put(r.sampling),
        "aggregate.flows" => |r, c| c.put_option(r.aggregate.map(|many| many.flows)),
        "aggregate.originators" => |r, c| c.put_option(r.aggregate.map(|many| many.originators)),
        "aggregate.originator_prefix" => |r, c| c.put_option(r.aggregate.map(|many| many.originator_prefix)),
        "aggregate.responder_prefix" => |r, c| c.put_option(r.aggregate.map(|many| many.responder_prefix)),
    };
}

impl Columns for Observation {
    const COLUMNS: &'static [Column<Self>] = columns! {
        "kind" => |r, c| c.put(r.kind),
        "strength" => |r, c| c.put(r.strength),
        "address" => |r, c| c.put(r.address),
        "address_space" => |r, c| c.put(&r.address_space),
        "secretariat" => |r, c| c.put_option(r.secretariat.as_ref()),
        "segment" => |r, c| c.put_option(r.segment.as_ref()),
        "site" => |r, c| c.put(&r.site),
        "interface" => |r, c| c.put(&r.interface),
        "vlans" => |r, c| c.put_list(&r.vlans),
        "mac" => |r, c| c.put_option(r.mac),
        "first_seen" => |r, c| c.put(r.first_seen),
        "last_seen" => |r, c| c.put(r.last_seen),
        "packets" => |r, c| c.put(r.packets),
        "conversations" => |r, c| c.put(r.conversations),
        "active_hours" => |r, c| c.put(r.active_hours),
        "ttl_min" => |r, c| c.put_option(r.ttl_min),
        "ttl_max" => |r, c| c.put_option(r.ttl_max),
        "hostname" => |r, c| c.put_foreign(r.hostname.as_deref()),
        "lease_seconds" => |r, c| c.put_option(r.lease_seconds),
        "server" => |r, c| c.put_option(r.server),
        "relay" => |r, c| c.put_option(r.relay),
        "vendor_class" => |r, c| c.put_foreign(r.vendor_class.as_deref()),
        "duid" => |r, c| c.put_option(r.duid.as_ref()),
        "stack.signatures" => |r, c| {
            let seen = r.stack.iter().flat_map(|stack| &stack.signatures);
            c.put_list(seen.map(|one| format!("{}={}", one.signature, one.segments)));
        },
        "stack.changes" => |r, c| c.put_option(r.stack.as_ref().map(|stack| stack.changes)),
        "stack.clock.hertz" => |r, c| c.put_option(r.stack.as_ref().and_then(|stack| Some(stack.clock?.hertz))),
        "stack.clock.origin" => |r, c| c.put_option(r.stack.as_ref().and_then(|stack| Some(stack.clock?.origin))),
        "stack.timestamp_breaks" => |r, c| c.put_option(r.stack.as_ref().map(|stack| stack.timestamp_breaks)),
        "stack.ip_id" => |r, c| c.put_option(r.stack.as_ref().map(|stack| stack.ip_id)),
        "aggregate.prefix_length" => |r, c| c.put_option(r.aggregate.as_ref().map(|sum| sum.prefix_length)),
        "aggregate.addresses" => |r, c| c.put_option(r.aggregate.as_ref().map(|sum| sum.addresses)),
        "aggregate.top" => |r, c| {
            let top = r.aggregate.iter().flat_map(|sum| &sum.top);
            c.put_list(top.map(|one| format!("{}={}", one.address, one.packets)));
        },
    };
}

/// The columns of a finding change. Of the evidence: flow ids; each observation as its address space and MAC;
/// counts and scores as `name=value`.
impl Columns for FindingChange {
    const COLUMNS: &'static [Column<Self>] = columns! {
        "finding_id" => |r, c| c.put(r.finding_id),
        "key" => |r, c| c.put(&r.key),
        "rule" => |r, c| c.put(r.rule),
        "rule_version" => |r, c| c.put(r.rule_version),
        "change" => |r, c| c.put(r.change),
        "revision" => |r, c| c.put(r.revision),
        "time" => |r, c| c.put(r.time),
        "first_seen" => |r, c| c.put(r.first_seen),
        "last_seen" => |r, c| c.put(r.last_seen),
        "severity" => |r, c| c.put(r.severity),
        "confidence" => |r, c| c.put(r.confidence),
        "summary" => |r, c| c.put(&r.summary),
        "subject.source" => |r, c| c.put_option(r.subject.source),
        "subject.target" => |r, c| c.put_option(r.subject.target),
        "subject.address" => |r, c| c.put_option(r.subject.address),
        "subject.prefix" => |r, c| c.put_option(r.subject.prefix),
        "subject.port" => |r, c| c.put_option(r.subject.port),
        "subject.protocol" => |r, c| c.put_option(r.subject.protocol),
        "site" => |r, c| c.put(&r.site),
        "interface" => |r, c| c.put_option(r.interface.as_ref()),
        "address_spaces" => |r, c| c.put_list(&r.address_spaces),
        "secretariats" => |r, c| c.put_list(&r.secretariats),
        "contacts" => |r, c| c.put_list(&r.contacts),
        "evidence.flow_ids" => |r, c| c.put_list(&r.evidence.flow_ids),
        "evidence.observations" => |r, c| {
            c.put_list(r.evidence.observations.iter().map(|seen| {
                let mac = seen.mac.map_or_else(|| "-".to_owned(), |mac| mac.to_string());
                format!("{} {mac}", seen.address_space)
            }));
        },
        "evidence.counts" => |r, c| c.put_list(r.evidence.counts.iter().map(|(name, n)| format!("{name}={n}"))),
        "evidence.verdict" => |r, c| c.put_option(r.evidence.verdict),
        "evidence.scores" => |r, c| c.put_list(r.evidence.scores.iter().map(|(name, x)| format!("{name}={x}"))),
    };
}
