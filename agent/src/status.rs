//! `onenet-agent status`: what this sensor has done and where it stands. The running agent writes it once a
//! second to `status.json` in its state directory, and beside it to `metrics.prom`; whether it still runs, the lock of
//! its spool tells.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::ValueEnum;
use nix::fcntl::{Flock, FlockArg};
use onenet_core::time::{NANOS_PER_SECOND, Timestamp};
use onenet_proto::seal::ChainHead;
use serde_json::{Value, json};

use crate::{
    config::{Config, ConfigArgs, Purpose},
    error::AlreadyTold,
    metrics,
    plan::{self, PlanState},
    run::{Losses, View, wall_time},
    ship::ConnectionState,
    spool::{Cosigned, Damage, Head, Storage},
};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    /// Prometheus's text format
    Metrics,
}

/// What a run tells of itself.
pub(crate) struct Report {
    pub(crate) sensor: String,
    pub(crate) site: String,
    pub(crate) pid: u32,
    pub(crate) running: bool,
    /// Nanoseconds since the Unix epoch, as the next.
    pub(crate) started_at: i64,
    pub(crate) updated_at: i64,
    pub(crate) view: View,
    pub(crate) plan: PlanState,
    pub(crate) sealed: Head,
    pub(crate) acked: ChainHead,
    pub(crate) failing: Option<String>,
    pub(crate) waiting: bool,
    pub(crate) losses: Losses,
    pub(crate) spool_bytes: u64,
    pub(crate) spool_limit_bytes: u64,
    pub(crate) spool_oldest: Option<i64>,
    pub(crate) damage: Damage,
    pub(crate) storage: Storage,
    /// What is to be kept back for a full disk.
    pub(crate) reserve_bytes: u64,
    pub(crate) cosigned: Option<Cosigned>,
    pub(crate) collector: String,
    pub(crate) connection: ConnectionState,
}

impl Report {
    /// As `status.json` has it.
    pub(crate) fn to_json(&self) -> Result<Value, serde_json::Error> {
        let mut object = serde_json::Map::new();
        let mut add = |entries: Value| {
            if let Value::Object(entries) = entries {
                object.extend(entries);
            }
        };
        add(json!({
            "sensor": self.sensor,
            "site": self.site,
            "version": env!("CARGO_PKG_VERSION"),
            "pid": self.pid,
            "running": self.running,
            "started_at": Timestamp(self.started_at).to_string(),
            "updated_at": Timestamp(self.updated_at).to_string(),
        }));
        add(self.plan.to_json());
        // packets, wire_bytes, parsed, unparsed, dropped, flow_records, observations, finding_changes, …
        add(serde_json::to_value(&self.view.ledger)?);
        let losses: Vec<Value> = self
            .losses
            .records()
            .into_iter()
            .map(|loss| {
                json!({
                    "what": loss.what,
                    "count": loss.count,
                    "bytes": loss.bytes,
                    "reason": loss.reason,
                    "since": Timestamp(loss.since).to_string(),
                    "until": Timestamp(loss.until).to_string(),
                })
            })
            .collect();
        let mark = &self.sealed.mark;
        let same_epoch = self.acked.epoch == self.sealed.chain.epoch;
        add(json!({
            "findings": self.view.ledger.finding_changes,
            "live_flows": self.view.live_flows,
            "sources_ended": self.view.ended,
            "catching_up": self.view.catching_up,
            "sources": self.view.sources,
            "epoch": self.sealed.chain.epoch,
            "batches_sealed": self.sealed.chain.sequence,
            "batches_acked": if same_epoch { self.acked.sequence } else { 0 },
            "records_sealed": mark.flows.saturating_add(mark.observations).saturating_add(mark.findings),
            "flows_sealed": mark.flows,
            "observations_sealed": mark.observations,
            "findings_sealed": mark.findings,
            "losses": losses,
            "spool_bytes": self.spool_bytes,
            "spool_limit_bytes": self.spool_limit_bytes,
            "spool_oldest_seconds": self.spool_oldest.map(|at| age_seconds(at, self.updated_at)),
            "spool_error": self.failing,
            "spool_waiting": self.waiting,
            "spool_damaged_records": self.damage.records,
            "spool_skipped_bytes": self.damage.skipped_bytes,
            "spool_torn_bytes": self.damage.torn_bytes,
            "spool_segments": self.storage.segments,
            "spool_reserve_bytes": self.storage.reserve_bytes,
            "spool_disk_full": self.storage.reserve_bytes < self.reserve_bytes,
            "spool_quarantine_files": self.storage.quarantine_files,
            "spool_quarantine_bytes": self.storage.quarantine_bytes,
            "spool_quarantine_dropped": self.storage.quarantine_dropped,
            "cosigned_epoch": self.cosigned.map(|cosigned| cosigned.head.epoch),
            "cosigned_batch": self.cosigned.map(|cosigned| cosigned.head.sequence),
            "cosigned_at": self.cosigned.map(|cosigned| Timestamp(cosigned.time).to_string()),
            "collector_untrusted": self.connection.untrusted,
            "collector_set_back": self.connection.set_back,
            "collector": self.collector,
            "connected": self.connection.connected && self.running,
            "sessions": self.connection.sessions,
            "in_flight": self.connection.in_flight,
            "last_error": self.connection.last_error,
        }));
        Ok(Value::Object(object))
    }
}

