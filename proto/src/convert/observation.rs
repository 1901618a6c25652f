//! Observations.

use onenet_core::{
    record::{
        IpIdBehaviour, Observation, ObservationAggregate, ObservationKind, SeenSignature, StackEvidence,
        Strength, TcpClock, TopAddress,
    },
    time::Timestamp,
};

use super::{
    InvalidField, bounded, code, invalid, ip_from_wire, ip_to_wire, mac_from_wire, mac_to_wire,
    name_from_wire, name_to_wire, narrow, optional_ip_from_wire, optional_ip_to_wire, text_from_wire,
    text_to_wire,
};
use crate::v1;

impl From<&Observation> for v1::Observation {
    fn from(observation: &Observation) -> Self {
        Self {
            kind: observation.kind.code().into(),
            strength: observation.strength.code().into(),
            address: ip_to_wire(observation.address),
            address_space: observation.address_space.to_string(),
            secretariat: name_to_wire(observation.secretariat.as_ref()),
            segment: name_to_wire(observation.segment.as_ref()),
            site: observation.site.to_string(),
            interface: observation.interface.to_string(),
            vlans: observation.vlans.iter().copied().map(u32::from).collect(),
            mac: mac_to_wire(observation.mac),
            first_seen: observation.first_seen.as_nanos(),
            last_seen: observation.last_seen.as_nanos(),
            packets: observation.packets,
            ttl_min: observation.ttl_min.map(u32::from),
            ttl_max: observation.ttl_max.map(u32::from),
            hostname: text_to_wire(observation.hostname.as_ref()),
            lease_seconds: observation.lease_seconds,
            server: optional_ip_to_wire(observation.server),
            relay: optional_ip_to_wire(observation.relay),
            vendor_class: text_to_wire(observation.vendor_class.as_ref()),
            duid: text_to_wire(observation.duid.as_ref()),
            conversations: observation.conversations,
            active_hours: observation.active_hours,
            stack: observation.stack.as_deref().map(Into::into),
            aggregate: observation.aggregate.as_deref().map(Into::into),
        }
    }
}

impl TryFrom<v1::Observation> for Observation {
    type Error = InvalidField;

    fn try_from(observation: v1::Observation) -> Result<Self, InvalidField> {
        Ok(Self {
            kind: code("kind", observation.kind, ObservationKind::from_code)?,
            strength: code("strength", observation.strength, Strength::from_code)?,
            address: ip_from_wire("address", &observation.address)?,
            address_space: observation.address_space.into(),
            secretariat: name_from_wire(&observation.secretariat),
            segment: name_from_wire(&observation.segment),
            site: observation.site.into(),
            interface: observation.interface.into(),
            vlans: bounded("vlans", observation.vlans, |vlan| narrow("vlans", vlan))?,
            mac: mac_from_wire("mac", &observation.mac)?,
            first_seen: Timestamp(observation.first_seen),
            last_seen: Timestamp(observation.last_seen),
            packets: observation.packets,
            ttl_min: observation.ttl_min.map(|ttl| narrow("ttl_min", ttl)).transpose()?,
            ttl_max: observation.ttl_max.map(|ttl| narrow("ttl_max", ttl)).transpose()?,
            hostname: text_from_wire(observation.hostname),
            lease_seconds: observation.lease_seconds,
            server: optional_ip_from_wire("server", &observation.server)?,
            relay: optional_ip_from_wire("relay", &observation.relay)?,
            vendor_class: text_from_wire(observation.vendor_class),
            duid: text_from_wire(observation.duid),
            conversations: observation.conversations,
            active_hours: observation.active_hours,
            stack: observation.stack.map(StackEvidence::try_from).transpose()?.map(Box::new),
            aggregate: observation.aggregate.map(ObservationAggregate::try_from).transpose()?.map(Box::new),
        })
    }
}

impl From<&StackEvidence> for v1::Stack {
    fn from(stack: &StackEvidence) -> Self {
        let signature = |seen: &SeenSignature| v1::SeenSignature {
            signature: seen.signature.to_string(),
            segments: seen.segments,
        };
        Self {
            signatures: stack.signatures.iter().map(signature).collect(),
            changes: stack.changes,
            clock_hertz: stack.clock.map_or(0, |clock| clock.hertz),
            clock_origin: stack.clock.map_or(0, |clock| clock.origin.as_nanos()),
            timestamp_breaks: stack.timestamp_breaks,
            ip_id: stack.ip_id.code().into(),
        }
    }
}

impl TryFrom<v1::Stack> for StackEvidence {
    type Error = InvalidField;

    fn try_from(stack: v1::Stack) -> Result<Self, InvalidField> {
        let signature = |seen: v1::SeenSignature| {
            let signature = seen.signature.parse();
            let signature = signature.map_err(|_| invalid("signature", "the signature of a stack"))?;
            Ok(SeenSignature { signature, segments: seen.segments })
        };
        let origin = Timestamp(stack.clock_origin);
        Ok(Self {
            signatures: bounded("signatures", stack.signatures, signature)?,
            changes: stack.changes,
            clock: (stack.clock_hertz > 0).then_some(TcpClock { hertz: stack.clock_hertz, origin }),
            timestamp_breaks: stack.timestamp_breaks,
            ip_id: code("ip_id", stack.ip_id, IpIdBehaviour::from_code)?,
        })
    }
}

impl From<&ObservationAggregate> for v1::AddressSum {
    fn from(sum: &ObservationAggregate) -> Self {
        let top =
            |top: &TopAddress| v1::TopAddress { address: ip_to_wire(top.address), packets: top.packets };
        Self {
            prefix_length: sum.prefix_length.into(),
            addresses: sum.addresses,
            top: sum.top.iter().map(top).collect(),
        }
    }
}

impl TryFrom<v1::AddressSum> for ObservationAggregate {
    type Error = InvalidField;

    fn try_from(sum: v1::AddressSum) -> Result<Self, InvalidField> {
        let top = |top: v1::TopAddress| {
            Ok(TopAddress { address: ip_from_wire("top.address", &top.address)?, packets: top.packets })
        };
        Ok(Self {
            prefix_length: narrow("prefix_length", sum.prefix_length)?,
            addresses: sum.addresses,
            top: bounded("top", sum.top, top)?,
        })
    }
}
