//! Starts a run: configuration, keys, spool, sources, in the order in which they can fail without harm; then the
//! threads.

use std::{
    io::{Read as _, Seek as _, SeekFrom},
    num::NonZeroU64,
    path::{Path, PathBuf},
    sync::{Arc, mpsc::sync_channel},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use onenet_core::net::Name;
use onenet_proto::{owner::not_for_root, v1::PlanHeld};
use ring::{digest, hmac};
use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use super::{
    batch::{Batcher, Limits},
    feed::{Feed, RecordSource},
    live::Sources,
    pump::{Pump, PumpControl, file_views},
    seal::{SealControl, SealLoop, Settings, WhenFull, epoch_now, wall_time},
    view::SharedView,
};
use crate::{
    config::{CollectorSection, Config, LogFormat, LogLevel, Pace, PcapFileSource, Purpose, Source},
    error::UsageError,
    keys::{Identity, KeyStore},
    plan::{InUse, Plans},
    ship::connect::Target,
    source::{CaptureSet, ebpf::MeterSource, fallback, libpcap::LibpcapSource},
    spool::{self, Mark, Opened, Shared},
    tls,
};

/// Drafts that wait for the sealing thread.
const DRAFTS: usize = 4;

/// A file and the interface its packets count as captured on.
type CaptureFile = (PathBuf, Option<Name>);

/// What packets come from.
enum Input {
    Files { captures: CaptureSet, paced: bool },
    Live(Sources),
    Feed(Box<dyn RecordSource>),
}

/// Changes the log level of a running program.
pub(crate) type LogHandle = reload::Handle<EnvFilter, Registry>;

/// A run that has started.
pub(crate) struct Started {
    pub(crate) config: Config,
    pub(crate) until_end: bool,
    pub(crate) reads_files: bool,
    pub(crate) target: Target,
    pub(crate) plans: Arc<Plans>,
    pub(crate) cosign_key: Option<Vec<u8>>,
    pub(crate) spool: Arc<Shared>,
    pub(crate) limit_bytes: u64,
    pub(crate) sealing: Arc<SealControl>,
    pub(crate) pump: Arc<PumpControl>,
    pub(crate) view: Arc<SharedView>,
    pub(crate) sensor_thread: JoinHandle<()>,
    pub(crate) seal_thread: JoinHandle<()>,
    pub(crate) log: LogHandle,
}

/// Starts everything but shipping.
pub(crate) fn start(
    config_path: &Path,
    until_end: bool,
    feed: Option<Feed>,
) -> Result<Started, anyhow::Error> {
    let mut config = Config::load(config_path, Purpose::Run)?;
    if let Some(why) = not_for_root(&config.sensor.state_dir) {
        return Err(UsageError(format!("{}: sensor.state_dir {why}", config.path.display())).into());
    }
    let log = start_log(&config)?;
    let files = if feed.is_some() { None } else { capture_files(&config)? };
    let repeats = feed.as_ref().and_then(|feed| feed.repeats);
    let reads_files = files.is_some() || repeats.is_some();
    if until_end && !reads_files {
        return Err(UsageError("--until-end needs capture files: interfaces have no end".to_owned()).into());
    }
    let identity = KeyStore::new(&config.sensor.state_dir).identity()?;
    let target = target(&config, &identity)?;
    let key = identity.cosign_key.clone();
    let plans = Plans::open(&config.sensor.state_dir, key, config.plan_source, config.plan.clone());
    let limit_bytes = u64::from(config.spool.max_mib) << 20;
    let opened = open_spool(&config)?;
    let (plan, run) = match &files {
        Some(files) => plan_of_run(&config, files, &plans, &opened.head.mark)?,
        None => (plans.in_use(), repeats.map_or(0, NonZeroU64::get)),
    };
    config.plan = plan.plan;
    let input = match feed {
        Some(feed) => Input::Feed(feed.source),
        None => open_input(&config, files)?,
    };
    let sealed_before = sealed_before(run, &opened.head.mark);
    if sealed_before > 0 {
        tracing::info!(
            records = sealed_before,
            "the captures are partly sealed; reading them again behind that"
        );
    }

    let sealing = SealControl::new();
    let spool = opened.writer.shared().clone();
    let settings = Settings {
        sensor: config.sensor.name.to_string(),
        signing_key: identity.signing_key.clone(),
        limit_bytes,
        when_full: if reads_files { WhenFull::Wait } else { WhenFull::Shed },
        heartbeat: Duration::from_secs(config.heartbeat_seconds.into()),
        flush_interval: Duration::from_millis(config.spool.fsync_ms.into()),
        plan: PlanHeld::from(&plan.held),
        run,
        clock: wall_time,
    };
    let seal_loop = SealLoop::new(settings, sealing.clone(), opened)?;
    let (drafts, receiver) = sync_channel(DRAFTS);
    let seal_thread = std::thread::Builder::new()
        .name("seal".to_owned())
        .spawn(move || seal_loop.run(&receiver))
        .context("a thread cannot be started")?;

    let limits = Limits {
        records: usize::try_from(config.batch.max_records)?,
        bytes: usize::try_from(config.batch.max_kib)? << 10,
        delay: Duration::from_millis(config.batch.max_delay_ms.into()),
    };
    let (control, view) = (Arc::new(PumpControl::default()), Arc::new(SharedView::default()));
    view.lock().plan = plan.held;
    let mut pump = Pump {
        sensor: config.sensor(hash_seed(&identity, run))?,
        batcher: Batcher::new(limits, drafts, sealed_before),
        config: config.clone(),
        control: control.clone(),
        sealing: sealing.clone(),
        view: view.clone(),
        told: None,
    };
    let sensor_thread = std::thread::Builder::new()
        .name("sensor".to_owned())
        .spawn(move || {
            match input {
                Input::Files { captures, paced } => pump.run_files(captures, paced),
                Input::Live(sources) => pump.run_live(sources),
                Input::Feed(source) => pump.run_feed(source),
            }
            if !until_end {
                pump.linger();
            }
        })
        .context("a thread cannot be started")?;
    Ok(Started {
        config,
        until_end,
        reads_files,
        target,
        plans: Arc::new(plans),
        cosign_key: identity.cosign_key,
        spool,
        limit_bytes,
        sealing,
        pump: control,
        view,
        sensor_thread,
        seal_thread,
        log,
    })
}

/// The filter of a log level. Libraries are not heard below their warnings.
pub(crate) fn log_filter(level: LogLevel) -> EnvFilter {
    let level = level.as_str();
    EnvFilter::new(format!("warn,onenet_agent={level},onenet_core={level},onenet_proto={level}"))
}

fn start_log(config: &Config) -> Result<LogHandle, anyhow::Error> {
    let (filter, handle) = reload::Layer::new(log_filter(config.log.level));
    let registry = Registry::default().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let started = match config.log.format {
        LogFormat::Text => registry.with(layer.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(layer.json()).try_init(),
    };
    started.context("the log cannot be started")?;
    Ok(handle)
}

/// The capture files of every source; none where the sources are interfaces.
fn capture_files(config: &Config) -> Result<Option<Vec<CaptureFile>>, anyhow::Error> {
    let of_files: Vec<&PcapFileSource> = config
        .sources
        .iter()
        .filter_map(|source| match source {
            Source::PcapFile(files) => Some(files),
            _ => None,
        })
        .collect();
    let path = config.path.display();
    if config.sources.is_empty() {
        return Err(UsageError(format!("{path}: no [[source]], expected at least one to read from")).into());
    }
    if of_files.is_empty() {
        return Ok(None);
    }
    if of_files.len() < config.sources.len() {
        let message =
            "capture files and interfaces in one agent would mix two times, expected one kind of source";
        return Err(UsageError(format!("{path}: {message}")).into());
    }
    let mut files = Vec::new();
    for source in of_files {
        let of_source = source.files()?;
        files.extend(of_source.into_iter().map(|file| (file, source.interface.clone())));
    }
    if files.iter().any(|(file, _)| file == Path::new("-") || file.ends_with("-")) {
        let message = "standard input cannot be read again after a restart, expected files";
        return Err(UsageError(format!("{path}: {message}")).into());
    }
    Ok(Some(files))
}

fn open_input(config: &Config, files: Option<Vec<CaptureFile>>) -> Result<Input, anyhow::Error> {
    let Some(files) = files else {
        return Ok(Input::Live(open_live(config)?));
    };
    let captures = CaptureSet::open_each(&files);
    let broken: Vec<String> = file_views(&captures).into_iter().filter_map(|view| view.error).collect();
    if broken.len() == files.len() {
        // Nothing at all can be read; of several reasons the first is told.
        let reason = broken.into_iter().next().unwrap_or_else(|| "no capture file".to_owned());
        return Err(anyhow::anyhow!("{reason}"));
    }
    let paced = config.sources.iter().any(|s| matches!(s, Source::PcapFile(f) if f.pace == Pace::Captured));
    Ok(Input::Files { captures, paced })
}

fn open_live(config: &Config) -> Result<Sources, anyhow::Error> {
    let among_others = config.sources.len() > 1;
    let mut sources: Sources = Vec::new();
    for source in &config.sources {
        match source {
            Source::Pcap(source) => sources.push(Box::new(LibpcapSource::open(source, among_others)?)),
            Source::Ebpf(source) => sources.push(Box::new(MeterSource::open(source, &config.mirrors)?)),
            Source::Auto { ebpf, pcap } => {
                sources.push(fallback::open(ebpf, &config.mirrors, pcap, among_others)?);
            }
            Source::PcapFile(_) => {}
        }
    }
    Ok(sources)
}

fn open_spool(config: &Config) -> Result<Opened, anyhow::Error> {
    let directory = config.sensor.state_dir.join("spool");
    let segment_bytes = u64::from(config.spool.segment_mib) << 20;
    let settings = spool::Settings::new(segment_bytes, u64::from(config.spool.max_mib) << 20);
    let opened = spool::open(&directory, settings, epoch_now(), spool::on_disk())?;
    match opened.new_epoch {
        Some(reason) => tracing::info!(epoch = opened.head.chain.epoch, "{reason}: a new epoch begins"),
        None => tracing::info!(
            epoch = opened.head.chain.epoch,
            sequence = opened.head.chain.sequence,
            "the chain goes on"
        ),
    }
    Ok(opened)
}

fn target(config: &Config, identity: &Identity) -> Result<Target, anyhow::Error> {
    let endpoint = match &config.collector {
        Some(collector) => collector.endpoint.clone(),
        None => identity.enrolment.endpoint.parse().context("the endpoint of the enrolment")?,
    };
    let stated = config.collector.as_ref().map(CollectorSection::server_name);
    let server_name = stated.unwrap_or(&endpoint.host).to_owned();
    if *identity.enrolment.sensor != *config.sensor.name {
        anyhow::bail!(
            "{}: sensor.name is {}, but this sensor enrolled as {}",
            config.path.display(),
            config.sensor.name,
            identity.enrolment.sensor
        );
    }
    Ok(Target { endpoint, server_name, tls: tls::client_config(identity)? })
}

/// The plan and the fingerprint of a run of captures. A run that was cut off goes on under the plan that it began with:
/// under another the same captures would give other records, and all of them once more.
fn plan_of_run(
    config: &Config,
    files: &[CaptureFile],
    plans: &Plans,
    mark: &Mark,
) -> Result<(InUse, u64), anyhow::Error> {
    let fingerprint_under =
        |plan: &InUse| fingerprint(&Config { plan: plan.plan.clone(), ..config.clone() }, files);
    let before = plans.of_run();
    let run = fingerprint_under(&before)?;
    if run == mark.run {
        return Ok((before, run));
    }
    if let Err(error) = plans.begin_run() {
        tracing::warn!(%error, "the plan of this run cannot be kept: should another one come, it begins anew");
    }
    let plan = plans.in_use();
    let run = fingerprint_under(&plan)?;
    Ok((plan, run))
}

/// Records of this run that the last batch in the spool counts.
const fn sealed_before(run: u64, mark: &Mark) -> u64 {
    if run != 0 && mark.run == run { mark.run_records } else { 0 }
}

/// Key of the hash tables: unknown outside, and the same for every run of the same captures, so that nothing that
/// might depend on it differs between them.
fn hash_seed(identity: &Identity, run: u64) -> [u64; 4] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &identity.signing_key);
    let moment = if run == 0 { epoch_now() } else { 0 };
    let mut message = b"onenet-hash-seed".to_vec();
    message.extend(run.to_le_bytes());
    message.extend(moment.to_le_bytes());
    let tag = hmac::sign(&key, &message);
    let mut seed = [0; 4];
    for (word, bytes) in seed.iter_mut().zip(tag.as_ref().chunks_exact(8)) {
        *word = bytes.iter().fold(0, |word, &byte| (word << 8) | u64::from(byte));
    }
    seed
}

