//! One session, as a state machine: frames and the bus's answers in, decisions and frames out.
//!
//! Pure: no I/O, no clock, no tasks; `now` is passed in. The driver calls [`Session::frame`] for each frame in the order
//! of arrival, publishes what it is told to, calls [`Session::delivered`] for each batch that the bus answered for, and
//! sends what [`Session::answer`] gives until it gives nothing. It asks [`Session::wants_frame`] before it reads.
//!
//! Invariants: every sequence that was read is answered exactly once, unless the session ends first; an Ack is given only
//! for a batch that the bus said is durable; the identity in keys and envelopes is the certificate's.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use logmesh_bus::{AppendError, Record};
use logmesh_certs::Identity;
use logmesh_proto::v1::{self, NackReason, server_frame::Frame};
use logmesh_proto::{BatchFault, ClientFrame, Envelope, Flags, Limits, Opener, RawBatch, StreamKey, check};
use tokio::time::Instant;
use tonic::Status;

use crate::lanes::Lanes;
use crate::policy::{Grant, Topic};
use crate::streams::{Stream, StreamInfoFault, Streams};

/// Sequences in one Ack frame.
const ACK_SEQUENCES_MAX: usize = 4096;
/// Answers that wait to be sent; beyond it nothing is read.
const ANSWERS_MAX: usize = 4096;

/// What a session is fixed to when it begins.
pub(crate) struct Terms {
    pub(crate) identity: Identity,
    pub(crate) grant: Arc<Grant>,
    pub(crate) limits: Limits,
    pub(crate) lanes: Arc<Lanes>,
    /// Name of the session, for people.
    pub(crate) name: String,
    /// Silence after which the other side may be taken for dead.
    pub(crate) idle_timeout: Duration,
}

/// The moment in which something happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    pub(crate) unix_nano: u64,
}

/// What became of a frame.
pub(crate) enum Step {
    /// The client introduced itself; a Welcome is among the answers.
    Greeted(v1::Hello),
    /// A batch is to be published.
    Publish(Box<Publish>),
    /// A batch was refused; the Nack is among the answers.
    Refused { reason: NackReason, detail: String },
    /// Nothing to do.
    Skipped,
    /// The client will send no more.
    Bye,
    /// The client broke the protocol: the session ends with this status.
    End(Status),
}

/// One batch on its way to the bus.
pub(crate) struct Publish {
    pub(crate) sequence: u64,
    pub(crate) topic: Arc<str>,
    pub(crate) record: Record,
}

/// A batch that the bus has not answered for.
struct Pending {
    stream_id: Bytes,
    first_offset: u64,
    encoded_bytes: u64,
    record_bytes: u64,
    topic: Arc<str>,
}

/// Frames that wait to be sent.
#[derive(Default)]
struct Answers {
    first: VecDeque<Frame>,
    nacks: VecDeque<v1::Nack>,
    acks: Vec<u64>,
}

/// See the module.
pub(crate) struct Session {
    terms: Terms,
    opener: Opener,
    streams: Streams,
    pending: HashMap<u64, Pending>,
    bytes_in_flight: u64,
    credit_bytes: u64,
    last_sequence: u64,
    greeted: bool,
    answers: Answers,
}

/// A refusal, before it is an answer.
struct Refusal {
    reason: NackReason,
    delay: Duration,
    detail: String,
    limit_bytes: u32,
    /// Whether later batches of the stream must wait for this one.
    gates: bool,
}

impl Session {
    pub(crate) fn new(terms: Terms, credit_bytes: u64) -> Self {
        let opener = Opener::new(terms.limits);
        Self {
            terms,
            opener,
            streams: Streams::default(),
            pending: HashMap::new(),
            bytes_in_flight: 0,
            credit_bytes,
            last_sequence: 0,
            greeted: false,
            answers: Answers::default(),
        }
    }

    /// Whether the next frame may be read: a client without credit is not read, but with nothing in flight it may
    /// always send one batch; and answers must not pile up.
    pub(crate) fn wants_frame(&self) -> bool {
        let credit = self.pending.is_empty() || self.bytes_in_flight < self.credit_bytes;
        credit && self.answers.nacks.len() + self.answers.acks.len() < ANSWERS_MAX
    }

