//! The sealing thread: chain over restarts, waiting and shedding where the spool is full, sealing anew. The sensor
//! thread: the same records in every run, at any pace.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::sync_channel,
    },
    time::{Duration, Instant},
};

use onenet_core::{flow::FlowConfig, sensor::Sensor};
use onenet_proto::{
    seal::{ChainHead, SigningKey, verify},
    v1::{BatchBody, BatchKind, FindingChange, Flow, Observation, PlanHeld, SealedBatch},
};
use prost::Message as _;

use super::{
    batch::{Batcher, Draft, Limits},
    pump::Pump,
    seal::{SealControl, SealLoop, Settings, WhenFull},
};
use crate::{
    config::Config,
    ship::{Resume, resume},
    source::CaptureSet,
    spool::{self, Entry, Position, Reader, Shared},
};

mod plan;

const RUN: u64 = 77;

struct Thread {
    control: Arc<SealControl>,
    spool: Arc<Shared>,
    drafts: std::sync::mpsc::SyncSender<Draft>,
    thread: std::thread::JoinHandle<()>,
    /// Records of the run that were sealed when it started.
    sealed_before: u64,
}

fn signing_key() -> (Vec<u8>, Vec<u8>) {
    let (key, pkcs8) = SigningKey::generate().unwrap();
    (pkcs8, key.public_key().to_vec())
}

fn settings() -> spool::Settings {
    spool::Settings { segment_bytes: 4096, reserve_bytes: 0, quarantine_bytes: 1 << 20 }
}

fn start(directory: &Path, key: &[u8], when_full: WhenFull, limit_bytes: u64) -> Thread {
    start_with(directory, key, when_full, limit_bytes, super::wall_time)
}

fn start_with(
    directory: &Path,
    key: &[u8],
    when_full: WhenFull,
    limit_bytes: u64,
    clock: super::seal::Clock,
) -> Thread {
    let opened = spool::open(directory, settings(), 1000, spool::on_disk()).unwrap();
    start_on(opened, key, when_full, limit_bytes, clock)
}

fn start_on(
    opened: spool::Opened,
    key: &[u8],
    when_full: WhenFull,
    limit_bytes: u64,
    clock: super::seal::Clock,
) -> Thread {
    let control = SealControl::with_clock(clock);
    let spool = opened.writer.shared().clone();
    let settings = Settings {
        clock,
        sensor: "boston-1".into(),
        signing_key: key.to_vec(),
        limit_bytes,
        when_full,
        heartbeat: Duration::from_secs(3600),
        flush_interval: Duration::from_millis(1),
        plan: PlanHeld { version: 7, ..PlanHeld::default() },
        run: RUN,
    };
    let mark = opened.head.mark;
    let sealed_before = if mark.run == RUN { mark.run_records } else { 0 };
    let chain = opened.head.chain;
    let seal = SealLoop::new(settings, control.clone(), opened).unwrap();
    assert_eq!(control.state().head.chain, chain, "told before anything is sealed");
    let (drafts, receiver) = sync_channel(1);
    let thread = std::thread::spawn(move || seal.run(&receiver));
    Thread { control, spool, drafts, thread, sealed_before }
}

impl Thread {
    fn stop(self) {
        self.control.stopping.store(true, Ordering::SeqCst);
        self.control.closing.store(true, Ordering::SeqCst);
        drop(self.drafts);
        self.thread.join().unwrap();
    }
}

/// Waits for something that another thread is about to do.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn flow(number: u64) -> Flow {
    Flow { flow_id: number.to_be_bytes().to_vec().into(), history: "x".repeat(500), ..Flow::default() }
}

fn draft(number: u64) -> Draft {
    let body = BatchBody { flows: vec![flow(number)], ..BatchBody::default() };
    Draft { bytes: body.encoded_len(), body, run_records: number }
}

fn entries(spool: &Arc<Shared>, after: Position) -> Vec<(Entry, BatchBody)> {
    let mut reader = Reader::new(spool.clone());
    reader.seek(after);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        let sealed = SealedBatch::decode(&entry.payload[..]).unwrap();
        entries.push((entry, BatchBody::decode(&sealed.body[..]).unwrap()));
    }
    entries
}

fn flows(spool: &Arc<Shared>) -> Vec<u64> {
    let number = |flow: &Flow| u64::from_be_bytes(flow.flow_id[..].try_into().unwrap());
    entries(spool, Position::default()).iter().flat_map(|(_, body)| body.flows.iter().map(number)).collect()
}

