//! The outbox against a gateway that keeps the rules of the session and breaks every promise it may break.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use logmesh_proto::v1;
use proptest::prelude::*;

use super::outbox::Outbox;
use crate::parcel::{Answer, Parcel, Returned, StreamNumber};

const NOW: Duration = Duration::from_secs(100);

fn parcel(stream: u64, first: u64) -> Parcel {
    let batch = v1::Batch {
        stream_id: Bytes::copy_from_slice(&stream.to_le_bytes()),
        first_offset: first,
        end_offset: first + 10,
        payload: vec![7; 100].into(),
        ..v1::Batch::default()
    };
    let info = Arc::new(v1::StreamInfo { topic: "logs".into(), ..v1::StreamInfo::default() });
    Parcel { stream: StreamNumber(stream), batch, info, encoded: 120 }
}

fn outbox(parcels: &[(u64, u64)], credit: u64) -> Outbox {
    let mut outbox = Outbox::default();
    parcels.iter().for_each(|&(stream, first)| outbox.push(parcel(stream, first)));
    outbox.open(credit);
    outbox
}

fn sent(outbox: &mut Outbox, now: Duration) -> Vec<v1::Batch> {
    std::iter::from_fn(|| outbox.next(now)).collect()
}

fn nack(sequence: u64, reason: v1::NackReason, delay_millis: u32) -> v1::Nack {
    v1::Nack { sequence, reason: reason.into(), delay_millis, ..v1::Nack::default() }
}

#[test]
fn streams_take_turns_and_are_introduced_once_in_a_session() {
    let mut outbox = outbox(&[(1, 0), (1, 10), (1, 20), (2, 0)], 1 << 20);
    let batches = sent(&mut outbox, NOW);
    let seen: Vec<_> =
        batches.iter().map(|batch| (batch.stream_id[0], batch.first_offset, batch.info.is_some())).collect();
    assert_eq!(seen, [(1, 0, true), (2, 0, true), (1, 10, false), (1, 20, false)]);
    outbox.open(1 << 20);
    assert_eq!(sent(&mut outbox, NOW).iter().filter(|batch| batch.info.is_some()).count(), 2);
}

#[test]
fn credit_bounds_what_is_in_flight_and_one_batch_always_goes() {
    let mut outbox = outbox(&[(1, 0), (1, 10), (1, 20)], 0);
    assert_eq!(sent(&mut outbox, NOW).len(), 1);
    outbox.handle_credit(10_000);
    assert_eq!(sent(&mut outbox, NOW).len(), 2);
}

#[test]
fn after_a_refusal_a_stream_goes_on_in_order_once_all_is_answered_and_the_delay_is_over() {
    let mut outbox = outbox(&[(1, 0), (1, 10), (1, 20), (2, 0)], 1 << 20);
    let first: Vec<_> = sent(&mut outbox, NOW).iter().map(|batch| (batch.stream_id[0], batch.sequence)).collect();
    let of_one: Vec<u64> = first.iter().filter(|(stream, _)| *stream == 1).map(|(_, sequence)| *sequence).collect();
    let mut answers = Vec::new();
    outbox.handle_nack(&nack(of_one[0], v1::NackReason::Overloaded, 500), NOW, &mut answers);
    outbox.push(parcel(1, 30));
    outbox.handle_timeout(NOW + Duration::from_secs(1));
    assert!(sent(&mut outbox, NOW).is_empty(), "the others are not answered yet");
    outbox.handle_nack(&nack(of_one[1], v1::NackReason::OutOfOrder, 0), NOW, &mut answers);
    outbox.handle_nack(&nack(of_one[2], v1::NackReason::OutOfOrder, 0), NOW, &mut answers);
    outbox.handle_timeout(NOW + Duration::from_millis(499));
    assert!(sent(&mut outbox, NOW).is_empty(), "the delay is not over");
    assert_eq!(outbox.timeout(), Some(NOW + Duration::from_millis(500)));
    outbox.handle_timeout(NOW + Duration::from_millis(500));
    let again: Vec<u64> = sent(&mut outbox, NOW).iter().map(|batch| batch.first_offset).collect();
    assert_eq!(again, [0, 10, 20, 30]);
    assert!(answers.is_empty());
}

