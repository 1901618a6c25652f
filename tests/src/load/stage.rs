//! Flows in the order of time: each millisecond the packets that are due are written, and new flows begin.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use onenet_core::time::Timestamp;
use serde::Serialize;

use super::{
    flow::Flow,
    frame::{Packet, render},
};
use crate::traffic::{pcap::PcapWriter, random::Random};

/// Slots of the wheel: milliseconds ahead that a packet can be due.
const HORIZON: usize = 1 << 16;

/// 2026-03-02 09:00:00 UTC.
const BEGIN: i64 = 1_772_442_000_000_000_000;

const NANOS_PER_MILLISECOND: i64 = 1_000_000;

/// What is in a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Truth {
    /// Packets of the capture.
    pub packets: u64,
    /// Octets of the frames, without their check sequence.
    pub wire_bytes: u64,
    /// Octets by the length fields of the IP headers.
    pub ip_bytes: u64,
    /// Flows, both directions as one; each has a tuple of its own.
    pub flows: u64,
    /// The same by protocol number.
    pub flows_by_protocol: BTreeMap<u8, u64>,
    /// Most flows under way at the same time, from the first packet to the last of each.
    pub most_at_once: u64,
    /// Octets of the file.
    pub file_bytes: u64,
    /// Flows that stand in a flood, to be found whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canaries: Option<Canaries>,
    /// The flood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flood: Option<Flood>,
}

/// Flows in a flood whose clients have addresses of one prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Canaries {
    /// First two octets of the clients' addresses, as text: `10.77.`.
    pub clients: String,
    /// TCP connections, each opened and closed.
    pub tcp: u64,
    /// Packets of one of them.
    pub tcp_packets: u64,
    /// DNS lookups of two packets.
    pub dns: u64,
    /// Packets of all of them.
    pub packets: u64,
    /// Octets of all of them, by the length fields of the IP headers.
    pub ip_bytes: u64,
}

/// SYNs without an answer, each from an address of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Flood {
    /// The address they go to.
    pub target: String,
    /// How many.
    pub packets: u64,
}

/// A capture in the making.
#[derive(Debug)]
pub(super) struct Stage {
    writer: PcapWriter,
    /// Octets of each frame that are kept.
    snap: usize,
    pub(super) random: Random,
    pub(super) truth: Truth,
    flows: Vec<Option<Flow>>,
    free: Vec<u32>,
    slots: Vec<Vec<u32>>,
    millisecond: usize,
    filler: Vec<u8>,
    frame: Vec<u8>,
}

impl Stage {
    /// Begins a file. Of each frame at most `snap` octets are kept.
    pub(super) fn create(path: &Path, seed: u64, name: &str, snap: usize) -> Result<Self> {
        let mut random = Random::for_actor(seed, name);
        let filler: [u8; 1 << 14] = random.octets();
        Ok(Self {
            writer: PcapWriter::create(path)?,
            snap,
            random,
            truth: Truth::default(),
            flows: Vec::new(),
            free: Vec::new(),
            slots: vec![Vec::new(); HORIZON],
            millisecond: 0,
            filler: filler.repeat(8),
            frame: Vec::with_capacity(2048),
        })
    }

    /// Lets a flow begin in the coming millisecond.
    pub(super) fn begin(&mut self, flow: Flow) {
        self.truth.flows += 1;
        let entry = self.free.pop().unwrap_or_else(|| {
            self.flows.push(None);
            u32::try_from(self.flows.len() - 1).unwrap_or(u32::MAX)
        });
        self.flows[entry as usize] = Some(flow);
        self.truth.most_at_once = self.truth.most_at_once.max(self.under_way());
        self.slots[self.millisecond % HORIZON].push(entry);
    }

    /// Flows that are not over.
    pub(super) fn under_way(&self) -> u64 {
        (self.flows.len() - self.free.len()) as u64
    }

    /// Writes what is due in this millisecond and goes on to the next. `beside` gives a frame for each microsecond
    /// to stand among them, or none.
    pub(super) fn tick(&mut self, beside: &mut dyn FnMut(&mut Vec<u8>) -> Option<u32>) -> Result<()> {
        let slot = self.millisecond % HORIZON;
        let due = std::mem::take(&mut self.slots[slot]);
        let mut left = due.iter().enumerate().peekable();
        for micro in 0..1_000 {
            let time = self.time(micro);
            while let Some((_, entry)) = left.next_if(|(place, _)| place * 1_000 / due.len() <= micro) {
                self.step(*entry, time)?;
            }
            if let Some(ip_bytes) = beside(&mut self.frame) {
                self.write(time, ip_bytes)?;
            } else if left.peek().is_none() {
                break;
            }
        }
        // The allocation is used again; what became due again stands in other slots.
        let mut due = due;
        due.clear();
        self.slots[slot] = due;
        self.millisecond += 1;
        Ok(())
    }

    fn time(&self, micro: usize) -> Timestamp {
        let millis = i64::try_from(self.millisecond).unwrap_or(i64::MAX / NANOS_PER_MILLISECOND / 2);
        let micros = i64::try_from(micro).unwrap_or_default();
        Timestamp(BEGIN + millis * NANOS_PER_MILLISECOND + micros * 1_000)
    }

    /// Writes the next packet of a flow and sees to the one after it.
    fn step(&mut self, entry: u32, time: Timestamp) -> Result<()> {
        let Some(flow) = self.flows[entry as usize].as_mut() else { return Ok(()) };
        let packet: Packet = flow.next(&mut self.random);
        if flow.begins() {
            *self.truth.flows_by_protocol.entry(flow.ends.protocol(&packet.body)).or_default() += 1;
        }
        let mark = u16::try_from(self.truth.packets & 0xffff).unwrap_or_default();
        let ip_bytes = render(&flow.ends, &packet, mark, &self.filler, &mut self.frame);
        if let Some(canaries) = &mut self.truth.canaries {
            canaries.packets += 1;
            canaries.ip_bytes += u64::from(ip_bytes);
        }
        if flow.is_over() {
            self.flows[entry as usize] = None;
            self.free.push(entry);
        } else {
            let gap = (flow.gap(&mut self.random) as usize).clamp(1, HORIZON - 1);
            self.slots[(self.millisecond + gap) % HORIZON].push(entry);
        }
        self.write(time, ip_bytes)
    }

    fn write(&mut self, time: Timestamp, ip_bytes: u32) -> Result<()> {
        self.truth.packets += 1;
        self.truth.ip_bytes += u64::from(ip_bytes);
        self.truth.file_bytes += 16 + self.frame.len().min(self.snap) as u64;
        self.writer.write_cut(time, &self.frame, self.snap)
    }

    /// Writes what is left of flows under way, and closes the file.
    pub(super) fn finish(mut self) -> Result<Truth> {
        while self.under_way() > 0 {
            self.tick(&mut |_| None)?;
        }
        let (_, wire_bytes) = self.writer.finish()?;
        self.truth.wire_bytes = wire_bytes;
        self.truth.file_bytes += 24;
        Ok(self.truth)
    }
}
