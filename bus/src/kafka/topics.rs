//! What a topic must be before anything is written to it, and how a missing one is made.
//!
//! A topic is looked at when it is first written and then from time to time: it must exist, and take a batch of the
//! largest size (DESIGN 4). Weak durability is no reason to refuse, but it is said. A topic that does not fit holds its own
//! lane alone, and is looked at again with the next record that comes a moment later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tokio::time::Instant;

use super::client::Cluster;
use super::conditions::Source;
use super::options::CreateTopics;
use crate::{AppendError, Record, is_topic_name};

/// What every topic must take, in bytes (DESIGN 4).
pub(super) const RECORD_BYTES_LEAST: u64 = 640 << 10;
/// Kafka's default of `max.message.bytes`, for where it cannot be asked.
const MAX_MESSAGE_BYTES_DEFAULT: u64 = 1_048_588;
/// How long what was found out about a topic counts.
const FRESH: Duration = Duration::from_secs(300);
/// How long a refusal counts.
const STALE: Duration = Duration::from_secs(2);
/// How long one look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// What a batch of one record costs beside the record: batch header, lengths and deltas as varints.
const FRAME_BYTES: u64 = 61 + 36;
/// What a header costs beside its name and value.
const HEADER_BYTES: u64 = 10;

/// What the brokers say of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// Partitions.
    pub partitions: usize,
    /// Copies of the partition that has the fewest.
    pub replication: usize,
    /// Copies that must be written before a record counts as durable; `None` where it could not be asked.
    pub min_insync_replicas: Option<u32>,
    /// The largest batch in bytes; `None` where it could not be asked.
    pub max_message_bytes: Option<u64>,
}

impl TopicFacts {
    /// The largest record it takes, framing included.
    fn limit(&self) -> u64 {
        self.max_message_bytes.unwrap_or(MAX_MESSAGE_BYTES_DEFAULT)
    }

    /// Why nothing can be written to it, with the cure; `None` = it can.
    pub(super) fn refusal(&self) -> Option<String> {
        let least = RECORD_BYTES_LEAST;
        self.max_message_bytes.filter(|bytes| *bytes < least).map(|bytes| {
            format!("its max.message.bytes is {bytes}, and a batch may have {least}: raise it (kafka-configs --alter --add-config max.message.bytes={MAX_MESSAGE_BYTES_DEFAULT})")
        })
    }

    /// What an operator should know about how safe it is; `None` = nothing.
    pub(super) fn weakness(&self) -> Option<String> {
        if self.replication < 2 {
            return Some("it has one copy: a broker's disk that fails takes its records along; give it a replication factor of 3".to_owned());
        }
        let weak = self.min_insync_replicas.filter(|least| *least < 2);
        weak.map(|_| {
            format!(
                "min.insync.replicas is 1: a record counts as durable with one copy of {} written; set it to 2",
                self.replication
            )
        })
    }
}

/// The bytes that a record brings to a batch of its own, at most.
pub(super) fn framed_bytes(record: &Record) -> u64 {
    (record.size() as u64) + FRAME_BYTES + HEADER_BYTES * (record.headers.len() as u64)
}

/// What is known of a topic.
#[derive(Clone, Debug)]
enum Known {
    Fit { facts: TopicFacts, until: Instant },
    Unfit { error: AppendError, until: Instant },
}

/// All topics that were written to.
pub(super) struct Topics {
    cluster: Arc<Cluster>,
    known: Mutex<HashMap<Arc<str>, Known>>,
    /// One look at a time: a herd of first records asks once.
    looking: tokio::sync::Mutex<()>,
}

