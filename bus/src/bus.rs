//! The seam itself.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::{AppendError, BusError, Consumer, Delivered, Delivery, PartitionLag, Record, Subscription, TopicPartition};

/// A durable, partitioned log with consumer groups.
///
/// Promises, the same for every form:
/// - **Durable before resolved.** A [`Delivery`] says `Ok` only when the record survives a crash of everything that the
///   form is made for (local: fdatasync; Kafka: acks=all).
/// - **Order per key.** Records of one key and topic go to one partition; those whose `append` resolved one after
///   the other are delivered in that order. A failed delivery may let later ones pass: who needs the order refuses them.
/// - **At least once.** A group is handed every record at or above its committed offset again after a restart, a
///   rebalance or a lost consumer. A group without a committed offset starts at the earliest record kept.
/// - **Groups are independent**: none sees or waits for another's commits.
/// - **A full bus is slow, never lossy**: `append` waits for room, then says `Full` or `Unavailable`.
pub trait Bus: Send + Sync + 'static {
    /// Queues `record` on `topic`, waiting for room in the bus's bounded queue (backpressure).
    ///
    /// When this resolves with `Ok`, the record has its place in the queue, behind all whose `append` resolved earlier;
    /// it is durable only once the [`Delivery`] says so. Dropping the future before it resolves appends nothing.
    ///
    /// # Errors
    /// See [`AppendError`]; errors known at once come from here, all others from the delivery.
    fn append<'a>(&'a self, topic: &'a str, record: Record) -> BoxFuture<'a, Result<Delivery, AppendError>>;

    /// Joins a group. Several consumers of one group share its partitions. Dropping the consumer leaves the group;
    /// what it had not committed is handed to others, or to the group's next consumer.
    ///
    /// A group is known to the bus from its first subscription on, durably: nothing is removed before it has read it.
    ///
    /// # Errors
    /// [`BusError::Invalid`] for a name or budget that cannot be; otherwise the bus's state. A topic that does not exist (yet)
    /// is no error: its partitions are assigned when it appears.
    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Box<dyn Consumer>, BusError>>;

    /// How far `group` is behind, for every partition of every topic it is subscribed to or has commits for.
    ///
    /// # Errors
    /// [`BusError::Unavailable`], [`BusError::Denied`] or [`BusError::Fatal`]; an unknown group is an empty list.
    fn lag(&self, group: &str) -> BoxFuture<'_, Result<Vec<PartitionLag>, BusError>>;

    /// Every partition of the topics that exist and match `topics` (names or patterns, as in [`Subscription::topics`]), in order,
    /// and which offsets it holds now. No group is involved, and nothing is made or registered by asking.
    ///
    /// # Errors
    /// [`BusError::Invalid`] for what can be no topic's name or pattern; otherwise the bus's state.
    fn ranges(&self, topics: &[String]) -> BoxFuture<'_, Result<Vec<PartitionRange>, BusError>>;

    /// Records of `partition` at or above offset `from`, in order, without any group: nothing is registered, committed, or
    /// held back from removal. About `bytes_max` bytes of them, but at least one where there is one, however large; none at
    /// the end. A `from` below the earliest record kept begins with that one.
    ///
    /// For looking at what is there, a page at a time; who follows a topic subscribes.
    ///
    /// # Errors
    /// [`BusError::Invalid`] for a partition that does not exist; otherwise the bus's state.
    fn read(
        &self,
        partition: &TopicPartition,
        from: u64,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivered>, BusError>>;

    /// What an operator should know right now; readiness follows it. The default never changes from [`Condition::Ok`].
    fn condition(&self) -> watch::Receiver<Condition> {
        watch::channel(Condition::Ok).1
    }

    /// Accepts no more, makes durable what is queued, flushes commits, and ends all consumers ([`BusError::Closed`]).
    /// Takes no longer than `grace`, whatever the disk or the brokers do; deliveries that are still open then say
    /// `Unavailable`. A second call does nothing.
    fn close(&self, grace: Duration) -> BoxFuture<'_, ()>;
}

/// A shared bus is a bus.
impl<B: Bus + ?Sized> Bus for Arc<B> {
    fn append<'a>(&'a self, topic: &'a str, record: Record) -> BoxFuture<'a, Result<Delivery, AppendError>> {
        self.as_ref().append(topic, record)
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Box<dyn Consumer>, BusError>> {
        self.as_ref().subscribe(subscription)
    }

    fn lag(&self, group: &str) -> BoxFuture<'_, Result<Vec<PartitionLag>, BusError>> {
        self.as_ref().lag(group)
    }

    fn ranges(&self, topics: &[String]) -> BoxFuture<'_, Result<Vec<PartitionRange>, BusError>> {
        self.as_ref().ranges(topics)
    }

    fn read(
        &self,
        partition: &TopicPartition,
        from: u64,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivered>, BusError>> {
        self.as_ref().read(partition, from, bytes_max)
    }

    fn condition(&self) -> watch::Receiver<Condition> {
        self.as_ref().condition()
    }

    fn close(&self, grace: Duration) -> BoxFuture<'_, ()> {
        self.as_ref().close(grace)
    }
}

/// Which offsets a partition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRange {
    /// The partition.
    pub partition: TopicPartition,
    /// No record below is kept any more; equal to `end` when there is none at all.
    pub earliest: u64,
    /// The offset that the next durable record gets.
    pub end: u64,
}

/// How a bus fares as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Appends and commits pass.
    #[default]
    Ok,
    /// No room: appends wait or fail with [`AppendError::Full`], and pass again by themselves when there is room.
    Full {
        /// What is full, where, how much is missing.
        reason: String,
    },
    /// Something is wrong that time or an operator may heal without a restart (brokers, credentials, a topic).
    Degraded {
        /// What, in plain words.
        reason: String,
    },
    /// Nothing passes any more until the process is restarted.
    Failed {
        /// What failed, where, and what to do.
        reason: String,
    },
}
