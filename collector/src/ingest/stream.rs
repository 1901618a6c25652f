//! One delivery: three tasks in a row, so that batches are verified while others are committed and acked, each in
//! its order. What waits between them is bounded, so that a slow disk holds back the sensor and nothing piles up.

use std::sync::Arc;

use onenet_core::net::Name;
use onenet_proto::{
    seal::{self, SealError},
    v1::{Ack, BatchHeader, PlanHeld, SealedBatch},
};
use prost::Message as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
};
use tonic::{Status, Streaming};

use super::{Issued, ack, plan, status_of, unavailable};
use crate::{
    clock,
    store::{Contents, Event, EventKind, Incoming, SensorEntry, Store, Verdict, WriterHandle},
};

/// Batches of one stream that are verified at one time.
const VERIFYING: usize = 4;

/// Batches of one stream that wait for their commit.
const COMMITTING: usize = 32;

/// Acks that wait for the network.
const ACKS: usize = 16;

/// Bytes of sealed batches that all streams together may have between the network and the commit. Decoded, a
/// batch takes some six times its sealed size.
const MEMORY: usize = 48 * 1024 * 1024;

/// Unit of the budget.
const MEMORY_UNIT: usize = 1024;

/// A budget for all streams.
pub(super) fn memory() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MEMORY / MEMORY_UNIT))
}

/// What a batch of so many bytes takes of the budget: never more than there is.
fn share(bytes: usize) -> u32 {
    let units = bytes.div_ceil(MEMORY_UNIT).clamp(1, MEMORY / MEMORY_UNIT);
    u32::try_from(units).unwrap_or(u32::MAX)
}

/// What a delivery works with.
pub(super) struct Delivery {
    pub(super) store: Store,
    pub(super) writer: WriterHandle,
    pub(super) sensor: SensorEntry,
    pub(super) plan: Issued,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) memory: Arc<Semaphore>,
    pub(super) batches: Streaming<SealedBatch>,
}

/// A batch on its way through verification, or the end of the stream with its status.
type Verifying = Result<(JoinHandle<Result<Incoming, Status>>, OwnedSemaphorePermit), Status>;

/// A batch on its way through the commit, or the end of the stream with its status.
type Committing = Result<oneshot::Receiver<Verdict>, Status>;

