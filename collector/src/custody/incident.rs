//! The finding of one rule about one sensor, as it is known: what was told of it and what has been counted since.

use std::{collections::BTreeMap, sync::Arc};

use onenet_core::{
    net::Name,
    plan::AddressPlan,
    record::{Change, Confidence, Evidence, FindingChange, FindingId, RuleId, Severity, Subject},
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::{
    correlate::{self, COLLECTOR},
    store::control_findings::{self, from_json, to_json},
};

/// Version of these rules.
const RULE_VERSION: u32 = 1;

/// What has been found now.
#[derive(Clone, Debug)]
pub(super) struct News {
    pub(super) rule: RuleId,
    pub(super) sensor: Name,
    /// Collector time.
    pub(super) time: Timestamp,
    pub(super) severity: Severity,
    pub(super) confidence: Confidence,
    /// One line for a person.
    pub(super) summary: String,
    /// What it adds to the counts.
    pub(super) adds: Vec<(String, u64)>,
    /// What it sets among the counts.
    pub(super) sets: Vec<(&'static str, u64)>,
    /// When it is closed unless there is more; none where something else closes it.
    pub(super) quiet_at: Option<Timestamp>,
}

/// An incident as it is kept.
struct Incident {
    change: FindingChange,
    told: u64,
}

/// Tells of incidents within one transaction, and counts the changes.
pub(super) struct Teller<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    plan: &'a Arc<AddressPlan>,
    /// Changes told.
    pub(super) told: usize,
}

pub(super) fn key(rule: RuleId, sensor: &str) -> String {
    format!("{rule}|{sensor}")
}

/// The site of a sensor; empty where it has not enrolled here.
fn site(connection: &Connection, sensor: &str) -> Result<Name, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT site FROM sensors WHERE name = ?")?;
    Ok(statement.query_row([sensor], |row| row.get(0)).optional()?.unwrap_or_else(|| Name::from("")))
}

fn load(connection: &Connection, key: &str) -> Result<Option<Incident>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT change, told FROM custody_incidents WHERE key = ?")?
        .query_row([key], |row| {
            Ok(Incident { change: from_json(row, 0)?, told: row.get::<_, i64>(1)?.cast_unsigned() })
        })
        .optional()
}

fn size(counts: &BTreeMap<String, u64>) -> u64 {
    let sum = counts.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
    sum.min(i64::MAX.cast_unsigned())
}

/// The finding as it is known, where it is open.
pub(super) fn open(
    connection: &Connection,
    rule: RuleId,
    sensor: &str,
) -> Result<Option<FindingChange>, rusqlite::Error> {
    let incident = load(connection, &key(rule, sensor))?;
    Ok(incident.map(|incident| incident.change).filter(|change| change.change != Change::Closed))
}

impl<'a> Teller<'a> {
    pub(super) const fn new(transaction: &'a Transaction<'a>, plan: &'a Arc<AddressPlan>) -> Self {
        Self { transaction, plan, told: 0 }
    }

    /// Counts what has been found, and tells it where it is the first, weighs more than before, or has doubled.
    pub(super) fn note(&mut self, news: &News) -> Result<(), rusqlite::Error> {
        let key = key(news.rule, &news.sensor);
        let before = load(self.transaction, &key)?;
        // A later change is told at a later time, also where the collector's clock was set back.
        let after = |known: &Incident| Timestamp(known.change.time.0.saturating_add(1));
        let time = before.as_ref().map_or(news.time, |known| news.time.max(after(known)));
        let open = before.as_ref().filter(|known| known.change.change != Change::Closed);
        let mut counts = open.map(|known| known.change.evidence.counts.clone()).unwrap_or_default();
        for (name, count) in &news.adds {
            let total = counts.entry(name.clone()).or_default();
            *total = total.saturating_add(*count);
        }
        counts.extend(news.sets.iter().map(|(name, count)| ((*name).to_owned(), *count)));
        let (severity, confidence) = open.map_or((news.severity, news.confidence), |known| {
            (news.severity.max(known.change.severity), news.confidence.max(known.change.confidence))
        });
        let is_news = open.is_none_or(|known| {
            (severity, confidence) != (known.change.severity, known.change.confidence)
                || (size(&counts) > known.told && size(&counts) >= known.told.saturating_mul(2))
        });
        let change = FindingChange {
            finding_id: FindingId::of_key(&key),
            rule: news.rule,
            rule_version: RULE_VERSION,
            change: if open.is_some() { Change::Updated } else { Change::Raised },
            revision: 0,
            time,
            first_seen: open.map_or(time, |known| known.change.first_seen),
            last_seen: time,
            severity,
            confidence,
            summary: news.summary.clone(),
            subject: Subject::default(),
            site: site(self.transaction, &news.sensor)?,
            interface: None,
            address_spaces: Vec::new(),
            secretariats: Vec::new(),
            contacts: Vec::new(),
            evidence: Evidence { counts, ..Evidence::default() },
            key: key.clone(),
        };
        let told = match open {
            Some(known) if !is_news => known.told,
            _ => size(&change.evidence.counts),
        };
        self.put(&change, told, news.quiet_at)?;
        if is_news { self.tell(change, news.time) } else { Ok(()) }
    }

