//! One delivery: three tasks in a row, so that batches are verified while others are committed and acked, each in
//! its order. What waits between them is bounded, so that a slow disk holds back the sensor and nothing piles up.

use std::sync::Arc;

use onenet_core::net::Name;
use onenet_proto::{
    seal::{self, ChainHead, SealError},
    v1::{Ack, BatchHeader, SealedBatch},
};
use prost::Message as _;
use tokio::{
    sync::{
        mpsc,
        oneshot::{self, error::TryRecvError},
        watch,
    },
    task::JoinHandle,
};
use tonic::{Status, Streaming};

use super::{ack, status_of, unavailable};
use crate::{
    clock,
    store::{Event, EventKind, Incoming, Records, SensorEntry, Store, Verdict, WriterHandle},
};

/// Batches of one stream that are verified at one time.
const VERIFYING: usize = 4;

/// Batches of one stream that wait for their commit.
const COMMITTING: usize = 32;

/// Acks that wait for the network.
const ACKS: usize = 16;

/// What a delivery works with.
pub(super) struct Delivery {
    pub(super) store: Store,
    pub(super) writer: WriterHandle,
    pub(super) sensor: SensorEntry,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) batches: Streaming<SealedBatch>,
}

/// A batch on its way through verification, or the end of the stream with its status.
type Verifying = Result<JoinHandle<Result<Incoming, Status>>, Status>;

/// A batch on its way through the commit, or the end of the stream with its status.
type Committing = Result<oneshot::Receiver<Verdict>, Status>;

/// Starts a delivery; gives its acks, of which the first tells the head held.
pub(super) fn start(delivery: Delivery) -> mpsc::Receiver<Result<Ack, Status>> {
    let (acks, answer) = mpsc::channel(ACKS);
    let (verifying, verified) = mpsc::channel(VERIFYING);
    let (committing, committed) = mpsc::channel(COMMITTING);
    let Delivery { store, writer, sensor, stopping, batches } = delivery;
    let head = writer.head(&sensor.name);
    let name = Name::clone(&sensor.name);
    tokio::spawn(read(batches, store, Arc::new(sensor), stopping, verifying));
    tokio::spawn(submit(verified, writer, committing));
    tokio::spawn(async move {
        if acks.send(Ok(ack(&head))).await.is_ok() {
            answer_verdicts(committed, &acks).await;
        }
        tracing::info!(sensor = %name, "delivery ends");
    });
    answer
}

/// Reads batches and has each verified on a blocking thread.
async fn read(
    mut batches: Streaming<SealedBatch>,
    store: Store,
    sensor: Arc<SensorEntry>,
    mut stopping: watch::Receiver<bool>,
    verifying: mpsc::Sender<Verifying>,
) {
    loop {
        let message = tokio::select! {
            message = batches.message() => message,
            () = verifying.closed() => return,
            () = async { drop(stopping.wait_for(|stopping| *stopping).await) } => {
                let _ = verifying.send(Err(Status::unavailable("the collector is stopping"))).await;
                return;
            }
        };
        let next = match message {
            Ok(Some(batch)) => {
                let (store, sensor) = (store.clone(), Arc::clone(&sensor));
                Ok(tokio::task::spawn_blocking(move || verify(&store, &sensor, batch)))
            }
            Ok(None) => return,
            Err(status) => {
                tracing::debug!(sensor = %sensor.name, "the stream broke: {status}");
                Err(status)
            }
        };
        let last = next.is_err();
        if verifying.send(next).await.is_err() || last {
            return;
        }
    }
}

