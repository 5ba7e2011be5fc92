//! What a member holds, tried without any broker.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::Record;

const FETCH_BYTES: usize = 16 << 10;

fn partition(number: u32) -> TopicPartition {
    TopicPartition::new("logs.a", number)
}

fn delivered(offset: u64, bytes: usize) -> Delivered {
    let record = Record { key: Bytes::new(), headers: Vec::new(), value: Bytes::from(vec![b'x'; bytes]) };
    Delivered { offset, record }
}

/// A member that holds partitions 0 to `count`, was told so, and has committed nothing.
fn holding(count: u32) -> Assignments {
    let mut assignments = Assignments::new(FETCH_BYTES);
    assignments.assign((0..count).map(|number| (partition(number), None)));
    assert!(matches!(assignments.next_event(), Some(Event::Assigned(assigned)) if assigned.len() == count as usize));
    assignments
}

/// Hands out `count` records of a partition.
fn hand_out(assignments: &mut Assignments, number: u32, count: u64) {
    (0..count).for_each(|offset| assert!(assignments.arrived(&partition(number), delivered(offset, 1))));
    assert!(matches!(assignments.next_event(), Some(Event::Records { records, .. }) if records.len() as u64 == count));
}

#[test]
fn a_commit_is_fenced_until_the_caller_was_told() {
    let mut assignments = Assignments::new(FETCH_BYTES);
    assignments.assign([(partition(0), None)]);
    assert_eq!(assignments.request_commit(&partition(0), 0).err(), Some(BusError::Fenced { partition: partition(0) }));
    assignments.next_event();
    assert!(assignments.request_commit(&partition(0), 0).is_ok());
}

#[test]
fn a_revocation_ends_when_all_is_released_and_committed() {
    let (mut assignments, now) = (holding(2), Instant::now());
    hand_out(&mut assignments, 0, 3);
    assignments.revoke([partition(0)], now + Duration::from_secs(5));
    assert!(
        matches!(assignments.next_event(), Some(Event::Revoking { partitions, .. }) if partitions == [partition(0)])
    );
    assert_eq!(assignments.finish_revocation(now), None, "not released");
    let mut waiting = assignments.request_commit(&partition(0), 3).expect("it is held while it is drained");
    assignments.release(&partition(0));
    assert!(assignments.request_commit(&partition(0), 3).is_err(), "released is given up");
    assert_eq!(assignments.finish_revocation(now), None, "not committed");
    assert_eq!(assignments.take_commits(), Some(vec![(partition(0), 3)]));
    assert_eq!(assignments.finish_revocation(now), None, "not durable");
    assignments.committed(|_| Ok(()));
    assert_eq!(waiting.try_recv(), Ok(Ok(())));
    assert_eq!(assignments.finish_revocation(now), Some(vec![partition(0)]));
    assert_eq!(assignments.next_event(), None, "what was released is not lost");
}

#[test]
fn what_is_not_released_by_the_deadline_is_lost() {
    let (mut assignments, now) = (holding(2), Instant::now());
    hand_out(&mut assignments, 0, 3);
    let deadline = now + Duration::from_secs(5);
    assignments.revoke([partition(0), partition(1)], deadline);
    assignments.next_event();
    assignments.release(&partition(1));
    assert_eq!(assignments.finish_revocation(deadline), Some(vec![partition(0), partition(1)]));
    assert!(assignments.request_commit(&partition(0), 3).is_err(), "fenced before the caller hears of it");
    assert_eq!(assignments.next_event(), Some(Event::Lost(vec![partition(0)])));
    assert_eq!(assignments.next_event(), None);
}

#[test]
fn what_the_caller_never_heard_of_holds_up_no_revocation() {
    let (mut assignments, now) = (Assignments::new(FETCH_BYTES), Instant::now());
    assignments.assign([(partition(0), Some(7))]);
    assignments.revoke([partition(0), partition(1)], now + Duration::from_secs(5));
    assert_eq!(assignments.finish_revocation(now), Some(vec![partition(0), partition(1)]));
    assert_eq!(assignments.next_event(), None);
}

#[test]
fn a_partition_that_comes_back_begins_anew() {
    let mut assignments = holding(1);
    hand_out(&mut assignments, 0, 3);
    assignments.lose_all();
    assignments.assign([(partition(0), Some(1))]);
    assert!(assignments.request_commit(&partition(0), 3).is_err(), "it is another holding, untold");
    assert_eq!(assignments.next_event(), Some(Event::Lost(vec![partition(0)])), "the loss first");
    assert!(matches!(assignments.next_event(), Some(Event::Assigned(assigned)) if assigned[0].committed == Some(1)));
    assert!(!assignments.arrived(&partition(0), delivered(0, 1)), "below what is committed");
    assert!(assignments.arrived(&partition(0), delivered(1, 1)));
}

