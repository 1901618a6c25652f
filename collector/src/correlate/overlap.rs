//! Overlap across both sites: one private address in use in two address spaces, whichever sensors saw it. The
//! judgement is the engine's; this builds what it judges from the inventory, so that nothing has to be remembered
//! beside the inventory and a restart forgets nothing.

use std::sync::Arc;

use onenet_core::{
    findings::Desk,
    ipam::{OverlapConfig, OverlapTracker, classify},
    net::Name,
    plan::AddressPlan,
    record::{Change, FindingChange, Observation, ObservationEvidence},
    time::{NANOS_PER_SECOND, Timestamp},
};

use crate::store::control_inventory::InventoryEntry;

/// Name of the count that an overlap grows by.
const SIZE: &str = "packets";

/// Nanoseconds of packet time within which both uses must be seen, and after which an overlap is closed.
pub(super) fn window() -> i64 {
    i64::from(OverlapConfig::default().window_seconds).saturating_mul(NANOS_PER_SECOND)
}

/// Whether an entry can be one side of an overlap: a use of a private address that the plan places.
pub(super) fn may_overlap(entry: &InventoryEntry) -> bool {
    entry.in_use() && entry.secretariat.is_some() && classify(entry.address).is_private()
}

/// The overlap that the entries of one address make, where they do, stated whole.
pub(super) fn assess(plan: &Arc<AddressPlan>, entries: &[InventoryEntry]) -> Option<FindingChange> {
    let sides: Vec<&InventoryEntry> = entries.iter().filter(|entry| may_overlap(entry)).collect();
    if sides.len() < 2 {
        return None;
    }
    let mut seen: Vec<Observation> = sides.iter().flat_map(|entry| observations(entry)).collect();
    // Oldest first: what lies outside the window of a later use is dropped, never the other way round.
    seen.sort_by_key(|observation| observation.last_seen);
    let config = OverlapConfig { limit: 1, ..OverlapConfig::default() };
    // The collector's own correlation belongs to no one site.
    let desk = Desk::new(Name::from(""), Arc::clone(plan));
    // One address in one table: there is nothing that collisions could be aimed at.
    let mut tracker = OverlapTracker::new(&config, [0; 4]);
    let mut last = None;
    for observation in &seen {
        tracker.on_observation(observation, observation.last_seen, &desk, &mut |change| {
            last = Some(change.clone());
        });
    }
    let now = sides.iter().map(|entry| entry.last_seen).max()?;
    tracker.finish(now, &desk, &mut |change| last = Some(change.clone()));
    last.map(|change| FindingChange { change: Change::Updated, time: now, ..change })
}

/// What the inventory remembers of an entry, as observations. The packets of all are told with the first.
fn observations(entry: &InventoryEntry) -> impl Iterator<Item = Observation> + '_ {
    entry.witnesses.iter().enumerate().map(|(index, witness)| Observation {
        packets: if index == 0 { entry.packets } else { 0 },
        ..observation(entry, witness)
    })
}

fn observation(entry: &InventoryEntry, witness: &ObservationEvidence) -> Observation {
    Observation {
        kind: witness.kind,
        strength: witness.strength,
        address: entry.address,
        address_space: entry.address_space.clone(),
        secretariat: entry.secretariat.clone(),
        segment: witness.segment.clone(),
        site: witness.site.clone(),
        interface: Name::from(""),
        vlans: Default::default(),
        mac: witness.mac,
        first_seen: witness.first_seen,
        last_seen: witness.last_seen,
        packets: 0,
        ttl_min: None,
        ttl_max: None,
        hostname: None,
        lease_seconds: None,
        server: None,
        relay: None,
        vendor_class: None,
        duid: None,
    }
}

/// Whether an assessment is news beside what was last told: the first, one that weighs otherwise, or one whose
/// evidence has doubled. Anything less would send the SIEM an event with every packet of an overlap.
pub(super) fn is_news(told: Option<&FindingChange>, now: &FindingChange) -> bool {
    let size = |change: &FindingChange| change.evidence.counts.get(SIZE).copied().unwrap_or(0);
    let Some(told) = told else { return true };
    let grade = |change: &FindingChange| (change.severity, change.confidence);
    told.change == Change::Closed
        || grade(told) != grade(now)
        || told.address_spaces != now.address_spaces
        || told.secretariats != now.secretariats
        || size(now) >= size(told).saturating_mul(2)
}

/// The change that closes an overlap, where the entries of its address no longer make one at `now`.
pub(super) fn ended(
    told: &FindingChange,
    entries: &[InventoryEntry],
    now: Timestamp,
) -> Option<FindingChange> {
    let horizon = now.plus(window().saturating_neg());
    let in_use = entries.iter().filter(|entry| may_overlap(entry) && entry.last_seen >= horizon).count();
    let last_seen = entries.iter().map(|entry| entry.last_seen).max().unwrap_or(told.last_seen);
    (in_use < 2).then(|| FindingChange {
        change: Change::Closed,
        revision: told.revision.saturating_add(1),
        time: now,
        last_seen: told.last_seen.max(last_seen.min(now)),
        ..told.clone()
    })
}
