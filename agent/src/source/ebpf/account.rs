//! What became of the packets that a meter saw, over meters that were opened one after the other.

use onenet_core::record::{Layer, Ledger, Reason};
use onenet_ebpf::{Counters, OddReason};

/// Sums since the start of the source.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Of meters that were closed.
    before: Sums,
    now: Sums,
    /// What of the meter that runs is in the ledger.
    entered: Counters,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    packets: u64,
    lost: u64,
    sampled_out: u64,
}

impl Sums {
    fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_add(other.packets),
            lost: self.lost.saturating_add(other.lost),
            sampled_out: self.sampled_out.saturating_add(other.sampled_out),
        }
    }
}

impl Totals {
    /// Takes the counters of the meter that runs. What it could neither count nor hand on goes to the ledger from here,
    /// since it comes no other way.
    pub(super) fn update(&mut self, counters: &Counters, ledger: &mut Ledger) {
        for reason in OddReason::ALL {
            let (now, before) = (counters.unparsed(reason), self.entered.unparsed(reason));
            let packets = now.packets.saturating_sub(before.packets);
            let bytes = now.bytes.saturating_sub(before.bytes);
            if packets == 0 {
                continue;
            }
            ledger.packets = ledger.packets.saturating_add(packets);
            ledger.wire_bytes = ledger.wire_bytes.saturating_add(bytes);
            match place_of(reason) {
                Some((layer, reason)) => ledger.add_unparsed(layer, reason, packets),
                None => {
                    ledger.parsed = ledger.parsed.saturating_add(packets);
                    ledger.arp = ledger.arp.saturating_add(packets);
                }
            }
        }
        self.now = Sums {
            packets: counters.seen_packets(),
            lost: counters.lost.packets,
            sampled_out: counters.sampled_out.packets,
        };
        self.entered = *counters;
    }

    /// The meter is closed.
    pub(super) fn close(&mut self) {
        self.before = self.before.plus(std::mem::take(&mut self.now));
        self.entered = Counters::default();
    }

    /// Packets that were seen.
    pub(super) fn packets(&self) -> u64 {
        self.before.plus(self.now).packets
    }

    /// Packets that neither tables nor rings had room for.
    pub(super) fn lost(&self) -> u64 {
        self.before.plus(self.now).lost
    }

    /// Packets of flows that are not in the sample.
    pub(super) fn sampled_out(&self) -> u64 {
        self.before.plus(self.now).sampled_out
    }
}

/// Where the ledger has what the kernel could not parse; none for ARP, which it only had no room for.
const fn place_of(reason: OddReason) -> Option<(Layer, Reason)> {
    match reason {
        OddReason::Arp => None,
        OddReason::NotIp => Some((Layer::Shim, Reason::NotIp)),
        OddReason::Truncated => Some((Layer::Network, Reason::Truncated)),
        OddReason::BadHeader => Some((Layer::Network, Reason::BadHeaderLength)),
        OddReason::TooDeep => Some((Layer::Shim, Reason::TooDeep)),
    }
}