#[test]
fn a_commit_under_way_when_all_is_lost_says_what_came_of_it() {
    let mut assignments = holding(1);
    hand_out(&mut assignments, 0, 4);
    let mut under_way = assignments.request_commit(&partition(0), 2).expect("held");
    assert!(assignments.take_commits().is_some());
    let mut later = assignments.request_commit(&partition(0), 4).expect("held");
    assert_eq!(assignments.take_commits(), None, "one at a time");
    assignments.lose_all();
    assert_eq!(later.try_recv(), Ok(Err(BusError::Fenced { partition: partition(0) })));
    assert!(under_way.try_recv().is_err(), "not known yet");
    assignments.committed(|_| Ok(()));
    assert_eq!(under_way.try_recv(), Ok(Ok(())));
}

#[test]
fn a_commit_that_met_a_rebalance_is_sent_again() {
    let mut assignments = holding(1);
    hand_out(&mut assignments, 0, 4);
    let mut waiting = assignments.request_commit(&partition(0), 4).expect("held");
    assert!(assignments.take_commits().is_some());
    assert!(assignments.committed(|_| Err(CommitFault::Again)));
    assert!(waiting.try_recv().is_err(), "nobody is bothered");
    assert_eq!(assignments.take_commits(), Some(vec![(partition(0), 4)]));
    assert!(!assignments.committed(|_| Ok(())));
    assert_eq!(waiting.try_recv(), Ok(Ok(())));
    assert!(!assignments.has_commits());
}

#[test]
fn partitions_take_turns_and_a_turn_is_bounded() {
    let mut assignments = holding(3);
    for offset in 0..8 {
        (0..3).for_each(|number| {
            assignments.arrived(&partition(number), delivered(offset, 1000));
        });
    }
    let mut turns = Vec::new();
    while let Some(Event::Records { partition, records }) = assignments.next_event() {
        assert_eq!(records.len(), 1, "two of them are more than a turn");
        turns.push(partition.partition);
    }
    assert_eq!(turns, [0, 1, 2].repeat(8));
}

#[test]
fn one_record_larger_than_a_turn_comes_alone() {
    let mut assignments = holding(1);
    (0..3).for_each(|offset| assert!(assignments.arrived(&partition(0), delivered(offset, FETCH_BYTES))));
    for offset in 0..3 {
        assert!(
            matches!(assignments.next_event(), Some(Event::Records { records, .. }) if records[0].offset == offset && records.len() == 1)
        );
    }
}

#[test]
fn a_paused_partition_has_a_share_of_its_own_and_stops_no_other() {
    let mut assignments = holding(2);
    assignments.pause(&partition(0), true);
    assert_eq!(assignments.steer(), Steering::default(), "nothing waits yet");
    let mut offset = 0;
    while assignments.steer() == Steering::default() {
        assert!(!assignments.arrived(&partition(0), delivered(offset, 500)), "no news for the caller");
        offset += 1;
        assert!(offset < 10, "its share is bounded");
    }
    assert!(assignments.has_room(), "others flow");
    assert!(assignments.arrived(&partition(1), delivered(0, FETCH_BYTES)));
    assert!(!assignments.has_room(), "what flows is bounded");
    assert!(matches!(assignments.next_event(), Some(Event::Records { partition: from, .. }) if from == partition(1)));
    assert_eq!(assignments.next_event(), None, "a paused partition hands out nothing");
    assignments.pause(&partition(0), false);
    assert_eq!(assignments.steer(), Steering { pause: Vec::new(), resume: vec![partition(0)] });
    assert!(matches!(assignments.next_event(), Some(Event::Records { records, .. }) if records[0].offset == 0));
}

#[test]
fn a_gap_comes_between_the_records_around_it() {
    let mut assignments = holding(1);
    assert!(assignments.arrived(&partition(0), delivered(0, 1)));
    assignments.gap(&partition(0), 5);
    assert!(assignments.arrived(&partition(0), delivered(5, 1)));
    assert!(matches!(assignments.next_event(), Some(Event::Records { records, .. }) if records.len() == 1));
    assert_eq!(assignments.next_event(), Some(Event::Gap { partition: partition(0), from: 1, to: 5 }));
    assert!(matches!(assignments.next_event(), Some(Event::Records { records, .. }) if records[0].offset == 5));
    assert!(assignments.request_commit(&partition(0), 6).is_ok());
}

#[test]
fn a_log_that_was_cut_short_is_read_again_and_commits_begin_anew() {
    let mut assignments = Assignments::new(FETCH_BYTES);
    assignments.assign([(partition(0), Some(100))]);
    assignments.next_event();
    assignments.gap(&partition(0), 40);
    assert_eq!(assignments.next_event(), None, "nothing was skipped");
    assert!(assignments.arrived(&partition(0), delivered(40, 1)));
    assert!(matches!(assignments.next_event(), Some(Event::Records { .. })));
    let mut waiting = assignments.request_commit(&partition(0), 41).expect("held");
    assert_eq!(assignments.take_commits(), Some(vec![(partition(0), 41)]), "not refused as going back");
    assignments.committed(|_| Ok(()));
    assert_eq!(waiting.try_recv(), Ok(Ok(())));
}

