//! What one batch changes: inventory, findings about addresses, findings of sensors, losses.

use std::time::{Duration, Instant};

use onenet_core::{
    findings::Draft,
    ipam::is_answer,
    net::Name,
    plan::AddressPlan,
    record::{Change, FindingChange, FindingId, Observation, ObservationKind, RuleId},
    time::Timestamp,
};
use rusqlite::Transaction;

use super::{COLLECTOR, address, finding, groups, judge::Judge, servers, sweep};
use crate::{
    custody::{self, SensorsConfig},
    store::{
        Records, StoredBatch, control_findings,
        control_inventory::{self, Entered, InventoryEntry},
        control_losses, inventory_sweep,
    },
};

/// Findings looked at for their end with one batch; the others come with the next.
const MAX_ENDED: u32 = 256;

/// Applies batches within one transaction.
pub(super) struct Applier<'a> {
    transaction: &'a Transaction<'a>,
    judge: &'a Judge,
    sensors: &'a SensorsConfig,
    source: Name,
    /// Collector time of the batch that is applied.
    recorded: Timestamp,
    /// What the looks at everything came to.
    pub(super) swept: Vec<Swept>,
}

/// What a look at everything came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Swept {
    /// Uses of addresses that were looked at.
    uses: u64,
    /// Addresses in use in several address spaces.
    overlapping: usize,
    /// Uses that stand to the plan in another way than before.
    changed: usize,
    /// Groups of uses that were judged anew because of them.
    groups: usize,
    /// How long it took, for people: nothing depends on it.
    took: Duration,
}

impl Swept {
    /// Tells the operator, once it is committed.
    pub(super) fn tell(&self) {
        let Self { uses, overlapping, changed, groups, took } = self;
        let millis = took.as_millis();
        tracing::info!(uses, overlapping, changed, groups, millis, "every address was judged by the plan");
    }
}

impl<'a> Applier<'a> {
    pub(super) fn new(
        transaction: &'a Transaction<'a>,
        judge: &'a Judge,
        sensors: &'a SensorsConfig,
        recorded: Timestamp,
    ) -> Self {
        Self { transaction, judge, sensors, source: Name::from(COLLECTOR), recorded, swept: Vec::new() }
    }

    /// Applies the records of one batch.
    pub(super) fn apply(&mut self, batch: &StoredBatch, records: &Records) -> Result<(), rusqlite::Error> {
        self.recorded = batch.received_at;
        for observation in &records.observations {
            self.observe(observation)?;
        }
        if let Some(now) = records.observations.iter().map(|observation| observation.last_seen).max() {
            self.end(now)?;
            self.sweep_if_due(now)?;
        }
        for change in &records.findings {
            self.tell(&batch.sensor, change.clone())?;
        }
        for (ordinal, loss) in records.losses.iter().enumerate() {
            control_losses::put(self.transaction, batch, ordinal, loss)?;
        }
        custody::judge(self.transaction, &self.judge.plan, self.sensors, batch, records)
    }

    /// Enters one observation into the inventory, and what it means there.
    fn observe(&self, observation: &Observation) -> Result<(), rusqlite::Error> {
        let now = observation.last_seen;
        if observation.aggregate.is_some() {
            return inventory_sweep::add_sum(self.transaction, observation);
        }
        if observation.kind == ObservationKind::DhcpServer
            && let Some(draft) = servers::dhcp(self.transaction, self.judge, observation)?
        {
            self.raise(draft, now)?;
        }
        let standing = |entry: &InventoryEntry| {
            let of = (entry.address, &*entry.address_space);
            groups::standing(self.judge, of, entry.secretariat.as_ref(), entry.strength)
        };
        let Entered { entry, before, others } =
            control_inventory::upsert(self.transaction, observation, standing)?;
        if entry.standing != before {
            for key in before.iter().chain(&entry.standing) {
                self.judge_group(key, now)?;
            }
        }
        if is_answer(observation) {
            for draft in servers::gateway(self.judge, &entry, now) {
                self.raise(draft, now)?;
            }
        }
        if Judge::may_overlap(&entry) {
            // Most addresses are in one space, at one place.
            let is_simple = entry.usages.iter().all(|usage| usage.swaps == 0) && entry.usages.len() < 2;
            if !(others.is_empty() && is_simple) {
                let mut entries = others;
                entries.push(entry);
                self.judge_address(entries, now)?;
            }
        }
        Ok(())
    }

