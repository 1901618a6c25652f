//! Tells the service manager that the collector is alive, as long as it gets on with its work: the thread that commits
//! takes its turn, and the control database answers. A process that only exists is started anew.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

use crate::{
    run::notify,
    store::{Store, StoreError, WriterHandle},
};

/// Watches, if the service manager wants it; to be aborted at the very end.
pub(crate) fn start(store: &Store, writer: WriterHandle) -> Option<JoinHandle<()>> {
    let limit = sd_notify::watchdog_enabled()?;
    Some(tokio::spawn(watch(store.clone(), writer, limit / 3)))
}

/// Looks every so often. A look takes as long as it takes: while it hangs, nothing is told.
async fn watch(store: Store, writer: WriterHandle, every: Duration) {
    loop {
        match look(&store, &writer).await {
            // A stop has a limit of its own, and the thread that commits ends before everything else has.
            Ok(()) | Err(StoreError::Stopping) => notify(&[NotifyState::Watchdog]),
            Err(error) => {
                tracing::error!("the service manager is not told that all is well: {error}");
            }
        }
        tokio::time::sleep(every).await;
    }
}

/// Ends well once the store has done one thing of each kind.
async fn look(store: &Store, writer: &WriterHandle) -> Result<(), StoreError> {
    writer.turn().await?;
    store.call(|store| store.read(|control| control.query_row("SELECT 1", [], |_| Ok(())))).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Sensor, Site};

    #[tokio::test]
    async fn a_look_passes_behind_what_is_to_be_committed_and_fails_once_the_writer_has_stopped() {
        let site = Site::new();
        let config = site.config.store.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&config)).await.expect("it opens");
        let (store, writer) = opened.expect("a store");
        let mut sensor = Sensor::new("boston-1");
        sensor.enter(&store);
        let handle = writer.handle();
        let batch = sensor.seal(&crate::seed::body(&[], &[]));
        let mut verdict = handle.submit(sensor.incoming(&batch)).await.expect("the writer runs");
        look(&store, &handle).await.expect("the store works");
        assert!(verdict.try_recv().is_ok(), "the batch before it is committed");
        tokio::task::spawn_blocking(move || writer.stop()).await.expect("it stops");
        assert!(matches!(look(&store, &handle).await, Err(StoreError::Stopping)));
    }
}