/// Every batch verifies and follows the one before.
fn assert_chain(spool: &Arc<Shared>, public_key: &[u8]) {
    let mut head: Option<ChainHead> = None;
    for (entry, _) in entries(spool, Position::default()) {
        let sealed = SealedBatch::decode(&entry.payload[..]).unwrap();
        let verified = verify(&sealed, public_key).unwrap();
        let epoch = ChainHead { epoch: verified.header.epoch, ..ChainHead::default() };
        assert!(verified.follows(&head.filter(|head| head.epoch == epoch.epoch).unwrap_or(epoch)));
        head = Some(verified.head());
    }
    assert_eq!(head.unwrap_or_default(), spool.durable().chain);
}

#[test]
fn the_chain_goes_on_over_restarts_and_the_count_of_sealed_records_with_it() {
    let directory = spool::scratch();
    let (key, public_key) = signing_key();
    let mut sent = 0;
    for round in 1..=4 {
        let thread = start(directory.path(), &key, WhenFull::Wait, 1 << 30);
        assert_eq!(thread.sealed_before, sent);
        for _ in 0..5 {
            sent += 1;
            thread.drafts.send(draft(sent)).unwrap();
        }
        let spool = thread.spool.clone();
        thread.stop();
        assert_eq!(flows(&spool), (1..=sent).collect::<Vec<_>>());
        assert_eq!(spool.durable().mark.flows, sent);
        // A heartbeat at the start and one at the end of each round, five batches between.
        assert_eq!(spool.durable().chain.sequence, round * 7);
        assert_chain(&spool, &public_key);
    }
}

#[test]
fn a_source_that_can_wait_waits_for_acks_and_loses_nothing() {
    let directory = spool::scratch();
    let (key, _) = signing_key();
    let thread = start(directory.path(), &key, WhenFull::Wait, 20_000);
    let (spool, control, drafts) = (thread.spool.clone(), thread.control.clone(), thread.drafts.clone());
    let source = std::thread::spawn(move || (1..=200).for_each(|number| drafts.send(draft(number)).unwrap()));
    let mut received = Vec::new();
    let mut last = Position::default();
    eventually("the spool fills up", || control.state().waiting);
    assert!(spool.used_bytes() <= 20_000);
    while received.len() < 200 {
        for (entry, body) in entries(&spool, last) {
            last = entry.header.position;
            received.extend(
                body.flows.iter().map(|flow| u64::from_be_bytes(flow.flow_id[..].try_into().unwrap())),
            );
            assert!(body.losses.is_empty());
            spool.acknowledge(ChainHead {
                epoch: last.epoch,
                sequence: last.sequence,
                hash: entry.header.hash,
            });
        }
        assert!(spool.used_bytes() <= 20_000);
        std::thread::sleep(Duration::from_millis(1));
    }
    source.join().unwrap();
    assert_eq!(received, (1..=200).collect::<Vec<_>>());
    thread.stop();
}

#[test]
fn a_stop_while_a_source_waits_gives_up_everything_behind_the_first_draft_given_up() {
    let directory = spool::scratch();
    let (key, _) = signing_key();
    let thread = start(directory.path(), &key, WhenFull::Wait, 8_000);
    let (spool, control, drafts) = (thread.spool.clone(), thread.control.clone(), thread.drafts.clone());
    let sent = Arc::new(AtomicU64::new(0));
    let counted = sent.clone();
    let (go_on, wait) = sync_channel::<()>(0);
    let source = std::thread::spawn(move || {
        for number in 1..=60 {
            drafts.send(draft(number)).unwrap();
            counted.store(number, Ordering::SeqCst);
            if number == 40 {
                wait.recv().unwrap();
            }
        }
    });
    eventually("the spool fills up", || control.state().waiting);
    control.stopping.store(true, Ordering::SeqCst);
    eventually("drafts are given up", || sent.load(Ordering::SeqCst) == 40);
    let sealed = flows(&spool);
    // Now there is room again, too late.
    spool.acknowledge(spool.durable().chain);
    eventually("room is made", || spool.used_bytes() < 4_000);
    go_on.send(()).unwrap();
    source.join().unwrap();
    thread.stop();
    let count = u64::try_from(sealed.len()).unwrap();
    assert!(count < 40);
    assert_eq!(sealed, (1..=count).collect::<Vec<_>>());
    assert_eq!(spool.durable().mark.run_records, count, "the next run goes on exactly there");
}