    /// Takes a frame.
    pub(crate) fn frame(&mut self, frame: ClientFrame, now: Now) -> Step {
        match frame {
            ClientFrame::Hello(hello) => self.hello(hello),
            ClientFrame::Batch(_) | ClientFrame::Bye(_) if !self.greeted => {
                Step::End(Status::invalid_argument("the first frame of a session must be Hello"))
            }
            ClientFrame::Batch(raw) => self.batch(raw, now),
            ClientFrame::Bye(_) => Step::Bye,
            ClientFrame::Unknown => Step::Skipped,
        }
    }

    /// Takes the bus's answer for a batch that was to be published.
    pub(crate) fn delivered(
        &mut self,
        sequence: u64,
        outcome: Result<(), &AppendError>,
        now: Instant,
    ) -> Option<NackReason> {
        let pending = self.pending.remove(&sequence)?;
        self.bytes_in_flight -= pending.encoded_bytes;
        self.streams.left(&pending.stream_id);
        let Err(error) = outcome else {
            self.terms.lanes.free(&pending.topic);
            self.answers.acks.push(sequence);
            return None;
        };
        let refusal = self.bus_refusal(error, &pending, now);
        let reason = refusal.reason;
        self.streams.refused(&pending.stream_id, pending.first_offset);
        self.nack(sequence, refusal);
        Some(reason)
    }

    /// Sets the limit of bytes in flight, and tells the client.
    pub(crate) fn set_credit(&mut self, limit_bytes: u64) {
        if self.credit_bytes != limit_bytes {
            self.credit_bytes = limit_bytes;
            if self.greeted {
                self.answers.first.retain(|frame| !matches!(frame, Frame::Credit(_)));
                self.answers.first.push_back(Frame::Credit(v1::Credit { limit_bytes }));
            }
        }
    }

    /// Asks the client to finish and go elsewhere.
    pub(crate) fn drain(&mut self, reason: &str, avoid: Duration, deadline: Duration) {
        self.answers.first.push_back(Frame::Drain(v1::Drain {
            reason: reason.to_owned(),
            avoid_millis: millis(avoid),
            deadline_millis: millis(deadline),
        }));
    }

    /// The next frame to send.
    pub(crate) fn answer(&mut self) -> Option<v1::ServerFrame> {
        let frame = if let Some(frame) = self.answers.first.pop_front() {
            frame
        } else if let Some(nack) = self.answers.nacks.pop_front() {
            Frame::Nack(nack)
        } else if self.answers.acks.is_empty() {
            return None;
        } else {
            let count = self.answers.acks.len().min(ACK_SEQUENCES_MAX);
            Frame::Ack(v1::Ack { sequences: self.answers.acks.drain(..count).collect() })
        };
        Some(v1::ServerFrame { frame: Some(frame) })
    }

    /// Whether [`Session::answer`] would give something.
    pub(crate) fn has_answer(&self) -> bool {
        !(self.answers.first.is_empty() && self.answers.nacks.is_empty() && self.answers.acks.is_empty())
    }

    /// Encoded bytes that the bus has not answered for.
    pub(crate) const fn bytes_in_flight(&self) -> u64 {
        self.bytes_in_flight
    }

    /// Batches that the bus has not answered for.
    pub(crate) fn batches_in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Streams known in this session.
    pub(crate) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether the client has introduced itself.
    pub(crate) const fn is_greeted(&self) -> bool {
        self.greeted
    }

    fn hello(&mut self, hello: v1::Hello) -> Step {
        if self.greeted {
            return Step::End(Status::invalid_argument("a session has one Hello, its first frame"));
        }
        if hello.protocol_version == 0 {
            return Step::End(Status::invalid_argument("Hello.protocol_version is 0; this gateway speaks 1"));
        }
        self.greeted = true;
        let limits = self.terms.limits;
        self.answers.first.push_back(Frame::Welcome(v1::Welcome {
            protocol_version: hello.protocol_version.min(logmesh_proto::PROTOCOL_VERSION),
            software: concat!("logmesh-gateway/", env!("CARGO_PKG_VERSION")).to_owned(),
            session: self.terms.name.clone(),
            identity: self.terms.identity.to_string(),
            codecs: vec![v1::Codec::Zstd.into(), v1::Codec::Snappy.into(), v1::Codec::None.into()],
            batch_encoded_bytes_max: limits.encoded_bytes_max,
            batch_uncompressed_bytes_max: limits.uncompressed_bytes_max,
            batch_records_max: limits.records_max,
            credit_bytes: self.credit_bytes,
            idle_timeout_millis: millis(self.terms.idle_timeout),
        }));
        Step::Greeted(hello)
    }

