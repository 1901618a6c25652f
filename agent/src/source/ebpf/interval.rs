//! What an interval of kernel metering brought, in the order of time: packets that were handed on as they came, and the
//! counts of flows that are told at its end.
//!
//! A packet that was handed on waits for the end of its interval: what was counted of its flow before it must be told
//! before it. Memory is bounded by what the rings may hand on, and by the tables that the counts come from.

use std::{collections::VecDeque, ops::Range};

use onenet_core::{
    decode::{CapturedPacket, InterfaceIndex, LinkDirection, LinkType},
    flow::{FlowDelta, Offload},
    record::RecordSink,
    sensor::Sensor,
    time::Timestamp,
};

/// A packet that was handed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handed<'a> {
    /// Packet time.
    pub(crate) time: Timestamp,
    /// What it begins with.
    pub(crate) link_type: LinkType,
    /// Way past the interface.
    pub(crate) direction: LinkDirection,
    /// Bytes of its frame.
    pub(crate) wire_length: u32,
    /// How many packets on the wire it stands for.
    pub(crate) offload: Offload,
    /// Its first bytes.
    pub(crate) data: &'a [u8],
}

/// The same, its bytes elsewhere.
#[derive(Clone, Debug)]
struct Held {
    time: Timestamp,
    link_type: LinkType,
    direction: LinkDirection,
    wire_length: u32,
    offload: Offload,
    data: Range<usize>,
}

/// What counts and hands on.
pub(crate) trait Kernel {
    /// Why it cannot.
    type Error;

    /// Tells what was counted; gives the moment until which that is everything.
    fn drain(&mut self, take: &mut dyn FnMut(&FlowDelta)) -> Result<Timestamp, Self::Error>;

    /// Tells the packets that wait to be handed on.
    fn packets(&mut self, take: &mut dyn FnMut(&Handed<'_>));
}

/// Packets in the order they were handed on.
#[derive(Clone, Debug, Default)]
struct Packets {
    held: Vec<Held>,
    bytes: Vec<u8>,
}

impl Packets {
    fn push(&mut self, packet: &Handed<'_>) {
        let &Handed { time, link_type, direction, wire_length, offload, data } = packet;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(data);
        let data = start..self.bytes.len();
        self.held.push(Held { time, link_type, direction, wire_length, offload, data });
    }

    fn clear(&mut self) {
        self.held.clear();
        self.bytes.clear();
    }
}

/// What is to be told, by its place.
#[derive(Clone, Copy, Debug)]
enum Item {
    Packet(u32),
    Counts(u32),
}

/// Packets and counts of one interface.
#[derive(Debug, Default)]
pub(crate) struct Intervals {
    /// Of intervals that have not ended.
    coming: Packets,
    packets: Packets,
    counts: Vec<FlowDelta>,
    /// What is to be told of packets and counts, in the order of time.
    order: VecDeque<(Timestamp, Item)>,
}

impl Intervals {
    /// Takes a packet.
    pub(crate) fn push(&mut self, packet: &Handed<'_>) {
        self.coming.push(packet);
    }

    /// Bytes of packets that wait for the end of their interval.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.coming.bytes.len()
    }

    /// Whether everything that ended has been told.
    pub(crate) fn is_told(&self) -> bool {
        self.order.is_empty()
    }

    /// Time of what is told next.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.order.front().map(|(time, _)| *time)
    }

    /// An interval ends: what came until the moment that the kernel gives is put in order.
    /// Nothing may be left to be told of the one before. What no mirror brought is of this interface.
    pub(crate) fn end<K: Kernel>(
        &mut self,
        interface: InterfaceIndex,
        kernel: &mut K,
    ) -> Result<Timestamp, K::Error> {
        self.counts.clear();
        let counts = &mut self.counts;
        let until = kernel.drain(&mut |delta| {
            let mut delta = delta.clone();
            if delta.mirror_bytes.is_none() {
                delta.interface = interface;
            }
            counts.push(delta);
        })?;
        // What was handed on before the counts were told has come by now.
        let coming = &mut self.coming;
        kernel.packets(&mut |packet| coming.push(packet));
        self.packets.clear();
        std::mem::swap(&mut self.packets, &mut self.coming);
        // What came later, a little or nothing, waits for the next end.
        let Packets { held, bytes } = &mut self.packets;
        for Held { time, link_type, direction, wire_length, offload, data } in
            held.extract_if(.., |held| held.time > until)
        {
            let data = bytes.get(data).unwrap_or_default();
            self.coming.push(&Handed { time, link_type, direction, wire_length, offload, data });
        }
        self.put_in_order();
        Ok(until)
    }

