//! Which batch goes when, and what an answer means: the session as a machine.
//!
//! Owns the batches between tailer and acknowledgement and the rules of the session; no socket, no clock. Batches of a
//! stream leave in order; streams take turns. In flight is what was sent and not answered in this session; its encoded
//! bytes stay within the gateway's credit, except that one batch may always go when nothing is in flight. After a
//! refusal a stream sends nothing until all it has in flight is answered and the delay is over; then it goes on with the
//! first batch that was refused.
//!
//! Order of calls: [`Outbox::open`] with the Welcome, then [`Outbox::next`] while it gives frames, the `handle` calls as
//! answers come, [`Outbox::close`] when the session is over. [`Outbox::push`] at any time.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::Duration,
};

use logmesh_proto::v1;
use prost::Message;

use crate::parcel::{Answer, Parcel, Returned, StreamNumber};

/// Wait before a refused lane is tried again, where the gateway asks for less.
const FORBIDDEN_RETRY: Duration = Duration::from_secs(30);
/// Least wait after a refusal that names none.
const DELAY_MIN: Duration = Duration::from_millis(20);
/// Longest wait that a gateway can ask for.
const DELAY_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
struct Stream {
    /// In order of offsets; some may be in flight.
    parcels: VecDeque<Sent>,
    in_flight: usize,
    /// Refused, and not to go on before this.
    waits_until: Option<Duration>,
    /// Everything of it goes back to the tailer: its lane is held.
    returns: Option<Duration>,
    /// Whether it is in the queue of streams that may send.
    ready: bool,
}

#[derive(Debug)]
struct Sent {
    parcel: Parcel,
    /// Sequence in this session, once sent.
    sequence: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    stream: StreamNumber,
    first: u64,
    encoded: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Outbox {
    streams: HashMap<StreamNumber, Stream>,
    ready: VecDeque<StreamNumber>,
    flights: BTreeMap<u64, Flight>,
    in_flight_bytes: u64,
    credit: u64,
    open: bool,
    next_sequence: u64,
    /// Streams whose info this session knows.
    introduced: HashSet<StreamNumber>,
    /// Since when something is in flight and nothing was answered.
    stalled_since: Option<Duration>,
    /// Topics that the policy forbids, as the gateway put it.
    forbidden: BTreeMap<String, String>,
}

impl Outbox {
    /// Takes a batch to be sent.
    pub fn push(&mut self, parcel: Parcel) {
        let number = parcel.stream;
        let stream = self.streams.entry(number).or_default();
        let first = parcel.batch.first_offset;
        // Built again, it may belong before later ones.
        let at = stream.parcels.partition_point(|sent| sent.parcel.batch.first_offset < first);
        stream.parcels.insert(at, Sent { parcel, sequence: None });
        self.make_ready(number);
    }

    /// Gives back every batch of a stream. What is in flight is answered, or given back with the next call, unless
    /// `in_flight` asks for that too: then its answers are ignored.
    pub fn recall(&mut self, number: StreamNumber, in_flight: bool, answers: &mut Vec<Answer>) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        if in_flight {
            stream.in_flight = 0;
            stream.parcels.iter_mut().for_each(|sent| sent.sequence = None);
            let landed = self.flights.extract_if(.., |_, flight| flight.stream == number);
            let bytes: u64 = landed.map(|(_, flight)| flight.encoded as u64).sum();
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
            self.stalled_since = self.stalled_since.filter(|_| !self.flights.is_empty());
        }
        let (flying, waiting): (VecDeque<Sent>, VecDeque<Sent>) =
            std::mem::take(&mut stream.parcels).into_iter().partition(|sent| sent.sequence.is_some());
        stream.parcels = flying;
        answers.extend(waiting.into_iter().map(|sent| Answer::Returned(Box::new(sent.parcel), Returned::Recalled)));
        if stream.parcels.is_empty() {
            self.streams.remove(&number);
            self.unready(number);
        }
    }

