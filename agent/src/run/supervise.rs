//! Watches over a run: shipping, signals, the service manager, the status file, and the end.

use std::{
    process,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::{
    pulse::Pulse,
    seal::wall_time,
    start::{Started, log_filter},
};
use crate::{
    config::{Config, Purpose},
    plan::Held,
    ship::{ACK_LIMIT, Acceptance, Connection, Shipper},
    spool::Position,
    status::{self, Report},
};

/// Between two writings of the status file.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at whether the run is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How a run is to end.
enum Stop {
    NotYet,
    /// By a signal; acks are waited for until then.
    Draining(Instant),
}

/// Runs until the end.
pub(crate) fn supervise(started: Started) -> Result<(), anyhow::Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("ship")
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let mut watch = Supervisor::new(started);
    let result = runtime.block_on(watch.run());
    watch.close(result)
}

/// What watches.
struct Supervisor {
    started: Started,
    connection: Connection,
    /// The plan that the sensor thread was last given.
    handed_over: Held,
    started_at: i64,
    stop: Stop,
    watchdog: Option<Duration>,
    sealing: Pulse,
    reading: Pulse,
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

impl Supervisor {
    fn new(started: Started) -> Self {
        let handed_over = started.view.lock().plan;
        Self {
            started,
            handed_over,
            connection: Connection::default(),
            started_at: wall_time(),
            stop: Stop::NotYet,
            watchdog: sd_notify::watchdog_enabled().map(|interval| interval / 2),
            sealing: Pulse::new(Instant::now()),
            reading: Pulse::new(Instant::now()),
        }
    }