    fn put_in_order(&mut self) {
        let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let packets = self.packets.held.iter().enumerate();
        let mut order: Vec<(Timestamp, Item)> =
            packets.map(|(at, held)| (held.time, Item::Packet(number(at)))).collect();
        let counts = self.counts.iter().enumerate();
        order.extend(counts.filter_map(|(at, delta)| Some((delta.first()?, Item::Counts(number(at))))));
        // Of one moment, what was handed on comes first: it begins flows.
        order.sort_by_key(|(time, item)| (*time, matches!(item, Item::Counts(_))));
        self.order = order.into();
    }

    /// Tells the sensor so much at most of what came up to this time; gives how much, and the time of the last.
    pub(crate) fn tell(
        &mut self,
        most: usize,
        until: Timestamp,
        interface: InterfaceIndex,
        sensor: &mut Sensor,
        sink: &mut dyn RecordSink,
    ) -> (usize, Option<Timestamp>) {
        let (mut told, mut last) = (0, None);
        while told < most
            && let Some((time, item)) = self.order.pop_front_if(|(time, _)| *time <= until)
        {
            match item {
                Item::Packet(at) => {
                    if let Some(held) = self.packets.held.get(at as usize) {
                        let data = self.packets.bytes.get(held.data.clone()).unwrap_or_default();
                        sensor.handle_offloaded(&held.packet(interface, data), held.offload, sink);
                    }
                }
                Item::Counts(at) => {
                    if let Some(delta) = self.counts.get(at as usize) {
                        sensor.handle_delta(delta, sink);
                    }
                }
            }
            told += 1;
            last = Some(time);
        }
        (told, last)
    }
}