    /// Closes a finding that is open, with everything that was counted; `why` is added to its line.
    pub(super) fn close(
        &mut self,
        rule: RuleId,
        sensor: &str,
        now: Timestamp,
        why: &str,
        sets: &[(&'static str, u64)],
    ) -> Result<(), rusqlite::Error> {
        let Some(mut change) = open(self.transaction, rule, sensor)? else { return Ok(()) };
        change.change = Change::Closed;
        change.time = Timestamp(now.0.max(change.time.0.saturating_add(1)));
        change.summary = format!("{}; {why}", change.summary);
        change.evidence.counts.extend(sets.iter().map(|(name, count)| ((*name).to_owned(), *count)));
        self.put(&change, 0, None)?;
        self.tell(change, now)
    }

    /// Has a finding closed at `quiet_at` unless there is more, where so far nothing would close it.
    pub(super) fn close_later(
        &self,
        rule: RuleId,
        sensor: &str,
        quiet_at: Timestamp,
    ) -> Result<(), rusqlite::Error> {
        self.transaction
            .prepare_cached("UPDATE custody_incidents SET quiet_at = ? WHERE key = ? AND quiet_at IS NULL")?
            .execute(params![quiet_at.0, key(rule, sensor)])?;
        Ok(())
    }

    /// Closes what was without news for long enough.
    pub(super) fn close_quiet(&mut self, now: Timestamp) -> Result<(), rusqlite::Error> {
        let sql = "SELECT change FROM custody_incidents WHERE quiet_at <= ? ORDER BY quiet_at, key LIMIT 256";
        let due: Vec<FindingChange> = self
            .transaction
            .prepare_cached(sql)?
            .query_map([now.0], |row| from_json(row, 0))?
            .collect::<Result<_, _>>()?;
        for change in due {
            if let Some((_, sensor)) = change.key.split_once('|') {
                self.close(change.rule, sensor, now, "nothing more of it since", &[])?;
            }
        }
        Ok(())
    }

    fn put(
        &self,
        change: &FindingChange,
        told: u64,
        quiet_at: Option<Timestamp>,
    ) -> Result<(), rusqlite::Error> {
        self.transaction
            .prepare_cached("INSERT OR REPLACE INTO custody_incidents VALUES (?, ?, ?, ?)")?
            .execute(params![change.key, to_json(change)?, told.cast_signed(), quiet_at.map(|at| at.0)])?;
        Ok(())
    }

    fn tell(&mut self, change: FindingChange, recorded: Timestamp) -> Result<(), rusqlite::Error> {
        let told = control_findings::source(self.transaction, change.finding_id, COLLECTOR)?;
        let revision = told.map_or(0, |told| told.revision.saturating_add(1));
        self.told = self.told.saturating_add(1);
        tracing::warn!(rule = %change.rule, change = %change.change, "{}", change.summary);
        let change = FindingChange { revision, ..change };
        correlate::tell(self.transaction, self.plan, &Name::from(COLLECTOR), change, recorded)
    }
}
