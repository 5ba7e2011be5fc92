//! The rig's Kafka.

use std::time::Duration;

use anyhow::Result;
use logmesh_rig::{Kafka, unique};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

fn produce(bootstrap: &str, topic: &str, values: &[&str]) -> Result<()> {
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("enable.idempotence", "true").create()?;
    for value in values {
        let headers = OwnedHeaders::new().insert(Header { key: "from", value: Some("a test") });
        let record = BaseRecord::to(topic).key("one key").payload(*value).headers(headers);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    Ok(producer.flush(Duration::from_secs(60))?)
}

#[test]
fn what_was_produced_is_read_back_with_key_and_headers_and_in_order() -> Result<()> {
    let (kafka, topic) = (Kafka::shared(), unique("read"));
    kafka.create_topic(&topic, 3, &[])?;
    produce(&kafka.bootstrap(), &topic, &["first", "second"])?;
    let records = kafka.read_all(&topic)?;
    let values: Vec<&[u8]> = records.iter().map(|record| record.value.as_slice()).collect();
    assert_eq!(values, [b"first".as_slice(), b"second"]);
    assert_eq!(records[0].key, b"one key");
    assert_eq!(records[0].header("from"), Some(b"a test".as_slice()));
    assert_eq!((records[0].offset, records[1].offset), (0, 1));
    kafka.delete_topic(&topic)?;
    kafka.read_all(&topic).expect_err("a deleted topic was read");
    Ok(())
}

#[test]
fn committed_offsets_are_told_where_there_are_any() -> Result<()> {
    let (kafka, topic, group) = (Kafka::shared(), unique("committed"), unique("group"));
    kafka.create_topic(&topic, 2, &[])?;
    assert_eq!(kafka.committed(&group, &topic)?, []);
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).set("group.id", &group).create()?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 1, Offset::Offset(7))?;
    consumer.commit(&offsets, CommitMode::Sync)?;
    assert_eq!(kafka.committed(&group, &topic)?, [(1, 7)]);
    Ok(())
}

#[test]
fn a_killed_broker_keeps_what_it_acknowledged_and_comes_back_on_its_port() -> Result<()> {
    let kafka = Kafka::start(&[("message.max.bytes", "2000")])?;
    let (bootstrap, topic) = (kafka.bootstrap(), unique("kept"));
    kafka.create_topic(&topic, 1, &[])?;
    produce(&bootstrap, &topic, &["before"])?;
    kafka.kill()?;
    kafka.kill().expect_err("killed twice");
    kafka.start_again()?;
    assert_eq!(kafka.bootstrap(), bootstrap);
    assert_eq!(kafka.read_all(&topic)?.len(), 1);
    kafka.stop()?;
    kafka.start_again()?;
    assert_eq!(kafka.read_all(&topic)?.len(), 1);
    Ok(())
}

#[test]
fn a_broker_that_cannot_start_is_an_error_with_its_last_words() {
    let error = Kafka::start(&[("log.retention.ms", "a week")]).expect_err("started with a bad property");
    let error = format!("{error:?}");
    assert!(error.contains("log.retention.ms"), "{error}");
}
