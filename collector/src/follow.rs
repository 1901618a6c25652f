//! What follows the committed batches: the correlator, the SIEM feeds, the page and the API. They are started
//! together and stopped in the order of the data path, so that at the end every committed batch is correlated and
//! every change delivered, as far as receivers can be reached.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use onenet_core::plan::AddressPlan;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::{
    config::Config,
    correlate,
    siem::{self, Feed},
    store::Store,
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
    feeds: JoinSet<()>,
    web: JoinSet<anyhow::Result<()>>,
    stop_correlator: watch::Sender<bool>,
    stop_feeds: watch::Sender<bool>,
    stop_web: watch::Sender<bool>,
}

impl Followers {
    /// Starts them; page and API are served on `listener`.
    pub fn start(
        config: &Config,
        store: &Store,
        plan: watch::Receiver<Arc<AddressPlan>>,
        listener: TcpListener,
    ) -> std::io::Result<Self> {
        let web_address = listener.local_addr()?;
        let stop = || watch::Sender::new(false);
        let (stop_correlator, stop_feeds, stop_web) = (stop(), stop(), stop());
        let changed = watch::Sender::new(0);
        let mut feeds = JoinSet::new();
        for feed in Feed::all(&config.siem) {
            tracing::info!(feed = feed.name(), "the SIEM is fed by {}", feed.target());
            feeds.spawn(siem::run(feed, store.clone(), changed.subscribe(), stop_feeds.subscribe()));
        }
        let (mut correlator, mut web) = (JoinSet::new(), JoinSet::new());
        let correlating = correlate::run(store.clone(), plan, changed, stop_correlator.subscribe());
        correlator.spawn(async { correlating.await.context("the correlator failed") });
        let hosts = config.web.hosts.clone();
        let (served, stopped) = (store.clone(), stop_web.subscribe());
        web.spawn(async move {
            web::serve(listener, served, &hosts, stopped).await.context("the page cannot be served")
        });
        Ok(Self { web_address, correlator, feeds, web, stop_correlator, stop_feeds, stop_web })
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
        self.stop_feeds.send_replace(true);
        while self.feeds.join_next().await.is_some() {}
        self.stop_web.send_replace(true);
        let drained = async { while self.web.join_next().await.is_some() {} };
        drop(tokio::time::timeout(WEB_DRAIN, drained).await);
    }
}
