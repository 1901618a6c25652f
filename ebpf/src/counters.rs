//! The kernel program's counters, summed over the CPUs.

use std::ops::Sub;

use crate::{
    layout::{HOOKS, KINDS, Local, ODDS, RawCount},
    rings::Kind,
};

/// Packets on the wire (each segment of an offloaded one), and bytes of frames as the kernel had them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Why a packet has no flow and was not punted either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum OddReason {
    /// ARP beyond its rate.
    Arp = 1,
    /// An ethertype that leads to no IP that the program knows.
    NotIp = 2,
    /// A header that is cut.
    Truncated = 3,
    /// A header that contradicts itself.
    BadHeader = 4,
    /// More tags, labels or extension headers than the program follows.
    TooDeep = 5,
}

impl OddReason {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Arp, Self::NotIp, Self::Truncated, Self::BadHeader, Self::TooDeep];

    /// Its name, as metrics have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::NotIp => "not-ip",
            Self::Truncated => "truncated",
            Self::BadHeader => "bad-header",
            Self::TooDeep => "too-deep",
        }
    }
}

/// What the program did with the packets it saw. Of packets,
/// `seen = punted + counted + sampled_out + lost + unparsed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets seen at ingress.
    pub ingress: Count,
    /// At egress.
    pub egress: Count,
    /// By XDP.
    pub xdp: Count,
    /// Packets counted in the maps of flows.
    pub counted: u64,
    /// Entries made in the maps, of IPv4 and of IPv6.
    pub inserts: [u64; 2],
    /// Packets left out by sampling.
    pub sampled_out: Count,
    /// Packets that neither a map nor a ring had room for.
    pub lost: Count,
    /// Packets for which a map had no room, punted or lost.
    pub map_full: u64,
    /// Records for which a ring had no room; their packets were counted, or are lost.
    pub ring_full: u64,
    punted: [Count; KINDS],
    refused: [u64; KINDS],
    unparsed: [Count; ODDS],
}

impl Counters {
    /// Packets punted of a kind.
    pub fn punted(&self, kind: Kind) -> Count {
        self.punted.get(kind as usize).copied().unwrap_or_default()
    }

    /// Packets of a kind beyond its rate; these were counted.
    pub fn refused(&self, kind: Kind) -> u64 {
        self.refused.get(kind as usize).copied().unwrap_or_default()
    }

    /// Packets that have no flow, for a reason.
    pub fn unparsed(&self, reason: OddReason) -> Count {
        self.unparsed.get(reason as usize).copied().unwrap_or_default()
    }

    /// Packets seen at all hooks.
    pub fn seen_packets(&self) -> u64 {
        [self.ingress, self.egress, self.xdp].iter().map(|count| count.packets).fold(0, u64::saturating_add)
    }

    /// Packets punted of all kinds.
    pub fn punted_packets(&self) -> u64 {
        self.punted.iter().map(|count| count.packets).fold(0, u64::saturating_add)
    }

    /// Packets that have no flow, for all reasons.
    pub fn unparsed_packets(&self) -> u64 {
        self.unparsed.iter().map(|count| count.packets).fold(0, u64::saturating_add)
    }

    /// Packets of which it is known what became of them; that of all that were seen.
    pub fn accounted_packets(&self) -> u64 {
        let parts = [
            self.punted_packets(),
            self.counted,
            self.sampled_out.packets,
            self.lost.packets,
            self.unparsed_packets(),
        ];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    pub(crate) fn add(&mut self, local: &Local) {
        let [ingress, egress, xdp] = &local.seen;
        self.ingress.add(ingress);
        self.egress.add(egress);
        self.xdp.add(xdp);
        self.sampled_out.add(&local.sampled_out);
        self.lost.add(&local.lost);
        let plain = [
            (&mut self.counted, local.counted),
            (&mut self.map_full, local.map_full),
            (&mut self.ring_full, local.ring_full),
        ];
        plain.into_iter().for_each(|(sum, more)| *sum = sum.saturating_add(more));
        let numbers = self.inserts.iter_mut().zip(local.inserts);
        let numbers = numbers.chain(self.refused.iter_mut().zip(local.refused));
        numbers.for_each(|(sum, more)| *sum = sum.saturating_add(more));
        let counts = self.punted.iter_mut().zip(&local.punted);
        counts.chain(self.unparsed.iter_mut().zip(&local.unparsed)).for_each(|(sum, more)| sum.add(more));
    }
}

impl Count {
    fn add(&mut self, more: &RawCount) {
        self.packets = self.packets.saturating_add(more.packets);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

impl Sub for Count {
    type Output = Self;

    fn sub(self, less: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(less.packets),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, less: Self) -> Self {
        let all = |these: [u64; KINDS], less: [u64; KINDS]| {
            std::array::from_fn(|at| these[at].saturating_sub(less[at]))
        };
        Self {
            ingress: self.ingress - less.ingress,
            egress: self.egress - less.egress,
            xdp: self.xdp - less.xdp,
            counted: self.counted.saturating_sub(less.counted),
            inserts: std::array::from_fn(|at| self.inserts[at].saturating_sub(less.inserts[at])),
            sampled_out: self.sampled_out - less.sampled_out,
            lost: self.lost - less.lost,
            map_full: self.map_full.saturating_sub(less.map_full),
            ring_full: self.ring_full.saturating_sub(less.ring_full),
            punted: std::array::from_fn(|at| self.punted[at] - less.punted[at]),
            refused: all(self.refused, less.refused),
            unparsed: std::array::from_fn(|at| self.unparsed[at] - less.unparsed[at]),
        }
    }
}

/// The number of hooks in the layout is that of the fields above.
const _: () = assert!(HOOKS == 3);
