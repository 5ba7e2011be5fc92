//! From librdkafka's words to the bus's, and back.

use bytes::Bytes;
use logmesh_proto::Header;
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::{Delivered, Record, TopicPartition};

/// A topic's name or pattern; those that begin with `^` are regular expressions there.
pub(super) fn native_pattern(topic: &str) -> String {
    if topic.contains('*') { format!("^{}$", topic.replace('.', "\\.").replace('*', ".*")) } else { topic.to_owned() }
}

/// A message, copied out of librdkafka's memory.
pub(super) fn received(message: &BorrowedMessage<'_>) -> (TopicPartition, Delivered) {
    let bytes = |bytes: Option<&[u8]>| bytes.map_or_else(Bytes::new, Bytes::copy_from_slice);
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let header = |header: rdkafka::message::Header<'_, &[u8]>| Header {
            name: header.key.to_owned().into(),
            value: bytes(header.value),
        };
        headers.iter().map(header).collect()
    });
    let record = Record { key: bytes(message.key()), headers, value: bytes(message.payload()) };
    (owned(message.topic(), message.partition()), Delivered { offset: natural(message.offset()), record })
}

pub(super) fn owned(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, u32::try_from(partition).unwrap_or(0))
}

pub(super) fn number(partition: &TopicPartition) -> i32 {
    i32::try_from(partition.partition).unwrap_or(i32::MAX)
}

/// An offset of theirs; what is none (below zero) counts as the beginning.
pub(super) fn natural(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

/// An offset of ours.
pub(super) fn native(offset: u64) -> Offset {
    Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX))
}

/// An offset, where one stands; `None` for their words for places.
pub(super) fn offset_of(offset: Offset) -> Option<u64> {
    match offset {
        Offset::Offset(offset) => u64::try_from(offset).ok(),
        Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
    }
}

/// The partitions of a list of theirs.
pub(super) fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|element| owned(element.topic(), element.partition())).collect()
}

/// A list of partitions.
pub(super) fn list(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, number(partition));
    }
    list
}

/// Partitions with an offset each; `None` = the earliest kept.
pub(super) fn places<'a>(places: impl IntoIterator<Item = (&'a TopicPartition, Option<u64>)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in places {
        // Only offsets below zero are refused.
        let _ =
            list.add_partition_offset(&partition.topic, number(partition), offset.map_or(Offset::Beginning, native));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_becomes_a_whole_regular_expression_and_a_name_stays() {
        assert_eq!(native_pattern("logs.*"), "^logs\\..*$");
        assert_eq!(native_pattern("*-a.b"), "^.*-a\\.b$");
        assert_eq!(native_pattern("logs.a"), "logs.a");
    }

    #[test]
    fn places_without_an_offset_begin_at_the_earliest() {
        let (one, other) = (TopicPartition::new("a", 1), TopicPartition::new("a", 2));
        let list = places([(&one, None), (&other, Some(7))]);
        let elements = list.elements();
        assert_eq!(elements[0].offset(), Offset::Beginning);
        assert_eq!(elements[1].offset(), Offset::Offset(7));
        assert_eq!(partitions_of(&list), [one, other]);
    }
}
