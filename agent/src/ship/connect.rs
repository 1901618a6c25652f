//! One connection to a collector: TCP, TLS and HTTP/2, each with its time limit.

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint as GrpcEndpoint, Uri};
use tower::service_fn;

use crate::config::Endpoint;

/// For TCP and TLS each. With the pings below and the longest wait between two attempts, a collector is connected
/// within 30 s of the end of a partition, whatever the moment.
const CONNECT_LIMIT: Duration = Duration::from_secs(7);
/// A ping this often, answered within [`PING_LIMIT`], or the connection is taken for dead.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_LIMIT: Duration = Duration::from_secs(7);

/// A collector, and how to tell that it is the right one.
#[derive(Clone)]
pub(crate) struct Target {
    /// Address.
    pub(crate) endpoint: Endpoint,
    /// Name that its certificate must carry.
    pub(crate) server_name: String,
    /// Whom to trust.
    pub(crate) tls: Arc<ClientConfig>,
}

/// Why there is no connection, as one line for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConnectError(pub(crate) String);

/// Connects.
pub(crate) async fn connect(target: &Target) -> Result<Channel, ConnectError> {
    let Target { endpoint, server_name, tls } = target.clone();
    let fail = |what: &dyn std::fmt::Display| ConnectError(format!("{}: {what}", target.endpoint));
    let name = ServerName::try_from(server_name)
        .map_err(|_| fail(&format_args!("{:?} cannot be the name in a certificate", target.server_name)))?;
    let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
    let tcp = match timeout(CONNECT_LIMIT, tcp).await {
        Ok(connected) => {
            connected.map_err(|error| fail(&format_args!("cannot connect: {}", plain(&error))))?
        }
        Err(_) => return Err(fail(&"cannot connect: no answer")),
    };
    // Small messages must not wait for acknowledgements of earlier ones.
    let _ = tcp.set_nodelay(true);
    let stream = match timeout(CONNECT_LIMIT, TlsConnector::from(tls).connect(name, tcp)).await {
        Ok(secured) => secured.map_err(|error| fail(&format_args!("TLS: {}", plain(&error))))?,
        Err(_) => return Err(fail(&"TLS: no answer")),
    };
    // The one connection is made; the channel only has to take it. It never makes another.
    let mut stream = Some(stream);
    let connector = service_fn(move |_: Uri| {
        let stream = stream.take();
        async move { stream.map(TokioIo::new).ok_or_else(|| io::Error::other("the connection has ended")) }
    });
    GrpcEndpoint::from_shared(endpoint.to_string())
        .map_err(|error| fail(&error))?
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_LIMIT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|error| fail(&error))
}

/// An error in the words of its innermost cause, without the number of the system's error.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    // What a certificate check of ours says, rustls calls unexpected.
    text.strip_prefix("unexpected error: ").unwrap_or(text).to_lowercase()
}

/// What the collector answered, as one line for people.
pub(crate) fn describe(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    if text.is_empty() {
        text = status.code().description().to_owned();
    }
    let mut cause = std::error::Error::source(status);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    // rustls explains a cut connection with the address of its manual.
    let text = text.split(": https://docs.rs").next().unwrap_or(&text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
