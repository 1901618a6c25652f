//! Ingest: sealed batches in over gRPC, cumulative acks out once they are on the disk.
//!
//! How a stream ends early, by its gRPC status:
//!
//! | status | why | what the sensor does |
//! |---|---|---|
//! | `UNAUTHENTICATED` | no client certificate, or one of no sensor enrolled here | stop; enrol |
//! | `PERMISSION_DENIED` | revoked, or a header that names another sensor | stop; an operator must act |
//! | `OUT_OF_RANGE` | gap: the message names the expected sequence | connect again, resume from the first ack |
//! | `FAILED_PRECONDITION` | fork or rollback: the chain contradicts what is held here | stop; an operator must act |
//! | `INVALID_ARGUMENT` | the seal does not hold | stop; an operator must act |
//! | `UNAVAILABLE` | stopping, or the disk is full | connect again later |

mod plan;
mod stream;
#[cfg(test)]
mod tests;

use std::{pin::Pin, sync::Arc};

use onenet_proto::{
    seal::{ChainHead, MAX_BATCH_BYTES},
    v1::{Ack, Cosignature, SealedBatch, SignedPlan, ingest_server::Ingest},
};
use tokio::sync::{Semaphore, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    store::{Refusal, SensorState, Store, StoreError, WriterHandle},
    tls::Peer,
};

/// The latest version of the plan that sensors are sent; none where there is none to send.
type Issued = watch::Receiver<Option<Arc<SignedPlan>>>;

/// Largest message: a batch at its limit, its signature and the framing of its fields.
pub const MAX_MESSAGE_BYTES: usize = MAX_BATCH_BYTES + 64 * 1024;

/// The service that sensors deliver to.
#[derive(Debug)]
pub struct IngestService {
    store: Store,
    writer: WriterHandle,
    plan: Issued,
    stopping: watch::Receiver<bool>,
    memory: Arc<Semaphore>,
}

impl IngestService {
    /// Serves deliveries into `store`, and sends the plan that is issued to sensors that hold an earlier one. Streams
    /// end once `stopping` is true, after what they have read is committed.
    pub fn new(
        store: Store,
        writer: WriterHandle,
        plan: watch::Receiver<Option<Arc<SignedPlan>>>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self { store, writer, plan, stopping, memory: stream::memory() }
    }
}

#[tonic::async_trait]
impl Ingest for IngestService {
    type DeliverStream = Pin<Box<dyn Stream<Item = Result<Ack, Status>> + Send>>;

    async fn deliver(
        &self,
        request: Request<Streaming<SealedBatch>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let fingerprint = peer
            .as_ref()
            .and_then(|peer| peer.fingerprint)
            .ok_or_else(|| Status::unauthenticated("no client certificate; enrol this sensor first"))?;
        let found = self.store.call(move |store| store.sensor_by_fingerprint(&fingerprint)).await;
        let sensor = found
            .map_err(|error| unavailable(&error))?
            .ok_or_else(|| Status::unauthenticated("this certificate belongs to no sensor enrolled here"))?;
        if sensor.state == SensorState::Revoked {
            tracing::warn!(sensor = %sensor.name, "a revoked sensor asks to deliver");
            return Err(Status::permission_denied(format!("sensor {} is revoked", sensor.name)));
        }
        let address = peer.map(|peer| peer.address.to_string()).unwrap_or_default();
        tracing::info!(sensor = %sensor.name, address, "delivery begins");
        let acks = stream::start(stream::Delivery {
            store: self.store.clone(),
            writer: self.writer.clone(),
            sensor,
            plan: self.plan.clone(),
            stopping: self.stopping.clone(),
            memory: Arc::clone(&self.memory),
            batches: request.into_inner(),
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(acks))))
    }
}

fn unavailable(error: &StoreError) -> Status {
    Status::unavailable(error.to_string())
}

fn ack((head, cosignature): (ChainHead, Option<Cosignature>)) -> Ack {
    Ack {
        epoch: head.epoch,
        sequence: head.sequence,
        hash: head.hash.to_vec().into(),
        cosignature,
        plan: None,
    }
}

fn status_of(refusal: &Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        Refusal::NotAllowed => Status::permission_denied(message),
        Refusal::Gap { .. } => Status::out_of_range(message),
        Refusal::Fork { .. } | Refusal::Rollback { .. } => Status::failed_precondition(message),
        Refusal::NotStored(_) => Status::unavailable(message),
    }
}
