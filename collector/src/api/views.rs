//! What the API answers, beyond the records themselves.

use onenet_core::{record::FindingId, time::Timestamp};
use rusqlite::Connection;
use serde::Serialize;

use super::Window;
use crate::{
    correlate::{Finding, RecordedChange},
    sensors::SensorStatus,
    store::{
        Store, StoreError,
        acknowledgements::{self, Acknowledgement},
        control_cursors,
        control_findings::{self, FindingFilter},
        control_inventory,
        control_losses::LossTotal,
    },
};

/// Changes of one finding that are told at most, the latest first.
pub(crate) const MAX_CHANGES: u32 = 200;

/// Some of the rows found.
#[derive(Debug, Serialize)]
pub(crate) struct Page<T> {
    /// The rows.
    pub(crate) items: Vec<T>,
    /// The `offset` of the next page; none on the last.
    pub(crate) next_offset: Option<u32>,
}

impl<T> Page<T> {
    /// The page of rows of which one more than the limit was asked for.
    pub(crate) fn of(mut items: Vec<T>, window: Window) -> Self {
        let limit = window.limit as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        Self { items, next_offset: more.then(|| window.offset.saturating_add(window.limit)) }
    }
}

/// One sensor with what it told it lost.
#[derive(Debug, Serialize)]
pub(crate) struct SensorView {
    #[serde(flatten)]
    pub(crate) status: SensorStatus,
    /// Losses by class and reason.
    pub(crate) losses: Vec<LossTotal>,
}

impl SensorView {
    pub(crate) fn new(status: SensorStatus, losses: &[LossTotal]) -> Self {
        let losses = losses.iter().filter(|loss| loss.sensor == status.sensor).cloned().collect();
        Self { status, losses }
    }
}

/// One finding with its life.
#[derive(Debug, Serialize)]
pub(crate) struct FindingDetail {
    /// The finding as it is.
    #[serde(flatten)]
    pub(crate) finding: Finding,
    /// Its changes, the latest first.
    pub(crate) changes: Vec<RecordedChange>,
    /// Who has taken note of it, the latest first.
    pub(crate) acknowledgements: Vec<Acknowledgement>,
}

impl FindingDetail {
    /// Reads a finding, where there is one.
    pub(crate) fn read(connection: &Connection, id: FindingId) -> Result<Option<Self>, rusqlite::Error> {
        let Some(finding) = control_findings::finding(connection, id)? else { return Ok(None) };
        let changes = control_findings::changes_of(connection, id, MAX_CHANGES)?;
        Ok(Some(Self { finding, changes, acknowledgements: acknowledgements::of(connection, id)? }))
    }
}

/// Where one feed stands.
#[derive(Debug, Serialize)]
struct FeedView {
    feed: String,
    /// Finding changes that the receiver has not got.
    behind: i64,
    /// When it last moved.
    moved_at: Timestamp,
}

/// What the collector holds and whether it keeps up.
#[derive(Debug, Serialize)]
pub(crate) struct Health {
    status: &'static str,
    version: &'static str,
    sensors: usize,
    batches: u64,
    flows: u64,
    findings_open: u64,
    addresses: u64,
    finding_changes: i64,
    /// Place of the correlator among the committed batches, and whether it has caught up.
    correlated: bool,
    feeds: Vec<FeedView>,
}

/// Reads the state of the collector.
pub(crate) fn health(store: &Store) -> Result<Health, StoreError> {
    let heads = store.heads()?;
    let open = FindingFilter { state: Some(crate::correlate::State::Open), ..FindingFilter::default() };
    let (counts, addresses, latest, feeds, cursor) = store.read(|connection| {
        Ok((
            control_findings::count(connection, &open)?,
            control_inventory::count(connection)?.0,
            control_cursors::latest_change(connection)?,
            control_cursors::feeds(connection)?,
            control_cursors::correlated(connection)?,
        ))
    })?;
    let view = |(feed, position, moved_at): (String, i64, Timestamp)| FeedView {
        feed,
        behind: latest.saturating_sub(position),
        moved_at,
    };
    Ok(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
        sensors: heads.len(),
        batches: heads.values().map(|head| head.batches).sum(),
        flows: heads.values().map(|head| head.flows).sum(),
        findings_open: counts.iter().map(|(_, count)| count).sum(),
        addresses,
        finding_changes: latest,
        correlated: store.batches_after(cursor, 1)?.is_empty(),
        feeds: feeds.into_iter().map(view).collect(),
    })
}
