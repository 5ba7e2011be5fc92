//! Spooled batches on their way to a gateway: a machine without I/O.
//!
//! Owns what was read from the spool and is not acknowledged: in the order of the spool, each as one part or, where its lane
//! takes none so large, as several. Does not own the journal: the driver reads entries, [`Transit::begin`]s them, sends what
//! [`Transit::due`] gives, reports answers, and may forget everything before [`Transit::settled`].
//!
//! Invariants: the first entry is not done; a part is either with the shipper or kept here; bytes of all parts are
//! counted until they are acknowledged.

use std::{collections::VecDeque, time::Duration};

use logmesh_journal::Position;

use crate::parcel::{Parcel, StreamNumber};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Transit {
    entries: VecDeque<Entry>,
    /// Encoded bytes of all parts that are not acknowledged.
    bytes: usize,
    parts: usize,
}

#[derive(Debug)]
struct Entry {
    position: Position,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    stream: StreamNumber,
    first: u64,
    encoded: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// The shipper has it.
    Out,
    /// It came back, or waits to be sent for the first time; not to be sent before that time.
    Here(Box<Parcel>, Duration),
    /// It is acknowledged.
    Done,
}

impl Transit {
    /// Takes an entry that was read.
    pub(super) fn begin(&mut self, position: Position, parcel: Parcel) {
        self.bytes += parcel.encoded;
        self.parts += 1;
        let part = Part {
            stream: parcel.stream,
            first: parcel.batch.first_offset,
            encoded: parcel.encoded,
            place: Place::Here(Box::new(parcel), Duration::ZERO),
        };
        self.entries.push_back(Entry { position, parts: vec![part] });
    }

    /// Takes what is to be sent now; it then counts as being with the shipper.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Parcel> {
        let mut due = Vec::new();
        for part in self.entries.iter_mut().flat_map(|entry| &mut entry.parts) {
            let is_due = matches!(part.place, Place::Here(_, at) if at <= now);
            if is_due && let Place::Here(parcel, _) = std::mem::replace(&mut part.place, Place::Out) {
                due.push(*parcel);
            }
        }
        due
    }

    /// When something is due that is not yet.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let parts = self.entries.iter().flat_map(|entry| &entry.parts);
        parts.filter_map(|part| if let Place::Here(_, at) = part.place { Some(at) } else { None }).min()
    }

    /// Notes an acknowledgement. Returns whether anything changed.
    pub(super) fn acknowledge(&mut self, stream: StreamNumber, first: u64) -> bool {
        let Some(part) = self.find(stream, first) else { return false };
        part.place = Place::Done;
        self.bytes -= part.encoded;
        self.parts -= 1;
        while self.entries.front().is_some_and(Entry::is_done) {
            self.entries.pop_front();
        }
        true
    }

    /// Takes a batch back, to be sent again at `at`.
    pub(super) fn returned(&mut self, parcel: Parcel, at: Duration) {
        if let Some(part) = self.find(parcel.stream, parcel.batch.first_offset) {
            part.place = Place::Here(Box::new(parcel), at);
        }
    }

    /// Takes smaller batches in the place of one that came back.
    pub(super) fn divide(&mut self, stream: StreamNumber, first: u64, smaller: Vec<Parcel>, at: Duration) {
        let is_it = |part: &Part| part.stream == stream && part.first == first && matches!(part.place, Place::Out);
        for entry in &mut self.entries {
            let Some(index) = entry.parts.iter().position(is_it) else { continue };
            self.bytes =
                self.bytes - entry.parts[index].encoded + smaller.iter().map(|part| part.encoded).sum::<usize>();
            self.parts = self.parts - 1 + smaller.len();
            let parts = smaller.into_iter().map(|parcel| Part {
                stream,
                first: parcel.batch.first_offset,
                encoded: parcel.encoded,
                place: Place::Here(Box::new(parcel), at),
            });
            entry.parts.splice(index..=index, parts);
            return;
        }
    }

    /// Place of the first entry that is not acknowledged.
    pub(super) fn settled(&self) -> Option<Position> {
        self.entries.front().map(|entry| entry.position)
    }

    /// Encoded bytes that are not acknowledged.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Batches that are not acknowledged.
    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    /// Whether everything that was read is acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether any part of the stream is not acknowledged.
    pub(super) fn holds(&self, stream: StreamNumber) -> bool {
        let mut parts = self.entries.iter().flat_map(|entry| &entry.parts);
        parts.any(|part| part.stream == stream && !matches!(part.place, Place::Done))
    }

    fn find(&mut self, stream: StreamNumber, first: u64) -> Option<&mut Part> {
        let mut parts = self.entries.iter_mut().flat_map(|entry| &mut entry.parts);
        parts.find(|part| part.stream == stream && part.first == first && matches!(part.place, Place::Out))
    }
}

