//! What the rig itself does at a broker: topics, a first record, and reading back what is there, independently of the
//! code under test.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::blocking::block_on;

/// Of one question to a broker that is up.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Of reading a topic from its beginning to its end.
const READ_WITHIN: Duration = Duration::from_secs(120);
/// Of a question to a broker that may be starting.
const READY_TRY: Duration = Duration::from_secs(5);
pub(super) const READY_TOPIC: &str = "rig-ready";
const POLL: Duration = Duration::from_millis(100);

/// A record as a broker holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRecord {
    /// Where it is.
    pub partition: i32,
    /// Its place in its partition.
    pub offset: i64,
    /// Empty when it has none.
    pub key: Vec<u8>,
    /// In their order; a header without a value has an empty one.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Empty when it has none.
    pub value: Vec<u8>,
}

impl ReadRecord {
    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_slice())
    }

    fn of(message: &BorrowedMessage<'_>) -> ReadRecord {
        let headers = message.headers().map(|headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect()
        });
        ReadRecord {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().unwrap_or_default().to_vec(),
            headers: headers.unwrap_or_default(),
            value: message.payload().unwrap_or_default().to_vec(),
        }
    }
}

/// A client's configuration, to which a test may add.
pub(super) fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    // A broker that was just killed is looked for again at once.
    config.set("reconnect.backoff.max.ms", "500");
    config
}

/// Creates a topic and waits until it has leaders.
pub(super) fn create_topic(
    bootstrap: &str,
    name: &str,
    partitions: i32,
    replication: i32,
    settings: &[(&str, &str)],
) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create()?;
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replication));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN)).request_timeout(Some(ANSWER_WITHIN));
    let answers = block_on(async { Ok(admin.create_topics([&topic], &options).await?) })?;
    for answer in answers {
        answer.map_err(|(name, code)| anyhow::anyhow!("topic {name} was not created: {code}"))?;
    }
    let deadline = Instant::now() + ANSWER_WITHIN;
    loop {
        match has_leaders(admin.inner(), name, partitions) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

fn has_leaders(client: &rdkafka::client::Client, name: &str, partitions: i32) -> Result<()> {
    let metadata = client.fetch_metadata(Some(name), READY_TRY)?;
    let topic = metadata.topics().first().context("no metadata")?;
    let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0).count();
    ensure!(i32::try_from(led)? == partitions, "{led} of {partitions} partitions of {name} have a leader");
    Ok(())
}

/// Gives a topic these settings instead of those that it had.
pub(super) fn alter_topic(bootstrap: &str, name: &str, settings: &[(&str, &str)]) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create()?;
    let topic = AlterConfig::new(ResourceSpecifier::Topic(name));
    let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
    let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
    let answers = block_on(async { Ok(admin.alter_configs([&topic], &options).await?) })?;
    for answer in answers {
        answer.map_err(|(_, code)| anyhow::anyhow!("topic {name} was not altered: {code}"))?;
    }
    Ok(())
}

/// Deletes a topic and waits until it is gone from the metadata.
pub(super) fn delete_topic(bootstrap: &str, name: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create()?;
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN)).request_timeout(Some(ANSWER_WITHIN));
    let answers = block_on(async { Ok(admin.delete_topics(&[name], &options).await?) })?;
    for answer in answers {
        answer.map_err(|(name, code)| anyhow::anyhow!("topic {name} was not deleted: {code}"))?;
    }
    let deadline = Instant::now() + ANSWER_WITHIN;
    loop {
        let metadata = admin.inner().fetch_metadata(None, ANSWER_WITHIN)?;
        if !metadata.topics().iter().any(|topic| topic.name() == name) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "topic {name} is still there {ANSWER_WITHIN:?} after it was deleted");
        std::thread::sleep(POLL);
    }
}

/// Who has a partition, by Kafka's numbers of the nodes.
pub(super) struct Partition {
    /// -1 when nobody leads it.
    pub(super) leader: i32,
    pub(super) in_sync: Vec<i32>,
}

/// Who has a partition now.
pub(super) fn partition(bootstrap: &str, topic: &str, partition: i32) -> Result<Partition> {
    let consumer: BaseConsumer = config(bootstrap).create()?;
    let metadata = consumer.fetch_metadata(Some(topic), READY_TRY)?;
    let topic = metadata.topics().first().context("no metadata")?;
    let partition = topic.partitions().iter().find(|each| each.id() == partition).context("no such partition")?;
    Ok(Partition { leader: partition.leader(), in_sync: partition.isr().to_vec() })
}

