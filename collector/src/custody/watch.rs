//! What does not come with a committed batch: what was refused, and sensors that are not heard.

use std::{collections::BTreeMap, sync::Arc};

use onenet_core::{
    net::Name,
    plan::AddressPlan,
    record::{FindingChange, RuleId, Severity},
    time::Timestamp,
};
use onenet_proto::seal::ChainHead;
use rusqlite::Connection;

use super::{
    SensorsConfig,
    incident::{self, News, Teller},
    seconds, tables,
};
use crate::{
    ca::hex,
    store::{
        Heads, SensorState, Store, StoreError,
        control_custody::{self, OpenGap},
        events,
    },
};

/// Events judged in one step at most.
const EVENTS: u32 = 256;

/// When each sensor was last seen to move, by a clock that is never set.
#[derive(Debug)]
pub(crate) struct Watch {
    begun: Timestamp,
    /// Nothing before the first look: what stands then may be old.
    seen: Option<BTreeMap<Name, (ChainHead, Timestamp)>>,
}

impl Watch {
    /// Begins to watch: nobody has been silent yet.
    pub(crate) const fn new(begun: Timestamp) -> Self {
        Self { begun, seen: None }
    }

    /// Judges what has happened since the step before, in one transaction; gives how many changes were told. `now` is
    /// the collector's clock, `steady` the same unless it has been set since the start.
    pub(crate) fn step(
        &mut self,
        store: &Store,
        plan: &Arc<AddressPlan>,
        config: &SensorsConfig,
        now: Timestamp,
        steady: Timestamp,
    ) -> Result<usize, StoreError> {
        let heads = store.held();
        let since = if self.seen.is_some() { steady } else { self.begun };
        let seen = self.seen.get_or_insert_default();
        for (sensor, held) in &heads {
            let entry = seen.entry(sensor.clone()).or_insert((held.head, since));
            if entry.0 != held.head {
                *entry = (held.head, steady);
            }
        }
        let idle = store.read(|control| self.is_idle(control, config, now, steady))?;
        if idle {
            return Ok(0);
        }
        store.transaction(|transaction| {
            let mut teller = Teller::new(transaction, plan);
            judge_events(&mut teller, config)?;
            judge_gaps(&mut teller, config, &heads, now)?;
            self.judge_silence(&mut teller, config, &heads, now, steady)?;
            teller.close_quiet(now)?;
            Ok(teller.told)
        })
    }

