//! The service `logmesh.v1.Ingest`: who may open a session, and with what it is run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use logmesh_bus::Bus;
use logmesh_certs::{Identity, TlsSource};
use logmesh_proto::ingest_server::Ingest;
use logmesh_proto::{ClientFrame, Limits, v1};
use logmesh_runtime::budget::Budget;
use logmesh_runtime::config::Live;
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use crate::complaints::Complaints;
use crate::credit::Credits;
use crate::driver::{ANSWER_FRAMES_MAX, Driver, State};
use crate::lanes::Lanes;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::registry::Registry;
use crate::session::{Session, Terms};

/// Silence after which either side takes the other for dead: HTTP/2 pings every 20 s, each waited for as long.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(40);

/// What all sessions and connections of a gateway share.
pub(crate) struct Shared {
    pub(crate) tls: Arc<TlsSource>,
    pub(crate) bus: Arc<dyn Bus>,
    /// In force now; a reload swaps it whole, and each new session goes by what it finds.
    pub(crate) policy: Live<Policy>,
    pub(crate) limits: Limits,
    pub(crate) budget: Budget,
    pub(crate) credits: Arc<Credits>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) complaints: Complaints,
    /// How long a drained session may go on.
    pub(crate) drain_deadline: Duration,
    /// Age at which a session is asked to move, before jitter; zero = never.
    pub(crate) session_age_max: Duration,
    /// Sessions.
    pub(crate) sessions: TaskTracker,
    /// Handlers of HTTP/2 streams: they end with their connection at the latest.
    pub(crate) streams: TaskTracker,
    /// Ends everything at once.
    pub(crate) abort: CancellationToken,
}

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    pub(crate) address: SocketAddr,
    /// Whether a request has come over this connection.
    pub(crate) has_asked: Arc<AtomicBool>,
    /// Cuts the connection off.
    pub(crate) cut_off: CancellationToken,
}

/// The service.
#[derive(Clone)]
pub(crate) struct IngestService(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Ingest for IngestService {
    type StreamStream = ReceiverStream<Result<v1::ServerFrame, Status>>;

    /// Answers with headers at once; the session then runs beside.
    async fn stream(&self, request: Request<Streaming<ClientFrame>>) -> Result<Response<Self::StreamStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("the connection has no peer"))?;
        let (answers, frames) = mpsc::channel(ANSWER_FRAMES_MAX);
        let driver = self.0.admit(&peer, answers)?;
        self.0.sessions.spawn(driver.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(frames)))
    }
}

impl Shared {
    fn admit(&self, peer: &Peer, answers: mpsc::Sender<Result<v1::ServerFrame, Status>>) -> Result<Driver, Status> {
        // The connection may be older than the newest revocation list.
        if let Err(error) = self.tls.readmit(&peer.chain, SystemTime::now()) {
            self.complain("certificate", peer, &error.to_string());
            peer.cut_off.cancel();
            return Err(Status::unauthenticated(error.to_string()));
        }
        let Some(grant) = self.policy.load().grant(peer.identity.as_str()) else {
            let reason = format!("no policy matches {}", peer.identity);
            self.complain("policy", peer, &reason);
            return Err(Status::permission_denied(reason));
        };
        let live = self.registry.join(peer.identity.clone(), Arc::clone(&grant.tenant), peer.address);
        let Some(live) = live else { return Err(draining()) };
        let mut credit = self.credits.join(&grant.tenant);
        let terms = Terms {
            identity: peer.identity.clone(),
            grant,
            limits: self.limits,
            lanes: Arc::clone(&self.lanes),
            name: live.id.to_string(),
            idle_timeout: IDLE_TIMEOUT,
        };
        Ok(Driver {
            session: Session::new(terms, credit.limit()),
            answers,
            bus: Arc::clone(&self.bus),
            budget: self.budget.clone(),
            credit,
            live,
            metrics: Arc::clone(&self.metrics),
            drain_deadline: self.drain_deadline,
            age_max: jittered(self.session_age_max, rand::random()),
            abort: self.abort.clone(),
            cut_off: peer.cut_off.clone(),
            state: State::new(Instant::now()),
        })
    }

    fn complain(&self, kind: &'static str, peer: &Peer, reason: &str) {
        self.metrics.session_refused(kind);
        if let Some(held_back) = self.complaints.may(kind, Instant::now()) {
            tracing::warn!(identity = %peer.identity, address = %peer.address, check = kind, reason, held_back, "session refused");
        }
    }
}

impl Peer {
    /// Notes that a request has come.
    pub(crate) fn asks(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
    }
}

/// The age at which one session is asked to move: 0.75 to 1.25 of `age`, as the draw in 0..1 says, so that sessions that began
/// together do not move together. `None` = never.
fn jittered(age: Duration, random: f64) -> Option<Duration> {
    (!age.is_zero()).then(|| age.mul_f64(0.75 + random / 2.0))
}

/// A draining gateway sends clients elsewhere, and says for how long (gRPC's own retry pushback).
fn draining() -> Status {
    let mut status = Status::unavailable("the gateway is shutting down");
    status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from_static("30000"));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_one_moment_move_at_different_ones_and_zero_is_never() {
        let hour = Duration::from_secs(3600);
        assert_eq!(jittered(hour, 0.0), Some(hour * 3 / 4));
        assert_eq!(jittered(hour, 0.5), Some(hour));
        assert!(jittered(hour, 0.999).is_some_and(|age| age < hour * 5 / 4));
        assert_eq!(jittered(Duration::ZERO, 0.5), None);
    }
}