/// One real record, acknowledged.
pub(super) fn ready(bootstrap: &str, replication: i32) -> Result<()> {
    let mut config = config(bootstrap);
    config.set("message.timeout.ms", "4000").set("acks", "all").set("socket.timeout.ms", "4000");
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let topic = NewTopic::new(READY_TOPIC, 1, TopicReplication::Fixed(replication));
    let options = AdminOptions::new().operation_timeout(Some(READY_TRY)).request_timeout(Some(READY_TRY));
    for answer in block_on(async { Ok(admin.create_topics([&topic], &options).await?) })? {
        match answer {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => bail!("topic {name}: {code}"),
        }
    }
    let before = end_of(&config, READY_TOPIC)?;
    let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
    producer
        .send(BaseRecord::<(), [u8]>::to(READY_TOPIC).payload(b"ready"))
        .map_err(|(error, _)| anyhow::Error::from(error))?;
    producer.flush(READY_TRY)?;
    ensure!(end_of(&config, READY_TOPIC)? > before, "the first record was not kept");
    Ok(())
}

fn end_of(config: &ClientConfig, topic: &str) -> Result<i64> {
    let consumer: BaseConsumer = config.create()?;
    Ok(consumer.fetch_watermarks(topic, 0, READY_TRY)?.1)
}

/// All records of a topic that are there now, by partition and offset.
pub(super) fn read_all(bootstrap: &str, topic: &str) -> Result<Vec<ReadRecord>> {
    let mut config = config(bootstrap);
    // The group is never joined, it only has to have a name.
    config.set("group.id", "rig-reader").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
    config.set("isolation.level", "read_uncommitted").set("check.crcs", "true");
    let consumer: BaseConsumer = config.create()?;
    let mut unread: BTreeSet<i32> = partitions(&consumer, topic)?.into_iter().collect();
    let mut assignment = TopicPartitionList::new();
    for &partition in &unread {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let deadline = Instant::now() + READ_WITHIN;
    let mut records = Vec::new();
    while !unread.is_empty() {
        ensure!(Instant::now() < deadline, "partitions {unread:?} of {topic} not read within {READ_WITHIN:?}");
        match consumer.poll(POLL) {
            Some(Ok(message)) => records.push(ReadRecord::of(&message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unread.remove(&partition);
            }
            // What it tells of brokers that come and go; the deadline decides.
            Some(Err(_)) | None => {}
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

/// What a group has committed, for the partitions where it has.
pub(super) fn committed(bootstrap: &str, group: &str, topic: &str) -> Result<Vec<(i32, i64)>> {
    let consumer: BaseConsumer = config(bootstrap).set("group.id", group).create()?;
    let mut wanted = TopicPartitionList::new();
    for partition in partitions(&consumer, topic)? {
        wanted.add_partition(topic, partition);
    }
    let deadline = Instant::now() + ANSWER_WITHIN;
    loop {
        // The first group of a broker has it make the topic that offsets are kept in; until then nobody coordinates.
        match committed_now(&consumer, &wanted) {
            Ok(committed) => return Ok(committed),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context("the group's coordinator did not answer"));
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// The offset that the next record of each partition gets.
pub(super) fn ends(bootstrap: &str, topic: &str) -> Result<Vec<(i32, i64)>> {
    let consumer: BaseConsumer = config(bootstrap).create()?;
    let end = |partition| Ok((partition, consumer.fetch_watermarks(topic, partition, ANSWER_WITHIN)?.1));
    partitions(&consumer, topic)?.into_iter().map(end).collect()
}

fn committed_now(consumer: &BaseConsumer, wanted: &TopicPartitionList) -> Result<Vec<(i32, i64)>> {
    let mut committed = Vec::new();
    for element in consumer.committed_offsets(wanted.clone(), ANSWER_WITHIN)?.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            committed.push((element.partition(), offset));
        }
    }
    committed.sort_unstable();
    Ok(committed)
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_WITHIN)?;
    let metadata = metadata.topics().first().context("no metadata")?;
    ensure!(metadata.error().is_none(), "topic {topic}: {:?}", metadata.error());
    Ok(metadata.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect())
}
