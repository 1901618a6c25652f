//! Numbered flow records for load and fault tests of delivery. A number and a seed give one record, always the same, so
//! that what is stored can be held against what was made, one by one.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::{Duration, Instant},
};

use arrayvec::ArrayVec;
use onenet_agent::run::{Made, RecordSource};
use onenet_core::{
    net::{MacAddress, Name},
    record::{
        ConnState, Counting, Direction, DirectionReason, EndReason, FlowId, FlowRecord, FlowSide, Locality,
        Observation, ObservationKind, RecordSink, Strength,
    },
    time::Timestamp,
};

/// Flows made in one call.
const CHUNK: u64 = 256;
/// When the first flow starts: 2026-11-21T08:00:00Z.
const BEGIN: i64 = 1_795_248_000_000_000_000;
/// Between the starts of two flows.
const STEP: i64 = 10_000;
/// Secretariats, each with a segment of its own at the site.
const SECRETARIATS: [&str; 9] = ["anf", "eed", "eea", "eohhs", "eohlc", "eolwd", "eopss", "eotss", "massdot"];

/// What to make.
#[derive(Clone, Debug)]
pub struct Order {
    /// Seed of all that is not counted up.
    pub seed: u64,
    /// Flows in all.
    pub flows: u64,
    /// Flows a second; none for as fast as they are taken.
    pub rate: Option<u64>,
    /// Flows before this number are made without regard to the rate: those that an earlier run has made already.
    pub at_once: u64,
    /// Address observations with each thousand flows.
    pub observations: u64,
    /// Site they are of.
    pub site: String,
    /// Where to write how many flows have been made, as a number, after each step.
    pub truth: Option<PathBuf>,
}

/// Makes the flows of an order.
#[derive(Debug)]
pub struct Flows {
    order: Order,
    names: Names,
    next: u64,
    started: Option<Instant>,
}

/// Names, made once.
#[derive(Debug)]
struct Names {
    site: Name,
    inside: Name,
    uplink: Name,
    secretariats: Vec<(Name, Name)>,
}

/// Mixes a number into 64 bits that look like chance (SplitMix64, Steele et al. 2014).
const fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The identity of flow `number` of a seed.
pub const fn flow_id(seed: u64, number: u64) -> FlowId {
    FlowId(((seed as u128) << 64) | number as u128)
}

/// Flow `number` of a seed, as of Boston.
pub fn flow(seed: u64, number: u64) -> FlowRecord {
    Names::new("boston").flow(seed, number)
}

impl Names {
    fn new(site: &str) -> Self {
        let secretariats = SECRETARIATS
            .iter()
            .map(|name| (Name::from(format!("{site}-{name}")), Name::from(*name)))
            .collect();
        Self {
            site: site.into(),
            inside: "inside0".into(),
            uplink: format!("{site}-isp").into(),
            secretariats,
        }
    }

