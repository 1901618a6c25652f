//! What is found about sensors, by a writer, a correlator and a watch that are the collector's own; clocks are given.

use onenet_core::{net::Name, record::Change};
use onenet_proto::{
    seal::ChainHead,
    v1::{AuditEntry, BatchBody, BatchKind, EpochStart, Loss, SealedBatch},
};

use super::*;
use crate::{
    correlate::{self, RecordedChange},
    seed::{self, plan},
    store::{Event, EventKind, Store, Verdict, Writer, control_findings},
    testing::{Sensor, store_config},
};

const SECOND: i64 = NANOS_PER_SECOND;

/// A collector without its network, and the sensor boston-1.
struct Rig {
    _directory: tempfile::TempDir,
    store: Store,
    writer: Option<Writer>,
    sensor: Sensor,
    config: SensorsConfig,
    watch: Watch,
    begun: Timestamp,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, writer) = Store::open(&store_config(&directory)).expect("a store");
        let sensor = Sensor::new("boston-1");
        sensor.enter(&store);
        // Sensors enrol at the start of time there, so the watch begins with the process.
        let begun = wall::now();
        let config = SensorsConfig::default();
        let writer = Some(writer);
        Self { _directory: directory, store, writer, sensor, config, watch: Watch::new(begun), begun }
    }

    fn submit(&self, batch: &SealedBatch) -> Verdict {
        let incoming = self.sensor.incoming(batch);
        let handle = self.writer.as_ref().expect("it runs").handle();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            handle.submit(incoming).await.expect("the writer runs").await.expect("a verdict")
        })
    }

    /// Commits a batch and judges it.
    fn deliver(&self, batch: &SealedBatch) {
        assert!(matches!(self.submit(batch), Verdict::Stored(_)));
        while correlate::step(&self.store, &seed::judge(), &self.config, 16).expect("it is judged") > 0 {}
    }

    fn body(&mut self, body: &BatchBody) -> SealedBatch {
        self.sensor.seal_at(body, BatchKind::Records, wall::now().0, 0)
    }

    /// A step of the watch so many seconds after the start.
    fn step(&mut self, seconds: i64) -> usize {
        let now = self.begun.plus(seconds * SECOND);
        self.watch.step(&self.store, &plan(), &self.config, now, now).expect("it is judged")
    }

    fn changes(&self) -> Vec<RecordedChange> {
        self.store.read(|control| control_findings::changes_after(control, 0, 1_000)).expect("readable")
    }

    /// `rule change severity` of every change.
    fn told(&self) -> Vec<String> {
        let one = |change: &RecordedChange| {
            let finding = &change.finding;
            format!("{} {} {}", finding.rule, finding.change, finding.severity)
        };
        self.changes().iter().map(one).collect()
    }

    fn last(&self) -> RecordedChange {
        self.changes().pop().expect("a change")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.stop();
        }
    }
}

fn loss(what: &str, count: u64, reason: &str) -> Loss {
    let (what, reason) = (what.to_owned(), reason.to_owned());
    Loss {
        what,
        count,
        bytes: 10 * count,
        reason,
        epoch: 1,
        first_sequence: 4,
        last_sequence: 5,
        since: 1,
        until: 2,
    }
}

#[test]
fn a_sensor_that_goes_on_in_order_is_no_finding() {
    let mut rig = Rig::new();
    for _ in 0..5 {
        let batch = rig.body(&BatchBody::default());
        rig.deliver(&batch);
        rig.step(1);
    }
    assert_eq!(rig.told(), [""; 0]);
}

