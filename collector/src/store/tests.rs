//! The store and its writer together, on real files.

use std::collections::BTreeMap;

use onenet_core::{net::Name, record::FlowRecord, time::Timestamp};
use onenet_proto::{
    seal::ChainHead,
    v1::{BatchBody, Loss, SealedBatch},
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::testing::{Sensor, body, flow, full_flow, store_config};

/// A store with one sensor, to be restarted at will.
struct Rig {
    sensor: Sensor,
    store: Store,
    writer: Option<Writer>,
    config: StoreConfig,
    _directory: TempDir,
}

impl Rig {
    fn new() -> Self {
        Self::with(|config| config)
    }

    fn with(change: impl FnOnce(StoreConfig) -> StoreConfig) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = change(store_config(&directory));
        let (store, writer) = Store::open(&config).expect("a new store");
        let sensor = Sensor::new("boston-1");
        sensor.enter(&store);
        Self { sensor, store, writer: Some(writer), config, _directory: directory }
    }

    fn restart(&mut self) {
        self.writer.take().expect("it runs").stop();
        let (store, writer) = Store::open(&self.config).expect("the store opens again");
        self.store = store;
        self.writer = Some(writer);
    }

    /// Submits batches at once, so that they can fall into one group, and gives the verdicts.
    fn submit(&self, batches: &[SealedBatch]) -> Vec<Verdict> {
        let handle = self.writer.as_ref().expect("it runs").handle();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut waiting = Vec::new();
            for batch in batches {
                let incoming = self.sensor.incoming(batch);
                waiting.push(handle.submit(incoming).await.expect("the writer runs"));
            }
            let mut verdicts = Vec::new();
            for verdict in waiting {
                verdicts.push(verdict.await.expect("a verdict"));
            }
            verdicts
        })
    }

    fn stored(&self) -> Vec<(u64, u64)> {
        let batches = self.store.batches_after(Cursor::default(), usize::MAX).expect("readable");
        batches.iter().map(|batch| (batch.epoch, batch.sequence)).collect()
    }

    fn all_flows(&self) -> Vec<FlowRecord> {
        let page = self.store.flows(&FlowQuery { limit: 1_000_000, ..FlowQuery::default() });
        page.expect("readable").flows.into_iter().map(|flow| flow.record).collect()
    }

    fn events(&self) -> Vec<String> {
        let mut events = self.store.events(Some("boston-1"), 100).expect("readable");
        events.reverse();
        events.into_iter().map(|event| event.kind).collect()
    }
}

#[test]
fn a_flow_comes_back_as_it_was_sealed() {
    let mut rig = Rig::new();
    let flows = [full_flow(1_000), flow(1, 2_000)];
    let batch = rig.sensor.seal(&body(&flows));
    assert_eq!(rig.submit(std::slice::from_ref(&batch)), [Verdict::Stored(rig.sensor.head())]);
    let mut stored = rig.all_flows();
    stored.reverse();
    assert_eq!(stored, flows);
    let batches = rig.store.batches_after(Cursor::default(), 10).expect("readable");
    let [stored] = &batches[..] else { panic!("one batch, not {}", batches.len()) };
    let sealed = SealedBatch {
        header: stored.header.clone(),
        body: stored.body.clone(),
        signature: stored.signature.clone(),
    };
    assert_eq!(sealed, batch, "what is kept is what was signed");
    assert_eq!(Records::decode(stored.body.clone()).expect("it decodes").flows, flows);
}

#[test]
fn a_batch_sent_again_is_known_and_changes_nothing() {
    let mut rig = Rig::new();
    let batches = [rig.sensor.batch(2), rig.sensor.batch(3)];
    let head = rig.sensor.head();
    assert!(matches!(rig.submit(&batches)[..], [Verdict::Stored(_), Verdict::Stored(last)] if last == head));
    let again = [batches[0].clone(), batches[1].clone(), batches[1].clone()];
    assert_eq!(rig.submit(&again), [Verdict::Known(head), Verdict::Known(head), Verdict::Known(head)]);
    // Also within one group, before the first is committed.
    let third = rig.sensor.batch(1);
    let verdicts = rig.submit(&[third.clone(), third]);
    let head = rig.sensor.head();
    assert_eq!(verdicts, [Verdict::Stored(head), Verdict::Known(head)]);
    assert_eq!(rig.stored(), [(1, 1), (1, 2), (1, 3)]);
    assert_eq!(rig.all_flows().len(), 6);
}

