//! Spooled batches on their way to a gateway: a machine without I/O.
//!
//! Owns what was read from the spool and is not acknowledged. An entry is *under way* with all it holds: as one part or, where
//! its lane takes none so large, as several. Of an entry that its lane does not take now, since it is held or forbidden, or
//! takes no record so large, only the place is kept: it is *deferred*, and read again when its time has come. So it is in
//! nobody's way.
//!
//! A stream that was never acknowledged has only so much under way, so that little has left when its lane turns out to be
//! held. A held stream waits, and then tries again with a few batches; what is read of it meanwhile is deferred at once.
//! With the first acknowledgement it is as any other, but what is deferred of it goes before what is newer.
//!
//! Does not own the journal: the driver reads entries, does with each what [`Transit::admission`] says, reads again what is
//! [`Transit::wanted`], sends what [`Transit::due`] gives, reports answers, and may forget everything before
//! [`Transit::settled`].
//!
//! Invariants: every entry has something that is not acknowledged; it is under way or deferred, never both; a part under way
//! is either with the shipper or kept here; bytes of all parts under way are counted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use logmesh_journal::Position;

use crate::parcel::{Parcel, StreamNumber};

/// Parts under way of a stream that was never acknowledged.
const NEW_MAX: usize = 32;
/// Parts under way of a stream that tries whether it is still held, and of all that do.
const TRIES_MAX: usize = 2;
const ALL_TRIES_MAX: usize = 8;
/// Places kept of what is deferred. Beyond them reading waits; what comes back is deferred still, and is bounded by what is
/// under way.
const PLACES_MAX: usize = 65_536;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Transit {
    entries: BTreeMap<Position, Entry>,
    /// Encoded bytes of all parts under way.
    bytes: usize,
    parts: usize,
    deferred: BTreeMap<Position, Deferred>,
    deferred_bytes: usize,
    /// What is kept of deferred entries: a place each, and every span.
    places: usize,
    /// Streams with anything that is not acknowledged.
    streams: HashMap<StreamNumber, Stream>,
    /// Streams that are not held and have deferred entries; they take turns.
    ready: VecDeque<StreamNumber>,
    /// Held streams that may try again, and when.
    tries: BTreeSet<(Duration, StreamNumber)>,
    /// Entries that are deferred by themselves, and until when.
    alone: BTreeSet<(Duration, Position)>,
}

/// Under way.
#[derive(Debug)]
struct Entry {
    stream: StreamNumber,
    spooled_unix_nano: u64,
    /// From its beginning to its end; `None` where only a rest of it was read again.
    whole: Option<Span>,
    /// What is not acknowledged of it, in order.
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    span: Span,
    encoded: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// The shipper has it.
    Out,
    /// It came back, or waits to be sent for the first time; not to be sent before that time.
    Here(Box<Parcel>, Duration),
    /// Not kept: it waits for its stream or, where a time is given, for that. Deferred once the other parts are answered.
    Away(Option<Duration>),
}

/// Offsets of a stream, from the first record of a batch to behind its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) end: u64,
}

#[derive(Debug)]
struct Deferred {
    stream: StreamNumber,
    spooled_unix_nano: u64,
    encoded: usize,
    /// What is left of it; empty where that is all.
    rest: Vec<Span>,
    /// It waits until then by itself, instead of with its stream.
    alone: Option<Duration>,
}

/// What is known of a deferred entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) position: Position,
    /// When it was spooled.
    pub(super) spooled_unix_nano: u64,
    /// What is left of it; empty where that is all.
    pub(super) rest: Vec<Span>,
}

#[derive(Debug, Default)]
struct Stream {
    flow: Flow,
    /// Under way.
    parts: usize,
    /// Deferred with the stream.
    line: BTreeSet<Position>,
    /// Entries deferred by themselves.
    alone: usize,
    /// Its time among those that may try.
    try_at: Option<Duration>,
    /// Whether it is among the ready ones.
    is_ready: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flow {
    /// Nothing of it was acknowledged yet.
    #[default]
    New,
    /// Something was, and nothing was held since.
    Open,
    /// Nothing is sent before that time.
    Held(Duration),
    /// That time is over, and a few batches are sent to see.
    Trying,
}

/// What is to become of the next entry of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// [`Transit::begin`] it, once the window lets.
    Begin,
    /// [`Transit::defer`] it.
    Defer,
    /// Read no further for now.
    Wait,
}

