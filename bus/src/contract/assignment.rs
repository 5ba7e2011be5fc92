//! Who reads what: sharing, draining, fencing, pausing.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{PATIENCE, Rig, Seen, close, commit, join, next, numbered, patient, put, read, values};
use crate::{Bus, BusError, Consumer, Event, Subscription, TopicPartition};

/// Fills every partition of `topic`, one record for each of the values.
async fn fill(bus: &dyn Bus, topic: &str, values: &[String]) -> BTreeSet<u32> {
    let mut partitions = BTreeSet::new();
    for value in values {
        partitions.insert(put(bus, topic, value, value).await.partition);
    }
    assert!(partitions.len() > 1, "more than one partition is needed");
    partitions
}

/// Reads events until partitions are being revoked, releasing none.
async fn revoked(consumer: &mut dyn Consumer) -> Vec<TopicPartition> {
    loop {
        match next(consumer).await {
            Event::Revoking { partitions, .. } => return partitions,
            Event::Lost(partitions) => panic!("lost {partitions:?} without a chance to drain them"),
            Event::Assigned(_) | Event::Records { .. } | Event::Gap { .. } => {}
        }
    }
}

/// The first is asked, drains, commits and releases; the second then begins exactly there. Nothing comes twice.
pub async fn a_second_consumer_gets_its_share_once_the_first_has_drained(rig: &dyn Rig) {
    let topic = rig.topic("share");
    let bus = rig.open().await;
    fill(bus.as_ref(), &topic, &numbered(0..64)).await;
    let mut first = join(bus.as_ref(), &rig.group("group"), &topic).await;
    let seen = read(first.as_mut(), 64).await;
    let (partitions, mut second) = {
        let second = async {
            let mut second = join(bus.as_ref(), &rig.group("group"), &topic).await;
            // Some forms only join while they are polled.
            let event = next(second.as_mut()).await;
            (second, event)
        };
        let drain = async {
            let partitions = revoked(first.as_mut()).await;
            commit(first.as_mut(), &seen).await;
            partitions.iter().for_each(|partition| first.release(partition));
            // Keeps polling, as a member must, until the other one has its share.
            loop {
                match next(first.as_mut()).await {
                    Event::Lost(lost) => panic!("{lost:?} had been released"),
                    Event::Records { partition, .. } => panic!("{partition} came twice"),
                    Event::Revoking { partitions, .. } => {
                        partitions.iter().for_each(|partition| first.release(partition));
                    }
                    Event::Assigned(_) | Event::Gap { .. } => {}
                }
            }
        };
        let mut released = Box::pin(drain);
        let (second, event) = patient("the second consumer", async {
            tokio::select! {
                joined = second => joined,
                never = &mut released => never,
            }
        })
        .await;
        drop(released);
        let Event::Assigned(assigned) = event else { panic!("expected partitions, got {event:?}") };
        (assigned, second)
    };
    for assignment in &partitions {
        let committed = seen.get(&assignment.partition).and_then(|records| Some(records.last()?.offset + 1));
        assert_eq!(assignment.committed, committed, "the second begins where the first has committed");
    }
    let mine: BTreeSet<u32> = partitions.iter().map(|assignment| assignment.partition.partition).collect();
    let mut expected = Vec::new();
    for value in numbered(64..128) {
        if mine.contains(&put(bus.as_ref(), &topic, &value, &value).await.partition) {
            expected.push(value);
        }
    }
    assert_eq!(values(&read(second.as_mut(), expected.len()).await), expected);
    drop((first, second));
    close(bus).await;
}

