//! The packets of a capture, decoded one by one with every tunnel that the sensor would open.

use std::path::Path;

use onenet_agent::source::Capture;
use onenet_core::{
    decode::{CapturedPacket, Content, Decoded, InterfaceIndex, decode, decode_inner, inner},
    flow::FlowConfig,
    time::Timestamp,
};

/// Hands every packet of a capture to `take`; a capture that breaks ends there.
pub(crate) fn for_each(path: &Path, mut take: impl FnMut(&CapturedPacket<'_>)) {
    let Ok(mut capture) = Capture::open(path) else { return };
    while let Ok(true) = capture.advance() {
        let Some(packet) = capture.packet() else { return };
        take(&CapturedPacket {
            time: packet.time,
            interface: InterfaceIndex(0),
            link_type: packet.link_type,
            direction: packet.direction,
            wire_length: packet.wire_length,
            data: packet.data,
        });
    }
}

/// The packet and what is in its tunnels, outermost first, as deep as the sensor opens them by default.
pub(crate) fn layers<'a>(packet: &CapturedPacket<'a>) -> Vec<Decoded<'a>> {
    let depth = usize::from(FlowConfig::default().max_tunnel_depth);
    let mut layers = Vec::new();
    let mut next = decode(packet).ok();
    while let Some(layer) = next {
        next = match &layer.content {
            Content::Ip(ip) if layers.len() < depth => {
                inner(ip).ok().flatten().and_then(|inner| decode_inner(&inner).ok())
            }
            _ => None,
        };
        layers.push(layer);
    }
    layers
}

/// A time as the oracles write it: seconds, a point and nine digits.
pub(crate) fn seconds(time: Timestamp) -> String {
    let (seconds, nanos) = time.parts();
    format!("{seconds}.{nanos:09}")
}
