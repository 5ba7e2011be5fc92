//! The driver: joins small calls into requests of the size that suits, and keeps as many under way as suit.
//!
//! Owns the queue of what waits and the tasks of what is under way; every task is joined. A call that finds room goes out
//! at once; calls that find none wait, and leave together when there is some: joining costs no time of its own.
//!
//! It begins with the set-up of the servers. While that fails, calls are answered with the reason; it is tried again by
//! itself, and also when servers that were in trouble have nothing to do, so that readiness heals without traffic.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use logmesh_runtime::backoff::Backoff;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{Mode, Outcome},
    body::{self, Entry},
    counters::Counters,
    options::ElasticsearchOptions,
    pace::{Course, Pace},
    request::{self, Form, Report},
    server::Product,
    setup::{self, SetUp, Standing},
    state::{Health, State},
    transport::Cluster,
    waiting::Waiting,
};
use crate::document::Document;

/// Calls that wait in the queue before a caller has to wait for room.
pub(super) const QUEUE: usize = 256;

/// Pause after a set-up that failed: least and greatest.
const SET_UP_AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// How long servers in trouble have nothing to do before they are asked how they are.
const IDLE: Duration = Duration::from_secs(5);

/// Documents of one call that fit a request, and where their outcomes go.
pub(super) struct Piece {
    pub(super) documents: Vec<Document>,
    pub(super) mode: Mode,
    pub(super) reply: oneshot::Sender<Vec<Outcome>>,
}

impl Piece {
    fn bytes(&self) -> usize {
        self.documents.iter().map(body::size_of).sum()
    }

    /// A caller that is gone wants nothing.
    fn answer(self, outcomes: Vec<Outcome>) {
        let _ = self.reply.send(outcomes);
    }
}

/// What requests share.
pub(super) struct Shared {
    pub(super) options: ElasticsearchOptions,
    pub(super) cluster: Cluster,
    pub(super) counters: Counters,
    pub(super) state: State,
}

/// A request that ended.
struct Ended {
    course: Course,
    bytes: usize,
    busy: bool,
    begun: Instant,
    ended: Instant,
    /// The index in trouble that it was for.
    apart: Option<Arc<str>>,
    /// Indices that the server answered for, and whether one refused documents by no fault of theirs.
    indices: Vec<(Arc<str>, bool)>,
}

/// The driver.
pub(super) struct Sender {
    shared: Arc<Shared>,
    form: Form,
    queue: mpsc::Receiver<Piece>,
    pace: Pace,
    /// From then on nothing is begun.
    closing: CancellationToken,
    waiting: Waiting<Piece>,
    under_way: JoinSet<Ended>,
    /// Of those under way, the ones that the pace speaks of.
    together: usize,
}

impl Sender {
    pub(super) fn new(
        shared: Arc<Shared>,
        form: Form,
        queue: mpsc::Receiver<Piece>,
        pace: Pace,
        closing: CancellationToken,
    ) -> Self {
        let (waiting, under_way) = (Waiting::default(), JoinSet::new());
        Self { shared, form, queue, pace, closing, waiting, under_way, together: 0 }
    }

    /// Works until it is told to close, and what is under way is answered.
    pub(super) async fn run(mut self) {
        let closing = self.closing.clone();
        self.prepare().await;
        while !closing.is_cancelled() {
            let room = self.waiting.bytes() < self.pace.bytes();
            let unwell = self.under_way.is_empty() && self.shared.state.is_askable();
            tokio::select! {
                biased;
                () = closing.cancelled() => break,
                Some(ended) = self.under_way.join_next(), if !self.under_way.is_empty() => self.learn(ended.ok()),
                piece = self.queue.recv(), if room => match piece {
                    Some(piece) => self.take(piece),
                    None => break,
                },
                () = tokio::time::sleep(IDLE), if unwell => self.prepare().await,
            }
            self.launch();
        }
        self.refuse_rest();
        while self.under_way.join_next().await.is_some() {}
    }

    /// Sets the servers up; until that is done, every call is answered with what stands in its way.
    async fn prepare(&mut self) {
        let closing = self.closing.clone();
        let shared = Arc::clone(&self.shared);
        let mut backoff = Backoff::new(SET_UP_AGAIN.0, SET_UP_AGAIN.1);
        loop {
            let obstacle = tokio::select! {
                () = closing.cancelled() => return,
                done = setup::set_up(&shared.cluster, &shared.options) => match done {
                    Ok(set_up) => {
                        tell(&set_up);
                        let product = set_up.server.map(|server| server.product);
                        self.form.fit = product == Some(Product::OpenSearch);
                        return shared.state.note(Health::Well);
                    }
                    Err(obstacle) => obstacle,
                },
            };
            shared.state.note(Health::Trouble(obstacle.words().to_owned()));
            let pause = tokio::time::sleep(backoff.next(rand::random()));
            tokio::pin!(pause);
            loop {
                let piece = tokio::select! {
                    () = closing.cancelled() => return,
                    () = &mut pause => break,
                    piece = self.queue.recv() => piece,
                };
                let Some(piece) = piece else { return };
                let outcomes = vec![obstacle.outcome.clone(); piece.documents.len()];
                shared.counters.answered(&outcomes);
                piece.answer(outcomes);
            }
        }
    }

