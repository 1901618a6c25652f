//! One stream: connect, hear where the collector stands, send from there, and count acks.

use std::{
    collections::VecDeque,
    convert::Infallible,
    time::{Duration, Instant},
};

use onenet_core::time::Timestamp;
use onenet_proto::{
    cosign::verify_cosignature,
    edge_plan::MAX_ACK_BYTES,
    seal::ChainHead,
    v1::{Ack, SealedBatch, ingest_client::IngestClient},
};
use prost::Message as _;
use tokio::{sync::mpsc, sync::watch, task::spawn_blocking, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{ConnectionState, Resume, SessionEnd, Shipper, connect::connect, resume};
use crate::spool::{Cosigned, Position, Reader};

/// Batches and bytes that may be on the way at one time.
const WINDOW_BATCHES: usize = 64;
const WINDOW_BYTES: usize = 16 << 20;
/// For the collector's first answer.
const FIRST_ACK_LIMIT: Duration = Duration::from_secs(20);

/// A batch that was sent and not acked.
struct Sent {
    head: ChainHead,
    bytes: usize,
}

/// One stream.
pub(super) struct Session<'a> {
    shipper: &'a Shipper,
    sent: VecDeque<Sent>,
    sent_bytes: usize,
    last_ack: Instant,
    progressed: bool,
    heard: bool,
}

/// The open stream.
struct Stream {
    batches: mpsc::Sender<SealedBatch>,
    acks: Streaming<Ack>,
    reader: Reader,
    durable: watch::Receiver<Position>,
}

fn head_of(ack: &Ack) -> Result<ChainHead, SessionEnd> {
    let hash = if ack.sequence == 0 { Some([0; 32]) } else { ack.hash[..].try_into().ok() };
    let hash = hash.ok_or_else(|| SessionEnd::Transient("the collector's ack has no hash".to_owned()))?;
    Ok(ChainHead { epoch: ack.epoch, sequence: ack.sequence, hash })
}

impl<'a> Session<'a> {
    pub(super) fn new(shipper: &'a Shipper) -> Self {
        Self {
            shipper,
            sent: VecDeque::new(),
            sent_bytes: 0,
            last_ack: Instant::now(),
            progressed: false,
            heard: false,
        }
    }

    /// Whether anything was acked.
    pub(super) const fn progressed(&self) -> bool {
        self.progressed
    }

    /// Whether the collector said which head it holds.
    pub(super) const fn heard(&self) -> bool {
        self.heard
    }

    /// Runs until the stream ends, which is always for a reason.
    pub(super) async fn run(&mut self) -> Result<Infallible, SessionEnd> {
        let mut stream = Box::pin(self.open()).await?;
        self.shipper.connection.change(|state| {
            *state = ConnectionState {
                connected: true,
                sessions: state.sessions.saturating_add(1),
                ..ConnectionState::default()
            };
        });
        tracing::info!("connected to {}", self.shipper.target.endpoint);
        loop {
            self.fill_window(&mut stream).await?;
            self.shipper.connection.change(|state| state.in_flight = self.sent.len() as u64);
            let limit = self.shipper.ack_limit.saturating_sub(self.last_ack.elapsed());
            let window_open = self.window_open();
            tokio::select! {
                ack = stream.acks.message() => {
                    let ended = || SessionEnd::Transient("the collector ended the stream".to_owned());
                    let ack = ack?.ok_or_else(ended)?;
                    self.take(ack).await?;
                }
                changed = stream.durable.changed(), if window_open => {
                    changed.map_err(|_| SessionEnd::Transient("the spool was closed".to_owned()))?;
                }
                () = tokio::time::sleep(limit), if !self.sent.is_empty() => {
                    let seconds = self.shipper.ack_limit.as_secs();
                    return Err(SessionEnd::Transient(format!("no ack for {seconds} s")));
                }
            }
        }
    }

    async fn open(&mut self) -> Result<Stream, SessionEnd> {
        let channel =
            connect(&self.shipper.target).await.map_err(|error| SessionEnd::Transient(error.to_string()))?;
        let (batches, stream) = mpsc::channel(2);
        let mut client = IngestClient::new(channel).max_decoding_message_size(MAX_ACK_BYTES);
        let silent = |_| SessionEnd::Transient("the collector does not answer".to_owned());
        let opened = client.deliver(ReceiverStream::new(stream));
        let mut acks = timeout(FIRST_ACK_LIMIT, opened).await.map_err(silent)??.into_inner();
        let first = timeout(FIRST_ACK_LIMIT, acks.message()).await.map_err(silent)??;
        let first =
            first.ok_or_else(|| SessionEnd::Transient("the collector ended the stream".to_owned()))?;
        let collector = self.verified(&first)?;
        self.heard = true;
        self.check_not_set_back(&collector).await?;
        let after = self.agree(&collector).await?;
        let spool = self.shipper.spool.clone();
        let mut reader = Reader::new(spool.clone());
        reader.seek(after);
        spool.acknowledge(collector);
        let mut durable = spool.watch_durable();
        durable.mark_changed();
        self.last_ack = Instant::now();
        Ok(Stream { batches, acks, reader, durable })
    }