/// What decides the records of a run, as 64 bits, never 0: version, names, settings, and of each capture its name,
/// interface, length, beginning and end.
fn fingerprint(config: &Config, files: &[CaptureFile]) -> Result<u64, anyhow::Error> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut add = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_le_bytes());
        context.update(bytes);
    };
    add(env!("CARGO_PKG_VERSION").as_bytes());
    add(config.sensor.name.as_bytes());
    add(config.sensor.site.as_bytes());
    add(&serde_json::to_vec(&*config.plan)?);
    add(&serde_json::to_vec(&config.flow)?);
    add(&serde_json::to_vec(&config.detect)?);
    add(&serde_json::to_vec(&config.interfaces)?);
    add(&serde_json::to_vec(&config.mirrors)?);
    let paced = config.sources.iter().any(|s| matches!(s, Source::PcapFile(f) if f.pace == Pace::Captured));
    add(&[u8::from(paced)]);
    for (path, interface) in files {
        add(path.file_name().unwrap_or_default().as_encoded_bytes());
        add(interface.as_deref().unwrap_or_default().as_bytes());
        // What cannot be read is told where it is opened; here it only counts as nothing.
        let (length, ends) = sample(path).unwrap_or_default();
        add(&length.to_le_bytes());
        add(&ends);
    }
    let hash = context.finish();
    Ok(hash.as_ref().iter().take(8).fold(0, |sum, &byte| (sum << 8) | u64::from(byte)).max(1))
}