    fn batch(&mut self, raw: RawBatch, now: Now) -> Step {
        let sequence = raw.batch.sequence;
        if sequence <= self.last_sequence {
            let last = self.last_sequence;
            return Step::End(Status::invalid_argument(format!(
                "sequence {sequence} after {last}: sequences only grow"
            )));
        }
        self.last_sequence = sequence;
        let (stream_id, first_offset) = (raw.batch.stream_id.clone(), raw.batch.first_offset);
        match self.admit(raw, now) {
            Ok(publish) => Step::Publish(Box::new(publish)),
            Err(refusal) => {
                if refusal.gates {
                    self.streams.refused(&stream_id, first_offset);
                }
                let (reason, detail) = (refusal.reason, refusal.detail.clone());
                self.nack(sequence, refusal);
                Step::Refused { reason, detail }
            }
        }
    }

    /// All that is checked before a batch goes to the bus.
    fn admit(&mut self, raw: RawBatch, now: Now) -> Result<Publish, Refusal> {
        let limits = self.terms.limits;
        let RawBatch { mut batch, encoded } = raw;
        if encoded.len() > limits.encoded_bytes_max as usize {
            let fault = BatchFault::TooLarge {
                what: "the encoded batch",
                actual: encoded.len() as u64,
                limit: limits.encoded_bytes_max.into(),
            };
            return Err(Refusal::fault(&fault, &limits, true));
        }
        // A batch whose checksum is wrong says nothing reliable about where it belongs: it holds no others back.
        check(&batch, &limits)
            .map_err(|fault| Refusal::fault(&fault, &limits, matches!(fault, BatchFault::TooLarge { .. })))?;
        if let Some(info) = batch.info.take() {
            self.introduce(&batch.stream_id, info)?;
        }
        let stream = self.streams.find(&batch.stream_id).ok_or_else(Refusal::unknown_stream)?;
        if !stream.order.allows(batch.first_offset) {
            return Err(Refusal::out_of_order());
        }
        let topic = stream.topic.clone().map_err(Refusal::forbidden)?;
        if let Some(hold) = self.terms.lanes.held(&topic.on_bus, now.instant) {
            return Err(Refusal::held(&hold.reason, hold.until.duration_since(now.instant)));
        }
        if !stream.checked {
            self.opener.open(&batch).map_err(|fault| Refusal::fault(&fault, &limits, true))?;
            stream.checked = true;
        }
        self.terms.grant.take(batch.uncompressed_size, now.instant).map_err(Refusal::rate_limited)?;
        stream.order.taken(batch.first_offset, batch.end_offset);
        stream.batches_in_flight += 1;
        let record = record(&self.terms, stream, &topic, &batch, encoded, now.unix_nano);
        let encoded_bytes = record.value.len() as u64;
        let pending = Pending {
            stream_id: batch.stream_id,
            first_offset: batch.first_offset,
            encoded_bytes,
            record_bytes: record.size() as u64,
            topic: Arc::clone(&topic.on_bus),
        };
        self.bytes_in_flight += encoded_bytes;
        self.pending.insert(batch.sequence, pending);
        Ok(Publish { sequence: batch.sequence, topic: topic.on_bus, record })
    }

    fn introduce(&mut self, stream_id: &Bytes, info: v1::StreamInfo) -> Result<(), Refusal> {
        let topic = self.terms.grant.topic(&info.topic);
        let key = StreamKey::derive(self.terms.identity.as_str(), stream_id);
        self.streams.introduce(stream_id, key, info, topic).map_err(|fault| match fault {
            StreamInfoFault::TooLarge { bytes, limit } => Refusal {
                detail: format!("StreamInfo has {bytes} bytes, the limit is {limit}: shorten path or labels"),
                ..Refusal::new(NackReason::Corrupt, Duration::from_secs(10))
            },
            StreamInfoFault::Full => Refusal {
                detail: "too many streams of this session have batches in flight".to_owned(),
                ..Refusal::new(NackReason::Overloaded, Duration::from_secs(1))
            },
        })
    }

