//! TLS towards the sensors: 1.3 only, on ring; a client certificate where the client has one. Handshakes run off
//! the accept loop, within a time limit, and nothing a client does ends the loop.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use onenet_proto::config::ConfigError;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, Sleep},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::{ca, config, store::Sha256};

/// How long a connection without a client certificate may last: enough to enrol, too short to sit on.
const ANONYMOUS_LIFETIME: Duration = Duration::from_secs(30);

/// How long to wait after an error of accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Reads certificates and key and makes the server's configuration.
pub fn server_config(server: &config::ServerConfig) -> Result<Arc<ServerConfig>, ConfigError> {
    let file = &server.certificate;
    let problem = |error: &dyn std::fmt::Display| ConfigError::of_file(file, error.to_string());
    let mut chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| problem(&format!("expected certificates in PEM: {error}")))?;
    let key = PrivateKeyDer::from_pem_file(&server.key).map_err(|error| {
        ConfigError::of_file(&server.key, format!("expected a private key in PEM: {error}"))
    })?;
    let ca = ca::read_certificate(&server.ca_certificate)?;
    let ca_problem = |error: &dyn std::fmt::Display| {
        ConfigError::of_file(
            &server.ca_certificate,
            format!("expected the certificate of an authority: {error}"),
        )
    };
    // A sensor that enrols knows no more of the authority than the hash in its token, so it is sent with the chain.
    if !chain.contains(&ca) {
        chain.push(ca.clone());
    }
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(|error| ca_problem(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| ca_problem(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| problem(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| problem(&format!("certificate and key do not fit: {error}")))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // No resumption: each connection shows a certificate that is valid at that moment.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Address.
    pub address: SocketAddr,
    /// SHA-256 of its certificate, which our authority signed; none where it showed none.
    pub fingerprint: Option<Sha256>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    deadline: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Limits of the accept loop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at one time, handshakes included.
    pub connections: usize,
    /// Time for a handshake.
    pub handshake: Duration,
}

/// Accepts connections for as long as the stream is read.
pub fn incoming(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    limits: Limits,
) -> ReceiverStream<Result<Connection, Infallible>> {
    let (ready, connections) = mpsc::channel(16);
    tokio::spawn(accept(listener, TlsAcceptor::from(tls), limits, ready));
    ReceiverStream::new(connections)
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    limits: Limits,
    ready: mpsc::Sender<Result<Connection, Infallible>>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    loop {
        let Ok(permit) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                tokio::spawn(handshake(
                    acceptor.clone(),
                    stream,
                    address,
                    limits.handshake,
                    permit,
                    ready.clone(),
                ));
            }
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    limit: Duration,
    permit: OwnedSemaphorePermit,
    ready: mpsc::Sender<Result<Connection, Infallible>>,
) {
    // Without it small acks wait for the peer's delayed acknowledgements.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(limit, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::info!(%address, "TLS handshake failed: {error}"),
        Err(_) => return tracing::info!(%address, "TLS handshake took longer than {} s", limit.as_secs()),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let fingerprint = certificate.map(|certificate| ca::sha256(certificate));
    let deadline = Instant::now() + ANONYMOUS_LIFETIME;
    let deadline = fingerprint.is_none().then(|| Box::pin(tokio::time::sleep_until(deadline)));
    let peer = Peer { address, fingerprint };
    // The server may be stopping.
    let _ = ready.send(Ok(Connection { stream, peer, deadline, _permit: permit })).await;
}