impl Transit {
    /// What is to become of an entry that was read, behind all that were before.
    pub(super) fn admission(&self, stream: StreamNumber) -> Admission {
        if self.places >= PLACES_MAX {
            return Admission::Wait;
        }
        let Some(stream) = self.streams.get(&stream) else { return Admission::Begin };
        match stream.flow {
            Flow::Held(_) | Flow::Trying => Admission::Defer,
            Flow::New if stream.parts >= NEW_MAX => Admission::Wait,
            // Older ones go first.
            Flow::New | Flow::Open if !stream.line.is_empty() => Admission::Wait,
            Flow::New | Flow::Open => Admission::Begin,
        }
    }

    /// Takes an entry that was read.
    pub(super) fn begin(&mut self, position: Position, spooled_unix_nano: u64, parcel: Parcel) {
        let (stream, whole) = (parcel.stream, Some(Span::of(&parcel)));
        let parts = vec![Part::new(parcel, Duration::ZERO)];
        self.enter(position, Entry { stream, spooled_unix_nano, whole, parts });
    }

    /// Remembers an entry that was read by its place alone.
    pub(super) fn defer(&mut self, position: Position, spooled_unix_nano: u64, stream: StreamNumber, encoded: usize) {
        self.insert(position, Deferred { stream, spooled_unix_nano, encoded, rest: Vec::new(), alone: None });
        self.arrange(stream);
    }

    /// The deferred entry that is to be read again next, if one may be sent now. [`Transit::resume`], [`Transit::postpone`] or
    /// [`Transit::forget`] it.
    pub(super) fn wanted(&mut self, now: Duration) -> Option<Remembered> {
        let position = self.next_alone(now).or_else(|| self.next_try(now)).or_else(|| self.next_ready())?;
        self.remembered(position)
    }

    /// Takes what is left of a deferred entry, read again.
    pub(super) fn resume(&mut self, position: Position, parcels: Vec<Parcel>) {
        let Some(Deferred { stream, spooled_unix_nano, rest, .. }) = self.remove(position) else { return };
        let part = |parcel: Parcel| Part::new(Parcel { stream, ..parcel }, Duration::ZERO);
        let parts: Vec<Part> = parcels.into_iter().map(part).collect();
        let whole = parts.first().filter(|_| rest.is_empty()).map(|part| part.span);
        if !parts.is_empty() {
            self.enter(position, Entry { stream, spooled_unix_nano, whole, parts });
        }
        if let Some(state) = self.streams.get_mut(&stream)
            && matches!(state.flow, Flow::Held(_))
        {
            state.flow = Flow::Trying;
        }
        if self.ready.front() == Some(&stream) {
            self.ready.rotate_left(1);
        }
        self.arrange(stream);
    }

    /// A deferred entry cannot be read now: its stream waits.
    pub(super) fn postpone(&mut self, position: Position, until: Duration) {
        let Some(deferred) = self.remove(position) else { return };
        let stream = deferred.stream;
        self.insert(position, Deferred { alone: None, ..deferred });
        self.hold(stream, until);
        self.arrange(stream);
    }

    /// Gives a deferred entry up.
    pub(super) fn forget(&mut self, position: Position) {
        if let Some(deferred) = self.remove(position) {
            self.arrange(deferred.stream);
        }
    }

