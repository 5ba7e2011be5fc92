//! The writing side: durability, order, limits, closing.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{PATIENCE, Rig, close, join, next, numbered, patient, put, read, record, values};
use crate::{AppendError, BusError, Event, Record};

/// Whatever was said to be durable is there after a restart: key, headers (repeated names too), value, position.
pub async fn a_delivered_record_survives_a_restart_with_all_its_parts(rig: &dyn Rig) {
    let topic = rig.topic("parts");
    let mut parts = record("key", Bytes::from(vec![0, 255, 10, 13, 0]));
    parts.headers.push(parts.headers[0].clone());
    parts.headers[1].value = Bytes::from_static(&[0, 159, 146, 150]);
    let sent = [parts, Record { key: Bytes::from_static(b"key"), headers: Vec::new(), value: Bytes::new() }];
    let bus = rig.open().await;
    let mut positions = Vec::new();
    for record in sent.clone() {
        let delivery = bus.append(&topic, record).await.expect("queued");
        positions.push(patient("a delivery", delivery).await.expect("durable"));
    }
    close(bus).await;
    let bus = rig.open().await;
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &topic).await;
    let seen = read(consumer.as_mut(), 2).await;
    let (partition, got) = seen.first_key_value().expect("one partition");
    assert_eq!(got.iter().map(|one| one.record.clone()).collect::<Vec<_>>(), sent);
    assert!(positions.iter().all(|position| position.partition == partition.partition));
    assert!(positions.iter().zip(got).all(|(position, one)| position.offset == one.offset));
    drop(consumer);
    close(bus).await;
}

/// A key has one partition, its records keep the order of their appends, and keys spread.
pub async fn records_of_a_key_stay_in_one_partition_and_in_order(rig: &dyn Rig) {
    let topic = rig.topic("order");
    let bus = rig.open().await;
    let mut deliveries = Vec::new();
    for number in 0..400 {
        let key = format!("key-{}", number % 40);
        let record = record(&key, format!("{key} {number:05}"));
        deliveries.push((key, bus.append(&topic, record).await.expect("queued")));
    }
    let mut partitions = BTreeMap::<String, BTreeSet<u32>>::new();
    for (key, delivery) in deliveries {
        let position = patient("a delivery", delivery).await.expect("durable");
        partitions.entry(key).or_default().insert(position.partition);
    }
    assert!(partitions.values().all(|partitions| partitions.len() == 1), "a key has one partition: {partitions:?}");
    let used: BTreeSet<_> = partitions.values().flatten().collect();
    assert!(used.len() > 1, "keys spread over partitions");
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &topic).await;
    let seen = read(consumer.as_mut(), 400).await;
    let mut last = BTreeMap::new();
    for records in seen.values() {
        assert!(records.is_sorted_by(|one, other| one.offset < other.offset), "offsets ascend");
        for one in records {
            let value = String::from_utf8_lossy(&one.record.value).into_owned();
            let before = last.insert(one.record.key.clone(), value.clone());
            assert!(before.is_none_or(|before| before < value), "records of a key keep their order");
        }
    }
    drop(consumer);
    close(bus).await;
}

/// More records than any queue holds, from many tasks, none awaited: appends wait, and all are delivered.
pub async fn many_records_at_once_are_all_delivered(rig: &dyn Rig) {
    let topic = rig.topic("many");
    let bus = rig.open().await;
    let size = rig.record_bytes_max() / 2;
    let producers = (0..4).map(|producer| {
        let (bus, topic) = (bus.clone(), topic.clone());
        async move {
            let mut deliveries = Vec::new();
            for number in 0..25 {
                let record = record(&format!("{producer}-{number}"), vec![b'x'; size]);
                deliveries.push(bus.append(&topic, record).await.expect("queued"));
            }
            for delivery in deliveries {
                patient("a delivery", delivery).await.expect("durable");
            }
        }
    });
    futures_util::future::join_all(producers).await;
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &topic).await;
    let seen = read(consumer.as_mut(), 100).await;
    let keys: BTreeSet<_> = seen.values().flatten().map(|one| one.record.key.clone()).collect();
    assert_eq!(keys.len(), 100);
    drop(consumer);
    close(bus).await;
}