#[test]
fn a_source_that_cannot_wait_sheds_flows_first_and_every_loss_is_sealed() {
    let directory = spool::scratch();
    let (key, _) = signing_key();
    let thread = start(directory.path(), &key, WhenFull::Shed, 20_000);
    let filler = "x".repeat(300);
    for number in 1..=60 {
        let body = BatchBody {
            flows: vec![flow(number)],
            observations: vec![Observation { hostname: filler.clone(), ..Observation::default() }],
            findings: vec![FindingChange { summary: filler.clone(), ..FindingChange::default() }],
            ..BatchBody::default()
        };
        thread.drafts.send(Draft { bytes: body.encoded_len(), body, run_records: number * 3 }).unwrap();
    }
    let (spool, control) = (thread.spool.clone(), thread.control.clone());
    thread.stop();
    let mut held = [0; 3];
    let mut lost = [0; 3];
    let mut last_of = [0; 3];
    let (mut folded, mut told_folded) = (0, 0);
    for (index, (_, body)) in entries(&spool, Position::default()).iter().enumerate() {
        let detailed = body.flows.iter().filter(|flow| flow.aggregate.is_none()).count();
        folded += body.flows.iter().filter_map(|flow| flow.aggregate).map(|many| many.flows).sum::<u64>();
        for (class, count) in [detailed, body.observations.len(), body.findings.len()].into_iter().enumerate()
        {
            held[class] += count as u64;
            if count > 0 {
                last_of[class] = index;
            }
        }
        for loss in &body.losses {
            let class =
                ["flow", "observation", "finding"].iter().position(|what| *what == loss.what).unwrap();
            lost[class] += loss.count;
            assert!(loss.reason == "spool-full" || class == 0 && loss.reason == "aggregated", "{loss:?}");
            told_folded += if loss.reason == "aggregated" { loss.count } else { 0 };
            assert!(loss.bytes > 0 && loss.since > 0 && loss.since <= loss.until, "{loss:?}");
            assert!(loss.epoch == 1000 && loss.first_sequence > 1, "{loss:?}");
            assert!(loss.first_sequence <= loss.last_sequence, "{loss:?}");
        }
    }
    for class in 0..3 {
        assert_eq!(held[class] + lost[class], 60, "what is not held is lost, and told");
        assert!(lost[class] > 0);
    }
    assert!(last_of[0] < last_of[1] && last_of[1] < last_of[2], "{last_of:?}: flows go first");
    assert_eq!(folded, told_folded, "what is folded is told with its aggregate");
    assert!(folded > 0);
    let totals = control.state().losses.records();
    assert_eq!(totals.iter().map(|loss| loss.count).sum::<u64>(), lost.iter().sum::<u64>());
}

#[test]
fn what_the_collector_cannot_take_is_sealed_anew_and_what_is_missing_is_told() {
    let directory = spool::scratch();
    let (key, public_key) = signing_key();
    let thread = start(directory.path(), &key, WhenFull::Wait, 1 << 30);
    (1..=20).for_each(|number| thread.drafts.send(draft(number)).unwrap());
    thread.stop();
    // The payload of the seventh batch (a heartbeat comes first, so flow 6) is damaged.
    let opened = spool::open(directory.path(), settings(), 1, spool::on_disk());
    let opened = opened.unwrap();
    let all = entries(opened.writer.shared(), Position::default());
    let (damaged, _) = &all[6];
    let (fifth, _) = &all[4];
    let position = damaged.header.position;
    let collector = ChainHead { epoch: position.epoch, sequence: 5, hash: fifth.header.hash };
    drop(opened);
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(damaged.payload.len()).position(|window| window == damaged.payload) {
            bytes[at + 100] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }

    let thread = start(directory.path(), &key, WhenFull::Wait, 1 << 30);
    let spool = thread.spool.clone();
    eventually("the heartbeat of the start is durable", || spool.durable().chain.sequence == 23);
    assert_eq!(resume(&spool, &collector).unwrap(), Resume::From(Position { sequence: 5, ..position }));
    let sixth = ChainHead { sequence: 6, hash: damaged.header.previous_hash, ..collector };
    let Resume::Anew(anew) = resume(&spool, &sixth).unwrap() else { panic!("batch 7 cannot be read") };
    thread.control.seal_anew(anew).unwrap();
    assert_eq!(resume(&spool, &sixth).unwrap(), Resume::From(Position { sequence: 6, ..position }));
    let after = entries(&spool, Position { sequence: 6, ..position });
    let epoch = after[0].0.header.position.epoch;
    assert!(epoch > position.epoch);
    let numbers: Vec<u64> = after
        .iter()
        .flat_map(|(_, body)| &body.flows)
        .map(|flow| u64::from_be_bytes(flow.flow_id[..].try_into().unwrap()))
        .collect();
    assert_eq!(numbers, (7..=20).collect::<Vec<_>>());
    let losses: Vec<_> = after.iter().flat_map(|(_, body)| &body.losses).collect();
    assert_eq!(losses.len(), 1);
    assert_eq!((losses[0].what.as_str(), losses[0].count), ("batch", 1));
    let place = (losses[0].epoch, losses[0].first_sequence, losses[0].last_sequence);
    assert_eq!(place, (position.epoch, 7, 7), "the loss names the batch that is missing");
    assert_chain(&spool, &public_key);
    thread.drafts.send(draft(21)).unwrap();
    thread.stop();
    assert_chain(&spool, &public_key);
    drop(spool);
    let opened = spool::open(directory.path(), settings(), 1, spool::on_disk());
    let head = opened.unwrap().head;
    assert_eq!((head.chain.epoch, head.mark.run_records), (epoch, 21), "the new epoch holds after a restart");
}

