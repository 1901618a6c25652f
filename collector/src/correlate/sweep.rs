//! Looks at everything: each use against the plan, each address in several spaces, each claim for a use. Done when the
//! plan changes, and every six hours of packet time, because claims go dark by nothing happening.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use onenet_core::{
    findings::Draft,
    ipam::{Claim, classify},
    net::Name,
    plan::PrefixStatus,
    record::{Confidence, Evidence, RuleId, Severity, Subject},
    time::{NANOS_PER_SECOND, Timestamp},
};
use rusqlite::Connection;

use super::{groups, judge::Judge};
use crate::{
    plan::check::overlapping_claims,
    store::inventory_sweep::{self, Used},
};

/// Packet time between two sweeps.
pub(super) const EVERY: i64 = 6 * 3_600 * NANOS_PER_SECOND;
/// Prefixes in several claims that have a finding of their own; the widest come first.
const MAX_DECLARED: usize = 1_000;
/// Dark claims that a finding names.
const MAX_NAMED: usize = 16;
const VERSION: u32 = 1;

/// What a sweep found to be done.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Addresses in use in several spaces.
    pub(super) overlapping: Vec<IpAddr>,
    /// Groups that gained or lost addresses.
    pub(super) groups: BTreeSet<String>,
    /// What the plan itself gives reason to say.
    pub(super) drafts: Vec<Draft>,
    /// Uses that were looked at.
    pub(super) uses: u64,
    /// Uses that stand to the plan in another way than before.
    pub(super) changed: usize,
}

/// Looks at everything that is in use, brings the standing of each entry up to date, and gives what is to be judged
/// anew. `began` is when the first observation was made.
pub(super) fn sweep(
    connection: &Connection,
    judge: &Judge,
    began: Timestamp,
    now: Timestamp,
) -> Result<Found, rusqlite::Error> {
    let mut found = Found::default();
    let mut used_claims = vec![false; judge.claims.all().len()];
    let mut changed: Vec<(Used, Option<String>)> = Vec::new();
    let mut last: Option<IpAddr> = None;
    let (horizon, dark_from) = (judge.horizon(now), now.plus(judge.config.dark().saturating_neg()));
    inventory_sweep::for_each_used(connection, |used| {
        if !classify(used.address).is_private() {
            return;
        }
        found.uses = found.uses.saturating_add(1);
        if used.secretariat.is_some() && used.last_seen >= horizon {
            if last == Some(used.address) && found.overlapping.last() != Some(&used.address) {
                found.overlapping.push(used.address);
            }
            last = Some(used.address);
        }
        if used.last_seen >= dark_from {
            mark_used(judge, &used, &mut used_claims);
        }
        let of = (used.address, &*used.address_space);
        let standing = groups::standing(judge, of, used.secretariat.as_ref(), used.strength);
        if standing != used.standing {
            found.groups.extend(used.standing.iter().chain(&standing).cloned());
            changed.push((used, standing));
        }
    })?;
    found.changed = changed.len();
    for (used, standing) in &changed {
        inventory_sweep::set_standing(connection, used.address, &used.address_space, standing.as_deref())?;
    }
    found.drafts = declared(judge);
    // What was never looked at for so long is not dark.
    if began <= dark_from {
        found.drafts.extend(dark(judge, &used_claims, now));
    }
    Ok(found)
}

fn mark_used(judge: &Judge, used: &Used, claims: &mut [bool]) {
    for number in judge.claims.covering(used.address) {
        if judge.claims.all().get(number).is_some_and(|claim| claim.address_space == used.address_space)
            && let Some(mark) = claims.get_mut(number)
        {
            *mark = true;
        }
    }
}

/// Claims of several address spaces that share addresses: a finding for each prefix that is contested.
fn declared(judge: &Judge) -> Vec<Draft> {
    let claims: Vec<&Claim> = judge.claims.all().iter().collect();
    let mut contested: BTreeMap<IpNet, BTreeSet<(IpNet, Name, Name)>> = BTreeMap::new();
    let mut order: Vec<IpNet> = Vec::new();
    let (pairs, _) = overlapping_claims(&claims);
    for (outer, inner) in pairs {
        let entry = contested.entry(inner.cidr).or_insert_with(|| {
            order.push(inner.cidr);
            BTreeSet::new()
        });
        for claim in [outer, inner] {
            entry.insert((claim.cidr, claim.address_space.clone(), claim.secretariat.clone()));
        }
    }
    order.truncate(MAX_DECLARED);
    let exempt = |cidr: &&IpNet| !judge.is_exempt(RuleId::OverlapDeclared, cidr.network());
    order.iter().filter(exempt).filter_map(|cidr| Some(contest(*cidr, contested.get(cidr)?))).collect()
}

