//! An observation as a line.

use onenet_core::record::{Observation, ObservationAggregate, ObservationKind, StackEvidence, Strength};

use super::{
    Line,
    names::Names,
    pen::{Pen, ROOM, Word, words},
};

static KINDS: [Word<23>; ObservationKind::ALL.len()] = words!(ObservationKind, 23);
static STRENGTHS: [Word<7>; Strength::ALL.len()] = words!(Strength, 7);

impl Line for Observation {
    fn write_into(&self, room: &mut [u8; ROOM], names: &mut Names) -> Option<usize> {
        let mut pen = Pen::new(room, 0);
        pen.put(b"{\"kind\":\"");
        pen.word(&KINDS, self.kind as usize);
        pen.put(b"\",\"strength\":\"");
        pen.word(&STRENGTHS, self.strength as usize);
        pen.put(b"\",\"address\":\"");
        pen.ip(self.address);
        pen.put(b"\",\"address_space\":");
        pen.name(&self.address_space, names);
        pen.put(b",\"secretariat\":");
        pen.optional_name(self.secretariat.as_ref(), names);
        pen.put(b",\"segment\":");
        pen.optional_name(self.segment.as_ref(), names);
        pen.put(b",\"site\":");
        pen.name(&self.site, names);
        pen.put(b",\"interface\":");
        pen.name(&self.interface, names);
        pen.put(b",\"vlans\":[");
        pen.numbers(self.vlans.iter().map(|&vlan| vlan.into()));
        pen.put(b"],\"mac\":");
        pen.mac(self.mac);
        pen.put(b",\"first_seen\":\"");
        pen.time(self.first_seen);
        pen.put(b"\",\"last_seen\":\"");
        pen.time(self.last_seen);
        pen.put(b"\",\"packets\":");
        pen.number(self.packets);
        pen.put(b",\"conversations\":");
        pen.number(self.conversations);
        pen.put(b",\"active_hours\":");
        pen.number(self.active_hours.into());
        pen.put(b",\"ttl_min\":");
        pen.optional(self.ttl_min.map(i64::from));
        pen.put(b",\"ttl_max\":");
        pen.optional(self.ttl_max.map(i64::from));
        if has_no_lease(self) {
            pen.put(b",\"hostname\":null,\"lease_seconds\":null,\"server\":null,\"relay\":null,\"vendor_class\":null,\"duid\":null");
        } else {
            lease(&mut pen, self);
        }
        pen.put(b",\"stack\":");
        match &self.stack {
            Some(seen) => stack(&mut pen, seen),
            None => pen.put(b"null"),
        }
        pen.put(b",\"aggregate\":");
        match &self.aggregate {
            Some(sum) => aggregate(&mut pen, sum),
            None => pen.put(b"null"),
        }
        pen.put(b"}\n");
        pen.length()
    }
}

#[inline(never)]
fn lease(pen: &mut Pen<'_>, seen: &Observation) {
    pen.put(b",\"hostname\":");
    optional_text(pen, seen.hostname.as_deref());
    pen.put(b",\"lease_seconds\":");
    pen.optional(seen.lease_seconds.map(i64::from));
    pen.put(b",\"server\":");
    optional_ip(pen, seen.server);
    pen.put(b",\"relay\":");
    optional_ip(pen, seen.relay);
    pen.put(b",\"vendor_class\":");
    optional_text(pen, seen.vendor_class.as_deref());
    pen.put(b",\"duid\":");
    optional_text(pen, seen.duid.as_deref());
}

#[inline(never)]
fn stack(pen: &mut Pen<'_>, seen: &StackEvidence) {
    pen.put(b"{\"signatures\":[");
    for (at, one) in seen.signatures.iter().enumerate() {
        if at > 0 {
            pen.put(b",");
        }
        pen.put(b"{\"signature\":");
        optional_text(pen, Some(&one.signature.to_string()));
        pen.put(b",\"segments\":");
        pen.number(one.segments.into());
        pen.put(b"}");
    }
    pen.put(b"],\"changes\":");
    pen.number(seen.changes.into());
    match seen.clock {
        Some(clock) => {
            pen.put(b",\"clock\":{\"hertz\":");
            pen.number(clock.hertz.into());
            pen.put(b",\"origin\":\"");
            pen.time(clock.origin);
            pen.put(b"\"}");
        }
        None => pen.put(b",\"clock\":null"),
    }
    pen.put(b",\"timestamp_breaks\":");
    pen.number(seen.timestamp_breaks.into());
    pen.put(b",\"ip_id\":");
    optional_text(pen, Some(seen.ip_id.as_str()));
    pen.put(b"}");
}

#[inline(never)]
fn aggregate(pen: &mut Pen<'_>, sum: &ObservationAggregate) {
    pen.put(b"{\"prefix_length\":");
    pen.number(sum.prefix_length.into());
    pen.put(b",\"addresses\":");
    pen.number(sum.addresses);
    pen.put(b",\"top\":[");
    for (at, one) in sum.top.iter().enumerate() {
        if at > 0 {
            pen.put(b",");
        }
        pen.put(b"{\"address\":\"");
        pen.ip(one.address);
        pen.put(b"\",\"packets\":");
        pen.number(one.packets);
        pen.put(b"}");
    }
    pen.put(b"]}");
}

/// Whether nothing of DHCP is there.
fn has_no_lease(seen: &Observation) -> bool {
    let texts = seen.hostname.is_some() || seen.vendor_class.is_some() || seen.duid.is_some();
    !texts && seen.lease_seconds.is_none() && seen.server.is_none() && seen.relay.is_none()
}

#[inline(never)]
fn optional_text(pen: &mut Pen<'_>, text: Option<&str>) {
    pen.quoted(text, Pen::text);
}

#[inline(never)]
fn optional_ip(pen: &mut Pen<'_>, ip: Option<std::net::IpAddr>) {
    pen.quoted(ip, Pen::ip);
}
