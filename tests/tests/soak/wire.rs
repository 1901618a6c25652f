//! The protocol spoken by hand, with the keys of an enrolled sensor and of a collector: what a program between them, or
//! in the place of the sensor, can do.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use hyper_util::rt::TokioIo;
use onenet_proto::v1::{
    Ack, SealedBatch,
    ingest_client::IngestClient,
    ingest_server::{Ingest, IngestServer},
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{DuplexStream, copy_bidirectional, duplex},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status,
    transport::{Channel, Endpoint, Server, Uri},
};

use crate::{harness::Lab, kit::Sensor};

/// Bytes of TLS's plain side that wait.
const BRIDGE: usize = 1 << 20;

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn key(path: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// TLS as this sensor.
pub(crate) fn as_sensor(sensor: &Sensor) -> Arc<ClientConfig> {
    let keys = sensor.edge.state_dir.join("keys");
    let authority = certificate(&keys.join("ca.crt"));
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).expect("a root");
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![certificate(&keys.join("sensor.crt")), authority],
            key(&keys.join("tls.key")),
        )
        .expect("they fit");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// TLS as this collector, for sensors alone.
pub(crate) fn as_collector(lab: &Lab) -> TlsAcceptor {
    let dir = lab.collector_dir();
    let authority = certificate(&dir.join("ca.pem"));
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).expect("a root");
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().expect("a verifier");
    let chain = vec![certificate(&dir.join("server.pem")), authority];
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key(&dir.join("server.key")))
        .expect("they fit");
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Connects to a collector.
pub(crate) async fn connect(to: SocketAddr, tls: Arc<ClientConfig>) -> Result<Channel, std::io::Error> {
    let tcp = TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = Some(TlsConnector::from(tls).connect(name, tcp).await?);
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take();
        async move { stream.map(TokioIo::new).ok_or_else(|| std::io::Error::other("it has ended")) }
    });
    let endpoint = Endpoint::from_shared(format!("https://localhost:{}", to.port())).expect("an address");
    endpoint.connect_with_connector(connector).await.map_err(std::io::Error::other)
}

/// Serves deliveries on this listener until the future is dropped.
pub(crate) async fn serve<I: Ingest>(listener: TcpListener, tls: TlsAcceptor, service: I) {
    let (ready, connections) = mpsc::channel::<Result<DuplexStream, std::io::Error>>(4);
    let accepting = async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (tls, ready) = (tls.clone(), ready.clone());
            tokio::spawn(async move {
                let _ = tcp.set_nodelay(true);
                let Ok(mut secured) = tls.accept(tcp).await else { return };
                let (mut ours, theirs) = duplex(BRIDGE);
                if ready.send(Ok(theirs)).await.is_ok() {
                    // However it ends, it has ended.
                    let _ = copy_bidirectional(&mut secured, &mut ours).await;
                }
            });
        }
    };
    let serving = Server::builder()
        .add_service(IngestServer::new(service))
        .serve_with_incoming(ReceiverStream::new(connections));
    tokio::select! {
        () = accepting => {}
        served = serving => served.expect("it serves"),
    }
}

/// How a delivery ended.
#[derive(Debug)]
pub(crate) struct Delivered {
    /// Acks, the first of which tells what the collector held before.
    pub(crate) acks: Vec<Ack>,
    /// Why the collector ended it, where it refused something.
    pub(crate) refusal: Option<Status>,
}

/// Delivers these batches on a stream of their own, and waits for its end.
pub(crate) async fn deliver(channel: &Channel, batches: Vec<SealedBatch>) -> Delivered {
    let mut client = IngestClient::new(channel.clone());
    let mut acks = match client.deliver(tokio_stream::iter(batches)).await {
        Ok(answer) => answer.into_inner(),
        Err(refusal) => return Delivered { acks: Vec::new(), refusal: Some(refusal) },
    };
    let mut delivered = Delivered { acks: Vec::new(), refusal: None };
    loop {
        match acks.message().await {
            Ok(Some(ack)) => delivered.acks.push(ack),
            Ok(None) => return delivered,
            Err(refusal) => {
                delivered.refusal = Some(refusal);
                return delivered;
            }
        }
    }
}

/// A runtime for a case that speaks the protocol itself.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// The sensor's signing key, PKCS #8.
pub(crate) fn signing_key(sensor: &Sensor) -> Vec<u8> {
    fs::read(sensor.edge.state_dir.join("keys").join("signing.key")).expect("a key")
}
