//! What became of the packets that a meter saw, over meters that were opened one after the other.

use onenet_core::{
    detect::HealthReport,
    net::Name,
    record::{Layer, Ledger, Reason},
};
use onenet_ebpf::{Counters, Meter, OddReason};

use crate::{
    config::Hook,
    source::counters::{Own, Seen},
};

/// Sums since the start of the source.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// Of meters that were closed.
    before: Sums,
    now: Sums,
    /// What of the meter that runs is in the ledger.
    entered: Counters,
    is_xdp: bool,
    /// As of the latest comparison with the interface.
    compared: Sums,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    ingress: u64,
    egress: u64,
    xdp: u64,
    lost: u64,
    sampled_out: u64,
}

impl From<&Counters> for Sums {
    fn from(counters: &Counters) -> Self {
        Self {
            ingress: counters.ingress.packets,
            egress: counters.egress.packets,
            xdp: counters.xdp.packets,
            lost: counters.lost.packets,
            sampled_out: counters.sampled_out.packets,
        }
    }
}

impl Sums {
    fn packets(&self) -> u64 {
        self.ingress.saturating_add(self.egress).saturating_add(self.xdp)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            ingress: self.ingress.saturating_add(other.ingress),
            egress: self.egress.saturating_add(other.egress),
            xdp: self.xdp.saturating_add(other.xdp),
            lost: self.lost.saturating_add(other.lost),
            sampled_out: self.sampled_out.saturating_add(other.sampled_out),
        }
    }
}

impl Totals {
    /// Of meters on these hooks.
    pub(super) fn new(hook: Hook) -> Self {
        Self { is_xdp: hook == Hook::Xdp, ..Self::default() }
    }

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
        self.now = Sums::from(counters);
        self.entered = *counters;
    }

    /// The meter is closed.
    pub(super) fn close(&mut self) {
        self.before = self.before.plus(std::mem::take(&mut self.now));
        self.entered = Counters::default();
    }

    /// What all meters have seen until this moment, and what of it they lost or left out.
    pub(super) fn seen(&mut self, meter: Option<&Meter>) -> (u64, Own) {
        let now = match meter.map(Meter::counters) {
            Some(Ok(counters)) => Sums::from(&counters),
            Some(Err(_)) | None => self.now,
        };
        self.compared = self.before.plus(now);
        let dropped = self.compared.lost.saturating_add(self.compared.sampled_out);
        (self.compared.packets(), Own { dropped, let_through: None })
    }

    /// What each hook had seen at the latest comparison. What was lost, was lost behind them all.
    pub(super) fn health(&self, interface: &Name, seen: &Seen) -> Vec<HealthReport> {
        let report = |hook: &str, packets: u64, offered: Option<u64>, lost: u64| HealthReport {
            time: seen.time,
            interface: interface.clone(),
            hook: Name::from(hook),
            seen: packets,
            offered,
            lost,
        };
        let Sums { ingress, egress, xdp, lost, .. } = self.compared;
        let mut reports = vec![report("ebpf", self.compared.packets(), None, lost)];
        if self.is_xdp {
            reports.push(report("ebpf xdp", xdp, Some(seen.received), 0));
        } else {
            reports.push(report("ebpf ingress", ingress, Some(seen.received), 0));
            reports.push(report("ebpf egress", egress, Some(seen.offered.saturating_sub(seen.received)), 0));
        }
        reports
    }

    /// Packets that were seen.
    pub(super) fn packets(&self) -> u64 {
        self.before.plus(self.now).packets()
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
