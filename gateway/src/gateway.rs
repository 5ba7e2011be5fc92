//! The gateway as a whole: accepting, its conditions, and leaving in order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use logmesh_bus::{Bus, Condition as BusCondition};
use logmesh_certs::{Identity, Role, TlsSource};
use logmesh_proto::Limits;
use logmesh_proto::ingest_server::IngestServer;
use logmesh_runtime::Context;
use logmesh_runtime::budget::Budget;
use logmesh_runtime::config::Live;
use logmesh_runtime::health::Condition;
use logmesh_runtime::shutdown::Exit;
use logmesh_runtime::telemetry::observe_certificate;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, interval, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use crate::complaints::Complaints;
use crate::config::Config;
use crate::connection::Connections;
use crate::credit::Credits;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::registry::Registry;
use crate::service::{IngestService, Shared};

/// Handshakes at a time.
const HANDSHAKES_MAX: usize = 64;
/// A frame beyond this ends its session; a batch beyond the limits but below this is refused alone.
const FRAME_BYTES_MAX: usize = 8 << 20;
/// Descriptors kept for everything but connections.
const DESCRIPTORS_RESERVED: u64 = 64;
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(20);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often health and certificates are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A gateway, ready to run.
pub struct Gateway {
    config: Config,
    context: Context,
    shared: Arc<Shared>,
    listener_condition: Condition,
    bus_condition: Condition,
}

/// Why a gateway cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The certificate is not a gateway's: no agent would talk to it.
    #[error("{} names {identity}, which is no gateway; issue one with `logmesh certs issue gateway`", path.display())]
    NotAGateway {
        /// The certificate's file.
        path: std::path::PathBuf,
        /// Who it names.
        identity: Identity,
    },
}

impl Gateway {
    /// Puts a gateway together. Its conditions appear in the context's health as not ready until it listens.
    ///
    /// # Errors
    /// [`GatewayError::NotAGateway`].
    pub fn new(config: Config, tls: Arc<TlsSource>, bus: Arc<dyn Bus>, context: Context) -> Result<Self, GatewayError> {
        let identity = tls.identity();
        if identity.role() != Role::Gateway {
            return Err(GatewayError::NotAGateway { path: tls.files().cert.clone(), identity });
        }
        let certificate = Arc::clone(&tls);
        observe_certificate(&context.meter, "gateway", move || certificate.expires_at());
        let limits = Limits::default();
        // The rest is for TLS, HTTP/2 and what is being read.
        let share = config.memory / 4 * 3;
        let budget = Budget::new("gateway", usize::try_from(share).unwrap_or(usize::MAX));
        let policy = Policy::new(&config.policy, limits.uncompressed_bytes_max);
        let shared = Arc::new(Shared {
            metrics: Arc::new(Metrics::new(&context.meter, &budget)),
            credits: Arc::new(Credits::new(share, limits.encoded_bytes_max)),
            registry: Arc::new(Registry::new(context.health.condition("gateway.cloned_identity"))),
            lanes: Arc::default(),
            complaints: Complaints::default(),
            drain_deadline: config.shutdown_grace * 6 / 10,
            session_age_max: config.session_age_max,
            sessions: TaskTracker::new(),
            streams: TaskTracker::new(),
            abort: CancellationToken::new(),
            tls,
            bus,
            policy: Live::new(policy),
            limits,
            budget,
        });
        let listener_condition = context.health.condition("gateway.listener");
        let bus_condition = context.health.condition("gateway.bus");
        Ok(Self { config, context, shared, listener_condition, bus_condition })
    }

    /// Serves until the context's shutdown is requested, then leaves in order within the grace.
    pub async fn run(self, listener: TcpListener) -> Exit {
        let (reporter, health) = health_reporter();
        let ingest = IngestServer::new(IngestService(Arc::clone(&self.shared)), FRAME_BYTES_MAX);
        let (generation_sender, generation) = watch::channel(self.shared.tls.generation());
        let connections = Arc::new(Connections {
            shared: Arc::clone(&self.shared),
            routes: Routes::new(ingest).add_service(health).prepare(),
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            leave: CancellationToken::new(),
            generation,
        });
        self.register_status();
        self.listening(&listener);
        let open = TaskTracker::new();
        let failed = tokio::select! {
            () = self.accept(&listener, &connections, &open) => false,
            () = self.watch_bus() => true,
            () = self.look(&reporter, &generation_sender) => false,
            () = self.context.shutdown.requested() => false,
        };
        self.listener_condition.stop();
        set_serving(&reporter, false).await;
        drop(listener);
        let left = self.leave(&connections, &open).await;
        if failed { Exit::Failed } else { left }
    }

    fn listening(&self, listener: &TcpListener) {
        self.listener_condition.clear();
        let address = listener.local_addr().map_or_else(|_| "unknown".to_owned(), |address| address.to_string());
        let identity = self.shared.tls.identity();
        tracing::info!(%address, %identity, "gateway listens");
        if self.shared.policy.load().is_empty() {
            tracing::warn!("no [[gateway.policy]]: every session will be refused");
        }
    }

