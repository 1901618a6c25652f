//! spoof.inbound: a packet arrives from the internet with a source that cannot be there: one of ours, or one that
//! is not globally reachable.

use std::collections::VecDeque;

use super::{
    border::{Border, Crossing, Way},
    config::SpoofConfig,
    sources::{Charge, Limits, Sources},
};
use crate::{
    findings::{Desk, FindingSink},
    ipam::{Places, block_of, classify},
    record::{RuleId, Severity},
};

/// Packets between two of our public addresses that wait until it is known which way they went.
const MAX_UNDECIDED: usize = 64;

/// The rule and its incidents.
#[derive(Clone, Debug)]
pub(super) struct Spoof {
    enabled: bool,
    undecided: VecDeque<Crossing>,
    pub(super) sources: Sources,
}

impl Spoof {
    pub(super) fn new(config: &SpoofConfig, seed: [u64; 4]) -> Self {
        let limits = Limits {
            per_prefix: config.sources_per_prefix,
            sources: config.max_sources,
            incidents: config.limit,
            quiet_seconds: config.quiet_seconds,
            prefix_of: block_of,
        };
        let sources = Sources::new(RuleId::SpoofInbound, limits, seed);
        Self { enabled: config.enabled, undecided: VecDeque::new(), sources }
    }

    /// A packet on an outside link.
    pub(super) fn on_crossing(
        &mut self,
        crossing: &Crossing,
        border: &Border,
        places: &Places,
        desk: &Desk,
        sink: &mut FindingSink<'_>,
    ) {
        if !self.enabled {
            return;
        }
        if crossing.way == Way::Undecided {
            if places.is_own_public(crossing.source) && self.undecided.len() < MAX_UNDECIDED {
                self.undecided.push_back(crossing.clone());
            }
            return;
        }
        while border.knows(crossing.interface)
            && let Some(mut waiting) = self.undecided.pop_front()
        {
            waiting.way = border.decide(&waiting, places);
            self.judge(&waiting, places, desk, sink);
        }
        self.judge(crossing, places, desk, sink);
    }

    fn judge(&mut self, crossing: &Crossing, places: &Places, desk: &Desk, sink: &mut FindingSink<'_>) {
        let Way::Arriving(confidence) = crossing.way else { return };
        let source = classify(crossing.source);
        if !classify(crossing.destination).globally_reachable || !source.is_unicast() {
            return;
        }
        let charge = if places.is_own_public(crossing.source) {
            let what = "is our own address and arrives from the internet";
            Charge { severity: Severity::High, confidence, what }
        } else if !source.globally_reachable && !crossing.is_icmp_error {
            // Routers on the internet send ICMP errors from private link addresses; that is careless, not forged.
            let what = "is not globally reachable and arrives from the internet";
            Charge { severity: Severity::Medium, confidence, what }
        } else {
            return;
        };
        self.sources.charge(crossing, charge, &[], places, desk, sink);
    }
}
