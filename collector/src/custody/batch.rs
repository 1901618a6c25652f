//! What one committed batch tells of its sensor: how its epoch begins, what was lost, how its clock goes, whether it
//! says that it stops.

use std::{collections::BTreeMap, sync::Arc};

use onenet_core::{
    plan::AddressPlan,
    record::{RuleId, Severity},
    time::Timestamp,
};
use onenet_proto::{
    seal::ChainHead,
    v1::{BatchHeader, EpochStart, Loss},
};
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::{
    SensorsConfig,
    clock::{self, Clock, Skew, Verdict},
    incident::{News, Teller},
    seconds,
    tables::{self, Stand},
};
use crate::{
    ca::hex,
    store::{Records, StoredBatch, plans},
};

/// Judges one batch. Batches come in the order of their commit.
pub(crate) fn judge(
    transaction: &Transaction<'_>,
    plan: &Arc<AddressPlan>,
    config: &SensorsConfig,
    batch: &StoredBatch,
    records: &Records,
) -> Result<(), rusqlite::Error> {
    let Ok(header) = BatchHeader::decode(&batch.header[..]) else { return Ok(()) };
    let before = tables::stand(transaction, &batch.sensor)?;
    let head = ChainHead { epoch: batch.epoch, sequence: batch.sequence, hash: batch.hash };
    if before.as_ref().is_some_and(|before| before.head == head) {
        // Judged already.
        return Ok(());
    }
    if batch.poison.is_none() {
        plans::put_held(transaction, &batch.sensor, records.plan.as_ref())?;
    }
    let mut teller = Teller::new(transaction, plan);
    if let Some(before) = before.as_ref().filter(|_| batch.sequence == 1 && batch.poison.is_none()) {
        judge_start(&mut teller, config, batch, records.epoch_start.as_ref(), before)?;
    }
    judge_losses(&mut teller, config, batch, &records.losses)?;
    let said = |action: &str| records.audit.iter().rposition(|entry| entry.action == action);
    let (started, stopped) = (said("started"), said("stopped"));
    let run_of = before.as_ref().filter(|before| {
        started.is_none()
            && before.head.epoch == batch.epoch
            && before.clock.monotonic_time <= header.monotonic_time
    });
    let now = Clock::begin(batch.received_at, Timestamp(header.wall_time), header.monotonic_time);
    let now = run_of.map_or(now, |before| before.clock.advance(now));
    // A header without a time is of no sensor there is.
    if header.wall_time != 0 {
        judge_clock(&mut teller, config, batch, run_of.map(|before| &before.clock), &now)?;
    }
    let stopped = match (stopped, started) {
        (Some(stopped), started) if started.is_none_or(|started| stopped > started) => {
            records.audit.get(stopped).map(|entry| entry.detail.clone())
        }
        (_, Some(_)) => None,
        // What comes behind it in the order of the chain was still waiting.
        _ => before.and_then(|before| before.stopped),
    };
    tables::put_stand(transaction, &batch.sensor, &Stand { head, clock: now, stopped })
}

/// Whether the sensor has enrolled since the batch before: another machine, or one set up anew, by an operator's token.
fn enrolled_since(connection: &Connection, sensor: &str, since: Timestamp) -> Result<bool, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT enrolled_at FROM sensors WHERE name = ?")?;
    let enrolled = statement.query_row([sensor], |row| row.get::<_, i64>(0)).optional()?;
    Ok(enrolled.is_some_and(|at| at > since.0))
}

fn judge_start(
    teller: &mut Teller<'_>,
    config: &SensorsConfig,
    batch: &StoredBatch,
    start: Option<&EpochStart>,
    before: &Stand,
) -> Result<(), rusqlite::Error> {
    let Some(problem) = contradiction(start, &before.head) else { return Ok(()) };
    let renewed = enrolled_since(teller.transaction, &batch.sensor, before.clock.received_at)?;
    if renewed && start.is_none_or(|start| start.previous_epoch == 0) {
        return Ok(());
    }
    let held = &before.head;
    let said = start.map_or("nothing", |start| start.reason.as_str());
    teller.note(&News {
        rule: RuleId::SensorRollback,
        sensor: batch.sensor.clone(),
        time: batch.received_at,
        severity: Severity::High,
        confidence: 90,
        summary: format!(
            "{}: epoch {} begins ({said}) {problem}; held here: batch {} of epoch {}, hash {}",
            batch.sensor,
            batch.epoch,
            held.sequence,
            held.epoch,
            hex(&held.hash),
        ),
        adds: vec![("epochs".to_owned(), 1)],
        sets: Vec::new(),
        quiet_at: Some(batch.received_at.plus(config.quiet())),
    })
}

/// In what the start of an epoch contradicts the head that is held, where it does. A sensor may have sealed more than
/// was ever delivered, and then it seals that anew; less it cannot have sealed.
fn contradiction(start: Option<&EpochStart>, held: &ChainHead) -> Option<String> {
    let Some(start) = start else {
        return Some("without saying where its chain stood".to_owned());
    };
    let (epoch, sequence) = (start.previous_epoch, start.previous_sequence);
    if epoch == 0 {
        return Some("as if nothing had been before: its state is lost, or it is another sensor".to_owned());
    }
    let known = format!("batch {sequence} of epoch {epoch}, hash {}", hex(&start.previous_hash));
    match (epoch, sequence).cmp(&(held.epoch, held.sequence)) {
        std::cmp::Ordering::Less => {
            Some(format!("behind what it delivered, as a sensor restored from a copy does: it knows {known}"))
        }
        std::cmp::Ordering::Equal if start.previous_hash[..] != held.hash => {
            Some(format!("with another past: it knows {known}"))
        }
        _ => None,
    }
}

