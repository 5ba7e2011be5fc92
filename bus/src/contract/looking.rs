//! Looking without a group.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Rig, Seen, close, join, numbered, patient, put, read, record, values};
use crate::{Bus, BusError, TopicPartition};

/// Reads everything that is kept of `topic`, a page of about `bytes_max` at a time.
async fn look(bus: &dyn Bus, topic: &str, bytes_max: usize) -> Seen {
    let mut seen = Seen::new();
    for range in patient("ranges", bus.ranges(&[topic.to_owned()])).await.expect("ranges are known") {
        let mut from = range.earliest;
        while from < range.end {
            let page = patient("a page", bus.read(&range.partition, from, bytes_max)).await.expect("can be read");
            let Some(last) = page.last() else { break };
            assert!(page[0].offset >= from && page.is_sorted_by(|one, other| one.offset < other.offset));
            from = last.offset + 1;
            seen.entry(range.partition.clone()).or_default().extend(page);
        }
    }
    seen
}

/// All partitions of what exists and matches, empty ones too, with what they hold; what does not exist is not made.
pub async fn ranges_tell_every_partition_of_what_exists(rig: &dyn Rig) {
    let topic = rig.topic("ranges");
    let bus = rig.open().await;
    let mut ends = BTreeMap::new();
    for value in numbered(0..40) {
        let position = put(bus.as_ref(), &topic, &value, &value).await;
        ends.insert(TopicPartition::new(topic.as_str(), position.partition), position.offset + 1);
    }
    for asked in [topic.clone(), format!("{topic}*")] {
        let ranges = patient("ranges", bus.ranges(&[asked])).await.expect("ranges are known");
        assert!(ranges.iter().zip(0..).all(|(range, number)| range.partition.partition == number), "{ranges:?}");
        assert_eq!(ranges.iter().map(|range| range.end - range.earliest).sum::<u64>(), 40);
        for range in ranges {
            assert_eq!(range.end, ends.get(&range.partition).copied().unwrap_or(range.earliest), "{range:?}");
        }
    }
    let missing = [format!("{topic}-that-is-not-there")];
    for _ in 0..2 {
        assert_eq!(patient("ranges", bus.ranges(&missing)).await, Ok(Vec::new()));
    }
    let invalid = patient("a refusal", bus.ranges(&["no topic".to_owned()])).await;
    assert!(matches!(invalid, Err(BusError::Invalid { .. })), "{invalid:?}");
    close(bus).await;
}

/// What is read is what was appended, in pages as small as one record, from any offset; a group that comes later starts where
/// it would have started.
pub async fn reading_without_a_group_shows_all_and_disturbs_nobody(rig: &dyn Rig) {
    let topic = rig.topic("look");
    let bus = rig.open().await;
    for value in numbered(0..30) {
        put(bus.as_ref(), &topic, &value, &value).await;
    }
    let seen = look(bus.as_ref(), &topic, 1).await;
    assert_eq!(values(&seen), numbered(0..30));
    assert_eq!(look(bus.as_ref(), &topic, 1 << 20).await, seen, "pages of any size hold the same");
    for (partition, records) in &seen {
        for place in 0..records.len() {
            let page = patient("a page", bus.read(partition, records[place].offset, 1 << 20)).await.expect("reads");
            assert_eq!(page[..], records[place..], "from the middle of {partition}");
        }
        let end = records.last().expect("records").offset + 1;
        assert_eq!(patient("a page", bus.read(partition, end, 1 << 20)).await, Ok(Vec::new()), "nothing at the end");
    }
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &topic).await;
    assert_eq!(read(consumer.as_mut(), 30).await, seen, "a consumer gets the same");
    drop(consumer);
    close(bus).await;
}

/// The bound in bytes never hides a record.
pub async fn a_record_larger_than_the_page_is_read_alone(rig: &dyn Rig) {
    let topic = rig.topic("large-page");
    let bus = rig.open().await;
    let mut large = record("key", Bytes::new());
    large.value = Bytes::from(vec![b'x'; rig.record_bytes_max() - large.size()]);
    let delivery = bus.append(&topic, large.clone()).await.expect("queued");
    patient("a delivery", delivery).await.expect("durable");
    put(bus.as_ref(), &topic, "key", "behind it").await;
    let seen = look(bus.as_ref(), &topic, 100).await;
    let records: Vec<_> = seen.into_values().flatten().map(|one| one.record).collect();
    assert_eq!(records, [large, record("key", "behind it")]);
    close(bus).await;
}

/// A partition that is not there is said to be no partition; a closed bus says so.
pub async fn reading_what_is_not_there_is_refused(rig: &dyn Rig) {
    let topic = rig.topic("nowhere");
    let bus = rig.open().await;
    put(bus.as_ref(), &topic, "key", "value").await;
    let nowhere = TopicPartition::new(topic.as_str(), 10_000);
    let refused = patient("a refusal", bus.read(&nowhere, 0, 1 << 20)).await;
    assert!(matches!(refused, Err(BusError::Invalid { .. })), "{refused:?}");
    close(bus.clone()).await;
    assert_eq!(patient("a refusal", bus.ranges(&[topic])).await, Err(BusError::Closed));
}
