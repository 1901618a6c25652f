//! What one batch changes: inventory, overlaps, findings, losses.

use std::sync::Arc;

use onenet_core::{
    net::Name,
    plan::AddressPlan,
    record::{FindingChange, FindingId, Observation},
    time::Timestamp,
};
use rusqlite::Transaction;

use super::{COLLECTOR, finding, overlap};
use crate::{
    custody::{self, SensorsConfig},
    store::{Records, StoredBatch, control_findings, control_inventory, control_losses},
};

/// Overlaps looked at for their end with one batch; the others come with the next.
const MAX_ENDED: u32 = 256;

/// Applies batches within one transaction.
pub(super) struct Applier<'a> {
    transaction: &'a Transaction<'a>,
    plan: &'a Arc<AddressPlan>,
    sensors: &'a SensorsConfig,
    source: Name,
    /// Collector time of the batch that is applied.
    recorded: Timestamp,
}

impl<'a> Applier<'a> {
    pub(super) fn new(
        transaction: &'a Transaction<'a>,
        plan: &'a Arc<AddressPlan>,
        sensors: &'a SensorsConfig,
    ) -> Self {
        Self { transaction, plan, sensors, source: Name::from(COLLECTOR), recorded: Timestamp(0) }
    }

    /// Applies the records of one batch.
    pub(super) fn apply(&mut self, batch: &StoredBatch, records: &Records) -> Result<(), rusqlite::Error> {
        self.recorded = batch.received_at;
        for observation in &records.observations {
            self.observe(observation)?;
        }
        if let Some(now) = records.observations.iter().map(|observation| observation.last_seen).max() {
            self.end_overlaps(now)?;
        }
        for change in &records.findings {
            self.tell(&batch.sensor, change.clone())?;
        }
        for (ordinal, loss) in records.losses.iter().enumerate() {
            control_losses::put(self.transaction, batch, ordinal, loss)?;
        }
        custody::judge(self.transaction, self.plan, self.sensors, batch, records)
    }

    /// Enters one observation into the inventory, and what it means for the address in other address spaces.
    fn observe(&self, observation: &Observation) -> Result<(), rusqlite::Error> {
        let entry = control_inventory::upsert(self.transaction, observation)?;
        if !overlap::may_overlap(&entry) {
            return Ok(());
        }
        let entries = control_inventory::of_address(self.transaction, observation.address)?;
        let Some(change) = overlap::assess(self.plan, &entries) else { return Ok(()) };
        let told = control_findings::source(self.transaction, change.finding_id, COLLECTOR)?;
        if overlap::is_news(told.as_ref(), &change) {
            let id = change.finding_id;
            let revision = told.map_or(0, |told| told.revision.saturating_add(1));
            self.tell(&self.source, FindingChange { revision, ..change })?;
            self.look_again(id, observation.last_seen)?;
        }
        Ok(())
    }

    /// Closes overlaps that the inventory no longer shows at `now`, which is packet time.
    fn end_overlaps(&self, now: Timestamp) -> Result<(), rusqlite::Error> {
        for told in control_findings::due(self.transaction, COLLECTOR, now, MAX_ENDED)? {
            let entries = match told.subject.address {
                Some(address) => control_inventory::of_address(self.transaction, address)?,
                None => Vec::new(),
            };
            let id = told.finding_id;
            match overlap::ended(&told, &entries, now) {
                Some(change) => {
                    self.tell(&self.source, change)?;
                    control_findings::set_due(self.transaction, id, COLLECTOR, None)?;
                }
                None => self.look_again(id, now)?,
            }
        }
        Ok(())
    }

    fn look_again(&self, id: FindingId, now: Timestamp) -> Result<(), rusqlite::Error> {
        control_findings::set_due(self.transaction, id, COLLECTOR, Some(now.plus(overlap::window())))
    }

    fn tell(&self, source: &Name, told: FindingChange) -> Result<(), rusqlite::Error> {
        tell(self.transaction, self.plan, source, told, self.recorded)
    }
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