#[test]
fn a_gap_is_refused_with_the_sequence_that_is_expected() {
    let mut rig = Rig::new();
    let _lost = rig.sensor.batch(1);
    let second = rig.sensor.batch(1);
    let gap = Refusal::Gap { epoch: 1, expected: 1, got: 2 };
    assert_eq!(gap.to_string(), "expected sequence 1 of epoch 1, got 2");
    assert_eq!(rig.submit(&[second]), [Verdict::Refused(gap)]);
    assert_eq!(rig.stored(), []);
}

#[test]
fn a_fork_is_refused_recorded_once_and_both_sides_are_kept() {
    let mut rig = Rig::new();
    let first = rig.sensor.batch(1);
    let after_first = rig.sensor.head();
    let second = rig.sensor.batch(1);
    rig.submit(&[first, second]);
    rig.sensor.restore(after_first);
    let other = rig.sensor.batch(5);
    let fork = Verdict::Refused(Refusal::Fork { epoch: 1, sequence: 2 });
    assert_eq!(rig.submit(&[other.clone(), other]), [fork.clone(), fork]);
    assert_eq!(rig.stored(), [(1, 1), (1, 2)]);
    let kinds = rig.events();
    assert_eq!(kinds, ["token-created", "enrolled", "epoch-started", "fork"]);
    let kept: i64 = rig
        .store
        .read(|connection| connection.query_row("SELECT count(*) FROM quarantine", [], |row| row.get(0)))
        .expect("readable");
    assert_eq!(kept, 1);
}

#[test]
fn a_new_epoch_begins_at_one_and_the_old_one_is_over() {
    let mut rig = Rig::new();
    let old = rig.sensor.batch(1);
    let past = rig.sensor.head();
    rig.submit(std::slice::from_ref(&old));
    rig.sensor.restore(ChainHead { epoch: 9, ..ChainHead::default() });
    let new = rig.sensor.batch(1);
    let head = rig.sensor.head();
    assert_eq!(rig.submit(&[new, old]), [Verdict::Stored(head), Verdict::Known(head)]);
    rig.sensor.restore(past);
    let late = rig.sensor.batch(1);
    assert_eq!(rig.submit(&[late]), [Verdict::Refused(Refusal::Rollback { epoch: 1, held: 9 })]);
    assert_eq!(rig.stored(), [(1, 1), (9, 1)]);
    assert_eq!(rig.events()[2..], ["epoch-started", "epoch-started", "rollback"]);
}

#[test]
fn a_poison_batch_is_set_aside_and_the_chain_goes_on() {
    let mut rig = Rig::new();
    let batches = [rig.sensor.batch(1), rig.sensor.poison(), rig.sensor.batch(1)];
    let verdicts = rig.submit(&batches);
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Stored(_))), "{verdicts:?}");
    let stored = rig.store.batches_after(Cursor::default(), 10).expect("readable");
    let poison: Vec<_> = stored.iter().map(|batch| batch.poison.as_deref()).collect();
    assert_eq!(poison, [None, Some("flow 0: field flow_id: expected an identity of 16 bytes"), None]);
    let heads = rig.store.heads().expect("readable");
    let head = &heads["boston-1"];
    assert_eq!((head.batches, head.poisoned, head.flows), (3, 1, 2));
    assert_eq!(rig.events()[3..], ["poison"]);
}

#[test]
fn a_revoked_sensor_is_refused_at_its_next_batch() {
    let mut rig = Rig::new();
    let batches = [rig.sensor.batch(1), rig.sensor.batch(1)];
    rig.submit(&batches[..1]);
    // Another process revokes.
    let other = Store::attach(&rig.config).expect("the store beside");
    assert!(other.revoke_sensor("boston-1", Timestamp(1)).expect("it works"));
    assert_eq!(rig.submit(&batches[1..]), [Verdict::Refused(Refusal::NotAllowed)]);
    assert!(!other.revoke_sensor("boston-1", Timestamp(1)).expect("it works"), "it is revoked already");
    assert_eq!(rig.stored(), [(1, 1)]);
}

