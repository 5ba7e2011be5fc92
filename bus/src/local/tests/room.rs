//! Retention, full disks, limits.

use std::time::Duration;

use super::Local;
use crate::contract::{close, commit, join, next, numbered, patient, put, read, record, values};
use crate::local::{LocalBus, LocalOptions};
use crate::{AppendError, Bus, BusError, Condition, Event};

/// Appends records of 8 KiB until the journal `name` has so many segments.
async fn fill(bus: &LocalBus, topic: &str, segments: usize) -> usize {
    let store = bus.shared.store_of(topic);
    let mut count = 0;
    while bus.shared.stores[store].journal.log().segments().len() < segments {
        let record = record(&format!("key-{count}"), vec![b'x'; 8 << 10]);
        patient("a delivery", bus.append(topic, record).await.expect("queued")).await.expect("durable");
        count += 1;
    }
    count
}

fn segments(bus: &LocalBus, store: usize) -> usize {
    bus.shared.stores[store].journal.log().segments().len()
}

#[tokio::test]
async fn a_segment_goes_only_when_every_group_is_beyond_it() {
    let local = Local::new();
    let groups = ["one", "other"].map(|group| (group.to_owned(), vec!["logs.*".to_owned()])).to_vec();
    let bus = LocalBus::open(LocalOptions { groups, ..local.options() }).expect("opens");
    let count = fill(&bus, "logs.a", 4).await;
    let mut one = join(&bus, "one", "logs.*").await;
    let seen = read(one.as_mut(), count).await;
    commit(one.as_mut(), &seen).await;
    assert_eq!(segments(&bus, 0), 4, "the other group has not even started");
    let mut other = join(&bus, "other", "logs.*").await;
    let seen = read(other.as_mut(), count).await;
    commit(other.as_mut(), &seen).await;
    drop((one, other));
    // The keeper removes after it has answered; it has ended once the bus is closed.
    bus.close(Duration::from_secs(30)).await;
    assert_eq!(segments(&bus, 0), 1, "the last one stays");
}

#[tokio::test]
async fn offsets_go_on_after_everything_was_removed() {
    let local = Local::new();
    let bus = local.bus();
    let count = fill(&bus, "logs", 3).await;
    let mut consumer = join(&bus, "group", "logs").await;
    let seen = read(consumer.as_mut(), count).await;
    commit(consumer.as_mut(), &seen).await;
    drop(consumer);
    bus.close(Duration::from_secs(30)).await;
    drop(bus);
    let bus = local.bus();
    for (partition, records) in &seen {
        let last = records.last().expect("records");
        let key = String::from_utf8_lossy(&last.record.key).into_owned();
        let position = put(&bus, "logs", &key, "after").await;
        assert_eq!((position.partition, position.offset), (partition.partition, last.offset + 1));
    }
    let mut consumer = join(&bus, "group", "logs").await;
    assert_eq!(read(consumer.as_mut(), seen.len()).await.len(), seen.len());
    let mut newcomer = join(&bus, "newcomer", "logs").await;
    let mut events = Vec::new();
    while events.len() < seen.len() {
        match next(newcomer.as_mut()).await {
            Event::Records { records, .. } => events.extend(records),
            Event::Assigned(_) => {}
            event @ (Event::Gap { .. } | Event::Revoking { .. } | Event::Lost(_)) => {
                panic!("a newcomer begins with the earliest kept, and misses nothing: {event:?}")
            }
        }
    }
}

#[tokio::test]
async fn looking_holds_back_no_removal_and_begins_with_what_is_kept() {
    let local = Local::new();
    let bus = local.bus();
    let count = fill(&bus, "logs", 4).await;
    let before = bus.ranges(&["logs".to_owned()]).await.expect("known");
    assert_eq!(before.iter().map(|range| range.end - range.earliest).sum::<u64>(), count as u64);
    let mut consumer = join(&bus, "group", "logs").await;
    let seen = read(consumer.as_mut(), count).await;
    commit(consumer.as_mut(), &seen).await;
    drop(consumer);
    bus.close(Duration::from_secs(30)).await;
    assert_eq!(segments(&bus, 0), 1, "what was only looked at goes");
    drop(bus);
    let bus = local.bus();
    let after = bus.ranges(&["logs".to_owned()]).await.expect("known");
    assert!(after.iter().any(|range| range.earliest > 0), "{after:?}");
    for range in after {
        let page = bus.read(&range.partition, 0, 8 << 20).await.expect("reads");
        assert_eq!(page.len() as u64, range.end - range.earliest, "{range:?}");
        assert_eq!(page.first().map_or(range.end, |first| first.offset), range.earliest);
    }
}

#[tokio::test]
async fn a_topic_without_readers_is_kept_and_set_apart_holds_back_nobody() {
    let local = Local::new();
    let options = LocalOptions { set_apart: vec!["dead.*".to_owned()], ..local.options() };
    let bus = LocalBus::open(options.clone()).expect("opens");
    put(&bus, "dead.a", "key", "letter").await;
    let count = fill(&bus, "logs", 3).await;
    let letters = 1 + fill(&bus, "dead.a", 2).await;
    let mut consumer = join(&bus, "group", "logs").await;
    let seen = read(consumer.as_mut(), count).await;
    commit(consumer.as_mut(), &seen).await;
    drop(consumer);
    bus.close(Duration::from_secs(30)).await;
    assert_eq!((segments(&bus, 0), segments(&bus, 1)), (1, 2));
    drop(bus);
    let bus = LocalBus::open(options).expect("opens");
    let mut consumer = join(&bus, "replay", "dead.*").await;
    assert!(values(&read(consumer.as_mut(), letters).await).contains(&"letter".to_owned()));
}

