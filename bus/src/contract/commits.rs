//! Groups, commits and lag.

use super::{Rig, close, commit, join, next, numbered, patient, put, read, values};
use crate::{BusError, Event, TopicPartition};

/// Earliest at first; what is committed is not handed out again, also after a restart; what comes later is.
pub async fn a_group_begins_at_the_earliest_and_resumes_at_its_commit(rig: &dyn Rig) {
    let topic = rig.topic("resume");
    let bus = rig.open().await;
    for value in numbered(0..30) {
        put(bus.as_ref(), &topic, &value, &value).await;
    }
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &topic).await;
    let seen = read(consumer.as_mut(), 30).await;
    assert_eq!(values(&seen), numbered(0..30));
    commit(consumer.as_mut(), &seen).await;
    drop(consumer);
    close(bus).await;
    let bus = rig.open().await;
    for value in numbered(30..40) {
        put(bus.as_ref(), &topic, &value, &value).await;
    }
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &topic).await;
    assert_eq!(values(&read(consumer.as_mut(), 10).await), numbered(30..40));
    drop(consumer);
    close(bus).await;
}

/// Each group has all records, and its own commits.
pub async fn groups_do_not_hear_of_each_other(rig: &dyn Rig) {
    let topic = rig.topic("groups");
    let bus = rig.open().await;
    for value in numbered(0..20) {
        put(bus.as_ref(), &topic, &value, &value).await;
    }
    let mut one = join(bus.as_ref(), &rig.group("one"), &topic).await;
    let seen = read(one.as_mut(), 20).await;
    commit(one.as_mut(), &seen).await;
    let mut other = join(bus.as_ref(), &rig.group("other"), &topic).await;
    assert_eq!(values(&read(other.as_mut(), 20).await), numbered(0..20));
    drop((one, other));
    close(bus).await;
}

/// A consumer that goes without committing leaves everything above its commits to the next.
pub async fn uncommitted_records_come_again(rig: &dyn Rig) {
    let topic = rig.topic("again");
    let bus = rig.open().await;
    for value in numbered(0..10) {
        put(bus.as_ref(), &topic, "one key", &value).await;
    }
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &topic).await;
    let seen = read(consumer.as_mut(), 10).await;
    let (partition, records) = seen.first_key_value().expect("one partition");
    let fourth = records[3].offset + 1;
    patient("a commit", consumer.commit(partition, fourth)).await.expect("durable");
    drop(consumer);
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &topic).await;
    let assigned = loop {
        if let Event::Assigned(assigned) = next(consumer.as_mut()).await {
            break assigned;
        }
    };
    let committed = assigned.iter().find(|assignment| assignment.partition == *partition);
    assert_eq!(committed.and_then(|assignment| assignment.committed), Some(fourth));
    assert_eq!(values(&read(consumer.as_mut(), 6).await), numbered(4..10));
    drop(consumer);
    close(bus).await;
}

/// Refused commits change nothing; an equal one is fine; a higher one answers for lower ones.
pub async fn a_commit_neither_goes_back_nor_ahead(rig: &dyn Rig) {
    let topic = rig.topic("direction");
    let bus = rig.open().await;
    for value in numbered(0..10) {
        put(bus.as_ref(), &topic, "one key", &value).await;
    }
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &topic).await;
    let seen = read(consumer.as_mut(), 10).await;
    let (partition, records) = seen.first_key_value().expect("one partition");
    let (third, sixth, end) = (records[2].offset, records[5].offset, records[9].offset + 1);
    let (lower, higher) = (consumer.commit(partition, third), consumer.commit(partition, sixth));
    patient("the higher commit", higher).await.expect("durable");
    patient("the lower commit", lower).await.expect("durable with it");
    patient("an equal commit", consumer.commit(partition, sixth)).await.expect("no error");
    let back = patient("a refusal", consumer.commit(partition, third)).await;
    assert_eq!(back, Err(BusError::Backwards { partition: partition.clone(), committed: sixth, requested: third }));
    let ahead = patient("a refusal", consumer.commit(partition, end + 1)).await;
    assert_eq!(ahead, Err(BusError::Beyond { partition: partition.clone(), delivered: end, requested: end + 1 }));
    drop(consumer);
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &topic).await;
    assert_eq!(values(&read(consumer.as_mut(), 5).await), numbered(5..10));
    drop(consumer);
    close(bus).await;
}

/// Who does not hold a partition does not commit it.
pub async fn a_commit_needs_the_partition(rig: &dyn Rig) {
    let topic = rig.topic("stranger");
    let bus = rig.open().await;
    put(bus.as_ref(), &topic, "key", "value").await;
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &topic).await;
    // Assigned perhaps, but not told so yet.
    let partition = TopicPartition::new(topic.as_str(), 0);
    let early = patient("a refusal", consumer.commit(&partition, 0)).await;
    assert_eq!(early, Err(BusError::Fenced { partition }));
    let unknown = TopicPartition::new(topic.as_str(), 10_000);
    read(consumer.as_mut(), 1).await;
    let refused = patient("a refusal", consumer.commit(&unknown, 0)).await;
    assert_eq!(refused, Err(BusError::Fenced { partition: unknown }));
    drop(consumer);
    close(bus).await;
}

/// Lag is end minus committed, per partition, and is gone once all is committed.
pub async fn lag_counts_what_is_not_committed(rig: &dyn Rig) {
    let topic = rig.topic("lag");
    let bus = rig.open().await;
    assert_eq!(bus.lag(&rig.group("nobody")).await, Ok(Vec::new()), "an unknown group has no lag");
    for value in numbered(0..25) {
        put(bus.as_ref(), &topic, &value, &value).await;
    }
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &topic).await;
    let lag = async || {
        let lags = patient("lag", bus.lag(&rig.group("group"))).await.expect("lag is known");
        lags.iter().map(crate::PartitionLag::records).sum::<u64>()
    };
    let mut seen = read(consumer.as_mut(), 25).await;
    assert_eq!(lag().await, 25);
    let (partition, records) = seen.pop_first().expect("a partition");
    let last = records.last().expect("records").offset + 1;
    patient("a commit", consumer.commit(&partition, last)).await.expect("durable");
    assert_eq!(lag().await, 25 - records.len() as u64);
    commit(consumer.as_mut(), &seen).await;
    assert_eq!(lag().await, 0);
    drop(consumer);
    close(bus).await;
}
