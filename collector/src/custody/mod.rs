//! Custody: what the chains, clocks and silences of the sensors mean, as findings with a life. What a committed batch
//! tells (a new epoch, losses, its times) is judged with the batch, in the correlator's transaction; what is refused or
//! does not come at all is judged once a second, by the collector's clock.
//!
//! Each sensor has at most one finding of a rule, `sensor.fork|boston-1`. An [`incident`] holds it as it is known, the
//! control database keeps it, and a change is told only when it is news, so that however often a batch comes, or
//! however many bad ones come, what is written stays bounded. What is judged and the place up to which it was judged
//! are one transaction: a kill at any point neither loses nor repeats a change.

mod batch;
mod clock;
mod incident;
mod tables;
#[cfg(test)]
mod tests;
mod watch;

use std::{sync::Arc, time::Duration};

use onenet_core::{
    plan::AddressPlan,
    time::{NANOS_PER_SECOND, Timestamp},
};
use serde::Deserialize;
use tokio::{sync::watch::Receiver, sync::watch::Sender, time::Instant};

pub(crate) use batch::judge;
pub(crate) use watch::Watch;

use crate::{clock as wall, store::Store};

/// How often what does not come with a batch is judged.
const TICK: Duration = Duration::from_secs(1);

/// The section `[sensors]` of the configuration: when a sensor becomes a finding.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SensorsConfig {
    /// Seconds without a committed batch after which an active sensor is silent. Sensors seal a heartbeat at least every
    /// 30 s.
    pub silent_after_seconds: u32,
    /// Seconds by which a sensor's clock may differ from the collector's, or step.
    pub clock_skew_seconds: u32,
    /// Seconds that batches may be missing before that is a finding: a new stream commonly heals it.
    pub gap_after_seconds: u32,
    /// Seconds without news after which forks, rollbacks, gaps, bad seals and losses are closed.
    pub quiet_seconds: u32,
}

impl Default for SensorsConfig {
    fn default() -> Self {
        Self {
            silent_after_seconds: 50,
            clock_skew_seconds: 120,
            gap_after_seconds: 60,
            quiet_seconds: 3_600,
        }
    }
}

impl SensorsConfig {
    const fn nanos(seconds: u32) -> i64 {
        (seconds as i64).saturating_mul(NANOS_PER_SECOND)
    }

    pub(crate) const fn silent_after(&self) -> i64 {
        Self::nanos(self.silent_after_seconds)
    }

    pub(crate) const fn clock_skew(&self) -> i64 {
        Self::nanos(self.clock_skew_seconds)
    }

    pub(crate) const fn gap_after(&self) -> i64 {
        Self::nanos(self.gap_after_seconds)
    }

    pub(crate) const fn quiet(&self) -> i64 {
        Self::nanos(self.quiet_seconds)
    }
}

/// Judges once a second until `stop` says so, and tells `changed` when there was a change.
pub(crate) async fn run(
    store: Store,
    config: SensorsConfig,
    plan: Receiver<Arc<AddressPlan>>,
    changed: Sender<u64>,
    mut stop: Receiver<bool>,
) {
    let begun = (wall::now(), Instant::now());
    let mut watch = Watch::new(begun.0);
    loop {
        let plan = Arc::clone(&plan.borrow());
        let config = config.clone();
        // Silence is a length of time: the collector's clock may be set meanwhile.
        let lasted = i64::try_from(begun.1.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let steady = begun.0.plus(lasted);
        let judged = store.call(move |store| {
            let told = watch.step(store, &plan, &config, wall::now(), steady);
            Ok((watch, told))
        });
        match judged.await {
            Ok((kept, told)) => {
                watch = kept;
                match told {
                    Ok(0) => {}
                    Ok(_) => changed.send_modify(|steps| *steps = steps.wrapping_add(1)),
                    Err(error) => tracing::warn!(%error, "the sensors cannot be judged now, tried again"),
                }
            }
            Err(error) => {
                tracing::error!(%error, "the sensors are judged no more");
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// A length of time for people: whole seconds.
fn seconds(nanos: i64) -> u64 {
    (nanos / NANOS_PER_SECOND).unsigned_abs()
}

/// Nanoseconds from one moment to another, of either sign.
const fn between(earlier: Timestamp, later: Timestamp) -> i64 {
    later.0.saturating_sub(earlier.0)
}