const fn age_seconds(at: i64, now: i64) -> i64 {
    let age = now.saturating_sub(at) / NANOS_PER_SECOND;
    if age < 0 { 0 } else { age }
}

/// Where the status is, in a state directory.
pub(crate) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("status.json")
}

/// Writes the status so that a reader sees the old one or the new.
pub(crate) fn write(path: &Path, report: &Report) -> io::Result<()> {
    let status = report.to_json()?;
    let mut text = serde_json::to_vec_pretty(&status)?;
    text.push(b'\n');
    replace(path, &text)?;
    replace(&path.with_file_name("metrics.prom"), metrics::of(&status).as_bytes())
}

/// Puts a file in the place of another, or of none.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let draft = path.with_added_extension("new");
    let mut options = fs::OpenOptions::new();
    // Unlike the rest of the state it holds no secret, and others watch it.
    let mut file = options.create(true).write(true).truncate(true).mode(0o644).open(&draft)?;
    file.write_all(text)?;
    drop(file);
    fs::rename(draft, path)
}

/// Whether an agent holds the spool of this state directory.
pub(crate) fn is_running(state_dir: &Path) -> bool {
    let Ok(file) = fs::File::open(state_dir.join("spool").join("lock")) else { return false };
    Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
}

/// Runs the command.
pub fn status(args: &StatusArgs) -> Result<(), anyhow::Error> {
    let config = Config::load(&args.config.config, Purpose::Run)?;
    let path = path(&config.sensor.state_dir);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            anyhow::bail!("sensor {} has not run yet: {} is not there", config.sensor.name, path.display())
        }
        read => read.with_context(|| path.display().to_string())?,
    };
    let mut status: Value =
        serde_json::from_slice(&text).with_context(|| format!("{}: expected JSON", path.display()))?;
    let running = is_running(&config.sensor.state_dir);
    if let Some(status) = status.as_object_mut() {
        status.insert("running".to_owned(), running.into());
        if !running {
            status.insert("connected".to_owned(), false.into());
        }
    }
    let printed = match args.format {
        Format::Json => format!("{status:#}\n"),
        Format::Metrics => metrics::of(&status),
        Format::Table => table(&status, wall_time()),
    };
    let mut out = io::stdout().lock();
    match out.write_all(printed.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    if running {
        return Ok(());
    }
    eprintln!("error: sensor {} is not running; this is its last state", config.sensor.name);
    Err(AlreadyTold.into())
}

fn number(status: &Value, key: &str) -> u64 {
    status.get(key).and_then(Value::as_u64).unwrap_or_default()
}

