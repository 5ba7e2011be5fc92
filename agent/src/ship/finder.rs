//! Finding a gateway: resolving, picking, connecting, greeting, until one says Welcome.
//!
//! Owns what is known of gateways, and the pace of trying. Knows nothing of batches: it may look for the next gateway
//! while a session with another one is still under way.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use logmesh_certs::TlsSource;
use logmesh_proto::{
    PROTOCOL_VERSION, v1,
    v1::{client_frame, ingest_client::IngestClient, server_frame},
};
use logmesh_runtime::{backoff::Backoff, health::Condition};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    Link, Settings,
    connect::{ConnectError, Endpoint, Target, connect, resolve},
    describe_status,
    endpoints::Endpoints,
};

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// TCP, TLS and HTTP/2 to an address, when it is the only one left.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same while others are left to be tried.
const CONNECT_TIMEOUT_AMONG: Duration = Duration::from_secs(3);
/// From the call to the Welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// Once some name led somewhere, how long others are waited for.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// Longest pause between tries while addresses are left that are not set aside.
const PAUSE_AMONG: Duration = Duration::from_millis(100);
/// Frames between us and HTTP/2. The rest waits in the outbox.
const FRAMES_MAX: usize = 2;
/// Largest frame from a gateway: an Ack of many sequences.
const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// How a name is resolved.
type Resolver = Arc<dyn Fn(Endpoint) -> BoxFuture<'static, Result<Vec<SocketAddr>, ConnectError>> + Send + Sync>;

/// A session that was welcomed and has not begun.
pub(super) struct Ready {
    pub(super) target: Target,
    pub(super) frames: Streaming<v1::ServerFrame>,
    pub(super) sender: mpsc::Sender<v1::ClientFrame>,
    pub(super) welcome: v1::Welcome,
}

/// Why there is no session.
#[derive(Debug)]
struct Failure {
    reason: String,
    /// The gateway asked to be left alone for so long.
    avoid: Option<Duration>,
}

/// See the module.
pub(super) struct Finder {
    settings: Settings,
    tls: Arc<TlsSource>,
    endpoints: Endpoints,
    backoff: Backoff,
    resolver: Resolver,
    condition: Condition,
    link: Arc<Mutex<Link>>,
    start: Instant,
}

impl Finder {
    pub(super) fn new(
        settings: Settings,
        tls: Arc<TlsSource>,
        condition: Condition,
        link: Arc<Mutex<Link>>,
        start: Instant,
    ) -> Self {
        Self {
            endpoints: Endpoints::new(&settings.gateways),
            settings,
            tls,
            backoff: Backoff::new(BACKOFF_MIN, BACKOFF_MAX),
            resolver: Arc::new(|endpoint| Box::pin(resolve(endpoint))),
            condition,
            link,
            start,
        }
    }

    /// Whether there is any gateway to look for.
    pub(super) fn is_empty(&self) -> bool {
        self.settings.gateways.is_empty()
    }

    /// Looks until a gateway says Welcome. With `alone` there is no session meanwhile, and readiness says why. Cancel safe.
    pub(super) async fn find(&mut self, alone: bool) -> Ready {
        loop {
            self.resolve(alone).await;
            let Some(target) = self.endpoints.pick(self.now(), rand::random()) else {
                self.pause(false).await;
                continue;
            };
            let fresh = self.endpoints.fresh(self.now());
            if fresh == 0 {
                self.pause(false).await;
            }
            match self.reach(&target, if fresh > 1 { CONNECT_TIMEOUT_AMONG } else { CONNECT_TIMEOUT }).await {
                Ok(ready) => return ready,
                Err(failure) => {
                    self.failed(&target, &failure.reason, failure.avoid, alone);
                    if self.endpoints.fresh(self.now()) > 0 {
                        self.pause(true).await;
                    }
                }
            }
        }
    }

    /// A session with a gateway worked.
    pub(super) fn worked(&mut self, target: &Target) {
        self.backoff.reset();
        self.endpoints.worked(target);
    }

    /// A gateway asked to be left.
    pub(super) fn avoid(&mut self, target: &Target, time: Duration) {
        self.endpoints.avoid(target, self.now(), time, rand::random());
    }

