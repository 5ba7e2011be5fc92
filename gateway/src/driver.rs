//! Runs one session: reads frames when the session wants them, publishes, waits for the bus, sends answers.
//!
//! Owns the session's I/O and its time limits; every decision is the [`Session`]'s. One batch at a time waits for memory
//! and for the bus's queue, so that batches are appended in the order in which they came; any number (within the credit)
//! waits to become durable.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use logmesh_bus::{AppendError, Bus, Delivery};
use logmesh_proto::{ClientFrame, v1};
use logmesh_runtime::budget::{Budget, Permit};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::credit::Part;
use crate::metrics::Metrics;
use crate::registry::Live;
use crate::session::{Now, Publish, Session, Step};

/// Frames that wait in the answer channel.
pub(crate) const ANSWER_FRAMES_MAX: usize = 16;
/// How long a client may take to say Hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// How long a client may leave its answers unread before it is cut off.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// A drained session without anything in flight ends when its client has been silent for so long.
const DRAIN_SILENCE: Duration = Duration::from_millis(300);
/// For how long a client should stay away from a gateway that stops. One that only moves by age may come back: choosing
/// among all gateways spreads agents evenly over them, choosing among the others crowds the newest.
const DRAIN_AVOID: Duration = Duration::from_secs(30);
/// Why sessions are asked to leave.
const STOPPING: &str = "the gateway is shutting down";
const AGED: &str = "the session has reached its age: gateways share their load";
/// What a batch costs beside its bytes while it is held: headers, bookkeeping.
const BATCH_OVERHEAD_BYTES: usize = 1024;

/// What a session is run with.
pub(crate) struct Driver {
    pub(crate) session: Session,
    pub(crate) answers: mpsc::Sender<Result<v1::ServerFrame, Status>>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) budget: Budget,
    pub(crate) credit: Part,
    pub(crate) live: Live,
    pub(crate) metrics: Arc<Metrics>,
    /// How long a drained session may go on.
    pub(crate) drain_deadline: Duration,
    /// Age at which the session is asked to move.
    pub(crate) age_max: Option<Duration>,
    /// Ends the session at once.
    pub(crate) abort: CancellationToken,
    /// Cuts the connection off, for a client that does not read.
    pub(crate) cut_off: CancellationToken,
    pub(crate) state: State,
}

/// What a client sends: tonic's stream, or a test's.
pub(crate) trait Frames: Stream<Item = Result<ClientFrame, Status>> + Send + Unpin {}

impl<S: Stream<Item = Result<ClientFrame, Status>> + Send + Unpin> Frames for S {}

/// Where the session stands in time.
#[derive(Debug)]
pub(crate) struct State {
    opened: Instant,
    last_frame: Instant,
    /// Since when answers have been waiting for room.
    blocked: Option<Instant>,
    drained: Option<Instant>,
    /// Why it was drained.
    leaving: &'static str,
    /// No more frames will come.
    finished: bool,
}

/// A batch that waits for memory and for the bus's queue.
type Publishing = Option<BoxFuture<'static, (u64, Result<(Permit, Delivery), AppendError>)>>;

/// A batch that waits to become durable, with its memory.
struct Durable {
    sequence: u64,
    delivery: Delivery,
    _memory: Permit,
}

/// What happened.
#[allow(clippy::large_enum_variant, reason = "made and taken apart at once; a box would cost each frame an allocation")]
enum Event {
    Durable(u64, Result<(), AppendError>),
    Published(u64, Result<(Permit, Delivery), AppendError>),
    Room,
    Frame(Result<Option<ClientFrame>, Status>),
    Credit,
    Drain,
    Deadline,
    Gone,
    Abort,
}

/// Why a session ended before its time.
enum Ending {
    /// In order.
    Done,
    /// With this status for the client.
    Status(Status),
    /// Nobody is there to be told.
    Gone,
    /// The client does not read its answers.
    Stuck,
}

impl State {
    pub(crate) fn new(now: Instant) -> Self {
        Self { opened: now, last_frame: now, blocked: None, drained: None, leaving: STOPPING, finished: false }
    }
}

impl Driver {
    /// Runs the session to its end.
    pub(crate) async fn run(mut self, mut frames: impl Frames) {
        self.metrics.sessions.add(1, &[]);
        let ending = self.serve(&mut frames).await;
        let identity = self.live.identity.as_str();
        match ending {
            Ending::Done => tracing::info!(session = self.live.id, identity, "session ended"),
            Ending::Gone => tracing::info!(session = self.live.id, identity, "session lost: the connection is gone"),
            Ending::Stuck => {
                tracing::warn!(session = self.live.id, identity, "client does not read its answers; cutting it off");
                self.cut_off.cancel();
            }
            Ending::Status(status) => {
                tracing::warn!(session = self.live.id, identity, code = ?status.code(), reason = status.message(), "session ended by the gateway");
                self.live.abandon();
                // The client may have stopped reading as well; then it learns from the closed stream.
                let _ = timeout(Duration::from_secs(1), self.answers.send(Err(status))).await;
            }
        }
        self.metrics.sessions.add(-1, &[]);
    }