fn text<'a>(status: &'a Value, key: &str) -> &'a str {
    status.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn flag(status: &Value, key: &str) -> bool {
    status.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// The status for people.
fn table(status: &Value, now: i64) -> String {
    let n = |key| number(status, key);
    let updated = text(status, "updated_at").parse().map_or(now, Timestamp::as_nanos);
    let state = if flag(status, "running") { "running" } else { "not running" };
    let mut lines = vec![
        ("sensor", format!("{} at {}", text(status, "sensor"), text(status, "site"))),
        ("state", format!("{state}, pid {}, told {} s ago", n("pid"), age_seconds(updated, now))),
        (
            "packets",
            format!(
                "{} = {} parsed + {} unparsed; {} dropped before",
                n("packets"),
                n("parsed"),
                n("unparsed"),
                n("dropped")
            ),
        ),
        (
            "records",
            format!(
                "{} flows, {} observations, {} finding changes; {} flows live",
                n("flow_records"),
                n("observations"),
                n("findings"),
                n("live_flows")
            ),
        ),
        (
            "sealed",
            format!("batch {} of epoch {}, {} records", n("batches_sealed"), n("epoch"), n("records_sealed")),
        ),
        ("acked", acked_line(status)),
        ("spool", spool_line(status)),
        ("collector", collector_line(status)),
    ];
    lines.extend(plan::state::line(status).map(|line| ("plan", line)));
    if let Some(refusal) = status.get("plan_refusal").and_then(Value::as_str) {
        lines.push(("REFUSED", format!("{} plans of the collector: {refusal}", n("plan_refused"))));
    }
    if let Some(untrusted) = status.get("collector_untrusted").and_then(Value::as_str) {
        lines.push(("REFUSED", untrusted.to_owned()));
    }
    for loss in array(status, "losses") {
        let line = format!(
            "{} × {}: {}, since {}, last {}",
            number(loss, "count"),
            text(loss, "what"),
            text(loss, "reason"),
            text(loss, "since"),
            text(loss, "until")
        );
        lines.push(("lost", line));
    }
    for source in array(status, "sources") {
        let method = source.get("method").and_then(Value::as_str);
        let method = method.map_or_else(String::new, |method| format!(" by {method}"));
        let error = source.get("error").and_then(Value::as_str);
        let error = error.map_or(String::new(), |error| format!("; {error}"));
        lines.push((
            "source",
            format!("{}{method}: {} packets{error}", text(source, "name"), number(source, "packets")),
        ));
        lines.extend(source.get("account").map(|account| ("interface", account_line(account))));
    }
    if flag(status, "sources_ended") {
        lines.push(("", "every source has ended".to_owned()));
    }
    lines.into_iter().map(|(name, line)| format!("{name:<10} {line}\n")).collect()
}

/// What an interface counted itself, and what became of it.
fn account_line(account: &Value) -> String {
    let n = |key| number(account, key);
    let unexplained = account.get("unexplained").and_then(Value::as_i64).unwrap_or_default();
    format!(
        "{} counted = {} taken + {} dropped + {} filtered; {unexplained} unexplained",
        n("wire"),
        n("captured"),
        n("dropped"),
        n("filtered")
    )
}

fn array<'a>(status: &'a Value, key: &str) -> &'a [Value] {
    status.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn spool_line(status: &Value) -> String {
    let mib = |key| number(status, key) >> 20;
    let mut line = format!("{} of {} MiB", mib("spool_bytes"), mib("spool_limit_bytes"));
    if let Some(age) = status.get("spool_oldest_seconds").and_then(Value::as_i64) {
        line.push_str(&format!(", oldest batch waits {age} s"));
    }
    if flag(status, "spool_waiting") {
        line.push_str(", full: the source waits");
    }
    if let Some(error) = status.get("spool_error").and_then(Value::as_str) {
        line.push_str(&format!(", cannot be written: {error}"));
    }
    if flag(status, "spool_disk_full") {
        line.push_str(", its disk is full: only heartbeats and losses are taken");
    }
    let damaged = number(status, "spool_damaged_records");
    if damaged > 0 {
        line.push_str(&format!(", {damaged} damaged records"));
    }
    let quarantined = number(status, "spool_quarantine_files");
    if quarantined > 0 {
        line.push_str(&format!(", {quarantined} files in quarantine"));
    }
    line
}

fn acked_line(status: &Value) -> String {
    let mut line = format!("batch {}", number(status, "batches_acked"));
    if let Some(at) = status.get("cosigned_at").and_then(Value::as_str) {
        line.push_str(&format!(
            "; the collector signed for batch {} at {at}",
            number(status, "cosigned_batch")
        ));
    }
    line
}

