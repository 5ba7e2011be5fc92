//! One connection, from the accepted socket to its end: handshake, then HTTP/2.
//!
//! Owns the limits in time: one deadline for the whole handshake, one for the first request, and the order of leaving
//! (GOAWAY, then the abort that nothing can delay). A peer that is connected and silent costs a socket for some seconds,
//! and never delays anybody else.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use logmesh_certs::{Reason, Refusal};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tower_service::Service;

use crate::service::{IDLE_TIMEOUT, Peer, Shared};

/// From the accepted socket to the end of the TLS handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// From there to the first request.
const FIRST_REQUEST_DEADLINE: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
const FRAME_BYTES_MAX: u32 = 256 << 10;
const HEADER_BYTES_MAX: u32 = 16 << 10;
const STREAMS_MAX: u32 = 8;
/// What waits to be written; answers are small.
const SEND_BUFFER_BYTES_MAX: usize = 64 << 10;

/// What all connections share.
pub(crate) struct Connections {
    pub(crate) shared: Arc<Shared>,
    pub(crate) routes: Routes,
    /// Handshakes at a time: they are what costs the most CPU before anybody is known.
    pub(crate) handshakes: Semaphore,
    /// Asks for GOAWAY.
    pub(crate) leave: CancellationToken,
    /// Generation of the certificates: live peers are looked at again when it changes.
    pub(crate) generation: watch::Receiver<u64>,
}

/// Runs hyper's stream handlers as tracked tasks.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

impl Connections {
    /// Serves one connection to its end.
    pub(crate) async fn serve(self: Arc<Self>, socket: TcpStream, address: SocketAddr) {
        self.shared.metrics.connections.add(1, &[]);
        let served = async {
            match self.handshake(socket).await {
                Ok(stream) => self.http2(stream, address).await,
                Err(refusal) => self.refused(&refusal, address),
            }
        };
        tokio::select! {
            () = served => {}
            () = self.shared.abort.cancelled() => {}
        }
        self.shared.metrics.connections.add(-1, &[]);
    }

    async fn handshake(&self, socket: TcpStream) -> Result<TlsStream<TcpStream>, Refusal> {
        // Best effort: a socket without them works as well.
        let _ = socket.set_nodelay(true);
        let user_timeout = u32::try_from(IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&socket, user_timeout);
        let handshake = async {
            // A peer that says nothing takes no place among the handshakes. `readable` may say so without reason.
            socket.peek(&mut [0]).await.map_err(|error| Refusal::of_gateway(&error))?;
            let _place = self.handshakes.acquire().await;
            let (config, observed) = self.shared.tls.server_observed();
            let accepted = TlsAcceptor::from(config).accept(socket).await;
            accepted.map_err(|error| Refusal::of_agent(&error, &observed))
        };
        tokio::select! {
            done = timeout(HANDSHAKE_DEADLINE, handshake) => done.unwrap_or_else(|_| Err(Refusal::timeout(HANDSHAKE_DEADLINE))),
            () = self.leave.cancelled() => Err(Refusal::timeout(Duration::ZERO)),
        }
    }

    fn refused(&self, refusal: &Refusal, address: SocketAddr) {
        if self.leave.is_cancelled() {
            return;
        }
        self.shared.metrics.handshake_failed(refusal.reason);
        if refusal.reason == Reason::Connection {
            // A port scan, or a balancer that looks whether somebody listens.
            tracing::debug!(%address, reason = %refusal, "handshake not finished");
            return;
        }
        let check = refusal.reason.as_str();
        if let Some(held_back) = self.shared.complaints.may(check, Instant::now()) {
            tracing::warn!(%address, check, reason = %refusal, held_back, "connection refused");
        }
    }

    async fn http2(&self, stream: TlsStream<TcpStream>, address: SocketAddr) {
        let connection = stream.get_ref().1;
        if connection.alpn_protocol() != Some(b"h2") {
            return self.refused(&Refusal::no_http2(), address);
        }
        let chain: Arc<[CertificateDer<'static>]> = connection.peer_certificates().unwrap_or_default().into();
        let identity = match self.shared.tls.readmit(&chain, SystemTime::now()) {
            Ok(identity) => identity,
            Err(error) => return self.refused(&Refusal::of_identity(&error), address),
        };
        let peer = Peer {
            identity,
            chain,
            address,
            has_asked: Arc::new(AtomicBool::new(false)),
            cut_off: CancellationToken::new(),
        };
        self.drive(stream, peer).await;
    }

    async fn drive(&self, stream: TlsStream<TcpStream>, peer: Peer) {
        let service = {
            let (routes, peer) = (self.routes.clone(), peer.clone());
            hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
                peer.asks();
                request.extensions_mut().insert(peer.clone());
                let mut routes = routes.clone();
                async move { Service::call(&mut routes, request).await.map_err(|error: Infallible| error) }
            })
        };
        let connection = server(&self.shared.streams).serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut generation = self.generation.clone();
        let first_request = sleep(FIRST_REQUEST_DEADLINE);
        let mut first_request = std::pin::pin!(first_request);
        let (mut waiting, mut leaving) = (true, false);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(identity = %peer.identity, %error, "connection ended");
                    }
                    return;
                }
                () = peer.cut_off.cancelled() => return,
                () = self.leave.cancelled(), if !leaving => {
                    if !peer.has_asked.load(Ordering::Relaxed) {
                        return;
                    }
                    leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = first_request.as_mut(), if waiting => {
                    waiting = false;
                    if !peer.has_asked.load(Ordering::Relaxed) {
                        tracing::debug!(identity = %peer.identity, address = %peer.address, "no request; closing");
                        return;
                    }
                }
                Ok(()) = generation.changed() => {
                    if let Err(error) = self.shared.tls.readmit(&peer.chain, SystemTime::now()) {
                        tracing::warn!(identity = %peer.identity, address = %peer.address, %error, "closing a live connection");
                        return;
                    }
                }
            }
        }
    }
}

/// Every setting is explicit: defaults have changed under users before.
fn server(tasks: &TaskTracker) -> http2::Builder<Tracked> {
    let mut builder = http2::Builder::new(Tracked(tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(20)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
}
