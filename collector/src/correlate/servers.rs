//! Rules about who serves a segment: another station that answers for its gateway (gateway.mac), and a DHCP server that
//! is not its own (dhcp.rogue).

use onenet_core::{
    findings::Draft,
    ipam::{Usage, is_virtual},
    record::{Confidence, Evidence, Observation, ObservationKind, RuleId, Severity, Strength, Subject},
    time::{NANOS_PER_SECOND, Timestamp},
};
use rusqlite::Connection;

use super::judge::Judge;
use crate::store::{control_inventory::InventoryEntry, inventory_sweep};

/// Where the plan names no servers, those of a segment's first day are taken for its own.
const FIRST_DAY: i64 = 86_400 * NANOS_PER_SECOND;
const VERSION: u32 = 1;

/// Whether an address is a gateway of the segment of a use: by the plan, or because it advertises itself as router.
pub(super) fn is_gateway(judge: &Judge, entry: &InventoryEntry, usage: &Usage) -> bool {
    let planned = usage.segment.as_ref().and_then(|id| judge.plan.segment(id));
    planned.is_some_and(|segment| segment.gateways.contains(&entry.address))
        || entry.was_shown_by(ObservationKind::RouterAdvertisement)
}

/// What an entry gives reason to say of its segment's gateway.
pub(super) fn gateway(judge: &Judge, entry: &InventoryEntry, now: Timestamp) -> Vec<Draft> {
    if judge.is_exempt(RuleId::GatewayMac, entry.address)
        || judge.desk.shared().has(entry.address, &entry.address_space)
    {
        return Vec::new();
    }
    let horizon = judge.horizon(now);
    let uses = entry.usages.iter().filter(|usage| usage.last_seen >= horizon);
    uses.filter(|usage| is_gateway(judge, entry, usage))
        .filter_map(|usage| other_station(entry, usage, horizon))
        .collect()
}

fn other_station(entry: &InventoryEntry, usage: &Usage, horizon: Timestamp) -> Option<Draft> {
    let answers = usage.stations.iter().filter(|station| {
        station.strength == Strength::Strong
            && station.is_own()
            && station.last_seen >= horizon
            && station.mac.is_some_and(|mac| !is_virtual(mac))
    });
    let mut stations: Vec<_> = answers.collect();
    stations.sort_by_key(|station| station.first_seen);
    let [first, .., latest] = stations.as_slice() else { return None };
    let (own, other) = (first.mac?, latest.mac?);
    let segment = usage.segment.clone().unwrap_or_else(|| usage.site.clone());
    let mut evidence =
        Evidence { observations: usage.evidence(entry.address).collect(), ..Evidence::default() };
    evidence.counts.insert("stations".to_owned(), stations.len() as u64);
    evidence.counts.insert("swaps".to_owned(), usage.swaps.into());
    // A router that was replaced changes once and stays.
    let (severity, confidence) = if usage.swaps > 1 { (Severity::High, 90) } else { (Severity::Medium, 60) };
    Some(Draft {
        key: format!("{}|{segment}|{}", RuleId::GatewayMac, entry.address),
        rule: RuleId::GatewayMac,
        rule_version: VERSION,
        first_seen: latest.first_seen,
        last_seen: latest.last_seen,
        severity,
        confidence,
        summary: format!(
            "{other} answers for {}, a gateway of {segment}, which was {own} before ({} turns)",
            entry.address, usage.swaps
        ),
        subject: Subject { address: Some(entry.address), ..Subject::default() },
        interface: None,
        address_spaces: vec![entry.address_space.clone()],
        secretariats: usage.secretariat.iter().cloned().collect(),
        evidence,
    })
}

/// Notes a DHCP server; what there is to say of it.
pub(super) fn dhcp(
    connection: &Connection,
    judge: &Judge,
    observation: &Observation,
) -> Result<Option<Draft>, rusqlite::Error> {
    let Some(segment) = &observation.segment else { return Ok(None) };
    let seen = inventory_sweep::note_dhcp_server(connection, observation, segment)?;
    let address = observation.address;
    let stated =
        judge.plan.segment(segment).map(|segment| segment.dhcp_servers.as_slice()).unwrap_or_default();
    let (is_own, confidence): (bool, Confidence) = if stated.is_empty() {
        (seen.first_seen.since(seen.segment_first_seen) < FIRST_DAY, 70)
    } else {
        (stated.contains(&address), 95)
    };
    if is_own || judge.is_exempt(RuleId::DhcpRogue, address) {
        return Ok(None);
    }
    let severity = if stated.is_empty() { Severity::Medium } else { Severity::High };
    let why = if stated.is_empty() { "was not there on its first day" } else { "the plan does not name" };
    let mut evidence = Evidence { observations: vec![observation.into()], ..Evidence::default() };
    evidence.counts.insert("packets".to_owned(), observation.packets);
    Ok(Some(Draft {
        key: format!("{}|{segment}|{address}", RuleId::DhcpRogue),
        rule: RuleId::DhcpRogue,
        rule_version: VERSION,
        first_seen: seen.first_seen,
        last_seen: observation.last_seen,
        severity,
        confidence,
        summary: format!("{address} answers as a DHCP server on {segment}, and {why}"),
        subject: Subject { address: Some(address), ..Subject::default() },
        interface: None,
        address_spaces: vec![observation.address_space.clone()],
        secretariats: observation.secretariat.iter().cloned().collect(),
        evidence,
    }))
}