#[test]
fn what_is_called_back_comes_back_and_late_answers_for_it_change_nothing() {
    let mut outbox = outbox(&[(1, 0), (1, 10), (2, 0)], 1 << 20);
    let sequences: Vec<u64> = sent(&mut outbox, NOW).iter().map(|batch| batch.sequence).collect();
    outbox.push(parcel(1, 20));
    let recalled = |outbox: &mut Outbox, in_flight| {
        let mut answers = Vec::new();
        outbox.recall(StreamNumber(1), in_flight, &mut answers);
        let first = |answer: &Answer| {
            let Answer::Returned(parcel, Returned::Recalled) = answer else { panic!("{answer:?}") };
            parcel.batch.first_offset
        };
        answers.iter().map(first).collect::<Vec<_>>()
    };
    assert_eq!(recalled(&mut outbox, false), [20], "what is in flight is answered");
    assert_eq!(recalled(&mut outbox, true), [0, 10]);
    outbox.push(parcel(1, 0));
    let mut answers = Vec::new();
    outbox.handle_ack(&sequences, NOW, &mut answers);
    assert!(matches!(answers.as_slice(), [Answer::Acked { stream: StreamNumber(2), first: 0 }]), "{answers:?}");
    assert_eq!(sent(&mut outbox, NOW).len(), 1, "it is sent again");
}

#[test]
fn a_held_lane_gives_its_batches_back_and_others_go_on() {
    for (reason, least) in [(v1::NackReason::Held, 200), (v1::NackReason::Forbidden, 30_000)] {
        let mut outbox = outbox(&[(1, 0), (1, 10), (2, 0)], 1 << 20);
        let batches = sent(&mut outbox, NOW);
        outbox.push(parcel(1, 20));
        let mut answers = Vec::new();
        outbox.handle_nack(&nack(batches[0].sequence, reason, 200), NOW, &mut answers);
        outbox.handle_nack(&nack(batches[2].sequence, v1::NackReason::OutOfOrder, 0), NOW, &mut answers);
        outbox.handle_ack(&[batches[1].sequence], NOW, &mut answers);
        let held: Vec<u64> = answers
            .iter()
            .filter_map(|answer| {
                let Answer::Returned(parcel, Returned::Held { delay }) = answer else { return None };
                assert!(*delay >= Duration::from_millis(least) || parcel.batch.first_offset == 10);
                Some(parcel.batch.first_offset)
            })
            .collect();
        assert_eq!(held, [0, 20, 10], "{reason:?}");
        assert!(outbox.is_empty());
        assert_eq!(outbox.take_forbidden().len(), usize::from(reason == v1::NackReason::Forbidden));
    }
}

#[test]
fn damaged_and_too_large_batches_go_back_and_an_unknown_stream_is_introduced_again() {
    let mut outbox = outbox(&[(1, 0), (2, 0), (3, 0)], 1 << 20);
    let batches = sent(&mut outbox, NOW);
    let mut answers = Vec::new();
    outbox.handle_nack(&nack(batches[0].sequence, v1::NackReason::Corrupt, 0), NOW, &mut answers);
    let too_large = v1::Nack { limit_bytes: 77, ..nack(batches[1].sequence, v1::NackReason::TooLarge, 0) };
    outbox.handle_nack(&too_large, NOW, &mut answers);
    outbox.handle_nack(&nack(batches[2].sequence, v1::NackReason::UnknownStream, 0), NOW, &mut answers);
    let why: Vec<_> = answers
        .iter()
        .map(|answer| {
            let Answer::Returned(_, why) = answer else { panic!("{answer:?}") };
            *why
        })
        .collect();
    assert_eq!(why, [Returned::Corrupt, Returned::TooLarge { limit: 77 }]);
    outbox.handle_timeout(NOW + Duration::from_secs(1));
    let again = sent(&mut outbox, NOW);
    assert!(again.len() == 1 && again[0].info.is_some());
}

#[test]
fn nothing_answered_is_noticed_and_an_answer_starts_the_wait_anew() {
    let mut outbox = outbox(&[(1, 0), (1, 10)], 1 << 20);
    let batches = sent(&mut outbox, NOW);
    assert_eq!(outbox.stalled_since(), Some(NOW));
    let later = NOW + Duration::from_secs(9);
    outbox.handle_ack(&[batches[0].sequence], later, &mut Vec::new());
    assert_eq!(outbox.stalled_since(), Some(later));
    outbox.handle_ack(&[batches[1].sequence, 99], later, &mut Vec::new());
    assert_eq!(outbox.stalled_since(), None);
}

#[derive(Clone, Debug)]
enum Act {
    Push { stream: u64 },
    Send,
    Answer { pick: usize, reason: i32 },
    Pass { millis: u64 },
    Reopen,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0u64..4).prop_map(|stream| Act::Push { stream }),
        4 => Just(Act::Send),
        6 => (0usize..64, 0i32..24).prop_map(|(pick, reason)| Act::Answer { pick, reason }),
        2 => (0u64..40_000).prop_map(|millis| Act::Pass { millis }),
        1 => Just(Act::Reopen),
    ];
    prop::collection::vec(act, 1..200)
}

