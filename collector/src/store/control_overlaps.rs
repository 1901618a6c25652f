//! What overlaps are found by: a narrow row beside each finding that is one, so that a filter over a hundred thousand of
//! them reads a few megabytes and not the findings. Written together with the finding.

use ipnet::IpNet;
use onenet_core::record::{FindingId, RuleId, Verdict};
use rusqlite::{Connection, ToSql, params};

use super::{
    control_findings::{from_json, to_json},
    flow_row::IpBytes,
};
use crate::correlate::{Finding, State};

const SCHEMA: &str = "
CREATE TABLE overlaps (
    finding_id TEXT PRIMARY KEY,
    rule TEXT NOT NULL,
    state TEXT NOT NULL,
    verdict TEXT,
    severity INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    first_address BLOB NOT NULL,            -- 4 or 16 bytes in network order
    last_address BLOB NOT NULL,
    sites TEXT NOT NULL,                    -- JSON, as the next two
    secretariats TEXT NOT NULL,
    address_spaces TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX overlaps_listed ON overlaps (state DESC, severity DESC, last_seen DESC, finding_id);
";

/// The rules whose findings are overlaps.
pub(crate) const RULES: [RuleId; 4] =
    [RuleId::OverlapDeclared, RuleId::OverlapAddress, RuleId::OverlapRouted, RuleId::AddressDuplicate];

/// Which overlaps are asked for. What is not stated does not matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OverlapFilter {
    /// Open or closed.
    pub(crate) state: Option<State>,
    /// One of these rules; empty for all.
    pub(crate) rules: Vec<RuleId>,
    /// What is behind the uses.
    pub(crate) verdict: Option<Verdict>,
    /// The overlap lies in this prefix, or holds it.
    pub(crate) within: Option<IpNet>,
    /// A secretariat that it touches.
    pub(crate) secretariat: Option<String>,
    /// An address space that it touches.
    pub(crate) address_space: Option<String>,
    /// A site that sees it.
    pub(crate) site: Option<String>,
}

/// Makes the table where an earlier version has none, and fills it from the findings.
pub(super) fn upgrade(connection: &Connection) -> Result<(), rusqlite::Error> {
    let is_there = |connection: &Connection| {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'overlaps'";
        connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|count| count > 0)
    };
    if is_there(connection)? {
        return Ok(());
    }
    let transaction =
        rusqlite::Transaction::new_unchecked(connection, rusqlite::TransactionBehavior::Immediate)?;
    // Another process may have made it while this one waited.
    if !is_there(&transaction)? {
        transaction.execute_batch(SCHEMA)?;
        let sql = "SELECT finding FROM findings WHERE rule IN (?, ?, ?, ?)";
        let mut statement = transaction.prepare(sql)?;
        let findings = statement.query_map(RULES.map(RuleId::as_str), |row| from_json::<Finding>(row, 0))?;
        for finding in findings {
            put(&transaction, &finding?)?;
        }
    }
    transaction.commit()
}

/// Enters a finding where it is an overlap.
pub(super) fn put(connection: &Connection, finding: &Finding) -> Result<(), rusqlite::Error> {
    let subject = finding.subject.prefix.or_else(|| finding.subject.address.map(IpNet::from));
    let Some(subject) = subject.filter(|_| RULES.contains(&finding.rule)) else { return Ok(()) };
    connection
        .prepare_cached("INSERT OR REPLACE INTO overlaps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?
        .execute(params![
            finding.finding_id.to_string(),
            finding.rule.as_str(),
            finding.state.as_str(),
            finding.evidence.verdict.map(Verdict::as_str),
            finding.severity.code(),
            finding.last_seen.0,
            IpBytes::of(subject.network()).as_ref(),
            IpBytes::of(subject.broadcast()).as_ref(),
            to_json(&finding.sites)?,
            to_json(&finding.secretariats)?,
            to_json(&finding.address_spaces)?,
        ])?;
    Ok(())
}

/// Overlaps that match, the open ones first, then the worst, then the latest.
pub(crate) fn overlaps(
    connection: &Connection,
    filter: &OverlapFilter,
    limit: u32,
    offset: u32,
) -> Result<Vec<Finding>, rusqlite::Error> {
    let (sql, values) = listing(filter, limit, offset);
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(rusqlite::params_from_iter(values), |row| from_json(row, 0))?;
    rows.collect()
}

/// The statement of a list. The rows are chosen before a finding is read, in the order of the index.
fn listing(filter: &OverlapFilter, limit: u32, offset: u32) -> (String, Vec<Box<dyn ToSql>>) {
    let (condition, values) = condition(filter);
    let sql = format!(
        "SELECT f.finding FROM (
             SELECT finding_id, state, severity, last_seen FROM overlaps WHERE {condition}
             ORDER BY state DESC, severity DESC, last_seen DESC, finding_id LIMIT {limit} OFFSET {offset}
         ) o CROSS JOIN findings f USING (finding_id)
         ORDER BY o.state DESC, o.severity DESC, o.last_seen DESC, o.finding_id"
    );
    (sql, values)
}

