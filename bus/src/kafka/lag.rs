//! How far groups are behind.
//!
//! Asked through one client per group, which carries the group's name and never joins it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{Cluster, POLLS, Watch};
use super::words::{list, offset_of, owned};
use crate::{BusError, PartitionLag, TopicPartition};

/// How long each question may take: whoever asks for lag has other things to do.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) type Reader = BaseConsumer<Watch>;

/// By group, with the number of the way to the brokers that each was made with.
type Clients = HashMap<String, (u64, Arc<Mutex<Reader>>)>;

/// The clients that ask.
pub(super) struct Readers {
    cluster: Arc<Cluster>,
    clients: Mutex<Clients>,
}

impl Readers {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, clients: Mutex::new(HashMap::new()) }
    }

    /// Lag of `group` in every partition that it has commits for or whose topic `subscribed` matches.
    pub(super) async fn lag(
        &self,
        group: &str,
        subscribed: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<PartitionLag>, BusError> {
        let asked = group.to_owned();
        self.ask(group.to_owned(), move |cluster, reader| {
            ask(reader, &subscribed).map_err(|error| refused(cluster, &asked, &error))
        })
        .await
    }

    pub(super) fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.cluster)
    }

    /// A name for questions that concern no group: nobody joins it, and nothing is committed by it.
    pub(super) fn own_group(&self) -> String {
        format!("{}.reader", self.cluster.options.client_id)
    }

    pub(super) fn reader(&self, group: &str) -> Result<Arc<Mutex<Reader>>, BusError> {
        let mut clients = self.clients();
        let number = self.cluster.security().number;
        if let Some((made, reader)) = clients.get(group)
            && *made == number
        {
            return Ok(Arc::clone(reader));
        }
        let mut config = self.cluster.config("lag");
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("fetch.wait.max.ms", "50")
            .set("queued.max.messages.kbytes", "4096");
        let reader = Reader::from_config_and_context(&config, self.cluster.watch("lag")).map_err(|error| {
            BusError::Invalid { reason: format!("a client for the group `{group}` cannot be made: {error}") }
        })?;
        let reader = Arc::new(Mutex::new(reader));
        drop_aside(clients.insert(group.to_owned(), (number, Arc::clone(&reader))));
        Ok(reader)
    }

    /// Lets go of all clients; what that takes is taken by a thread nobody waits for.
    pub(super) fn close(&self) {
        drop_aside(std::mem::take(&mut *self.clients()));
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets go of clients, which may take a while.
fn drop_aside(clients: impl Send + 'static) {
    let _ = std::thread::Builder::new().name("kafka-closing".to_owned()).spawn(move || drop(clients));
}

/// Logs, errors and tokens of a client that is not polled for anything else.
pub(super) fn serve(reader: &Reader, needs_token: bool) {
    let deadline = Instant::now() + ASK_TIMEOUT;
    // The first event is the request for a token, without which nothing is answered.
    while needs_token && reader.context().served() == 0 && Instant::now() < deadline {
        reader.poll(Duration::from_millis(50));
    }
    for _ in 0..POLLS {
        let served = reader.context().served();
        if reader.poll(Duration::ZERO).is_none() && served == reader.context().served() {
            return;
        }
    }
}

fn ask(reader: &Reader, subscribed: &impl Fn(&str) -> bool) -> KafkaResult<Vec<PartitionLag>> {
    let partitions = partitions(reader, &|_| true)?;
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let committed = offsets(&reader.committed_offsets(list(&partitions), ASK_TIMEOUT)?);
    let known = |partition: &TopicPartition| committed.contains_key(partition) || subscribed(&partition.topic);
    let partitions: Vec<_> = partitions.into_iter().filter(known).collect();
    let ends = at(reader, &partitions, Offset::End)?;
    let without: Vec<_> = partitions.iter().filter(|partition| !committed.contains_key(partition)).cloned().collect();
    let begins = at(reader, &without, Offset::Beginning)?;
    let lag = |partition: TopicPartition| {
        let end = *ends.get(&partition)?;
        let committed = *committed.get(&partition).or_else(|| begins.get(&partition))?;
        Some(PartitionLag { partition, end, committed, oldest_appended_unix_nano: None })
    };
    Ok(partitions.into_iter().filter_map(lag).collect())
}

/// Every partition of the topics that `wanted` names, other than Kafka's own.
pub(super) fn partitions(reader: &Reader, wanted: &impl Fn(&str) -> bool) -> KafkaResult<Vec<TopicPartition>> {
    let metadata = reader.fetch_metadata(None, ASK_TIMEOUT)?;
    let topics = metadata.topics().iter().filter(|topic| topic.error().is_none());
    let ours = topics.filter(|topic| !topic.name().starts_with("__") && wanted(topic.name()));
    Ok(ours.flat_map(|topic| topic.partitions().iter().map(|partition| owned(topic.name(), partition.id()))).collect())
}

/// The earliest or the end offset of each partition, in one question per broker.
pub(super) fn at(
    reader: &Reader,
    partitions: &[TopicPartition],
    place: Offset,
) -> KafkaResult<HashMap<TopicPartition, u64>> {
    if partitions.is_empty() {
        return Ok(HashMap::new());
    }
    let mut asked = list(partitions);
    asked.set_all_offsets(place)?;
    Ok(offsets(&reader.offsets_for_times(asked, ASK_TIMEOUT)?))
}

fn offsets(answer: &TopicPartitionList) -> HashMap<TopicPartition, u64> {
    let elements = answer.elements();
    let good = elements.iter().filter(|element| element.error().is_ok());
    good.filter_map(|element| Some((owned(element.topic(), element.partition()), offset_of(element.offset())?)))
        .collect()
}

pub(super) fn refused(cluster: &Cluster, what: &str, error: &KafkaError) -> BusError {
    let denied = matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed)
    );
    if denied {
        return BusError::Denied { what: what.to_owned(), reason: error.to_string() };
    }
    BusError::Unavailable { reason: format!("asking about `{what}` failed: {}", cluster.reason_of(error)) }
}
