//! Shipping against a collector in this process, over mutual TLS: everything arrives once and in order however
//! the stream breaks, and what is not acked stays.

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use onenet_proto::{
    cosign::cosign,
    seal::{ChainHead, Sealer, SigningKey, VerifiedBatch, verify},
    v1::{
        Ack, BatchBody, BatchKind, Flow, SealedBatch, SignedPlan,
        ingest_server::{Ingest, IngestServer},
    },
};
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::DuplexStream,
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{connect::Target, *};
use crate::{
    config::PlanSource,
    keys::{Enrolment, Identity},
    spool::{self, Batch, Mark, Writer},
    tls,
};

mod plan;

/// What a collector keeps over its restarts.
#[derive(Default)]
struct Store {
    public_key: Vec<u8>,
    head: Mutex<ChainHead>,
    committed: Mutex<Vec<u64>>,
    /// Records in the batches that were committed.
    records: AtomicU64,
    /// Batches that came although they were committed.
    again: AtomicU64,
    streams: AtomicU64,
    /// The stream ends after so many batches; 0 = never.
    break_after: AtomicU64,
    /// Batches are committed, and their acks do not get out.
    swallow_acks: AtomicBool,
    /// Each ack is sent twice, and an older one after it.
    repeat_acks: AtomicBool,
    refuse: Mutex<Option<Status>>,
    /// Signs the heads, if there is one.
    cosign: Mutex<Option<SigningKey>>,
    /// Signs for another sensor.
    forge: AtomicBool,
    /// Acks a batch that has not come.
    ack_ahead: AtomicBool,
    /// Batches are committed and acked in disorder: late, again, or not at all, by this seed; 0 = in order.
    disorder: AtomicU64,
    /// Plans that go out with the next acks, the last first.
    plans: Mutex<Vec<SignedPlan>>,
}

impl Store {
    fn ack(&self, head: ChainHead) -> Ack {
        let sensor = if self.forge.load(Ordering::SeqCst) { "lowell-1" } else { "boston-1" };
        let key = self.cosign.lock().unwrap();
        let cosignature =
            key.as_ref().filter(|_| head.sequence > 0).map(|key| cosign(key, sensor, &head, 1_000_000_000));
        Ack {
            epoch: head.epoch,
            sequence: head.sequence,
            hash: head.hash.to_vec().into(),
            cosignature,
            plan: None,
        }
    }

    /// Commits the next batch, knows one that came before, and has nothing to do with any other.
    fn commit(&self, batch: &VerifiedBatch) -> Option<ChainHead> {
        let mut head = self.head.lock().unwrap();
        let begins = batch.header.epoch > head.epoch && batch.header.sequence == 1;
        if batch.follows(&head) || begins {
            *head = batch.head();
            self.records.fetch_add(batch.header.records.into(), Ordering::SeqCst);
            self.committed.lock().unwrap().push(batch.header.sequence);
        } else if batch.header.sequence <= head.sequence {
            self.again.fetch_add(1, Ordering::SeqCst);
        } else {
            return None;
        }
        Some(*head)
    }
}

#[derive(Clone)]
struct FakeIngest(Arc<Store>);

#[tonic::async_trait]
impl Ingest for FakeIngest {
    type DeliverStream = Pin<Box<dyn Stream<Item = Result<Ack, Status>> + Send>>;