    /// Accepts connections for ever. A failure to accept is waited out, never spun on.
    async fn accept(&self, listener: &TcpListener, connections: &Arc<Connections>, open: &TaskTracker) {
        let max = connections_max(self.config.connections_max);
        let places = Arc::new(Semaphore::new(max));
        let mut pause = ACCEPT_PAUSE_MIN;
        loop {
            let place = self.place(&places, max).await;
            match listener.accept().await {
                Ok((socket, address)) => {
                    pause = ACCEPT_PAUSE_MIN;
                    self.listener_condition.clear();
                    open.spawn(serve(Arc::clone(connections), socket, address, place));
                }
                Err(error) => {
                    self.shared.metrics.accept_failed();
                    if is_of_one_connection(&error) {
                        continue;
                    }
                    self.listener_condition.warn(format!(
                        "accepting connections: {error}; {} are open; if descriptors ran out, raise the limit (ulimit -n)",
                        open.len()
                    ));
                    sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
    }

    async fn place(&self, places: &Arc<Semaphore>, max: usize) -> Option<OwnedSemaphorePermit> {
        if places.available_permits() == 0 {
            self.listener_condition
                .warn(format!("all {max} connections are taken; new ones wait (gateway.connections_max)"));
        }
        Arc::clone(places).acquire_owned().await.ok()
    }

    /// Shows how the bus fares as a condition of the gateway. Ends when the bus has failed for good: a process that can
    /// acknowledge nothing any more leaves, so that its agents go elsewhere and somebody looks.
    async fn watch_bus(&self) {
        let mut condition = self.shared.bus.condition();
        loop {
            match &*condition.borrow_and_update() {
                BusCondition::Ok => self.bus_condition.clear(),
                BusCondition::Full { reason } | BusCondition::Degraded { reason } => {
                    self.bus_condition.set(reason.clone());
                }
                BusCondition::Failed { reason } => {
                    self.bus_condition.set(reason.clone());
                    tracing::error!(%reason, "the bus has failed for good: the gateway leaves");
                    return;
                }
            }
            if condition.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Looks at health and certificates now and then.
    async fn look(&self, reporter: &HealthReporter, generation: &watch::Sender<u64>) {
        let mut ticks = interval(LOOK_INTERVAL);
        let mut serving = None;
        loop {
            ticks.tick().await;
            let ready = self.context.health.readiness().ready;
            if serving != Some(ready) {
                serving = Some(ready);
                set_serving(reporter, ready).await;
            }
            let now = self.shared.tls.generation();
            generation.send_if_modified(|known| std::mem::replace(known, now) != now);
        }
    }

    /// Drain, GOAWAY, abort: each within its part of the grace, whatever peers and bus do.
    async fn leave(&self, connections: &Connections, open: &TaskTracker) -> Exit {
        let begun = Instant::now();
        let grace = self.config.shutdown_grace;
        let shared = &self.shared;
        shared.registry.drain_all();
        shared.sessions.close();
        shared.streams.close();
        open.close();
        let drained = timeout_at(begun + grace * 7 / 10, shared.sessions.wait());
        self.unless_aborted(drained).await;
        connections.leave.cancel();
        let gone = timeout_at(begun + grace * 9 / 10, open.wait());
        self.unless_aborted(gone).await;
        shared.abort.cancel();
        let ended = async { tokio::join!(open.wait(), shared.sessions.wait(), shared.streams.wait()) };
        if timeout_at(begun + grace, ended).await.is_err() {
            tracing::error!(
                connections = open.len(),
                sessions = shared.sessions.len(),
                "tasks did not end within the grace"
            );
        }
        let unanswered = shared.registry.unanswered();
        tracing::info!(
            unanswered,
            took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "gateway stopped"
        );
        if unanswered > 0 { Exit::Unacknowledged } else { Exit::Clean }
    }

    async fn unless_aborted(&self, step: impl Future) {
        tokio::select! {
            _ = step => {}
            () = self.context.shutdown.aborted() => {}
        }
    }

    fn register_status(&self) {
        let shared = Arc::clone(&self.shared);
        self.context.status.register(
            "gateway",
            Arc::new(move || {
                let lanes: Vec<_> = shared
                    .lanes
                    .snapshot()
                    .into_iter()
                    .map(|(lane, reason)| json!({ "lane": &*lane, "held": reason }))
                    .collect();
                json!({
                    "identity": shared.tls.identity().as_str(),
                    "memory": { "used_bytes": shared.budget.used(), "capacity_bytes": shared.budget.capacity() },
                    "sessions": shared.registry.snapshot(),
                    "lanes": lanes,
                })
            }),
        );
    }
}

async fn serve(
    connections: Arc<Connections>,
    socket: TcpStream,
    address: SocketAddr,
    place: Option<OwnedSemaphorePermit>,
) {
    connections.serve(socket, address).await;
    drop(place);
}

async fn set_serving(reporter: &HealthReporter, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in ["", "logmesh.v1.Ingest"] {
        reporter.set_service_status(service, status).await;
    }
}

/// As many as configured, and fewer where the process may not open so many files.
fn connections_max(configured: u32) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let room = limit.map_or(u64::MAX, |limit| limit.saturating_sub(DESCRIPTORS_RESERVED.max(limit / 8)).max(1));
    usize::try_from(u64::from(configured).min(room)).unwrap_or(1).min(Semaphore::MAX_PERMITS)
}

/// Failures that say something of the one connection that was to be accepted, and nothing of the next.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