fn collector_line(status: &Value) -> String {
    let endpoint = text(status, "collector");
    let error = status.get("last_error").and_then(Value::as_str);
    match (flag(status, "connected"), error) {
        (true, _) => format!("{endpoint}, connected, {} batches on the way", number(status, "in_flight")),
        (false, Some(error)) => format!("{endpoint}, not connected: {error}"),
        (false, None) => format!("{endpoint}, not connected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::PlanSource,
        run::{Place, SourceView},
        samples,
    };

    fn report() -> Report {
        let sources = vec![SourceView { name: "a.pcap".into(), packets: 10, ..SourceView::default() }];
        let mut ledger = samples::ledger();
        ledger.finding_changes = 2;
        let mut losses = Losses::default();
        losses.add("flow", 3, 300, "spool-full", Place::default());
        Report {
            sensor: "boston-1".into(),
            site: "boston".into(),
            pid: 42,
            running: true,
            started_at: 0,
            updated_at: 5 * NANOS_PER_SECOND,
            view: View { ledger, live_flows: 1, sources, ended: true, ..View::default() },
            plan: PlanState {
                source: PlanSource::Collector,
                in_use: plan::Held { version: 9, time: NANOS_PER_SECOND, ..plan::Held::default() },
                kept: Some(9),
                refused: 0,
                refusal: None,
            },
            sealed: Head { chain: ChainHead { epoch: 7, sequence: 9, hash: [1; 32] }, ..Head::default() },
            acked: ChainHead { epoch: 7, sequence: 8, hash: [2; 32] },
            failing: None,
            waiting: false,
            losses,
            spool_bytes: 5 << 20,
            spool_limit_bytes: 64 << 20,
            spool_oldest: Some(NANOS_PER_SECOND),
            damage: Damage::default(),
            storage: Storage { reserve_bytes: 4 << 20, ..Storage::default() },
            reserve_bytes: 4 << 20,
            cosigned: Some(Cosigned {
                head: ChainHead { epoch: 7, sequence: 8, hash: [2; 32] },
                algorithm: 1,
                key: [3; 32],
                time: NANOS_PER_SECOND,
                signature: [4; 64],
            }),
            collector: "https://c:1".into(),
            connection: ConnectionState { connected: true, in_flight: 1, ..ConnectionState::default() },
        }
    }

    #[test]
    fn the_names_that_others_read_are_there() {
        let json = report().to_json().unwrap();
        for (key, value) in [
            ("packets", 12),
            ("parsed", 11),
            ("unparsed", 1),
            ("dropped", 2),
            ("flow_records", 0),
            ("observations", 0),
            ("findings", 2),
            ("batches_sealed", 9),
            ("batches_acked", 8),
            ("records_sealed", 0),
            ("spool_bytes", 5 << 20),
            ("spool_oldest_seconds", 4),
            ("plan_version", 9),
            ("plan_refused", 0),
        ] {
            assert_eq!(json.get(key).and_then(Value::as_u64), Some(value), "{key}");
        }
        assert_eq!(json["connected"], true);
        assert_eq!(json["balanced"], true);
    }

    #[test]
    fn a_table_says_it_in_lines() {
        let mut json = report().to_json().unwrap();
        let table = table(&json, 7 * NANOS_PER_SECOND);
        for line in [
            "sensor     boston-1 at boston\n",
            "state      running, pid 42, told 2 s ago\n",
            "packets    12 = 11 parsed + 1 unparsed; 2 dropped before\n",
            "spool      5 of 64 MiB, oldest batch waits 4 s\n",
            "collector  https://c:1, connected, 1 batches on the way\n",
            "plan       version 9 of the collector's, issued at 1970-01-01T00:00:01.000000000Z\n",
            "lost       3 × flow: spool-full, since 1970-01-01T00:00:00.000000000Z, last 1970-01-01T00:00:00.000000000Z\n",
            "acked      batch 8; the collector signed for batch 8 at 1970-01-01T00:00:01.000000000Z\n",
        ] {
            assert!(table.contains(line), "{line}{table}");
        }
        assert!(!table.contains("REFUSED") && !table.contains("disk is full"), "{table}");
        json["collector_untrusted"] = "it was set back".into();
        json["spool_disk_full"] = true.into();
        json["spool_quarantine_files"] = 2.into();
        let table = super::table(&json, 0);
        json["plan_refused"] = 3.into();
        json["plan_refusal"] = "version 8: version 9 is held".into();
        json["plan_kept_version"] = 12.into();
        let told = super::table(&json, 0);
        for part in [
            "REFUSED    3 plans of the collector: version 8: version 9 is held\n",
            "; version 12 waits until these captures have been read\n",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        json["plan_source"] = "file".into();
        assert!(super::table(&json, 0).contains("plan       of its own configuration\n"));
        for part in ["REFUSED    it was set back\n", "its disk is full", "2 files in quarantine"] {
            assert!(table.contains(part), "{part}: {table}");
        }
        json["running"] = false.into();
        assert!(super::table(&json, 0).contains("not running"));
    }

    #[test]
    fn the_status_file_is_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path());
        write(&path, &report()).unwrap();
        write(&path, &report()).unwrap();
        let read: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["sensor"], "boston-1");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        assert!(!is_running(directory.path()));
    }
}