#[test]
fn heartbeats_carry_the_account_and_nothing_else() {
    let directory = spool::scratch();
    let (key, _) = signing_key();
    let thread = start(directory.path(), &key, WhenFull::Wait, 1 << 30);
    let spool = thread.spool.clone();
    eventually("the first heartbeat is durable", || spool.durable().chain.sequence == 1);
    *thread.control.ledger.lock().unwrap() = Some(crate::samples::ledger());
    thread.stop();
    let all = entries(&spool, Position::default());
    let kinds: Vec<u8> = all.iter().map(|(entry, _)| entry.header.kind).collect();
    assert_eq!(kinds, [u8::try_from(i32::from(BatchKind::Heartbeat)).unwrap(); 2]);
    assert_eq!(all[0].1.ledger, None, "nothing was told yet");
    assert_eq!(all[1].1.ledger.as_ref().map(|ledger| ledger.packets), Some(12));
    assert!(all.iter().all(|(_, body)| body.flows.is_empty()));
}

/// A capture of UDP packets from as many hosts, at these times in milliseconds.
fn capture(path: &Path, times: &[u32]) {
    let mut bytes =
        vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0];
    for (host, time) in times.iter().enumerate() {
        let mut packet = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        packet.extend([
            0x45,
            0,
            0,
            29,
            0,
            0,
            0,
            0,
            64,
            17,
            0,
            0,
            10,
            0,
            0,
            u8::try_from(host).unwrap(),
            192,
            0,
            2,
            1,
        ]);
        packet.extend([0x30, 0x39, 0, 53, 0, 9, 0, 0, 7]);
        let length = u32::try_from(packet.len()).unwrap();
        for field in [1_700_000_000 + time / 1000, time % 1000 * 1000, length, length] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(packet);
    }
    std::fs::write(path, bytes).unwrap();
}

/// The records of a run over a capture, in their order.
fn pump(path: &Path, paced: bool, sealed_before: u64, stop: bool) -> Vec<BatchBody> {
    let (drafts, receiver) = sync_channel(1000);
    let config =
        Config { flow: FlowConfig { udp_idle_seconds: 1, ..FlowConfig::default() }, ..Config::default() };
    let limits = Limits { records: 1, bytes: 1 << 20, delay: Duration::from_secs(3600) };
    let mut pump = Pump {
        sensor: Sensor::new(config.sensor_config([1, 2, 3, sealed_before])).unwrap(),
        batcher: Batcher::new(limits, drafts, sealed_before),
        config,
        control: Arc::default(),
        sealing: SealControl::new(),
        view: Arc::default(),
        told: None,
    };
    pump.control.stop.store(stop, Ordering::SeqCst);
    let captures = CaptureSet::open(&[path.to_owned()], None);
    pump.run_files(captures, paced);
    assert_eq!(pump.view.lock().ended, !stop);
    receiver.try_iter().map(|draft| BatchBody { ledger: None, ..draft.body }).collect()
}

