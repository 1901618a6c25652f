//! One use of an address in full, as people read it at three in the morning and as programs do: the command line, the
//! API and the page tell the same.

use std::net::IpAddr;

use onenet_core::{
    ipam::{ClockUse, Hours, StackUse, Station, Usage},
    net::{MacAddress, Name},
    record::{IpIdBehaviour, ObservationKind, Strength},
    time::Timestamp,
};
use serde::Serialize;

use crate::{
    render::{self, moment},
    store::control_inventory::InventoryEntry,
};

/// One use of an address.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct UsageView {
    /// The address.
    pub(crate) address: IpAddr,
    /// Where it is meant to be unique.
    pub(crate) address_space: Name,
    secretariat: Option<Name>,
    site: Name,
    segment: Option<Name>,
    vlans: Vec<u16>,
    strength: Strength,
    first_seen: Timestamp,
    last_seen: Timestamp,
    packets: u64,
    conversations: u64,
    stations: Vec<StationView>,
    swaps: u32,
    last_swap: Option<Timestamp>,
    hostnames: Vec<String>,
    clients: Vec<String>,
    ttl_min: Option<u8>,
    ttl_max: Option<u8>,
    signatures: Vec<StackUse>,
    signature_changes: u64,
    clock: Option<ClockUse>,
    timestamp_breaks: u64,
    ip_id: IpIdBehaviour,
    /// How many of the 768 hours before the last one it was active in.
    active_hours: u32,
    /// Which.
    hours: Hours,
}

/// A station that was seen with the address.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct StationView {
    mac: Option<MacAddress>,
    kinds: Vec<ObservationKind>,
    strength: Strength,
    first_seen: Timestamp,
    last_seen: Timestamp,
    last_answer: Option<Timestamp>,
}

impl StationView {
    fn new(station: &Station) -> Self {
        let showed =
            |kind: &&ObservationKind| 1_u32.checked_shl(kind.code().into()).unwrap_or(0) & station.kinds != 0;
        Self {
            mac: station.mac,
            kinds: ObservationKind::ALL.iter().filter(showed).copied().collect(),
            strength: station.strength,
            first_seen: station.first_seen,
            last_seen: station.last_seen,
            last_answer: station.last_answer,
        }
    }

    fn line(&self) -> String {
        let mac = self.mac.map_or_else(|| "no MAC address".to_owned(), |mac| mac.to_string());
        let kinds = render::list(self.kinds.iter().map(|kind| kind.as_str()));
        let answer =
            self.last_answer.map_or_else(String::new, |at| format!(", last answered {}", moment(at)));
        format!("{mac} by {kinds} ({}), {}{answer}", self.strength, span(self.first_seen, self.last_seen))
    }
}

/// From when to when, as people read it.
fn span(first: Timestamp, last: Timestamp) -> String {
    if first == last { moment(first) } else { format!("{} to {}", moment(first), moment(last)) }
}

fn plural(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

impl UsageView {
    /// A use of `address`.
    pub(crate) fn new(address: IpAddr, usage: &Usage) -> Self {
        Self {
            address,
            address_space: usage.address_space.clone(),
            secretariat: usage.secretariat.clone(),
            site: usage.site.clone(),
            segment: usage.segment.clone(),
            vlans: usage.vlans.to_vec(),
            strength: usage.strength,
            first_seen: usage.first_seen,
            last_seen: usage.last_seen,
            packets: usage.packets,
            conversations: usage.conversations,
            stations: usage.stations.iter().map(StationView::new).collect(),
            swaps: usage.swaps,
            last_swap: usage.last_swap,
            hostnames: usage.hostnames.clone(),
            clients: usage.clients.clone(),
            ttl_min: usage.ttl_min,
            ttl_max: usage.ttl_max,
            signatures: usage.signatures.clone(),
            signature_changes: usage.signature_changes,
            clock: usage.clock,
            timestamp_breaks: usage.timestamp_breaks,
            ip_id: usage.ip_id,
            active_hours: usage.hours.count(),
            hours: usage.hours.clone(),
        }
    }

    /// The uses of an entry, the latest first.
    pub(crate) fn of(entry: &InventoryEntry) -> impl Iterator<Item = Self> + '_ {
        entry.usages.iter().map(|usage| Self::new(entry.address, usage))
    }

    /// What it is called: whose address, and where.
    pub(crate) fn title(&self) -> String {
        let place = self.segment.as_ref().map_or_else(String::new, |segment| format!(", {segment}"));
        format!("{} in {} at {}{place}", self.address, self.address_space, self.site)
    }

    /// Everything that is known of it, by name; lines of text that came from the wire are not yet made harmless.
    pub(crate) fn facts(&self) -> Vec<(&'static str, Vec<String>)> {
        let mut facts = Vec::new();
        let mut add = |name, lines: Vec<String>| {
            if !lines.is_empty() {
                facts.push((name, lines));
            }
        };
        add("secretariat", self.secretariat.iter().map(ToString::to_string).collect());
        let vlans = render::list(self.vlans.iter().map(ToString::to_string));
        add("VLAN", Some(vlans).filter(|vlans| !vlans.is_empty()).into_iter().collect());
        add("seen", vec![format!("{} ({})", span(self.first_seen, self.last_seen), self.strength)]);
        add("stations", self.stations.iter().map(StationView::line).collect());
        if let Some(last) = self.last_swap {
            let times = plural(self.swaps.into(), "time", "times");
            add("turns", vec![format!("stations took turns {times}, the last {}", moment(last))]);
        }
        add("host names", self.hostnames.clone());
        add("DHCP clients", self.clients.clone());
        let ttl = self.ttl_min.zip(self.ttl_max).map(|(least, most)| {
            if least == most { least.to_string() } else { format!("{least} to {most}") }
        });
        add("time to live", ttl.into_iter().collect());
        add("TCP stack", self.stack());
        add("clock", self.clock_line().into_iter().collect());
        let ip_id = Some(self.ip_id).filter(|ip_id| *ip_id != IpIdBehaviour::Unknown);
        add("IPv4 ids", ip_id.iter().map(ToString::to_string).collect());
        let hours = plural(self.active_hours.into(), "hour", "hours");
        add("active", vec![format!("{hours} of its last 32 days")]);
        let (packets, conversations) = (
            plural(self.packets, "packet", "packets"),
            plural(self.conversations, "conversation", "conversations"),
        );
        add("traffic", vec![format!("{packets}, {conversations} in which both sides spoke")]);
        facts
    }

    fn stack(&self) -> Vec<String> {
        let line = |seen: &StackUse| {
            let syns = plural(seen.segments, "SYN", "SYNs");
            format!("{} in {syns}, {}", seen.signature, span(seen.first_seen, seen.last_seen))
        };
        let mut lines: Vec<String> = self.signatures.iter().map(line).collect();
        if self.signature_changes > 0 {
            lines.push(format!("changed {}", plural(self.signature_changes, "time", "times")));
        }
        lines
    }

    fn clock_line(&self) -> Option<String> {
        match &self.clock {
            Some(clock) => Some(format!(
                "{} ticks a second, host started {}; read {}",
                clock.hertz,
                moment(clock.origin),
                span(clock.since, clock.until)
            )),
            None if self.timestamp_breaks > 0 => Some(format!(
                "none: {} that cannot follow the one before",
                plural(self.timestamp_breaks, "timestamp", "timestamps")
            )),
            None => None,
        }
    }
}

