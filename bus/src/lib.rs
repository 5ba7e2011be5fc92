//! The durable log between gateway and processor: one trait, and the forms behind it.
//!
//! What lives here: [`Bus`] and [`Consumer`], the words they speak in ([`Record`], [`Position`], [`Event`], ...), and
//! [`local`], the form for one machine, and `kafka` (a feature), the form for a cluster. What does not: what a record means (the envelope belongs to `logmesh-proto`),
//! and who may write where (that is the gateway's policy).
//!
//! The trait is shaped for Kafka as much as for the journal: partitions by key, groups, a contiguous commit, lag, and
//! assignment that can be taken away. A caller written against it must not be able to tell which form it got, other
//! than by its speed; `contract` (feature `contract`) holds the suite that every form passes.

mod bus;
pub mod config;
mod consumer;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod delivery;
mod error;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod local;
mod record;

pub use bus::{Bus, Condition, PartitionRange};
pub use consumer::{Assignment, Consumer, Delivered, Event, PartitionLag, Subscription};
pub use delivery::{Delivery, DeliverySender};
pub use error::{AppendError, BusError, Scope};
pub use record::{Position, Record, TopicPartition, is_topic_name};