/// Length of a file, and its first and last bytes.
fn sample(path: &Path) -> std::io::Result<(u64, Vec<u8>)> {
    const BYTES: u64 = 64 << 10;
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    file.by_ref().take(BYTES).read_to_end(&mut bytes)?;
    file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
    file.take(BYTES).read_to_end(&mut bytes)?;
    Ok((length, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_captures_and_settings_apart() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one.pcap"), directory.path().join("two.pcap"));
        std::fs::write(&one, [1; 100]).unwrap();
        std::fs::write(&two, [2; 100]).unwrap();
        let config = Config::default();
        let of = |config: &Config, files: &[(&Path, Option<&str>)]| {
            let files: Vec<CaptureFile> =
                files.iter().map(|(path, name)| (path.to_path_buf(), name.map(Name::from))).collect();
            fingerprint(config, &files).unwrap()
        };
        let base = of(&config, &[(&one, None)]);
        assert_eq!(base, of(&config, &[(&one, None)]));
        let other = Config {
            flow: onenet_core::flow::FlowConfig { max_flows: 7, ..config.flow.clone() },
            ..config.clone()
        };
        let mut all = vec![
            base,
            of(&config, &[(&two, None)]),
            of(&config, &[(&one, Some("in0"))]),
            of(&config, &[(&one, None), (&two, None)]),
            of(&other, &[(&one, None)]),
        ];
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 5);
    }

    #[test]
    fn a_run_that_was_cut_off_goes_on_under_the_plan_that_it_began_with() {
        use onenet_proto::{edge_plan, seal::SigningKey};
        let directory = tempfile::tempdir().unwrap();
        let capture = directory.path().join("one.pcap");
        std::fs::write(&capture, [1; 100]).unwrap();
        let files: Vec<CaptureFile> = vec![(capture, None)];
        let (key, _) = SigningKey::generate().unwrap();
        let config = Config::default();
        let open = || {
            let public = Some(key.public_key().to_vec());
            Plans::open(directory.path(), public, config.plan_source, config.plan.clone())
        };
        let send = |plans: &Plans, version, secretariat: &str| {
            let plan = toml::from_str(&format!("[[secretariat]]\nid = '{secretariat}'\n")).unwrap();
            plans.receive(&edge_plan::sign(&key, edge_plan::encode(&plan).unwrap(), version, 5));
        };
        let of = |plans: &Plans, run| {
            let mark = Mark { run, ..Mark::default() };
            let (plan, run) = plan_of_run(&config, &files, plans, &mark).unwrap();
            (plan.held.version, run)
        };
        let plans = open();
        let (version, run) = of(&plans, 0);
        assert_eq!(version, 0);
        send(&plans, 9, "eohhs");
        assert_eq!(of(&open(), run), (0, run), "the same captures go on");
        let (version, next) = of(&open(), 77);
        assert_eq!(version, 9, "others begin under the latest");
        assert_ne!(next, run);
        send(&open(), 10, "massdot");
        assert_eq!(of(&open(), next), (9, next));
        assert_eq!(of(&open(), 77).0, 10);
    }

    #[test]
    fn only_the_same_run_passes_over_what_is_sealed() {
        let mark = Mark { run: 5, run_records: 100, ..Mark::default() };
        assert_eq!(sealed_before(5, &mark), 100);
        assert_eq!(sealed_before(6, &mark), 0);
        assert_eq!(sealed_before(0, &Mark { run: 0, ..mark }), 0);
    }
}
