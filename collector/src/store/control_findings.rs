//! Findings in the control database: what each source last told, the finding merged from it, and every change of
//! it in the order in which the SIEM feeds follow.

use onenet_core::{
    net::Name,
    record::{FindingChange, FindingId, RuleId, Severity},
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params, types::Type};
use serde::{Serialize, de::DeserializeOwned};

use super::control_overlaps;
use crate::correlate::{Finding, RecordedChange, Sources, State};

/// The tables.
pub(super) const SCHEMA: &str = "
-- What one source (a sensor, or `collector`) last told of a finding.
CREATE TABLE finding_sources (
    finding_id TEXT NOT NULL,
    source TEXT NOT NULL,
    change TEXT NOT NULL,                   -- FindingChange as JSON
    due INTEGER,                            -- packet time at which the collector looks whether it has ended
    PRIMARY KEY (finding_id, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX finding_sources_due ON finding_sources (due) WHERE due IS NOT NULL;
-- The findings, merged from their sources.
CREATE TABLE findings (
    finding_id TEXT PRIMARY KEY,
    rule TEXT NOT NULL,
    state TEXT NOT NULL,
    severity INTEGER NOT NULL,
    first_seen INTEGER NOT NULL,            -- packet time
    last_seen INTEGER NOT NULL,
    raised_at INTEGER NOT NULL,             -- collector time of the first change
    changed_at INTEGER NOT NULL,            -- collector time of the latest change
    finding TEXT NOT NULL                   -- as JSON
) STRICT, WITHOUT ROWID;
CREATE INDEX findings_listed ON findings (state, severity, last_seen);
-- One row per change; the SIEM feeds follow the id.
CREATE TABLE finding_changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    finding_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    finding TEXT NOT NULL,                  -- as it was after the change, as JSON
    UNIQUE (finding_id, revision)
) STRICT;
";

/// Which findings are asked for. What is not stated does not matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FindingFilter {
    /// Open or closed.
    pub(crate) state: Option<State>,
    /// The rule.
    pub(crate) rule: Option<RuleId>,
    /// A site that sees it.
    pub(crate) site: Option<String>,
    /// A secretariat that it touches.
    pub(crate) secretariat: Option<String>,
    /// At least this bad.
    pub(crate) severity: Option<Severity>,
}

/// What the sources told of a finding so far.
pub(crate) fn sources(connection: &Connection, id: FindingId) -> Result<Sources, rusqlite::Error> {
    let sql = "SELECT source, change FROM finding_sources WHERE finding_id = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let rows =
        statement.query_map([id.to_string()], |row| Ok((row.get::<_, Name>(0)?, from_json(row, 1)?)))?;
    rows.collect()
}

/// What one source told of a finding.
pub(crate) fn source(
    connection: &Connection,
    id: FindingId,
    source: &str,
) -> Result<Option<FindingChange>, rusqlite::Error> {
    let sql = "SELECT change FROM finding_sources WHERE finding_id = ? AND source = ?";
    connection
        .prepare_cached(sql)?
        .query_row(params![id.to_string(), source], |row| from_json(row, 0))
        .optional()
}

/// What a source told of findings that are due to be looked at again.
pub(crate) fn due(
    connection: &Connection,
    source: &str,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<FindingChange>, rusqlite::Error> {
    let sql =
        "SELECT change FROM finding_sources WHERE due <= ? AND source = ? ORDER BY due, finding_id LIMIT ?";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![now.0, source, limit], |row| from_json(row, 0))?;
    rows.collect()
}

/// Findings of a rule that a source has not closed.
pub(crate) fn open_of(
    connection: &Connection,
    rule: RuleId,
    source: &str,
) -> Result<Vec<FindingId>, rusqlite::Error> {
    let sql = "SELECT s.change FROM findings f JOIN finding_sources s USING (finding_id)
               WHERE f.rule = ? AND f.state = 'open' AND s.source = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![rule.as_str(), source], |row| {
        Ok(from_json::<FindingChange>(row, 0)?.finding_id)
    })?;
    rows.collect()
}

/// Sets when a finding is looked at again; never where no time is stated.
pub(crate) fn set_due(
    connection: &Connection,
    id: FindingId,
    source: &str,
    due: Option<Timestamp>,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("UPDATE finding_sources SET due = ? WHERE finding_id = ? AND source = ?")?
        .execute(params![due.map(|due| due.0), id.to_string(), source])?;
    Ok(())
}

/// The finding, where there is one.
pub(crate) fn finding(connection: &Connection, id: FindingId) -> Result<Option<Finding>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT finding FROM findings WHERE finding_id = ?")?;
    statement.query_row([id.to_string()], |row| from_json(row, 0)).optional()
}

/// Enters what a source told.
pub(crate) fn put_source(
    connection: &Connection,
    source: &str,
    change: &FindingChange,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "INSERT INTO finding_sources (finding_id, source, change) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET change = ?3",
        )?
        .execute(params![change.finding_id.to_string(), source, to_json(change)?])?;
    Ok(())
}

