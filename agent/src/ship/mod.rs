//! The shipper: sessions with gateways.
//!
//! Owns connecting, moving and the frames on the wire. What may be sent when, and what an answer means, is
//! [`outbox`]'s; what becomes of a refused batch is the tailer's. Batches that are not acknowledged when a session ends
//! stay here, compressed as they are, and go out again in the next one.
//!
//! A gateway that asks to be left is left in this order: the next one is looked for while this session goes on; once it has
//! said Welcome nothing more is sent here; once all that is in flight is answered the next session begins. So no batch is
//! sent twice, and no stream pauses for longer than its batches take to be answered.

pub mod connect;
mod endpoints;
mod finder;
pub mod look;
pub mod outbox;
mod session;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, sync::Arc, time::Duration};

use logmesh_certs::TlsSource;
use logmesh_proto::v1;
use logmesh_runtime::health::Condition;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use connect::Endpoint;
use finder::{Finder, Ready};
use outbox::Outbox;

use crate::{
    mailbox::Mailbox,
    parcel::{Answer, Errand},
};

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
    /// The address that its name led to.
    pub address: Option<String>,
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
    finder: Finder,
    work: Work,
}

/// What is the same over all sessions.
struct Work {
    errands: mpsc::Receiver<Errand>,
    mailbox: Arc<Mailbox>,
    condition: Condition,
    policy_condition: Condition,
    link: Arc<std::sync::Mutex<Link>>,
    outbox: Outbox,
    /// Sessions that are over and still say goodbye, each within two seconds.
    partings: JoinSet<()>,
    start: Instant,
}

impl std::fmt::Debug for Shipper {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shipper").finish_non_exhaustive()
    }
}

/// Why a session ended.
#[derive(Debug)]
enum Ended {
    /// We said goodbye.
    Finished,
    /// The gateway asked us to leave.
    Drained,
    /// It broke.
    Failed(String),
}

/// How a session went.
struct Outcome {
    ended: Ended,
    /// Whether any batch was acknowledged in it.
    worked: bool,
    /// The session that takes its place.
    successor: Option<Ready>,
}

impl Shipper {
    /// Puts a shipper together.
    #[must_use]
    pub fn new(
        settings: Settings,
        tls: Arc<TlsSource>,
        errands: mpsc::Receiver<Errand>,
        mailbox: Arc<Mailbox>,
        conditions: [Condition; 2],
        link: Arc<std::sync::Mutex<Link>>,
    ) -> Self {
        let [condition, policy_condition] = conditions;
        condition.set("no session with a gateway yet");
        policy_condition.clear();
        let start = Instant::now();
        Self {
            finder: Finder::new(settings, tls, condition.clone(), Arc::clone(&link), start),
            work: Work {
                errands,
                mailbox,
                condition,
                policy_condition,
                link,
                outbox: Outbox::default(),
                partings: JoinSet::new(),
                start,
            },
        }
    }

    /// Keeps a session going until `finish`; then says goodbye.
    pub async fn run(mut self, finish: CancellationToken) {
        if self.finder.is_empty() {
            return;
        }
        let mut next = None;
        loop {
            let ready = match next.take() {
                Some(ready) => ready,
                None => tokio::select! {
                    biased;
                    () = finish.cancelled() => break,
                    never = self.work.run_errands() => match never {},
                    ready = self.finder.find(true) => ready,
                },
            };
            let target = ready.target.clone();
            let outcome = self.work.session(ready, &mut self.finder, &finish).await;
            self.work.over();
            if outcome.worked {
                self.finder.worked(&target);
            }
            match outcome.ended {
                Ended::Finished => break,
                Ended::Drained => {}
                Ended::Failed(reason) => self.finder.failed(&target, &reason, None, outcome.successor.is_none()),
            }
            next = outcome.successor;
        }
        while self.work.partings.join_next().await.is_some() {}
    }
}

impl Work {
    /// Takes errands while there is no session: batches wait in the outbox, or are given back.
    async fn run_errands(&mut self) -> Infallible {
        while let Some(errand) = self.errands.recv().await {
            self.run_errand(errand);
        }
        std::future::pending().await
    }

    fn run_errand(&mut self, errand: Errand) {
        match errand {
            Errand::Ship(parcel) => self.outbox.push(parcel),
            Errand::Recall { stream, in_flight } => {
                let mut answers = Vec::new();
                self.outbox.recall(stream, in_flight, &mut answers);
                self.mailbox.answer(answers);
            }
        }
    }

    /// The session is over.
    fn over(&mut self) {
        self.outbox.close();
        self.mailbox.answer([Answer::Closed]);
        self.with_link(|link| (link.gateway, link.session) = (None, None));
        while self.partings.try_join_next().is_some() {}
    }

    fn with_link<T>(&self, change: impl FnOnce(&mut Link) -> T) -> T {
        change(&mut self.link.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

fn describe_status(status: &tonic::Status) -> String {
    let detail = logmesh_runtime::process::chain(status);
    if detail.contains(status.message()) { detail } else { format!("{}: {detail}", status.message()) }
}
