//! One stream: connect, hear where the collector stands, send from there, and count acks.

use std::{
    collections::VecDeque,
    convert::Infallible,
    time::{Duration, Instant},
};

use onenet_proto::{
    seal::ChainHead,
    v1::{Ack, SealedBatch, ingest_client::IngestClient},
};
use prost::Message as _;
use tokio::{sync::mpsc, sync::watch, task::spawn_blocking, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Resume, SessionEnd, Shipper, connect::connect, resume};
use crate::spool::{Position, Reader};

/// Batches and bytes that may be on the way at one time.
const WINDOW_BATCHES: usize = 64;
const WINDOW_BYTES: usize = 16 << 20;
/// For the collector's first answer.
const FIRST_ACK_LIMIT: Duration = Duration::from_secs(20);
/// For the next ack while batches are on the way: a collector that commits nothing for so long is as good as gone.
const ACK_LIMIT: Duration = Duration::from_secs(60);

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
        Self { shipper, sent: VecDeque::new(), sent_bytes: 0, last_ack: Instant::now(), progressed: false }
    }

    /// Whether anything was acked.
    pub(super) const fn progressed(&self) -> bool {
        self.progressed
    }

    /// Runs until the stream ends, which is always for a reason.
    pub(super) async fn run(&mut self) -> Result<Infallible, SessionEnd> {
        let mut stream = Box::pin(self.open()).await?;
        self.shipper.connection.change(|state| {
            state.connected = true;
            state.sessions += 1;
            state.last_error = None;
        });
        tracing::info!("connected to {}", self.shipper.target.endpoint);
        loop {
            self.fill_window(&mut stream).await?;
            self.shipper.connection.change(|state| state.in_flight = self.sent.len() as u64);
            let limit = ACK_LIMIT.saturating_sub(self.last_ack.elapsed());
            let window_open = self.window_open();
            tokio::select! {
                ack = stream.acks.message() => {
                    let ended = || SessionEnd::Transient("the collector ended the stream".to_owned());
                    let ack = ack?.ok_or_else(ended)?;
                    self.take_ack(&head_of(&ack)?)?;
                }
                changed = stream.durable.changed(), if window_open => {
                    changed.map_err(|_| SessionEnd::Transient("the spool was closed".to_owned()))?;
                }
                () = tokio::time::sleep(limit), if !self.sent.is_empty() => {
                    let seconds = ACK_LIMIT.as_secs();
                    return Err(SessionEnd::Transient(format!("no ack for {seconds} s")));
                }
            }
        }
    }

    async fn open(&mut self) -> Result<Stream, SessionEnd> {
        let channel =
            connect(&self.shipper.target).await.map_err(|error| SessionEnd::Transient(error.to_string()))?;
        let (batches, stream) = mpsc::channel(2);
        let mut client = IngestClient::new(channel);
        let silent = |_| SessionEnd::Transient("the collector does not answer".to_owned());
        let opened = client.deliver(ReceiverStream::new(stream));
        let mut acks = timeout(FIRST_ACK_LIMIT, opened).await.map_err(silent)??.into_inner();
        let first = timeout(FIRST_ACK_LIMIT, acks.message()).await.map_err(silent)??;
        let first =
            first.ok_or_else(|| SessionEnd::Transient("the collector ended the stream".to_owned()))?;
        let collector = head_of(&first)?;
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
                        self.take_ack(&head_of(&ack)?)?;
                        continue;
                    }
                    () = tokio::time::sleep(ACK_LIMIT) => {
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

    /// Counts an ack. It covers everything up to its batch, whose hash must be ours.
    fn take_ack(&mut self, acked: &ChainHead) -> Result<(), SessionEnd> {
        let position = Position::from(acked);
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
        if position <= Position::from(&self.shipper.spool.durable().chain) {
            self.shipper.spool.acknowledge(*acked);
        }
        Ok(())
    }
}

fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, SessionEnd> {
    result.map_err(|error| SessionEnd::Transient(format!("a task ended: {error}")))
}