/// Enters a changed finding and appends the change to those that the feeds follow.
pub(crate) fn put_finding(
    connection: &Connection,
    finding: &Finding,
    recorded: Timestamp,
) -> Result<(), rusqlite::Error> {
    let (id, json) = (finding.finding_id.to_string(), to_json(finding)?);
    connection
        .prepare_cached(
            "INSERT INTO findings VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8)
             ON CONFLICT (finding_id) DO UPDATE SET state = ?3, severity = ?4, first_seen = ?5,
                 last_seen = ?6, changed_at = ?7, finding = ?8",
        )?
        .execute(params![
            id,
            finding.rule.as_str(),
            finding.state.as_str(),
            finding.severity.code(),
            finding.first_seen.0,
            finding.last_seen.0,
            recorded.0,
            json,
        ])?;
    connection
        .prepare_cached(
            "INSERT INTO finding_changes (finding_id, revision, recorded_at, finding) VALUES (?, ?, ?, ?)",
        )?
        .execute(params![id, finding.revision, recorded.0, json])?;
    control_overlaps::put(connection, finding)
}

/// Findings that match, the open ones first, then the worst, then the latest.
pub(crate) fn findings(
    connection: &Connection,
    filter: &FindingFilter,
    limit: u32,
    offset: u32,
) -> Result<Vec<Finding>, rusqlite::Error> {
    let (condition, values) = condition(filter);
    let sql = format!(
        "SELECT finding FROM findings WHERE {condition}
         ORDER BY state = 'open' DESC, severity DESC, last_seen DESC, finding_id LIMIT {limit} OFFSET {offset}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(rusqlite::params_from_iter(values), |row| from_json(row, 0))?;
    rows.collect()
}

/// How many findings match, by severity, the worst first.
pub(crate) fn count(
    connection: &Connection,
    filter: &FindingFilter,
) -> Result<Vec<(Severity, u64)>, rusqlite::Error> {
    let (condition, values) = condition(filter);
    let sql = format!(
        "SELECT severity, count(*) FROM findings WHERE {condition} GROUP BY severity ORDER BY severity DESC"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(rusqlite::params_from_iter(values), |row| {
        let severity = Severity::from_code(row.get(0)?);
        Ok((severity.ok_or_else(|| wrong(0, "a known severity"))?, row.get::<_, i64>(1)?.cast_unsigned()))
    })?;
    rows.collect()
}

fn condition(filter: &FindingFilter) -> (String, Vec<Box<dyn ToSql>>) {
    let mut conditions = vec!["true"];
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let mut add = |condition, value: Option<Box<dyn ToSql>>| {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(value);
        }
    };
    add("state = ?", filter.state.map(|state| Box::new(state.as_str()) as _));
    add("rule = ?", filter.rule.map(|rule| Box::new(rule.as_str()) as _));
    add("severity >= ?", filter.severity.map(|severity| Box::new(severity.code()) as _));
    let within = "EXISTS (SELECT 1 FROM json_each(finding, '$.sites') WHERE value = ?)";
    add(within, filter.site.clone().map(|site| Box::new(site) as _));
    let touches = "EXISTS (SELECT 1 FROM json_each(finding, '$.secretariats') WHERE value = ?)";
    add(touches, filter.secretariat.clone().map(|secretariat| Box::new(secretariat) as _));
    (conditions.join(" AND "), values)
}

/// Changes after a position, in order.
pub(crate) fn changes_after(
    connection: &Connection,
    position: i64,
    limit: u32,
) -> Result<Vec<RecordedChange>, rusqlite::Error> {
    let sql = "SELECT id, recorded_at, finding FROM finding_changes WHERE id > ? ORDER BY id LIMIT ?";
    connection.prepare_cached(sql)?.query_map(params![position, limit], recorded)?.collect()
}

/// Every change of one finding, the latest first.
pub(crate) fn changes_of(
    connection: &Connection,
    id: FindingId,
    limit: u32,
) -> Result<Vec<RecordedChange>, rusqlite::Error> {
    let sql = "SELECT id, recorded_at, finding FROM finding_changes WHERE finding_id = ?
               ORDER BY revision DESC LIMIT ?";
    connection.prepare_cached(sql)?.query_map(params![id.to_string(), limit], recorded)?.collect()
}

fn recorded(row: &Row<'_>) -> Result<RecordedChange, rusqlite::Error> {
    Ok(RecordedChange {
        sequence: row.get(0)?,
        recorded: Timestamp(row.get(1)?),
        finding: from_json(row, 2)?,
    })
}

/// A value as JSON in a column.
pub(crate) fn to_json(value: &impl Serialize) -> Result<String, rusqlite::Error> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// A value from JSON in a column.
pub(crate) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T, rusqlite::Error> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into()))
}

/// A column that holds what it must not.
pub(super) fn wrong(column: usize, expected: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, format!("expected {expected}").into())
}