#[test]
fn every_run_over_a_capture_makes_the_same_records_and_a_later_one_only_those_that_are_left() {
    let directory = spool::scratch();
    let path = directory.path().join("a.pcap");
    capture(&path, &[0, 10, 20, 900, 1_300, 2_100, 2_200]);
    let all = pump(&path, false, 0, false);
    assert_eq!(all.iter().flat_map(|body| &body.flows).count(), 7);
    for sealed_before in 0..=all.len() as u64 {
        let left = pump(&path, false, sealed_before, false);
        assert_eq!(left, all[usize::try_from(sealed_before).unwrap()..]);
    }
    let begun = Instant::now();
    assert_eq!(pump(&path, true, 0, false), all, "the pace changes no record");
    assert!(begun.elapsed() >= Duration::from_millis(2_200));
}

#[test]
fn a_stop_within_a_capture_ends_no_flow() {
    let directory = spool::scratch();
    let path = directory.path().join("a.pcap");
    capture(&path, &[0, 10]);
    assert_eq!(pump(&path, false, 0, true), []);
}

#[test]
fn an_epoch_begins_with_why_and_starts_and_stops_are_told() {
    let directory = spool::scratch();
    let (key, public_key) = signing_key();
    let thread = start(directory.path(), &key, WhenFull::Wait, 1 << 30);
    let spool = thread.spool.clone();
    thread.drafts.send(draft(1)).unwrap();
    thread.control.audit("reloaded", "configuration taken over".into());
    let told = |spool: &Arc<Shared>| {
        entries(spool, Position::default())
            .iter()
            .any(|(_, body)| body.audit.iter().any(|e| e.action == "reloaded"))
    };
    eventually("it is told", || told(&spool));
    thread.stop();
    start(directory.path(), &key, WhenFull::Wait, 1 << 30).stop();
    std::fs::write(directory.path().join("state"), "rubbish").unwrap();
    start(directory.path(), &key, WhenFull::Wait, 1 << 30).stop();
    let opened = spool::open(directory.path(), settings(), 1, spool::on_disk()).unwrap();
    let spool = opened.writer.shared();
    let all = entries(spool, Position::default());
    let actions: Vec<&str> =
        all.iter().flat_map(|(_, body)| &body.audit).map(|entry| entry.action.as_str()).collect();
    let run = ["started", "stopped"];
    assert_eq!(actions, [&run[..1], &["reloaded"], &run[1..], &run, &run].concat());
    let starts: Vec<_> =
        all.iter().filter_map(|(entry, body)| Some((entry, body.epoch_start.as_ref()?))).collect();
    assert!(
        starts.iter().all(|(entry, _)| entry.header.position.sequence == 1),
        "only the first batch says so"
    );
    let told: Vec<_> =
        starts.iter().map(|(_, start)| (start.reason.as_str(), start.previous_epoch)).collect();
    assert_eq!(told, [("new", 0), ("state-lost", 1000)]);
    let (_, lost) = starts[1];
    let before = all.iter().rfind(|(entry, _)| entry.header.position.epoch == 1000).unwrap();
    assert_eq!(lost.previous_sequence, before.0.header.position.sequence);
    assert_eq!(lost.previous_hash, before.0.header.hash[..]);
    assert_chain_of_epochs(spool, &public_key);
}

/// As [`assert_chain`], without the head, which is that of the last batch.
fn assert_chain_of_epochs(spool: &Arc<Shared>, public_key: &[u8]) {
    for (entry, _) in entries(spool, Position::default()) {
        verify(&SealedBatch::decode(&entry.payload[..]).unwrap(), public_key).unwrap();
    }
}