    /// Takes what is to be sent now; it then counts as being with the shipper.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Parcel> {
        let mut due = Vec::new();
        for part in self.entries.values_mut().flat_map(|entry| &mut entry.parts) {
            let is_due = matches!(part.place, Place::Here(_, at) if at <= now);
            if is_due && let Place::Here(parcel, _) = std::mem::replace(&mut part.place, Place::Out) {
                due.push(*parcel);
            }
        }
        due
    }

    /// When something is due that is not yet.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let parts = self.entries.values().flat_map(|entry| &entry.parts);
        parts.filter_map(|part| if let Place::Here(_, at) = part.place { Some(at) } else { None }).min()
    }

    /// When something may be wanted whose time has not come yet.
    pub(super) fn next_wanted(&self, now: Duration) -> Option<Duration> {
        let later = now.saturating_add(Duration::from_nanos(1));
        let held = self.tries.range((later, StreamNumber(0))..).next().map(|(at, _)| *at);
        let alone = self.alone.range((later, Position::default())..).next().map(|(at, _)| *at);
        held.into_iter().chain(alone).min()
    }

    /// Notes an acknowledgement. Returns whether anything changed.
    pub(super) fn acknowledge(&mut self, stream: StreamNumber, first: u64) -> bool {
        let Some((position, index)) = self.find(stream, first) else { return false };
        let Some(entry) = self.entries.get_mut(&position) else { return false };
        let part = entry.parts.remove(index);
        self.left(stream, part.encoded);
        if let Some(state) = self.streams.get_mut(&stream) {
            state.flow = match state.flow {
                // Sent before it was held, it says nothing of now.
                Flow::Held(until) => Flow::Held(until),
                Flow::New | Flow::Open | Flow::Trying => Flow::Open,
            };
        }
        self.settle(position);
        true
    }

    /// Takes a batch back, to be sent again at `at`.
    pub(super) fn returned(&mut self, parcel: Parcel, at: Duration) {
        if let Some((position, index)) = self.find(parcel.stream, parcel.batch.first_offset)
            && let Some(entry) = self.entries.get_mut(&position)
        {
            entry.parts[index].place = Place::Here(Box::new(parcel), at);
        }
    }

    /// A batch came back: nothing of its stream is taken until then.
    pub(super) fn held(&mut self, stream: StreamNumber, first: u64, until: Duration) {
        if let Some((position, index)) = self.find(stream, first) {
            self.hold(stream, until);
            self.put_away(position, index, None);
        }
    }

    /// A batch came back: it is to be tried again then, and its neighbours go on.
    pub(super) fn oversized(&mut self, stream: StreamNumber, first: u64, until: Duration) {
        if let Some((position, index)) = self.find(stream, first) {
            self.put_away(position, index, Some(until));
        }
    }

    /// Takes smaller batches in the place of one that came back.
    pub(super) fn divide(&mut self, stream: StreamNumber, first: u64, smaller: Vec<Parcel>, at: Duration) {
        let Some((position, index)) = self.find(stream, first) else { return };
        let Some(entry) = self.entries.get_mut(&position) else { return };
        let parts: Vec<Part> = smaller.into_iter().map(|parcel| Part::new(parcel, at)).collect();
        let (count, bytes) = (parts.len(), parts.iter().map(|part| part.encoded).sum::<usize>());
        let divided = entry.parts[index].encoded;
        entry.parts.splice(index..=index, parts);
        self.bytes = self.bytes + bytes - divided;
        self.parts = self.parts + count - 1;
        if let Some(state) = self.streams.get_mut(&stream) {
            state.parts = state.parts + count - 1;
        }
        self.arrange(stream);
    }

    /// Place of the first entry that is not acknowledged.
    pub(super) fn settled(&self) -> Option<Position> {
        self.first_under_way().into_iter().chain(self.first_deferred()).min()
    }

    /// Whether the first entry that is not acknowledged is under way.
    pub(super) fn begins_under_way(&self) -> bool {
        let deferred = self.first_deferred();
        self.first_under_way().is_some_and(|position| deferred.is_none_or(|deferred| position < deferred))
    }

    /// The oldest deferred entry.
    pub(super) fn oldest_deferred(&self) -> Option<Remembered> {
        self.remembered(self.first_deferred()?)
    }

    /// Encoded bytes of what is under way.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Batches under way.
    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    /// Encoded bytes of what is deferred.
    pub(super) fn deferred_bytes(&self) -> usize {
        self.deferred_bytes
    }

    /// Whether everything that was read is acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.deferred.is_empty()
    }

    /// Whether anything of the stream is not acknowledged.
    pub(super) fn holds(&self, stream: StreamNumber) -> bool {
        self.streams.contains_key(&stream)
    }

    fn first_under_way(&self) -> Option<Position> {
        self.entries.first_key_value().map(|(position, _)| *position)
    }

    fn first_deferred(&self) -> Option<Position> {
        self.deferred.first_key_value().map(|(position, _)| *position)
    }

    fn remembered(&self, position: Position) -> Option<Remembered> {
        let Deferred { spooled_unix_nano, rest, .. } = self.deferred.get(&position)?;
        Some(Remembered { position, spooled_unix_nano: *spooled_unix_nano, rest: rest.clone() })
    }

    /// The first entry whose own time has come. Where its stream is held meanwhile, it goes on waiting with that.
    fn next_alone(&mut self, now: Duration) -> Option<Position> {
        while let Some((_, position)) = self.alone.first().copied().filter(|(at, _)| *at <= now) {
            let stream = self.deferred.get(&position)?.stream;
            if !self.is_held(stream) {
                return Some(position);
            }
            let deferred = self.remove(position)?;
            self.insert(position, Deferred { alone: None, ..deferred });
            self.arrange(stream);
        }
        None
    }

    /// The first entry of a held stream that may try again.
    fn next_try(&self, now: Duration) -> Option<Position> {
        let (_, stream) = self.tries.first().filter(|(at, _)| *at <= now)?;
        let first = self.streams.get(stream)?.line.first().copied();
        first.filter(|_| self.trying() < ALL_TRIES_MAX)
    }

    /// The first entry of the stream whose turn it is.
    fn next_ready(&mut self) -> Option<Position> {
        while let Some(number) = self.ready.front().copied() {
            if !self.is_held(number)
                && let Some(first) = self.streams.get(&number).and_then(|stream| stream.line.first())
            {
                return Some(*first);
            }
            self.ready.pop_front();
            if let Some(stream) = self.streams.get_mut(&number) {
                stream.is_ready = false;
            }
        }
        None
    }

    fn flow(&self, stream: StreamNumber) -> Option<Flow> {
        self.streams.get(&stream).map(|stream| stream.flow)
    }

    fn is_held(&self, stream: StreamNumber) -> bool {
        matches!(self.flow(stream), Some(Flow::Held(_) | Flow::Trying))
    }

    /// Parts under way of streams that try again.
    fn trying(&self) -> usize {
        let trying = self.entries.values().filter(|entry| self.flow(entry.stream) == Some(Flow::Trying));
        trying.map(Entry::under_way).sum()
    }

    fn find(&self, stream: StreamNumber, first: u64) -> Option<(Position, usize)> {
        let is_it = |part: &Part| part.span.first == first && matches!(part.place, Place::Out);
        let mut entries = self.entries.iter().filter(|(_, entry)| entry.stream == stream);
        entries.find_map(|(position, entry)| Some((*position, entry.parts.iter().position(is_it)?)))
    }

    fn hold(&mut self, stream: StreamNumber, until: Duration) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.flow = match state.flow {
                Flow::Held(other) => Flow::Held(other.max(until)),
                Flow::New | Flow::Open | Flow::Trying => Flow::Held(until),
            };
        }
    }

    fn enter(&mut self, position: Position, entry: Entry) {
        self.bytes += entry.parts.iter().map(|part| part.encoded).sum::<usize>();
        self.parts += entry.parts.len();
        self.streams.entry(entry.stream).or_default().parts += entry.parts.len();
        self.entries.insert(position, entry);
    }

    /// A part is not under way any more.
    fn left(&mut self, stream: StreamNumber, encoded: usize) {
        self.bytes -= encoded;
        self.parts -= 1;
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.parts -= 1;
        }
    }

    fn put_away(&mut self, position: Position, index: usize, alone: Option<Duration>) {
        let Some(entry) = self.entries.get_mut(&position) else { return };
        let (stream, encoded) = (entry.stream, entry.parts[index].encoded);
        entry.parts[index].place = Place::Away(alone);
        self.left(stream, encoded);
        self.settle(position);
    }

    /// Lets go of an entry with nothing under way: what is left of it, if anything, is deferred.
    fn settle(&mut self, position: Position) {
        let Some(entry) = self.entries.get(&position) else { return };
        let stream = entry.stream;
        if entry.under_way() == 0
            && let Some(entry) = self.entries.remove(&position)
            && !entry.parts.is_empty()
        {
            self.insert(position, entry.deferred());
        }
        self.arrange(stream);
    }

    fn insert(&mut self, position: Position, deferred: Deferred) {
        self.deferred_bytes += deferred.encoded;
        self.places += 1 + deferred.rest.len();
        let stream = self.streams.entry(deferred.stream).or_default();
        if let Some(at) = deferred.alone {
            stream.alone += 1;
            self.alone.insert((at, position));
        } else {
            stream.line.insert(position);
        }
        self.deferred.insert(position, deferred);
    }

    fn remove(&mut self, position: Position) -> Option<Deferred> {
        let deferred = self.deferred.remove(&position)?;
        self.deferred_bytes -= deferred.encoded;
        self.places -= 1 + deferred.rest.len();
        let stream = self.streams.get_mut(&deferred.stream)?;
        if let Some(at) = deferred.alone {
            stream.alone -= 1;
            self.alone.remove(&(at, position));
        } else {
            stream.line.remove(&position);
        }
        Some(deferred)
    }

    /// Puts a stream where it now belongs: among those whose deferred entries may go, or nowhere.
    fn arrange(&mut self, number: StreamNumber) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        if let Some(at) = stream.try_at.take() {
            self.tries.remove(&(at, number));
        }
        let may_try = !stream.line.is_empty() && stream.parts < TRIES_MAX;
        match stream.flow {
            Flow::Held(at) if may_try => stream.try_at = Some(at),
            Flow::Trying if may_try => stream.try_at = Some(Duration::ZERO),
            Flow::New | Flow::Open if !stream.line.is_empty() && !stream.is_ready => {
                stream.is_ready = true;
                self.ready.push_back(number);
            }
            Flow::New | Flow::Open | Flow::Held(_) | Flow::Trying => {}
        }
        if let Some(at) = stream.try_at {
            self.tries.insert((at, number));
        }
        if stream.is_done() {
            if stream.is_ready {
                self.ready.retain(|other| *other != number);
            }
            self.streams.remove(&number);
        }
    }
}