    fn judge_address(&self, mut entries: Vec<InventoryEntry>, now: Timestamp) -> Result<(), rusqlite::Error> {
        entries.sort_by(|a, b| a.address_space.cmp(&b.address_space));
        for draft in address::assess(self.judge, &entries, now) {
            self.raise(draft, now)?;
        }
        Ok(())
    }

    /// Tells what there is to say of a group, and closes what no longer stands for it.
    fn judge_group(&self, key: &str, now: Timestamp) -> Result<(), rusqlite::Error> {
        let draft = groups::assess(self.transaction, self.judge, key, now)?;
        let stands = draft.as_ref().map(|draft| draft.key.clone());
        for other in groups::finding_keys(key).iter().filter(|other| Some(*other) != stands.as_ref()) {
            self.close(FindingId::of_key(other), now)?;
        }
        draft.map_or(Ok(()), |draft| self.raise(draft, now))
    }

    /// Looks at everything where the plan has changed, or enough time has passed.
    pub(super) fn sweep_if_due(&mut self, now: Timestamp) -> Result<(), rusqlite::Error> {
        let last = inventory_sweep::last_sweep(self.transaction)?;
        let is_due = last.as_ref().is_none_or(|last| {
            let passed = last.swept.is_none_or(|swept| now.since(swept) >= sweep::EVERY);
            last.plan != self.judge.identity || passed
        });
        if !is_due {
            return Ok(());
        }
        let began = last.and_then(|last| last.began).unwrap_or(now);
        self.sweep(began, now)?;
        inventory_sweep::put_sweep(self.transaction, &self.judge.identity, Some((began, now)))
    }

    /// Looks at the plan where it has changed and nothing was ever observed. `now` is the collector's clock.
    pub(super) fn look_at_plan(&mut self, now: Timestamp) -> Result<(), rusqlite::Error> {
        let last = inventory_sweep::last_sweep(self.transaction)?;
        if last.is_some_and(|last| last.plan == self.judge.identity) {
            return Ok(());
        }
        self.sweep(now, now)?;
        inventory_sweep::put_sweep(self.transaction, &self.judge.identity, None)
    }

    fn sweep(&mut self, began: Timestamp, now: Timestamp) -> Result<(), rusqlite::Error> {
        let started = Instant::now();
        let found = sweep::sweep(self.transaction, self.judge, began, now)?;
        let mut swept = Swept {
            uses: found.uses,
            overlapping: found.overlapping.len(),
            changed: found.changed,
            groups: found.groups.len(),
            took: Duration::ZERO,
        };
        for address in found.overlapping {
            self.judge_address(control_inventory::of_address(self.transaction, address)?, now)?;
        }
        for key in &found.groups {
            self.judge_group(key, now)?;
        }
        let keys: Vec<FindingId> = found.drafts.iter().map(|draft| FindingId::of_key(&draft.key)).collect();
        for draft in found.drafts {
            self.raise(Draft { first_seen: now, last_seen: now, ..draft }, now)?;
        }
        for rule in [RuleId::OverlapDeclared, RuleId::ClaimDark] {
            for told in control_findings::open_of(self.transaction, rule, COLLECTOR)? {
                if !keys.contains(&told) {
                    self.close(told, now)?;
                }
            }
        }
        swept.took = started.elapsed();
        self.swept.push(swept);
        Ok(())
    }

    /// Tells a finding where it is news.
    fn raise(&self, draft: Draft, now: Timestamp) -> Result<(), rusqlite::Error> {
        let id = FindingId::of_key(&draft.key);
        let told = control_findings::source(self.transaction, id, COLLECTOR)?;
        let revision = told.as_ref().map_or(0, |told| told.revision.saturating_add(1));
        let change = draft.into_change(Change::Updated, revision, now, &self.judge.desk);
        if !is_news(told.as_ref(), &change) {
            return Ok(());
        }
        self.tell(&self.source, change)?;
        self.look_again(id, now)
    }

    /// Closes a finding of ours that is open.
    fn close(&self, id: FindingId, now: Timestamp) -> Result<(), rusqlite::Error> {
        match control_findings::source(self.transaction, id, COLLECTOR)? {
            Some(told) if told.change != Change::Closed => {
                let revision = told.revision.saturating_add(1);
                self.tell(
                    &self.source,
                    FindingChange { change: Change::Closed, revision, time: now, ..told },
                )?;
                control_findings::set_due(self.transaction, id, COLLECTOR, None)
            }
            _ => Ok(()),
        }
    }