#[test]
fn silence_is_told_once_within_its_minute_and_ended_by_a_batch() {
    let mut rig = Rig::new();
    rig.step(0);
    let batch = rig.body(&BatchBody::default());
    rig.deliver(&batch);
    rig.step(1);
    assert_eq!(rig.step(50), 0);
    assert_eq!(rig.step(51), 1, "a tail that was cut shows within a minute of the last batch");
    assert_eq!((rig.step(62), rig.step(600)), (0, 0));
    let summary = rig.last().finding.summary;
    assert!(
        summary.contains("boston-1 has not been heard for 50 s: it did not say that it stops"),
        "{summary}"
    );
    // A collector that starts again knows of no batch since, and does not end it.
    rig.watch = Watch::new(rig.begun.plus(700 * SECOND));
    assert_eq!(rig.step(701), 0);
    let batch = rig.body(&BatchBody::default());
    rig.deliver(&batch);
    assert_eq!(rig.step(702), 1);
    assert_eq!(rig.told(), ["sensor.silent raised high", "sensor.silent closed high"]);
    assert_eq!(rig.last().finding.sites, [Name::from("boston")]);
}

#[test]
fn a_sensor_that_said_that_it_stops_weighs_less_and_one_that_is_revoked_is_not_silent() {
    let mut rig = Rig::new();
    let stopped = AuditEntry { time: 1, action: "stopped".to_owned(), detail: "SIGTERM".to_owned() };
    let batch = rig.body(&BatchBody { audit: vec![stopped], ..BatchBody::default() });
    rig.deliver(&batch);
    rig.step(1);
    rig.step(100);
    let summary = rig.last().finding.summary;
    assert!(summary.contains("it said that it stops (SIGTERM)"), "{summary}");
    rig.store.revoke_sensor("boston-1", rig.begun).expect("revoked");
    rig.step(101);
    assert_eq!(rig.told(), ["sensor.silent raised medium", "sensor.silent closed medium"]);
}

#[test]
fn a_fork_is_told_once_however_often_it_comes() {
    let mut rig = Rig::new();
    let first = rig.body(&BatchBody::default());
    let head = rig.sensor.head();
    rig.deliver(&first);
    let second = rig.body(&BatchBody::default());
    rig.deliver(&second);
    rig.sensor.restore(head);
    let other = rig.body(&BatchBody { losses: vec![loss("flow", 1, "spool-full")], ..BatchBody::default() });
    for _ in 0..3 {
        assert!(matches!(rig.submit(&other), Verdict::Refused(_)));
        rig.step(1);
    }
    assert_eq!(rig.told(), ["sensor.fork raised critical"]);
    let summary = rig.last().finding.summary;
    assert!(summary.contains("batch 2 of epoch"), "{summary}");
}

#[test]
fn an_epoch_that_begins_behind_what_was_delivered_is_a_rollback_and_one_behind_the_head_is_none() {
    let start = |head: &ChainHead, reason: &str| EpochStart {
        previous_epoch: head.epoch,
        previous_sequence: head.sequence,
        previous_hash: head.hash.to_vec().into(),
        reason: reason.to_owned(),
        detail: String::new(),
    };
    for (case, expected) in [("held", 0), ("behind", 1), ("other", 1), ("nothing", 1), ("lost", 1)] {
        let mut rig = Rig::new();
        let first = rig.body(&BatchBody::default());
        rig.deliver(&first);
        let behind = rig.sensor.head();
        let second = rig.body(&BatchBody::default());
        rig.deliver(&second);
        let held = rig.sensor.head();
        let epoch_start = match case {
            "held" => Some(start(&held, "sealed-anew")),
            "behind" => Some(start(&behind, "sealed-anew")),
            "other" => Some(start(&ChainHead { hash: [9; 32], ..held }, "sealed-anew")),
            "lost" => Some(start(&ChainHead::default(), "state-lost")),
            _ => None,
        };
        rig.sensor.restore(ChainHead { epoch: held.epoch + 1, ..ChainHead::default() });
        let batch = rig.body(&BatchBody { epoch_start, ..BatchBody::default() });
        rig.deliver(&batch);
        assert_eq!(rig.told(), vec!["sensor.rollback raised high"; expected], "{case}");
    }
}