/// Checks the seal and decodes the body. It blocks.
fn verify(store: &Store, sensor: &SensorEntry, sealed: SealedBatch) -> Result<Incoming, Status> {
    let verified = match seal::verify(&sealed, &sensor.signing_key) {
        Ok(verified) => verified,
        Err(error) => {
            tracing::warn!(sensor = %sensor.name, "{error}");
            record_bad_seal(store, sensor, &sealed, &error);
            return Err(Status::invalid_argument(error.to_string()));
        }
    };
    if *verified.header.sensor != *sensor.name {
        let message = format!(
            "the batch is of sensor {:?}, the certificate of {}",
            verified.header.sensor, sensor.name
        );
        tracing::warn!(sensor = %sensor.name, "{message}");
        return Err(Status::permission_denied(message));
    }
    let records = Records::decode(sealed.body.clone()).and_then(|records| {
        let (held, stated) = (records.count(), verified.header.records as usize);
        let differs = || format!("the header states {stated} records, the body holds {held}");
        if held == stated { Ok(records) } else { Err(differs()) }
    });
    let name = Name::clone(&sensor.name);
    Ok(Incoming { sensor: name, fingerprint: sensor.fingerprint, sealed, verified, records })
}

/// Records a seal that does not hold, once for each batch however often it comes.
fn record_bad_seal(store: &Store, sensor: &SensorEntry, sealed: &SealedBatch, error: &SealError) {
    // Nothing vouches for these numbers; they only keep one batch to one event.
    let claimed = BatchHeader::decode(&sealed.header[..]).unwrap_or_default();
    let hash = seal::hash(&sealed.header, &sealed.body);
    let event = Event {
        time: clock::now(),
        kind: EventKind::BadSeal,
        sensor: sensor.name.to_string(),
        batch: Some((claimed.epoch, claimed.sequence.max(1), hash)),
        message: error.to_string(),
    };
    if let Err(error) = store.record_event(&event) {
        tracing::error!(sensor = %sensor.name, "the event could not be recorded: {error}");
    }
}

/// Hands verified batches to the writer in the order in which they came.
async fn submit(
    mut verified: mpsc::Receiver<Verifying>,
    writer: WriterHandle,
    committing: mpsc::Sender<Committing>,
) {
    while let Some(next) = verified.recv().await {
        let incoming = match next {
            Ok(verifying) => verifying.await.unwrap_or_else(|_| Err(Status::internal("verification failed"))),
            Err(status) => Err(status),
        };
        let submitted = match incoming {
            Ok(incoming) => writer.submit(incoming).await.map_err(|error| unavailable(&error)),
            Err(status) => Err(status),
        };
        let last = submitted.is_err();
        if committing.send(submitted).await.is_err() || last {
            return;
        }
    }
}

/// Acks what is committed, of several commits only the newest; ends with the first refusal.
async fn answer_verdicts(
    mut committing: mpsc::Receiver<Committing>,
    acks: &mpsc::Sender<Result<Ack, Status>>,
) {
    let mut newest = Acker { acks, head: None };
    loop {
        let next = match committing.try_recv() {
            Ok(next) => Some(next),
            Err(_) => {
                newest.send().await;
                committing.recv().await
            }
        };
        let Some(next) = next else { return newest.send().await };
        let verdict = match next {
            Ok(verdict) => newest.wait_for(verdict).await,
            Err(status) => Err(status),
        };
        let end = match verdict {
            Ok(Verdict::Stored(head) | Verdict::Known(head)) => {
                newest.head = Some(head);
                continue;
            }
            Ok(Verdict::Refused(refusal)) => status_of(&refusal),
            Err(status) => status,
        };
        // What was committed before the refusal is acked first.
        newest.send().await;
        // The sensor may be gone.
        let _ = acks.send(Err(end)).await;
        return;
    }
}

/// The newest head that is not acked yet.
struct Acker<'a> {
    acks: &'a mpsc::Sender<Result<Ack, Status>>,
    head: Option<ChainHead>,
}

impl Acker<'_> {
    async fn send(&mut self) {
        if let Some(head) = self.head.take() {
            // Where the sensor is gone, commits go on all the same; it learns of them from the next first ack.
            let _ = self.acks.send(Ok(ack(&head))).await;
        }
    }

    /// Waits for a verdict, and does not let an ack wait with it.
    async fn wait_for(&mut self, mut verdict: oneshot::Receiver<Verdict>) -> Result<Verdict, Status> {
        let stopping = || Status::unavailable("the collector is stopping");
        match verdict.try_recv() {
            Err(TryRecvError::Empty) => {}
            ready => return ready.map_err(|_| stopping()),
        }
        self.send().await;
        verdict.await.map_err(|_| stopping())
    }
}
