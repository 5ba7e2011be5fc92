//! Limits of Kafka: librdkafka with the same records, and nothing of ours around it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use logmesh_bus::Record;
use logmesh_rig::Kafka;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

/// Longest wait for the brokers.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one look at the client takes at most.
const POLL: Duration = Duration::from_millis(50);

/// Writes records, durably, with the guarantees that the bus asks for.
pub(crate) fn produce<'a>(kafka: &Kafka, topic: &str, records: impl IntoIterator<Item = &'a Record>) -> Result<u64> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "2")
        .set("queue.buffering.max.kbytes", "32768")
        .create()?;
    let before = end(kafka, topic)?;
    let mut sent = 0;
    for record in records {
        let headers =
            record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |all, header| {
                all.insert(Header { key: &header.name, value: Some(header.value.as_ref()) })
            });
        let mut outgoing =
            BaseRecord::to(topic).key(record.key.as_ref()).payload(record.value.as_ref()).headers(headers);
        while let Err((error, refused)) = producer.send::<[u8], [u8]>(outgoing) {
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => producer.poll(POLL),
                _ => return Err(error.into()),
            };
            outgoing = refused;
        }
        sent += 1;
        producer.poll(Duration::ZERO);
    }
    producer.flush(PATIENCE)?;
    let written = end(kafka, topic)? - before;
    ensure!(written == sent, "{written} of {sent} records were written");
    Ok(sent)
}

/// Reads a topic from its beginning to its end. Answers how many records it holds.
pub(crate) fn consume(kafka: &Kafka, topic: &str) -> Result<u64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        // Never joined: it only has to have a name.
        .set("group.id", "bench-bare")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut places = TopicPartitionList::new();
    for (partition, _) in kafka.ends(topic)? {
        places.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&places)?;
    let (mut unread, mut records, begun) = (places.count(), 0, Instant::now());
    while unread > 0 {
        ensure!(begun.elapsed() < PATIENCE, "{topic} has no end");
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                std::hint::black_box(message.payload());
                records += 1;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => unread -= 1,
            Some(Err(error)) => bail!("{topic} cannot be read: {error}"),
            None => {}
        }
    }
    Ok(records)
}

/// Records that a topic has had, all partitions together.
pub(crate) fn end(kafka: &Kafka, topic: &str) -> Result<u64> {
    Ok(u64::try_from(kafka.ends(topic)?.iter().map(|(_, end)| end).sum::<i64>())?)
}