#[test]
fn what_is_committed_outlives_a_restart_and_the_chain_goes_on() {
    let mut rig = Rig::new();
    let batch = rig.sensor.seal(&BatchBody {
        losses: vec![Loss {
            what: "flow".into(),
            count: 7,
            bytes: 1,
            reason: "spool-full".into(),
            ..Loss::default()
        }],
        ..body(&[flow(1, 5)])
    });
    rig.submit(&[batch]);
    let before = rig.store.heads().expect("readable");
    assert_eq!((before["boston-1"].lost, before["boston-1"].head), (7, rig.sensor.head()));
    rig.restart();
    assert_eq!(rig.store.heads().expect("readable"), before);
    assert_eq!(rig.writer.as_ref().expect("it runs").handle().head("boston-1"), rig.sensor.head());
    let next = rig.sensor.batch(1);
    assert_eq!(rig.submit(&[next]), [Verdict::Stored(rig.sensor.head())]);
}

#[test]
fn a_second_collector_on_one_store_is_refused() {
    let rig = Rig::new();
    let error = Store::open(&rig.config).expect_err("the store is locked").to_string();
    assert!(error.ends_with("lock: another collector is running on this store"), "{error}");
}

#[test]
fn segments_follow_one_another_and_are_searched_as_one() {
    let mut rig = Rig::with(|config| StoreConfig { segment_max_flows: 4, ..config });
    let batches: Vec<_> = (0..7).map(|_| rig.sensor.batch(2)).collect();
    for batch in &batches {
        rig.submit(std::slice::from_ref(batch));
    }
    assert_eq!(segment::list(&rig.store.segment_directory()).expect("listed"), [1, 2, 3, 4]);
    let expected: Vec<_> = (1..=7).map(|sequence| (1, sequence)).collect();
    assert_eq!(rig.stored(), expected);
    // A reader that follows in small steps sees the same.
    let (mut cursor, mut followed) = (Cursor::default(), Vec::new());
    while let Some(batch) = rig.store.batches_after(cursor, 1).expect("readable").pop() {
        cursor = batch.cursor;
        followed.push((batch.epoch, batch.sequence));
    }
    assert_eq!(followed, expected);
    assert_eq!(*rig.store.committed().borrow(), cursor);
    // A batch of a closed segment is still known, also after a restart.
    assert_eq!(rig.submit(&batches[..1]), [Verdict::Known(rig.sensor.head())]);
    rig.restart();
    assert_eq!(rig.submit(&batches[..1]), [Verdict::Known(rig.sensor.head())]);
    assert_eq!(rig.all_flows().len(), 14);
    // Stopping waited for the closing of segments: their indexes and their entry are there.
    let closed = rig.store.segments()[0].readers.with(|connection| {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE name IN ('flows_originator', 'flows_responder')";
        connection.query_row(sql, [], |row| row.get::<_, i64>(0))
    });
    assert_eq!(closed.expect("readable"), 2);
    let stats = rig.store.closed_stats(1).expect("readable").expect("it is closed");
    assert_eq!(stats, SegmentStats { flows: 4, span: Some((0, 1_000_501)) });
}

#[test]
fn a_segment_that_was_not_finished_when_the_collector_stopped_is_begun_again() {
    let mut rig = Rig::with(|config| StoreConfig { segment_max_flows: 2, ..config });
    let batches = [rig.sensor.batch(2), rig.sensor.batch(2)];
    rig.submit(&batches[..1]);
    std::fs::write(segment::path(&rig.store.segment_directory(), 2), b"").expect("written");
    rig.restart();
    let first = rig.sensor.incoming(&batches[0]).verified.head();
    assert_eq!(rig.submit(&batches), [Verdict::Known(first), Verdict::Stored(rig.sensor.head())]);
    assert_eq!(rig.stored(), [(1, 1), (1, 2)]);
}

