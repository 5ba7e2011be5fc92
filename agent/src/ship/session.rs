//! One session: frames out, frames in, under deadlines.

use std::time::Duration;

use logmesh_proto::{
    PROTOCOL_VERSION, v1,
    v1::{client_frame, ingest_client::IngestClient, server_frame},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Channel};

use super::{Ended, Endpoint, Shipper};
use crate::parcel::Answer;

/// From the call to the Welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// Batches in flight and nothing answered for so long: the session is dead, whatever the connection says.
const STALL_TIMEOUT: Duration = Duration::from_secs(45);
/// From Bye to the end of the call.
const BYE_TIMEOUT: Duration = Duration::from_secs(2);
/// Frames between us and HTTP/2. The rest waits in the outbox.
const FRAMES_MAX: usize = 2;
/// Largest frame from a gateway: an Ack of many sequences.
const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// What happened in a session.
enum Event {
    Frame(Result<Option<v1::ServerFrame>, tonic::Status>),
    Parcel(Option<crate::parcel::Parcel>),
    Room,
    Gone,
    Tick,
    Finish,
}

/// A session under way.
struct Live {
    frames: Streaming<v1::ServerFrame>,
    sender: mpsc::Sender<v1::ClientFrame>,
    /// Taken from the outbox, waiting for room.
    pending: Option<v1::Batch>,
    /// The gateway asked us to leave: nothing more is sent, what is in flight is awaited until then.
    drain: Option<(Duration, Duration)>,
    worked: bool,
}

impl Shipper {
    pub(super) async fn session(
        &mut self,
        endpoint: &Endpoint,
        channel: Channel,
        finish: &CancellationToken,
    ) -> (Ended, bool) {
        let opened = tokio::select! {
            opened = tokio::time::timeout(WELCOME_TIMEOUT, self.begin(endpoint, channel)) => opened,
            () = finish.cancelled() => return (Ended::Finished, false),
        };
        let mut live = match opened {
            Ok(Ok(live)) => live,
            Ok(Err(reason)) => return (Ended::Failed(reason), false),
            Err(_) => return (Ended::Failed(format!("{endpoint} did not welcome us within 10 s")), false),
        };
        let ended = loop {
            if live.pending.is_none() && live.drain.is_none() {
                live.pending = self.outbox.next(self.now());
            }
            let event = self.event(&mut live, finish).await;
            if let Some(ended) = self.handle(event, &mut live) {
                break ended;
            }
        };
        if matches!(ended, Ended::Finished) {
            bye(live.sender, live.frames).await;
        }
        (ended, live.worked)
    }

    /// Hello and Welcome.
    async fn begin(&mut self, endpoint: &Endpoint, channel: Channel) -> Result<Live, String> {
        let (sender, receiver) = mpsc::channel(FRAMES_MAX);
        let hello = v1::Hello {
            protocol_version: PROTOCOL_VERSION,
            software: concat!("logmesh-agent/", env!("CARGO_PKG_VERSION")).into(),
            instance: self.settings.instance.to_vec().into(),
            codecs: vec![self.settings.codec.into()],
            host: self.settings.host.clone(),
        };
        let frame = v1::ClientFrame { frame: Some(client_frame::Frame::Hello(hello)) };
        sender.try_send(frame).map_err(|_| "the session is over".to_owned())?;
        let mut client = IngestClient::new(channel).max_decoding_message_size(FRAME_BYTES_MAX);
        let refused = |status: tonic::Status| format!("{endpoint} refused the session: {}", describe(&status));
        let mut frames = client.stream(ReceiverStream::new(receiver)).await.map_err(refused)?.into_inner();
        let first = frames.message().await.map_err(refused)?;
        let Some(server_frame::Frame::Welcome(welcome)) = first.and_then(|first| first.frame) else {
            return Err(format!("{endpoint} did not begin with a Welcome"));
        };
        if !welcome.codecs.contains(&i32::from(self.settings.codec)) {
            let codec = self.settings.codec.as_str_name();
            return Err(format!("{endpoint} does not take {codec}: set another agent.compression"));
        }
        self.welcomed(endpoint, &welcome);
        Ok(Live { frames, sender, pending: None, drain: None, worked: false })
    }

