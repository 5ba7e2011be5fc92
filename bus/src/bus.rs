//! The seam itself.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::{AppendError, BusError, Consumer, Delivery, PartitionLag, Record, Subscription};

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

    fn condition(&self) -> watch::Receiver<Condition> {
        self.as_ref().condition()
    }

    fn close(&self, grace: Duration) -> BoxFuture<'_, ()> {
        self.as_ref().close(grace)
    }
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