fn contest(cidr: IpNet, claims: &BTreeSet<(IpNet, Name, Name)>) -> Draft {
    let named: Vec<String> =
        claims.iter().take(MAX_NAMED).map(|(cidr, space, _)| format!("{cidr} in {space}")).collect();
    let mut evidence = Evidence::default();
    evidence.counts.insert("claims".to_owned(), claims.len() as u64);
    Draft {
        key: format!("{}|{cidr}", RuleId::OverlapDeclared),
        rule: RuleId::OverlapDeclared,
        rule_version: VERSION,
        first_seen: Timestamp(0),
        last_seen: Timestamp(0),
        severity: Severity::Medium,
        confidence: 100,
        summary: format!("{cidr} is claimed more than once: {}", named.join(", ")),
        subject: Subject { prefix: Some(cidr), ..Subject::default() },
        interface: None,
        address_spaces: claims.iter().map(|(_, space, _)| space.clone()).collect(),
        secretariats: claims.iter().map(|(.., secretariat)| secretariat.clone()).collect(),
        evidence,
    }
}

/// Whether a claim is a finding where nothing in it is used.
fn must_be_used(judge: &Judge, claim: &Claim) -> bool {
    claim.status == PrefixStatus::Active && !judge.is_exempt(RuleId::ClaimDark, claim.cidr.network())
}

/// Active claims in which nothing was used, for each secretariat one finding.
fn dark(judge: &Judge, used: &[bool], now: Timestamp) -> Vec<Draft> {
    let mut by_owner: BTreeMap<&Name, (u64, Vec<&Claim>)> = BTreeMap::new();
    for (claim, used) in judge.claims.all().iter().zip(used) {
        if !must_be_used(judge, claim) {
            continue;
        }
        let (active, dark) = by_owner.entry(&claim.secretariat).or_default();
        *active += 1;
        if !used {
            dark.push(claim);
        }
    }
    let days = judge.config.dark_days;
    let draft = |(owner, (active, dark)): (&Name, (u64, Vec<&Claim>))| {
        let first = dark.first()?;
        let mut evidence = Evidence::default();
        evidence.counts.insert("active_claims".to_owned(), active);
        evidence.counts.insert("dark_claims".to_owned(), dark.len() as u64);
        let named: Vec<String> = dark.iter().take(MAX_NAMED).map(|claim| claim.cidr.to_string()).collect();
        let more = if dark.len() > MAX_NAMED { ", …" } else { "" };
        let confidence: Confidence = 80;
        Some(Draft {
            key: format!("{}|{owner}", RuleId::ClaimDark),
            rule: RuleId::ClaimDark,
            rule_version: VERSION,
            first_seen: now,
            last_seen: now,
            severity: Severity::Low,
            confidence,
            summary: format!(
                "{} of {active} active claims of {owner} had no address in use for {days} days: {}{more}",
                dark.len(),
                named.join(", ")
            ),
            subject: Subject::default(),
            interface: None,
            address_spaces: vec![first.address_space.clone()],
            secretariats: vec![owner.clone()],
            evidence,
        })
    };
    by_owner.into_iter().filter_map(draft).collect()
}

/// Claims that are dark at `now`, whichever finding names them: for reports.
pub(crate) fn dark_claims<'a>(
    connection: &Connection,
    judge: &'a Judge,
    now: Timestamp,
) -> Result<Vec<&'a Claim>, rusqlite::Error> {
    let mut used_claims = vec![false; judge.claims.all().len()];
    let dark_from = now.plus(judge.config.dark().saturating_neg());
    inventory_sweep::for_each_used(connection, |used| {
        if used.last_seen >= dark_from {
            mark_used(judge, &used, &mut used_claims);
        }
    })?;
    let claims = judge.claims.all().iter().zip(used_claims);
    let is_dark = |(claim, used): &(&Claim, bool)| must_be_used(judge, claim) && !used;
    Ok(claims.filter(is_dark).map(|(claim, _)| claim).collect())
}
