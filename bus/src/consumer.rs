//! The reading side of the seam.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::{BusError, Record, TopicPartition};

/// What a consumer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Topic names; one that holds `*` is a pattern, in which `*` stands for any run of characters (`logs.*`). Topics
    /// that appear later and match are picked up. At least one.
    pub topics: Vec<String>,
    /// The group whose commits count. Groups are told apart by name alone.
    pub group: String,
    /// Bounds, in bytes, the records fetched for this consumer and not yet returned by [`Consumer::next`], and so also
    /// the size of one [`Event::Records`]; one record that is larger comes alone. What the caller holds is its own to bound:
    /// it pauses partitions, or does not call `next`.
    pub fetch_bytes: usize,
    /// How long a partition that is to be taken away may still be drained (see [`Event::Revoking`]).
    pub revoke_grace: Duration,
}

impl Subscription {
    /// A subscription with 4 MiB of fetched records and 5 s to drain.
    pub fn new<Name: Into<String>>(group: impl Into<String>, topics: impl IntoIterator<Item = Name>) -> Self {
        Self {
            topics: topics.into_iter().map(Into::into).collect(),
            group: group.into(),
            fetch_bytes: 4 << 20,
            revoke_grace: Duration::from_secs(5),
        }
    }

    /// Whether `topic` is one of those asked for.
    pub fn matches(&self, topic: &str) -> bool {
        self.topics.iter().any(|pattern| matches_pattern(pattern, topic))
    }
}

pub(crate) fn matches_pattern(pattern: &str, topic: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == topic };
    let Some(mut remaining) = topic.strip_prefix(head) else { return false };
    let mut pieces = rest.split('*').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return remaining.ends_with(piece);
        }
        // The leftmost match leaves the most for what follows, so that no other choice needs trying.
        let Some(at) = remaining.find(piece) else { return false };
        remaining = &remaining[at + piece.len()..];
    }
    true
}

/// One member of a group.
///
/// How to use it: call [`next`](Self::next) again and again, also while partitions are paused (it keeps the membership alive) and
/// hand the records of each partition to that partition's worker; [`commit`](Self::commit) what is finished. On
/// [`Event::Revoking`] finish what was handed out, commit it, and [`release`](Self::release); on [`Event::Lost`] drop it.
/// Other partitions keep flowing all the while.
///
/// Dropping a consumer leaves the group at once, without waiting for anything; commits under way still finish.
pub trait Consumer: Send {
    /// The next thing that happened; pends while there is nothing. Cancel safe: dropping the future loses no event.
    ///
    /// Records of one partition come in ascending offsets, each once per assignment. Partitions take turns.
    ///
    /// # Errors
    /// [`BusError::Closed`] and [`BusError::Fatal`] end the consumer. Retryable ones do not: call again after a pause.
    fn next(&mut self) -> BoxFuture<'_, Result<Event, BusError>>;

    /// Says that every record of `partition` below `next_offset` is finished, for good. That they are a contiguous prefix
    /// is the caller's duty. The future resolves once the commit is durable.
    ///
    /// The request counts from the call on, in call order, whether the future is polled or dropped; it borrows
    /// nothing, so that many can be under way at once. A lower commit resolves with a higher one.
    ///
    /// # Errors
    /// [`BusError::Fenced`] when the partition is not held as far as this consumer's caller was told (not assigned, lost,
    /// released, or taken away with `Lost` still to come). [`BusError::Backwards`] and [`BusError::Beyond`]: nothing is
    /// changed. Equal to what is committed is no error. [`BusError::Unavailable`]: not durable yet, retry.
    fn commit(&mut self, partition: &TopicPartition, next_offset: u64) -> BoxFuture<'static, Result<(), BusError>>;

    /// Hands out no more records of `partition` until [`resume`](Self::resume). Records that were fetched but not returned stay
    /// inside and come first later. A partition that is not held is ignored; a new assignment begins unpaused.
    fn pause(&mut self, partition: &TopicPartition);

    /// Ends a pause.
    fn resume(&mut self, partition: &TopicPartition);

    /// The answer to [`Event::Revoking`] when `partition` is drained and committed: it may go to another consumer now.
    /// Commits that were requested before are awaited by the bus first. A partition that is not being revoked is ignored.
    fn release(&mut self, partition: &TopicPartition);
}

/// What a consumer is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// These partitions are this consumer's now. Never empty, and before any of their records.
    Assigned(Vec<Assignment>),
    /// Records of one partition, in order, at least one.
    Records {
        /// Where they are from.
        partition: TopicPartition,
        /// Their offsets ascend; gaps between them are possible and mean nothing.
        records: Vec<Delivered>,
    },
    /// These partitions are wanted elsewhere: no more of their records come. Finish, commit, `release` each. What is not
    /// released by `deadline` is lost.
    Revoking {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// On tokio's clock.
        deadline: Instant,
    },
    /// These partitions are no longer this consumer's; their commits are refused from before this event on. What was
    /// handed out and not committed goes to another consumer as well.
    Lost(Vec<TopicPartition>),
    /// Records of this partition were removed by the bus before this group had read them: `from..to` will never come.
    /// Never a silent skip: count it as lost, tell the operator.
    Gap {
        /// The partition.
        partition: TopicPartition,
        /// The offset that should have come next.
        from: u64,
        /// The offset that comes next.
        to: u64,
    },
}

/// One partition given to a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The partition.
    pub partition: TopicPartition,
    /// The group's committed offset, with which delivery begins; `None` = none yet, delivery begins at the earliest kept.
    pub committed: Option<u64>,
}

/// One record as a consumer gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// Its offset; committing it means committing `offset + 1`.
    pub offset: u64,
    /// The record as it was appended.
    pub record: Record,
}

/// How far a group is behind in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset that the next durable record gets.
    pub end: u64,
    /// What the group has committed; without a commit the earliest offset kept.
    pub committed: u64,
    /// When the oldest record that is not committed was appended, in nanoseconds since the epoch, where known; it may
    /// be told too early (never too late). `None` when nothing is uncommitted, or where the bus cannot tell cheaply.
    pub oldest_appended_unix_nano: Option<u64>,
}

impl PartitionLag {
    /// Records at or above the committed offset.
    pub fn records(&self) -> u64 {
        self.end.saturating_sub(self.committed)
    }
}
