//! `spool inspect`: what waits, how old it is, what was lost and why.

use std::{collections::BTreeMap, io::Write};

use onenet_core::time::{NANOS_PER_SECOND, Timestamp};
use onenet_proto::{seal::ChainHead, v1::BatchKind};
use serde_json::{Value, json};

use super::{Batch, InspectFormat, Place};
use crate::{
    keys::hex,
    run::wall_time,
    spool::{Cosigned, Found, Position, Survey, What},
};

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

/// Runs the command.
pub(super) fn inspect(
    place: &Place,
    format: InspectFormat,
    out: &mut dyn Write,
) -> Result<(), anyhow::Error> {
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
