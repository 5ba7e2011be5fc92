//! What can go wrong on a bus, sorted by what the caller should do about it.

use crate::TopicPartition;

/// How far a refusal reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This record alone: its neighbours of the same topic pass.
    Record,
    /// This topic: hold its lane, others go on.
    Topic,
    /// Everything that goes through this bus.
    Bus,
}

/// Why a record was not made durable. Whatever the variant: it was not, and must not be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No room on the disk (or in the cluster). Nothing was lost; the bus heals by itself once there is room.
    #[error("the bus has no room: {reason}")]
    Full {
        /// What is full, where, and what would help.
        reason: String,
    },
    /// The record exceeds what this topic takes; it never will pass whole.
    #[error("the record has {size} bytes, the topic takes {limit}")]
    TooLarge {
        /// The record's own size in bytes, as the bus counts it.
        size: u64,
        /// The largest size in bytes that would have been taken.
        limit: u64,
    },
    /// The bus did not answer in time or is out of reach. The record may still become durable: a later copy is the
    /// caller's to make harmless (ids do that).
    #[error("the bus is unavailable: {reason}")]
    Unavailable {
        /// What failed, in plain words.
        reason: String,
    },
    /// The topic does not exist or cannot be one. Only its lane is held; it heals once the topic is created.
    #[error("the topic `{topic}` cannot be written: {reason}")]
    UnknownTopic {
        /// The topic's name.
        topic: String,
        /// Why, and what to do.
        reason: String,
    },
    /// This process may not write to the topic. Only its lane is held.
    #[error("writing to the topic `{topic}` is denied: {reason}")]
    Denied {
        /// The topic's name.
        topic: String,
        /// The bus's own words.
        reason: String,
    },
    /// The bus is closing in this process; another process may take the record.
    #[error("the bus is closing")]
    Closed,
    /// The bus will accept nothing more in this process (a failed fsync, for example). Restart after looking at it.
    #[error("the bus has failed for good: {reason}")]
    Fatal {
        /// What failed, where, and what to do.
        reason: String,
    },
}

impl AppendError {
    /// Whether the same record may pass later, in this process or (after [`AppendError::Closed`]) in another.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Full { .. }
            | Self::Unavailable { .. }
            | Self::UnknownTopic { .. }
            | Self::Denied { .. }
            | Self::Closed => true,
            Self::TooLarge { .. } | Self::Fatal { .. } => false,
        }
    }

    /// How far the refusal reaches.
    pub fn scope(&self) -> Scope {
        match self {
            Self::TooLarge { .. } => Scope::Record,
            Self::UnknownTopic { .. } | Self::Denied { .. } => Scope::Topic,
            Self::Full { .. } | Self::Unavailable { .. } | Self::Closed | Self::Fatal { .. } => Scope::Bus,
        }
    }
}

/// Why a bus could not serve a consumer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// A commit for a partition that this consumer does not hold (any more). The work is not wrong, only no longer
    /// ours to answer for: whoever holds the partition now gets the records again.
    #[error("{partition} is not held by this consumer (any more): its commit is refused")]
    Fenced {
        /// The partition.
        partition: TopicPartition,
    },
    /// A commit below the one before it.
    #[error("the commit of {partition} would go back from {committed} to {requested}")]
    Backwards {
        /// The partition.
        partition: TopicPartition,
        /// What is committed.
        committed: u64,
        /// What was asked for.
        requested: u64,
    },
    /// A commit above what was ever handed out: records would be skipped.
    #[error("the commit of {partition} at {requested} is beyond {delivered}, the next record to be handed out")]
    Beyond {
        /// The partition.
        partition: TopicPartition,
        /// The next offset to be handed out.
        delivered: u64,
        /// What was asked for.
        requested: u64,
    },
    /// A subscription, group or partition cannot be served as asked; asking again changes nothing.
    #[error("what was asked of the bus is not possible: {reason}")]
    Invalid {
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The bus did not answer in time, is out of reach, or has no room for the commit. Retry.
    #[error("the bus is unavailable: {reason}")]
    Unavailable {
        /// What failed, in plain words.
        reason: String,
    },
    /// This process may not read the topic or use the group. Only its lane is held; retry slowly.
    #[error("reading `{what}` is denied: {reason}")]
    Denied {
        /// The topic or group.
        what: String,
        /// The bus's own words.
        reason: String,
    },
    /// The bus is closing in this process.
    #[error("the bus is closing")]
    Closed,
    /// The bus will serve nothing more in this process. Restart after looking at it.
    #[error("the bus has failed for good: {reason}")]
    Fatal {
        /// What failed, where, and what to do.
        reason: String,
    },
}

impl BusError {
    /// Whether the same call may succeed later on the same consumer.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Denied { .. } => true,
            Self::Fenced { .. }
            | Self::Backwards { .. }
            | Self::Beyond { .. }
            | Self::Invalid { .. }
            | Self::Closed
            | Self::Fatal { .. } => false,
        }
    }
}
