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

mod entry;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use logmesh_journal::Position;

use crate::parcel::{Parcel, StreamNumber};

use entry::{Deferred, Entry, Part, Place};
pub(super) use entry::{Remembered, Span};
pub(super) use stream::Admission;
use stream::{Flow, Stream};

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

    /// A batch that was called back is here.
    pub(super) fn put_back(&mut self, stream: StreamNumber, first: u64) {
        if let Some((position, index)) = self.find(stream, first) {
            self.put_away(position, index, None);
        }
    }

    /// Streams of which the shipper has something.
    pub(super) fn streams_out(&self) -> BTreeSet<StreamNumber> {
        let is_out = |entry: &&Entry| entry.parts.iter().any(|part| matches!(part.place, Place::Out));
        self.entries.values().filter(is_out).map(|entry| entry.stream).collect()
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