impl Entry {
    /// Parts under way.
    fn under_way(&self) -> usize {
        self.parts.iter().filter(|part| !matches!(part.place, Place::Away(_))).count()
    }

    /// What is to be remembered of it.
    fn deferred(&self) -> Deferred {
        let mut rest: Vec<Span> = Vec::new();
        for Part { span, .. } in &self.parts {
            match rest.last_mut() {
                Some(last) if last.end == span.first => last.end = span.end,
                Some(_) | None => rest.push(*span),
            }
        }
        if self.whole.is_some_and(|whole| rest == [whole]) {
            rest.clear();
        }
        // One that waits for the stream makes all of it wait for that.
        let times = self.parts.iter().map(|part| if let Place::Away(alone) = part.place { alone } else { None });
        Deferred {
            stream: self.stream,
            spooled_unix_nano: self.spooled_unix_nano,
            encoded: self.parts.iter().map(|part| part.encoded).sum(),
            rest,
            alone: times.min().flatten(),
        }
    }
}

impl Part {
    fn new(parcel: Parcel, at: Duration) -> Self {
        Self { span: Span::of(&parcel), encoded: parcel.encoded, place: Place::Here(Box::new(parcel), at) }
    }
}

impl Span {
    pub(super) fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.first)
    }

    fn of(parcel: &Parcel) -> Self {
        Self { first: parcel.batch.first_offset, end: parcel.batch.end_offset }
    }
}