/// Starts a delivery; gives its acks, of which the first tells the head held.
pub(super) fn start(delivery: Delivery) -> mpsc::Receiver<Result<Ack, Status>> {
    let (acks, answer) = mpsc::channel(ACKS);
    let (verifying, verified) = mpsc::channel(VERIFYING);
    let (committing, committed) = mpsc::channel(COMMITTING);
    let Delivery { store, writer, sensor, plan, stopping, memory, batches } = delivery;
    let told = watch::Sender::new(None);
    let name = Name::clone(&sensor.name);
    let (held_by, of) = (writer.clone(), Name::clone(&sensor.name));
    // What is held has been committed, and covers every batch before: the newest there is.
    let held = move || ack(held_by.held(&of));
    let first = held();
    tokio::spawn(read(batches, store, Arc::new(sensor), memory, stopping, verifying));
    let sending = plan::Sending { sensor: Name::clone(&name), told: told.subscribe(), issued: plan };
    tokio::spawn(submit(verified, writer, committing, told));
    tokio::spawn(async move {
        if acks.send(Ok(first)).await.is_ok() {
            // Behind the first ack, which says where the sensor is to resume.
            tokio::spawn(sending.run(acks.clone(), held.clone()));
            answer_verdicts(committed, &acks, held).await;
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
    memory: Arc<Semaphore>,
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
                let share = share(batch.header.len().saturating_add(batch.body.len()));
                // The budget is never closed.
                let Ok(share) = Arc::clone(&memory).acquire_many_owned(share).await else { return };
                let (store, sensor) = (store.clone(), Arc::clone(&sensor));
                let verify = tokio::task::spawn_blocking(move || verify(&store, &sensor, batch));
                Ok((verify, share))
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
    let contents = Contents::of_batch(&verified.header, &sealed.body);
    let name = Name::clone(&sensor.name);
    Ok(Incoming { sensor: name, fingerprint: sensor.fingerprint, sealed, verified, contents })
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
    if let Err(error) = store.record_bad_seal(&event) {
        tracing::error!(sensor = %sensor.name, "the event could not be recorded: {error}");
    }
}

/// Hands verified batches to the writer in the order in which they came.
async fn submit(
    mut verified: mpsc::Receiver<Verifying>,
    writer: WriterHandle,
    committing: mpsc::Sender<Committing>,
    told: watch::Sender<Option<PlanHeld>>,
) {
    while let Some(next) = verified.recv().await {
        let incoming = match next {
            Ok((verifying, share)) => match verifying.await {
                Ok(incoming) => incoming.map(|incoming| (incoming, share)),
                Err(_) => Err(Status::internal("verification failed")),
            },
            Err(status) => Err(status),
        };
        let submitted = match incoming {
            Ok((incoming, share)) => {
                let plan =
                    incoming.contents.as_ref().ok().and_then(|contents| contents.others().plan.clone());
                told.send_if_modified(|told| {
                    *told != plan && plan.is_some() && {
                        *told = plan;
                        true
                    }
                });
                writer.submit_holding(incoming, Some(share)).await.map_err(|error| unavailable(&error))
            }
            Err(status) => Err(status),
        };
        let last = submitted.is_err();
        if committing.send(submitted).await.is_err() || last {
            return;
        }
    }
}

/// Acks what is committed, of several commits only the newest; ends with the first refusal. A sensor that does not
/// read its acks holds up nothing: heads that it has not been told of give way to newer ones.
async fn answer_verdicts(
    mut committing: mpsc::Receiver<Committing>,
    acks: &mpsc::Sender<Result<Ack, Status>>,
    held: impl Fn() -> Ack,
) {
    let mut news = false;
    let end = loop {
        let next = tokio::select! {
            next = committing.recv() => next,
            sent = send(acks, &held, &mut news), if news => if sent { continue } else { return },
        };
        let mut verdict = match next {
            Some(Ok(verdict)) => verdict,
            Some(Err(status)) => break Some(status),
            None => break None,
        };
        let verdict = loop {
            tokio::select! {
                verdict = &mut verdict => break verdict,
                sent = send(acks, &held, &mut news), if news => if !sent { return },
            }
        };
        match verdict {
            Ok(Verdict::Stored(_) | Verdict::Known(_)) => news = true,
            Ok(Verdict::Refused(refusal)) => break Some(status_of(&refusal)),
            Err(_) => break Some(Status::unavailable("the collector is stopping")),
        }
    };
    // Nothing more is taken; what was committed before the end is acked first.
    drop(committing);
    if news && !send(acks, &held, &mut news).await {
        return;
    }
    if let Some(status) = end {
        // The sensor may be gone.
        let _ = acks.send(Err(status)).await;
    }
}

/// Sends the head that is held once there is room; says whether anybody listens. Cut off before, it takes nothing.
async fn send(acks: &mpsc::Sender<Result<Ack, Status>>, held: &impl Fn() -> Ack, news: &mut bool) -> bool {
    let Ok(room) = acks.reserve().await else { return false };
    *news = false;
    room.send(Ok(held()));
    true
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use onenet_proto::seal::ChainHead;

    use super::*;

    fn stored(sequence: u64) -> Committing {
        let (answer, verdict) = oneshot::channel();
        let head = ChainHead { epoch: 1, sequence, ..ChainHead::default() };
        answer.send(Verdict::Stored(head)).expect("somebody listens");
        Ok(verdict)
    }

    #[tokio::test]
    async fn a_sensor_that_does_not_read_its_acks_holds_up_no_commit() {
        let (acks, mut told) = mpsc::channel(1);
        let (committing, committed) = mpsc::channel(2);
        let held = Arc::new(AtomicU64::new(0));
        let now = Arc::clone(&held);
        let held_now = move || Ack { sequence: now.load(Ordering::SeqCst), ..Ack::default() };
        let answering = tokio::spawn(async move { answer_verdicts(committed, &acks, held_now).await });
        for sequence in 1..=100 {
            held.store(sequence, Ordering::SeqCst);
            committing.send(stored(sequence)).await.expect("verdicts are taken");
        }
        drop(committing);
        let mut sequences = Vec::new();
        while let Some(ack) = told.recv().await {
            sequences.push(ack.expect("an ack").sequence);
        }
        assert!(sequences.is_sorted(), "{sequences:?}");
        assert_eq!(sequences.last(), Some(&100));
        assert!(sequences.len() <= 3, "what was not told gave way to newer heads: {sequences:?}");
        answering.await.expect("it ends");
    }

    #[tokio::test]
    async fn what_was_committed_before_a_refusal_is_acked_before_it() {
        let (acks, mut told) = mpsc::channel(16);
        let (committing, committed) = mpsc::channel(8);
        committing.send(stored(1)).await.expect("room");
        committing.send(stored(2)).await.expect("room");
        committing.send(Err(Status::invalid_argument("the seal"))).await.expect("room");
        committing.send(stored(3)).await.expect("room");
        answer_verdicts(committed, &acks, || Ack { sequence: 2, ..Ack::default() }).await;
        drop(acks);
        let mut answers = Vec::new();
        while let Some(answer) = told.recv().await {
            answers.push(answer.map(|ack| ack.sequence).map_err(|status| status.code()));
        }
        assert_eq!(answers.pop(), Some(Err(tonic::Code::InvalidArgument)));
        assert_eq!(answers.pop(), Some(Ok(2)));
    }

    #[test]
    fn every_batch_takes_some_of_the_budget_and_none_more_than_there_is() {
        assert_eq!((share(0), share(1), share(1025)), (1, 1, 2));
        assert_eq!(share(usize::MAX) as usize, MEMORY / MEMORY_UNIT);
    }
}