impl Topics {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, known: Mutex::new(HashMap::new()), looking: tokio::sync::Mutex::new(()) }
    }

    /// Makes sure that `record` can be written to `topic`; looks at the topic if that was not done lately.
    pub(super) async fn admit(&self, topic: &str, record: &Record) -> Result<Arc<str>, AppendError> {
        let (name, facts) = match self.lookup(topic, Instant::now()) {
            Some(known) => known?,
            None => self.look(topic).await?,
        };
        let (size, limit) = (framed_bytes(record), facts.limit());
        if size > limit {
            let overhead = size - record.size() as u64;
            return Err(AppendError::TooLarge { size: record.size() as u64, limit: limit.saturating_sub(overhead) });
        }
        Ok(name)
    }

    /// A record was refused for what the topic is now: the next one looks again.
    pub(super) fn forget(&self, topic: &str) {
        self.known().remove(topic);
    }

    /// What a record of `topic` may have, for a refusal by the brokers.
    pub(super) fn limit(&self, topic: &str) -> u64 {
        match self.known().get(topic) {
            Some(Known::Fit { facts, .. }) => facts.limit(),
            Some(Known::Unfit { .. }) | None => MAX_MESSAGE_BYTES_DEFAULT,
        }
    }

    fn lookup(&self, topic: &str, now: Instant) -> Option<Result<(Arc<str>, TopicFacts), AppendError>> {
        let known = self.known();
        let (name, known) = known.get_key_value(topic)?;
        match known {
            Known::Fit { facts, until } if *until > now => Some(Ok((Arc::clone(name), *facts))),
            Known::Unfit { error, until } if *until > now => Some(Err(error.clone())),
            Known::Fit { .. } | Known::Unfit { .. } => None,
        }
    }

    async fn look(&self, topic: &str) -> Result<(Arc<str>, TopicFacts), AppendError> {
        let deadline = Instant::now() + self.cluster.options.message_timeout;
        let _alone = self.looking.lock().await;
        loop {
            // Someone else may have looked meanwhile.
            if let Some(known) = self.lookup(topic, Instant::now()) {
                return known;
            }
            let found = if is_topic_name(topic) {
                self.inspect(topic).await
            } else {
                Err(unfit(topic, "that is no topic's name: use 1 to 249 of a-z A-Z 0-9 . _ -"))
            };
            match found {
                // Nothing was found out: a topic that was fit a while ago still counts.
                Err(AppendError::Unavailable { reason }) => {
                    if let Some(known) = self.prolong(topic) {
                        return Ok(known);
                    }
                    if Instant::now() >= deadline {
                        return Err(AppendError::Unavailable { reason });
                    }
                }
                found => return self.learn(topic, found),
            }
        }
    }

    /// Trusts what was known a little longer.
    fn prolong(&self, topic: &str) -> Option<(Arc<str>, TopicFacts)> {
        let mut known = self.known();
        let name = known.get_key_value(topic)?.0.clone();
        match known.get_mut(topic)? {
            Known::Fit { facts, until } => {
                *until = Instant::now() + STALE;
                Some((name, *facts))
            }
            Known::Unfit { .. } => None,
        }
    }

    fn learn(
        &self,
        topic: &str,
        found: Result<TopicFacts, AppendError>,
    ) -> Result<(Arc<str>, TopicFacts), AppendError> {
        let name: Arc<str> = topic.into();
        let now = Instant::now();
        let found = found.and_then(|facts| match facts.refusal() {
            Some(reason) => Err(unfit(topic, reason)),
            None => Ok(facts),
        });
        let source = Source::Topic(Arc::clone(&name));
        match &found {
            Ok(facts) => {
                self.cluster.conditions.clear(&source);
                let before = self.known().insert(Arc::clone(&name), Known::Fit { facts: *facts, until: now + FRESH });
                if !matches!(before, Some(Known::Fit { facts: before, .. }) if before == *facts) {
                    tell(topic, facts);
                }
            }
            Err(error) => {
                if self.cluster.conditions.set(source, &error.to_string()) {
                    tracing::warn!(topic, %error, "a topic's lane is held");
                }
                self.known().insert(Arc::clone(&name), Known::Unfit { error: error.clone(), until: now + STALE });
            }
        }
        found.map(|facts| (name, facts))
    }

    /// Looks, and makes the topic if it is missing and that was asked for.
    async fn inspect(&self, topic: &str) -> Result<TopicFacts, AppendError> {
        match inspect(&self.cluster, topic).await? {
            Some(facts) => Ok(facts),
            None => match self.cluster.options.create_topics {
                Some(how) => {
                    create(&self.cluster, topic, how).await?;
                    self.await_creation(topic).await
                }
                None => {
                    Err(unfit(topic, "it does not exist: create it (kafka-topics --create), or set `create_topics`"))
                }
            },
        }
    }

    /// A new topic is known to the controller first and to all brokers a little later.
    async fn await_creation(&self, topic: &str) -> Result<TopicFacts, AppendError> {
        let deadline = Instant::now() + LOOK_TIMEOUT;
        loop {
            match inspect(&self.cluster, topic).await? {
                Some(facts) => return Ok(facts),
                None if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(50)).await,
                None => {
                    return Err(AppendError::Unavailable {
                        reason: format!("the topic `{topic}` was made, and its brokers do not show it yet"),
                    });
                }
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(topic: &str, facts: &TopicFacts) {
    let TopicFacts { partitions, replication, min_insync_replicas, max_message_bytes } = *facts;
    tracing::info!(topic, partitions, replication, ?min_insync_replicas, ?max_message_bytes, "a topic is ready");
    if let Some(weakness) = facts.weakness() {
        tracing::warn!(topic, "weak durability: {weakness}");
    }
}

fn unfit(topic: &str, reason: impl Into<String>) -> AppendError {
    AppendError::UnknownTopic { topic: topic.to_owned(), reason: reason.into() }
}

/// An admin client lives for one question: nobody polls what it has to say besides, which would pile up.
pub(super) async fn with_admin<T: Send + 'static>(
    cluster: &Arc<Cluster>,
    ask: impl AsyncFnOnce(&AdminClient<DefaultClientContext>, &AdminOptions) -> T + Send + 'static,
) -> Result<T, AppendError> {
    let config = cluster.config("admin");
    let asking = tokio::task::spawn_blocking(move || {
        let admin = AdminClient::from_config(&config)?;
        let options = AdminOptions::new().request_timeout(Some(LOOK_TIMEOUT)).operation_timeout(Some(LOOK_TIMEOUT));
        Ok::<_, KafkaError>(tokio::runtime::Handle::current().block_on(ask(&admin, &options)))
    });
    let unavailable = |reason: String| AppendError::Unavailable { reason };
    asking.await.map_err(|error| unavailable(error.to_string()))?.map_err(|error| unavailable(error.to_string()))
}

/// What the brokers say of `topic`; `None` = there is none.
pub(super) async fn inspect(cluster: &Arc<Cluster>, topic: &str) -> Result<Option<TopicFacts>, AppendError> {
    let name = topic.to_owned();
    let asked = with_admin(cluster, async move |admin, options| {
        // The admin client's own thread waits for the answer; this one may block.
        let metadata = admin.inner().fetch_metadata(Some(&name), LOOK_TIMEOUT)?;
        let Some(topic) = metadata.topics().first() else { return Ok(None) };
        if let Some(error) = topic.error() {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        let replication = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
        let configs = admin.describe_configs(&[ResourceSpecifier::Topic(&name)], options).await;
        let number = |key: &str| {
            let resource = configs.as_ref().ok()?.first()?.as_ref().ok()?;
            resource.get(key)?.value.as_ref()?.parse::<u64>().ok()
        };
        Ok(Some(TopicFacts {
            partitions: topic.partitions().len(),
            replication: replication.unwrap_or(0),
            min_insync_replicas: number("min.insync.replicas").and_then(|least| u32::try_from(least).ok()),
            max_message_bytes: number("max.message.bytes"),
        }))
    });
    match asked.await? {
        Ok(facts) => Ok(facts.filter(|facts| facts.partitions > 0)),
        Err(error) => match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Err(AppendError::Denied {
                topic: topic.to_owned(),
                reason: "the brokers' access rules do not let this user see it: allow Describe and Write".to_owned(),
            }),
            _ => Err(AppendError::Unavailable {
                reason: format!("looking at the topic `{topic}` failed: {}", reason_of(cluster, &error)),
            }),
        },
    }
}

/// An error in the words of the trouble behind it, where one is known.
pub(super) fn reason_of(cluster: &Cluster, error: &KafkaError) -> String {
    cluster.conditions.trouble(&Source::Brokers).unwrap_or_else(|| error.to_string())
}

async fn create(cluster: &Arc<Cluster>, topic: &str, how: CreateTopics) -> Result<(), AppendError> {
    let name = topic.to_owned();
    let made = with_admin(cluster, async move |admin, options| {
        let replication = how.replication.map_or(-1, i32::from);
        let partitions = i32::try_from(how.partitions).unwrap_or(i32::MAX);
        let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(replication));
        admin.create_topics(&[new], options).await
    });
    let code = match made.await?.map(|results| results.into_iter().next()) {
        Ok(Some(Err((_, code)))) => code,
        Ok(Some(Ok(_)) | None) => {
            tracing::info!(topic, partitions = how.partitions, "made a topic");
            return Ok(());
        }
        Err(error) => {
            return Err(AppendError::Unavailable {
                reason: format!("making the topic `{topic}` failed: {}", reason_of(cluster, &error)),
            });
        }
    };
    match code {
        RDKafkaErrorCode::TopicAlreadyExists => Ok(()),
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            Err(AppendError::Denied {
                topic: topic.to_owned(),
                reason: "it does not exist, and this user may not create topics: create it, or allow Create".to_owned(),
            })
        }
        RDKafkaErrorCode::InvalidReplicationFactor => Err(unfit(
            topic,
            "it does not exist, and there are fewer brokers than the copies asked for: set `replication` to what the cluster has",
        )),
        RDKafkaErrorCode::RequestTimedOut | RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::NotController => {
            Err(AppendError::Unavailable { reason: format!("making the topic `{topic}` failed: {code}") })
        }
        other => Err(unfit(topic, format!("it does not exist, and making it failed: {other}"))),
    }
}
