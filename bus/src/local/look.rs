//! Looking at what is there without a group.

use std::sync::Arc;

use logmesh_journal::ReadError;

use super::shared::Shared;
use super::topics::Ends;
use crate::consumer::matches_pattern;
use crate::{BusError, Delivered, PartitionRange, TopicPartition};

/// Every partition of the topics that match, in order.
pub(super) fn ranges(shared: &Shared, patterns: &[String]) -> Result<Vec<PartitionRange>, BusError> {
    if shared.is_closed() {
        return Err(BusError::Closed);
    }
    let mut ranges = Vec::new();
    for (number, store) in shared.stores.iter().enumerate() {
        for topic in store.topics.all() {
            // A topic that was set apart later is known to both journals, and lives in one.
            let is_asked_for = patterns.iter().any(|pattern| matches_pattern(pattern, &topic.name));
            if !is_asked_for || shared.store_of(&topic.name) != number {
                continue;
            }
            for (partition, ends) in (0..topic.count()).zip(&topic.partitions) {
                let key = (topic.name.clone(), partition);
                let end = ends.durable();
                let earliest = store.earliest(&key).map_err(|error| unavailable(&error))?.min(end);
                let partition = TopicPartition::new(topic.name.clone(), u32::from(partition));
                ranges.push(PartitionRange { partition, earliest, end });
            }
        }
    }
    ranges.sort_by(|one, other| one.partition.cmp(&other.partition));
    Ok(ranges)
}

/// Records at or above `from`: about `bytes_max` of them, at least one where there is one.
pub(super) async fn read(
    shared: Arc<Shared>,
    partition: TopicPartition,
    from: u64,
    bytes_max: usize,
) -> Result<Vec<Delivered>, BusError> {
    if shared.is_closed() {
        return Err(BusError::Closed);
    }
    let reading = tokio::task::spawn_blocking(move || read_blocking(&shared, &partition, from, bytes_max));
    reading.await.map_err(|error| BusError::Fatal { reason: format!("reading panicked: {error}") })?
}

fn read_blocking(
    shared: &Shared,
    partition: &TopicPartition,
    mut from: u64,
    bytes_max: usize,
) -> Result<Vec<Delivered>, BusError> {
    let store = &shared.stores[shared.store_of(&partition.topic)];
    let number = u16::try_from(partition.partition).unwrap_or(u16::MAX);
    let topic = store.topics.find(&partition.topic).filter(|topic| number < topic.count());
    let Some(topic) = topic else {
        return Err(BusError::Invalid { reason: format!("there is no partition {partition}") });
    };
    let end = topic.partitions.get(usize::from(number)).map_or(0, Ends::durable);
    let mut segment = 0;
    while from < end {
        let fetched = store.fetch(&topic, number, Some(from), bytes_max, &mut segment);
        let fetched = fetched.map_err(|error| unavailable(&error))?;
        match fetched.gap_to {
            Some(to) if to > from => from = to,
            Some(_) | None => return Ok(fetched.records),
        }
    }
    Ok(Vec::new())
}

fn unavailable(error: &ReadError) -> BusError {
    BusError::Unavailable { reason: error.to_string() }
}