    async fn deliver(
        &self,
        request: Request<Streaming<SealedBatch>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let store = self.0.clone();
        store.streams.fetch_add(1, Ordering::SeqCst);
        if let Some(status) = store.refuse.lock().unwrap().clone() {
            return Err(status);
        }
        let (acks, answer) = mpsc::channel(16);
        let mut batches = request.into_inner();
        tokio::spawn(async move {
            let head = *store.head.lock().unwrap();
            let mut older = head;
            let mut late: Vec<ChainHead> = Vec::new();
            acks.send(Ok(store.ack(head))).await.ok();
            let mut count = 0;
            while let Ok(Some(batch)) = batches.message().await {
                let verified = verify(&batch, &store.public_key).unwrap();
                let Some(head) = store.commit(&verified) else {
                    acks.send(Err(Status::out_of_range("gap"))).await.ok();
                    return;
                };
                let seed = store.disorder.load(Ordering::SeqCst);
                if seed > 0 {
                    late.push(head);
                    let mut random = fastrand::Rng::with_seed(seed ^ head.sequence);
                    // Of what is due some is sent now, in any order, some again, some never but by a later one.
                    random.shuffle(&mut late);
                    while late.len() > random.usize(0..6) {
                        let Some(one) = late.pop() else { break };
                        for _ in 0..random.usize(0..3) {
                            acks.send(Ok(store.ack(one))).await.ok();
                        }
                    }
                    if head.sequence % 40 == 0 || random.u8(0..4) == 0 {
                        acks.send(Ok(store.ack(head))).await.ok();
                    }
                } else if store.ack_ahead.load(Ordering::SeqCst) {
                    let ahead = ChainHead { sequence: head.sequence + 5, ..head };
                    acks.send(Ok(store.ack(ahead))).await.ok();
                } else if !store.swallow_acks.load(Ordering::SeqCst) {
                    let plan = store.plans.lock().unwrap().pop();
                    acks.send(Ok(Ack { plan, ..store.ack(head) })).await.ok();
                    if store.repeat_acks.load(Ordering::SeqCst) {
                        acks.send(Ok(store.ack(head))).await.ok();
                        acks.send(Ok(store.ack(older))).await.ok();
                    }
                }
                older = head;
                count += 1;
                if count == store.break_after.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answer))))
    }
}

/// Certificates of a collector and a sensor.
struct Certificates {
    authority: CertificateDer<'static>,
    server: (CertificateDer<'static>, KeyPair),
    sensor: (CertificateDer<'static>, KeyPair),
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(params, key);
        let issue = |names: Vec<String>| {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
            (certificate.der().clone(), key)
        };
        Self { authority, server: issue(vec!["127.0.0.1".into()]), sensor: issue(vec!["boston-1".into()]) }
    }

    fn identity(&self) -> Identity {
        Identity {
            enrolment: Enrolment {
                sensor: "boston-1".into(),
                site: "boston".into(),
                endpoint: String::new(),
            },
            tls_key: PrivateKeyDer::try_from(self.sensor.1.serialize_der()).unwrap(),
            certificate: self.sensor.0.clone(),
            authority: self.authority.clone(),
            signing_key: Vec::new(),
            cosign_key: None,
        }
    }

    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![self.server.0.clone()],
                PrivateKeyDer::try_from(self.server.1.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Serves until it is aborted; connections end with it.
async fn serve(certificates: &Certificates, store: &Arc<Store>, port: u16) -> (SocketAddr, JoinHandle<()>) {
    let listener = loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let address = listener.local_addr().unwrap();
    let (acceptor, service) = (certificates.acceptor(), FakeIngest(store.clone()));
    let (ready, connections) = mpsc::channel::<Result<DuplexStream, std::io::Error>>(1);
    let accepting = async move {
        // Dropped with the server, and every connection with them.
        let mut bridges = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let (near, mut far) = tokio::io::duplex(1 << 16);
            bridges.spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut far).await });
            if ready.send(Ok(near)).await.is_err() {
                return;
            }
        }
    };
    let server = tonic::transport::Server::builder()
        .add_service(IngestServer::new(service))
        .serve_with_incoming(ReceiverStream::new(connections));
    let task = tokio::spawn(async move {
        tokio::select! {
            () = accepting => {}
            served = server => served.unwrap(),
        }
    });
    (address, task)
}

/// A sensor with a spool.
struct Sensor {
    writer: Writer,
    sealer: Sealer,
    /// Of every batch, in order.
    hashes: Vec<[u8; 32]>,
    /// Flows in each batch.
    flows: usize,
    _directory: tempfile::TempDir,
}

impl Sensor {
    fn new() -> (Self, Vec<u8>) {
        let directory = spool::scratch();
        let settings = spool::Settings { segment_bytes: 4096, reserve_bytes: 0, quarantine_bytes: 1 << 20 };
        let opened = spool::open(directory.path(), settings, 5, spool::on_disk()).unwrap();
        let (key, _) = SigningKey::generate().unwrap();
        let public_key = key.public_key().to_vec();
        let sealer = Sealer::new(key, "boston-1".into(), opened.head.chain);
        (
            Self { writer: opened.writer, sealer, hashes: Vec::new(), flows: 0, _directory: directory },
            public_key,
        )
    }