    fn bus_refusal(&self, error: &AppendError, pending: &Pending, now: Instant) -> Refusal {
        let (reason, delay) = match error {
            AppendError::Full { .. } => (NackReason::Overloaded, Duration::from_secs(1)),
            AppendError::Unavailable { .. } | AppendError::Closed => (NackReason::Unavailable, Duration::from_secs(1)),
            AppendError::Fatal { .. } => (NackReason::Unavailable, Duration::from_secs(10)),
            AppendError::TooLarge { .. } => (NackReason::TooLarge, Duration::ZERO),
            AppendError::UnknownTopic { .. } | AppendError::Denied { .. } => (NackReason::Held, crate::lanes::HOLD),
        };
        let mut refusal = Refusal { detail: error.to_string(), ..Refusal::new(reason, delay) };
        if reason == NackReason::Held && self.terms.lanes.hold(&pending.topic, error.to_string(), now) {
            tracing::warn!(lane = %pending.topic, %error, "lane is held");
        }
        if let AppendError::TooLarge { size, limit } = error {
            // The bus counts key and headers as well; the client is told what that leaves for the batch.
            let overhead = (*size).max(pending.record_bytes).saturating_sub(pending.encoded_bytes);
            refusal.limit_bytes = u32::try_from(limit.saturating_sub(overhead)).unwrap_or(u32::MAX);
        }
        refusal
    }

    fn nack(&mut self, sequence: u64, refusal: Refusal) {
        self.answers.nacks.push_back(v1::Nack {
            sequence,
            reason: refusal.reason.into(),
            delay_millis: millis(refusal.delay),
            detail: refusal.detail,
            limit_bytes: refusal.limit_bytes,
        });
    }
}

impl Refusal {
    fn new(reason: NackReason, delay: Duration) -> Self {
        Self { reason, delay, detail: String::new(), limit_bytes: 0, gates: true }
    }

    fn fault(fault: &BatchFault, limits: &Limits, gates: bool) -> Self {
        let limit_bytes = if matches!(fault, BatchFault::TooLarge { .. }) { limits.encoded_bytes_max } else { 0 };
        let refusal = Self::new(fault.nack_reason(), Duration::ZERO);
        Self { detail: fault.to_string(), limit_bytes, gates, ..refusal }
    }

    fn unknown_stream() -> Self {
        let detail = "its StreamInfo was not sent in this session, or is forgotten".to_owned();
        Self { detail, gates: false, ..Self::new(NackReason::UnknownStream, Duration::ZERO) }
    }

    fn out_of_order() -> Self {
        let detail = "an earlier batch of this stream was refused and has not returned".to_owned();
        Self { detail, gates: false, ..Self::new(NackReason::OutOfOrder, Duration::ZERO) }
    }

    fn forbidden(detail: String) -> Self {
        Self { detail, ..Self::new(NackReason::Forbidden, Duration::from_secs(30)) }
    }

    fn held(reason: &str, delay: Duration) -> Self {
        Self { detail: format!("the lane is held: {reason}"), ..Self::new(NackReason::Held, delay) }
    }

    fn rate_limited(delay: Duration) -> Self {
        let detail = "the tenant is over its rate".to_owned();
        Self { detail, ..Self::new(NackReason::RateLimited, delay) }
    }
}

/// The bus record: the client's own bytes, and what the gateway knows.
fn record(
    terms: &Terms,
    stream: &Stream,
    topic: &Topic,
    batch: &v1::Batch,
    encoded: Bytes,
    received_unix_nano: u64,
) -> Record {
    let envelope = Envelope {
        tenant: terms.grant.tenant.to_string(),
        identity: terms.identity.to_string(),
        stream_key: stream.key,
        first_offset: batch.first_offset,
        end_offset: batch.end_offset,
        record_count: batch.record_count,
        codec: batch.codec(),
        flags: Flags::from_bits(batch.flags),
        received_unix_nano,
        topic: topic.name.to_string(),
        info: v1::StreamInfo::clone(&stream.info),
    };
    Record { key: Bytes::copy_from_slice(stream.key.as_bytes()), headers: envelope.to_headers(), value: encoded }
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