/// How many overlaps match.
pub(crate) fn count(connection: &Connection, filter: &OverlapFilter) -> Result<u64, rusqlite::Error> {
    let (condition, values) = condition(filter);
    let sql = format!("SELECT count(*) FROM overlaps WHERE {condition}");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_row(rusqlite::params_from_iter(values), |row| Ok(row.get::<_, i64>(0)?.cast_unsigned()))
}

/// The finding of an overlap, where it is one.
pub(crate) fn overlap(connection: &Connection, id: FindingId) -> Result<Option<Finding>, rusqlite::Error> {
    let found = super::control_findings::finding(connection, id)?;
    Ok(found.filter(|finding| RULES.contains(&finding.rule)))
}

fn condition(filter: &OverlapFilter) -> (String, Vec<Box<dyn ToSql>>) {
    let mut conditions = vec!["true".to_owned()];
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    if let Some(state) = filter.state {
        conditions.push("state = ?".to_owned());
        values.push(Box::new(state.as_str()));
    }
    if !filter.rules.is_empty() {
        conditions.push(format!("rule IN ({})", vec!["?"; filter.rules.len()].join(", ")));
        values.extend(filter.rules.iter().map(|rule| Box::new(rule.as_str()) as Box<dyn ToSql>));
    }
    if let Some(verdict) = filter.verdict {
        conditions.push("verdict = ?".to_owned());
        values.push(Box::new(verdict.as_str()));
    }
    if let Some(within) = filter.within {
        let bytes = |ip| IpBytes::of(ip).as_ref().to_vec();
        let (first, last) = (bytes(within.network()), bytes(within.broadcast()));
        conditions.push(
            "length(first_address) = length(?) AND
             (first_address BETWEEN ? AND ? OR (first_address <= ? AND last_address >= ?))"
                .to_owned(),
        );
        for value in [&first, &first, &last, &first, &last] {
            values.push(Box::new(value.clone()));
        }
    }
    for (column, wanted) in [
        ("secretariats", &filter.secretariat),
        ("address_spaces", &filter.address_space),
        ("sites", &filter.site),
    ] {
        if let Some(name) = wanted {
            conditions.push(format!("EXISTS (SELECT 1 FROM json_each({column}) WHERE value = ?)"));
            values.push(Box::new(name.clone()));
        }
    }
    (conditions.join(" AND "), values)
}

#[cfg(test)]
mod tests {
    use onenet_core::record::Change;

    use super::*;
    use crate::{
        correlate::{self, Judge},
        custody::SensorsConfig,
        seed::{body, control, judge, stored, told},
    };

    #[test]
    fn findings_of_an_earlier_version_are_found_after_an_upgrade() {
        let (directory, store) = control();
        let mut change = told(RuleId::OverlapAddress, "fd00::1", "boston", Change::Raised, 5);
        change.subject.address = Some("fd00::1".parse().expect("an address"));
        let judge: Judge = judge();
        let batch = stored("boston-1", 1, &body(&[], &[change]));
        correlate::commit(&store, &judge, &SensorsConfig::default(), &[batch]).expect("it commits");
        let counted = || {
            let all = OverlapFilter::default();
            store.read(|connection| count(connection, &all)).expect("readable")
        };
        assert_eq!(counted(), 1);
        store
            .transaction(|transaction| transaction.execute_batch("DROP TABLE overlaps"))
            .expect("as an earlier version was");
        let path = directory.path().join("data/control.db");
        let connection = Connection::open(path).expect("it opens");
        upgrade(&connection).expect("it upgrades");
        upgrade(&connection).expect("and that twice");
        let found = overlaps(&connection, &OverlapFilter::default(), 10, 0).expect("readable");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].key, "overlap.address|fd00::1");
    }

    #[test]
    fn a_list_is_read_in_the_order_of_its_index() {
        let (_directory, store) = control();
        for state in [None, Some(State::Open)] {
            let (sql, values) = listing(&OverlapFilter { state, ..OverlapFilter::default() }, 100, 0);
            let plan = store.read(|connection| {
                let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let lines =
                    statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3))?;
                lines.collect::<Result<Vec<_>, _>>()
            });
            // The rows of one page are sorted once more, behind the join.
            let plan = plan.expect("readable");
            let choice = plan.iter().position(|line| line.contains("overlaps_listed")).expect("by the index");
            assert!(plan[choice].contains("USING COVERING INDEX"), "{plan:?}");
            assert!(!plan[choice + 1].contains("TEMP B-TREE"), "{plan:?}");
        }
    }
}