#[test]
fn a_head_that_was_accepted_is_told_and_the_cosigned_one_given_up_over_a_restart() {
    let directory = spool::scratch();
    let (key, _) = signing_key();
    let thread = start(directory.path(), &key, WhenFull::Wait, 1 << 30);
    let spool = thread.spool.clone();
    (1..=3).for_each(|number| thread.drafts.send(draft(number)).unwrap());
    eventually("all is durable", || spool.durable().chain.sequence == 4);
    let head = spool.durable().chain;
    spool.acknowledge(head);
    let cosigned = spool::Cosigned { head, algorithm: 1, key: [1; 32], time: 2, signature: [3; 64] };
    spool.keep_cosignature(cosigned);
    let (first, _) = &entries(&spool, Position::default())[1];
    let held = ChainHead { epoch: head.epoch, sequence: 2, hash: first.header.hash };
    thread.control.accept_head(held, "the collector was set back".into()).unwrap();
    let on_disk = spool::Survey::new(directory.path(), true).unwrap().state.unwrap();
    assert_eq!((on_disk.acked, on_disk.cosigned), (held, None), "durable when the call returns");
    thread.stop();
    let opened = spool::open(directory.path(), settings(), 1, spool::on_disk()).unwrap();
    let spool = opened.writer.shared();
    assert_eq!((spool.acked(), spool.cosigned()), (held, None));
    let after = entries(spool, Position::from(&held));
    assert_eq!(after[0].0.header.position.sequence, 3, "what the collector has lost goes out again");
    let accepted: Vec<_> =
        after.iter().flat_map(|(_, body)| &body.audit).filter(|e| e.action == "head-accepted").collect();
    assert_eq!(accepted.len(), 1);
    assert_eq!(accepted[0].detail, "the collector was set back");
}

/// A wall clock that tests set.
static WALL: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);

#[test]
fn whatever_the_wall_clock_does_order_and_epochs_hold() {
    const HOUR: i64 = 3600 * 1_000_000_000;
    const NOW: i64 = 1_795_000_000_000_000_000;
    let directory = spool::scratch();
    let (key, public_key) = signing_key();
    let mut sent = 0;
    let years = 10 * 365 * 24 * HOUR;
    for (round, time) in
        [NOW, 0, NOW + years, NOW - years, NOW + HOUR, NOW - HOUR, NOW].into_iter().enumerate()
    {
        WALL.store(time, Ordering::SeqCst);
        let thread =
            start_with(directory.path(), &key, WhenFull::Wait, 1 << 30, || WALL.load(Ordering::SeqCst));
        let spool = thread.spool.clone();
        for step in [HOUR, -HOUR, years, -years] {
            sent += 1;
            thread.drafts.send(draft(sent)).unwrap();
            eventually("it is durable", || spool.durable().mark.flows == sent);
            WALL.fetch_add(step, Ordering::SeqCst);
        }
        if round % 2 == 1 {
            // The collector holds less than was sealed, and a damaged batch cannot follow: a new epoch begins.
            let before = spool.durable().chain;
            let anew = crate::ship::Anew {
                after: Position::default(),
                previous: ChainHead::default(),
                beyond_epoch: before.epoch,
                reason: "test".into(),
            };
            thread.control.seal_anew(anew).unwrap();
            assert!(
                spool.durable().chain.epoch > before.epoch,
                "a later epoch is greater, whatever the time"
            );
        }
        thread.stop();
        assert_eq!(flows(&spool), (1..=sent).collect::<Vec<_>>(), "order is that of the sequences");
        assert_chain(&spool, &public_key);
    }
}

/// What a spool has told of flows.
#[derive(Debug, Default)]
struct Told {
    held: u64,
    folded: u64,
    lost: u64,
    lost_folded: u64,
    last: Position,
}

impl Told {
    fn hear(&mut self, spool: &Arc<Shared>) {
        for (entry, body) in entries(spool, self.last) {
            self.last = entry.header.position;
            for flow in &body.flows {
                match flow.aggregate {
                    Some(many) => self.folded += many.flows,
                    None => self.held += 1,
                }
            }
            for loss in body.losses.iter().filter(|loss| loss.what == "flow") {
                let sum = if loss.reason == "aggregated" { &mut self.lost_folded } else { &mut self.lost };
                *sum += loss.count;
            }
        }
    }
}

