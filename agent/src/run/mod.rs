//! `onenet-agent run`: the one loop of the agent, as threads.
//!
//! ```text
//!  sources ─ packet ▶ Sensor ─ records ▶ Batcher ─ Draft ▶ SealLoop ─ SealedBatch ▶ spool ─ Entry ▶ Shipper ▶ collector
//!  └────────── thread "sensor" ───────────────┘            └──── thread "seal" ───────┘              └─ tokio ─┘
//! ```
//!
//! # Captures and restarts
//! A capture is read again from its start by every run, and the records that are sealed already are passed over.
//! That works because the engine is deterministic: the same captures under the same settings give the same
//! records in the same order. Each batch in the spool carries the fingerprint of its run (captures, settings,
//! version) and how many of the run's records are sealed with it; a run with the fingerprint of the last batch
//! passes over that many, any other begins at none. So a kill at any moment neither loses nor repeats a record,
//! and running finished captures again ships nothing twice. For the same reason a stop in the middle of a capture
//! leaves live flows alone: they are not ended, the next run goes on with them. The account goes on too: a run that
//! continues another continues its monotonic time, and tells its ledger once it has caught up. Plan and thresholds are not
//! reloaded while captures are read.
//!
//! # Batches that the collector cannot take
//! Where the next batch does not follow what the collector holds (a damaged record in the spool, a sensor or a
//! collector restored from an older copy), everything behind that point is sealed anew in a new, greater epoch,
//! which holds once all of it is durable; what is missing becomes a loss record. A collector that holds less than it
//! has cosigned is refused until an operator accepts it (see [`crate::ship`]).
//!
//! # What a kill can take
//! From interfaces, what is not on stable storage yet: records wait at most `batch.max_delay_ms` for their batch, and
//! a batch at most `spool.fsync_ms` for its fsync. Losses are sealed at once when shedding begins and every second
//! while it goes on, so that no more than a second of their account can go the same way.

mod aggregate;
mod anew;
mod batch;
mod feed;
mod live;
mod loss;
mod pulse;
mod pump;
mod seal;
mod shed;
mod start;
mod supervise;
mod view;

#[cfg(test)]
mod tests;

use std::path::Path;

use crate::config::ConfigArgs;

pub use feed::{Feed, Made, RecordSource};
pub(crate) use loss::Losses;
#[cfg(test)]
pub(crate) use loss::Place;
pub(crate) use seal::wall_time;
pub(crate) use view::{SourceView, View};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Exit once every capture file has been read and the collector has acknowledged everything; with exit code 1
    /// where one could not be read to its end
    #[arg(long)]
    until_end: bool,
}

/// Runs the command.
pub fn run(args: &RunArgs) -> Result<(), anyhow::Error> {
    let started = start::start(&args.config.config, args.until_end, None)?;
    supervise::supervise(started)
}

/// Runs the agent on the records of a program instead of on the sources of its configuration.
pub fn run_feed(config: &Path, until_end: bool, feed: Feed) -> Result<(), anyhow::Error> {
    let started = start::start(config, until_end, Some(feed))?;
    supervise::supervise(started)
}