    fn welcomed(&mut self, endpoint: &Endpoint, welcome: &v1::Welcome) {
        tracing::info!(gateway = %endpoint, session = welcome.session, identity = welcome.identity, "session begun");
        self.with_link(|link| {
            link.gateway = Some(endpoint.to_string());
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

    async fn event(&mut self, live: &mut Live, finish: &CancellationToken) -> Event {
        let now = self.now();
        let stalled = self.outbox.stalled_since().map(|since| since + STALL_TIMEOUT);
        let drained = live.drain.map(|(deadline, _)| deadline);
        let wake = [self.outbox.timeout(), stalled, drained].into_iter().flatten().min();
        let wake = wake.map_or(STALL_TIMEOUT, |at| at.saturating_sub(now));
        tokio::select! {
            biased;
            frame = live.frames.message() => Event::Frame(frame),
            permit = live.sender.reserve(), if live.pending.is_some() => match (permit, live.pending.take()) {
                (Ok(permit), Some(batch)) => {
                    permit.send(v1::ClientFrame { frame: Some(client_frame::Frame::Batch(batch)) });
                    Event::Room
                }
                (_, _) => Event::Gone,
            },
            parcel = self.parcels.recv(), if !self.parcels.is_closed() || !self.parcels.is_empty() => Event::Parcel(parcel),
            () = tokio::time::sleep(wake) => Event::Tick,
            () = finish.cancelled() => Event::Finish,
        }
    }

    fn handle(&mut self, event: Event, live: &mut Live) -> Option<Ended> {
        let now = self.now();
        match event {
            Event::Frame(Ok(Some(frame))) => self.frame(frame, live),
            Event::Frame(Ok(None)) => {
                return Some(drained(live).unwrap_or_else(|| Ended::Failed("the gateway ended the session".into())));
            }
            Event::Frame(Err(status)) => {
                return Some(
                    drained(live).unwrap_or_else(|| Ended::Failed(format!("the session broke: {}", describe(&status)))),
                );
            }
            Event::Parcel(Some(parcel)) => self.outbox.push(parcel),
            Event::Parcel(None) | Event::Room | Event::Tick => {}
            // The call is over; its status comes as a frame.
            Event::Gone => {}
            Event::Finish => return Some(Ended::Finished),
        }
        self.outbox.handle_timeout(now);
        if self.outbox.stalled_since().is_some_and(|since| now >= since + STALL_TIMEOUT) {
            return Some(Ended::Failed("batches are in flight and nothing was answered for 45 s".into()));
        }
        let over = live.drain.is_some_and(|(deadline, _)| now >= deadline || self.outbox.stalled_since().is_none());
        if over { drained(live) } else { None }
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
                self.outbox.handle_nack(&nack, now, &mut answers);
                self.note_forbidden();
            }
            Some(server_frame::Frame::Credit(credit)) => {
                self.outbox.handle_credit(credit.limit_bytes);
                answers.push(Answer::Credit(credit.limit_bytes));
            }
            Some(server_frame::Frame::Drain(drain)) => {
                tracing::info!(reason = drain.reason, "drain");
                let deadline = now + Duration::from_millis(u64::from(drain.deadline_millis));
                live.drain = Some((deadline, Duration::from_millis(u64::from(drain.avoid_millis))));
                if let Some(batch) = live.pending.take() {
                    self.outbox.unsend(batch.sequence, now);
                }
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

fn drained(live: &Live) -> Option<Ended> {
    live.drain.map(|(_, avoid)| Ended::Drained(avoid))
}

async fn bye(sender: mpsc::Sender<v1::ClientFrame>, mut frames: Streaming<v1::ServerFrame>) {
    let goodbye = v1::Bye { reason: "the agent stops".into() };
    let frame = v1::ClientFrame { frame: Some(client_frame::Frame::Bye(goodbye)) };
    let ending = async {
        // A session that is over needs no goodbye.
        let _ = sender.send(frame).await;
        drop(sender);
        while let Ok(Some(_)) = frames.message().await {}
    };
    let _ = tokio::time::timeout(BYE_TIMEOUT, ending).await;
}

fn describe(status: &tonic::Status) -> String {
    let detail = logmesh_runtime::process::chain(status);
    if detail.contains(status.message()) { detail } else { format!("{}: {detail}", status.message()) }
}
