//! Enrolment and delivery over real TLS on loopback, against a whole collector.

use std::{sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use onenet_proto::{
    cosign::verify_cosignature,
    seal::ChainHead,
    v1::{
        self, Ack, EnrollRequest, EnrollResponse, SealedBatch, enrollment_client::EnrollmentClient,
        ingest_client::IngestClient,
    },
};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint, Uri},
};

use crate::{
    ca::Authority,
    clock,
    run::Collector,
    store::{Cursor, EnrollmentRefused},
    testing::{Sensor, Site, client_tls},
};

mod neighbours;
mod plan;

const HOUR: i64 = 3_600_000_000_000;

/// How long anything may take before a test is called hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client's connection by TLS.
async fn connect(collector: &Collector, tls: Arc<rustls::ClientConfig>) -> Result<Channel, Status> {
    let address = collector.address;
    let connector = tower::service_fn(move |_: Uri| {
        let tls = tokio_rustls::TlsConnector::from(Arc::clone(&tls));
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
            tls.connect(name, stream).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| Status::unavailable(format!("{error:?}")))
}

/// A sensor that has its keys and may enrol.
struct Client {
    key: KeyPair,
    sensor: Sensor,
}

impl Client {
    fn new() -> Self {
        Self::named("boston-1")
    }

    fn named(name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        Self { key, sensor: Sensor::new(name) }
    }

    fn request(&self, token: &str) -> EnrollRequest {
        let csr = CertificateParams::default().serialize_request(&self.key).expect("a request");
        EnrollRequest {
            token: token.to_owned(),
            csr_der: csr.der().to_vec().into(),
            signing_public_key: self.sensor.public_key.to_vec().into(),
            sensor: self.sensor.name.to_string(),
            site: "boston".to_owned(),
        }
    }
}

async fn enroll(
    collector: &Collector,
    authority: &Authority,
    request: EnrollRequest,
) -> Result<EnrollResponse, Status> {
    let channel = connect(collector, client_tls(authority, None)).await?;
    EnrollmentClient::new(channel).enroll(request).await.map(tonic::Response::into_inner)
}

/// A stream of batches and its acks.
struct Delivery {
    batches: mpsc::Sender<SealedBatch>,
    acks: Streaming<Ack>,
    /// Whose cosignatures to expect.
    cosign_key: Vec<u8>,
    /// Whose chain they are of.
    sensor: String,
}

impl Delivery {
    async fn start(channel: Channel, cosign_key: &[u8]) -> Result<Self, Status> {
        let (batches, outbound) = mpsc::channel(64);
        let acks = IngestClient::new(channel).deliver(ReceiverStream::new(outbound)).await?.into_inner();
        let sensor = "boston-1".to_owned();
        Ok(Self { batches, acks, cosign_key: cosign_key.to_vec(), sensor })
    }

    async fn send(&self, batch: SealedBatch) {
        // A stream that the collector has ended takes no more.
        let _ = self.batches.send(batch).await;
    }

    async fn ack(&mut self) -> Result<(u64, u64), Status> {
        let message = tokio::time::timeout(PATIENCE, self.acks.message()).await.expect("an answer in time");
        let ack = message?.ok_or_else(|| Status::ok("the end"))?;
        let head = ChainHead {
            epoch: ack.epoch,
            sequence: ack.sequence,
            hash: ack.hash[..].try_into().expect("32 bytes"),
        };
        match &ack.cosignature {
            None => assert_eq!(head, ChainHead::default(), "only a head of nothing is not signed for"),
            Some(signed) => {
                let checked = verify_cosignature(signed, &self.cosign_key, &self.sensor, &head);
                assert_eq!(checked, Ok(()), "{head:?}");
            }
        }
        Ok((ack.epoch, ack.sequence))
    }

    /// Reads acks up to this sequence.
    async fn acked(&mut self, sequence: u64) {
        while self.ack().await.expect("an ack").1 != sequence {}
    }

    async fn refusal(&mut self) -> Status {
        loop {
            if let Err(status) = self.ack().await {
                return status;
            }
        }
    }
}

/// A collector and a sensor that has enrolled.
struct Rig {
    site: Site,
    collector: Collector,
    client: Client,
    tls: Arc<rustls::ClientConfig>,
    cosign_key: Vec<u8>,
}

impl Rig {
    async fn new() -> Self {
        let site = Site::new();
        let collector = Collector::start(&site.config).await.expect("it starts");
        let client = Client::new();
        let token = site.token(&collector.store, HOUR);
        let answer =
            enroll(&collector, &site.authority(), client.request(&token)).await.expect("a certificate");
        let tls = client_tls(&site.authority(), Some((answer.certificate_der.to_vec(), &client.key)));
        Self { site, collector, client, tls, cosign_key: answer.cosign_key.to_vec() }
    }

    async fn deliver(&self) -> Result<Delivery, Status> {
        let channel = connect(&self.collector, Arc::clone(&self.tls)).await?;
        Delivery::start(channel, &self.cosign_key).await
    }

    fn batch(&mut self, flows: u32) -> SealedBatch {
        self.client.sensor.batch(flows)
    }

    fn stored(&self) -> Vec<u64> {
        let batches = self.collector.store.batches_after(Cursor::default(), 1_000).expect("readable");
        batches.iter().map(|batch| batch.sequence).collect()
    }

    fn events(&self, kind: &str) -> usize {
        let events = self.collector.store.events(None, 1_000).expect("readable");
        events.iter().filter(|event| event.kind == kind).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_enrols_by_its_token_once_and_may_ask_again_with_the_same_keys() {
    let site = Site::new();
    let collector = Collector::start(&site.config).await.expect("it starts");
    let authority = site.authority();
    let token = site.token(&collector.store, HOUR);
    let client = Client::new();
    let answer = enroll(&collector, &authority, client.request(&token)).await.expect("a certificate");
    assert_eq!((answer.sensor.as_str(), answer.site.as_str()), ("boston-1", "boston"));
    assert_eq!(&answer.ca_certificate_der[..], &authority.certificate()[..]);
    // The answer was lost: the same request again gets it again.
    let again = enroll(&collector, &authority, client.request(&token)).await.expect("the same answer");
    assert_eq!(again, answer);
    // Another key does not, nor the same with another signing key.
    let mut thief = client.request(&token);
    thief.signing_public_key = vec![7; 32].into();
    for request in [Client::new().request(&token), thief] {
        let refused = enroll(&collector, &authority, request).await.expect_err("the token is used");
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("was used at"), "{refused}");
    }
    assert_eq!(collector.store.sensors().expect("readable").len(), 1);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_that_does_not_hold_is_refused_with_the_reason() {
    let site = Site::new();
    let collector = Collector::start(&site.config).await.expect("it starts");
    let authority = site.authority();
    let token = site.token(&collector.store, HOUR);
    let expired = site.token(&collector.store, -HOUR);
    let client = Client::new();
    let good = client.request(&token);
    let unknown = EnrollmentRefused::UnknownToken.to_string();
    let mut tampered = good.csr_der.to_vec();
    *tampered.last_mut().expect("a byte") ^= 1;
    for (request, code, message) in [
        (client.request("wrong"), Code::Unauthenticated, unknown.as_str()),
        (client.request(""), Code::Unauthenticated, unknown.as_str()),
        (client.request(&expired), Code::PermissionDenied, "the token expired at"),
        (
            EnrollRequest { sensor: "lowell-1".into(), ..good.clone() },
            Code::PermissionDenied,
            "the token is for the sensor \"boston-1\", not for \"lowell-1\"",
        ),
        (
            EnrollRequest { site: "lowell".into(), ..good.clone() },
            Code::PermissionDenied,
            "the token is for the site \"boston\", not for \"lowell\"",
        ),
        (EnrollRequest { csr_der: tampered.into(), ..good.clone() }, Code::InvalidArgument, "csr_der"),
        (
            EnrollRequest { signing_public_key: vec![1; 31].into(), ..good.clone() },
            Code::InvalidArgument,
            "signing_public_key: 31 bytes, expected 32",
        ),
    ] {
        let refused = enroll(&collector, &authority, request).await.expect_err(message);
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(message), "{refused}");
    }
    assert_eq!(collector.store.sensors().expect("readable"), []);
    // None of it has burnt the token.
    enroll(&collector, &authority, good).await.expect("a certificate");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_ack_tells_the_head_and_every_ack_comes_after_the_commit() {
    let mut rig = Rig::new().await;
    let mut delivery = rig.deliver().await.expect("it begins");
    assert_eq!(delivery.ack().await.expect("the head"), (0, 0));
    for sequence in 1..=20 {
        let batch = rig.batch(3);
        delivery.send(batch).await;
        let (epoch, acked) = delivery.ack().await.expect("an ack");
        assert_eq!((epoch, acked), (1, sequence));
        // Another process would find it: it is on the disk, not in this one's memory.
        let other = crate::store::Store::attach(&rig.site.config.store).expect("the store beside");
        assert_eq!(other.heads().expect("readable")["boston-1"].head, rig.client.sensor.head());
    }
    drop(delivery);
    let mut delivery = rig.deliver().await.expect("it begins again");
    assert_eq!(delivery.ack().await.expect("the head"), (1, 20));
    rig.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_acked_cumulatively_and_a_repetition_changes_nothing() {
    let mut rig = Rig::new().await;
    let batches: Vec<_> = (0..40).map(|_| rig.batch(5)).collect();
    for _ in 0..2 {
        let mut delivery = rig.deliver().await.expect("it begins");
        for batch in &batches {
            delivery.send(batch.clone()).await;
        }
        delivery.acked(40).await;
        // The sensor ends its side; the collector ends the stream in order.
        let Delivery { batches: sender, acks, cosign_key, sensor } = delivery;
        drop(sender);
        let (unused, _) = mpsc::channel(1);
        let mut delivery = Delivery { batches: unused, acks, cosign_key, sensor };
        assert_eq!(delivery.refusal().await.code(), Code::Ok);
    }
    assert_eq!(rig.stored(), (1..=40).collect::<Vec<_>>());
    let heads = rig.collector.store.heads().expect("readable");
    assert_eq!((heads["boston-1"].flows, heads["boston-1"].batches), (200, 40));
    rig.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_ends_the_stream_with_the_sequence_that_is_expected() {
    let mut rig = Rig::new().await;
    let batches = [rig.batch(1), rig.batch(1), rig.batch(1)];
    let mut delivery = rig.deliver().await.expect("it begins");
    delivery.send(batches[0].clone()).await;
    delivery.send(batches[2].clone()).await;
    let refusal = delivery.refusal().await;
    assert_eq!(refusal.code(), Code::OutOfRange);
    assert_eq!(refusal.message(), "expected sequence 2 of epoch 1, got 3");
    // What came before the gap is stored, and the rest can follow.
    let mut delivery = rig.deliver().await.expect("it begins again");
    assert_eq!(delivery.ack().await.expect("the head"), (1, 1));
    delivery.send(batches[1].clone()).await;
    delivery.send(batches[2].clone()).await;
    delivery.acked(3).await;
    rig.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_ends_the_stream_and_is_recorded() {
    let mut rig = Rig::new().await;
    let mut delivery = rig.deliver().await.expect("it begins");
    let first = rig.batch(1);
    delivery.send(first).await;
    delivery.acked(1).await;
    rig.client.sensor.restore(ChainHead { epoch: 1, ..ChainHead::default() });
    let other = rig.batch(4);
    delivery.send(other).await;
    assert_eq!(delivery.refusal().await.code(), Code::FailedPrecondition);
    assert_eq!((rig.stored(), rig.events("fork")), (vec![1], 1));
    rig.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_batch_is_acked_and_the_next_one_stored() {
    let mut rig = Rig::new().await;
    let batches = [rig.batch(1), rig.client.sensor.poison(), rig.batch(1), rig.client.sensor.miscounted()];
    let mut delivery = rig.deliver().await.expect("it begins");
    for batch in batches {
        delivery.send(batch).await;
    }
    delivery.acked(4).await;
    assert_eq!((rig.stored(), rig.events("poison")), (vec![1, 2, 3, 4], 2));
    let events = rig.collector.store.events(None, 1).expect("readable");
    assert_eq!(events[0].message, "batch 4 of epoch 1: the header states 9 records, the body holds 0");
    rig.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_that_does_not_hold_ends_the_stream_and_is_recorded_once() {
    let mut rig = Rig::new().await;
    let mut batch = rig.batch(1);
    let mut body = batch.body.to_vec();
    *body.last_mut().expect("a byte") ^= 1;
    batch.body = body.into();
    for _ in 0..2 {
        let mut delivery = rig.deliver().await.expect("it begins");
        delivery.send(batch.clone()).await;
        let refusal = delivery.refusal().await;
        assert_eq!(refusal.code(), Code::InvalidArgument);
    }
    assert_eq!((rig.stored(), rig.events("bad-seal")), (vec![], 1));
    rig.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_cannot_deliver_as_another() {
    let mut rig = Rig::new().await;
    let mut sealer = rig.client.sensor.named("lowell-1");
    let batch = sealer.seal(&v1::BatchBody::default(), v1::BatchKind::Heartbeat, 0, 0);
    let mut delivery = rig.deliver().await.expect("it begins");
    delivery.send(batch).await;
    let refusal = delivery.refusal().await;
    assert_eq!(refusal.code(), Code::PermissionDenied);
    assert_eq!(refusal.message(), "the batch is of sensor \"lowell-1\", the certificate of boston-1");
    let good = rig.batch(1);
    let mut delivery = rig.deliver().await.expect("it begins again");
    delivery.send(good).await;
    delivery.acked(1).await;
    rig.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_holds_for_the_next_batch_of_a_live_stream_and_for_later_streams() {
    let mut rig = Rig::new().await;
    let batches = [rig.batch(1), rig.batch(1)];
    let mut delivery = rig.deliver().await.expect("it begins");
    delivery.send(batches[0].clone()).await;
    delivery.acked(1).await;
    assert!(rig.collector.store.revoke_sensor("boston-1", clock::now()).expect("it works"));
    delivery.send(batches[1].clone()).await;
    assert_eq!(delivery.refusal().await.code(), Code::PermissionDenied);
    let refused = rig.deliver().await.err().expect("a later stream");
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "sensor boston-1 is revoked"));
    assert_eq!(rig.stored(), [1]);
    rig.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_of_an_enrolled_sensor_nothing_is_taken() {
    let rig = Rig::new().await;
    let authority = rig.site.authority();
    let anonymous = connect(&rig.collector, client_tls(&authority, None)).await.expect("TLS allows it");
    let refused = Delivery::start(anonymous, &[]).await.err().expect("no certificate");
    assert_eq!(refused.code(), Code::Unauthenticated);
    // Signed by our authority, but known to no store: another collector's, or one that lost its store.
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let csr = CertificateParams::default().serialize_request(&key).expect("a request");
    let request = crate::ca::SensorRequest::verify(csr.der()).expect("it holds");
    let issued = authority.issue_sensor("boston-1", &request, clock::now(), 1).expect("a certificate");
    let stranger = connect(&rig.collector, client_tls(&authority, Some((issued.der, &key)))).await;
    let refused = Delivery::start(stranger.expect("TLS allows it"), &[]).await.err().expect("not enrolled");
    assert_eq!(refused.code(), Code::Unauthenticated);
    // Signed by another authority: the handshake fails.
    let (other, _) = Authority::create(clock::now()).expect("an authority");
    let issued = other.issue_sensor("boston-1", &request, clock::now(), 1).expect("a certificate");
    let foreign = connect(&rig.collector, client_tls(&authority, Some((issued.der, &key)))).await;
    let refused = match foreign {
        Ok(channel) => Delivery::start(channel, &[]).await.err().expect("the handshake fails"),
        Err(refused) => refused,
    };
    assert_ne!(refused.code(), Code::Ok);
    assert!(rig.stored().is_empty());
    rig.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_finish_their_handshake_stop_nobody() {
    let mut rig = Rig::new().await;
    let mut idle = Vec::new();
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1, 0xff, 0xff], &[0; 4096]] {
        let mut stream = TcpStream::connect(rig.collector.address).await.expect("it connects");
        stream.write_all(bytes).await.expect("it is written");
        idle.push(stream);
    }
    let batch = rig.batch(1);
    let mut delivery = rig.deliver().await.expect("it begins");
    delivery.send(batch).await;
    delivery.acked(1).await;
    // Those that sent nonsense are hung up on.
    let mut buffer = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, idle[1].read_to_end(&mut buffer)).await;
    drop(ended.expect("the connection ends"));
    rig.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_collector_stops_what_it_has_read_is_committed_and_a_restart_goes_on_there() {
    let mut rig = Rig::new().await;
    let batches: Vec<_> = (0..30).map(|_| rig.batch(2)).collect();
    let mut delivery = rig.deliver().await.expect("it begins");
    for batch in &batches[..20] {
        delivery.send(batch.clone()).await;
    }
    delivery.acked(20).await;
    let Rig { site, collector, client, tls, cosign_key } = rig;
    let stopping = tokio::spawn(collector.stop());
    assert_eq!(delivery.refusal().await.code(), Code::Unavailable);
    drop(delivery);
    stopping.await.expect("it stops");
    let collector = Collector::start(&site.config).await.expect("it starts again");
    let rig = Rig { site, collector, client, tls, cosign_key };
    let mut delivery = rig.deliver().await.expect("it begins again");
    assert_eq!(delivery.ack().await.expect("the head"), (1, 20));
    for batch in &batches {
        delivery.send(batch.clone()).await;
    }
    delivery.acked(30).await;
    assert_eq!(rig.stored(), (1..=30).collect::<Vec<_>>());
    rig.collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_one_clear_line() {
    let rig = Rig::new().await;
    let mut config = rig.site.config.clone();
    config.server.listen = rig.collector.address;
    let error = Collector::start(&config).await.expect_err("the port is in use").to_string();
    let expected =
        format!("server.listen: cannot listen on {}: Address already in use", rig.collector.address);
    assert!(error.starts_with(&expected), "{error}");
    rig.collector.stop().await;
}
