//! A feed: reads what follows its cursor, delivers it, moves the cursor. A receiver that cannot be reached delays
//! its own feed and nothing else.

use std::{io, time::Duration};

use tokio::sync::watch;

use super::{
    SiemConfig,
    flow_event::FlowEvent,
    output::{Events, Output},
};
use crate::{
    clock,
    store::{Records, Store, StoreError, control_cursors, control_findings},
};

/// Finding changes delivered at one time.
const CHANGES: u32 = 500;
/// Batches whose flows are delivered at one time.
const BATCHES: usize = 8;
/// Pause after the first failure; it doubles up to `MAX_PAUSE`.
const MIN_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Why a feed does not get on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    /// The receiver cannot be reached or written.
    #[error("{0}")]
    Output(#[from] io::Error),
    /// The store cannot be read.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// One feed.
#[derive(Debug)]
pub(crate) struct Feed {
    name: &'static str,
    target: String,
    output: Output,
    flows: bool,
}

impl Feed {
    /// The feeds of a configuration.
    pub(crate) fn all(config: &SiemConfig) -> Vec<Self> {
        let feed = |name, target, output| Self { name, target, output, flows: config.flows };
        let file = Some(&config.file).filter(|file| file.enabled);
        let file = file.map(|file| feed("file", file.path.display().to_string(), Output::file(file)));
        let syslog = config
            .syslog
            .as_ref()
            .map(|syslog| feed("syslog", syslog.address.clone(), Output::syslog(syslog)));
        file.into_iter().chain(syslog).collect()
    }

    /// What the feed is called in messages and in the store.
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// The file or the receiver.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Delivers some of what follows the cursor; gives how many events. It blocks.
    pub(crate) fn pump(&mut self, store: &Store) -> Result<usize, FeedError> {
        let found = self.pump_findings(store)?;
        let flows = if self.flows { self.pump_flows(store)? } else { 0 };
        Ok(found.saturating_add(flows))
    }

    fn pump_findings(&mut self, store: &Store) -> Result<usize, FeedError> {
        let name = self.name;
        let changes = store.read(|connection| {
            let position = control_cursors::change_cursor(connection, name)?;
            control_findings::changes_after(connection, position, CHANGES)
        })?;
        let Some(last) = changes.last().map(|change| change.sequence) else { return Ok(0) };
        self.output.deliver(Events::Findings(&changes))?;
        store.transaction(|transaction| {
            control_cursors::put_change_cursor(transaction, name, last, clock::now())
        })?;
        Ok(changes.len())
    }

    fn pump_flows(&mut self, store: &Store) -> Result<usize, FeedError> {
        let name = format!("{}-flows", self.name);
        let cursor = store.read(|connection| control_cursors::batch_cursor(connection, &name))?;
        let batches = store.batches_after(cursor, BATCHES)?;
        let Some(last) = batches.last().map(|batch| batch.cursor) else { return Ok(0) };
        let mut flows = Vec::new();
        for batch in batches.iter().filter(|batch| batch.poison.is_none()) {
            let records = Records::decode(batch.body.clone()).unwrap_or_default();
            flows.extend(records.flows.into_iter().map(|record| FlowEvent::new(batch, record)));
        }
        if !flows.is_empty() {
            self.output.deliver(Events::Flows(&flows))?;
        }
        store.transaction(|transaction| control_cursors::put_batch_cursor(transaction, &name, last))?;
        // Batches without flows moved the cursor too, so there may be more behind them.
        Ok(batches.len())
    }
}

/// Runs a feed until `stop` says so and everything that `changed` told of is delivered, or the receiver fails.
pub(crate) async fn run(
    mut feed: Feed,
    store: Store,
    mut changed: watch::Receiver<u64>,
    mut stop: watch::Receiver<bool>,
) {
    let (mut pause, mut stopping) = (None, false);
    loop {
        changed.mark_unchanged();
        let (name, work) = (feed.name, store.clone());
        let pumped = tokio::task::spawn_blocking(move || {
            let result = feed.pump(&work);
            (feed, result)
        });
        let Ok((returned, result)) = pumped.await else {
            tracing::error!(feed = name, "the feed has ended");
            return;
        };
        feed = returned;
        match result {
            Ok(0) => pause = resumed(name, pause),
            Ok(_) => {
                pause = resumed(name, pause);
                continue;
            }
            Err(error) => pause = Some(failed(name, pause, &error)),
        }
        if stopping {
            return;
        }
        let waited = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None if changed.changed().await.is_err() => std::future::pending().await,
                None => {}
            }
        };
        tokio::select! {
            () = waited => {}
            _ = stop.wait_for(|stop| *stop) => stopping = true,
        }
    }
}

fn resumed(name: &str, pause: Option<Duration>) -> Option<Duration> {
    if pause.is_some() {
        tracing::info!(feed = name, "the feed goes on");
    }
    None
}

/// Tells of a failure when it begins, and how long to wait: longer each time, and never quite the same for two
/// feeds.
fn failed(name: &str, pause: Option<Duration>, error: &FeedError) -> Duration {
    let next = match pause {
        None => {
            tracing::warn!(feed = name, %error, "the feed waits; nothing is lost");
            MIN_PAUSE
        }
        Some(pause) => pause.saturating_mul(2).min(MAX_PAUSE),
    };
    next.mul_f64(fastrand::f64().mul_add(0.2, 0.9))
}