    /// A session began: everything unacknowledged is to be sent in it.
    pub fn open(&mut self, credit: u64) {
        self.close();
        self.open = true;
        self.credit = credit;
        self.next_sequence = 1;
        let mut numbers: Vec<StreamNumber> = self.streams.keys().copied().collect();
        numbers.sort_unstable();
        numbers.into_iter().for_each(|number| self.make_ready(number));
    }

    /// The session is over: nothing is in flight any more.
    pub fn close(&mut self) {
        self.open = false;
        self.flights.clear();
        self.in_flight_bytes = 0;
        self.introduced.clear();
        self.ready.clear();
        self.stalled_since = None;
        for stream in self.streams.values_mut() {
            stream.in_flight = 0;
            stream.ready = false;
            stream.returns = None;
            stream.parcels.iter_mut().for_each(|sent| sent.sequence = None);
        }
    }

    /// The next batch to send, if one may go now.
    pub fn next(&mut self, now: Duration) -> Option<v1::Batch> {
        while self.open {
            let number = *self.ready.front()?;
            let Some(stream) = self.streams.get_mut(&number).filter(|stream| stream.waits_until.is_none()) else {
                self.unready(number);
                continue;
            };
            let Some(sent) = stream.parcels.iter_mut().find(|sent| sent.sequence.is_none()) else {
                self.unready(number);
                continue;
            };
            let mut batch = sent.parcel.batch.clone();
            batch.sequence = self.next_sequence;
            if !self.introduced.contains(&number) {
                batch.info = Some((*sent.parcel.info).clone());
            }
            let encoded = batch.encoded_len();
            let fits = self.in_flight_bytes.saturating_add(encoded as u64) <= self.credit;
            if !fits && !self.flights.is_empty() {
                return None;
            }
            sent.sequence = Some(batch.sequence);
            stream.in_flight += 1;
            self.introduced.insert(number);
            self.next_sequence += 1;
            self.in_flight_bytes += encoded as u64;
            let flight = Flight { stream: number, first: batch.first_offset, encoded };
            self.flights.insert(batch.sequence, flight);
            self.stalled_since.get_or_insert(now);
            self.ready.rotate_left(1);
            return Some(batch);
        }
        None
    }

    /// A batch that was given out did not leave after all.
    pub fn unsend(&mut self, sequence: u64, now: Duration) {
        let Some((_, stream)) = self.land(sequence, now) else { return };
        for sent in stream.parcels.iter_mut().filter(|sent| sent.sequence == Some(sequence)) {
            sent.sequence = None;
        }
    }

    /// Another limit of bytes in flight.
    pub fn handle_credit(&mut self, limit: u64) {
        self.credit = limit;
    }

    /// Batches are durable. A sequence that is not in flight is ignored.
    pub fn handle_ack(&mut self, sequences: &[u64], now: Duration, answers: &mut Vec<Answer>) {
        for sequence in sequences {
            let Some((flight, stream)) = self.land(*sequence, now) else { continue };
            stream.parcels.retain(|sent| sent.sequence != Some(*sequence));
            if stream.parcels.is_empty() && stream.waits_until.is_none() {
                self.streams.remove(&flight.stream);
                self.unready(flight.stream);
            }
            answers.push(Answer::Acked { stream: flight.stream, first: flight.first });
        }
    }