    async fn serve(&mut self, frames: &mut impl Frames) -> Ending {
        let mut publishing: Publishing = None;
        let mut durable: FuturesUnordered<Durable> = FuturesUnordered::new();
        loop {
            self.show();
            if self.session.has_answer() && self.answers.capacity() == 0 {
                self.state.blocked.get_or_insert_with(Instant::now);
            }
            if self.is_done(publishing.is_none()) {
                return Ending::Done;
            }
            let event = self.next(frames, &mut publishing, &mut durable).await;
            let ending = match event {
                Event::Durable(sequence, outcome) => self.delivered(sequence, &outcome),
                Event::Published(sequence, outcome) => {
                    publishing = None;
                    match outcome {
                        Ok((memory, delivery)) => {
                            durable.push(Durable { sequence, delivery, _memory: memory });
                            None
                        }
                        Err(error) => self.delivered(sequence, &Err(error)),
                    }
                }
                Event::Room => self.send(),
                Event::Credit => self.new_credit(),
                Event::Drain => self.drain(STOPPING, DRAIN_AVOID),
                Event::Frame(frame) => self.frame(frame, &mut publishing),
                Event::Deadline => self.overdue(Instant::now()),
                Event::Gone => Some(Ending::Gone),
                Event::Abort => Some(Ending::Status(Status::unavailable("the gateway is shutting down"))),
            };
            if let Some(ending) = ending {
                return ending;
            }
        }
    }

    /// The next thing that happens. Answers of the bus go first and are collected before anything is sent, so that one
    /// Ack carries many; reading comes last, so that a fast client waits for its own answers.
    async fn next(
        &mut self,
        frames: &mut impl Frames,
        publishing: &mut Publishing,
        durable: &mut FuturesUnordered<Durable>,
    ) -> Event {
        let reads = publishing.is_none() && !self.state.finished && self.session.wants_frame();
        let deadline = self.deadline();
        tokio::select! {
            biased;
            () = self.abort.cancelled() => Event::Abort,
            Some((sequence, outcome)) = durable.next(), if !durable.is_empty() => Event::Durable(sequence, outcome),
            room = self.answers.reserve(), if self.session.has_answer() => match room {
                Ok(_) => Event::Room,
                Err(_) => Event::Gone,
            },
            () = self.live.drain.cancelled(), if self.state.drained.is_none() => Event::Drain,
            () = self.credit.changed() => Event::Credit,
            (sequence, outcome) = publishing_or_never(publishing) => Event::Published(sequence, outcome),
            frame = frames.next(), if reads => Event::Frame(frame.transpose()),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Event::Deadline,
            () = self.answers.closed() => Event::Gone,
        }
    }

