//! Rules about uses that are not as the plan says, summed by prefix: nobody claims the address (address.undeclared),
//! another secretariat does (address.misplaced), or a whole prefix of another's arrives through a router
//! (overlap.routed). An address counts once something answered for it, so that forged sources raise nothing.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use onenet_core::{
    findings::Draft,
    ipam::{Standing, classify},
    net::{MacAddress, Name},
    record::{Evidence, RuleId, Severity, Strength, Subject},
    time::Timestamp,
};
use rusqlite::Connection;

use super::judge::Judge;
use crate::store::{control_inventory::InventoryEntry, inventory_sweep};

/// Entries of a group that are looked at for its finding.
const SAMPLE: u32 = 64;
/// Observations in one finding.
const MAX_EVIDENCE: usize = 16;
/// Addresses of one prefix behind one station from which on the prefix is routed there.
const ROUTED: usize = 4;
const VERSION: u32 = 1;

/// Where the use of an address is not as the plan says: the key of the group it belongs to.
pub(super) fn standing(
    judge: &Judge,
    (address, address_space): (IpAddr, &str),
    secretariat: Option<&Name>,
    strength: Strength,
) -> Option<String> {
    let secretariat =
        secretariat.filter(|_| strength == Strength::Strong && classify(address).is_private())?;
    if judge.claims.is_empty() {
        return None;
    }
    match judge.claims.standing(address, address_space) {
        Standing::Declared => None,
        // An anycast address is at home everywhere.
        _ if judge.desk.shared().has(address, address_space) => None,
        Standing::Misplaced { cidr, owner } => {
            let rule = RuleId::AddressMisplaced;
            (!judge.is_exempt(rule, address)).then(|| format!("{rule}|{secretariat}|{cidr}|{owner}"))
        }
        Standing::Undeclared => {
            let rule = RuleId::AddressUndeclared;
            let length = if address.is_ipv4() { 24 } else { 64 };
            let prefix = IpNet::new(address, length).map_or(address.into(), |net| net.trunc());
            (!judge.is_exempt(rule, address)).then(|| format!("{rule}|{address_space}|{prefix}"))
        }
    }
}

/// A group as its key names it.
struct Group<'a> {
    rule: RuleId,
    /// Address space of what is undeclared, or the secretariat that uses what is another's.
    user: &'a str,
    prefix: IpNet,
    owner: Option<&'a str>,
}

impl<'a> Group<'a> {
    fn of(key: &'a str) -> Option<Self> {
        let mut parts = key.split('|');
        let rule = parts.next()?.parse().ok()?;
        Some(Self { rule, user: parts.next()?, prefix: parts.next()?.parse().ok()?, owner: parts.next() })
    }
}

/// Keys of the findings that may stand for a group: that of its addresses, and that of its prefix.
pub(super) fn finding_keys(key: &str) -> [String; 2] {
    let routed = key.replacen(RuleId::AddressMisplaced.as_str(), RuleId::OverlapRouted.as_str(), 1);
    [key.to_owned(), routed]
}

/// The group that a finding stands for.
pub(crate) fn group_of(finding_key: &str) -> String {
    finding_key.replacen(RuleId::OverlapRouted.as_str(), RuleId::AddressMisplaced.as_str(), 1)
}

/// What a group gives reason to say at `now`; nothing where none of its addresses was in use of late.
pub(super) fn assess(
    connection: &Connection,
    judge: &Judge,
    key: &str,
    now: Timestamp,
) -> Result<Option<Draft>, rusqlite::Error> {
    let Some(group) = Group::of(key) else { return Ok(None) };
    let sum = inventory_sweep::group(connection, key, judge.horizon(now))?;
    if sum.addresses == 0 {
        return Ok(None);
    }
    let sample = inventory_sweep::of_group(connection, key, judge.horizon(now), SAMPLE)?;
    let forwarder = group.owner.and_then(|_| forwarder(&sample));
    let rule = if forwarder.is_some() { RuleId::OverlapRouted } else { group.rule };
    let mut evidence = Evidence {
        observations: sample
            .iter()
            .filter_map(|entry| entry.witnesses().into_iter().next())
            .take(MAX_EVIDENCE)
            .collect(),
        ..Evidence::default()
    };
    evidence.counts.insert("addresses".to_owned(), sum.addresses);
    evidence.counts.insert("packets".to_owned(), sum.packets);
    let count =
        if sum.addresses == 1 { "1 address".to_owned() } else { format!("{} addresses", sum.addresses) };
    let first = sample.first().map_or_else(String::new, |entry| format!(", such as {}", entry.address));
    let (prefix, user) = (group.prefix, group.user);
    let summary = match (group.owner, forwarder) {
        (Some(owner), Some(mac)) => {
            format!("{prefix} of {owner} arrives on {user}'s segment by {mac}: {count}{first}")
        }
        (Some(owner), None) => format!("{count} of {owner}'s {prefix} in use on {user}'s segment{first}"),
        _ => format!("{count} of {prefix} in use in {user}, which no claim covers{first}"),
    };
    let owner = group.owner.map(Name::from);
    let owner_space = owner.as_ref().and_then(|owner| judge.plan.secretariat(owner));
    let keys = finding_keys(key);
    let [of_addresses, of_prefix] = keys;
    Ok(Some(Draft {
        key: if rule == RuleId::OverlapRouted { of_prefix } else { of_addresses },
        rule,
        rule_version: VERSION,
        first_seen: sum.first_seen,
        last_seen: sum.last_seen,
        severity: if rule == RuleId::AddressUndeclared { Severity::Low } else { Severity::Medium },
        confidence: 90,
        summary,
        subject: Subject { prefix: Some(prefix), ..Subject::default() },
        interface: None,
        address_spaces: sample
            .iter()
            .map(|entry| entry.address_space.clone())
            .chain(owner_space.map(|owner| owner.address_space().clone()))
            .collect(),
        secretariats: sample.iter().filter_map(|entry| entry.secretariat.clone()).chain(owner).collect(),
        evidence,
    }))
}

/// The station through which a prefix arrives: it has several of its addresses, and is none of them itself.
fn forwarder(entries: &[InventoryEntry]) -> Option<MacAddress> {
    let mut carried: BTreeMap<MacAddress, usize> = BTreeMap::new();
    for entry in entries {
        let stations = || entry.usages.iter().flat_map(|usage| &usage.stations);
        if stations().any(|station| station.is_own()) {
            continue;
        }
        let macs: std::collections::BTreeSet<MacAddress> =
            stations().filter_map(|station| station.mac).collect();
        for mac in macs {
            *carried.entry(mac).or_default() += 1;
        }
    }
    carried
        .into_iter()
        .filter(|(_, count)| *count >= ROUTED)
        .max_by_key(|(_, count)| *count)
        .map(|(mac, _)| mac)
}