    /// A batch was refused.
    pub fn handle_nack(&mut self, nack: &v1::Nack, now: Duration, answers: &mut Vec<Answer>) {
        let Some((flight, _)) = self.land(nack.sequence, now) else { return };
        let number = flight.stream;
        let delay = Duration::from_millis(u64::from(nack.delay_millis)).clamp(DELAY_MIN, DELAY_MAX);
        let Some(stream) = self.streams.get_mut(&number) else { return };
        let Some(at) = stream.parcels.iter().position(|sent| sent.sequence == Some(nack.sequence)) else { return };
        stream.parcels[at].sequence = None;
        stream.waits_until = Some(stream.waits_until.map_or(now + delay, |until| until.max(now + delay)));
        let why = match nack.reason() {
            v1::NackReason::Unspecified
            | v1::NackReason::Unavailable
            | v1::NackReason::Overloaded
            | v1::NackReason::RateLimited => None,
            v1::NackReason::OutOfOrder => stream.returns.map(|until| until.saturating_sub(now)).map(held),
            v1::NackReason::UnknownStream => {
                self.introduced.remove(&number);
                None
            }
            v1::NackReason::TooLarge => {
                Some(Returned::TooLarge { limit: usize::try_from(nack.limit_bytes).unwrap_or(usize::MAX) })
            }
            v1::NackReason::Corrupt => Some(Returned::Corrupt),
            v1::NackReason::Held => {
                stream.returns = Some(now + delay);
                Some(held(delay))
            }
            v1::NackReason::Forbidden => {
                let topic = stream.parcels[at].parcel.info.topic.clone();
                self.forbidden.insert(topic, nack.detail.clone());
                stream.returns = Some(now + FORBIDDEN_RETRY.max(delay));
                Some(held(FORBIDDEN_RETRY.max(delay)))
            }
        };
        if let Some(why) = why {
            self.give_back(number, at, why, answers);
        }
    }

    /// Gives a refused batch back to the tailer; with a held lane all that is not in flight.
    fn give_back(&mut self, number: StreamNumber, at: usize, why: Returned, answers: &mut Vec<Answer>) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        if let Some(sent) = stream.parcels.remove(at) {
            answers.push(Answer::Returned(Box::new(sent.parcel), why));
        }
        if matches!(why, Returned::Held { .. }) {
            let (flying, waiting) =
                std::mem::take(&mut stream.parcels).into_iter().partition(|sent| sent.sequence.is_some());
            let waiting: VecDeque<Sent> = waiting;
            stream.parcels = flying;
            answers.extend(waiting.into_iter().map(|sent| Answer::Returned(Box::new(sent.parcel), why)));
        }
    }

    /// Lets streams go on whose wait is over.
    pub fn handle_timeout(&mut self, now: Duration) {
        let over = |stream: &Stream| stream.in_flight == 0 && stream.waits_until.is_some_and(|until| until <= now);
        let numbers: Vec<StreamNumber> =
            self.streams.iter().filter(|(_, stream)| over(stream)).map(|(number, _)| *number).collect();
        for number in numbers {
            if let Some(stream) = self.streams.get_mut(&number) {
                stream.waits_until = None;
                stream.returns = None;
                if stream.parcels.is_empty() {
                    self.streams.remove(&number);
                    continue;
                }
            }
            self.make_ready(number);
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.streams.values().filter(|stream| stream.in_flight == 0).filter_map(|stream| stream.waits_until).min()
    }

    /// Since when batches are in flight and nothing was answered.
    #[must_use]
    pub fn stalled_since(&self) -> Option<Duration> {
        self.stalled_since
    }

    /// Whether nothing is waiting or in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.values().all(|stream| stream.parcels.is_empty())
    }

    /// Topics that the policy forbids, with the gateway's words; taken once.
    pub fn take_forbidden(&mut self) -> BTreeMap<String, String> {
        std::mem::take(&mut self.forbidden)
    }

    /// Takes a batch out of flight: it was answered.
    fn land(&mut self, sequence: u64, now: Duration) -> Option<(Flight, &mut Stream)> {
        let flight = self.flights.remove(&sequence)?;
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(flight.encoded as u64);
        self.stalled_since = (!self.flights.is_empty()).then_some(now);
        let stream = self.streams.get_mut(&flight.stream)?;
        stream.in_flight -= 1;
        Some((flight, stream))
    }

    fn make_ready(&mut self, number: StreamNumber) {
        if let Some(stream) = self.streams.get_mut(&number)
            && self.open
            && !stream.ready
            && stream.waits_until.is_none()
        {
            stream.ready = true;
            self.ready.push_back(number);
        }
    }

    fn unready(&mut self, number: StreamNumber) {
        self.ready.retain(|other| *other != number);
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.ready = false;
        }
    }
}

fn held(delay: Duration) -> Returned {
    Returned::Held { delay }
}