#[tokio::test]
async fn a_forgotten_group_holds_back_nothing() {
    let local = Local::new();
    let groups = vec![("old".to_owned(), vec!["logs".to_owned()])];
    let bus = LocalBus::open(LocalOptions { groups, ..local.options() }).expect("opens");
    let count = fill(&bus, "logs", 3).await;
    let mut consumer = join(&bus, "group", "logs").await;
    let seen = read(consumer.as_mut(), count).await;
    commit(consumer.as_mut(), &seen).await;
    assert_eq!(segments(&bus, 0), 3);
    assert!(matches!(bus.forget_group("group").await, Err(BusError::Invalid { .. })), "it has a member");
    assert_eq!(bus.forget_group("old").await, Ok(true));
    assert_eq!(bus.forget_group("old").await, Ok(false));
    drop(consumer);
    bus.close(Duration::from_secs(30)).await;
    assert_eq!(segments(&bus, 0), 1);
}

#[tokio::test]
async fn a_full_disk_is_said_refused_and_healed() {
    let local = Local::new();
    let bus = local.bus();
    put(&bus, "logs", "key", "before").await;
    let mut condition = bus.condition();
    bus.set_reserve_bytes(u64::MAX);
    let refused = async {
        match bus.append("logs", record("key", "no room")).await {
            Ok(delivery) => delivery.await.map(drop),
            Err(error) => Err(error),
        }
    };
    let Err(error @ AppendError::Full { .. }) = patient("a refusal", refused).await else { panic!("expected Full") };
    assert!(error.is_retryable());
    assert!(matches!(*condition.borrow_and_update(), Condition::Full { .. }));
    bus.set_reserve_bytes(0);
    let healed = condition.wait_for(|condition| *condition == Condition::Ok);
    patient("the disk's room to be seen", healed).await.expect("lives");
    put(&bus, "logs", "key", "after").await;
    let mut consumer = join(&bus, "group", "logs").await;
    let seen = read(consumer.as_mut(), 2).await;
    assert_eq!(values(&seen), ["after", "before"]);
    let offsets: Vec<_> = seen.values().flatten().map(|one| one.offset).collect();
    assert_eq!(offsets, [0, 1], "what was refused has left no hole");
}

#[tokio::test]
async fn a_backlog_at_its_limit_stops_appends_until_the_group_catches_up() {
    let local = Local::new();
    a_full_backlog_heals(LocalOptions { backlog_bytes_max: 200 << 10, ..local.options() }).await;
}

#[tokio::test]
async fn a_backlog_limit_smaller_than_a_segment_heals_too() {
    let local = Local::new();
    a_full_backlog_heals(LocalOptions {
        backlog_bytes_max: 200 << 10,
        segment_bytes: Some(400 << 10),
        ..local.options()
    })
    .await;
}

async fn a_full_backlog_heals(options: LocalOptions) {
    let bus = LocalBus::open(options).expect("opens");
    let mut count = 0;
    let refused = loop {
        let delivery = match bus.append("logs", record(&format!("key-{count}"), vec![b'x'; 8 << 10])).await {
            Ok(delivery) => delivery.await,
            Err(error) => Err(error),
        };
        match delivery {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::Full { .. }), "{refused}");
    let mut consumer = join(&bus, "group", "logs").await;
    let seen = read(consumer.as_mut(), count).await;
    commit(consumer.as_mut(), &seen).await;
    let mut condition = bus.condition();
    let healed = condition.wait_for(|condition| *condition == Condition::Ok);
    patient("the backlog to shrink", healed).await.expect("lives");
    put(&bus, "logs", "key", "after").await;
}

#[tokio::test]
async fn indexes_of_a_long_backlog_are_not_all_kept() {
    let local = Local::new();
    let bus = local.bus();
    let count = fill(&bus, "logs", 20).await;
    bus.close(Duration::from_secs(30)).await;
    drop(bus);
    let bus = local.bus();
    let mut consumer = join(&bus, "group", "logs").await;
    let seen = read(consumer.as_mut(), count).await;
    for records in seen.values() {
        assert!(records.iter().enumerate().all(|(place, one)| one.offset == place as u64), "offsets are contiguous");
    }
    assert!(bus.shared.stores[0].kept_indexes() <= 8);
}

#[tokio::test]
async fn a_topic_keeps_its_partitions_and_lag_tells_an_age() {
    let local = Local::new();
    let bus = LocalBus::open(LocalOptions { partitions: 3, ..local.options() }).expect("opens");
    for value in numbered(0..40) {
        put(&bus, "logs", &value, &value).await;
    }
    drop(bus);
    let bus = local.bus();
    let mut consumer = join(&bus, "group", "logs").await;
    let Event::Assigned(assigned) = next(consumer.as_mut()).await else { panic!("expected partitions") };
    assert_eq!(assigned.len(), 3);
    let lags = bus.lag("group").await.expect("lag is known");
    let now = crate::local::unix_nano();
    for lag in lags {
        let oldest = lag.oldest_appended_unix_nano.expect("something is uncommitted");
        assert!(oldest <= now && now - oldest < 600_000_000_000, "{oldest} against {now}");
    }
    close(std::sync::Arc::new(bus)).await;
}
