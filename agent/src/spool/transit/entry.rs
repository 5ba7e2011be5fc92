//! What is kept of an entry of the spool: all of it while it is under way, its place while it is deferred.

use std::time::Duration;

use logmesh_journal::Position;

use crate::parcel::{Parcel, StreamNumber};

/// Under way.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) stream: StreamNumber,
    pub(super) spooled_unix_nano: u64,
    /// From its beginning to its end; `None` where only a rest of it was read again.
    pub(super) whole: Option<Span>,
    /// What is not acknowledged of it, in order.
    pub(super) parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) span: Span,
    pub(super) encoded: usize,
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) enum Place {
    /// The shipper has it.
    Out,
    /// It came back, or waits to be sent for the first time; not to be sent before that time.
    Here(Box<Parcel>, Duration),
    /// Not kept: it waits for its stream or, where a time is given, for that. Deferred once the other parts are answered.
    Away(Option<Duration>),
}

/// Offsets of a stream, from the first record of a batch to behind its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spool) struct Span {
    pub(in crate::spool) first: u64,
    pub(in crate::spool) end: u64,
}

#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) stream: StreamNumber,
    pub(super) spooled_unix_nano: u64,
    pub(super) encoded: usize,
    /// What is left of it; empty where that is all.
    pub(super) rest: Vec<Span>,
    /// It waits until then by itself, instead of with its stream.
    pub(super) alone: Option<Duration>,
}

/// What is known of a deferred entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::spool) struct Remembered {
    pub(in crate::spool) position: Position,
    /// When it was spooled.
    pub(in crate::spool) spooled_unix_nano: u64,
    /// What is left of it; empty where that is all.
    pub(in crate::spool) rest: Vec<Span>,
}

impl Entry {
    /// Parts under way.
    pub(super) fn under_way(&self) -> usize {
        self.parts.iter().filter(|part| !matches!(part.place, Place::Away(_))).count()
    }

    /// What is to be remembered of it.
    pub(super) fn deferred(&self) -> Deferred {
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
    pub(super) fn new(parcel: Parcel, at: Duration) -> Self {
        Self { span: Span::of(&parcel), encoded: parcel.encoded, place: Place::Here(Box::new(parcel), at) }
    }
}

impl Span {
    pub(in crate::spool) fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.first)
    }

    pub(super) fn of(parcel: &Parcel) -> Self {
        Self { first: parcel.batch.first_offset, end: parcel.batch.end_offset }
    }
}
