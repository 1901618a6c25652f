//! Flow records as ECS network-flow documents. Pure.

use onenet_core::{
    net::protocol_keyword,
    record::{Direction, EndReason, FlowRecord, FlowSide},
};
use serde_json::{Map, Value, json};

use super::{
    ecs::{ECS_VERSION, network_type},
    rfc5424::{Level, Message},
};
use crate::store::StoredBatch;

/// One flow record with the batch that carried it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FlowEvent {
    /// Sensor, epoch and sequence of the batch: by these the signed batch can be found.
    pub(crate) sensor: onenet_core::net::Name,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    /// The record.
    pub(crate) record: FlowRecord,
}

impl FlowEvent {
    pub(crate) fn new(batch: &StoredBatch, record: FlowRecord) -> Self {
        Self { sensor: batch.sensor.clone(), epoch: batch.epoch, sequence: batch.sequence, record }
    }
}

/// The event id of a flow record: the same however often it is sent.
pub(crate) fn event_id(record: &FlowRecord) -> String {
    format!("{}-{}", record.flow_id, record.part)
}

/// One flow record as an ECS document.
pub(crate) fn flow_document(event: &FlowEvent) -> Value {
    let record = &event.record;
    let (originator, responder) = (&record.originator, &record.responder);
    let ended = record.end_reason != EndReason::Active;
    json!({
        "@timestamp": record.end,
        "ecs": { "version": ECS_VERSION },
        "event": {
            "id": event_id(record),
            "kind": "event",
            "category": ["network"],
            "type": if ended { ["connection", "end"] } else { ["connection", "info"] },
            "action": "network-flow",
            "module": "onenet",
            "dataset": "onenet.flow",
            "provider": "onenet-collector",
            "start": record.start,
            "end": record.end,
            "duration": record.end.since(record.start),
        },
        "source": endpoint(originator),
        "destination": endpoint(responder),
        "network": network(record),
        "observer": observer(event),
        "related": { "ip": [originator.ip, responder.ip] },
        "onenet": { "flow": own_fields(event) },
    })
}

fn endpoint(side: &FlowSide) -> Value {
    let mut fields = json!({
        "ip": side.ip,
        "address": side.ip,
        "port": side.port,
        "bytes": side.ip_bytes,
        "packets": side.packets,
    });
    if let (Some(mac), Some(fields)) = (side.mac, fields.as_object_mut()) {
        // ECS writes MAC addresses as RFC 7042 does: capitals and hyphens.
        fields.insert("mac".to_owned(), json!(mac.to_string().to_ascii_uppercase().replace(':', "-")));
    }
    fields
}

fn network(record: &FlowRecord) -> Value {
    let both = |of: fn(&FlowSide) -> u64| of(&record.originator).saturating_add(of(&record.responder));
    let mut fields = Map::new();
    fields.insert("type".to_owned(), json!(network_type(record.originator.ip)));
    fields.insert("iana_number".to_owned(), json!(record.protocol.to_string()));
    if let Some(name) = protocol_keyword(record.protocol) {
        fields.insert("transport".to_owned(), json!(name));
    }
    let direction = match record.direction {
        Direction::Unknown => "unknown",
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
        Direction::Internal => "internal",
        Direction::External => "external",
    };
    fields.insert("direction".to_owned(), json!(direction));
    fields.insert("bytes".to_owned(), json!(both(|side| side.ip_bytes)));
    fields.insert("packets".to_owned(), json!(both(|side| side.packets)));
    fields.insert("community_id".to_owned(), json!(record.community_id));
    if let Some(outer) = record.vlans.first() {
        fields.insert("vlan".to_owned(), json!({ "id": outer.to_string() }));
    }
    if let Some(inner) = record.vlans.get(1) {
        fields.insert("inner".to_owned(), json!({ "vlan": { "id": inner.to_string() } }));
    }
    Value::Object(fields)
}

fn observer(event: &FlowEvent) -> Value {
    json!({
        "name": event.sensor,
        "type": "sensor",
        "vendor": "One Network",
        "product": "onenet",
        "version": env!("CARGO_PKG_VERSION"),
        "geo": { "name": event.record.site },
        "ingress": { "interface": { "name": event.record.interface } },
    })
}

fn own_fields(event: &FlowEvent) -> Value {
    let record = &event.record;
    let side = |side: &FlowSide| json!({ "segment": side.segment, "secretariat": side.secretariat });
    json!({
        "id": record.flow_id,
        "part": record.part,
        "conn_state": record.conn_state,
        "history": record.history,
        "end_reason": record.end_reason,
        "counting": record.counting,
        "sampling": record.sampling,
        "aggregate": record.aggregate,
        "originator": side(&record.originator),
        "responder": side(&record.responder),
        "batch": { "sensor": event.sensor, "epoch": event.epoch.to_string(), "sequence": event.sequence },
    })
}

/// What the parameters of one flow's structured data say, in order.
pub(crate) fn parameters(event: &FlowEvent) -> Vec<(&'static str, String)> {
    let record = &event.record;
    vec![
        ("event", event_id(record)),
        ("flow", record.flow_id.to_string()),
        ("site", record.site.to_string()),
        ("source", record.originator.ip.to_string()),
        ("sport", record.originator.port.to_string()),
        ("target", record.responder.ip.to_string()),
        ("port", record.responder.port.to_string()),
        ("protocol", record.protocol.to_string()),
    ]
}

/// One line for people.
pub(crate) fn summary(record: &FlowRecord) -> String {
    let (from, to) = (&record.originator, &record.responder);
    let protocol =
        protocol_keyword(record.protocol).map_or_else(|| record.protocol.to_string(), str::to_owned);
    format!(
        "{protocol} {} port {} to {} port {}: {} packets, {} bytes out, {} packets, {} bytes back, {}",
        from.ip,
        from.port,
        to.ip,
        to.port,
        from.packets,
        from.ip_bytes,
        to.packets,
        to.ip_bytes,
        record.conn_state
    )
}

/// A flow record as a syslog message with `text`.
pub(crate) fn flow_message<'a>(
    record: &FlowRecord,
    parameters: &'a [(&'static str, String)],
    text: &'a str,
) -> Message<'a> {
    Message { level: Level::Informational, time: record.end, message_id: "FLOW", parameters, text }
}
