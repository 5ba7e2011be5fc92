//! Assignment: cases that must hold, and random schedules.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::{Group, MemberId};
use crate::{BusError, Subscription, TopicPartition};

const GRACE: Duration = Duration::from_secs(5);

fn group(partitions: u16) -> (Group, Instant) {
    let mut group = Group { topics: vec!["logs".to_owned()], ..Group::default() };
    let now = Instant::now();
    group.topic(&"logs".into(), partitions, now);
    (group, now)
}

fn subscription() -> Subscription {
    Subscription { revoke_grace: GRACE, ..Subscription::new("group", ["logs"]) }
}

/// Partitions that are held for good, by member.
fn settled(group: &Group) -> BTreeMap<MemberId, Vec<u32>> {
    let mut held = BTreeMap::<MemberId, Vec<u32>>::new();
    for (name, partition) in group.partitions() {
        if let Some(holder) = partition.holder.filter(|holder| holder.revoking.is_none()) {
            held.entry(holder.member).or_default().push(name.partition);
        }
    }
    held
}

fn revoking(group: &Group, member: MemberId) -> Vec<TopicPartition> {
    let held = group.held(member).filter(|(_, holding, _)| holding.revoking.is_some());
    held.map(|(name, _, _)| name.clone()).collect()
}

#[test]
fn the_only_member_gets_everything_at_once() {
    let (mut group, now) = group(8);
    group.join(1, subscription(), now);
    assert_eq!(settled(&group), BTreeMap::from([(1, (0..8).collect())]));
    assert_eq!(group.deadline(), None);
}

#[test]
fn a_second_member_is_given_half_and_only_after_release() {
    let (mut group, now) = group(8);
    group.join(1, subscription(), now);
    group.join(2, subscription(), now);
    let wanted = revoking(&group, 1);
    assert_eq!((wanted.len(), group.held(2).count()), (4, 0));
    group.release(1, &wanted[0], now);
    assert_eq!(group.held(2).count(), 1, "each goes as soon as it is released");
    wanted[1..].iter().for_each(|partition| group.release(1, partition, now));
    assert_eq!(settled(&group).values().map(Vec::len).collect::<Vec<_>>(), [4, 4]);
}

#[test]
fn what_is_not_released_goes_at_its_deadline_and_not_before() {
    let (mut group, now) = group(4);
    group.join(1, subscription(), now);
    group.join(2, subscription(), now);
    let deadline = group.deadline().expect("something is being revoked");
    assert_eq!(deadline, now + GRACE);
    group.tick(deadline - Duration::from_nanos(1));
    assert_eq!(group.held(2).count(), 0);
    group.tick(deadline);
    assert_eq!(settled(&group).values().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn a_member_that_leaves_hands_over_at_once() {
    let (mut group, now) = group(4);
    group.join(1, subscription(), now);
    group.join(2, subscription(), now);
    group.leave(1, now);
    assert_eq!(settled(&group), BTreeMap::from([(2, (0..4).collect())]));
}

#[test]
fn an_old_holding_commits_nothing_even_when_the_partition_came_back() {
    let (mut group, now) = group(1);
    group.join(1, subscription(), now);
    let partition = TopicPartition::new("logs", 0);
    let first = group.holding(&partition).expect("held");
    group.leave(1, now);
    group.join(1, subscription(), now);
    let second = group.holding(&partition).expect("held again");
    assert_ne!(first.generation, second.generation);
    let late = group.commit(&partition, (1, first.generation), 5, 5);
    assert_eq!(late, Err(BusError::Fenced { partition: partition.clone() }));
    assert_eq!(group.commit(&partition, (1, second.generation), 5, 5), Ok(()));
}

#[test]
fn a_revoked_holding_can_still_commit_until_it_is_gone() {
    let (mut group, now) = group(2);
    group.join(1, subscription(), now);
    group.join(2, subscription(), now);
    let partition = revoking(&group, 1).remove(0);
    let holding = group.holding(&partition).expect("held");
    assert_eq!(group.commit(&partition, (1, holding.generation), 3, 3), Ok(()));
    group.release(1, &partition, now);
    let late = group.commit(&partition, (1, holding.generation), 4, 4);
    assert_eq!(late, Err(BusError::Fenced { partition }));
}

#[test]
fn members_get_only_topics_that_they_asked_for() {
    let (mut group, now) = group(4);
    group.join(1, subscription(), now);
    group.join(2, Subscription::new("group", ["audit.*"]), now);
    group.topic(&"audit.a".into(), 2, now);
    assert!(group.held(2).all(|(name, _, _)| *name.topic == *"audit.a"));
    assert_eq!(group.held(2).count(), 2);
    assert_eq!(settled(&group)[&1].len(), 4, "nobody else can read these");
}

#[derive(Clone, Debug)]
enum Step {
    Join(MemberId),
    Leave(MemberId),
    ReleaseAll(MemberId),
    Topic(u16),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1_u64..6).prop_map(Step::Join),
        2 => (1_u64..6).prop_map(Step::Leave),
        3 => (1_u64..6).prop_map(Step::ReleaseAll),
        1 => (1_u16..20).prop_map(Step::Topic),
        1 => (0_u64..4).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn after_any_schedule_everybody_has_an_even_share_once_all_is_released(steps in steps()) {
        let (mut group, mut now) = group(8);
        let mut members = std::collections::BTreeSet::new();
        for step in steps {
            let before: BTreeMap<_, _> = group.partitions().map(|(name, held)| (name.clone(), held.holder)).collect();
            let gone = match step {
                Step::Join(member) if members.insert(member) => { group.join(member, subscription(), now); None }
                Step::Join(_) => None,
                Step::Leave(member) => { members.remove(&member); group.leave(member, now); Some(member) }
                Step::ReleaseAll(member) => {
                    revoking(&group, member).iter().for_each(|partition| group.release(member, partition, now));
                    Some(member)
                }
                Step::Topic(partitions) => { group.topic(&"logs".into(), partitions, now); None }
                Step::Wait(seconds) => { now += Duration::from_secs(seconds); group.tick(now); None }
            };
            // A holder changes only by its own act or past its deadline.
            for (name, partition) in group.partitions() {
                let Some(Some(old)) = before.get(name) else { continue };
                let same = partition.holder.is_some_and(|new| new.generation == old.generation);
                let late = old.revoking.is_some_and(|deadline| deadline <= now);
                prop_assert!(same || gone == Some(old.member) || late, "{name} was taken from {old:?}");
            }
        }
        while let Some(deadline) = group.deadline() {
            group.tick(deadline);
        }
        let shares = settled(&group);
        let total = group.partitions().count();
        prop_assert_eq!(shares.values().map(Vec::len).sum::<usize>(), if members.is_empty() { 0 } else { total });
        for member in &members {
            let share = shares.get(member).map_or(0, Vec::len);
            prop_assert!(share == total / members.len() || share == total.div_ceil(members.len()), "uneven: {shares:?}");
        }
    }
}