#[test]
fn a_batch_of_an_epoch_that_is_past_is_a_rollback() {
    let mut rig = Rig::new();
    let held = rig.sensor.head();
    rig.sensor.restore(ChainHead { epoch: held.epoch + 1, ..ChainHead::default() });
    let later = rig.body(&BatchBody::default());
    rig.deliver(&later);
    rig.sensor.restore(held);
    let old = rig.body(&BatchBody::default());
    assert!(matches!(rig.submit(&old), Verdict::Refused(_)));
    rig.step(1);
    assert_eq!(rig.told(), ["sensor.rollback raised high"]);
}

#[test]
fn a_gap_that_heals_in_time_is_none_and_one_that_lasts_ends_when_its_batches_come() {
    let mut rig = Rig::new();
    let batches: Vec<SealedBatch> = (0..4).map(|_| rig.body(&BatchBody::default())).collect();
    rig.deliver(&batches[0]);
    assert!(matches!(rig.submit(&batches[2]), Verdict::Refused(_)));
    rig.step(1);
    rig.deliver(&batches[1]);
    rig.step(2);
    rig.step(100);
    let of_gap = |rig: &Rig| {
        let told = rig.told();
        told.into_iter().filter(|change| change.starts_with("sensor.gap")).collect::<Vec<_>>()
    };
    assert_eq!(of_gap(&rig), [""; 0]);
    assert!(matches!(rig.submit(&batches[3]), Verdict::Refused(_)));
    rig.step(101);
    let later = seconds(between(rig.begun, wall::now())).cast_signed() + 61;
    rig.step(later.max(170));
    assert_eq!(of_gap(&rig), ["sensor.gap raised high"]);
    rig.deliver(&batches[2]);
    rig.step(later.max(170) + 1);
    assert_eq!(of_gap(&rig), ["sensor.gap raised high", "sensor.gap closed high"]);
}

#[test]
fn losses_are_told_by_what_they_are_and_again_when_they_have_doubled() {
    let mut rig = Rig::new();
    let mut tell = |losses: Vec<Loss>| {
        let batch = rig.body(&BatchBody { losses, ..BatchBody::default() });
        rig.deliver(&batch);
    };
    tell(vec![loss("flow", 100, "aggregated")]);
    tell(vec![loss("flow", 5, "spool-full")]);
    tell(vec![loss("flow", 5, "spool-full")]);
    tell(vec![loss("finding", 1, "spool-full"), loss("batch", 2, "not-held")]);
    let told = rig.told();
    assert_eq!(
        told,
        [
            "sensor.shed raised low",
            "sensor.shed updated medium",
            "sensor.gap raised high",
            "sensor.shed updated high",
        ]
    );
    let counts = rig.last().finding.evidence.counts;
    assert_eq!((counts["flows_aggregated"], counts["flows_lost"], counts["findings_lost"]), (100, 10, 1));
    let quiet = i64::from(rig.config.quiet_seconds) + 60;
    rig.step(quiet);
    assert_eq!(rig.told().iter().filter(|change| change.contains("closed")).count(), 2);
}

#[test]
fn seals_that_do_not_hold_are_one_finding_and_fill_no_disk() {
    let mut rig = Rig::new();
    for number in 0..300_u64 {
        let event = Event {
            time: rig.begun,
            kind: EventKind::BadSeal,
            sensor: "boston-1".to_owned(),
            batch: Some((1, number + 1, [3; 32])),
            message: "the signature does not fit".to_owned(),
        };
        rig.store.record_bad_seal(&event).expect("recorded");
        if number % 50 == 0 {
            rig.step(1);
        }
    }
    rig.step(2);
    let told = rig.told();
    assert!(told.len() <= 8, "{told:?}");
    assert_eq!(told[0], "sensor.seal raised critical");
    assert_eq!(
        rig.store.events(None, 1_000).expect("readable").iter().filter(|e| e.kind == "bad-seal").count(),
        100
    );
}