#[derive(Clone, Debug)]
enum Step {
    Assign(u32),
    Revoke(u32),
    Lose,
    Arrive(u32),
    Next,
    Commit(u32),
    Answer(bool),
    Release(u32),
    Pause(u32, bool),
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..3_u32;
    prop_oneof![
        2 => number.clone().prop_map(Step::Assign),
        1 => number.clone().prop_map(Step::Revoke),
        1 => Just(Step::Lose),
        6 => number.clone().prop_map(Step::Arrive),
        8 => Just(Step::Next),
        4 => number.clone().prop_map(Step::Commit),
        3 => any::<bool>().prop_map(Step::Answer),
        2 => number.clone().prop_map(Step::Release),
        2 => (number, any::<bool>()).prop_map(|(number, paused)| Step::Pause(number, paused)),
        2 => (0..4_u64).prop_map(Step::Tick),
    ]
}

/// What the caller believes of a partition.
#[derive(Clone, Copy, Debug, Default)]
struct Belief {
    held: bool,
    revoking: bool,
    next: u64,
}

proptest! {
    /// Whatever happens in whatever order: records come in order, each once per assignment and only while their partition is held;
    /// what is told as assigned was not held; a commit that is accepted is of a partition that the caller was told of and
    /// has neither released nor lost; commits never go back.
    #[test]
    fn the_caller_is_never_told_what_is_not_so(steps in prop::collection::vec(step(), 1..120)) {
        let (mut assignments, mut now) = (Assignments::new(FETCH_BYTES), Instant::now());
        let (mut log, mut durable) = ([0_u64; 3], [None::<u64>; 3]);
        let (mut beliefs, mut fetched) = ([Belief::default(); 3], [0_u64; 3]);
        let mut sent: Vec<(TopicPartition, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Assign(number) => if !assignments.partitions().contains(&partition(number)) && !assignments.is_revoking() {
                    let committed = durable[number as usize];
                    fetched[number as usize] = committed.unwrap_or(0);
                    assignments.assign([(partition(number), committed)]);
                },
                Step::Revoke(number) => if !assignments.is_revoking() {
                    assignments.revoke([partition(number)], now + Duration::from_secs(3));
                },
                Step::Lose => assignments.lose_all(),
                Step::Arrive(number) => {
                    let at = &mut fetched[number as usize];
                    assignments.arrived(&partition(number), delivered(*at, 300));
                    *at += 1;
                    log[number as usize] = log[number as usize].max(*at);
                }
                Step::Next => match assignments.next_event() {
                    Some(Event::Assigned(assigned)) => for one in assigned {
                        let belief = &mut beliefs[one.partition.partition as usize];
                        prop_assert!(!belief.held, "assigned twice");
                        *belief = Belief { held: true, revoking: false, next: one.committed.unwrap_or(0) };
                    },
                    Some(Event::Records { partition, records }) => {
                        let belief = &mut beliefs[partition.partition as usize];
                        prop_assert!(belief.held && !belief.revoking);
                        for one in records {
                            prop_assert_eq!(one.offset, belief.next, "in order, each once");
                            belief.next += 1;
                        }
                    }
                    Some(Event::Revoking { partitions, .. }) => for partition in partitions {
                        let belief = &mut beliefs[partition.partition as usize];
                        prop_assert!(belief.held && !belief.revoking);
                        belief.revoking = true;
                    },
                    Some(Event::Lost(partitions)) => for partition in partitions {
                        prop_assert!(std::mem::take(&mut beliefs[partition.partition as usize]).held);
                    },
                    Some(Event::Gap { .. }) => prop_assert!(false, "there is none"),
                    None => {}
                },
                Step::Commit(number) => {
                    let belief = beliefs[number as usize];
                    let accepted = assignments.request_commit(&partition(number), belief.next).is_ok();
                    prop_assert!(!accepted || belief.held);
                }
                Step::Answer(good) => {
                    for (partition, offset) in sent.drain(..) {
                        let durable = &mut durable[partition.partition as usize];
                        if good {
                            prop_assert!(*durable <= Some(offset), "never back");
                            *durable = Some(offset);
                        }
                    }
                    assignments.committed(|_| if good { Ok(()) } else { Err(CommitFault::Again) });
                    if let Some(commits) = assignments.take_commits() {
                        prop_assert!(commits.iter().all(|(partition, offset)| *offset <= log[partition.partition as usize]));
                        sent = commits;
                    }
                }
                Step::Release(number) => {
                    assignments.release(&partition(number));
                    let belief = &mut beliefs[number as usize];
                    if belief.revoking {
                        *belief = Belief::default();
                    }
                }
                Step::Pause(number, paused) => assignments.pause(&partition(number), paused),
                Step::Tick(seconds) => {
                    now += Duration::from_secs(seconds);
                    assignments.finish_revocation(now);
                }
            }
        }
    }
}