    /// A session broke or never began.
    pub(super) fn failed(&mut self, target: &Target, reason: &str, avoid: Option<Duration>, alone: bool) {
        match avoid {
            Some(time) => self.avoid(target, time),
            None => self.endpoints.failed(target, self.now(), rand::random()),
        }
        self.note(&format!("{target}: {reason}"), alone);
    }

    /// Asks where every name leads now. Waits for the slow ones only until something is known.
    async fn resolve(&mut self, alone: bool) {
        let mut looking: FuturesUnordered<_> = self
            .endpoints
            .names()
            .cloned()
            .map(|name| {
                let found = (self.resolver)(name.clone());
                async move { (name, found.await) }
            })
            .collect();
        let stragglers = tokio::time::sleep(STRAGGLERS);
        tokio::pin!(stragglers);
        loop {
            let known = self.endpoints.pick(self.now(), 0).is_some();
            tokio::select! {
                biased;
                looked = looking.next() => match looked {
                    Some((name, Ok(found))) => self.endpoints.resolved(&name, &found),
                    Some((_, Err(error))) => self.note(&logmesh_runtime::process::chain(&error), alone),
                    None => return,
                },
                () = &mut stragglers, if known => return,
            }
        }
    }

    /// Waits before the next try: shortly while there are others to be tried, by the growing back-off when there are none.
    async fn pause(&mut self, among: bool) {
        let drawn = self.backoff.next(rand::random());
        tokio::time::sleep(if among { drawn.min(PAUSE_AMONG) } else { drawn }).await;
    }

    async fn reach(&self, target: &Target, within: Duration) -> Result<Ready, Failure> {
        let channel = connect(target, &self.tls, within).await;
        let failure = |reason| Failure { reason, avoid: None };
        let channel = channel.map_err(|error| failure(logmesh_runtime::process::chain(&error)))?;
        match tokio::time::timeout(WELCOME_TIMEOUT, self.greet(target, channel)).await {
            Ok(greeted) => greeted,
            Err(_) => Err(failure("no Welcome within 10 s".to_owned())),
        }
    }

    /// Hello and Welcome.
    async fn greet(&self, target: &Target, channel: Channel) -> Result<Ready, Failure> {
        let failure = |reason: String| Failure { reason, avoid: None };
        let (sender, receiver) = mpsc::channel(FRAMES_MAX);
        let hello = v1::Hello {
            protocol_version: PROTOCOL_VERSION,
            software: concat!("logmesh-agent/", env!("CARGO_PKG_VERSION")).into(),
            instance: self.settings.instance.to_vec().into(),
            codecs: vec![self.settings.codec.into()],
            host: self.settings.host.clone(),
        };
        let frame = v1::ClientFrame { frame: Some(client_frame::Frame::Hello(hello)) };
        sender.try_send(frame).map_err(|_| failure("the session is over".to_owned()))?;
        let mut client = IngestClient::new(channel).max_decoding_message_size(FRAME_BYTES_MAX);
        let refused = |status: Status| Failure {
            reason: format!("it refused the session: {}", describe_status(&status)),
            avoid: pushback(&status),
        };
        let mut frames = client.stream(ReceiverStream::new(receiver)).await.map_err(refused)?.into_inner();
        let first = frames.message().await.map_err(refused)?;
        let Some(server_frame::Frame::Welcome(welcome)) = first.and_then(|first| first.frame) else {
            return Err(failure("it did not begin with a Welcome".to_owned()));
        };
        if !welcome.codecs.contains(&i32::from(self.settings.codec)) {
            let codec = self.settings.codec.as_str_name();
            return Err(failure(format!("it does not take {codec}: set another agent.compression")));
        }
        Ok(Ready { target: target.clone(), frames, sender, welcome })
    }

    fn note(&self, reason: &str, alone: bool) {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if link.last_error.as_deref() != Some(reason) {
            tracing::warn!(reason, "no session with a gateway; trying again");
            link.last_error = Some(reason.to_owned());
        }
        drop(link);
        if alone {
            self.condition.set(format!("no session with a gateway: {reason}"));
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// How long a gateway that refuses sessions asks to be left alone (gRPC's retry pushback, in milliseconds).
fn pushback(status: &Status) -> Option<Duration> {
    let said = status.metadata().get("grpc-retry-pushback-ms").filter(|_| status.code() == Code::Unavailable)?;
    said.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests;