#[test]
fn segments_of_earlier_versions_are_brought_up_to_date_and_written_on() {
    let mut rig = Rig::with(|config| StoreConfig { segment_max_flows: 2, ..config });
    let batches = [rig.sensor.seal(&body(&[full_flow(1), full_flow(2)])), rig.sensor.batch(1)];
    rig.submit(&batches[..1]);
    rig.submit(&batches[1..]);
    rig.writer.take().expect("it runs").stop();
    // One closed segment and one that is written to, whose rows are those of an earlier version.
    for number in segment::list(&rig.store.segment_directory()).expect("listed") {
        let path = segment::path(&rig.store.segment_directory(), number);
        let connection = rusqlite::Connection::open(path).expect("it opens");
        let earlier = "DROP TABLE flows; CREATE TABLE flows (id INTEGER PRIMARY KEY, batch INTEGER) STRICT;
             ALTER TABLE batches DROP COLUMN cosignature; ALTER TABLE heads DROP COLUMN cosignature";
        connection.execute_batch(earlier).expect("changed");
        connection.pragma_update(None, "user_version", 3).expect("set");
    }
    let error = Store::attach(&rig.config).expect_err("who only reads does not bring up to date");
    let expected = "schema version 3, expected 4; the collector brings it up to date when it starts";
    assert!(error.to_string().ends_with(expected), "{error}");
    let (store, writer) = Store::open(&rig.config).expect("the store opens again");
    (rig.store, rig.writer) = (store, Some(writer));
    let later = rig.sensor.seal(&body(&[full_flow(9)]));
    rig.submit(&[later]);
    let expected = [full_flow(1), full_flow(2), full_flow(9)];
    let flows = rig.all_flows();
    assert_eq!(flows.len(), 4);
    assert!(expected.iter().all(|flow| flows.contains(flow)), "{flows:?}");
}

#[test]
fn a_flow_is_found_by_each_of_its_properties() {
    let mut rig = Rig::new();
    let mut other = flow(9, 50_000);
    other.protocol = 17;
    other.originator.port = 53;
    other.site = "lowell".into();
    other.responder.secretariat = Some("eea".into());
    let flows = [flow(1, 1_000), flow(2, 9_000), other.clone(), full_flow(70_000)];
    let batch = rig.sensor.seal(&body(&flows));
    rig.submit(&[batch]);
    let found = |query: FlowQuery| -> Vec<i64> {
        let page = rig.store.flows(&query).expect("readable");
        page.flows.iter().map(|flow| flow.record.start.0).collect()
    };
    let query = FlowQuery::default;
    let net = |text: &str| Some(text.parse().expect("a prefix"));
    for (what, query, expected) in [
        ("all, newest first", query(), vec![70_000, 50_000, 9_000, 1_000]),
        (
            "from: by its end",
            FlowQuery { from: Some(Timestamp(9_500)), ..query() },
            vec![70_000, 50_000, 9_000],
        ),
        ("to: by its start", FlowQuery { to: Some(Timestamp(9_000)), ..query() }, vec![1_000]),
        ("address", FlowQuery { address: net("10.0.0.2/32"), ..query() }, vec![9_000]),
        ("prefix", FlowQuery { address: net("10.0.0.0/30"), ..query() }, vec![9_000, 1_000]),
        ("IPv6", FlowQuery { address: net("fd00::/8"), ..query() }, vec![70_000]),
        ("IPv4 is no IPv6", FlowQuery { address: net("a00::/8"), ..query() }, vec![]),
        (
            "either side",
            FlowQuery { address: net("192.0.2.0/24"), to: Some(Timestamp(2_000)), ..query() },
            vec![1_000],
        ),
        (
            "both sides, in either order",
            FlowQuery { address: net("192.0.2.1/32"), peer: net("10.0.0.9/32"), ..query() },
            vec![50_000],
        ),
        ("port", FlowQuery { port: Some(53), ..query() }, vec![50_000]),
        ("protocol", FlowQuery { protocol: Some(17), ..query() }, vec![50_000]),
        ("site", FlowQuery { site: Some("lowell".into()), ..query() }, vec![50_000]),
        ("secretariat", FlowQuery { secretariat: Some("eea".into()), ..query() }, vec![50_000]),
        ("sensor", FlowQuery { sensor: Some("lowell-1".into()), ..query() }, vec![]),
        ("flow id", FlowQuery { flow_id: Some(other.flow_id), ..query() }, vec![50_000]),
        ("community id", FlowQuery { community_id: Some("1:9".into()), ..query() }, vec![50_000]),
    ] {
        assert_eq!(found(query), expected, "{what}");
    }
}