/// The limit is told, and neighbours pass.
pub async fn a_record_too_large_is_refused_alone(rig: &dyn Rig) {
    let topic = rig.topic("large");
    let bus = rig.open().await;
    let limit = rig.record_bytes_max();
    let largest = record("key", vec![b'x'; limit - 100]);
    let delivery = bus.append(&topic, largest).await.expect("queued");
    patient("a delivery", delivery).await.expect("the largest record passes");
    let refused = match bus.append(&topic, record("key", vec![b'x'; 2 * limit])).await {
        Ok(delivery) => patient("a refusal", delivery).await.map(drop),
        Err(error) => Err(error),
    };
    match refused {
        Err(AppendError::TooLarge { limit: told, .. }) => assert!(told >= limit as u64 - 100, "the limit is told"),
        other => panic!("expected TooLarge, got {other:?}"),
    }
    put(bus.as_ref(), &topic, "key", "after").await;
    close(bus).await;
}

/// A pattern picks up topics that are made after the subscription, and no others.
pub async fn a_topic_that_appears_later_is_read_by_its_pattern(rig: &dyn Rig) {
    let bus = rig.open().await;
    let (early, late, other) = (rig.topic("events.a"), rig.topic("events.b"), rig.topic("audit.a"));
    put(bus.as_ref(), &early, "key", "early").await;
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &rig.topic("events.*")).await;
    assert_eq!(values(&read(consumer.as_mut(), 1).await), ["early"]);
    put(bus.as_ref(), &other, "key", "other").await;
    put(bus.as_ref(), &late, "key", "late").await;
    assert_eq!(values(&read(consumer.as_mut(), 1).await), ["late"]);
    drop(consumer);
    close(bus).await;
}

/// What was queued before `close` is answered, and what was answered with `Ok` is there.
pub async fn close_answers_everything(rig: &dyn Rig) {
    let topic = rig.topic("closing");
    let bus = rig.open().await;
    let mut deliveries = Vec::new();
    for value in numbered(0..200) {
        deliveries.push((value.clone(), bus.append(&topic, record(&value, value.clone())).await.expect("queued")));
    }
    bus.close(PATIENCE).await;
    let mut durable = Vec::new();
    for (value, delivery) in deliveries {
        if patient("an answer", delivery).await.is_ok() {
            durable.push(value);
        }
    }
    close(bus).await;
    let bus = rig.open().await;
    assert!(!durable.is_empty(), "close drains");
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &topic).await;
    let seen = values(&read(consumer.as_mut(), durable.len()).await);
    assert!(durable.iter().all(|value| seen.contains(value)));
    drop(consumer);
    close(bus).await;
}

/// After `close` everybody hears of it.
pub async fn a_closed_bus_refuses_appends_and_ends_consumers(rig: &dyn Rig) {
    let topic = rig.topic("closed");
    let bus = rig.open().await;
    put(bus.as_ref(), &topic, "key", "value").await;
    let mut consumer = join(bus.as_ref(), &rig.group("group"), &topic).await;
    while !matches!(next(consumer.as_mut()).await, Event::Records { .. }) {}
    let closing = bus.close(PATIENCE);
    let ended = async {
        loop {
            match consumer.next().await {
                Err(BusError::Closed) => break,
                Err(error) => panic!("expected Closed, got {error}"),
                Ok(_) => {}
            }
        }
    };
    patient("both ends", async { tokio::join!(closing, ended) }).await;
    let refused = bus.append(&topic, record("key", "late")).await.map(drop);
    assert_eq!(refused, Err(AppendError::Closed));
}