    fn flow(&self, seed: u64, number: u64) -> FlowRecord {
        let chance = mix(seed ^ number.rotate_left(20));
        let [a, b, c, d, e, f, g, _] = chance.to_le_bytes();
        let (segment, secretariat) = &self.secretariats[usize::from(g) % self.secretariats.len()];
        let start = BEGIN.saturating_add(i64::try_from(number).unwrap_or(i64::MAX).saturating_mul(STEP));
        let udp = a % 4 == 0;
        let packets = 2 + u64::from(b % 24);
        let (inside, outside): (IpAddr, IpAddr) = if c % 8 == 0 {
            (
                Ipv6Addr::new(0xfd00, g.into(), 0, 0, 0, 0, d.into(), e.into()).into(),
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, f.into(), b.into()).into(),
            )
        } else {
            (Ipv4Addr::new(10, g, d, e).into(), Ipv4Addr::new(198, 18 + (f & 1), b, c).into())
        };
        let side =
            |ip, port, mac, packets: u64, locality, segment: &Name, secretariat: Option<&Name>| FlowSide {
                ip,
                port,
                mac: Some(MacAddress([0, 0x1b, 0x21, mac, d, e])),
                packets,
                wire_bytes: packets * 620,
                ip_bytes: packets * 606,
                payload_bytes: packets * 566,
                tcp_flags: if udp { 0 } else { 0x1b },
                fragments: 0,
                ttl_min: 62,
                ttl_max: 63,
                dscp: 0,
                retransmissions: u64::from(f % 32 == 0),
                missed_bytes: 0,
                zero_windows: 0,
                bad_checksums: 0,
                overlapping_fragments: 0,
                locality,
                segment: Some(segment.clone()),
                secretariat: secretariat.cloned(),
            };
        let port = 32_768 + u16::from_le_bytes([a, b]) % 28_000;
        FlowRecord {
            flow_id: flow_id(seed, number),
            community_id: format!("1:{chance:016x}{:010x}=", number & 0xff_ffff_ffff),
            flow_start: Timestamp(start),
            start: Timestamp(start),
            end: Timestamp(start + 1_000_000 * (1 + i64::from(d))),
            part: 0,
            end_reason: EndReason::Ended,
            protocol: if udp { 17 } else { 6 },
            originator: side(inside, port, 1, packets, Locality::Inside, segment, Some(secretariat)),
            responder: side(outside, 443, 2, packets + 1, Locality::Outside, &self.uplink, None),
            conn_state: ConnState::SF,
            history: if udp { "Dd" } else { "ShADadFf" }.to_owned(),
            direction_reason: DirectionReason::Syn,
            direction: Direction::Outbound,
            site: self.site.clone(),
            interface: self.inside.clone(),
            vlans: ArrayVec::from_iter([100 + u16::from(g)]),
            mpls_labels: ArrayVec::new(),
            tunnel: None,
            tunnel_parents: ArrayVec::new(),
            rtt_syn_to_syn_ack: (!udp).then_some(8_000_000 + i64::from(e)),
            rtt_syn_ack_to_ack: (!udp).then_some(200_000),
            counting: Counting::Exact,
            sampling: 1,
            aggregate: None,
        }
    }

    fn observation(&self, flow: &FlowRecord) -> Observation {
        let side = &flow.originator;
        let secretariat = side.secretariat.clone();
        let space = secretariat.clone().unwrap_or_else(|| self.site.clone());
        let place = (self.site.clone(), self.inside.clone());
        let kind = ObservationKind::ArpReply;
        Observation {
            secretariat,
            segment: side.segment.clone(),
            vlans: flow.vlans.clone(),
            mac: side.mac,
            last_seen: flow.end,
            packets: 1,
            ttl_min: Some(64),
            ttl_max: Some(64),
            ..Observation::of(kind, Strength::Strong, side.ip, space, place, flow.start)
        }
    }
}

impl Flows {
    /// Begins an order.
    pub fn new(order: Order) -> Self {
        let names = Names::new(&order.site);
        Self { order, names, next: 0, started: None }
    }

    /// How many flows may have been made by now.
    fn due(&mut self) -> u64 {
        let elapsed = self.started.get_or_insert_with(Instant::now).elapsed();
        let due = self.order.rate.map(|rate| u128::from(rate) * elapsed.as_micros() / 1_000_000);
        due.map_or(u64::MAX, |due| self.order.at_once.saturating_add(u64::try_from(due).unwrap_or(u64::MAX)))
    }
}

impl RecordSource for Flows {
    fn make(&mut self, sink: &mut dyn RecordSink) -> Made {
        if self.next >= self.order.flows {
            return Made::End;
        }
        let end = self.due().min(self.order.flows).min(self.next + CHUNK);
        if end <= self.next {
            return Made::Nothing(Duration::from_millis(1));
        }
        for number in self.next..end {
            let flow = self.names.flow(self.order.seed, number);
            sink.flow(&flow);
            if number % 1000 < self.order.observations {
                sink.observation(&self.names.observation(&flow));
            }
        }
        self.next = end;
        // What an earlier run made, it has told.
        if let Some(truth) = self.order.truth.as_ref().filter(|_| end > self.order.at_once) {
            // In one step, because a kill may come at any moment. A truth that cannot be written fails the test that
            // reads it.
            let half = truth.with_extension("half");
            let _ = std::fs::write(&half, self.next.to_string()).and_then(|()| std::fs::rename(&half, truth));
        }
        Made::Records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_gives_one_record_and_another_number_another() {
        let (one, two) = (Names::new("boston"), Names::new("boston"));
        assert_eq!(one.flow(7, 9), two.flow(7, 9));
        assert_ne!(one.flow(7, 9), two.flow(7, 10));
        assert_eq!(one.flow(7, 9).flow_id, flow_id(7, 9));
    }
}
