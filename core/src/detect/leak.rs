//! leak.private: a source that is not globally reachable leaves to the internet, so a translation is missing.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    border::{Crossing, Way},
    config::LeakConfig,
    sources::{Charge, Limits, Sources},
};
use crate::{
    findings::{Desk, FindingSink},
    ipam::{OverlapTracker, Places, classify},
    record::{RuleId, Severity},
    time::Timestamp,
};

/// The rule and its incidents.
#[derive(Clone, Debug)]
pub(super) struct Leak {
    enabled: bool,
    pub(super) sources: Sources,
}

impl Leak {
    pub(super) fn new(config: &LeakConfig, seed: [u64; 4]) -> Self {
        let limits = Limits {
            per_prefix: config.sources_per_prefix,
            sources: config.max_sources,
            incidents: config.limit,
            quiet_seconds: config.quiet_seconds,
            prefix_of,
        };
        Self { enabled: config.enabled, sources: Sources::new(RuleId::LeakPrivate, limits, seed) }
    }

    /// A packet on an outside link. `tracker` knows who was observed using the source.
    pub(super) fn on_crossing(
        &mut self,
        crossing: &Crossing,
        tracker: &OverlapTracker,
        places: &Places,
        desk: &Desk,
        sink: &mut FindingSink<'_>,
    ) {
        let source = classify(crossing.source);
        let Way::Leaving(confidence) = crossing.way else { return };
        // What is not sent to a global destination stays on the link: routing, discovery, DHCP.
        if !self.enabled
            || source.globally_reachable
            || !source.is_unicast()
            || !classify(crossing.destination).globally_reachable
        {
            return;
        }
        // Routers that answer traceroute from private link addresses leak too, but nobody's connection fails.
        let severity = if crossing.is_icmp_error { Severity::Low } else { Severity::Medium };
        let charge = Charge { severity, confidence, what: "leaves to the internet untranslated" };
        let owners = match crossing.secretariat {
            Some(_) => Vec::new(),
            None => tracker.owners(crossing.source, crossing.time),
        };
        self.sources.charge(crossing, charge, &owners, places, desk, sink);
    }

    /// An address was observed in use: whoever uses a source that leaks is named, where nothing else says whose
    /// it is.
    pub(super) fn on_observation(
        &mut self,
        address: IpAddr,
        tracker: &OverlapTracker,
        now: Timestamp,
        desk: &Desk,
        sink: &mut FindingSink<'_>,
    ) {
        if self.sources.lacks_owner(address) {
            self.sources.on_owners(address, &tracker.owners(address, now), now, desk, sink);
        }
    }
}

/// The network that a missing translation is likely for.
fn prefix_of(source: IpAddr) -> IpNet {
    let length = if source.is_ipv4() { 16 } else { 48 };
    IpNet::new(source, length).map_or_else(|_| IpNet::from(source), |net| net.trunc())
}