impl Held {
    fn packet<'a>(&self, interface: InterfaceIndex, data: &'a [u8]) -> CapturedPacket<'a> {
        CapturedPacket {
            time: self.time,
            interface,
            link_type: self.link_type,
            direction: self.direction,
            wire_length: self.wire_length,
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use onenet_core::{
        detect::DetectConfig,
        flow::{FlowConfig, WayDelta},
        record::{ConnState, FindingChange, FlowRecord, Observation},
        sensor::SensorConfig,
    };

    use super::*;

    #[derive(Default)]
    struct Kept(Vec<FlowRecord>);

    impl RecordSink for Kept {
        fn flow(&mut self, record: &FlowRecord) {
            self.0.push(record.clone());
        }

        fn observation(&mut self, _: &Observation) {}

        fn finding(&mut self, _: &FindingChange) {}
    }

    /// Tells what it is given.
    struct Fake {
        counts: Vec<FlowDelta>,
        packets: Vec<(i64, Vec<u8>)>,
        until: Result<Timestamp, &'static str>,
    }

    impl Default for Fake {
        fn default() -> Self {
            Self { counts: Vec::new(), packets: Vec::new(), until: Err("refused") }
        }
    }

    impl Kernel for Fake {
        type Error = &'static str;

        fn drain(&mut self, take: &mut dyn FnMut(&FlowDelta)) -> Result<Timestamp, &'static str> {
            self.counts.iter().for_each(take);
            self.until
        }

        fn packets(&mut self, take: &mut dyn FnMut(&Handed<'_>)) {
            self.packets.iter().for_each(|(millis, data)| take(&handed(*millis, data)));
        }
    }

    const TAP: InterfaceIndex = InterfaceIndex(0);

    fn at(millis: i64) -> Timestamp {
        Timestamp(1_700_000_000_000_000_000 + millis * 1_000_000)
    }

    /// A TCP segment of 10.0.0.1:4000 to 10.0.0.2:80, or back.
    fn segment(back: bool, flags: u8, sequence: u32, acknowledgement: u32) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
        let (from, to) = if back { ((2, 80_u16), (1, 4000_u16)) } else { ((1, 4000), (2, 80)) };
        frame.extend([10, 0, 0, from.0, 10, 0, 0, to.0]);
        frame.extend([from.1.to_be_bytes(), to.1.to_be_bytes()].concat());
        frame.extend([sequence.to_be_bytes(), acknowledgement.to_be_bytes()].concat());
        frame.extend([0x50, flags, 16, 0, 0, 0, 0, 0]);
        frame
    }

    fn handed(millis: i64, data: &[u8]) -> Handed<'_> {
        Handed {
            time: at(millis),
            link_type: LinkType(1),
            direction: LinkDirection::Received,
            wire_length: 54,
            offload: Offload::default(),
            data,
        }
    }

    fn counted(first: i64, last: i64) -> FlowDelta {
        let way = |packets: u64| WayDelta {
            packets,
            wire_bytes: packets * 1054,
            ip_bytes: packets * 1040,
            payload_bytes: packets * 1000,
            tcp_flags: 0x18,
            first: at(first),
            last: at(last),
            ..WayDelta::default()
        };
        FlowDelta {
            interface: TAP,
            vlans: Default::default(),
            mpls_labels: Default::default(),
            protocol: 6,
            ends: [([10, 0, 0, 1].into(), 4000), ([10, 0, 0, 2].into(), 80)],
            ways: [way(10), way(20)],
            mirror_bytes: None,
        }
    }

    fn sensor() -> Sensor {
        Sensor::new(SensorConfig {
            site: "boston".into(),
            sensor: "boston-1".into(),
            plan: Default::default(),
            flow: FlowConfig::default(),
            detect: DetectConfig::default(),
            hash_seed: [0; 4],
        })
        .expect("the plan is sound")
    }

    #[test]
    fn counts_are_told_between_the_packets_that_came_before_and_after_them() {
        let (mut sensor, mut kept, mut intervals) = (sensor(), Kept::default(), Intervals::default());
        let packets = [
            (0, segment(false, 2, 100, 0)),
            (1, segment(true, 0x12, 500, 101)),
            (2, segment(false, 0x10, 101, 501)),
            (900, segment(false, 0x11, 10_101, 20_501)),
        ];
        for (millis, data) in &packets {
            intervals.push(&handed(*millis, data));
        }
        // This one comes while the counts are told, and this one belongs to the next interval.
        let (answer, next) = (segment(true, 0x11, 20_501, 10_102), segment(false, 0x10, 10_102, 20_502));
        let mut kernel = Fake {
            counts: vec![counted(3, 800)],
            packets: vec![(950, answer), (1001, next)],
            until: Ok(at(1000)),
        };
        let until = intervals.end(TAP, &mut kernel);
        assert_eq!((until, intervals.waiting_bytes()), (Ok(at(1000)), 54));
        assert_eq!(intervals.tell(3, Timestamp(i64::MAX), TAP, &mut sensor, &mut kept), (3, Some(at(2))));
        assert_eq!((intervals.next(), intervals.is_told()), (Some(at(3)), false));
        assert_eq!(intervals.tell(99, at(900), TAP, &mut sensor, &mut kept), (2, Some(at(900))));
        assert_eq!(intervals.tell(99, Timestamp(i64::MAX), TAP, &mut sensor, &mut kept).0, 1);
        assert!(intervals.is_told());
        let end = intervals.end(TAP, &mut Fake { until: Ok(at(2000)), ..Fake::default() });
        assert_eq!(
            (end, intervals.tell(9, Timestamp(i64::MAX), TAP, &mut sensor, &mut kept).0),
            (Ok(at(2000)), 1)
        );
        sensor.finish(&mut kept);
        let [flow] = &kept.0[..] else { panic!("{:?}", kept.0) };
        assert_eq!(
            (flow.conn_state, flow.originator.packets, flow.responder.packets),
            (ConnState::SF, 14, 22)
        );
        assert_eq!((flow.originator.missed_bytes, sensor.ledger().packets), (0, 36));
    }

    #[test]
    fn a_drain_that_fails_leaves_packets_for_the_next() {
        let (mut sensor, mut kept, mut intervals) = (sensor(), Kept::default(), Intervals::default());
        let data = segment(false, 2, 100, 0);
        intervals.push(&handed(0, &data));
        assert_eq!(intervals.end(TAP, &mut Fake::default()), Err("refused"));
        assert!(intervals.is_told());
        assert_eq!(intervals.end(TAP, &mut Fake { until: Ok(at(9)), ..Fake::default() }), Ok(at(9)));
        assert_eq!(intervals.tell(9, Timestamp(i64::MAX), TAP, &mut sensor, &mut kept).0, 1);
    }
}
