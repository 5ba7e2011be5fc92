//! From an endpoint's name to its addresses, and from an address to a channel: TCP and TLS under one deadline, HTTP/2
//! settings that are all explicit.

use std::{io, net::SocketAddr, time::Duration};

use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use logmesh_certs::TlsSource;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint as TonicEndpoint};
use tower::service_fn;
use tower_service::Service;

/// From a name to its addresses.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Pings while idle, and the wait for an answer: a silent path is found in 40 s.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

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

/// Where to connect: one address of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The name, which the gateway's certificate must bear.
    pub(super) endpoint: Endpoint,
    /// The address.
    pub(super) address: SocketAddr,
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.endpoint.to_string();
        let address = self.address.to_string();
        if name == address { formatter.write_str(&name) } else { write!(formatter, "{name} ({address})") }
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
    #[error("no connection to {0} within {1:?}")]
    Late(String, Duration),
    /// HTTP/2 could not begin.
    #[error("no HTTP/2 with {0}: {1}")]
    Protocol(String, #[source] tonic::transport::Error),
}

/// Where a name leads now: addresses in the resolver's order.
///
/// # Errors
/// The name leads nowhere, or nobody said so in time.
pub(super) async fn resolve(endpoint: Endpoint) -> Result<Vec<SocketAddr>, ConnectError> {
    let unresolved = |error| ConnectError::Resolve(endpoint.host.clone(), error);
    let looked =
        tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)));
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s");
    let found: Vec<SocketAddr> = looked.await.unwrap_or_else(|_| Err(late())).map_err(unresolved)?.collect();
    if found.is_empty() { Err(unresolved(io::Error::new(io::ErrorKind::NotFound, "no address"))) } else { Ok(found) }
}

/// Connects to one address, presenting what the source holds now: TCP, TLS and HTTP/2 within `within`.
///
/// # Errors
/// Whatever kept it from being connected in time.
pub(super) async fn connect(target: &Target, tls: &TlsSource, within: Duration) -> Result<Channel, ConnectError> {
    let connected = tokio::time::timeout(within, async {
        let stream = open(target, tls).await?;
        channel(&target.endpoint, stream).await
    });
    connected.await.unwrap_or_else(|_| Err(ConnectError::Late(target.to_string(), within)))
}

async fn open(target: &Target, tls: &TlsSource) -> Result<TlsStream<TcpStream>, ConnectError> {
    let address = target.address;
    let stream = dial(address).await.map_err(|error| ConnectError::Reach(address, error))?;
    let handshake = |error| ConnectError::Handshake(address, error);
    let name = ServerName::try_from(target.endpoint.host.clone());
    let name = name.map_err(|error| handshake(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    TlsConnector::from(tls.client()).connect(name, stream).await.map_err(handshake)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_port_is_no_endpoint() {
        for text in ["gw1", "gw1:", "gw1:99999", ":1", "a b:1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
        assert_eq!("[::1]:3".parse::<Endpoint>().unwrap().to_string(), "[::1]:3");
    }
}
