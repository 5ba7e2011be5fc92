//! The writing side, and what brokers do to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use logmesh_bus::kafka::KafkaOptions;
use logmesh_bus::{AppendError, Bus, Subscription};
use logmesh_rig::{Kafka, unique};
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::{PATIENCE, admin, aside, condition, open, options, patient, put, record, text, within};

/// SIGKILL and a start under load: every delivery that said `Ok` is read back where it said, and nothing is there twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_and_started_again_under_load_loses_nothing() {
    let kafka = aside(|| Arc::new(Kafka::start(&[]).expect("Kafka starts"))).await;
    let topic = unique("load");
    aside({
        let (kafka, topic) = (kafka.clone(), topic.clone());
        move || kafka.create_topic(&topic, 3, &[]).expect("made")
    })
    .await;
    let bus = Arc::new(open(KafkaOptions { message_timeout: 2 * PATIENCE, ..options(kafka.bootstrap()) }));
    let written = Arc::new(AtomicUsize::new(0));
    let writers = (0..4).map(|writer| {
        let (bus, topic, written) = (bus.clone(), topic.clone(), written.clone());
        tokio::spawn(async move {
            let mut positions = Vec::new();
            for number in 0..500 {
                let value = format!("{writer}-{number:05}");
                let position = put(bus.as_ref(), &topic, &value).await.expect("durable, late as it may be");
                written.fetch_add(1, Ordering::Relaxed);
                positions.push((value, position));
            }
            positions
        })
    });
    let writers: Vec<_> = writers.collect();
    let killer = {
        let (kafka, written) = (kafka.clone(), written.clone());
        move || {
            for share in [300, 1000] {
                while written.load(Ordering::Relaxed) < share {
                    std::thread::sleep(Duration::from_millis(1));
                }
                kafka.kill().expect("killed");
                kafka.start_again().expect("started again");
            }
        }
    };
    let mut confirmed = HashMap::new();
    within(3 * PATIENCE, "all deliveries", async {
        aside(killer).await;
        for writer in writers {
            confirmed.extend(writer.await.expect("no panic"));
        }
    })
    .await;
    let all = aside(move || kafka.read_all(&topic).expect("read")).await;
    assert_eq!(all.len(), 2000, "each once");
    for one in all {
        let value = String::from_utf8(one.value).expect("text");
        let position = confirmed.remove(&value).unwrap_or_else(|| panic!("{value} is there twice"));
        assert_eq!((position.partition, position.offset), (one.partition as u32, one.offset as u64), "{value}");
    }
    assert!(confirmed.is_empty(), "lost: {confirmed:?}");
    bus.close(PATIENCE).await;
}

/// A broker that stands still: appends wait for room, then everything says `Unavailable`, and passes again afterwards.
#[tokio::test]
async fn a_frozen_broker_makes_appends_wait_and_then_fail_for_now() {
    let kafka = aside(|| Arc::new(Kafka::start(&[]).expect("Kafka starts"))).await;
    let topic = unique("frozen");
    aside({
        let (kafka, topic) = (kafka.clone(), topic.clone());
        move || kafka.create_topic(&topic, 1, &[]).expect("made")
    })
    .await;
    let timeout = Duration::from_secs(3);
    let bus = open(KafkaOptions { message_timeout: timeout, queue_bytes: 64 << 10, ..options(kafka.bootstrap()) });
    patient("a delivery", put(&bus, &topic, "before")).await.expect("durable");
    kafka.pause().expect("paused");
    let large = || record("key", vec![b'x'; 40 << 10]);
    let first = bus.append(&topic, large()).await.expect("there is room for one");
    let second = bus.append(&topic, large());
    tokio::pin!(second);
    let waits = tokio::time::timeout(Duration::from_millis(300), &mut second).await;
    assert!(waits.is_err(), "no room: the append waits");
    let told = within(5 * timeout, "an answer", first).await;
    assert!(matches!(told, Err(AppendError::Unavailable { .. })), "{told:?}");
    let told = match within(5 * timeout, "the waiting append", second).await {
        Ok(delivery) => within(5 * timeout, "an answer", delivery).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(told, Err(AppendError::Unavailable { .. })), "{told:?}");
    kafka.resume().expect("resumed");
    patient("a delivery", async { while put(&bus, &topic, "after").await.is_err() {} }).await;
    condition(&bus, "all to be well", |words| words.is_none()).await;
    bus.close(PATIENCE).await;
}

/// Only its own lane is held; it is told, and is over by itself once the topic is there.
#[tokio::test]
async fn a_missing_topic_holds_its_lane_alone_until_it_is_made() {
    let kafka = aside(Kafka::shared).await;
    let (missing, other) = (unique("missing"), unique("other"));
    aside({
        let other = other.clone();
        move || kafka.create_topic(&other, 1, &[]).expect("made")
    })
    .await;
    // It is told before anyone writes, since it is known from the start.
    let bus = open(KafkaOptions { topics: vec![missing.clone()], ..options(kafka.bootstrap()) });
    let told = condition(&bus, "the missing topic to be told", |words| words.is_some()).await.expect("words");
    assert!(told.contains(&missing) && told.contains("does not exist"), "{told}");
    let refused = patient("a refusal", put(&bus, &missing, "value")).await;
    assert!(matches!(refused, Err(AppendError::UnknownTopic { .. })), "{refused:?}");
    patient("a delivery", put(&bus, &other, "value")).await.expect("its neighbour flows");
    aside({
        let missing = missing.clone();
        move || kafka.create_topic(&missing, 1, &[]).expect("made")
    })
    .await;
    condition(&bus, "all to be well", |words| words.is_none()).await;
    patient("a delivery", put(&bus, &missing, "value")).await.expect("it is there now");
    bus.close(PATIENCE).await;
}