    /// The head that an ack is for, once its cosignature has been found to hold, and is kept.
    fn verified(&self, ack: &Ack) -> Result<ChainHead, SessionEnd> {
        let head = head_of(ack)?;
        let Some(cosignature) = ack.cosignature.as_ref().filter(|_| head.sequence > 0) else {
            return Ok(head);
        };
        let known = self.shipper.spool.cosigned();
        let key = match (&self.shipper.cosign_key, &known) {
            (Some(enrolled), _) => &enrolled[..],
            (None, Some(known)) => &known.key[..],
            (None, None) => &cosignature.key[..],
        };
        let forged = |why: &dyn std::fmt::Display| SessionEnd::Untrusted {
            message: format!(
                "the collector's cosignature of batch {} of epoch {} does not hold: {why}; no ack of it is taken. If \
                 the collector has another key now, enroll this sensor anew",
                head.sequence, head.epoch
            ),
            set_back: false,
        };
        verify_cosignature(cosignature, key, &self.shipper.sensor, &head).map_err(|error| forged(&error))?;
        let cosigned = Cosigned::new(head, cosignature).ok_or_else(|| forged(&"its key has not 32 bytes"))?;
        // A head that goes back is judged by whoever hears it; the older cosignature is not kept.
        self.shipper.spool.keep_cosignature(cosigned);
        Ok(head)
    }

    /// Refuses a collector that holds less than it has cosigned, unless an operator has accepted that.
    async fn check_not_set_back(&self, collector: &ChainHead) -> Result<(), SessionEnd> {
        let Some(cosigned) = self.shipper.spool.cosigned() else { return Ok(()) };
        let (held, signed) = (Position::from(collector), Position::from(&cosigned.head));
        if held > signed || *collector == cosigned.head {
            return Ok(());
        }
        let message = set_back_message(collector, &cosigned);
        if !self.shipper.acceptance.covers(&cosigned.head) {
            let message = format!(
                "{message}; nothing is sent until an operator accepts that: `onenet-agent spool accept-head`"
            );
            return Err(SessionEnd::Untrusted { message, set_back: true });
        }
        let (accept_head, collector) = (self.shipper.accept_head.clone(), *collector);
        joined(spawn_blocking(move || accept_head(collector, message)).await)?
            .map_err(SessionEnd::Transient)?;
        self.shipper.acceptance.remove();
        Ok(())
    }

    /// Finds where to go on, after sealing anew where nothing follows what the collector holds.
    async fn agree(&self, collector: &ChainHead) -> Result<Position, SessionEnd> {
        let (spool, collector) = (self.shipper.spool.clone(), *collector);
        let ask = || {
            let spool = spool.clone();
            async move { joined(spawn_blocking(move || resume(&spool, &collector)).await) }
        };
        let anew = match ask().await?? {
            Resume::From(after) => return Ok(after),
            Resume::Anew(anew) => anew,
        };
        tracing::error!("{}: sealing anew what is not committed, in a new epoch", anew.reason);
        let seal_anew = self.shipper.seal_anew.clone();
        joined(spawn_blocking(move || seal_anew(anew)).await)?.map_err(SessionEnd::Transient)?;
        match ask().await?? {
            Resume::From(after) => Ok(after),
            Resume::Anew(anew) => Err(SessionEnd::Transient(anew.reason)),
        }
    }

    fn window_open(&self) -> bool {
        self.sent.len() < WINDOW_BATCHES && self.sent_bytes < WINDOW_BYTES
    }