    fn frame(&mut self, frame: Result<Option<ClientFrame>, Status>, publishing: &mut Publishing) -> Option<Ending> {
        let instant = Instant::now();
        self.state.last_frame = instant;
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                self.state.finished = true;
                return None;
            }
            // What tonic says of a frame over the limit; its words would be about bytes and features.
            Err(status) if status.code() == Code::OutOfRange => {
                return Some(Ending::Status(Status::resource_exhausted("a frame exceeds 8 MiB")));
            }
            Err(status) if status.code() == Code::InvalidArgument => return Some(Ending::Status(status)),
            Err(_) => return Some(Ending::Gone),
        };
        if let ClientFrame::Batch(raw) = &frame {
            self.metrics.received(raw.batch.record_count, raw.batch.uncompressed_size, raw.encoded.len());
        }
        let unix_nano = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let now = Now { instant, unix_nano: u64::try_from(unix_nano).unwrap_or(u64::MAX) };
        match self.session.frame(frame, now) {
            Step::Greeted(hello) => self.greeted(hello),
            Step::Publish(publish) => {
                *publishing = Some(Box::pin(append(Arc::clone(&self.bus), self.budget.clone(), *publish)));
            }
            Step::Refused { reason, detail } => {
                tracing::debug!(session = self.live.id, reason = reason.as_str_name(), detail, "batch refused");
                self.metrics.nacked(reason);
            }
            Step::Skipped => {}
            Step::Bye => self.state.finished = true,
            Step::End(status) => return Some(Ending::Status(status)),
        }
        None
    }

    fn greeted(&mut self, hello: v1::Hello) {
        let (id, identity) = (self.live.id, self.live.identity.as_str());
        let (software, address) = (hello.software.as_str(), self.live.address);
        tracing::info!(session = id, identity, software, %address, "session opened");
        self.live.introduce(hello.software, hello.host, &hello.instance);
    }

    fn new_credit(&mut self) -> Option<Ending> {
        self.session.set_credit(self.credit.limit());
        None
    }

    fn drain(&mut self, reason: &'static str, avoid: Duration) -> Option<Ending> {
        self.state.drained = Some(Instant::now());
        self.state.leaving = reason;
        self.session.drain(reason, avoid, self.drain_deadline);
        None
    }

    fn delivered(&mut self, sequence: u64, outcome: &Result<(), AppendError>) -> Option<Ending> {
        match self.session.delivered(sequence, outcome.as_ref().copied(), Instant::now()) {
            None => {
                self.metrics.acknowledged();
                self.live.batches_acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Some(reason) => self.metrics.nacked(reason),
        }
        None
    }

    /// Sends what there is, as far as there is room.
    fn send(&mut self) -> Option<Ending> {
        self.state.blocked = None;
        while self.session.has_answer() {
            let Ok(room) = self.answers.try_reserve() else { return None };
            if let Some(frame) = self.session.answer() {
                room.send(Ok(frame));
            }
        }
        None
    }

    fn is_done(&self, nothing_publishing: bool) -> bool {
        let answered = nothing_publishing && self.session.batches_in_flight() == 0 && !self.session.has_answer();
        let silent =
            self.state.drained.is_some_and(|_| self.state.last_frame.max(self.drained_at()).elapsed() >= DRAIN_SILENCE);
        answered && (self.state.finished || silent)
    }

    fn drained_at(&self) -> Instant {
        self.state.drained.unwrap_or(self.state.opened)
    }

    /// When time alone changes something.
    fn deadline(&self) -> Option<Instant> {
        let hello = (!self.session.is_greeted()).then(|| self.state.opened + HELLO_DEADLINE);
        let blocked = self.state.blocked.map(|since| since + ANSWER_DEADLINE);
        let drained = self.state.drained.map(|at| at + self.drain_deadline);
        let silent = self.state.drained.map(|at| self.state.last_frame.max(at) + DRAIN_SILENCE);
        let silent = silent.filter(|at| *at > Instant::now());
        [hello, blocked, drained, silent, self.moves_at()].into_iter().flatten().min()
    }

    /// When the session is old enough to be asked to move; a client that never said Hello is not asked.
    fn moves_at(&self) -> Option<Instant> {
        let is_asked = self.session.is_greeted() && self.state.drained.is_none();
        self.age_max.filter(|_| is_asked).map(|age| self.state.opened + age)
    }

    fn overdue(&mut self, now: Instant) -> Option<Ending> {
        if !self.session.is_greeted() && now >= self.state.opened + HELLO_DEADLINE {
            return Some(Ending::Status(Status::deadline_exceeded("no Hello within 10 s")));
        }
        if self.state.blocked.is_some_and(|since| now >= since + ANSWER_DEADLINE) {
            return Some(Ending::Stuck);
        }
        if self.state.drained.is_some_and(|at| now >= at + self.drain_deadline) {
            return Some(Ending::Status(Status::unavailable(self.state.leaving)));
        }
        if self.moves_at().is_some_and(|at| now >= at) {
            return self.drain(AGED, Duration::ZERO);
        }
        None
    }

    /// Puts the figures where `/status` finds them.
    fn show(&self) {
        self.live.bytes_in_flight.store(self.session.bytes_in_flight(), Ordering::Relaxed);
        self.live.batches_in_flight.store(self.session.batches_in_flight(), Ordering::Relaxed);
        self.live.streams.store(self.session.streams(), Ordering::Relaxed);
    }
}

impl Future for Durable {
    type Output = (u64, Result<(), AppendError>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let sequence = self.sequence;
        Pin::new(&mut self.delivery).poll(context).map(|outcome| (sequence, outcome.map(|_| ())))
    }
}

/// Waits for memory, then for a place in the bus's queue. Memory first: nobody holds a place while waiting for memory.
async fn append(bus: Arc<dyn Bus>, budget: Budget, publish: Publish) -> (u64, Result<(Permit, Delivery), AppendError>) {
    let memory = budget.reserve(publish.record.value.len() + BATCH_OVERHEAD_BYTES).await;
    let outcome = bus.append(&publish.topic, publish.record).await;
    (publish.sequence, outcome.map(|delivery| (memory, delivery)))
}

async fn publishing_or_never(publishing: &mut Publishing) -> (u64, Result<(Permit, Delivery), AppendError>) {
    match publishing {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
