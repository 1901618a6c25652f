//! `onenet-agent spool`: looks into the disk queue, while the agent runs or does not. Nothing here changes the spool, but
//! `accept-head`, which leaves an operator's acceptance in it.

use std::{collections::BTreeMap, fs::File, io::Write, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use onenet_core::{
    record::{FindingChange, FlowRecord, Observation},
    time::{NANOS_PER_SECOND, Timestamp},
};
use onenet_proto::{
    cosign::verify_cosignature,
    seal::{ChainHead, SigningKey, verify},
    v1::{BatchBody, BatchKind, Cosignature, SealedBatch},
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::{
    config::{Config, ConfigArgs, Purpose},
    error::UsageError,
    keys::{KeyStore, hex},
    run::wall_time,
    ship::Acceptance,
    spool::{Cosigned, Found, Header, Position, Survey, What},
    status,
};

/// Arguments of `spool`.
#[derive(Debug, Args)]
pub struct SpoolArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What waits: batches, records, bytes, age, losses and why, damage
    Inspect {
        #[command(flatten)]
        config: ConfigArgs,
        /// How to print
        #[arg(long, value_enum, default_value_t = InspectFormat::Table)]
        format: InspectFormat,
    },
    /// Check every checksum, seal and link of the chain; exit code 1 where something is wrong, with the first bad record
    Verify {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Write the batches that wait to a file
    Export {
        #[command(flatten)]
        config: ConfigArgs,
        /// File to make, "-" for standard output
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// How to write
        #[arg(long, value_enum, default_value_t = ExportFormat::Protobuf)]
        format: ExportFormat,
    },
    /// Accept that the collector was set back behind what it has signed for; the agent then goes on from what it holds
    AcceptHead {
        #[command(flatten)]
        config: ConfigArgs,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum InspectFormat {
    Table,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// SealedBatch messages, each behind its length as a varint
    Protobuf,
    /// One JSON object per batch and line
    Json,
}

/// Runs the command.
pub fn spool(args: &SpoolArgs, out: &mut dyn Write) -> Result<(), anyhow::Error> {
    match &args.command {
        Command::Inspect { config, format } => inspect(&Place::of(config)?, *format, out),
        Command::Verify { config } => check(&Place::of(config)?, out),
        Command::Export { config, to, format } => export(&Place::of(config)?, to, *format, out),
        Command::AcceptHead { config } => accept_head(&Place::of(config)?, out),
    }
}

/// The spool of a configuration.
struct Place {
    config: Config,
    directory: PathBuf,
    is_running: bool,
}

impl Place {
    fn of(args: &ConfigArgs) -> Result<Self, anyhow::Error> {
        let config = Config::load(&args.config, Purpose::Run)?;
        let directory = config.sensor.state_dir.join("spool");
        let is_running = status::is_running(&config.sensor.state_dir);
        Ok(Self { config, directory, is_running })
    }

    fn survey(&self) -> Result<Survey, anyhow::Error> {
        Survey::new(&self.directory, self.is_running)
            .with_context(|| format!("spool {} cannot be read", self.directory.display()))
    }

    fn segment(&self, number: u64) -> String {
        format!("{}/{number:016x}.segment", self.directory.display())
    }

    /// What is wrong at a place, with the place.
    fn damage(&self, found: &Found) -> Option<String> {
        let at = format!("{} at offset {}", self.segment(found.segment), found.offset);
        match &found.what {
            What::Record(..) | What::Torn => None,
            What::BadPayload(Position { epoch, sequence }) => Some(format!(
                "{at}: epoch {epoch}, batch {sequence}: expected a payload that fits its CRC-32C"
            )),
            What::Rubbish => Some(format!(
                "{at}: {} bytes, expected a record with the magic ONRB and a sound header",
                found.bytes
            )),
        }
    }
}

/// A batch of the spool, decoded.
struct Batch {
    header: Box<Header>,
    sealed: SealedBatch,
    body: BatchBody,
}

impl Batch {
    fn decode(header: Box<Header>, payload: &[u8]) -> Result<Self, prost::DecodeError> {
        let sealed = SealedBatch::decode(payload)?;
        let body = BatchBody::decode(&sealed.body[..])?;
        Ok(Self { header, sealed, body })
    }
}

/// What `inspect` counts.
#[derive(Default)]
struct Waiting {
    batches: u64,
    heartbeats: u64,
    bytes: u64,
    flows: u64,
    observations: u64,
    findings: u64,
    audit: u64,
    first: Option<Position>,
    last: Option<Position>,
    oldest: Option<i64>,
    /// By class and reason: count, bytes, since, until.
    losses: BTreeMap<(String, String), (u64, u64, i64, i64)>,
    damage: Vec<String>,
    torn_bytes: u64,
}

impl Waiting {
    fn add(&mut self, found: &Found, batch: &Batch) {
        let Batch { header, body, .. } = batch;
        self.batches += 1;
        self.heartbeats += u64::from(i32::from(header.kind) == i32::from(BatchKind::Heartbeat));
        self.bytes = self.bytes.saturating_add(found.bytes);
        let flows = body.flows.iter().map(|flow| flow.aggregate.map_or(1, |many| many.flows));
        self.flows = flows.fold(self.flows, u64::saturating_add);
        self.observations += body.observations.len() as u64;
        self.findings += body.findings.len() as u64;
        self.audit += body.audit.len() as u64;
        self.first.get_or_insert(header.position);
        self.last = Some(header.position);
        self.oldest.get_or_insert(header.sealed_at);
        for loss in &body.losses {
            let key = (loss.what.clone(), loss.reason.clone());
            let sum = self.losses.entry(key).or_insert((0, 0, loss.since, loss.until));
            *sum = (
                sum.0.saturating_add(loss.count),
                sum.1.saturating_add(loss.bytes),
                sum.2.min(loss.since),
                sum.3.max(loss.until),
            );
        }
    }
}

fn inspect(place: &Place, format: InspectFormat, out: &mut dyn Write) -> Result<(), anyhow::Error> {
    let survey = place.survey()?;
    let acked = survey.state.as_ref().map_or_else(ChainHead::default, |state| state.acked);
    let mut waiting = Waiting::default();
    survey.walk(|mut found| {
        waiting.damage.extend(place.damage(&found));
        let what = std::mem::replace(&mut found.what, What::Rubbish);
        match what {
            What::Torn => waiting.torn_bytes = waiting.torn_bytes.saturating_add(found.bytes),
            What::Record(header, payload) if header.position > Position::from(&acked) => {
                match Batch::decode(header, &payload) {
                    Ok(batch) => waiting.add(&found, &batch),
                    Err(error) => waiting.damage.push(format!(
                        "{} at offset {}: {error}, expected a sealed batch",
                        place.segment(found.segment),
                        found.offset
                    )),
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    let report = inspect_json(place, &survey, &waiting, &acked);
    match format {
        InspectFormat::Json => writeln!(out, "{report:#}")?,
        InspectFormat::Table => inspect_table(&survey, &waiting, &acked, out)?,
    }
    Ok(())
}

fn inspect_json(place: &Place, survey: &Survey, waiting: &Waiting, acked: &ChainHead) -> Value {
    let position = |position: Option<Position>| {
        position.map(|Position { epoch, sequence }| json!({"epoch": epoch, "sequence": sequence}))
    };
    let losses: Vec<Value> = waiting
        .losses
        .iter()
        .map(|((what, reason), (count, bytes, since, until))| {
            json!({"what": what, "reason": reason, "count": count, "bytes": bytes,
                "since": Timestamp(*since).to_string(), "until": Timestamp(*until).to_string()})
        })
        .collect();
    let cosigned = survey.state.and_then(|state| state.cosigned).map(|cosigned| {
        json!({"epoch": cosigned.head.epoch, "sequence": cosigned.head.sequence,
            "at": Timestamp(cosigned.time).to_string(), "key": hex(&cosigned.key)})
    });
    json!({
        "sensor": place.config.sensor.name.to_string(),
        "running": place.is_running,
        "state_sound": survey.state.is_some(),
        "epoch": survey.state.map(|state| state.epoch),
        "acked": {"epoch": acked.epoch, "sequence": acked.sequence},
        "cosigned": cosigned,
        "waiting_batches": waiting.batches,
        "waiting_heartbeats": waiting.heartbeats,
        "waiting_bytes": waiting.bytes,
        "waiting_flows": waiting.flows,
        "waiting_observations": waiting.observations,
        "waiting_findings": waiting.findings,
        "waiting_audit_entries": waiting.audit,
        "first": position(waiting.first),
        "last": position(waiting.last),
        "oldest_seconds": waiting.oldest.map(age_seconds),
        "waiting_losses": losses,
        "segments": survey.segments.len(),
        "segment_bytes": survey.segments.iter().map(|&(_, bytes)| bytes).sum::<u64>(),
        "reserve_bytes": survey.reserve_bytes,
        "quarantine": survey.quarantine.iter()
            .map(|(name, bytes)| json!({"name": name, "bytes": bytes})).collect::<Vec<_>>(),
        "torn_bytes": waiting.torn_bytes,
        "damage": waiting.damage,
    })
}

fn age_seconds(sealed_at: i64) -> i64 {
    (wall_time().saturating_sub(sealed_at) / NANOS_PER_SECOND).max(0)
}

fn inspect_table(
    survey: &Survey,
    waiting: &Waiting,
    acked: &ChainHead,
    out: &mut dyn Write,
) -> Result<(), anyhow::Error> {
    let mut line = |name: &str, text: String| writeln!(out, "{name:<10} {text}");
    let kib = |bytes: u64| bytes.div_ceil(1024);
    line(
        "waiting",
        format!(
            "{} batches ({} heartbeats), {} KiB: {} flows, {} observations, {} findings, {} audit entries",
            waiting.batches,
            waiting.heartbeats,
            kib(waiting.bytes),
            waiting.flows,
            waiting.observations,
            waiting.findings,
            waiting.audit
        ),
    )?;
    if let (Some(first), Some(last), Some(oldest)) = (waiting.first, waiting.last, waiting.oldest) {
        line(
            "from",
            format!("epoch {}, batch {}, {} s old", first.epoch, first.sequence, age_seconds(oldest)),
        )?;
        line("to", format!("epoch {}, batch {}", last.epoch, last.sequence))?;
    }
    line("acked", format!("epoch {}, batch {}", acked.epoch, acked.sequence))?;
    match survey.state.map(|state| state.cosigned) {
        None => line("state", "not sound: the next start begins a new epoch".to_owned())?,
        Some(None) => line("cosigned", "nothing".to_owned())?,
        Some(Some(Cosigned { head, time, key, .. })) => line(
            "cosigned",
            format!(
                "epoch {}, batch {} at {} by key {}",
                head.epoch,
                head.sequence,
                Timestamp(time),
                hex(&key)
            ),
        )?,
    }
    let bytes = survey.segments.iter().map(|&(_, bytes)| bytes).sum();
    line("segments", format!("{}, {} KiB", survey.segments.len(), kib(bytes)))?;
    line("reserve", format!("{} KiB", kib(survey.reserve_bytes)))?;
    let bytes = survey.quarantine.iter().map(|(_, bytes)| bytes).sum();
    line("quarantine", format!("{} files, {} KiB", survey.quarantine.len(), kib(bytes)))?;
    for ((what, reason), (count, _, since, until)) in &waiting.losses {
        let (since, until) = (Timestamp(*since), Timestamp(*until));
        line("lost", format!("{count} × {what}: {reason}, since {since}, last {until}"))?;
    }
    if waiting.torn_bytes > 0 {
        line("torn", format!("{} bytes at the end, which the next start cuts off", waiting.torn_bytes))?;
    }
    for damage in &waiting.damage {
        line("damaged", damage.clone())?;
    }
    Ok(())
}

/// What `verify` has come to.
#[derive(Default)]
struct Chain {
    head: Option<ChainHead>,
    batches: u64,
    bytes: u64,
    torn_bytes: u64,
    bad: u64,
    first_bad: Option<String>,
}

impl Chain {
    /// What is wrong with a batch in its place, none if nothing is.
    fn judge(&mut self, header: &Header, payload: &[u8], sensor: &str, key: &[u8]) -> Option<String> {
        let sealed = match SealedBatch::decode(payload) {
            Ok(sealed) => sealed,
            Err(error) => return Some(format!("{error}, expected a sealed batch")),
        };
        let verified = match verify(&sealed, key) {
            Ok(verified) => verified,
            Err(error) => return Some(format!("{error}, expected a seal by this sensor's key")),
        };
        let before = self.head.replace(verified.head());
        if verified.header.sensor != sensor {
            return Some(format!("sealed by {:?}, expected {sensor:?}", verified.header.sensor));
        }
        if Position::from(&verified.head()) != header.position || verified.hash != header.hash {
            return Some(format!(
                "holds batch {} of epoch {}, expected what its header names",
                verified.header.sequence, verified.header.epoch
            ));
        }
        let before = before?;
        // Records that a rewrite after a failed fsync repeats.
        if Position::from(&verified.head()) <= Position::from(&before) {
            self.head = Some(before);
            return None;
        }
        let start = ChainHead { epoch: verified.header.epoch, ..ChainHead::default() };
        let begins = verified.header.epoch > before.epoch && verified.follows(&start);
        (!begins && !verified.follows(&before)).then(|| {
            format!(
                "does not follow what stands before it, expected batch {} of epoch {} with that one's hash",
                before.sequence.saturating_add(1),
                before.epoch
            )
        })
    }

    fn bad(&mut self, message: String) {
        self.bad += 1;
        self.first_bad.get_or_insert(message);
    }
}

fn check(place: &Place, out: &mut dyn Write) -> Result<(), anyhow::Error> {
    let identity = KeyStore::new(&place.config.sensor.state_dir).identity()?;
    let key = SigningKey::from_pkcs8(&identity.signing_key)?;
    let sensor = place.config.sensor.name.to_string();
    let survey = place.survey()?;
    let mut chain = Chain::default();
    survey.walk(|found| {
        if let Some(damage) = place.damage(&found) {
            chain.bad(damage);
        }
        match &found.what {
            What::Torn => chain.torn_bytes = chain.torn_bytes.saturating_add(found.bytes),
            What::Record(header, payload) => {
                chain.batches += 1;
                chain.bytes = chain.bytes.saturating_add(found.bytes);
                if let Some(wrong) = chain.judge(header, payload, &sensor, key.public_key()) {
                    let Position { epoch, sequence } = header.position;
                    chain.bad(format!(
                        "{} at offset {}: epoch {epoch}, batch {sequence}: {wrong}",
                        place.segment(found.segment),
                        found.offset
                    ));
                }
            }
            What::BadPayload(_) | What::Rubbish => {}
        }
        Ok(())
    })?;
    if survey.state.is_none() && !survey.segments.is_empty() {
        let state = place.directory.join("state");
        chain.bad(format!("{}: expected a slot with a sound CRC-32C", state.display()));
    }
    if let Some(wrong) =
        survey.state.and_then(|state| state.cosigned).and_then(|c| check_cosigned(&c, &sensor))
    {
        chain.bad(format!("{}: {wrong}", place.directory.join("state").display()));
    }
    writeln!(out, "{} batches, {} bytes in {} segments", chain.batches, chain.bytes, survey.segments.len())?;
    if chain.torn_bytes > 0 {
        writeln!(
            out,
            "{} bytes at the end are a torn write, which the next start cuts off",
            chain.torn_bytes
        )?;
    }
    for (name, bytes) in &survey.quarantine {
        writeln!(out, "quarantine: {name}, {bytes} bytes")?;
    }
    let Some(first) = chain.first_bad else {
        writeln!(out, "sound: every checksum, seal and link holds")?;
        return Ok(());
    };
    out.flush()?;
    let others = chain.bad.saturating_sub(1);
    anyhow::bail!("{first}{}", if others > 0 { format!("; and {others} more") } else { String::new() });
}

fn check_cosigned(cosigned: &Cosigned, sensor: &str) -> Option<String> {
    let cosignature = Cosignature {
        algorithm: cosigned.algorithm,
        key: cosigned.key.to_vec().into(),
        time: cosigned.time,
        signature: cosigned.signature.to_vec().into(),
    };
    verify_cosignature(&cosignature, &cosigned.key, sensor, &cosigned.head)
        .err()
        .map(|error| error.to_string())
}

fn export(
    place: &Place,
    to: &std::path::Path,
    format: ExportFormat,
    out: &mut dyn Write,
) -> Result<(), anyhow::Error> {
    let survey = place.survey()?;
    let acked = survey.state.as_ref().map_or_else(ChainHead::default, |state| state.acked);
    let to_stdout = to.as_os_str() == "-";
    let mut file;
    let target: &mut dyn Write = if to_stdout {
        out
    } else {
        let made = File::create_new(to).with_context(|| format!("{} cannot be made", to.display()));
        file =
            std::io::BufWriter::new(made.map_err(|error| match error.downcast_ref::<std::io::Error>() {
                Some(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {
                    UsageError(format!("--to {}: expected a file that is not there yet", to.display())).into()
                }
                _ => error,
            })?);
        &mut file
    };
    let (mut batches, mut damaged) = (0_u64, Vec::new());
    let mut last = Position::from(&acked);
    survey.walk(|found| {
        damaged.extend(place.damage(&found));
        let What::Record(header, payload) = found.what else { return Ok(()) };
        if header.position <= last {
            return Ok(());
        }
        last = header.position;
        match format {
            ExportFormat::Protobuf => {
                let mut length = Vec::new();
                prost::encoding::encode_varint(payload.len() as u64, &mut length);
                target.write_all(&length)?;
                target.write_all(&payload)?;
            }
            ExportFormat::Json => {
                let batch = Batch::decode(header, &payload)?;
                serde_json::to_writer(&mut *target, &batch_json(batch)?)?;
                target.write_all(b"\n")?;
            }
        }
        batches += 1;
        Ok(())
    })?;
    target.flush()?;
    eprintln!("{batches} batches written");
    if let Some(first) = damaged.first() {
        anyhow::bail!("{} damaged places left out, the first: {first}", damaged.len());
    }
    Ok(())
}

/// A batch as a person reads it.
fn batch_json(batch: Batch) -> Result<Value, anyhow::Error> {
    let Batch { header, sealed, body } = batch;
    fn records<W, R: TryFrom<W, Error: std::error::Error + Send + Sync + 'static> + serde::Serialize>(
        messages: Vec<W>,
    ) -> Result<Vec<Value>, anyhow::Error> {
        let value = |message| Ok(serde_json::to_value(R::try_from(message)?)?);
        messages.into_iter().map(value).collect()
    }
    let losses: Vec<Value> = body
        .losses
        .iter()
        .map(|loss| {
            json!({"what": loss.what, "count": loss.count, "bytes": loss.bytes, "reason": loss.reason,
                "epoch": loss.epoch, "first_sequence": loss.first_sequence, "last_sequence": loss.last_sequence,
                "since": Timestamp(loss.since).to_string(), "until": Timestamp(loss.until).to_string()})
        })
        .collect();
    let audit: Vec<Value> = body
        .audit
        .iter()
        .map(|entry| {
            json!({"time": Timestamp(entry.time).to_string(), "action": entry.action, "detail": entry.detail})
        })
        .collect();
    let start = body.epoch_start.as_ref().map(|start| {
        json!({"reason": start.reason, "detail": start.detail, "previous_epoch": start.previous_epoch,
            "previous_sequence": start.previous_sequence, "previous_hash": hex(&start.previous_hash)})
    });
    Ok(json!({
        "epoch": header.position.epoch,
        "sequence": header.position.sequence,
        "hash": hex(&header.hash),
        "previous_hash": hex(&header.previous_hash),
        "signature": hex(&sealed.signature),
        "sealed_at": Timestamp(header.sealed_at).to_string(),
        "epoch_start": start,
        "audit": audit,
        "losses": losses,
        "flows": records::<_, FlowRecord>(body.flows)?,
        "observations": records::<_, Observation>(body.observations)?,
        "findings": records::<_, FindingChange>(body.findings)?,
    }))
}

fn accept_head(place: &Place, out: &mut dyn Write) -> Result<(), anyhow::Error> {
    let path = status::path(&place.config.sensor.state_dir);
    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let told: Value =
        serde_json::from_slice(&text).with_context(|| format!("{}: expected JSON", path.display()))?;
    let set_back = told.get("collector_set_back").and_then(Value::as_bool).unwrap_or_default();
    let message = told.get("collector_untrusted").and_then(Value::as_str).unwrap_or_default();
    let cosigned = place.survey()?.state.and_then(|state| state.cosigned);
    let (true, Some(cosigned)) = (set_back, cosigned) else {
        anyhow::bail!("nothing to accept: the collector was not found to hold less than it has signed for");
    };
    Acceptance::new(&place.directory)
        .enter(&cosigned.head)
        .with_context(|| format!("spool {} cannot be written", place.directory.display()))?;
    let when = if place.is_running { "within seconds" } else { "with its next start" };
    let told = message.split("; nothing is sent").next().unwrap_or_default();
    writeln!(out, "accepted: {told}. The agent takes it up {when}, and says so in its chain.")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use onenet_proto::{
        cosign::cosign,
        seal::Sealer,
        v1::{AuditEntry, Flow, Loss},
    };

    use super::*;
    use crate::{
        keys::Enrolment,
        spool::{self, Mark},
    };

    struct Lab {
        directory: tempfile::TempDir,
        key: Vec<u8>,
    }

    impl Lab {
        /// A sensor with nine batches, of which two are acked.
        fn new() -> Self {
            let directory = spool::scratch();
            let text = "[sensor]\nname = \"boston-1\"\nsite = \"boston\"\nstate_dir = \"state\"\n";
            std::fs::write(directory.path().join("agent.toml"), text).unwrap();
            let state = directory.path().join("state");
            let store = KeyStore::new(&state);
            store.load_or_create().unwrap();
            let enrolment =
                Enrolment { sensor: "boston-1".into(), site: "boston".into(), endpoint: String::new() };
            let tls_key = std::fs::read(state.join("keys/tls.key")).unwrap();
            store.store(&enrolment, &[1], &[2], &[]).unwrap();
            assert!(!tls_key.is_empty());
            let key = std::fs::read(state.join("keys/signing.key")).unwrap();
            let lab = Self { directory, key };
            lab.seal(9, 2);
            lab
        }

        fn seal(&self, batches: u64, acked: u64) {
            let settings =
                spool::Settings { segment_bytes: 1200, reserve_bytes: 4096, quarantine_bytes: 4096 };
            let path = self.directory.path().join("state/spool");
            let mut opened = spool::open(&path, settings, 7, spool::on_disk()).unwrap();
            let key = SigningKey::from_pkcs8(&self.key).unwrap();
            let mut sealer = Sealer::new(key, "boston-1".into(), opened.head.chain);
            for number in 1..=batches {
                let previous_hash = sealer.head().hash;
                let loss =
                    Loss { what: "flow".into(), count: 2, reason: "spool-full".into(), ..Loss::default() };
                let body = BatchBody {
                    flows: vec![Flow { community_id: "x".repeat(300), ..Flow::default() }],
                    losses: if number == 5 { vec![loss] } else { Vec::new() },
                    audit: vec![AuditEntry { action: "started".into(), ..AuditEntry::default() }],
                    ..BatchBody::default()
                };
                let sealed = sealer.seal(&body, BatchKind::Records, 1, 1);
                opened.writer.append(&spool::Batch {
                    payload: &sealed.encode_to_vec(),
                    kind: 1,
                    algorithm: 1,
                    records: 1,
                    previous_hash,
                    chain: sealer.head(),
                    sealed_at: wall_time() - 100 * NANOS_PER_SECOND,
                    mark: Mark::default(),
                });
                opened.writer.flush().unwrap();
                if number == acked {
                    let (collector, _) = SigningKey::generate().unwrap();
                    let head = sealer.head();
                    opened.writer.shared().acknowledge(head);
                    let signed = cosign(&collector, "boston-1", &head, 5);
                    opened.writer.shared().keep_cosignature(Cosigned::new(head, &signed).unwrap());
                }
            }
            opened.writer.close().unwrap();
        }

        fn place(&self) -> Place {
            Place::of(&ConfigArgs { config: self.directory.path().join("agent.toml") }).unwrap()
        }

        fn run(
            &self,
            command: impl FnOnce(&Place, &mut dyn Write) -> Result<(), anyhow::Error>,
        ) -> (String, String) {
            let mut out = Vec::new();
            let error = command(&self.place(), &mut out).err().map(|error| format!("{error:#}"));
            (String::from_utf8_lossy(&out).into_owned(), error.unwrap_or_default())
        }

        /// The segment that holds this payload of the n-th waiting batch, and where.
        fn change(&self, sequence: u64, change: impl Fn(&mut [u8])) -> String {
            let place = self.place();
            let mut at = None;
            place
                .survey()
                .unwrap()
                .walk(|found| {
                    if matches!(&found.what, What::Record(header, _) if header.position.sequence == sequence)
                    {
                        at = Some((place.segment(found.segment), found.offset, found.bytes));
                    }
                    Ok(())
                })
                .unwrap();
            let (path, offset, length) = at.unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            let start = usize::try_from(offset).unwrap();
            change(&mut bytes[start..start + usize::try_from(length).unwrap()]);
            std::fs::write(&path, bytes).unwrap();
            format!("{path} at offset {offset}")
        }
    }

    #[test]
    fn inspect_says_what_waits_and_why_something_was_lost() {
        let lab = Lab::new();
        let (json, error) = lab.run(|place, out| inspect(place, InspectFormat::Json, out));
        assert_eq!(error, "");
        let json: Value = serde_json::from_str(&json).unwrap();
        for (key, expected) in [
            ("waiting_batches", 7),
            ("waiting_flows", 7),
            ("waiting_audit_entries", 7),
            ("reserve_bytes", 4096),
            ("epoch", 7),
        ] {
            assert_eq!(json[key], expected, "{key}");
        }
        assert_eq!(json["first"], json!({"epoch": 7, "sequence": 3}));
        assert_eq!(json["last"], json!({"epoch": 7, "sequence": 9}));
        assert_eq!(json["acked"]["sequence"], 2);
        assert_eq!(json["cosigned"]["sequence"], 2);
        assert!(json["oldest_seconds"].as_i64().unwrap() >= 100);
        assert_eq!(json["waiting_losses"][0]["count"], 2);
        let (table, _) = lab.run(|place, out| inspect(place, InspectFormat::Table, out));
        assert!(table.contains("lost       2 × flow: spool-full"), "{table}");
        assert!(table.contains("7 batches (0 heartbeats)") && table.contains("reserve    4 KiB"), "{table}");
    }

    #[test]
    fn verify_finds_nothing_where_nothing_is_wrong_and_else_names_the_first_bad_record() {
        let lab = Lab::new();
        let (out, error) = lab.run(check);
        assert_eq!(error, "");
        assert!(out.ends_with("sound: every checksum, seal and link holds\n"), "{out}");

        let at = lab.change(6, |record| record[200] ^= 1);
        let (_, error) = lab.run(check);
        let expected =
            format!("{at}: epoch 7, batch 6: expected a payload that fits its CRC-32C; and 1 more");
        assert_eq!(error, expected, "the one behind it follows nothing any more");
        let at = lab.change(4, |record| record[0] ^= 1);
        let (_, error) = lab.run(check);
        assert!(error.starts_with(&at) && error.contains("expected a record with the magic ONRB"), "{error}");
    }

    #[test]
    fn verify_finds_a_batch_with_sound_checksums_that_another_key_sealed() {
        let lab = Lab::new();
        let forge = |record: &mut [u8]| {
            let (header, payload) = record.split_first_chunk_mut::<160>().unwrap();
            let at = payload.len() - 5;
            payload[at] ^= 1;
            header[152..156].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
            let crc = crc32c::crc32c(&header[..156]);
            header[156..].copy_from_slice(&crc.to_le_bytes());
        };
        let at = lab.change(8, forge);
        let (_, error) = lab.run(check);
        assert!(error.starts_with(&format!("{at}: epoch 7, batch 8: the signature does not fit")), "{error}");
    }

    #[test]
    fn a_torn_end_is_no_damage() {
        let lab = Lab::new();
        let place = lab.place();
        let survey = place.survey().unwrap();
        let &(last, length) = survey.segments.last().unwrap();
        File::options().write(true).open(place.segment(last)).unwrap().set_len(length - 3).unwrap();
        let (out, error) = lab.run(check);
        assert_eq!(error, "");
        assert!(out.contains("at the end are a torn write"), "{out}");
    }

    #[test]
    fn what_waits_is_exported_whole_and_what_is_damaged_is_left_out_and_named() {
        let lab = Lab::new();
        let to = lab.directory.path().join("out.bin");
        let (_, error) = lab.run(|place, out| export(place, &to, ExportFormat::Protobuf, out));
        assert_eq!(error, "");
        let bytes = std::fs::read(&to).unwrap();
        let mut rest = &bytes[..];
        let key = SigningKey::from_pkcs8(&lab.key).unwrap();
        let mut sequences = Vec::new();
        while !rest.is_empty() {
            let batch = SealedBatch::decode_length_delimited(&mut rest).unwrap();
            sequences.push(verify(&batch, key.public_key()).unwrap().header.sequence);
        }
        assert_eq!(sequences, [3, 4, 5, 6, 7, 8, 9]);
        let (_, error) = lab.run(|place, out| export(place, &to, ExportFormat::Protobuf, out));
        assert!(error.contains("expected a file that is not there yet"), "{error}");
        lab.change(6, |record| record[200] ^= 1);
        let stdout = std::path::Path::new("-");
        let (_, error) = lab.run(|place, out| export(place, stdout, ExportFormat::Protobuf, out));
        assert!(
            error.starts_with("1 damaged places left out, the first: ") && error.contains("batch 6"),
            "{error}"
        );
    }

    #[test]
    fn a_head_is_accepted_only_where_the_collector_was_found_to_be_set_back() {
        let lab = Lab::new();
        let status = lab.directory.path().join("state/status.json");
        std::fs::write(&status, r#"{"collector_set_back": false, "collector_untrusted": null}"#).unwrap();
        let (_, error) = lab.run(accept_head);
        assert!(error.starts_with("nothing to accept"), "{error}");
        let text = r#"{"collector_set_back": true, "collector_untrusted": "it was set back; nothing is sent until"}"#;
        std::fs::write(&status, text).unwrap();
        let (out, error) = lab.run(accept_head);
        assert_eq!(error, "");
        assert!(
            out.starts_with("accepted: it was set back. The agent takes it up with its next start"),
            "{out}"
        );
        let cosigned = lab.place().survey().unwrap().state.unwrap().cosigned.unwrap();
        assert!(Acceptance::new(&lab.place().directory).covers(&cosigned.head));
    }
}