    /// Sends as much as the window and the stream take.
    async fn fill_window(&mut self, stream: &mut Stream) -> Result<(), SessionEnd> {
        while self.window_open() {
            // Acks come first: a stream that does not take more may be waiting for us to read them.
            let Ok(permit) = stream.batches.try_reserve() else {
                if stream.batches.is_closed() {
                    return Ok(());
                }
                tokio::select! {
                    _ = stream.batches.reserve() => continue,
                    ack = stream.acks.message() => {
                        let ended = || SessionEnd::Transient("the collector ended the stream".to_owned());
                        let ack = ack?.ok_or_else(ended)?;
                        self.take(ack).await?;
                        continue;
                    }
                    () = tokio::time::sleep(self.shipper.ack_limit) => {
                        return Err(SessionEnd::Transient("the collector takes nothing".to_owned()));
                    }
                }
            };
            stream.durable.mark_unchanged();
            let mut reader = std::mem::replace(&mut stream.reader, Reader::new(self.shipper.spool.clone()));
            let (reader, entry) = joined(
                spawn_blocking(move || {
                    let entry = reader.next();
                    (reader, entry)
                })
                .await,
            )?;
            stream.reader = reader;
            let Some(entry) = entry? else { return Ok(()) };
            let batch = SealedBatch::decode(&entry.payload[..]).map_err(|error| {
                SessionEnd::Transient(format!("a batch in the spool does not parse: {error}"))
            })?;
            let position = entry.header.position;
            let expected = self.sent.back().map(|sent| Position::from(&sent.head));
            if let Some(last) = expected
                && position.epoch == last.epoch
                && position.sequence != last.sequence + 1
            {
                // Damage in between: go on once the collector has said where it stands.
                return Err(SessionEnd::Transient(format!("batch {} is missing", last.sequence + 1)));
            }
            let head =
                ChainHead { epoch: position.epoch, sequence: position.sequence, hash: entry.header.hash };
            if self.sent.is_empty() {
                self.last_ack = Instant::now();
            }
            self.sent.push_back(Sent { head, bytes: entry.payload.len() });
            self.sent_bytes += entry.payload.len();
            permit.send(batch);
        }
        Ok(())
    }

    /// Takes what came: the head, and behind it the plan, if there is one. A plan that is refused ends no stream.
    async fn take(&mut self, ack: Ack) -> Result<(), SessionEnd> {
        self.take_ack(&self.verified(&ack)?)?;
        if let Some(plan) = ack.plan {
            let plans = self.shipper.plans.clone();
            joined(spawn_blocking(move || plans.receive(&plan)).await)?;
        }
        Ok(())
    }

    /// Counts an ack. It covers everything up to its batch, whose hash must be ours. Acks may come late, again or out of
    /// order: one that covers nothing new changes nothing.
    fn take_ack(&mut self, acked: &ChainHead) -> Result<(), SessionEnd> {
        let position = Position::from(acked);
        if position <= Position::from(&self.shipper.spool.acked()) {
            return Ok(());
        }
        if !self.sent.iter().any(|sent| Position::from(&sent.head) == position) {
            let message = format!("the collector acked batch {}, which was not sent", position.sequence);
            return Err(SessionEnd::Transient(message));
        }
        while let Some(first) = self.sent.front().filter(|sent| Position::from(&sent.head) <= position) {
            if Position::from(&first.head) == position && first.head.hash != acked.hash {
                let message = format!("the collector acked another batch {}", position.sequence);
                return Err(SessionEnd::Transient(message));
            }
            self.sent_bytes = self.sent_bytes.saturating_sub(first.bytes);
            self.progressed = true;
            self.last_ack = Instant::now();
            self.sent.pop_front();
        }
        self.shipper.spool.acknowledge(*acked);
        Ok(())
    }
}

/// What is wrong with a head behind the one that was cosigned, or beside it.
fn set_back_message(collector: &ChainHead, cosigned: &Cosigned) -> String {
    let (held, signed) = (collector, &cosigned.head);
    let time = Timestamp(cosigned.time);
    if (held.epoch, held.sequence) == (signed.epoch, signed.sequence) {
        return format!(
            "the collector holds another batch {} of epoch {} than the one it signed for at {time}: its history was \
             changed",
            held.sequence, held.epoch
        );
    }
    let batch = |head: &ChainHead| {
        if head.sequence == 0 { "no batch".to_owned() } else { format!("batch {}", head.sequence) }
    };
    let epochs = if held.epoch == signed.epoch || held.sequence == 0 {
        String::new()
    } else {
        format!(" (epoch {}, and of epoch {} signed)", held.epoch, signed.epoch)
    };
    format!(
        "the collector holds {}, but signed for {} at {time}{epochs}: it was set back",
        batch(held),
        batch(signed)
    )
}

fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, SessionEnd> {
    result.map_err(|error| SessionEnd::Transient(format!("a task ended: {error}")))
}
