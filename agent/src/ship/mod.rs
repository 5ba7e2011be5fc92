//! The shipper: sessions with gateways.
//!
//! Owns connecting, reconnecting and the frames on the wire. What may be sent when, and what an answer means, is
//! [`outbox`]'s; what becomes of a refused batch is the tailer's. Batches that are not acknowledged when a session ends
//! stay here, compressed as they are, and go out again in the next one.

pub mod connect;
mod endpoints;
pub mod outbox;
mod session;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use logmesh_certs::TlsSource;
use logmesh_proto::v1;
use logmesh_runtime::{backoff::Backoff, health::Condition};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use connect::{ConnectError, Endpoint, connect};
use endpoints::Endpoints;
use outbox::Outbox;

use crate::{
    mailbox::Mailbox,
    parcel::{Answer, Parcel},
};

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What the shipper is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Gateways.
    pub gateways: Vec<Endpoint>,
    /// The codec of the batches.
    pub codec: v1::Codec,
    /// 16 random bytes of this run.
    pub instance: [u8; 16],
    /// This host's name.
    pub host: String,
}

/// How the connection is, for the status.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Link {
    /// The gateway of the session.
    pub gateway: Option<String>,
    /// The session's name in that gateway's logs.
    pub session: Option<String>,
    /// Who the gateway says we are.
    pub identity: Option<String>,
    /// Sessions begun since the start.
    pub sessions: u64,
    /// Why the last attempt or session ended.
    pub last_error: Option<String>,
}

/// See the module.
pub struct Shipper {
    settings: Settings,
    tls: Arc<TlsSource>,
    parcels: mpsc::Receiver<Parcel>,
    mailbox: Arc<Mailbox>,
    condition: Condition,
    policy_condition: Condition,
    link: Arc<std::sync::Mutex<Link>>,
    outbox: Outbox,
    endpoints: Endpoints,
    start: Instant,
}

impl std::fmt::Debug for Shipper {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shipper").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// We said goodbye.
    Finished,
    /// The gateway asked us to leave and not to come back for so long.
    Drained(Duration),
    /// It broke, or never began.
    Failed(String),
}

impl Shipper {
    /// Puts a shipper together.
    #[must_use]
    pub fn new(
        settings: Settings,
        tls: Arc<TlsSource>,
        parcels: mpsc::Receiver<Parcel>,
        mailbox: Arc<Mailbox>,
        conditions: [Condition; 2],
        link: Arc<std::sync::Mutex<Link>>,
    ) -> Self {
        let endpoints = Endpoints::new(&settings.gateways);
        let [condition, policy_condition] = conditions;
        condition.set("no session with a gateway yet");
        policy_condition.clear();
        Self {
            settings,
            tls,
            parcels,
            mailbox,
            condition,
            policy_condition,
            link,
            outbox: Outbox::default(),
            endpoints,
            start: Instant::now(),
        }
    }

    /// Keeps a session going until `finish`; then says goodbye.
    pub async fn run(mut self, finish: CancellationToken) {
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        while !finish.is_cancelled() {
            let Some(endpoint) = self.endpoints.pick(self.now(), rand::random()) else { return };
            let (ended, worked) = self.attempt(&endpoint, &finish).await;
            if worked {
                backoff.reset();
            }
            let wait = match ended {
                Ended::Finished => return,
                Ended::Drained(avoid) => {
                    tracing::info!(gateway = %endpoint, "the gateway asked us to move");
                    self.endpoints.avoid(&endpoint, self.now() + avoid);
                    if self.endpoints.all_aside(self.now()) { backoff.next(rand::random()) } else { Duration::ZERO }
                }
                Ended::Failed(reason) => {
                    self.note_failure(&endpoint, &reason);
                    self.endpoints.failed(&endpoint, self.now());
                    backoff.next(rand::random())
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = finish.cancelled() => {}
            }
        }
    }

    async fn attempt(&mut self, endpoint: &Endpoint, finish: &CancellationToken) -> (Ended, bool) {
        let connected = tokio::select! {
            connected = connect(endpoint, &self.tls) => connected,
            () = finish.cancelled() => return (Ended::Finished, false),
        };
        match connected {
            Ok(channel) => {
                let outcome = self.session(endpoint, channel, finish).await;
                self.outbox.close();
                self.mailbox.answer([Answer::Closed]);
                self.with_link(|link| (link.gateway, link.session) = (None, None));
                outcome
            }
            Err(error) => (Ended::Failed(describe(&error)), false),
        }
    }

    fn note_failure(&self, endpoint: &Endpoint, reason: &str) {
        let news = self.with_link(|link| {
            let news = link.last_error.as_deref() != Some(reason);
            link.last_error = Some(reason.to_owned());
            news
        });
        if news {
            tracing::warn!(gateway = %endpoint, reason, "no session with the gateway; trying again");
        }
        self.condition.set(format!("no session with a gateway: {reason}"));
    }

    fn with_link<T>(&self, change: impl FnOnce(&mut Link) -> T) -> T {
        change(&mut self.link.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

fn describe(error: &ConnectError) -> String {
    logmesh_runtime::process::chain(error)
}