#[test]
fn a_clock_that_is_ahead_or_steps_is_told_and_nothing_is_refused_for_it() {
    let mut rig = Rig::new();
    let now = wall::now().0;
    let seal = |rig: &mut Rig, wall: i64, monotonic: i64| {
        let batch = rig.sensor.seal_at(&BatchBody::default(), BatchKind::Heartbeat, wall, monotonic);
        rig.deliver(&batch);
    };
    seal(&mut rig, now, SECOND);
    seal(&mut rig, now + 3_600 * SECOND, 2 * SECOND);
    seal(&mut rig, now + 10 * 365 * 86_400 * SECOND, 3 * SECOND);
    seal(&mut rig, now - 10 * 365 * 86_400 * SECOND, 4 * SECOND);
    let told = rig.told();
    assert_eq!(told[0], "sensor.clock raised medium");
    assert!(told.iter().all(|change| change.starts_with("sensor.clock")), "{told:?}");
    seal(&mut rig, now, 5 * SECOND);
    seal(&mut rig, now + SECOND, 6 * SECOND);
    assert_eq!(rig.told().last().map(String::as_str), Some("sensor.clock closed medium"));
    assert_eq!(rig.last().finding.change, Change::Closed);
}

#[test]
fn the_same_event_after_a_restart_is_not_told_again() {
    let mut rig = Rig::new();
    let event = Event {
        time: rig.begun,
        kind: EventKind::Fork,
        sensor: "boston-1".to_owned(),
        batch: Some((1, 2, [3; 32])),
        message: "fork".to_owned(),
    };
    rig.store.record_event(&event).expect("recorded");
    assert_eq!(rig.step(1), 1);
    rig.watch = Watch::new(rig.begun);
    rig.store.record_event(&event).expect("recorded");
    assert_eq!(rig.step(2), 0);
}

/// What was told of gaps.
fn of_gap(rig: &Rig) -> Vec<String> {
    rig.told().into_iter().filter(|change| change.starts_with("sensor.gap")).collect()
}

#[test]
fn a_gap_that_lasted_behind_a_told_loss_is_closed_once_it_is_healed_and_quiet() {
    let mut rig = Rig::new();
    let told = BatchBody { losses: vec![loss("batch", 2, "not-held")], ..BatchBody::default() };
    let first = rig.body(&told);
    rig.deliver(&first);
    let batches: Vec<SealedBatch> = (0..2).map(|_| rig.body(&BatchBody::default())).collect();
    assert!(matches!(rig.submit(&batches[1]), Verdict::Refused(_)));
    let later = seconds(between(rig.begun, wall::now())).cast_signed() + 61;
    rig.step(later);
    rig.deliver(&batches[0]);
    rig.deliver(&batches[1]);
    rig.step(later + 1);
    let quiet = i64::from(rig.config.quiet_seconds) + later;
    rig.step(quiet + 60);
    rig.step(10 * quiet);
    assert!(of_gap(&rig).iter().any(|change| change.contains("closed")), "{:?}", of_gap(&rig));
}

#[test]
fn batches_that_never_came_are_not_told_as_come_when_a_new_epoch_begins() {
    let mut rig = Rig::new();
    let batches: Vec<SealedBatch> = (0..3).map(|_| rig.body(&BatchBody::default())).collect();
    rig.deliver(&batches[0]);
    assert!(matches!(rig.submit(&batches[2]), Verdict::Refused(_)));
    let later = seconds(between(rig.begun, wall::now())).cast_signed() + 61;
    rig.step(later);
    let before = rig.sensor.head();
    rig.sensor.restore(ChainHead { epoch: before.epoch + 1, ..ChainHead::default() });
    let start = EpochStart {
        previous_epoch: before.epoch,
        previous_sequence: before.sequence,
        previous_hash: before.hash.to_vec().into(),
        reason: "sealed-anew".into(),
        ..EpochStart::default()
    };
    let anew = rig.body(&BatchBody { epoch_start: Some(start), ..BatchBody::default() });
    rig.deliver(&anew);
    rig.step(later + 1);
    let gaps: Vec<String> = rig
        .changes()
        .into_iter()
        .filter(|change| change.finding.rule == onenet_core::record::RuleId::SensorGap)
        .map(|change| change.finding.summary)
        .collect();
    assert!(gaps.iter().all(|summary| !summary.contains("have come")), "{gaps:?}");
}
