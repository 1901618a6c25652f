//! The command `run`: starts every part of the collector, waits for signals, and stops the parts in the order of the
//! data path, so that what has been read is committed before the end.
//!
//! SIGTERM and SIGINT stop it; SIGHUP reads the address plan again.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use onenet_core::plan::AddressPlan;
use onenet_proto::{
    config::read_plan,
    owner::not_for_root,
    v1::{SignedPlan, enrollment_server::EnrollmentServer, ingest_server::IngestServer},
};
use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};
use tonic::transport::Server;

use crate::{
    ca::Authority,
    cli::{CliError, Place},
    clock,
    config::Config,
    enroll::EnrollmentService,
    follow::Followers,
    ingest::{IngestService, MAX_MESSAGE_BYTES},
    retain,
    store::{Store, Writer},
    tls, watchdog,
};

/// Streams that one connection may have open.
const MAX_STREAMS: u32 = 8;

/// Bytes of headers that one request may have.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// An enrolment request is a token, a certificate request and a key.
const MAX_ENROLL_BYTES: usize = 64 * 1024;

/// Bytes a sensor may send on one stream, and on one connection, before the collector has read them.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// A connection that is silent for so long is asked whether it is alive, and then given as long to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How long streams may take to end when the collector stops.
const DRAIN: Duration = Duration::from_secs(15);

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    place: Place,
    /// How to write the log on standard error. What is logged, ONENET_LOG says: info (the default), debug, or a
    /// filter such as onenet_collector::ingest=debug.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Runs the command.
pub fn run(args: &RunArgs) -> Result<(), CliError> {
    let (file, config) = args.place.config_file()?;
    if let Some(why) = not_for_root(&config.store.directory) {
        return Err(CliError::usage(anyhow::anyhow!("{}: store.directory {why}", file.display())));
    }
    log(args.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failure(anyhow::Error::new(error).context("no asynchronous runtime")))?;
    runtime.block_on(async {
        // Watched before anything answers: a signal that comes between a handler and its listener is lost.
        let mut signals = Signals::watch()?;
        let mut collector = Collector::start(&config).await?;
        tracing::info!(
            "sensors connect to {}; page and API at http://{}/; configuration {}; store {}",
            collector.address,
            collector.followers.web_address,
            file.display(),
            config.store.directory.display()
        );
        audit(
            &collector,
            "started",
            format!("version {}; configuration {}", env!("CARGO_PKG_VERSION"), file.display()),
        )
        .await;
        notify(&[NotifyState::Ready]);
        let watched = watchdog::start(&collector.store, collector.writer.handle());
        let ended = wait(&mut collector, &config, &mut signals).await;
        notify(&[NotifyState::Stopping]);
        let why = ended.as_ref().map_or_else(ToString::to_string, |()| "by a signal".to_owned());
        audit(&collector, "stopped", why).await;
        collector.stop().await;
        if let Some(watched) = watched {
            watched.abort();
        }
        ended
    })
}

fn log(format: LogFormat) -> Result<(), CliError> {
    use tracing_subscriber::EnvFilter;
    let filter = match std::env::var("ONENET_LOG") {
        Ok(text) => EnvFilter::try_new(&text).map_err(|error| {
            CliError::usage(anyhow::Error::new(error).context(format!("ONENET_LOG={text}")))
        })?,
        Err(_) => EnvFilter::new("info"),
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => subscriber.with_ansi(false).init(),
        LogFormat::Json => subscriber.json().init(),
    }
    Ok(())
}

/// Tells the service manager, where there is one.
pub(crate) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("the service manager could not be told: {error}");
    }
}

/// The signals that a collector heeds.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn watch() -> Result<Self, CliError> {
        let watch = |kind| signal(kind).context("signals cannot be watched");
        Ok(Self {
            terminate: watch(SignalKind::terminate())?,
            interrupt: watch(SignalKind::interrupt())?,
            hangup: watch(SignalKind::hangup())?,
        })
    }
}

/// Waits until a signal or a failed part ends the collector.
async fn wait(collector: &mut Collector, config: &Config, signals: &mut Signals) -> Result<(), CliError> {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => { tracing::info!("SIGTERM: stopping"); return Ok(()) }
            _ = signals.interrupt.recv() => { tracing::info!("SIGINT: stopping"); return Ok(()) }
            _ = signals.hangup.recv() => reload(collector, config).await,
            error = collector.failed() => return Err(CliError::failure(error)),
        }
    }
}

/// Enters what was done to this collector into its audit trail.
async fn audit(collector: &Collector, action: &'static str, detail: String) {
    let entered = collector.store.call(move |store| store.audit(clock::now(), action, detail)).await;
    if let Err(error) = entered {
        tracing::error!("{action} could not be entered into the audit trail: {error}");
    }
}

async fn reload(collector: &Collector, config: &Config) {
    // In one message, as the service manager wants them.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
    match read_plan(&config.plan.file) {
        Ok((plan, _)) => {
            tracing::info!("SIGHUP: address plan {} read again", config.plan.file.display());
            let plan = Arc::new(plan);
            collector.plan.send_replace(Arc::clone(&plan));
            audit(collector, "plan-reloaded", config.plan.file.display().to_string()).await;
            collector.issue(plan).await;
        }
        Err(error) => {
            tracing::error!("SIGHUP: the address plan stays as it was: {error}");
            audit(collector, "plan-refused", error.to_string()).await;
        }
    }
    notify(&[NotifyState::Ready]);
}