    fn learn(&mut self, ended: Option<Ended>) {
        // A request whose task panicked: its callers try again, and its slot is given back.
        let Some(Ended { course, bytes, busy, begun, ended, apart, indices }) = ended else {
            self.together = self.together.saturating_sub(1);
            return;
        };
        match apart {
            Some(index) => self.waiting.ended(&index),
            None => {
                self.together -= 1;
                self.pace.learn(course, bytes, busy, begun, ended);
            }
        }
        for (index, unwell) in indices {
            if unwell {
                self.waiting.unwell(&index);
            } else if self.waiting.has_unwell() {
                self.waiting.well(&index);
            }
        }
    }

    fn take(&mut self, piece: Piece) {
        let mut next = Some(piece);
        while let Some(piece) = next {
            let index = piece.documents.first().map(|document| Arc::clone(&document.index)).unwrap_or_default();
            self.waiting.push(&index, piece.bytes(), piece);
            // What came at the same moment leaves together.
            let room = self.waiting.bytes() < self.pace.bytes();
            next = if room { self.queue.try_recv().ok() } else { None };
        }
    }

    /// Starts requests while there is something to send and room to send it.
    fn launch(&mut self) {
        while self.together < self.pace.concurrency() {
            let pieces = self.waiting.next_together(self.pace.bytes());
            if pieces.is_empty() {
                break;
            }
            self.together += 1;
            self.spawn(pieces, None);
        }
        while let Some((index, pieces)) = self.waiting.next_apart(self.pace.bytes()) {
            self.spawn(pieces, Some(index));
        }
    }

    fn spawn(&mut self, pieces: Vec<Piece>, apart: Option<Arc<str>>) {
        let busy = self.together >= self.pace.concurrency();
        let form = Form { bytes: self.pace.bytes(), ..self.form };
        self.under_way.spawn(send(Arc::clone(&self.shared), form, pieces, busy, apart));
    }

    fn refuse_rest(&mut self) {
        self.queue.close();
        let queued = std::iter::from_fn(|| self.queue.try_recv().ok());
        for piece in self.waiting.drain().chain(queued) {
            let outcomes = closed(piece.documents.len());
            piece.answer(outcomes);
        }
    }
}

/// What every document is answered once the index is closed.
pub(super) fn closed(count: usize) -> Vec<Outcome> {
    vec![Outcome::Retry { reason: "the index is closed".to_owned(), after: None }; count]
}

async fn send(shared: Arc<Shared>, form: Form, pieces: Vec<Piece>, busy: bool, apart: Option<Arc<str>>) -> Ended {
    let begun = Instant::now();
    let entries: Vec<Entry<'_>> = pieces
        .iter()
        .flat_map(|piece| piece.documents.iter().map(|document| Entry { document, mode: piece.mode }))
        .collect();
    let Report { mut outcomes, course, bytes, health } =
        request::exchange(&shared.cluster, form, &entries, &shared.counters).await;
    let indices = if health == Health::Well { indices(&entries, &outcomes) } else { Vec::new() };
    drop(entries);
    shared.counters.answered(&outcomes);
    shared.state.note(health);
    for piece in pieces {
        let rest = outcomes.split_off(piece.documents.len().min(outcomes.len()));
        piece.answer(std::mem::replace(&mut outcomes, rest));
    }
    Ended { course, bytes, busy, begun, ended: Instant::now(), apart, indices }
}

/// Each index that documents went to, and whether it refused any by no fault of theirs.
fn indices(entries: &[Entry<'_>], outcomes: &[Outcome]) -> Vec<(Arc<str>, bool)> {
    let mut indices: Vec<(Arc<str>, bool)> = Vec::new();
    for (entry, outcome) in entries.iter().zip(outcomes) {
        let unwell = matches!(outcome, Outcome::Retry { .. } | Outcome::Held { .. });
        let index = &entry.document.index;
        // Neighbours mostly share their index: the last one is looked at first.
        match indices.iter_mut().rev().find(|(known, _)| Arc::ptr_eq(known, index) || known == index) {
            Some((_, any)) => *any |= unwell,
            None => indices.push((Arc::clone(index), unwell)),
        }
    }
    indices
}

/// Says in the log what was found and done, once.
fn tell(set_up: &SetUp) {
    match &set_up.server {
        Some(server) => tracing::info!(%server, "found the index server"),
        None => tracing::warn!("the role may not ask the index server for its version: the set-up stays unchecked"),
    }
    if let Some(caveat) = set_up.server.as_ref().and_then(super::Server::caveat) {
        tracing::warn!("{caveat}");
    }
    for (title, standing) in &set_up.templates {
        match standing {
            Standing::Installed => tracing::info!("installed the {title}"),
            Standing::Present(version) => tracing::debug!(version, "found the {title}"),
            Standing::Foreign => tracing::warn!("left the {title} alone: it is there, but was not made by logmesh"),
            Standing::Unknown(words) => tracing::warn!(%words, "cannot tell whether the {title} is there"),
            Standing::Lacking(words) => tracing::warn!(%words, "made no {title}"),
        }
    }
}

/// A request that takes longer than this share of its time limit is slow.
pub(super) fn slow(request_timeout: Duration) -> Duration {
    request_timeout / 4
}