impl Entry {
    fn is_done(&self) -> bool {
        self.parts.iter().all(|part| matches!(part.place, Place::Done))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use logmesh_proto::v1;
    use proptest::prelude::*;

    use super::*;

    const STREAM: StreamNumber = StreamNumber(7);

    fn parcel(first: u64, end: u64) -> Parcel {
        let batch = v1::Batch { first_offset: first, end_offset: end, ..v1::Batch::default() };
        Parcel { stream: STREAM, batch, info: Arc::default(), encoded: 10 }
    }

    fn position(byte: u64) -> Position {
        Position { segment: 1, byte }
    }

    fn with_entries(count: u64) -> Transit {
        let mut transit = Transit::default();
        (0..count).for_each(|entry| transit.begin(position(entry), parcel(entry * 10, entry * 10 + 10)));
        transit
    }

    #[test]
    fn only_what_is_acknowledged_from_the_front_is_settled() {
        let mut transit = with_entries(3);
        assert_eq!(transit.due(Duration::ZERO).len(), 3);
        assert!(transit.acknowledge(STREAM, 10) && !transit.acknowledge(STREAM, 10));
        assert_eq!((transit.settled(), transit.bytes()), (Some(position(0)), 20));
        assert!(transit.acknowledge(STREAM, 0));
        assert_eq!(transit.settled(), Some(position(2)));
        assert!(transit.acknowledge(STREAM, 20) && transit.is_empty() && !transit.holds(STREAM));
    }

    #[test]
    fn a_batch_that_came_back_waits_and_is_sent_again() {
        let mut transit = with_entries(1);
        let sent = transit.due(Duration::ZERO).remove(0);
        transit.returned(sent, Duration::from_secs(5));
        assert_eq!(transit.next_due(), Some(Duration::from_secs(5)));
        assert!(transit.due(Duration::from_secs(4)).is_empty());
        assert_eq!(transit.due(Duration::from_secs(5)).len(), 1);
    }

    #[test]
    fn an_entry_in_parts_is_done_when_all_of_them_are() {
        let mut transit = with_entries(2);
        transit.due(Duration::ZERO);
        transit.divide(STREAM, 0, vec![parcel(0, 4), parcel(4, 10)], Duration::ZERO);
        assert_eq!(transit.due(Duration::ZERO).len(), 2);
        assert!(transit.acknowledge(STREAM, 4) && transit.settled() == Some(position(0)));
        assert!(transit.acknowledge(STREAM, 0) && transit.settled() == Some(position(1)));
        assert_eq!((transit.bytes(), transit.parts()), (10, 1));
    }

    proptest! {
        #[test]
        fn whatever_is_answered_the_count_is_that_of_what_is_not_acknowledged(steps in prop::collection::vec((0u8..4, 0u64..6), 1..80)) {
            let mut transit = with_entries(6);
            let mut out: Vec<Parcel> = Vec::new();
            let mut done = std::collections::BTreeSet::new();
            for (step, pick) in steps {
                match step {
                    0 => out.extend(transit.due(Duration::from_secs(1))),
                    1 if !out.is_empty() => {
                        let parcel = out.remove(usize::try_from(pick).unwrap() % out.len());
                        transit.returned(parcel, Duration::from_secs(pick));
                    }
                    2 | 3 if !out.is_empty() => {
                        let parcel = out.remove(usize::try_from(pick).unwrap() % out.len());
                        prop_assert!(transit.acknowledge(STREAM, parcel.batch.first_offset));
                        done.insert(parcel.batch.first_offset / 10);
                    }
                    _ => {}
                }
                let first = (0..6).find(|entry| !done.contains(entry));
                prop_assert_eq!(transit.settled(), first.map(position));
                prop_assert_eq!((transit.parts(), transit.bytes()), (6 - done.len(), (6 - done.len()) * 10));
            }
        }
    }
}