    /// Closes findings that the inventory no longer shows at `now`, which is packet time.
    fn end(&self, now: Timestamp) -> Result<(), rusqlite::Error> {
        for told in control_findings::due(self.transaction, COLLECTOR, now, MAX_ENDED)? {
            if self.goes_on(&told, now)? {
                self.look_again(told.finding_id, now)?;
            } else {
                self.close(told.finding_id, now)?;
            }
        }
        Ok(())
    }

    fn goes_on(&self, told: &FindingChange, now: Timestamp) -> Result<bool, rusqlite::Error> {
        let entries = || match told.subject.address {
            Some(address) => control_inventory::of_address(self.transaction, address),
            None => Ok(Vec::new()),
        };
        let has = |drafts: Vec<Draft>| drafts.iter().any(|draft| draft.key == told.key);
        Ok(match told.rule {
            RuleId::OverlapAddress | RuleId::AddressDuplicate => {
                has(address::assess(self.judge, &entries()?, now))
            }
            RuleId::GatewayMac => {
                entries()?.iter().any(|entry| has(servers::gateway(self.judge, entry, now)))
            }
            RuleId::AddressUndeclared | RuleId::AddressMisplaced | RuleId::OverlapRouted => {
                let group = groups::group_of(&told.key);
                has(groups::assess(self.transaction, self.judge, &group, now)?.into_iter().collect())
            }
            RuleId::DhcpRogue => match told.subject.address {
                Some(address) => {
                    inventory_sweep::dhcp_server_since(self.transaction, address)? >= self.judge.horizon(now)
                }
                None => false,
            },
            // The sweep ends these.
            _ => true,
        })
    }

    fn look_again(&self, id: FindingId, now: Timestamp) -> Result<(), rusqlite::Error> {
        let due = now.plus(self.judge.config.window());
        control_findings::set_due(self.transaction, id, COLLECTOR, Some(due))
    }

    fn tell(&self, source: &Name, told: FindingChange) -> Result<(), rusqlite::Error> {
        tell(self.transaction, &self.judge.plan, source, told, self.recorded)
    }
}

/// Whether an assessment is news beside what was last told: the first, one that weighs otherwise, or one whose
/// evidence has doubled. Anything less would send the SIEM an event with every packet of an overlap.
fn is_news(told: Option<&FindingChange>, now: &FindingChange) -> bool {
    let Some(told) = told else { return true };
    let count = |change: &FindingChange, name| change.evidence.counts.get(name).copied().unwrap_or(0);
    let has_grown = match now.rule {
        RuleId::ClaimDark => count(now, "dark_claims") != count(told, "dark_claims"),
        RuleId::OverlapDeclared => now.summary != told.summary,
        RuleId::AddressUndeclared | RuleId::AddressMisplaced | RuleId::OverlapRouted => {
            count(now, "addresses") >= count(told, "addresses").saturating_mul(2)
        }
        RuleId::GatewayMac | RuleId::DhcpRogue => false,
        _ => count(now, "packets") >= count(told, "packets").saturating_mul(2),
    };
    let grade = |change: &FindingChange| (change.severity, change.confidence, change.evidence.verdict);
    told.change == Change::Closed
        || has_grown
        || grade(told) != grade(now)
        || told.address_spaces != now.address_spaces
        || told.secretariats != now.secretariats
}

/// Enters what a source tells of a finding, and the change of the merged finding where there is one. `recorded` is
/// collector time.
pub(crate) fn tell(
    transaction: &Transaction<'_>,
    plan: &AddressPlan,
    source: &Name,
    told: FindingChange,
    recorded: Timestamp,
) -> Result<(), rusqlite::Error> {
    let (id, time) = (told.finding_id, told.time);
    let mut sources = control_findings::sources(transaction, id)?;
    let before = control_findings::finding(transaction, id)?;
    let known = sources.remove(source);
    let now = finding::absorb(known.clone(), told);
    if known.as_ref() == Some(&now) {
        return Ok(());
    }
    control_findings::put_source(transaction, source, &now)?;
    sources.insert(source.clone(), now);
    match finding::fold(&sources, before.as_ref(), time, plan) {
        Some(merged) if before.as_ref() != Some(&merged) => {
            control_findings::put_finding(transaction, &merged, recorded)
        }
        _ => Ok(()),
    }
}