impl Stream {
    /// Whether nothing is left of it that is not acknowledged.
    fn is_done(&self) -> bool {
        self.parts == 0 && self.line.is_empty() && self.alone == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use logmesh_proto::v1;
    use proptest::prelude::*;

    use super::*;

    const STREAM: StreamNumber = StreamNumber(7);
    const NEIGHBOUR: StreamNumber = StreamNumber(8);

    fn parcel_of(stream: StreamNumber, first: u64, end: u64) -> Parcel {
        let batch = v1::Batch { first_offset: first, end_offset: end, ..v1::Batch::default() };
        Parcel { stream, batch, info: Arc::default(), encoded: 10 }
    }

    fn parcel(first: u64, end: u64) -> Parcel {
        parcel_of(STREAM, first, end)
    }

    fn position(byte: u64) -> Position {
        Position { segment: 1, byte }
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// Entries of one stream, all of them out.
    fn with_entries(count: u64) -> Transit {
        let mut transit = Transit::default();
        (0..count).for_each(|entry| transit.begin(position(entry), 0, parcel(entry * 10, entry * 10 + 10)));
        assert_eq!(transit.due(Duration::ZERO).len() as u64, count);
        transit
    }

    /// Reads again what is wanted, and returns where what is due then begins.
    fn resume(transit: &mut Transit, now: Duration) -> Vec<u64> {
        while let Some(wanted) = transit.wanted(now) {
            let first = wanted.position.byte * 10;
            transit.resume(wanted.position, vec![parcel(first, first + 10)]);
        }
        transit.due(now).iter().map(|parcel| parcel.batch.first_offset).collect()
    }

    #[test]
    fn only_what_is_acknowledged_from_the_front_is_settled() {
        let mut transit = with_entries(3);
        assert!(transit.acknowledge(STREAM, 10) && !transit.acknowledge(STREAM, 10));
        assert_eq!((transit.settled(), transit.bytes()), (Some(position(0)), 20));
        assert!(transit.acknowledge(STREAM, 0));
        assert_eq!(transit.settled(), Some(position(2)));
        assert!(transit.acknowledge(STREAM, 20) && transit.is_empty() && !transit.holds(STREAM));
    }

    #[test]
    fn a_batch_that_came_back_waits_and_is_sent_again() {
        let mut transit = with_entries(1);
        transit.returned(parcel(0, 10), seconds(5));
        assert_eq!(transit.next_due(), Some(seconds(5)));
        assert!(transit.due(seconds(4)).is_empty());
        assert_eq!(transit.due(seconds(5)).len(), 1);
    }

    #[test]
    fn an_entry_in_parts_is_done_when_all_of_them_are() {
        let mut transit = with_entries(2);
        transit.divide(STREAM, 0, vec![parcel(0, 4), parcel(4, 10)], Duration::ZERO);
        assert_eq!(transit.due(Duration::ZERO).len(), 2);
        assert!(transit.acknowledge(STREAM, 4) && transit.settled() == Some(position(0)));
        assert!(transit.acknowledge(STREAM, 0) && transit.settled() == Some(position(1)));
        assert_eq!((transit.bytes(), transit.parts()), (10, 1));
    }

    #[test]
    fn what_is_held_is_kept_by_its_place_and_tried_again_a_few_at_a_time() {
        let mut transit = with_entries(4);
        [0, 10, 20, 30].into_iter().for_each(|first| transit.held(STREAM, first, seconds(5)));
        assert_eq!((transit.parts(), transit.bytes(), transit.deferred_bytes()), (0, 0, 40));
        assert_eq!((transit.settled(), transit.begins_under_way()), (Some(position(0)), false));
        assert_eq!(transit.next_wanted(Duration::ZERO), Some(seconds(5)));
        assert_eq!(transit.wanted(seconds(4)), None);
        assert_eq!(resume(&mut transit, seconds(5)), [0, 10]);
        assert_eq!(transit.next_wanted(seconds(5)), None, "it waits for their answers");
        transit.held(STREAM, 0, seconds(9));
        transit.held(STREAM, 10, seconds(8));
        assert_eq!(transit.next_wanted(seconds(5)), Some(seconds(9)));
        assert_eq!(resume(&mut transit, seconds(9)), [0, 10]);
        assert!(transit.acknowledge(STREAM, 10));
        assert_eq!(resume(&mut transit, seconds(9)), [20, 30], "it is as any other");
        assert!([0, 20, 30].into_iter().all(|first| transit.acknowledge(STREAM, first)));
        assert!(transit.is_empty() && !transit.holds(STREAM));
    }

    #[test]
    fn what_is_read_of_a_held_stream_is_deferred_and_goes_in_order_before_what_is_newer() {
        let mut transit = with_entries(1);
        transit.held(STREAM, 0, seconds(5));
        for entry in 1..4 {
            assert_eq!(transit.admission(STREAM), Admission::Defer);
            transit.defer(position(entry), 0, STREAM, 10);
        }
        assert_eq!(transit.admission(NEIGHBOUR), Admission::Begin);
        assert_eq!(resume(&mut transit, seconds(5)), [0, 10]);
        assert_eq!(transit.admission(STREAM), Admission::Defer);
        assert!(transit.acknowledge(STREAM, 0));
        assert_eq!(transit.admission(STREAM), Admission::Wait);
        assert!(transit.begins_under_way());
        assert_eq!(resume(&mut transit, seconds(5)), [20, 30]);
        assert_eq!(transit.admission(STREAM), Admission::Begin);
    }

    #[test]
    fn an_answer_to_what_left_before_says_nothing_of_a_stream_that_is_held_since() {
        let mut transit = with_entries(3);
        transit.held(STREAM, 10, seconds(5));
        assert!(transit.acknowledge(STREAM, 0));
        assert_eq!(transit.admission(STREAM), Admission::Defer);
        assert_eq!(transit.wanted(seconds(4)), None);
        assert_eq!(resume(&mut transit, seconds(5)), [10]);
    }

    #[test]
    fn a_stream_that_was_never_acknowledged_has_only_so_much_under_way() {
        let mut transit = with_entries(NEW_MAX as u64);
        assert_eq!(transit.admission(STREAM), Admission::Wait);
        assert_eq!(transit.admission(NEIGHBOUR), Admission::Begin);
        assert!(transit.acknowledge(STREAM, 0));
        assert_eq!(transit.admission(STREAM), Admission::Begin);
    }

    #[test]
    fn of_all_streams_that_try_again_only_a_few_batches_are_under_way() {
        let mut transit = Transit::default();
        for stream in 0..10 {
            transit.begin(position(stream), 0, parcel_of(StreamNumber(stream), 0, 10));
        }
        transit.due(Duration::ZERO);
        (0..10).for_each(|stream| transit.held(StreamNumber(stream), 0, seconds(5)));
        let mut out = Vec::new();
        for _ in 0..10 {
            while let Some(wanted) = transit.wanted(seconds(5)) {
                transit.resume(wanted.position, vec![parcel_of(StreamNumber(wanted.position.byte), 0, 10)]);
            }
            assert!(transit.parts() <= ALL_TRIES_MAX);
            out.extend(transit.due(seconds(5)).into_iter().map(|parcel| parcel.stream));
            transit.held(*out.last().unwrap(), 0, seconds(10));
        }
        out.sort_unstable();
        assert_eq!(out, (0..10).map(StreamNumber).collect::<Vec<_>>(), "each of them once");
    }

    #[test]
    fn of_an_entry_in_parts_only_what_is_left_is_read_again_at_its_own_time() {
        let mut transit = with_entries(1);
        transit.divide(STREAM, 0, vec![parcel(0, 4), parcel(4, 6), parcel(6, 10)], Duration::ZERO);
        transit.due(Duration::ZERO);
        transit.oversized(STREAM, 4, seconds(30));
        assert_eq!((transit.parts(), transit.bytes()), (2, 20));
        assert!(transit.acknowledge(STREAM, 0));
        assert_eq!(transit.wanted(seconds(60)), None, "a part of it is under way");
        assert!(transit.acknowledge(STREAM, 6));
        assert_eq!((transit.parts(), transit.settled()), (0, Some(position(0))));
        assert_eq!(transit.admission(STREAM), Admission::Begin, "its neighbours go on");
        assert_eq!(transit.next_wanted(Duration::ZERO), Some(seconds(30)));
        let wanted = transit.wanted(seconds(30)).unwrap();
        assert_eq!(wanted.rest, [Span { first: 4, end: 6 }]);
        transit.resume(wanted.position, vec![parcel(4, 6)]);
        assert_eq!(transit.due(seconds(30)).len(), 1);
        assert!(transit.acknowledge(STREAM, 4) && transit.is_empty());
    }

    #[test]
    fn an_entry_of_which_no_part_was_taken_is_read_again_as_a_whole() {
        let mut transit = with_entries(1);
        transit.divide(STREAM, 0, vec![parcel(0, 4), parcel(4, 10)], Duration::ZERO);
        transit.due(Duration::ZERO);
        transit.oversized(STREAM, 4, seconds(30));
        transit.held(STREAM, 0, seconds(5));
        let wanted = transit.wanted(seconds(5)).unwrap();
        assert_eq!((wanted.position, wanted.rest), (position(0), Vec::new()));
    }

    #[test]
    fn what_cannot_be_read_again_waits_with_its_stream() {
        let mut transit = with_entries(2);
        [0, 10].into_iter().for_each(|first| transit.held(STREAM, first, seconds(5)));
        let wanted = transit.wanted(seconds(5)).unwrap();
        transit.postpone(wanted.position, seconds(6));
        assert_eq!(transit.wanted(seconds(5)), None);
        assert_eq!(resume(&mut transit, seconds(6)), [0, 10]);
    }

    #[test]
    fn reading_waits_once_as_many_places_are_kept_as_may_be() {
        let mut transit = with_entries(1);
        transit.held(STREAM, 0, seconds(5));
        let mut entry = 1;
        while transit.admission(STREAM) == Admission::Defer {
            transit.defer(position(entry), 0, STREAM, 10);
            entry += 1;
        }
        assert_eq!(entry, PLACES_MAX as u64);
        assert_eq!(transit.admission(NEIGHBOUR), Admission::Wait);
        transit.forget(position(0));
        assert_eq!(transit.admission(NEIGHBOUR), Admission::Begin);
        assert_eq!(transit.settled(), Some(position(1)));
    }

    const ENTRIES: u64 = 12;

    /// Entries of three streams, and a shipper that answers as it likes.
    #[derive(Default)]
    struct Model {
        transit: Transit,
        now: Duration,
        read: u64,
        out: Vec<Parcel>,
        done: BTreeSet<u64>,
    }

    impl Model {
        fn entry(number: u64) -> Parcel {
            parcel_of(StreamNumber(number % 3), number * 10, number * 10 + 10)
        }

        fn read(&mut self) -> bool {
            let (place, parcel) = (position(self.read), Self::entry(self.read));
            match self.transit.admission(parcel.stream) {
                Admission::Begin if self.read < ENTRIES => self.transit.begin(place, 0, parcel),
                Admission::Defer if self.read < ENTRIES => self.transit.defer(place, 0, parcel.stream, parcel.encoded),
                Admission::Begin | Admission::Defer | Admission::Wait => return false,
            }
            self.read += 1;
            true
        }

        fn read_again(&mut self) -> bool {
            let Some(wanted) = self.transit.wanted(self.now) else { return false };
            self.transit.resume(wanted.position, vec![Self::entry(wanted.position.byte)]);
            true
        }

        fn send(&mut self) {
            self.out.extend(self.transit.due(self.now));
        }

        fn answer(&mut self, how: u8, pick: u64) {
            if self.out.is_empty() {
                return;
            }
            let parcel = self.out.remove(usize::try_from(pick).unwrap() % self.out.len());
            let (stream, first, until) = (parcel.stream, parcel.batch.first_offset, self.now + seconds(pick));
            match how {
                0 => self.transit.held(stream, first, until),
                1 => self.transit.oversized(stream, first, until),
                2 => self.transit.returned(parcel, until),
                _ => {
                    assert!(self.transit.acknowledge(stream, first));
                    self.done.insert(first / 10);
                }
            }
        }

        fn check(&self) {
            let open: Vec<u64> = (0..self.read).filter(|entry| !self.done.contains(entry)).collect();
            let (parts, deferred) = (self.transit.parts(), self.transit.deferred.len());
            assert_eq!(self.transit.settled(), open.first().copied().map(position));
            assert_eq!(parts + deferred, open.len());
            assert_eq!((self.transit.bytes(), self.transit.deferred_bytes()), (parts * 10, deferred * 10));
            assert_eq!((self.transit.is_empty(), self.transit.places), (open.is_empty(), deferred));
        }

        /// From now on everything is taken.
        fn finish(&mut self) {
            for _ in 0..2 * ENTRIES {
                self.now += seconds(10);
                while self.read() {}
                while self.read_again() {}
                self.send();
                while !self.out.is_empty() {
                    self.answer(3, 0);
                }
                self.check();
            }
            assert_eq!(self.done.len() as u64, ENTRIES);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_answered_nothing_is_forgotten_and_all_of_it_arrives(steps in prop::collection::vec((0u8..8, 0u64..6), 1..120)) {
            let mut model = Model::default();
            for (step, pick) in steps {
                match step {
                    0 => _ = model.read(),
                    1 => _ = model.read_again(),
                    2 => model.send(),
                    3 => model.now += seconds(pick),
                    _ => model.answer(step - 4, pick),
                }
                model.check();
            }
            model.finish();
        }
    }
}
