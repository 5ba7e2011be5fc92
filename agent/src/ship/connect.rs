//! From an endpoint's name to a channel: DNS, TCP and TLS under one deadline, HTTP/2 settings that are all explicit.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use logmesh_certs::TlsSource;
use rand::seq::SliceRandom;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint as TonicEndpoint};
use tower::service_fn;
use tower_service::Service;

/// DNS, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Pings while idle, and the wait for an answer: a silent path is found in 40 s.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Addresses of one name that are tried for one connection.
const ADDRESSES_MAX: usize = 4;

/// A gateway to connect to: `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// An endpoint that cannot be read.
#[derive(Debug, Error)]
#[error("`{0}` is no gateway address: write host:port, such as gw1.example.com:4417")]
pub struct EndpointError(String);

impl std::str::FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let fault = || EndpointError(text.into());
        let (host, port) = text.rsplit_once(':').ok_or_else(fault)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().map_err(|_| fault())?;
        ServerName::try_from(host).map_err(|_| fault())?;
        Ok(Self { host: host.into(), port })
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            return write!(formatter, "[{}]:{}", self.host, self.port);
        }
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The name leads nowhere.
    #[error("cannot resolve {0}: {1}")]
    Resolve(String, #[source] io::Error),
    /// No address answered.
    #[error("cannot reach {0}: {1}")]
    Reach(SocketAddr, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The handshake failed on our side's checks, or theirs.
    #[error("the TLS handshake with {0} failed: {1}")]
    Handshake(SocketAddr, #[source] io::Error),
    /// It took too long.
    #[error("no connection to {0} within 10 s")]
    Late(String),
    /// HTTP/2 could not begin.
    #[error("no HTTP/2 with {0}: {1}")]
    Protocol(String, #[source] tonic::transport::Error),
}

/// Connects to an endpoint, presenting what the source holds now.
///
/// # Errors
/// Whatever kept it from being connected within the deadline.
pub async fn connect(endpoint: &Endpoint, tls: &TlsSource) -> Result<Channel, ConnectError> {
    let name = endpoint.to_string();
    let late = |_| ConnectError::Late(name.clone());
    tokio::time::timeout(CONNECT_TIMEOUT, async {
        let stream = open(endpoint, tls).await?;
        channel(endpoint, stream).await
    })
    .await
    .map_err(late)?
}

async fn open(endpoint: &Endpoint, tls: &TlsSource) -> Result<TlsStream<TcpStream>, ConnectError> {
    let unresolved = |error| ConnectError::Resolve(endpoint.host.clone(), error);
    let found = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await.map_err(unresolved)?;
    let mut addresses: Vec<SocketAddr> = found.collect();
    // Agents spread over the addresses of a name.
    addresses.shuffle(&mut rand::rng());
    addresses.truncate(ADDRESSES_MAX);
    let config = tls.client();
    let mut last = unresolved(io::Error::new(io::ErrorKind::NotFound, "no address"));
    for address in addresses {
        let stream = match dial(address).await {
            Ok(stream) => stream,
            Err(error) => {
                last = ConnectError::Reach(address, error);
                continue;
            }
        };
        // Its syntax was checked when the endpoint was read.
        let Ok(name) = ServerName::try_from(endpoint.host.clone()) else { continue };
        match TlsConnector::from(Arc::clone(&config)).connect(name, stream).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = ConnectError::Handshake(address, error),
        }
    }
    Err(last)
}

/// TCP, with signs of life asked for, so that a dead path is found even with nothing to send.
async fn dial(address: SocketAddr) -> Result<TcpStream, Box<dyn std::error::Error + Send + Sync>> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(true);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_secs(20)));
    connector.set_keepalive_interval(Some(Duration::from_secs(5)));
    connector.set_keepalive_retries(Some(4));
    #[cfg(target_os = "linux")]
    connector.set_tcp_user_timeout(Some(Duration::from_secs(40)));
    let uri: http::Uri = format!("http://{address}").parse()?;
    Ok(connector.call(uri).await?.into_inner())
}

async fn channel(endpoint: &Endpoint, stream: TlsStream<TcpStream>) -> Result<Channel, ConnectError> {
    let failed = |error| ConnectError::Protocol(endpoint.to_string(), error);
    // An https Endpoint insists on its own TLS: it is given http and the true origin.
    let settings = TonicEndpoint::from_shared(format!("http://{endpoint}")).map_err(failed)?;
    let origin = format!("https://{endpoint}").parse();
    let settings = origin.map_or_else(|_| settings.clone(), |origin| settings.clone().origin(origin));
    let settings = settings
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_adaptive_window(false)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    let mut once = Some(TokioIo::new(stream));
    let connector = service_fn(move |_| {
        // A channel is one connection: when it breaks the session ends, and the next one picks an endpoint anew.
        let stream = once.take().ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection is over"));
        std::future::ready(stream)
    });
    settings.connect_with_connector(connector).await.map_err(failed)
}