fn judge_losses(
    teller: &mut Teller<'_>,
    config: &SensorsConfig,
    batch: &StoredBatch,
    losses: &[Loss],
) -> Result<(), rusqlite::Error> {
    let (missing, shed): (Vec<&Loss>, Vec<&Loss>) =
        losses.iter().filter(|loss| loss.count > 0).partition(|loss| loss.reason == "not-held");
    let at = format!("told in batch {} of epoch {}, hash {}", batch.sequence, batch.epoch, hex(&batch.hash));
    let news = |rule, severity, summary, losses: &[&Loss]| News {
        rule,
        sensor: batch.sensor.clone(),
        time: batch.received_at,
        severity,
        confidence: 100,
        summary,
        adds: added(losses),
        sets: Vec::new(),
        quiet_at: Some(batch.received_at.plus(config.quiet())),
    };
    if let Some(first) = missing.first() {
        let summary = format!(
            "{} lost what it had sealed: {}; batches {} to {} of epoch {}; {at}",
            batch.sensor,
            listed(&missing),
            first.first_sequence,
            first.last_sequence,
            first.epoch,
        );
        teller.note(&news(RuleId::SensorGap, Severity::High, summary, &missing))?;
    }
    if !shed.is_empty() {
        let severity = shed.iter().map(|loss| severity_of(loss)).max().unwrap_or(Severity::Low);
        let summary = format!("{} gave up {}; {at}", batch.sensor, listed(&shed));
        teller.note(&news(RuleId::SensorShed, severity, summary, &shed))?;
    }
    Ok(())
}

/// Detail that stands in an aggregate is the least of it; findings are what people act on.
fn severity_of(loss: &Loss) -> Severity {
    match (loss.what.as_str(), loss.reason.as_str()) {
        (_, "aggregated") => Severity::Low,
        ("finding", _) => Severity::High,
        _ => Severity::Medium,
    }
}

/// The name under which a class is counted: a sensor cannot make up others.
fn class(loss: &Loss) -> &'static str {
    match (loss.what.as_str(), loss.reason.as_str()) {
        ("flow", "aggregated") => "flows_aggregated",
        ("flow", _) => "flows_lost",
        ("observation", _) => "observations_lost",
        ("finding", _) => "findings_lost",
        ("batch", _) => "batches_lost",
        _ => "others_lost",
    }
}

fn added(losses: &[&Loss]) -> Vec<(String, u64)> {
    let mut counts = BTreeMap::<&str, u64>::new();
    let mut add = |name, count| {
        let total = counts.entry(name).or_default();
        *total = u64::saturating_add(*total, count);
    };
    for loss in losses {
        add(class(loss), loss.count);
        add("bytes_lost", loss.bytes);
    }
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// The losses in one line, bounded, whatever a sensor writes.
fn listed(losses: &[&Loss]) -> String {
    const MOST: usize = 8;
    let one = |loss: &&Loss| {
        let cut = |text: &str| text.chars().filter(|c| !c.is_control()).take(32).collect::<String>();
        format!("{} {} ({})", loss.count, cut(&loss.what), cut(&loss.reason))
    };
    let mut text = losses.iter().take(MOST).map(one).collect::<Vec<_>>().join(", ");
    if losses.len() > MOST {
        text.push_str(&format!(" and {} more", losses.len() - MOST));
    }
    text
}

fn judge_clock(
    teller: &mut Teller<'_>,
    config: &SensorsConfig,
    batch: &StoredBatch,
    before: Option<&Clock>,
    now: &Clock,
) -> Result<(), rusqlite::Error> {
    let skew = match clock::judge(before, now, config.clock_skew()) {
        Verdict::Wrong(skew) => skew,
        Verdict::Right => {
            let why = "it is right again";
            return teller.close(RuleId::SensorClock, &batch.sensor, batch.received_at, why, &[]);
        }
        Verdict::Unknown => return Ok(()),
    };
    let size = seconds(skew.size());
    let what = match skew {
        Skew::Ahead(_) => format!("is at least {size} s ahead of the collector's"),
        Skew::Behind(_) => {
            format!("is {size} s behind the collector's, or what it sends is steadily that late")
        }
        Skew::Stepped(nanos) if nanos < 0 => format!("was set back by {size} s"),
        Skew::Stepped(_) => format!("was set forward by {size} s"),
    };
    let steps = u64::from(matches!(skew, Skew::Stepped(_)));
    teller.note(&News {
        rule: RuleId::SensorClock,
        sensor: batch.sensor.clone(),
        time: batch.received_at,
        severity: Severity::Medium,
        confidence: 90,
        summary: format!(
            "the clock of {} {what}: batch {} of epoch {} sealed at {}, received at {}",
            batch.sensor, batch.sequence, batch.epoch, now.wall_time, batch.received_at,
        ),
        adds: vec![("steps".to_owned(), steps)],
        sets: vec![("skew_seconds", size)],
        quiet_at: None,
    })
}
