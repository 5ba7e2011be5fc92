//! What every form of the bus must pass, whoever wrote it; and a wrapper that breaks one on purpose.
//!
//! A form's tests make a [`Rig`] and call [`contract_tests!`](crate::contract_tests), which gives one test per promise. Waiting is for events, bounded by
//! [`PATIENCE`]; nothing depends on speed.

mod assignment;
mod commits;
mod delivery;
mod faulty;
mod looking;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use logmesh_proto::Header;

pub use self::assignment::*;
pub use self::commits::*;
pub use self::delivery::*;
pub use self::faulty::{Faults, Faulty};
pub use self::looking::*;
use crate::{Bus, Consumer, Delivered, Event, Position, Record, Subscription, TopicPartition};

/// How long a test waits for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where a form of the bus runs under test.
pub trait Rig: Send + Sync {
    /// A bus over this rig's durable state: the same each time. The one before has been closed and dropped.
    fn open(&self) -> BoxFuture<'_, Arc<dyn Bus>>;

    /// The full name of a topic of this rig that can be written, with several partitions.
    fn topic(&self, name: &str) -> String {
        name.to_owned()
    }

    /// The full name of a group of this rig: no other rig's consumers are in it.
    fn group(&self, name: &str) -> String {
        name.to_owned()
    }

    /// The largest record, as [`Record::size`] counts, that is surely accepted; twice as much surely is not.
    fn record_bytes_max(&self) -> usize;
}

/// A test per promise of the contract; `$rig` makes a fresh [`Rig`].
#[macro_export]
macro_rules! contract_tests {
    ($rig:expr) => {
        $crate::contract_tests!(@each $rig;
            a_delivered_record_survives_a_restart_with_all_its_parts
            records_of_a_key_stay_in_one_partition_and_in_order
            many_records_at_once_are_all_delivered
            a_record_too_large_is_refused_alone
            a_topic_that_appears_later_is_read_by_its_pattern
            close_answers_everything
            a_closed_bus_refuses_appends_and_ends_consumers
            a_group_begins_at_the_earliest_and_resumes_at_its_commit
            groups_do_not_hear_of_each_other
            uncommitted_records_come_again
            a_commit_neither_goes_back_nor_ahead
            a_commit_needs_the_partition
            lag_counts_what_is_not_committed
            a_second_consumer_gets_its_share_once_the_first_has_drained
            what_is_not_released_in_time_is_lost_and_fenced
            a_dropped_consumer_leaves_its_share_to_the_other
            a_paused_partition_holds_back_no_other
            a_dropped_next_loses_nothing
            ranges_tell_every_partition_of_what_exists
            reading_without_a_group_shows_all_and_disturbs_nobody
            a_record_larger_than_the_page_is_read_alone
            reading_what_is_not_there_is_refused
        );
    };
    (@each $rig:expr; $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                $crate::contract::$name(&$rig).await;
            }
        )*
    };
}

/// Everything of these partitions that was handed out, by partition.
pub(crate) type Seen = BTreeMap<TopicPartition, Vec<Delivered>>;

pub(crate) fn record(key: &str, value: impl Into<Bytes>) -> Record {
    let headers = vec![Header { name: "tenant".into(), value: Bytes::from_static(b"default") }];
    Record { key: Bytes::copy_from_slice(key.as_bytes()), headers, value: value.into() }
}

/// Appends and waits until it is durable.
pub(crate) async fn put(bus: &dyn Bus, topic: &str, key: &str, value: &str) -> Position {
    let delivery = bus.append(topic, record(key, value.to_owned())).await.expect("the record is queued");
    patient("a delivery", delivery).await.expect("the record is durable")
}

pub(crate) async fn patient<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited for {what} for {PATIENCE:?}"),
    }
}

pub(crate) async fn join(bus: &dyn Bus, group: &str, topic: &str) -> Box<dyn Consumer> {
    patient("a subscription", bus.subscribe(Subscription::new(group, [topic]))).await.expect("the group is joined")
}

pub(crate) async fn next(consumer: &mut dyn Consumer) -> Event {
    loop {
        match patient("an event", consumer.next()).await {
            Ok(event) => return event,
            Err(error) if error.is_retryable() => tokio::task::yield_now().await,
            Err(error) => panic!("the consumer ended: {error}"),
        }
    }
}

/// Reads until `count` records were handed out in all; other events are of no interest.
pub(crate) async fn read(consumer: &mut dyn Consumer, count: usize) -> Seen {
    let mut seen = Seen::new();
    while seen.values().map(Vec::len).sum::<usize>() < count {
        if let Event::Records { partition, records } = next(consumer).await {
            seen.entry(partition).or_default().extend(records);
        }
    }
    seen
}

/// The values of all that was seen, sorted.
pub(crate) fn values(seen: &Seen) -> Vec<String> {
    let all = seen.values().flatten();
    let mut values: Vec<_> = all.map(|one| String::from_utf8_lossy(&one.record.value).into_owned()).collect();
    values.sort();
    values
}

/// Commits all that was seen, and waits.
pub(crate) async fn commit(consumer: &mut dyn Consumer, seen: &Seen) {
    for (partition, records) in seen {
        let Some(last) = records.last() else { continue };
        let committed = consumer.commit(partition, last.offset + 1);
        patient("a commit", committed).await.expect("the commit is durable");
    }
}

/// Closes a bus, and lets go of it.
pub(crate) async fn close(bus: Arc<dyn Bus>) {
    bus.close(PATIENCE).await;
}

/// `count` values, sorted as [`values`] sorts.
pub(crate) fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("value-{number:05}")).collect()
}
