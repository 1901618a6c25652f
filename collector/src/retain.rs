//! Retention as a task: once an hour, what is older than what is kept is deleted.

use std::time::Duration;

use crate::{clock, store::Store};

/// How often it is looked.
const PAUSE: Duration = Duration::from_secs(3_600);

/// A day in nanoseconds.
const DAY: i64 = 86_400 * 1_000_000_000;

/// Deletes what was received more than `keep_days` ago, until the task is ended; 0 keeps everything.
pub(crate) async fn run(store: Store, keep_days: u32) -> anyhow::Result<()> {
    loop {
        if keep_days > 0 {
            let now = clock::now();
            let before = now.plus(-i64::from(keep_days).saturating_mul(DAY));
            match store.call(move |store| store.delete_before(before, now)).await {
                Ok(deleted) if deleted.is_empty() => {}
                Ok(deleted) => {
                    tracing::info!("segments {deleted:?} are older than {keep_days} days and were deleted");
                }
                Err(error) => {
                    tracing::error!("old segments could not be deleted, tried again in an hour: {error}")
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
