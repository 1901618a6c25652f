//! Acks that are dropped, delayed, overtaken and repeated, batches that come twice, streams that end in between: all by
//! a relay between sensor and collector that holds the keys of both.

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use onenet_proto::v1::{Ack, SealedBatch, ingest_client::IngestClient, ingest_server::Ingest};
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    harness::Lab,
    kit::{Case, QUICK, Sensor, ms, seed, size},
    oracle,
    wire::{as_collector, as_sensor, connect, runtime, serve},
};

/// What the relay has done.
#[derive(Debug, Default)]
struct Done {
    acks: AtomicU64,
    dropped: AtomicU64,
    delayed: AtomicU64,
    repeated: AtomicU64,
    batches_twice: AtomicU64,
    streams_cut: AtomicU64,
}

/// The relay.
#[derive(Clone)]
struct Relay {
    collector: SocketAddr,
    tls: Arc<ClientConfig>,
    chance: Arc<Mutex<fastrand::Rng>>,
    done: Arc<Done>,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Relay {
    /// A number from 0 to 99.
    fn percent(&self) -> u8 {
        self.chance.lock().expect("no test failed in here").u8(0..100)
    }

    /// True once in so many times.
    fn once_in(&self, times: u32) -> bool {
        self.chance.lock().expect("no test failed in here").u32(0..times) == 0
    }

    /// Passes batches on, some of them twice; now and then the stream ends instead.
    async fn there(self, mut batches: Streaming<SealedBatch>, onward: mpsc::Sender<SealedBatch>) {
        while let Ok(Some(batch)) = batches.message().await {
            if self.once_in(150) {
                count(&self.done.streams_cut);
                return;
            }
            if self.percent() < 3 {
                count(&self.done.batches_twice);
                if onward.send(batch.clone()).await.is_err() {
                    return;
                }
            }
            if onward.send(batch).await.is_err() {
                return;
            }
        }
    }

    /// Passes acks on, as badly as it can.
    async fn back(self, mut acks: Streaming<Ack>, onward: mpsc::Sender<Result<Ack, Status>>) {
        let mut first = true;
        loop {
            let ack = match acks.message().await {
                Ok(Some(ack)) => ack,
                Ok(None) => return,
                Err(status) => {
                    let _ = onward.send(Err(status)).await;
                    return;
                }
            };
            // The first one answers the stream; without it there is none.
            if std::mem::take(&mut first) {
                if onward.send(Ok(ack)).await.is_err() {
                    return;
                }
                continue;
            }
            count(&self.done.acks);
            match self.percent() {
                0..35 => count(&self.done.dropped),
                35..60 => {
                    count(&self.done.delayed);
                    let (onward, wait) = (onward.clone(), ms(u64::from(self.percent())));
                    tokio::spawn(async move {
                        tokio::time::sleep(wait).await;
                        let _ = onward.send(Ok(ack)).await;
                    });
                }
                60..80 => {
                    count(&self.done.repeated);
                    let _ = onward.send(Ok(ack.clone())).await;
                    let _ = onward.send(Ok(ack)).await;
                }
                _ => drop(onward.send(Ok(ack)).await),
            }
        }
    }
}

#[tonic::async_trait]
impl Ingest for Relay {
    type DeliverStream = Pin<Box<dyn Stream<Item = Result<Ack, Status>> + Send>>;

    async fn deliver(
        &self,
        request: Request<Streaming<SealedBatch>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let unavailable = |error: std::io::Error| Status::unavailable(error.to_string());
        let channel = connect(self.collector, self.tls.clone()).await.map_err(unavailable)?;
        let (onward, batches) = mpsc::channel(64);
        let acks = IngestClient::new(channel).deliver(ReceiverStream::new(batches)).await?.into_inner();
        let (answer, answers) = mpsc::channel(64);
        let (there, back) = (self.clone(), self.clone());
        tokio::spawn(async move {
            // Whichever ends first ends the stream.
            tokio::select! {
                () = there.there(request.into_inner(), onward) => {}
                () = back.back(acks, answer) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

#[test]
fn acks_that_are_dropped_delayed_overtaken_and_repeated_lose_and_double_nothing() {
    let flows = size(20_000, 1_000_000);
    let case = Case::begin("acks dropped, delayed, overtaken, repeated", 1);
    let mut lab = Lab::new(None, "");
    lab.start();
    let runtime = runtime();
    let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port");
    let via = listener.local_addr().expect("an address");
    let sensor = Sensor::enrol(&lab, "boston-1", seed(), QUICK, Some(via));
    let relay = Relay {
        collector: lab.ingest,
        tls: as_sensor(&sensor),
        chance: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed()))),
        done: Arc::default(),
    };
    let done = Arc::clone(&relay.done);
    runtime.spawn(serve(listener, as_collector(&lab), relay));
    sensor.finish(flows);
    runtime.shutdown_background();
    lab.collector.as_mut().expect("it runs").stop();
    let account = oracle::settle(&lab, &sensor, flows);
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    for counter in [&done.dropped, &done.delayed, &done.repeated, &done.batches_twice, &done.streams_cut] {
        assert!(of(counter) > 0, "the relay did not do all it is for: {done:?}");
    }
    let more = format!(
        "of {} acks {} dropped, {} delayed, {} repeated; {} batches sent twice, {} streams cut",
        of(&done.acks),
        of(&done.dropped),
        of(&done.delayed),
        of(&done.repeated),
        of(&done.batches_twice),
        of(&done.streams_cut)
    );
    case.end(&account, &more);
}