/// Uses as indented text for a terminal, numbered.
pub(crate) fn text(uses: &[UsageView]) -> String {
    let mut out = String::new();
    for (number, usage) in uses.iter().enumerate() {
        out.push_str(&format!("  use {}: {}\n", number + 1, render::for_terminal(&usage.title())));
        for (name, lines) in usage.facts() {
            for (at, line) in lines.iter().enumerate() {
                let name = if at == 0 { name } else { "" };
                out.push_str(&format!("    {name:<13} {}\n", render::for_terminal(line)));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use onenet_core::record::{Observation, SeenSignature, StackEvidence, TcpClock};

    use super::*;
    use crate::seed::{at, observation};

    fn full() -> Usage {
        let mut seen = observation("fd00::1", "eohhs", "boston", ObservationKind::NeighborAdvertisement, 10);
        seen.hostname = Some("ward\u{1b}[2J-7".to_owned());
        seen.duid = Some("0001".to_owned());
        let mut usage = Usage::first(&seen);
        let signature = "6:64:0:1440:64800,7:mss,sok,ts,nop,ws::0".parse().expect("a signature");
        let stack = StackEvidence {
            signatures: [SeenSignature { signature, segments: 3 }].into_iter().collect(),
            changes: 1,
            clock: Some(TcpClock { hertz: 1000, origin: at(-86_400) }),
            ..StackEvidence::default()
        };
        let traffic = observation("fd00::1", "eohhs", "boston", ObservationKind::Traffic, 7_200);
        let stack = Some(Box::new(stack));
        usage.add(&Observation { stack, conversations: 1, active_hours: 0b101, ..traffic });
        usage
    }

    #[test]
    fn a_use_is_told_whole_and_in_words() {
        let view = UsageView::new("fd00::1".parse().expect("an address"), &full());
        let told = text(&[view]);
        let expected = "  use 1: fd00::1 in eohhs at boston, boston-eohhs
    secretariat   eohhs
    VLAN          120
    seen          2026-11-21 08:00:10 to 2026-11-21 10:00:00 (strong)
    stations      02:1b:21:05:62:31 by traffic, neighbor-advertisement (strong), 2026-11-21 08:00:10 to 2026-11-21 10:00:00, last answered 2026-11-21 08:00:10
    host names    ward\u{fffd}[2J-7
    DHCP clients  0001
    time to live  63 to 64
    TCP stack     6:64:0:1440:64800,7:mss,sok,ts,nop,ws::0 in 3 SYNs, 2026-11-21 10:00:00
                  changed 1 time
    clock         1000 ticks a second, host started 2026-11-20 08:00:00; read 2026-11-21 10:00:00
    active        2 hours of its last 32 days
    traffic       2 packets, 1 conversation in which both sides spoke
";
        assert_eq!(told, expected);
    }

    #[test]
    fn programs_get_names_and_numbers() {
        let view = UsageView::new("fd00::1".parse().expect("an address"), &full());
        let json = serde_json::to_value(&view).expect("JSON");
        assert_eq!(json["stations"][0]["kinds"], serde_json::json!(["traffic", "neighbor-advertisement"]));
        assert_eq!(json["stations"][0]["mac"], "02:1b:21:05:62:31");
        assert_eq!((&json["active_hours"], &json["clock"]["hertz"]), (&2.into(), &1000.into()));
        assert_eq!(json["signatures"][0]["segments"], 3);
        assert_eq!(json["vlans"], serde_json::json!([120]));
    }
}