    /// Whether a step would change nothing: most do not, and a transaction that writes is a sync of the disk.
    fn is_idle(
        &self,
        control: &Connection,
        config: &SensorsConfig,
        now: Timestamp,
        steady: Timestamp,
    ) -> Result<bool, rusqlite::Error> {
        let latest: i64 =
            control.query_row("SELECT coalesce(max(id), 0) FROM events", [], |row| row.get(0))?;
        let due: i64 = control
            .prepare_cached("SELECT count(*) FROM custody_incidents WHERE quiet_at <= ?")?
            .query_row([now.0], |row| row.get(0))?;
        if latest > tables::position(control)? || due > 0 || !control_custody::gaps(control)?.is_empty() {
            return Ok(false);
        }
        for (sensor, active, enrolled) in sensors(control)? {
            let open = incident::open(control, RuleId::SensorSilent, &sensor)?.is_some();
            let silent =
                active && steady.since(self.heard(&sensor, enrolled, steady)) >= config.silent_after();
            if open != silent {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// When a sensor was last seen to move, or to be there.
    fn moved(&self, sensor: &Name) -> Option<Timestamp> {
        self.seen.as_ref()?.get(sensor).map(|(_, at)| *at)
    }

    /// From when on a sensor has not been heard: its last batch, its enrolment, or the start of this process.
    fn heard(&self, sensor: &Name, enrolled: Timestamp, steady: Timestamp) -> Timestamp {
        self.moved(sensor).unwrap_or(self.begun).max(enrolled.min(steady))
    }

    fn judge_silence(
        &self,
        teller: &mut Teller<'_>,
        config: &SensorsConfig,
        heads: &Heads,
        now: Timestamp,
        steady: Timestamp,
    ) -> Result<(), rusqlite::Error> {
        for (sensor, active, enrolled) in sensors(teller.transaction)? {
            let lasted = steady.since(self.heard(&sensor, enrolled, steady));
            let open = incident::open(teller.transaction, RuleId::SensorSilent, &sensor)?;
            if !active {
                teller.close(RuleId::SensorSilent, &sensor, now, "it has been revoked", &[])?;
            } else if lasted >= config.silent_after() {
                if open.is_none() {
                    let silence = silence(teller.transaction, heads, &sensor, enrolled, lasted)?;
                    teller.note(&News { time: now, ..silence })?;
                }
            } else if let Some(open) = open {
                // After a start nobody has been silent yet, nor heard: only a batch ends a silence.
                let heard = self.moved(&sensor).is_some_and(|at| at > self.begun)
                    || heads.get(&sensor).is_some_and(|held| held.received_at > open.last_seen);
                if heard {
                    let silent = seconds(super::between(open.first_seen, now));
                    let sets = [("silent_seconds", silent)];
                    teller.close(RuleId::SensorSilent, &sensor, now, "it is heard again", &sets)?;
                }
            }
        }
        Ok(())
    }
}

/// The sensors that have enrolled: name, whether active, and when they enrolled.
fn sensors(control: &Connection) -> Result<Vec<(Name, bool, Timestamp)>, rusqlite::Error> {
    let sql = "SELECT name, state, enrolled_at FROM sensors ORDER BY name";
    let mut statement = control.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| {
        let active = row.get_ref(1)?.as_str()? == SensorState::Active.as_str();
        Ok((row.get(0)?, active, Timestamp(row.get(2)?)))
    })?;
    rows.collect()
}

fn silence(
    control: &Connection,
    heads: &Heads,
    sensor: &Name,
    enrolled: Timestamp,
    lasted: i64,
) -> Result<News, rusqlite::Error> {
    let stopped = tables::stand(control, sensor)?.and_then(|stand| stand.stopped);
    let last = match heads.get(sensor) {
        Some(held) => format!(
            "the last batch is {} of epoch {}, hash {}, received at {}",
            held.head.sequence,
            held.head.epoch,
            hex(&held.head.hash),
            held.received_at,
        ),
        None => format!("it enrolled at {enrolled} and has never delivered"),
    };
    let (severity, how) = match stopped {
        Some(why) => {
            let why: String = why.chars().filter(|c| !c.is_control()).take(128).collect();
            (Severity::Medium, format!("it said that it stops ({why})"))
        }
        None => (Severity::High, "it did not say that it stops".to_owned()),
    };
    Ok(News {
        rule: RuleId::SensorSilent,
        sensor: sensor.clone(),
        time: Timestamp(0),
        severity,
        confidence: 100,
        summary: format!("{sensor} has not been heard for {} s: {how}; {last}", seconds(lasted)),
        adds: Vec::new(),
        sets: vec![("silent_seconds", seconds(lasted))],
        quiet_at: None,
    })
}

fn judge_events(teller: &mut Teller<'_>, config: &SensorsConfig) -> Result<(), rusqlite::Error> {
    let mut events = Vec::new();
    let position = tables::position(teller.transaction)?;
    events::after(teller.transaction, position, Some(EVENTS), |event, hash| {
        events.push((event, hash));
        Ok(())
    })?;
    for (event, hash) in &events {
        let (rule, severity, what) = match event.kind.as_str() {
            "fork" => (RuleId::SensorFork, Severity::Critical, "kept in quarantine"),
            "rollback" => (RuleId::SensorRollback, Severity::High, "kept in quarantine"),
            "bad-seal" => (
                RuleId::SensorSeal,
                Severity::Critical,
                "its numbers are what it claims, nothing vouches for them",
            ),
            _ => continue,
        };
        teller.note(&News {
            rule,
            sensor: event.sensor.as_str().into(),
            time: event.time,
            severity,
            confidence: 100,
            summary: format!(
                "{}: {}; batch {} of epoch {}, hash {}, {what}",
                event.sensor,
                event.message,
                event.sequence,
                event.epoch,
                hex(hash),
            ),
            adds: vec![("batches".to_owned(), 1)],
            sets: Vec::new(),
            quiet_at: Some(event.time.plus(config.quiet())),
        })?;
    }
    match events.last() {
        Some((last, _)) => tables::put_position(teller.transaction, last.id),
        None => Ok(()),
    }
}

/// Raises gaps that last, and ends those that are healed: the chain has come to the batch that was expected.
fn judge_gaps(
    teller: &mut Teller<'_>,
    config: &SensorsConfig,
    heads: &Heads,
    now: Timestamp,
) -> Result<(), rusqlite::Error> {
    for gap in control_custody::gaps(teller.transaction)? {
        let stands = heads.get(&gap.sensor).map_or((0, 0), |held| (held.head.epoch, held.head.sequence));
        if stands >= (gap.epoch, gap.expected) {
            control_custody::drop_gap(teller.transaction, &gap.sensor)?;
            // What the sensor itself told it lost stays lost.
            let lost =
                |open: &FindingChange| open.evidence.counts.keys().any(|count| count.ends_with("_lost"));
            match incident::open(teller.transaction, RuleId::SensorGap, &gap.sensor)? {
                Some(open) if lost(&open) => {
                    // The gap that lasted took away the time at which the loss is closed.
                    let quiet_at = now.plus(config.quiet());
                    teller.close_later(RuleId::SensorGap, &gap.sensor, quiet_at)?;
                }
                Some(_) if stands.0 > gap.epoch => {
                    let why = "a new epoch has begun, what was missing has not come";
                    teller.close(RuleId::SensorGap, &gap.sensor, now, why, &[])?;
                }
                Some(_) => {
                    let why = "the missing batches have come";
                    teller.close(RuleId::SensorGap, &gap.sensor, now, why, &[])?;
                }
                None => {}
            }
        } else if !gap.told && now.since(gap.since) >= config.gap_after() {
            teller.note(&missing(&gap, now))?;
            control_custody::put_gap(teller.transaction, &OpenGap { told: true, ..gap })?;
        }
    }
    Ok(())
}

fn missing(gap: &OpenGap, now: Timestamp) -> News {
    News {
        rule: RuleId::SensorGap,
        sensor: gap.sensor.clone(),
        time: now,
        severity: Severity::High,
        confidence: 100,
        summary: format!(
            "{} wants to go on at batch {} of epoch {}, batch {} is expected; what is between has not come since {}",
            gap.sensor, gap.got, gap.epoch, gap.expected, gap.since,
        ),
        adds: vec![("gaps".to_owned(), 1)],
        sets: Vec::new(),
        quiet_at: None,
    }
}