    async fn run(&mut self) -> Result<(), anyhow::Error> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let sealing = self.started.sealing.clone();
        let accepting = self.started.sealing.clone();
        let shipper = Shipper {
            sensor: self.started.config.sensor.name.to_string(),
            plans: self.started.plans.clone(),
            cosign_key: self.started.cosign_key.clone(),
            ack_limit: ACK_LIMIT,
            acceptance: Acceptance::new(self.started.spool.directory()),
            accept_head: Arc::new(move |held, detail| accepting.accept_head(held, detail)),
            target: self.started.target.clone(),
            spool: self.started.spool.clone(),
            connection: self.connection.clone(),
            seal_anew: Arc::new(move |anew| sealing.seal_anew(anew)),
        };
        let shipping = tokio::spawn(shipper.run());
        let mut look = interval(LOOK_INTERVAL);
        let mut status = interval(STATUS_INTERVAL);
        let mut watchdog = interval(self.watchdog.unwrap_or(Duration::from_secs(3600)));
        for timer in [&mut look, &mut status, &mut watchdog] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Skip);
        }
        notify(&[NotifyState::Ready]);
        let result = loop {
            tokio::select! {
                _ = terminate.recv() => self.begin_stop("SIGTERM"),
                _ = interrupt.recv() => self.begin_stop("SIGINT"),
                _ = hangup.recv() => self.reload(),
                _ = status.tick() => self.write_status(true),
                _ = watchdog.tick() => self.pat_watchdog(),
                _ = look.tick() => {
                    self.hand_over_plan();
                    match self.is_over() {
                        Ok(false) => {}
                        Ok(true) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                }
            }
        };
        shipping.abort();
        result
    }

    fn begin_stop(&mut self, signal: &str) {
        if matches!(self.stop, Stop::Draining(_)) {
            return;
        }
        tracing::info!("{signal}: stopping");
        notify(&[NotifyState::Stopping]);
        let limit = Duration::from_secs(self.started.config.drain_seconds.into());
        self.stop = Stop::Draining(Instant::now() + limit);
        self.started.pump.stop.store(true, Ordering::SeqCst);
        self.started.sealing.stopping.store(true, Ordering::SeqCst);
    }

    /// Whether everything is done, or has taken long enough.
    fn is_over(&self) -> Result<bool, anyhow::Error> {
        let started = &self.started;
        if started.seal_thread.is_finished() {
            anyhow::bail!("the sealing thread has ended");
        }
        let sealed = *started.sealing.finished.borrow();
        if started.sensor_thread.is_finished() {
            let ended = started.view.lock().ended || started.pump.stop.load(Ordering::SeqCst);
            anyhow::ensure!(ended, "the sensor thread has ended");
        }
        let delivered = sealed && started.spool.all_acked();
        match self.stop {
            Stop::NotYet => Ok(delivered && started.until_end),
            Stop::Draining(limit) => Ok(delivered || Instant::now() >= limit),
        }
    }

    /// Tells the service manager that the agent is alive, if its threads are.
    fn pat_watchdog(&mut self) {
        let Some(interval) = self.watchdog else { return };
        let (now, within) = (Instant::now(), interval * 2);
        let started = &self.started;
        let seals = self.sealing.beats(started.sealing.beat.load(Ordering::Relaxed), now, within);
        let reads = self.reading.beats(started.pump.turns.load(Ordering::Relaxed), now, within);
        // Captures are not read on while the spool is full, and a stop has a limit of its own.
        let may_wait = started.reads_files || matches!(self.stop, Stop::Draining(_));
        if seals && (reads || may_wait) {
            notify(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(seals, reads, "a thread hangs: the service manager is not told that all is well");
        }
    }

    /// Takes over what can change while running, and says what cannot.
    fn reload(&mut self) {
        let old = &self.started.config;
        let new = match Config::load(&old.path, Purpose::Run) {
            Ok(new) => new,
            Err(error) => return tracing::error!("not reloaded: {error}"),
        };
        if self.started.log.reload(log_filter(new.log.level)).is_err() {
            tracing::error!("the log level cannot be changed");
        }
        self.started.plans.configure(new.plan_source, new.plan.clone());
        if self.started.reads_files {
            // Under the collector's plan that of the configuration is not in use.
            let own = self.started.view.lock().plan.version == 0;
            if own && new.plan != old.plan || new.detect != old.detect {
                tracing::warn!("not reloaded: plan and thresholds, since captures are read under one plan");
            }
        } else {
            // The collector's plan stays, where packets are judged by it.
            let plan = self.started.plans.in_use();
            self.handed_over = plan.held;
            self.started.pump.reload((plan, new.detect.clone()));
        }
        let mut detail = "configuration taken over".to_owned();
        for section in changed_sections(old, &new) {
            tracing::warn!("not reloaded: {section} takes effect with the next start");
            detail.push_str(&format!("; {section} only with the next start"));
        }
        self.started.sealing.audit("reloaded", detail);
        tracing::info!("configuration reloaded");
        let config = &mut self.started.config;
        config.log = new.log;
        config.drain_seconds = new.drain_seconds;
        if !self.started.reads_files {
            (config.plan, config.detect) = (new.plan, new.detect);
        }
    }

    /// Hands over the collector's plan once another one has come. Captures are read to their end under one plan.
    fn hand_over_plan(&mut self) {
        let started = &self.started;
        if started.reads_files && !started.view.lock().ended {
            return;
        }
        let plan = started.plans.in_use();
        if plan.held != self.handed_over {
            self.handed_over = plan.held;
            started.pump.reload((plan, started.config.detect.clone()));
        }
    }

    fn report(&self, running: bool) -> Report {
        let started = &self.started;
        let view = started.view.lock().clone();
        let seal = started.sealing.state();
        let plan = started.plans.state(view.plan);
        Report {
            plan,
            sensor: started.config.sensor.name.to_string(),
            site: started.config.sensor.site.to_string(),
            pid: process::id(),
            running,
            started_at: self.started_at,
            updated_at: wall_time(),
            view,
            sealed: seal.head,
            acked: started.spool.acked(),
            failing: seal.failing,
            waiting: seal.waiting,
            losses: seal.losses,
            spool_bytes: started.spool.used_bytes(),
            spool_limit_bytes: started.limit_bytes,
            spool_oldest: started.spool.oldest_waiting(),
            damage: started.spool.damage(),
            storage: started.spool.storage(),
            reserve_bytes: started.spool.reserve_bytes(),
            cosigned: started.spool.cosigned(),
            collector: started.target.endpoint.to_string(),
            connection: self.connection.state(),
        }
    }

    fn write_status(&self, running: bool) {
        let path = status::path(&self.started.config.sensor.state_dir);
        if let Err(error) = status::write(&path, &self.report(running)) {
            tracing::debug!(%error, path = %path.display(), "the status cannot be written");
        }
    }

    /// Ends the threads, closes the spool, and says what is left.
    fn close(self, result: Result<(), anyhow::Error>) -> Result<(), anyhow::Error> {
        let sealed = *self.started.sealing.finished.borrow();
        self.started.pump.stop.store(true, Ordering::SeqCst);
        self.started.sealing.stopping.store(true, Ordering::SeqCst);
        self.started.sealing.closing.store(true, Ordering::SeqCst);
        let failing = self.started.sealing.state().failing;
        self.write_status(false);
        if let Some(failing) = failing.filter(|_| !sealed) {
            // The threads may wait for a disk that never comes back.
            anyhow::bail!("what was sealed last is not durable: the spool cannot be written: {failing}");
        }
        let Self { started, connection, .. } = self;
        let (sealed, acked) = (started.sealing.state().head.chain, started.spool.acked());
        let joined = started.sensor_thread.join().is_ok() && started.seal_thread.join().is_ok();
        if Position::from(&acked) < Position::from(&sealed) {
            let waiting =
                sealed.sequence.saturating_sub(if acked.epoch == sealed.epoch { acked.sequence } else { 0 });
            let reason = connection.state().last_error.unwrap_or_else(|| "time was up".to_owned());
            tracing::warn!("stopped with {waiting} batches in the spool: {reason}");
        }
        anyhow::ensure!(joined || result.is_err(), "a thread has failed");
        result?;
        if started.until_end {
            // As for `read`: what came before the damage counts and is delivered, and the caller is told.
            let view = started.view.lock();
            let broken: Vec<&str> =
                view.sources.iter().filter_map(|source| source.error.as_deref()).collect();
            if let Some(first) = broken.first() {
                anyhow::bail!(
                    "{} of {} captures not read to their end: {first}",
                    broken.len(),
                    view.sources.len()
                );
            }
        }
        Ok(())
    }
}

/// Sections that a running agent does not take over.
fn changed_sections(old: &Config, new: &Config) -> Vec<&'static str> {
    let changes = [
        ("[sensor]", old.sensor != new.sensor),
        ("[collector]", old.collector != new.collector),
        ("[[source]]", old.sources != new.sources),
        ("[[interface]]", old.interfaces != new.interfaces),
        ("[flow]", old.flow != new.flow),
        ("[spool]", old.spool != new.spool),
        ("[batch]", old.batch != new.batch),
        ("heartbeat_seconds", old.heartbeat_seconds != new.heartbeat_seconds),
        ("log.format", old.log.format != new.log.format),
    ];
    changes.into_iter().filter_map(|(section, changed)| changed.then_some(section)).collect()
}
