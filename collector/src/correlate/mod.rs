//! The correlator: follows the committed batches after a durable cursor and turns them into inventory and
//! findings.
//!
//! Each step is one transaction of the control database: what the batches change and the cursor behind them
//! are committed together, so a kill at any point leaves the state of some whole number of batches, and the next
//! step goes on from there. Nothing is kept in memory between steps, and the collector's clock is not read
//! (changes carry the time at which their batch was committed), so the same batches give the same state and the
//! same changes however they fall into steps.

mod address;
mod apply;
mod finding;
mod groups;
mod judge;
mod servers;
mod sweep;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use onenet_core::{plan::AddressPlan, time::Timestamp};
use serde::Serialize;
use tokio::sync::watch;

pub(crate) use apply::tell;
use apply::{Applier, Swept};
pub(crate) use finding::{Finding, Sources, State};
pub(crate) use groups::group_of;
pub(crate) use judge::Judge;
pub(crate) use sweep::dark_claims;

use crate::{
    clock,
    config::InventoryConfig,
    custody::SensorsConfig,
    store::{Records, Store, StoreError, StoredBatch, audit, control_cursors, control_inventory},
};

/// The source of findings that the collector raises itself.
pub(crate) const COLLECTOR: &str = "collector";

/// Batches in one step at most.
const STEP: usize = 16;

/// One change of a finding as the feeds, the API and the page read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RecordedChange {
    /// Place among all changes of all findings; later changes have greater numbers.
    pub(crate) sequence: i64,
    /// Collector time of the batch that brought it.
    pub(crate) recorded: Timestamp,
    /// The finding as it was after the change.
    pub(crate) finding: Finding,
}

/// Applies committed batches; tells `changed` after each step. When `stop` says so it ends with the last batch
/// that is committed.
pub(crate) async fn run(
    store: Store,
    mut plan: watch::Receiver<Arc<AddressPlan>>,
    (sensors, inventory): (SensorsConfig, InventoryConfig),
    changed: watch::Sender<u64>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), StoreError> {
    let mut committed = store.committed();
    let mut stopping = false;
    let mut judge = Arc::new(Judge::new(Arc::clone(&plan.borrow_and_update()), inventory.clone()));
    let mut is_new = true;
    loop {
        committed.mark_unchanged();
        if plan.has_changed().unwrap_or(false) {
            judge = Arc::new(Judge::new(Arc::clone(&plan.borrow_and_update()), inventory.clone()));
            is_new = true;
        }
        let mut pause = None;
        let (judging, sensors, swept) = (Arc::clone(&judge), sensors.clone(), std::mem::take(&mut is_new));
        let stepped = store.call(move |store| {
            if swept {
                look(store, &judging, &sensors, clock::now())?;
            }
            step(store, &judging, &sensors, STEP)
        });
        match stepped.await {
            Ok(0) if swept => changed.send_modify(|steps| *steps = steps.wrapping_add(1)),
            Ok(0) => {}
            Ok(_) => {
                changed.send_modify(|steps| *steps = steps.wrapping_add(1));
                continue;
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "correlation waits for the store");
                is_new = swept;
                pause = Some(Duration::from_secs(1));
            }
            Err(error) => return Err(error),
        }
        if stopping {
            return Ok(());
        }
        let waited = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                // The sender lives in the store, which this task holds.
                None => drop(committed.changed().await),
            }
        };
        tokio::select! {
            () = waited => {}
            Ok(()) = plan.changed() => plan.mark_changed(),
            _ = stop.wait_for(|stop| *stop) => stopping = true,
        }
    }
}

/// Applies at most `limit` batches; gives how many there were.
pub(crate) fn step(
    store: &Store,
    judge: &Judge,
    sensors: &SensorsConfig,
    limit: usize,
) -> Result<usize, StoreError> {
    let cursor = store.read(control_cursors::correlated)?;
    commit(store, judge, sensors, &store.batches_after(cursor, limit)?)
}

/// Looks at everything where the plan is another than when that was last done. `now` is the collector's clock, which
/// counts only where nothing was ever observed.
pub(crate) fn look(
    store: &Store,
    judge: &Judge,
    sensors: &SensorsConfig,
    now: Timestamp,
) -> Result<(), StoreError> {
    let swept = store.transaction(|transaction| {
        let mut applier = Applier::new(transaction, judge, sensors, now);
        match control_inventory::latest(transaction)? {
            Some(latest) => applier.sweep_if_due(latest)?,
            None => applier.look_at_plan(now)?,
        }
        Ok(applier.swept)
    })?;
    swept.iter().for_each(Swept::tell);
    Ok(())
}

/// Applies batches, in one transaction with the cursor behind them; gives how many there were.
pub(crate) fn commit(
    store: &Store,
    judge: &Judge,
    sensors: &SensorsConfig,
    batches: &[StoredBatch],
) -> Result<usize, StoreError> {
    let Some(last) = batches.last().map(|batch| batch.cursor) else { return Ok(0) };
    let decoded: Vec<(&StoredBatch, Records)> = batches.iter().map(|batch| (batch, records(batch))).collect();
    let swept = store.transaction(|transaction| {
        let mut applier = Applier::new(transaction, judge, sensors, Timestamp(0));
        for (batch, records) in &decoded {
            applier.apply(batch, records)?;
            audit::sensor_told(transaction, batch, records)?;
        }
        control_cursors::put_correlated(transaction, last)?;
        Ok(applier.swept)
    })?;
    swept.iter().for_each(Swept::tell);
    Ok(batches.len())
}

/// The records of a batch; none where its body makes no sense, which ingest has already told the operator.
fn records(batch: &StoredBatch) -> Records {
    if batch.poison.is_some() {
        return Records::default();
    }
    Records::decode_without_flows(batch.body.clone()).unwrap_or_else(|problem| {
        tracing::error!(sensor = %batch.sensor, batch.epoch, batch.sequence, problem, "batch passed over");
        Records::default()
    })
}
