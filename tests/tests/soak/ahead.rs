//! An ack is a promise: what it covers is committed. The collector is killed while it commits; no ack that got out may be
//! ahead of what its files then hold. (An agent would hide it: it keeps what is acked for a while and sends it again.)

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use nix::sys::signal::Signal;
use onenet_proto::{
    seal::{ChainHead, Sealer, SigningKey},
    v1::{SealedBatch, ingest_client::IngestClient},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::{
    harness::Lab,
    hostile::seal,
    kit::{Case, QUICK, Sensor, ms, seed, size, until, until_written},
    oracle,
    wire::{as_sensor, connect, runtime, signing_key},
};

/// Batches in one round at most; the kill comes long before.
const ROUND: u64 = 100_000;

/// Delivers from where the collector stands until it is gone; tells every head by its sequence.
async fn deliver(
    channel: Channel,
    mut sealer: impl FnMut(ChainHead) -> Sealer,
    flows: u64,
    heads: &BTreeMap<u64, ChainHead>,
    acked: &AtomicU64,
) -> BTreeMap<u64, ChainHead> {
    let (batches, stream) = mpsc::channel::<SealedBatch>(16);
    let mut heads = heads.clone();
    let Ok(answer) = IngestClient::new(channel).deliver(ReceiverStream::new(stream)).await else {
        return heads;
    };
    let mut acks = answer.into_inner();
    let Ok(Some(first)) = acks.message().await else { return heads };
    let mut sealer = sealer(heads[&first.sequence]);
    let sending = async {
        for number in first.sequence..first.sequence + ROUND {
            let batch = seal(&mut sealer, flows, number);
            heads.insert(number + 1, sealer.head());
            if batches.send(batch).await.is_err() {
                return;
            }
        }
    };
    let hearing = async {
        while let Ok(Some(ack)) = acks.message().await {
            acked.fetch_max(ack.sequence, Ordering::SeqCst);
        }
    };
    tokio::join!(sending, hearing);
    heads
}

#[test]
fn no_ack_is_ahead_of_what_a_killed_collector_has_stored() {
    let mut case = Case::begin("no ack ahead of the store", size(40, 1000));
    let mut lab = Lab::new(None, "");
    lab.start();
    let sensor = Sensor::enrol(&lab, "boston-1", seed(), QUICK, None);
    let (key, tls) = (signing_key(&sensor), as_sensor(&sensor));
    let segments = lab.collector_dir().join("data").join("segments");
    let runtime = runtime();
    let begin = ChainHead { epoch: 7, ..ChainHead::default() };
    let mut heads = BTreeMap::from([(0, begin)]);
    let (mut in_commit, mut last) = (0_u64, 0);
    for round in 0..case.rounds {
        let began = Instant::now();
        let channel = until("the collector", || runtime.block_on(connect(lab.ingest, tls.clone())).ok());
        let acked = Arc::new(AtomicU64::new(0));
        let (of_task, known, flows) = (Arc::clone(&acked), heads.clone(), sensor.seed);
        let key = key.clone();
        let delivering = runtime.spawn(async move {
            let sealer = |head| {
                let key = SigningKey::from_pkcs8(&key).expect("a key");
                Sealer::new(key, "boston-1".to_owned(), head)
            };
            deliver(channel, sealer, flows, &known, &of_task).await
        });
        until("an ack", || (acked.load(Ordering::SeqCst) > last).then_some(()));
        case.resumed(began.elapsed());
        std::thread::sleep(ms(case.chance.u64(0..30)));
        if case.chance.bool() {
            in_commit += u64::from(until_written(&segments));
        } else {
            // Nothing can be committed while somebody else holds the store, so nothing more may be acked.
            let (held, stored) = oracle::hold(&lab, "boston-1");
            std::thread::sleep(ms(700));
            let acked = acked.load(Ordering::SeqCst);
            assert!(stored >= acked, "round {round}: acked up to {acked}, committed up to {stored}");
            lab.collector.as_mut().expect("it runs").signal(Signal::SIGKILL);
            drop(held);
        }
        lab.collector.as_mut().expect("it runs").kill();
        heads = runtime.block_on(delivering).expect("it ends");
        let (acked, stored) = (acked.load(Ordering::SeqCst), oracle::last_sequence(&lab, "boston-1"));
        assert!(stored >= acked, "round {round}: acked up to {acked}, stored up to {stored}");
        last = stored;
        // What went further than the store is sealed once more, to the same bytes.
        heads.retain(|&sequence, _| sequence <= stored);
        lab.launch();
    }
    until("the collector's API", || lab.try_get("/api/v1/health"));
    lab.collector.as_mut().expect("it runs").stop();
    let account = oracle::settle(&lab, &sensor, last);
    let more =
        format!("{in_commit} of them as its store was written, the others as it waited for its commit");
    case.end(&account, &more);
}