#[tokio::test]
async fn a_topic_that_is_deleted_later_holds_its_lane_alone() {
    let kafka = aside(Kafka::shared).await;
    let (deleted, other) = (unique("deleted"), unique("other"));
    aside({
        let topics = [deleted.clone(), other.clone()];
        move || topics.iter().for_each(|topic| kafka.create_topic(topic, 1, &[]).expect("made"))
    })
    .await;
    let bus = open(KafkaOptions { message_timeout: Duration::from_secs(10), ..options(kafka.bootstrap()) });
    patient("a delivery", put(&bus, &deleted, "value")).await.expect("durable");
    aside({
        let deleted = deleted.clone();
        move || kafka.delete_topic(&deleted).expect("deleted")
    })
    .await;
    let refused = patient("a refusal", async {
        loop {
            match put(&bus, &deleted, "value").await {
                Err(error @ AppendError::UnknownTopic { .. }) => break error,
                Ok(_) | Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    assert!(refused.to_string().contains(&deleted), "{refused}");
    patient("a delivery", put(&bus, &other, "value")).await.expect("its neighbour flows");
    bus.close(PATIENCE).await;
}

/// Below what a batch may have, the lane is held, in plain words; raised, it flows.
#[tokio::test]
async fn a_topic_too_small_for_a_batch_is_held_until_its_limit_is_raised() {
    let kafka = aside(Kafka::shared).await;
    let topic = unique("small");
    aside({
        let topic = topic.clone();
        move || kafka.create_topic(&topic, 1, &[("max.message.bytes", "100000")]).expect("made")
    })
    .await;
    let bus = open(options(kafka.bootstrap()));
    let refused = patient("a refusal", put(&bus, &topic, "value")).await.expect_err("refused").to_string();
    assert!(refused.contains("max.message.bytes is 100000") && refused.contains("raise it"), "{refused}");
    let config = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", "1048588");
    admin(&kafka.bootstrap()).alter_configs([&config], &AdminOptions::new()).await.expect("altered");
    condition(&bus, "all to be well", |words| words.is_none()).await;
    patient("a delivery", put(&bus, &topic, "value")).await.expect("durable");
    bus.close(PATIENCE).await;
}

/// The limit is the topic's own, learnt from it, and told before anything is sent.
#[tokio::test]
async fn a_record_is_measured_by_its_own_topic() {
    let kafka = aside(Kafka::shared).await;
    let topic = unique("limit");
    aside({
        let topic = topic.clone();
        move || kafka.create_topic(&topic, 1, &[("max.message.bytes", "700000")]).expect("made")
    })
    .await;
    let bus = open(options(kafka.bootstrap()));
    let fits = bus.append(&topic, record("key", vec![b'x'; 699_000])).await.expect("queued");
    patient("a delivery", fits).await.expect("durable");
    match patient("a refusal", bus.append(&topic, record("key", vec![b'x'; 700_000]))).await {
        Err(AppendError::TooLarge { size, limit }) => {
            assert_eq!(size, 700_003);
            assert!((699_000..700_000).contains(&limit), "{limit}");
        }
        other => panic!("expected TooLarge, got {other:?}"),
    }
    bus.close(PATIENCE).await;
}

/// Idempotence lost is fatal for a producer of librdkafka. The bus replaces it; its users notice nothing but the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_failed_for_good_is_replaced_and_what_was_open_is_sent_again() {
    let mock = MockCluster::new(1).expect("a mock cluster");
    mock.create_topic("logs.a", 1, 1).expect("made");
    let bus = open(options(mock.bootstrap_servers()));
    patient("a delivery", put(&bus, "logs.a", "before")).await.expect("durable");
    mock.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let mut deliveries = Vec::new();
    for number in 0..50 {
        let value = format!("value-{number:03}");
        deliveries.push(bus.append("logs.a", record("key", value)).await.expect("queued"));
    }
    let mut offsets = Vec::new();
    for delivery in deliveries {
        offsets.push(patient("a delivery", delivery).await.expect("durable").offset);
    }
    assert!(offsets.is_sorted_by(|one, other| one < other), "in order: {offsets:?}");
    let partition = logmesh_bus::TopicPartition::new("logs.a", 0);
    let page = patient("a page", bus.read(&partition, 0, 1 << 20)).await.expect("read");
    for (number, offset) in offsets.iter().enumerate() {
        let there = page.iter().find(|one| one.offset == *offset).expect("a record where its delivery said");
        assert_eq!(text(&there.record.value), format!("value-{number:03}"));
    }
    condition(&bus, "all to be well", |words| words.is_none()).await;
    bus.close(PATIENCE).await;
}

/// Without any broker an append waits as long as a message may, no longer, and says why; and the end is not waited for.
#[tokio::test]
async fn without_brokers_an_append_fails_for_now_with_the_reason() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let bus = open(KafkaOptions { message_timeout: Duration::from_secs(1), ..options(format!("127.0.0.1:{port}")) });
    let refused = within(Duration::from_secs(60), "a refusal", put(&bus, "logs.a", "value")).await;
    let Err(AppendError::Unavailable { reason }) = refused else { panic!("expected Unavailable, got {refused:?}") };
    assert!(reason.contains("can be reached") && reason.contains(&port.to_string()), "{reason}");
    let consumer = bus.subscribe(Subscription::new("group", ["logs.a"])).await.expect("joined, or trying to");
    within(Duration::from_secs(10), "the end", bus.close(Duration::from_secs(2))).await;
    drop(consumer);
}
