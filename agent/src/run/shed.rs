//! What becomes of records that there is no room for, where their source cannot wait. In this order: detail of flows is
//! folded into aggregates, these are given up, then observations, then findings. Heartbeats, losses and audit entries are
//! never given up: the spool may go beyond its limit for them, by a stated reserve.

use std::time::{Duration, Instant};

use onenet_proto::v1::{BatchBody, BatchKind};

use super::{
    aggregate::Aggregates,
    loss::{AGGREGATED, Losses, Place, SPOOL_FULL},
    seal::{SealLoop, sum},
};

/// How often aggregates are told while detail is folded.
const AGGREGATE_INTERVAL: Duration = Duration::from_secs(2);
/// How often losses are sealed while they go on, and how often while nothing but them and heartbeats is taken.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);
const SPARING_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes of heartbeats and losses that wait for a disk that fails, at most.
const MOST_PENDING: u64 = 1 << 20;
/// Percent of the limit that must have become free below a class's threshold before it is taken again.
const HYSTERESIS: u64 = 3;

/// What is shed, in this order, each with the percent of the limit up to which it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Flow,
    Aggregate,
    Observation,
    Finding,
}

impl Class {
    const fn percent(self) -> u64 {
        match self {
            Self::Flow => 80,
            Self::Aggregate => 85,
            Self::Observation => 92,
            Self::Finding => 100,
        }
    }
}

/// What is being shed.
#[derive(Debug)]
pub(super) struct Shedding {
    /// By class.
    on: [bool; 4],
    aggregates: Aggregates,
    /// The flows that are in the aggregates, as the loss that is told with them.
    folded: Losses,
    told: Option<Instant>,
}

impl Shedding {
    pub(super) fn new() -> Self {
        Self { on: [false; 4], aggregates: Aggregates::new(), folded: Losses::default(), told: None }
    }
}

impl SealLoop {
    /// Bytes that heartbeats, losses and audit entries may take beyond the limit: a sixteenth of it, from 1 to 64 MiB.
    fn beyond_limit(&self) -> u64 {
        (self.settings.limit_bytes / 16).clamp(1 << 20, 64 << 20)
    }

    /// Whether a heartbeat can be sealed: always but on a disk that failed for so long that memory would run full, or
    /// once the spool is beyond its limit by all that is allowed.
    pub(super) fn may_seal_heartbeat(&self) -> bool {
        let most = self.settings.limit_bytes.saturating_add(self.beyond_limit());
        self.writer.used_bytes() < most
            && (self.failed_at.is_none() || self.writer.pending_bytes() < MOST_PENDING)
    }

    /// Between heartbeats: longer where nothing but them is taken, so that they last.
    pub(super) fn heartbeat_interval(&self) -> Duration {
        if self.is_sparing() {
            self.settings.heartbeat.max(SPARING_INTERVAL)
        } else {
            self.settings.heartbeat
        }
    }

    /// Between two sealings of losses.
    pub(super) fn loss_interval(&self) -> Duration {
        if self.is_sparing() { SPARING_INTERVAL } else { LOSS_INTERVAL }
    }

    fn is_sparing(&self) -> bool {
        self.writer.used_bytes() >= self.settings.limit_bytes
            || self.writer.is_tight()
            || self.failed_at.is_some()
    }

    fn has_room(&mut self, class: Class, bytes: usize) -> bool {
        let used = self.writer.used_bytes().saturating_add(bytes as u64);
        let Some(on) = self.shedding.on.get_mut(class as usize) else { return false };
        let percent = class.percent().saturating_sub(if *on { HYSTERESIS } else { 0 });
        let fits = used <= self.settings.limit_bytes / 100 * percent;
        let has_room = fits && self.failed_at.is_none() && !self.writer.is_tight();
        if *on == has_room {
            *on = !has_room;
            if has_room {
                tracing::info!("the spool has room again: {class:?} records are taken");
            } else {
                tracing::warn!(
                    "the spool has no room for {class:?} records: they are shed, and the loss is told"
                );
            }
        }
        has_room
    }

    /// Sheds what there is no room for.
    pub(super) fn shed(&mut self, body: &mut BatchBody) {
        let place = self.next_place();
        let bytes = sum(&body.flows);
        if !body.flows.is_empty() && !self.has_room(Class::Flow, bytes) {
            for flow in &body.flows {
                self.shedding.aggregates.add(flow);
            }
            let count = std::mem::take(&mut body.flows).len() as u64;
            self.shedding.folded.add("flow", count, bytes, AGGREGATED, place);
        }
        let mut lost = Losses::default();
        let bytes = sum(&body.observations);
        if !body.observations.is_empty() && !self.has_room(Class::Observation, bytes) {
            let count = std::mem::take(&mut body.observations).len() as u64;
            lost.add("observation", count, bytes, SPOOL_FULL, place);
        }
        let bytes = sum(&body.findings);
        if !body.findings.is_empty() && !self.has_room(Class::Finding, bytes) {
            let count = std::mem::take(&mut body.findings).len() as u64;
            lost.add("finding", count, bytes, SPOOL_FULL, place);
        }
        self.lose(&lost);
        self.tell_aggregates(false);
    }

    /// Seals the aggregates, with the loss of detail in the same batch, where it is time or must be; gives them up where
    /// not even they fit.
    pub(super) fn tell_aggregates(&mut self, at_once: bool) {
        let due = self.shedding.told.is_none_or(|told| told.elapsed() >= AGGREGATE_INTERVAL);
        // A disk that fails takes nothing; what is folded stays exact meanwhile, in bounded memory.
        if self.shedding.aggregates.is_empty() || !(due || at_once) || (self.failed_at.is_some() && !at_once)
        {
            return;
        }
        self.shedding.told = Some(Instant::now());
        let head = self.sealer.head();
        let mut name = self.settings.sensor.as_bytes().to_vec();
        name.extend(head.epoch.to_le_bytes());
        name.extend(head.sequence.to_le_bytes());
        let flows = self.shedding.aggregates.take(&name);
        let folded = std::mem::take(&mut self.shedding.folded);
        if !self.has_room(Class::Aggregate, sum(&flows)) {
            self.lose(&folded.with_reason(SPOOL_FULL));
            return;
        }
        self.lose(&folded);
        self.mark.flows = self.mark.flows.saturating_add(flows.len() as u64);
        self.seal(BatchBody { flows, ..BatchBody::default() }, BatchKind::Records, self.mark);
    }

    /// Where a record that is lost now would have stood.
    fn next_place(&self) -> Place {
        let head = self.sealer.head();
        let next = head.sequence.saturating_add(1);
        Place { epoch: head.epoch, first: next, last: next, time: self.wall_time() }
    }
}
