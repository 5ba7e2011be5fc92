//! One session: frames out, frames in, under deadlines; and leaving it for another.

use std::time::Duration;

use futures_util::future::BoxFuture;
use logmesh_proto::{
    v1,
    v1::{client_frame, server_frame},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::{
    Ended, Outcome, Work,
    connect::Target,
    describe_status,
    finder::{Finder, Ready},
};
use crate::parcel::{Answer, Errand};

/// Batches in flight and nothing answered for so long: the session is dead, whatever the connection says.
const STALL_TIMEOUT: Duration = Duration::from_secs(45);
/// From Bye to the end of the call.
const BYE_TIMEOUT: Duration = Duration::from_secs(2);
/// The part of a drain in which batches are still sent while no other gateway is found; the rest is for their answers.
const SENDING: f64 = 0.6;
/// Agents that are asked to move together look for another gateway within so long, each at its own moment.
const SCATTER_MAX: Duration = Duration::from_millis(500);

/// What happened in a session.
enum Event {
    Frame(Result<Option<v1::ServerFrame>, tonic::Status>),
    Errand(Option<Errand>),
    Room,
    Gone,
    Tick,
    Successor(Ready),
    Finish,
}

/// A session under way.
struct Live {
    target: Target,
    frames: Streaming<v1::ServerFrame>,
    sender: mpsc::Sender<v1::ClientFrame>,
    /// Taken from the outbox, waiting for room.
    pending: Option<v1::Batch>,
    /// The gateway asked us to leave.
    drain: Option<Drain>,
    /// The session that will take this one's place: nothing more is sent here.
    successor: Option<Ready>,
    worked: bool,
}

/// When a session that is to be left ends.
#[derive(Clone, Copy, Debug)]
struct Drain {
    /// Batches are sent until then, unless a successor is found earlier.
    send_until: Duration,
    /// Answers are awaited until then.
    deadline: Duration,
    /// For how long the gateway is to be avoided.
    avoid: Duration,
}

/// A search for the next gateway, once one is wanted.
type Search<'a> = Option<BoxFuture<'a, Ready>>;

impl Live {
    fn may_send(&self, now: Duration) -> bool {
        self.successor.is_none() && self.drain.is_none_or(|drain| now < drain.send_until)
    }
}

impl Work {
    /// Runs a session to its end.
    pub(super) async fn session(&mut self, ready: Ready, finder: &mut Finder, finish: &CancellationToken) -> Outcome {
        self.welcomed(&ready);
        let Ready { target, frames, sender, welcome: _ } = ready;
        let mut live = Live { target, frames, sender, pending: None, drain: None, successor: None, worked: false };
        let mut finder = Some(finder);
        let mut search: Search<'_> = None;
        let ended = loop {
            if live.pending.is_none() && live.may_send(self.now()) {
                live.pending = self.outbox.next(self.now());
            }
            let event = self.event(&mut live, &mut search, finish).await;
            if let Some(ended) = self.handle(event, &mut live) {
                break ended;
            }
            if let Some(drain) = live.drain
                && let Some(finder) = finder.take()
            {
                finder.avoid(&live.target, drain.avoid);
                search = Some(Box::pin(scattered(finder, drain)));
            }
        };
        if !matches!(ended, Ended::Failed(_)) {
            let reason = if matches!(ended, Ended::Finished) { "the agent stops" } else { "the agent moves" };
            self.partings.spawn(bye(live.sender, live.frames, reason));
        }
        Outcome { ended, worked: live.worked, successor: live.successor }
    }

    fn welcomed(&mut self, ready: &Ready) {
        let (gateway, welcome) = (&ready.target, &ready.welcome);
        tracing::info!(%gateway, session = welcome.session, identity = welcome.identity, "session begun");
        self.with_link(|link| {
            link.gateway = Some(gateway.endpoint.to_string());
            link.address = Some(gateway.address.to_string());
            link.session = Some(welcome.session.clone());
            link.identity = Some(welcome.identity.clone());
            link.sessions += 1;
            link.last_error = None;
        });
        self.condition.clear();
        self.outbox.open(welcome.credit_bytes);
        self.mailbox.answer([Answer::Opened {
            credit: welcome.credit_bytes,
            encoded_bytes_max: usize::try_from(welcome.batch_encoded_bytes_max).unwrap_or(usize::MAX),
            records_max: usize::try_from(welcome.batch_records_max).unwrap_or(usize::MAX),
        }]);
    }

    async fn event(&mut self, live: &mut Live, search: &mut Search<'_>, finish: &CancellationToken) -> Event {
        let now = self.now();
        let stalled = self.outbox.stalled_since().map(|since| since + STALL_TIMEOUT);
        let drain = live.drain.map(|drain| if now < drain.send_until { drain.send_until } else { drain.deadline });
        let wake = [self.outbox.timeout(), stalled, drain].into_iter().flatten().min();
        let wake = wake.map_or(STALL_TIMEOUT, |at| at.saturating_sub(now));
        tokio::select! {
            biased;
            frame = live.frames.message() => Event::Frame(frame),
            ready = found(search), if live.successor.is_none() => {
                *search = None;
                Event::Successor(ready)
            }
            permit = live.sender.reserve(), if live.pending.is_some() => match (permit, live.pending.take()) {
                (Ok(permit), Some(batch)) => {
                    permit.send(v1::ClientFrame { frame: Some(client_frame::Frame::Batch(batch)) });
                    Event::Room
                }
                (_, _) => Event::Gone,
            },
            errand = self.errands.recv(), if !self.errands.is_closed() || !self.errands.is_empty() => Event::Errand(errand),
            () = tokio::time::sleep(wake) => Event::Tick,
            () = finish.cancelled() => Event::Finish,
        }
    }

    fn handle(&mut self, event: Event, live: &mut Live) -> Option<Ended> {
        let now = self.now();
        let broken = |live: &Live, reason: String| {
            // A gateway that asked us to leave may end the session: what it did not answer goes to the next one.
            Some(if live.drain.is_some() { Ended::Drained } else { Ended::Failed(reason) })
        };
        match event {
            Event::Frame(Ok(Some(frame))) => self.frame(frame, live),
            Event::Frame(Ok(None)) => return broken(live, "the gateway ended the session".into()),
            Event::Frame(Err(status)) => {
                return broken(live, format!("the session broke: {}", describe_status(&status)));
            }
            Event::Errand(Some(errand)) => self.run_errand(errand),
            Event::Successor(ready) => live.successor = Some(ready),
            Event::Errand(None) | Event::Room | Event::Tick => {}
            // The call is over; its status comes as a frame.
            Event::Gone => {}
            Event::Finish => return Some(Ended::Finished),
        }
        self.outbox.handle_timeout(now);
        if self.outbox.stalled_since().is_some_and(|since| now >= since + STALL_TIMEOUT) {
            return Some(Ended::Failed("batches are in flight and nothing was answered for 45 s".into()));
        }
        if !live.may_send(now)
            && let Some(batch) = live.pending.take()
        {
            self.outbox.unsend(batch.sequence, now);
        }
        let is_answered = !live.may_send(now) && self.outbox.stalled_since().is_none();
        live.drain.is_some_and(|drain| now >= drain.deadline || is_answered).then_some(Ended::Drained)
    }

    fn frame(&mut self, frame: v1::ServerFrame, live: &mut Live) {
        let now = self.now();
        let mut answers = Vec::new();
        match frame.frame {
            Some(server_frame::Frame::Ack(ack)) => {
                live.worked = true;
                self.outbox.handle_ack(&ack.sequences, now, &mut answers);
            }
            Some(server_frame::Frame::Nack(nack)) => {
                tracing::debug!(sequence = nack.sequence, reason = ?nack.reason(), detail = nack.detail, "batch refused");
                if nack.reason() == v1::NackReason::Corrupt {
                    let (gateway, detail) = (&live.target, &nack.detail);
                    tracing::warn!(%gateway, detail, "a gateway does not take a batch as it arrived; it is sent again");
                }
                self.outbox.handle_nack(&nack, now, &mut answers);
                self.note_forbidden();
            }
            Some(server_frame::Frame::Credit(credit)) => {
                self.outbox.handle_credit(credit.limit_bytes);
                answers.push(Answer::Credit(credit.limit_bytes));
            }
            Some(server_frame::Frame::Drain(drain)) => {
                tracing::info!(gateway = %live.target, reason = drain.reason, "the gateway asks us to move");
                let time = Duration::from_millis(u64::from(drain.deadline_millis));
                live.drain.get_or_insert(Drain {
                    send_until: now + time.mul_f64(SENDING),
                    deadline: now + time,
                    avoid: Duration::from_millis(u64::from(drain.avoid_millis)),
                });
            }
            // A second Welcome means nothing; frames that we do not know are skipped.
            Some(server_frame::Frame::Welcome(_)) | None => {}
        }
        if answers.iter().any(|answer| matches!(answer, Answer::Acked { .. })) {
            self.policy_condition.clear();
        }
        self.mailbox.answer(answers);
    }

    fn note_forbidden(&mut self) {
        for (topic, detail) in self.outbox.take_forbidden() {
            let text = format!(
                "the gateway's policy does not let this agent write to topic `{topic}`: {detail}; allow it in \
                 [[gateway.policy]] or set another topic in [[agent.files]]. Its files are held and tried every 30 s"
            );
            tracing::warn!(topic, detail, "topic forbidden by the gateway's policy; its files are held");
            self.policy_condition.warn(text);
        }
    }
}

/// Looks for the next gateway, a moment later than others that are asked to move at the same time.
async fn scattered(finder: &mut Finder, drain: Drain) -> Ready {
    let most = SCATTER_MAX.min(drain.deadline.saturating_sub(drain.send_until) / 4);
    tokio::time::sleep(most.mul_f64(rand::random())).await;
    finder.find(false).await
}

async fn found(search: &mut Search<'_>) -> Ready {
    match search {
        Some(search) => search.await,
        None => std::future::pending().await,
    }
}

async fn bye(sender: mpsc::Sender<v1::ClientFrame>, mut frames: Streaming<v1::ServerFrame>, reason: &'static str) {
    let goodbye = v1::Bye { reason: reason.into() };
    let frame = v1::ClientFrame { frame: Some(client_frame::Frame::Bye(goodbye)) };
    let ending = async {
        // A session that is over needs no goodbye.
        let _ = sender.send(frame).await;
        drop(sender);
        while let Ok(Some(_)) = frames.message().await {}
    };
    let _ = tokio::time::timeout(BYE_TIMEOUT, ending).await;
}