/// A gateway that publishes a stream's batches in order, as DESIGN 4 asks.
#[derive(Default)]
struct Gateway {
    in_flight: BTreeMap<u64, v1::Batch>,
    /// First offset that was refused, by stream, in this session.
    refused: BTreeMap<u64, u64>,
    stored: BTreeMap<u64, BTreeSet<u64>>,
}

fn stream_of(batch: &v1::Batch) -> u64 {
    u64::from(batch.stream_id[0])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_batch_is_stored_in_order_within_a_session_whatever_is_refused(acts in acts()) {
        let mut outbox = Outbox::default();
        outbox.open(400);
        let mut gateway = Gateway::default();
        let (mut now, mut next) = (NOW, BTreeMap::<u64, u64>::new());
        let run = |outbox: &mut Outbox, gateway: &mut Gateway, now: &mut Duration, act: &Act, next: &mut BTreeMap<u64, u64>| {
            let mut answers = Vec::new();
            match *act {
                Act::Push { stream } => {
                    let first = next.entry(stream).or_default();
                    outbox.push(parcel(stream, *first));
                    *first += 10;
                }
                Act::Send => {
                    while let Some(batch) = outbox.next(*now) {
                        gateway.in_flight.insert(batch.sequence, batch);
                    }
                    let bytes: usize = gateway.in_flight.values().map(prost::Message::encoded_len).sum();
                    assert!(bytes <= 400 || gateway.in_flight.len() == 1, "{bytes} bytes beyond the credit");
                }
                Act::Answer { pick, reason } if !gateway.in_flight.is_empty() => {
                    let streams: Vec<u64> = gateway.in_flight.values().map(stream_of).collect();
                    let stream = streams[pick % streams.len()];
                    let first = gateway.in_flight.iter().find(|(_, batch)| stream_of(batch) == stream);
                    let (sequence, batch) = first.map(|(sequence, batch)| (*sequence, batch.clone())).unwrap();
                    gateway.in_flight.remove(&sequence);
                    let overtakes = gateway.refused.get(&stream).is_some_and(|refused| batch.first_offset > *refused);
                    let reason = v1::NackReason::try_from(reason).unwrap_or(v1::NackReason::Unspecified);
                    let known = [v1::NackReason::Unavailable, v1::NackReason::Held, v1::NackReason::Corrupt,
                        v1::NackReason::Forbidden, v1::NackReason::RateLimited, v1::NackReason::UnknownStream];
                    if overtakes {
                        outbox.handle_nack(&nack(sequence, v1::NackReason::OutOfOrder, 0), *now, &mut answers);
                    } else if known.contains(&reason) {
                        gateway.refused.insert(stream, batch.first_offset);
                        outbox.handle_nack(&nack(sequence, reason, 100), *now, &mut answers);
                    } else {
                        gateway.refused.remove(&stream);
                        gateway.stored.entry(stream).or_default().insert(batch.first_offset);
                        outbox.handle_ack(&[sequence], *now, &mut answers);
                    }
                }
                Act::Answer { .. } => {}
                Act::Pass { millis } => {
                    *now += Duration::from_millis(millis);
                    outbox.handle_timeout(*now);
                }
                Act::Reopen => {
                    *gateway = Gateway { stored: std::mem::take(&mut gateway.stored), ..Gateway::default() };
                    outbox.open(400);
                }
            }
            // The tailer builds what came back again.
            for answer in answers {
                if let Answer::Returned(parcel, _) = answer {
                    outbox.push(*parcel);
                }
            }
        };
        for act in &acts {
            run(&mut outbox, &mut gateway, &mut now, act, &mut next);
        }
        for _ in 0..2000 {
            for act in [Act::Send, Act::Answer { pick: 0, reason: 99 }, Act::Pass { millis: 100 }] {
                run(&mut outbox, &mut gateway, &mut now, &act, &mut next);
            }
            if outbox.is_empty() && gateway.in_flight.is_empty() {
                break;
            }
        }
        prop_assert!(outbox.is_empty(), "something never left");
        for (stream, end) in next {
            let all: BTreeSet<u64> = (0..end).step_by(10).collect();
            prop_assert_eq!(gateway.stored.get(&stream).cloned().unwrap_or_default(), all);
        }
    }
}