#[test]
fn a_page_cursor_reads_back_and_nothing_else_does() {
    let cursor = "-5.3.9".parse::<FlowCursor>().expect("a cursor");
    assert_eq!(cursor.to_string(), "-5.3.9");
    for bad in ["", "1", "1.2", "1.2.x", "1.-2.3", "1.2.3.4"] {
        assert!(bad.parse::<FlowCursor>().is_err(), "{bad}");
    }
}

/// What a careless network and a crashing collector may do.
#[derive(Clone, Debug)]
enum Step {
    /// The sensor sends so many batches from this one on; the acks are lost.
    Send { from: prop::sample::Index, count: usize },
    /// The collector starts anew.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<prop::sample::Index>(), 1..5_usize).prop_map(|(from, count)| Step::Send { from, count }),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_sent_again_and_whenever_the_collector_restarts_all_is_stored_once(
        steps in prop::collection::vec(step(), 1..12),
        segment_max_flows in 1..8_u64,
    ) {
        let mut rig = Rig::with(|config| StoreConfig { segment_max_flows, ..config });
        let batches: Vec<_> = (0..8).map(|index| rig.sensor.batch(index % 3)).collect();
        let mut held = 0;
        for step in steps {
            match step {
                Step::Restart => rig.restart(),
                Step::Send { from, count } => {
                    let from = from.index(batches.len());
                    let sent = &batches[from..batches.len().min(from + count)];
                    for (index, verdict) in (from..).zip(rig.submit(sent)) {
                        match verdict {
                            Verdict::Stored(_) => { prop_assert_eq!(index, held); held += 1; }
                            Verdict::Known(_) => prop_assert!(index < held),
                            Verdict::Refused(refusal) => {
                                let (expected, got) = (held as u64 + 1, index as u64 + 1);
                                prop_assert_eq!(refusal, Refusal::Gap { epoch: 1, expected, got });
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(rig.stored().len(), held);
        }
        rig.submit(&batches);
        prop_assert_eq!(rig.stored(), (1..=8).map(|sequence| (1, sequence)).collect::<Vec<_>>());
        let expected: BTreeMap<Name, u64> = [(Name::from("boston-1"), 7)].into();
        let heads = rig.store.heads().expect("readable");
        let flows: BTreeMap<Name, u64> = heads.iter().map(|(name, head)| (name.clone(), head.flows)).collect();
        prop_assert_eq!(flows, expected);
        prop_assert_eq!(rig.all_flows().len(), 7);
    }

    #[test]
    fn pages_put_together_are_the_whole_list(
        starts in prop::collection::vec(0..20_i64, 0..40),
        limit in 1..7_usize,
        segment_max_flows in 1..12_u64,
    ) {
        let mut rig = Rig::with(|config| StoreConfig { segment_max_flows, ..config });
        for chunk in starts.chunks(3) {
            let flows: Vec<_> = chunk.iter().zip(0..).map(|(&start, index)| flow(index, start)).collect();
            let batch = rig.sensor.seal(&body(&flows));
            rig.submit(&[batch]);
        }
        let mut paged = Vec::new();
        let mut query = FlowQuery { limit, ..FlowQuery::default() };
        loop {
            let page = rig.store.flows(&query).expect("readable");
            prop_assert!(page.flows.len() <= limit);
            prop_assert!(paged.len() <= starts.len(), "a page gives flows that an earlier one gave");
            paged.extend(page.flows.into_iter().map(|flow| flow.record));
            query.after = page.next;
            if query.after.is_none() { break; }
        }
        prop_assert_eq!(&paged, &rig.all_flows());
        let mut sorted = starts;
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        prop_assert_eq!(paged.iter().map(|flow| flow.start.0).collect::<Vec<_>>(), sorted);
    }
}
