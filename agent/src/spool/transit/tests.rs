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