    fn seal(&mut self, count: u64) {
        for _ in 0..count {
            let previous_hash = self.sealer.head().hash;
            let body = BatchBody { flows: vec![Flow::default(); self.flows], ..BatchBody::default() };
            let sealed = self.sealer.seal(&body, BatchKind::Records, 1, 1);
            self.hashes.push(self.sealer.head().hash);
            self.writer.append(&Batch {
                payload: &sealed.encode_to_vec(),
                kind: 1,
                algorithm: 1,
                records: 0,
                previous_hash,
                chain: self.sealer.head(),
                sealed_at: 1,
                mark: Mark::default(),
            });
        }
        self.writer.flush().unwrap();
    }

    fn ship(&self, certificates: &Certificates, address: SocketAddr) -> (Connection, JoinHandle<()>) {
        self.ship_with(certificates, address, |_| ())
    }

    fn ship_with(
        &self,
        certificates: &Certificates,
        address: SocketAddr,
        change: impl FnOnce(&mut Shipper),
    ) -> (Connection, JoinHandle<()>) {
        let connection = Connection::default();
        let spool = self.writer.shared().clone();
        let mut shipper = Shipper {
            sensor: "boston-1".into(),
            plans: Arc::new(Plans::open(spool.directory(), None, PlanSource::Collector, Arc::default())),
            cosign_key: None,
            ack_limit: ACK_LIMIT,
            acceptance: Acceptance::new(spool.directory()),
            accept_head: Arc::new(move |held, _| {
                spool.set_back(held);
                Ok(())
            }),
            target: Target {
                endpoint: format!("https://{address}").parse().unwrap(),
                server_name: "127.0.0.1".into(),
                tls: tls::client_config(&certificates.identity()).unwrap(),
            },
            spool: self.writer.shared().clone(),
            connection: connection.clone(),
            seal_anew: Arc::new(|anew| Err(anew.reason)),
        };
        change(&mut shipper);
        (connection, tokio::spawn(shipper.run()))
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < limit, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Lab {
    certificates: Certificates,
    store: Arc<Store>,
    sensor: Sensor,
}

impl Lab {
    fn new() -> Self {
        let (sensor, public_key) = Sensor::new();
        let store = Arc::new(Store { public_key, ..Store::default() });
        Self { certificates: Certificates::new(), store, sensor }
    }

    async fn serve(&self, port: u16) -> (SocketAddr, JoinHandle<()>) {
        serve(&self.certificates, &self.store, port).await
    }

    async fn all_acked(&self) {
        eventually("everything is acked", || self.sensor.writer.shared().all_acked()).await;
    }

    fn assert_once_and_in_order(&self, count: u64) {
        assert_eq!(*self.store.committed.lock().unwrap(), (1..=count).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_arrive_once_in_order_and_later_ones_follow_on_the_same_stream() {
    let mut lab = Lab::new();
    lab.sensor.seal(200);
    let (address, server) = lab.serve(0).await;
    let (connection, shipping) = lab.sensor.ship(&lab.certificates, address);
    lab.all_acked().await;
    lab.sensor.seal(50);
    lab.all_acked().await;
    lab.assert_once_and_in_order(250);
    assert_eq!(lab.store.streams.load(Ordering::SeqCst), 1);
    assert!(connection.state().connected);
    shipping.abort();
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_again_and_again_is_resumed_where_the_collector_stands() {
    let mut lab = Lab::new();
    lab.sensor.seal(60);
    lab.store.break_after.store(7, Ordering::SeqCst);
    lab.store.repeat_acks.store(true, Ordering::SeqCst);
    let (address, server) = lab.serve(0).await;
    let (_, shipping) = lab.sensor.ship(&lab.certificates, address);
    lab.all_acked().await;
    lab.assert_once_and_in_order(60);
    assert!(lab.store.streams.load(Ordering::SeqCst) >= 8);
    shipping.abort();
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_that_got_lost_are_made_good_by_the_first_ack_of_the_next_stream() {
    let mut lab = Lab::new();
    lab.sensor.seal(30);
    lab.store.swallow_acks.store(true, Ordering::SeqCst);
    lab.store.break_after.store(10, Ordering::SeqCst);
    let (address, server) = lab.serve(0).await;
    let (_, shipping) = lab.sensor.ship(&lab.certificates, address);
    eventually("the collector has all", || lab.store.head.lock().unwrap().sequence == 30).await;
    lab.store.swallow_acks.store(false, Ordering::SeqCst);
    lab.all_acked().await;
    lab.assert_once_and_in_order(30);
    assert_eq!(lab.store.again.load(Ordering::SeqCst), 0, "nothing is sent that the first ack covers");
    shipping.abort();
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_restarts_is_found_again_and_the_spool_keeps_what_it_does_not_have() {
    let mut lab = Lab::new();
    let (address, server) = lab.serve(0).await;
    let (connection, shipping) = lab.sensor.ship(&lab.certificates, address);
    lab.sensor.seal(20);
    lab.all_acked().await;
    server.abort();
    let _ = server.await;
    lab.sensor.seal(20);
    eventually("the break is seen", || connection.state().last_error.is_some()).await;
    assert!(!lab.sensor.writer.shared().all_acked());
    assert_eq!(lab.sensor.writer.shared().acked().sequence, 20);
    let (_, server) = lab.serve(address.port()).await;
    lab.all_acked().await;
    lab.assert_once_and_in_order(40);
    shipping.abort();
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_in_one_line_and_costs_nothing() {
    for (status, expected) in [
        (
            Status::permission_denied("sensor boston-1 is revoked"),
            "the collector refuses this sensor: sensor boston-1 is revoked",
        ),
        (
            Status::unauthenticated("no such sensor"),
            "the collector does not know this sensor: no such sensor",
        ),
    ] {
        let mut lab = Lab::new();
        lab.sensor.seal(3);
        *lab.store.refuse.lock().unwrap() = Some(status);
        let (address, server) = lab.serve(0).await;
        let (connection, shipping) = lab.sensor.ship(&lab.certificates, address);
        eventually("it is told", || connection.state().last_error.is_some()).await;
        assert_eq!(connection.state().last_error.as_deref(), Some(expected));
        assert!(!connection.state().connected);
        assert_eq!(lab.sensor.writer.shared().acked().sequence, 0);
        shipping.abort();
        server.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_of_another_authority_gets_nothing() {
    let mut lab = Lab::new();
    lab.sensor.seal(3);
    let (address, server) = lab.serve(0).await;
    let (connection, shipping) = lab.sensor.ship(&Certificates::new(), address);
    eventually("it is told", || connection.state().last_error.is_some()).await;
    let error = connection.state().last_error.unwrap();
    assert!(error.contains("TLS: invalid peer certificate"), "{error}");
    assert_eq!(lab.store.streams.load(Ordering::SeqCst), 0);
    shipping.abort();
    server.abort();
}

#[test]
fn where_the_chains_do_not_meet_it_is_seen() {
    let (mut sensor, _) = Sensor::new();
    sensor.seal(10);
    let spool = sensor.writer.shared().clone();
    let epoch = spool.durable().chain.epoch;
    let at = |sequence, hash| ChainHead { epoch, sequence, hash };
    let is_anew = |head| matches!(resume(&spool, &head).unwrap(), Resume::Anew(_));
    assert!(!is_anew(ChainHead::default()), "a collector that holds nothing gets all");
    assert!(!is_anew(spool.durable().chain), "a collector that holds all gets nothing");
    assert!(is_anew(at(10, [9; 32])), "another last batch");
    assert!(is_anew(at(4, [9; 32])), "another batch in the middle");
    assert!(is_anew(at(11, [9; 32])), "more than this sensor ever sealed");
    assert!(is_anew(ChainHead { epoch: epoch + 1, sequence: 1, hash: [9; 32] }), "a later epoch");
    // Everything acked and deleted, and the collector lost it.
    spool.acknowledge(spool.durable().chain);
    sensor.writer.begin_epoch().unwrap();
    sensor.writer.close().unwrap();
    assert!(is_anew(ChainHead::default()));
    assert!(!is_anew(spool.durable().chain));

    let (fresh, _) = Sensor::new();
    let spool = fresh.writer.shared().clone();
    let fresh = resume(&spool, &ChainHead::default()).unwrap();
    assert_eq!(fresh, Resume::From(crate::spool::Position::default()), "a new spool misses nothing");
}

/// A lab whose collector cosigns, with everything shipped.
async fn cosigning_lab(count: u64) -> (Lab, Vec<u8>) {
    let mut lab = Lab::new();
    let (key, _) = SigningKey::generate().unwrap();
    let public_key = key.public_key().to_vec();
    *lab.store.cosign.lock().unwrap() = Some(key);
    lab.sensor.seal(count);
    let (address, server) = lab.serve(0).await;
    let (_, shipping) = lab.sensor.ship(&lab.certificates, address);
    lab.all_acked().await;
    shipping.abort();
    server.abort();
    (lab, public_key)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_cosignature_is_kept_over_a_restart() {
    let (mut lab, public_key) = cosigning_lab(20).await;
    let head = lab.sensor.writer.shared().durable().chain;
    let cosigned = lab.sensor.writer.shared().cosigned().unwrap();
    assert_eq!((cosigned.head, &cosigned.key[..]), (head, &public_key[..]));
    lab.sensor.writer.close().unwrap();
    let Sensor { writer, _directory: directory, .. } = lab.sensor;
    drop(writer);
    let settings = spool::Settings { segment_bytes: 4096, reserve_bytes: 0, quarantine_bytes: 1 << 20 };
    let opened = spool::open(directory.path(), settings, 5, spool::on_disk()).unwrap();
    assert_eq!(opened.writer.shared().cosigned(), Some(cosigned));
}

/// Ships to a collector that is not trusted, and checks that this changes nothing; gives what was told.
async fn untrusted(lab: &mut Lab, change: impl FnOnce(&mut Shipper)) -> ConnectionState {
    lab.sensor.seal(5);
    let (acked, durable) = (lab.sensor.writer.shared().acked(), lab.sensor.writer.shared().durable());
    let committed = lab.store.committed.lock().unwrap().clone();
    let (address, server) = lab.serve(0).await;
    let anew = Arc::new(AtomicU64::new(0));
    let counted = anew.clone();
    let (connection, shipping) = lab.sensor.ship_with(&lab.certificates, address, |shipper| {
        shipper.seal_anew = Arc::new(move |anew| {
            counted.fetch_add(1, Ordering::SeqCst);
            Err(anew.reason)
        });
        change(shipper);
    });
    eventually("it is told", || connection.state().untrusted.is_some()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    shipping.abort();
    server.abort();
    assert_eq!(anew.load(Ordering::SeqCst), 0, "nothing is sealed anew");
    assert_eq!(lab.sensor.writer.shared().acked(), acked);
    assert_eq!(lab.sensor.writer.shared().durable(), durable);
    assert_eq!(*lab.store.committed.lock().unwrap(), committed, "nothing is sent");
    connection.state()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_was_set_back_is_refused_until_an_operator_accepts_it() {
    let (mut lab, _) = cosigning_lab(20).await;
    let cosigned = lab.sensor.writer.shared().cosigned().unwrap();
    let hash = lab.sensor.hashes[11];
    let older = ChainHead { sequence: 12, hash, ..cosigned.head };
    *lab.store.head.lock().unwrap() = older;
    lab.store.committed.lock().unwrap().truncate(12);
    let state = untrusted(&mut lab, |_| ()).await;
    let expected = "the collector holds batch 12, but signed for batch 20 at 1970-01-01T00:00:01.000000000Z: it was set \
                    back; nothing is sent until an operator accepts that: `onenet-agent spool accept-head`";
    assert_eq!(state.untrusted.as_deref(), Some(expected));
    assert!(state.set_back && !state.connected);

    let acceptance = Acceptance::new(lab.sensor.writer.shared().directory());
    acceptance.enter(&ChainHead { sequence: 19, ..cosigned.head }).unwrap();
    let state = untrusted(&mut lab, |_| ()).await;
    assert!(state.set_back, "an acceptance of something else does not count");
    assert!(!acceptance.is_there(), "and is dropped");

    let (address, server) = lab.serve(0).await;
    let (connection, shipping) = lab.sensor.ship(&lab.certificates, address);
    eventually("it is refused", || connection.state().set_back).await;
    acceptance.enter(&cosigned.head).unwrap();
    let begun = Instant::now();
    lab.all_acked().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "taken up at once");
    lab.assert_once_and_in_order(30);
    assert!(!acceptance.is_there(), "it covers this once");
    assert_eq!(connection.state().untrusted, None);
    shipping.abort();
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_holds_another_batch_than_it_signed_for_is_refused() {
    let (mut lab, _) = cosigning_lab(20).await;
    lab.store.head.lock().unwrap().hash = [9; 32];
    let state = untrusted(&mut lab, |_| ()).await;
    let message = state.untrusted.unwrap();
    assert!(message.starts_with("the collector holds another batch 20 of epoch 5"), "{message}");
    assert!(state.set_back);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_lost_everything_is_refused() {
    let (mut lab, _) = cosigning_lab(20).await;
    *lab.store.head.lock().unwrap() = ChainHead::default();
    let message = untrusted(&mut lab, |_| ()).await.untrusted.unwrap();
    assert!(message.starts_with("the collector holds no batch, but signed for batch 20"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_cosignature_is_refused_and_no_ack_with_it_is_taken() {
    let (mut lab, public_key) = cosigning_lab(20).await;
    lab.store.forge.store(true, Ordering::SeqCst);
    let state = untrusted(&mut lab, |_| ()).await;
    let message = state.untrusted.unwrap();
    assert!(
        message.starts_with("the collector's cosignature of batch 20 of epoch 5 does not hold"),
        "{message}"
    );
    assert!(!state.set_back, "no operator can accept that");

    lab.store.forge.store(false, Ordering::SeqCst);
    let (other, _) = SigningKey::generate().unwrap();
    *lab.store.cosign.lock().unwrap() = Some(other);
    let message = untrusted(&mut lab, |_| ()).await.untrusted.unwrap();
    assert!(message.contains("by another key"), "the first key seen is held on to: {message}");
    let message =
        untrusted(&mut lab, |shipper| shipper.cosign_key = Some(public_key)).await.untrusted.unwrap();
    assert!(message.contains("by another key"), "so is the one of the enrolment: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_new_enrolment_counts_more_than_the_one_seen_first() {
    let (mut lab, _) = cosigning_lab(20).await;
    let (other, _) = SigningKey::generate().unwrap();
    let public_key = other.public_key().to_vec();
    *lab.store.cosign.lock().unwrap() = Some(other);
    lab.sensor.seal(5);
    let (address, server) = lab.serve(0).await;
    let (_, shipping) =
        lab.sensor.ship_with(&lab.certificates, address, |shipper| shipper.cosign_key = Some(public_key));
    lab.all_acked().await;
    lab.assert_once_and_in_order(25);
    shipping.abort();
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_that_come_late_again_in_disorder_or_never_change_nothing() {
    let mut lab = Lab::new();
    lab.sensor.flows = if std::env::var_os("ONENET_SOAK").is_some() { 1000 } else { 10 };
    let records = 1001 * lab.sensor.flows as u64;
    let (key, _) = SigningKey::generate().unwrap();
    *lab.store.cosign.lock().unwrap() = Some(key);
    let (address, server) = lab.serve(0).await;
    lab.store.disorder.store(77, Ordering::SeqCst);
    lab.store.break_after.store(150, Ordering::SeqCst);
    let (_, shipping) = lab.sensor.ship(&lab.certificates, address);
    for _ in 0..10 {
        lab.sensor.seal(100);
        let shared = lab.sensor.writer.shared();
        eventually("a part is acked", || shared.acked().sequence + 50 > shared.durable().chain.sequence)
            .await;
        let held = lab.store.head.lock().unwrap().sequence;
        assert!(shared.acked().sequence <= held, "no ack but for what is held");
    }
    lab.store.disorder.store(0, Ordering::SeqCst);
    lab.sensor.seal(1);
    lab.all_acked().await;
    lab.assert_once_and_in_order(1001);
    assert_eq!(lab.store.records.load(Ordering::SeqCst), records);
    shipping.abort();
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_for_what_was_not_sent_is_not_taken() {
    let mut lab = Lab::new();
    lab.sensor.seal(3);
    lab.store.ack_ahead.store(true, Ordering::SeqCst);
    let (address, server) = lab.serve(0).await;
    let (connection, shipping) = lab.sensor.ship(&lab.certificates, address);
    eventually("it is told", || connection.state().last_error.is_some()).await;
    let error = connection.state().last_error.unwrap();
    assert!(error.contains("which was not sent"), "{error}");
    shipping.abort();
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stays_open_and_acks_nothing_is_left() {
    let mut lab = Lab::new();
    lab.sensor.seal(10);
    lab.store.swallow_acks.store(true, Ordering::SeqCst);
    let (address, server) = lab.serve(0).await;
    let limit = Duration::from_secs(1);
    let (connection, shipping) =
        lab.sensor.ship_with(&lab.certificates, address, |shipper| shipper.ack_limit = limit);
    eventually("it is left", || connection.state().last_error.is_some()).await;
    assert_eq!(connection.state().last_error.as_deref(), Some("no ack for 1 s"));
    lab.store.swallow_acks.store(false, Ordering::SeqCst);
    lab.all_acked().await;
    lab.assert_once_and_in_order(10);
    shipping.abort();
    server.abort();
}