/// A part that runs as a task; it ends by itself only when it fails.
type Part = JoinHandle<anyhow::Result<()>>;

/// A running collector.
#[derive(Debug)]
pub struct Collector {
    /// Where sensors connect.
    pub address: SocketAddr,
    /// The store.
    pub store: Store,
    /// Correlator, SIEM feeds, page and API.
    pub followers: Followers,
    writer: Writer,
    plan: watch::Sender<Arc<AddressPlan>>,
    /// What sensors are sent of it.
    issued: watch::Sender<Option<Arc<SignedPlan>>>,
    /// Ends ingest: streams end once what they have read is committed.
    stop_ingest: watch::Sender<bool>,
    ingest: Part,
    retention: Part,
}

impl Collector {
    /// Starts every part. An error of the configuration comes before anything is listened on.
    pub async fn start(config: &Config) -> Result<Self, CliError> {
        let tls = tls::server_config(&config.server)?;
        let authority = Authority::load(&config.server.ca_certificate, &config.server.ca_key)?;
        let (plan, _) = read_plan(&config.plan.file)?;
        let plan = watch::Sender::new(Arc::new(plan));
        let listener = listen(config.server.listen, "server.listen").await?;
        let address = listener.local_addr().map_err(CliError::failure)?;
        let web = listen(config.web.listen, "web.listen").await?;
        let store_config = config.store.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&store_config)).await;
        let (store, writer) = opened.map_err(CliError::failure)??;
        let current = Arc::clone(&plan.borrow());
        let issued = store.call(move |store| store.issue_plan(&current, clock::now())).await?;
        let issued = watch::Sender::new(issued);
        let stop_ingest = watch::Sender::new(false);
        let limits = tls::Limits {
            connections: config.server.max_connections,
            handshake: Duration::from_secs(config.server.handshake_timeout_seconds),
        };
        let connections = tls::incoming(listener, tls, limits);
        let ingest =
            IngestService::new(store.clone(), writer.handle(), issued.subscribe(), stop_ingest.subscribe());
        let days = config.enrollment.certificate_days;
        let enrollment = EnrollmentService::new(store.clone(), Arc::new(authority), days);
        let server = Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .add_service(IngestServer::new(ingest).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(EnrollmentServer::new(enrollment).max_decoding_message_size(MAX_ENROLL_BYTES))
            .serve_with_incoming_shutdown(connections, stopped(stop_ingest.subscribe()));
        let ingest = tokio::spawn(async move { server.await.context("the server for sensors failed") });
        let retention = tokio::spawn(retain::run(store.clone(), config.store.keep_days));
        let followers = Followers::start(config, &store, plan.subscribe(), web).await?;
        Ok(Self { address, store, followers, writer, plan, issued, stop_ingest, ingest, retention })
    }

    /// Issues the plan to the sensors, those that are connected included.
    pub(crate) async fn issue(&self, plan: Arc<AddressPlan>) {
        match self.store.call(move |store| store.issue_plan(&plan, clock::now())).await {
            Ok(issued) => drop(self.issued.send_replace(issued)),
            Err(error) => {
                tracing::error!(
                    "the plan cannot be issued, sensors go on under the one that they hold: {error}"
                );
            }
        }
    }

    /// Waits until a part fails.
    async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            error = ended(&mut self.ingest) => error,
            error = ended(&mut self.retention) => error,
            error = self.followers.failed() => error,
        }
    }

    /// Stops every part, in the order of the data path.
    pub async fn stop(self) {
        // It does nothing that a kill at any moment could leave half done.
        self.retention.abort();
        self.stop_ingest.send_replace(true);
        finish("ingest", self.ingest).await;
        let writer = self.writer;
        if tokio::task::spawn_blocking(move || writer.stop()).await.is_err() {
            tracing::error!("the writer could not be stopped");
        }
        self.followers.stop().await;
    }
}

/// Waits for a part that ended by itself.
async fn ended(part: &mut Part) -> anyhow::Error {
    match part.await {
        Ok(Ok(())) => anyhow::anyhow!("a part of the collector ended by itself"),
        Ok(Err(error)) => error,
        Err(error) => error.into(),
    }
}

/// Waits for a part that has been told to stop, and ends it if it takes too long.
async fn finish(name: &str, mut part: Part) {
    if part.is_finished() {
        return;
    }
    match tokio::time::timeout(DRAIN, &mut part).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::error!("{name}: {error:#}"),
        Ok(Err(error)) => tracing::error!("{name}: {error}"),
        Err(_) => {
            tracing::warn!("{name} did not end within {} s and is cut off", DRAIN.as_secs());
            part.abort();
        }
    }
}

/// Ends when `stop` says so.
async fn stopped(mut stop: watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

async fn listen(address: SocketAddr, key: &str) -> Result<TcpListener, CliError> {
    let failed =
        |error: io::Error| CliError::failure(anyhow::anyhow!("{key}: cannot listen on {address}: {error}"));
    TcpListener::bind(address).await.map_err(failed)
}