/// Past the deadline the partition goes to the other consumer, and the late commit is refused.
pub async fn what_is_not_released_in_time_is_lost_and_fenced(rig: &dyn Rig) {
    let topic = rig.topic("late");
    let bus = rig.open().await;
    fill(bus.as_ref(), &topic, &numbered(0..64)).await;
    let hasty = Subscription {
        revoke_grace: Duration::from_millis(50),
        ..Subscription::new(rig.group("group"), [topic.as_str()])
    };
    let mut first = bus.subscribe(hasty).await.expect("joined");
    let seen = read(first.as_mut(), 64).await;
    let mut second = join(bus.as_ref(), &rig.group("group"), &topic).await;
    let second_reads = async {
        let mut again = Seen::new();
        while again.is_empty() {
            if let Event::Records { partition, records } = next(second.as_mut()).await {
                again.entry(partition).or_default().extend(records);
            }
        }
        again
    };
    let first_loses = async {
        let partitions = revoked(first.as_mut()).await;
        loop {
            if let Event::Lost(lost) = next(first.as_mut()).await {
                assert!(lost.iter().all(|partition| partitions.contains(partition)));
                return lost;
            }
        }
    };
    let (lost, again) = patient("the change of hands", async { tokio::join!(first_loses, second_reads) }).await;
    for partition in &lost {
        let end = seen.get(partition).and_then(|records| Some(records.last()?.offset + 1)).unwrap_or(0);
        let refused = patient("a refusal", first.commit(partition, end)).await;
        assert_eq!(refused, Err(BusError::Fenced { partition: partition.clone() }));
    }
    for (partition, records) in &again {
        assert!(lost.contains(partition), "only lost partitions change hands");
        assert_eq!(records[0], seen[partition][0], "what was not committed comes again, from the start");
    }
    drop((first, second));
    close(bus).await;
}

/// Of two, one goes without a word: the other one gets everything.
pub async fn a_dropped_consumer_leaves_its_share_to_the_other(rig: &dyn Rig) {
    let topic = rig.topic("leave");
    let bus = rig.open().await;
    let partitions = fill(bus.as_ref(), &topic, &numbered(0..64)).await;
    let mut first = join(bus.as_ref(), &rig.group("group"), &topic).await;
    let mut second = join(bus.as_ref(), &rig.group("group"), &topic).await;
    patient("the second's share", async {
        tokio::select! {
            event = next(second.as_mut()) => assert!(matches!(event, Event::Assigned(_)), "got {event:?}"),
            () = async {
                loop {
                    if let Event::Revoking { partitions, .. } = next(first.as_mut()).await {
                        partitions.iter().for_each(|partition| first.release(partition));
                    }
                }
            } => {}
        }
    })
    .await;
    drop(first);
    let mut seen = BTreeSet::new();
    while seen.len() < partitions.len() {
        if let Event::Records { partition, .. } = next(second.as_mut()).await {
            seen.insert(partition.partition);
        }
    }
    drop(second);
    close(bus).await;
}

/// The others flow; the paused one comes whole after `resume`.
pub async fn a_paused_partition_holds_back_no_other(rig: &dyn Rig) {
    let topic = rig.topic("pause");
    let bus = rig.open().await;
    fill(bus.as_ref(), &topic, &numbered(0..64)).await;
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &topic).await;
    let seen = read(consumer.as_mut(), 64).await;
    let paused = seen.first_key_value().expect("a partition").0.clone();
    consumer.pause(&paused);
    let (mut flowing, mut held) = (Vec::new(), Vec::new());
    for value in numbered(64..128) {
        let position = put(bus.as_ref(), &topic, &value, &value).await;
        if position.partition == paused.partition { held.push(value) } else { flowing.push(value) }
    }
    let others = read(consumer.as_mut(), flowing.len()).await;
    assert!(!others.contains_key(&paused), "a paused partition hands out nothing");
    assert_eq!(values(&others), flowing);
    consumer.resume(&paused);
    let rest = read(consumer.as_mut(), held.len()).await;
    assert_eq!(values(&rest), held);
    drop(consumer);
    close(bus).await;
}

/// `next` is cancel safe: dropped at any await, it loses and doubles nothing.
pub async fn a_dropped_next_loses_nothing(rig: &dyn Rig) {
    let topic = rig.topic("cancel");
    let bus = rig.open().await;
    fill(bus.as_ref(), &topic, &numbered(0..200)).await;
    let small = Subscription { fetch_bytes: 1, ..Subscription::new(rig.group("group"), [topic.as_str()]) };
    let mut consumer = bus.subscribe(small).await.expect("joined");
    let mut seen = Seen::new();
    let whole = async {
        while seen.values().map(Vec::len).sum::<usize>() < 200 {
            // Polled once or a few times, then dropped.
            let polled = tokio::select! {
                biased;
                event = consumer.next() => Some(event.expect("the consumer goes on")),
                () = tokio::task::yield_now() => None,
            };
            if let Some(Event::Records { partition, records }) = polled {
                seen.entry(partition).or_default().extend(records);
            }
        }
    };
    tokio::time::timeout(PATIENCE, whole).await.expect("all records come");
    assert_eq!(values(&seen), numbered(0..200));
    drop(consumer);
    close(bus).await;
}