#[test]
fn a_disk_that_fills_up_and_is_freed_again_and_again_costs_what_is_told_and_no_more() {
    let cycles = if std::env::var_os("ONENET_SOAK").is_some() { 50 } else { 3 };
    let disk = spool::memory::MemoryDisk::default();
    let settings = spool::Settings { reserve_bytes: 16 << 10, ..settings() };
    let opened = spool::open(Path::new("/spool"), settings, 1000, Arc::new(disk.clone())).unwrap();
    let (key, _) = signing_key();
    let thread = start_on(opened, &key, WhenFull::Shed, 1 << 30, super::wall_time);
    let spool = thread.spool.clone();
    let (mut sent, mut told, mut longest) = (0, Told::default(), Duration::ZERO);
    for cycle in 0..cycles {
        disk.set_capacity(Some(disk.used() + 20_000));
        let deadline = Instant::now() + Duration::from_secs(60);
        while spool.storage().reserve_bytes > 0 {
            assert!(Instant::now() < deadline, "the disk fills up");
            sent += 1;
            thread.drafts.send(draft(sent)).unwrap();
        }
        for _ in 0..20 {
            sent += 1;
            thread.drafts.send(draft(sent)).unwrap();
        }
        told.hear(&spool);
        spool.acknowledge(spool.durable().chain);
        let freed = Instant::now();
        disk.set_capacity(Some(disk.used() + 100_000));
        eventually("it goes on", || {
            sent += 1;
            thread.drafts.send(draft(sent)).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            let before = told.held;
            told.hear(&spool);
            told.held > before
        });
        longest = longest.max(freed.elapsed());
        assert!(longest < Duration::from_secs(10), "cycle {cycle}: {longest:?}");
    }
    thread.stop();
    told.hear(&spool);
    println!("{cycles} cycles, {sent} flows, longest until it goes on {longest:?}: {told:?}");
    assert_eq!(told.held + told.lost_folded + told.lost, sent, "{told:?}");
    assert_eq!(told.folded, told.lost_folded);
    assert!(told.lost > 0 && told.held > 0);
}

#[test]
fn where_there_is_room_again_detail_is_kept_again() {
    let directory = spool::scratch();
    let (key, _) = signing_key();
    let thread = start(directory.path(), &key, WhenFull::Shed, 40_000);
    let (spool, mut told, mut sent) = (thread.spool.clone(), Told::default(), 0);
    eventually("flows are folded", || {
        sent += 1;
        thread.drafts.send(draft(sent)).unwrap();
        told.hear(&spool);
        told.folded > 0
    });
    let held = told.held;
    spool.acknowledge(spool.durable().chain);
    let freed = Instant::now();
    eventually("detail is kept", || {
        sent += 1;
        thread.drafts.send(draft(sent)).unwrap();
        told.hear(&spool);
        told.held > held
    });
    assert!(freed.elapsed() < Duration::from_secs(5), "{:?}", freed.elapsed());
    thread.stop();
    told.hear(&spool);
    assert_eq!(told.held + told.lost_folded + told.lost, sent, "{told:?}");
}

#[test]
fn two_agents_with_one_history_both_deliver_all_they_have() {
    let (one, other) = (spool::scratch(), spool::scratch());
    let (key, public_key) = signing_key();
    let thread = start(one.path(), &key, WhenFull::Wait, 1 << 30);
    thread.drafts.send(draft(1)).unwrap();
    thread.stop();
    for file in std::fs::read_dir(one.path()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, other.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let original = start(one.path(), &key, WhenFull::Wait, 1 << 30);
    let clone = start(other.path(), &key, WhenFull::Wait, 1 << 30);
    original.drafts.send(draft(2)).unwrap();
    clone.drafts.send(draft(3)).unwrap();
    for (thread, flows) in [(&original, 2), (&clone, 2)] {
        eventually("it is durable", || thread.spool.durable().mark.flows == flows);
    }
    // The collector has all of the original, and then hears the clone, and then the original again.
    let mut held = original.spool.durable().chain;
    original.spool.acknowledge(held);
    for (thread, number) in [(&clone, 4), (&original, 5), (&clone, 6)] {
        let Resume::Anew(anew) = resume(&thread.spool, &held).unwrap() else { panic!("they fit {held:?}") };
        let previous = thread.spool.acked();
        thread.control.seal_anew(anew).unwrap();
        let after = thread.spool.durable().chain;
        assert!(after.epoch > held.epoch, "what is told anew is later than all that the collector has");
        let first = entries(&thread.spool, Position { epoch: held.epoch, sequence: u64::MAX });
        let start = first[0].1.epoch_start.as_ref().unwrap();
        assert_eq!((start.reason.as_str(), start.previous_epoch), ("sealed-anew", previous.epoch));
        assert_eq!(
            start.previous_sequence, previous.sequence,
            "by which the collector sees that there are two"
        );
        thread.drafts.send(draft(number)).unwrap();
        let spool = &thread.spool;
        eventually("it is durable", || flows(spool).contains(&number));
        held = thread.spool.durable().chain;
        thread.spool.acknowledge(held);
    }
    let spools = [original.spool.clone(), clone.spool.clone()];
    original.stop();
    clone.stop();
    for (spool, last) in spools.iter().zip([5, 6]) {
        assert_chain(spool, &public_key);
        assert!(flows(spool).contains(&last));
    }
}
