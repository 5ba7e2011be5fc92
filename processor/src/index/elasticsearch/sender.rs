//! The driver: joins small calls into requests of the size that suits, and keeps as many under way as suit.
//!
//! Owns the queue of what waits and the tasks of what is under way; every task is joined. A call that finds room goes out
//! at once; calls that find none wait, and leave together when there is some: joining costs no time of its own.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    super::{Mode, Outcome},
    body::{self, Entry},
    counters::Counters,
    pace::{Course, Pace},
    request::{self, Form, Report},
    state::State,
    transport::Cluster,
};
use crate::document::Document;

/// Calls that wait in the queue before a caller has to wait for room.
pub(super) const QUEUE: usize = 256;

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
    pub(super) cluster: Cluster,
    pub(super) form: Form,
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
}

/// The driver.
pub(super) struct Sender {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: mpsc::Receiver<Piece>,
    pub(super) pace: Pace,
    /// With their bytes, first come first.
    waiting: VecDeque<(usize, Piece)>,
    waiting_bytes: usize,
    under_way: JoinSet<Ended>,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, queue: mpsc::Receiver<Piece>, pace: Pace) -> Self {
        Self { shared, queue, pace, waiting: VecDeque::new(), waiting_bytes: 0, under_way: JoinSet::new() }
    }

    /// Works until the queue is closed and all of it is answered. From then on nothing new is sent.
    pub(super) async fn run(mut self) {
        let mut open = true;
        while open || !self.under_way.is_empty() {
            let room = self.waiting_bytes < self.pace.bytes();
            tokio::select! {
                biased;
                Some(ended) = self.under_way.join_next(), if !self.under_way.is_empty() => {
                    if let Ok(Ended { course, bytes, busy, begun, ended }) = ended {
                        self.pace.learn(course, bytes, busy, begun, ended);
                    }
                }
                piece = self.queue.recv(), if open && room => match piece {
                    Some(piece) => self.take(piece),
                    None => open = false,
                },
            }
            if open {
                self.launch();
            } else {
                self.refuse_waiting();
            }
        }
    }

    fn take(&mut self, piece: Piece) {
        let bytes = piece.bytes();
        self.waiting_bytes += bytes;
        self.waiting.push_back((bytes, piece));
        // What came at the same moment leaves together.
        while self.waiting_bytes < self.pace.bytes() {
            let Ok(piece) = self.queue.try_recv() else { break };
            let bytes = piece.bytes();
            self.waiting_bytes += bytes;
            self.waiting.push_back((bytes, piece));
        }
    }

    /// Starts requests while there is something to send and room to send it.
    fn launch(&mut self) {
        while self.under_way.len() < self.pace.concurrency() {
            let pieces = self.next_pieces();
            if pieces.is_empty() {
                return;
            }
            let busy = self.under_way.len() + 1 >= self.pace.concurrency();
            self.under_way.spawn(send(Arc::clone(&self.shared), pieces, busy));
        }
    }

    /// At least one piece, if there is any, and then as many as fit.
    fn next_pieces(&mut self) -> Vec<Piece> {
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while let Some((size, _)) = self.waiting.front() {
            if !pieces.is_empty() && bytes + size > self.pace.bytes() {
                break;
            }
            bytes += size;
            self.waiting_bytes -= size;
            pieces.extend(self.waiting.pop_front().map(|(_, piece)| piece));
        }
        pieces
    }

    fn refuse_waiting(&mut self) {
        self.waiting_bytes = 0;
        for (_, piece) in self.waiting.drain(..) {
            let outcomes = closed(piece.documents.len());
            piece.answer(outcomes);
        }
    }
}

/// What every document is answered once the index is closed.
pub(super) fn closed(count: usize) -> Vec<Outcome> {
    vec![Outcome::Retry { reason: "the index is closed".to_owned(), after: None }; count]
}

async fn send(shared: Arc<Shared>, pieces: Vec<Piece>, busy: bool) -> Ended {
    let begun = Instant::now();
    let entries: Vec<Entry<'_>> = pieces
        .iter()
        .flat_map(|piece| piece.documents.iter().map(|document| Entry { document, mode: piece.mode }))
        .collect();
    let Report { mut outcomes, course, bytes, trouble } =
        request::exchange(&shared.cluster, shared.form, &entries, &shared.counters).await;
    drop(entries);
    shared.counters.answered(&outcomes);
    shared.state.note(trouble);
    for piece in pieces {
        let rest = outcomes.split_off(piece.documents.len().min(outcomes.len()));
        piece.answer(std::mem::replace(&mut outcomes, rest));
    }
    Ended { course, bytes, busy, begun, ended: Instant::now() }
}

/// A request that takes longer than this share of its time limit is slow.
pub(super) fn slow(request_timeout: Duration) -> Duration {
    request_timeout / 4
}
