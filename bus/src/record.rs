//! What travels on a bus, and where it stands.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use logmesh_proto::Header;

/// One record of a topic: the unit that is appended, delivered and counted by offsets.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Chooses the partition: records of equal key keep their order. The gateway's is the stream key's 16 bytes.
    pub key: Bytes,
    /// What is said beside the value; names may repeat, order is kept.
    pub headers: Vec<Header>,
    /// The payload, never looked into.
    pub value: Bytes,
}

impl Record {
    /// Bytes that this record brings to a queue: key, value, and header names and values.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
        self.key.len() + self.value.len() + headers
    }
}

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's full name on the bus, tenant included.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: u32,
}

impl TopicPartition {
    /// The partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}[{}]", self.topic, self.partition)
    }
}

/// Where a durable record stands within its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The partition that the record's key chose.
    pub partition: u32,
    /// The record's number within the partition. Offsets grow; a bus may leave some out (Kafka's transaction markers).
    pub offset: u64,
}

/// Whether `name` can be a topic's: 1 to 249 of `[a-zA-Z0-9._-]`, and neither `.` nor `..` (Kafka's own rule).
pub fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}
