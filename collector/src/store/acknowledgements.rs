//! Acknowledgements: somebody has seen a finding, as it stood then, and takes care of it.

use onenet_core::{record::FindingId, time::Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;

use super::{Store, StoreError, control_findings};
use crate::audit::{self, Entry};

/// The table.
pub(super) const SCHEMA: &str = "
-- Who has taken note of which state of a finding.
CREATE TABLE IF NOT EXISTS acknowledgements (
    id INTEGER PRIMARY KEY,
    finding_id TEXT NOT NULL,
    revision INTEGER NOT NULL,              -- of the finding, at that time
    time INTEGER NOT NULL,                  -- ns since the epoch, by the collector's clock
    actor TEXT NOT NULL,
    note TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS acknowledgements_of ON acknowledgements (finding_id);
";

/// One acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Acknowledgement {
    /// Revision of the finding that was acknowledged; later ones are news.
    pub(crate) revision: u32,
    /// Collector time.
    pub(crate) time: Timestamp,
    /// The Unix user.
    pub(crate) actor: String,
    /// What they say; empty where nothing.
    pub(crate) note: String,
}

/// The acknowledgements of a finding, the latest first.
pub(crate) fn of(connection: &Connection, id: FindingId) -> Result<Vec<Acknowledgement>, rusqlite::Error> {
    let sql =
        "SELECT revision, time, actor, note FROM acknowledgements WHERE finding_id = ? ORDER BY id DESC";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([id.to_string()], |row| {
        Ok(Acknowledgement {
            revision: row.get(0)?,
            time: Timestamp(row.get(1)?),
            actor: row.get(2)?,
            note: row.get(3)?,
        })
    })?;
    rows.collect()
}

/// Who acknowledged a finding last, where it has not changed since.
pub(crate) fn standing(connection: &Connection, id: FindingId) -> Result<Option<String>, rusqlite::Error> {
    let sql = "SELECT actor FROM acknowledgements JOIN findings USING (finding_id)
               WHERE finding_id = ? AND acknowledgements.revision >= json_extract(finding, '$.revision')
               ORDER BY id DESC LIMIT 1";
    connection.prepare_cached(sql)?.query_row([id.to_string()], |row| row.get(0)).optional()
}

impl Store {
    /// Acknowledges a finding as it stands, in one transaction with its entry in the audit trail; none where there is no
    /// such finding.
    pub(crate) fn acknowledge(
        &self,
        id: FindingId,
        note: &str,
        now: Timestamp,
    ) -> Result<Option<Acknowledgement>, StoreError> {
        let Some(finding) = self.read(|connection| control_findings::finding(connection, id))? else {
            return Ok(None);
        };
        let (actor, note) = (audit::actor(), note.trim().to_owned());
        let acknowledged = Acknowledgement { revision: finding.revision, time: now, actor, note };
        let said =
            if acknowledged.note.is_empty() { String::new() } else { format!(": {}", acknowledged.note) };
        let entry = Entry {
            time: now,
            action: "finding-acknowledged".to_owned(),
            detail: format!("{} ({id}), revision {}{said}", finding.key, finding.revision),
            ..Entry::default()
        };
        self.audit_entries(vec![entry], |connection| {
            let Acknowledgement { revision, time, actor, note } = &acknowledged;
            connection
                .execute(
                    "INSERT INTO acknowledgements (finding_id, revision, time, actor, note) VALUES (?, ?, ?, ?, ?)",
                    params![id.to_string(), revision, time.0, actor, note],
                )
                .map(drop)
        })?;
        Ok(Some(acknowledged))
    }
}

#[cfg(test)]
mod tests {
    use onenet_core::record::Change;

    use super::*;
    use crate::{
        correlate,
        custody::SensorsConfig,
        seed::{body, control, judge, scan, stored},
        store::archive::Archive,
        testing::store_config,
    };

    #[test]
    fn an_acknowledgement_holds_until_the_finding_changes_and_is_in_the_audit_trail() {
        let (directory, store) = control();
        let commit = |number, change: &onenet_core::record::FindingChange| {
            let batch = stored("boston-1", number, &body(&[], std::slice::from_ref(change)));
            correlate::commit(&store, &judge(), &SensorsConfig::default(), &[batch]).expect("it commits");
        };
        let found = scan("boston", 900);
        commit(1, &found);
        let id = found.finding_id;
        let now = Timestamp(1_000);
        assert_eq!(store.acknowledge(FindingId(7), "", now).expect("it works"), None);
        let acknowledged =
            store.acknowledge(id, " known scanner ", now).expect("it works").expect("it is there");
        assert_eq!((acknowledged.note.as_str(), acknowledged.time), ("known scanner", now));
        let standing_now = || store.read(|connection| standing(connection, id)).expect("readable");
        assert_eq!(standing_now(), Some(acknowledged.actor.clone()));
        assert_eq!(store.read(|connection| of(connection, id)).expect("readable"), [acknowledged]);
        let mut ended = found;
        (ended.change, ended.time) = (Change::Closed, crate::seed::at(990));
        ended.revision += 1;
        commit(2, &ended);
        assert_eq!(standing_now(), None, "what has changed since is news");
        let mut told = Vec::new();
        let archive = Archive::open(&store_config(&directory).directory).expect("it opens");
        archive
            .audit(|entry| {
                told.push((entry.action.clone(), entry.detail.clone()));
                Ok::<(), StoreError>(())
            })
            .expect("readable");
        let (action, detail) = told.last().expect("an entry");
        assert_eq!(action, "finding-acknowledged");
        assert!(detail.contains("scan.horizontal") && detail.ends_with(": known scanner"), "{detail}");
    }
}
