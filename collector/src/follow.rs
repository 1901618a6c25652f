//! What follows the committed batches: the correlator, the SIEM feeds, the page and the API. They are started
//! together and stopped in the order of the data path, so that at the end every committed batch is correlated and
//! every change delivered, as far as receivers can be reached.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use onenet_core::plan::AddressPlan;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::{
    api::Planned,
    clock,
    config::Config,
    correlate, custody,
    siem::{self, Feed},
    store::{Store, control_cursors},
    web,
};

/// How long browsers may keep their connections open when everything else has ended; nothing is lost by cutting
/// them.
const WEB_DRAIN: Duration = Duration::from_secs(2);

/// The parts that follow the store, running.
#[derive(Debug)]
pub struct Followers {
    /// Where page and API are.
    pub web_address: SocketAddr,
    correlator: JoinSet<anyhow::Result<()>>,
    custody: JoinHandle<()>,
    feeds: JoinSet<()>,
    web: JoinSet<anyhow::Result<()>>,
    stop_correlator: watch::Sender<bool>,
    stop_feeds: watch::Sender<bool>,
    stop_web: watch::Sender<bool>,
}

impl Followers {
    /// Starts them; page and API are served on `listener`.
    pub async fn start(
        config: &Config,
        store: &Store,
        plan: watch::Receiver<Arc<AddressPlan>>,
        listener: TcpListener,
    ) -> anyhow::Result<Self> {
        let web_address = listener.local_addr()?;
        let stop = || watch::Sender::new(false);
        let (stop_correlator, stop_feeds, stop_web) = (stop(), stop(), stop());
        let changed = watch::Sender::new(0);
        let configured = Feed::all(&config.siem);
        let names: Vec<&'static str> = configured.iter().map(Feed::name).collect();
        let configure = move |store: &Store| {
            store.transaction(|transaction| control_cursors::configure(transaction, &names, clock::now()))
        };
        store.call(configure).await?;
        let mut feeds = JoinSet::new();
        for feed in configured {
            tracing::info!(feed = feed.name(), "the SIEM is fed by {}", feed.target());
            feeds.spawn(siem::run(feed, store.clone(), changed.subscribe(), stop_feeds.subscribe()));
        }
        let (mut correlator, mut web) = (JoinSet::new(), JoinSet::new());
        let sensors = config.sensors.clone();
        let judging = custody::run(
            store.clone(),
            sensors.clone(),
            plan.clone(),
            changed.clone(),
            stop_correlator.subscribe(),
        );
        let custody = tokio::spawn(judging);
        let served =
            Planned { store: store.clone(), plan: plan.clone(), inventory: config.inventory.clone() };
        let correlating = correlate::run(
            store.clone(),
            plan,
            (sensors, config.inventory.clone()),
            changed,
            stop_correlator.subscribe(),
        );
        correlator.spawn(async { correlating.await.context("the correlator failed") });
        let hosts = config.web.hosts.clone();
        let stopped = stop_web.subscribe();
        web.spawn(async move {
            web::serve(listener, served, &hosts, stopped).await.context("the page cannot be served")
        });
        Ok(Self { web_address, correlator, custody, feeds, web, stop_correlator, stop_feeds, stop_web })
    }

    /// Waits until a part fails.
    pub async fn failed(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            Some(ended) = self.correlator.join_next() => ended,
            Some(ended) = self.web.join_next() => ended,
            else => return anyhow::anyhow!("the correlator and the page have ended"),
        };
        match ended {
            Ok(Ok(())) => anyhow::anyhow!("a part of the collector ended by itself"),
            Ok(Err(error)) => error,
            Err(error) => error.into(),
        }
    }

    /// Stops them, after the writer of the store has stopped.
    pub async fn stop(mut self) {
        self.stop_correlator.send_replace(true);
        while let Some(ended) = self.correlator.join_next().await {
            if let Ok(Err(error)) = ended {
                tracing::error!("{error:#}");
            }
        }
        if let Err(error) = self.custody.await {
            tracing::error!("the sensors were judged no more: {error}");
        }
        self.stop_feeds.send_replace(true);
        while self.feeds.join_next().await.is_some() {}
        self.stop_web.send_replace(true);
        let drained = async { while self.web.join_next().await.is_some() {} };
        drop(tokio::time::timeout(WEB_DRAIN, drained).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        seed::{body, plan, scan},
        store::{StoreConfig, control_findings},
        testing::{Sensor, Site},
    };

    /// A collector without ingest: a batch is committed, the writer stops, the followers stop.
    async fn run_once(config: &Config, sensor: &mut Sensor, seconds: i64) -> Store {
        let opening: StoreConfig = config.store.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&opening)).await.expect("it opens");
        let (store, writer) = opened.expect("a store");
        if store.sensors().expect("readable").is_empty() {
            sensor.enter(&store);
        }
        let plan = watch::Sender::new(plan());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let followers =
            Followers::start(config, &store, plan.subscribe(), listener).await.expect("they start");
        let batch = sensor.seal(&body(&[], &[scan("boston", seconds)]));
        let verdict = writer.handle().submit(sensor.incoming(&batch)).await.expect("the writer runs");
        verdict.await.expect("a verdict");
        tokio::task::spawn_blocking(move || writer.stop()).await.expect("it stops");
        followers.stop().await;
        store
    }

    #[tokio::test]
    async fn what_is_committed_is_correlated_and_fed_before_the_end_also_after_a_restart() {
        let site = Site::new();
        let mut sensor = Sensor::new("boston-1");
        for (run, seconds) in [(1, 900), (2, 1_000)] {
            let store = run_once(&site.config, &mut sensor, seconds).await;
            let changes = store.read(|connection| control_findings::changes_after(connection, 0, 100));
            assert_eq!(changes.expect("readable").len(), run, "each run tells something new");
            let feeds = store.read(control_cursors::feeds).expect("readable");
            let run = i64::try_from(run).expect("small");
            assert_eq!(
                feeds.iter().map(|(name, at, _)| (name.as_str(), *at)).collect::<Vec<_>>(),
                [("file", run)]
            );
            let text = std::fs::read_to_string(&site.config.siem.file.path).expect("the SIEM's file");
            assert_eq!(text.lines().count(), usize::try_from(run).expect("small"), "{text}");
        }
    }
}
