//! Looking at topics and making them, through Kafka's admin interface.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{FromClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaErrorCode;

use super::client::{Cluster, Watch};
use super::lag::serve;
use super::options::CreateTopics;
use crate::AppendError;
use crate::consumer::matches_pattern;

/// What every topic must take, in bytes (DESIGN 4).
pub(super) const RECORD_BYTES_LEAST: u64 = 640 << 10;
/// Kafka's default of `max.message.bytes`, for where it cannot be asked.
pub(super) const MAX_MESSAGE_BYTES_DEFAULT: u64 = 1_048_588;
/// How long one look may take.
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// What the brokers say of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// Partitions.
    pub partitions: usize,
    /// Copies of the partition that has the fewest.
    pub replication: usize,
    /// Copies in step with their leader, of the partition that has the fewest.
    pub in_sync: usize,
    /// Partitions that nobody leads: they can be neither written nor read.
    pub leaderless: usize,
    /// Copies that must be written before a record counts as durable; `None` where it could not be asked.
    pub min_insync_replicas: Option<u32>,
    /// The largest batch in bytes; `None` where it could not be asked.
    pub max_message_bytes: Option<u64>,
}

impl TopicFacts {
    /// The largest record it takes, framing included.
    pub(super) fn limit(&self) -> u64 {
        self.max_message_bytes.unwrap_or(MAX_MESSAGE_BYTES_DEFAULT)
    }

    /// Whether nothing that is set has changed; brokers come and go.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        Self { in_sync: other.in_sync, leaderless: other.leaderless, ..*self } == *other
    }

    /// Why nothing can be written to it, with the cure; `None` = it can.
    pub(super) fn refusal(&self) -> Option<String> {
        let least = RECORD_BYTES_LEAST;
        self.max_message_bytes.filter(|bytes| *bytes < least).map(|bytes| {
            format!("its max.message.bytes is {bytes}, and a batch may have {least}: raise it (kafka-configs --alter --add-config max.message.bytes={MAX_MESSAGE_BYTES_DEFAULT})")
        })
    }

    /// Why its records are not taken at the moment, with the cure; `None` = nothing is known that stands in the way.
    pub(super) fn trouble(&self) -> Option<String> {
        if self.leaderless > 0 {
            return Some(format!(
                "{} of its {} partitions have no leader: start the brokers that have them",
                self.leaderless, self.partitions
            ));
        }
        let least = self.min_insync_replicas.and_then(|least| usize::try_from(least).ok())?;
        (self.in_sync < least).then(|| {
            format!("a partition has {} copies in step and min.insync.replicas is {least}: start the brokers that are missing", self.in_sync)
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

/// What the brokers say of `topic`; `None` = there is none. Blocks a thread of its own meanwhile.
pub(super) async fn inspect(cluster: &Arc<Cluster>, topic: &str) -> Result<Option<TopicFacts>, AppendError> {
    let name = topic.to_owned();
    // An admin client cannot be given a token (rdkafka 0.39 does not poll its main queue): limits then stay unknown.
    let asked = if cluster.needs_token() {
        let cluster = Arc::clone(cluster);
        let asking = tokio::task::spawn_blocking(move || facts_of(&by_reader(&cluster, &name)?));
        asking.await.map_err(|error| AppendError::Unavailable { reason: error.to_string() })?
    } else {
        with_admin(cluster, async move |admin, options| {
            let Some(mut facts) = facts_of(&admin.inner().fetch_metadata(Some(&name), LOOK_TIMEOUT)?)? else {
                return Ok(None);
            };
            let configs = admin.describe_configs(&[ResourceSpecifier::Topic(&name)], options).await;
            let number = |key: &str| {
                let resource = configs.as_ref().ok()?.first()?.as_ref().ok()?;
                resource.get(key)?.value.as_ref()?.parse::<u64>().ok()
            };
            facts.min_insync_replicas = number("min.insync.replicas").and_then(|least| u32::try_from(least).ok());
            facts.max_message_bytes = number("max.message.bytes");
            Ok(Some(facts))
        })
        .await?
    };
    asked.or_else(|error| no_facts(cluster, topic, &error))
}

fn no_facts(cluster: &Cluster, topic: &str, error: &KafkaError) -> Result<Option<TopicFacts>, AppendError> {
    let code = error.rdkafka_error_code();
    if matches!(code, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) {
        return Ok(None);
    }
    if code == Some(RDKafkaErrorCode::TopicAuthorizationFailed) {
        let reason = "the brokers' access rules do not let this user see it: allow Describe and Write".to_owned();
        return Err(AppendError::Denied { topic: topic.to_owned(), reason });
    }
    let reason = format!("looking at the topic `{topic}` failed: {}", cluster.reason_of(error));
    Err(AppendError::Unavailable { reason })
}

/// Metadata through a client that is polled, and so gets its token.
pub(super) fn by_reader(cluster: &Cluster, topic: &str) -> KafkaResult<Metadata> {
    let reader = BaseConsumer::<Watch>::from_config_and_context(&cluster.config("look"), cluster.watch("look"))?;
    serve(&reader, cluster.needs_token());
    let metadata = reader.fetch_metadata(Some(topic), LOOK_TIMEOUT);
    // What went wrong is told by events.
    reader.poll(Duration::ZERO);
    metadata
}

fn facts_of(metadata: &Metadata) -> KafkaResult<Option<TopicFacts>> {
    let Some(topic) = metadata.topics().first() else { return Ok(None) };
    if let Some(error) = topic.error() {
        return Err(KafkaError::MetadataFetch(error.into()));
    }
    let partitions = topic.partitions().len();
    let replication = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
    let in_sync = topic.partitions().iter().map(|partition| partition.isr().len()).min().unwrap_or(0);
    let leaderless = topic.partitions().iter().filter(|partition| partition.leader() < 0).count();
    let (min_insync_replicas, max_message_bytes) = (None, None);
    let facts = TopicFacts { partitions, replication, in_sync, leaderless, min_insync_replicas, max_message_bytes };
    Ok((partitions > 0).then_some(facts))
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "librdkafka's codes are many and grow; what is not listed holds the lane"
)]
pub(super) async fn create(cluster: &Arc<Cluster>, topic: &str, how: CreateTopics) -> Result<(), AppendError> {
    if cluster.needs_token() {
        let reason = "it does not exist, and cannot be made with OAUTHBEARER: create it (kafka-topics --create)";
        return Err(unfit(topic, reason));
    }
    let name = topic.to_owned();
    let keep = cluster.options.keep.iter().any(|pattern| matches_pattern(pattern, topic));
    let made = with_admin(cluster, async move |admin, options| {
        let replication = how.replication.map_or(-1, i32::from);
        let partitions = i32::try_from(how.partitions).unwrap_or(i32::MAX);
        let mut new = NewTopic::new(&name, partitions, TopicReplication::Fixed(replication));
        if keep {
            new = new.set("retention.ms", "-1").set("retention.bytes", "-1");
        }
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
                reason: format!("making the topic `{topic}` failed: {}", cluster.reason_of(&error)),
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

/// A topic whose lane is held.
pub(super) fn unfit(topic: &str, reason: impl Into<String>) -> AppendError {
    AppendError::UnknownTopic { topic: topic.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: TopicFacts = TopicFacts {
        partitions: 6,
        replication: 3,
        in_sync: 3,
        leaderless: 0,
        min_insync_replicas: Some(2),
        max_message_bytes: Some(MAX_MESSAGE_BYTES_DEFAULT),
    };

    #[test]
    fn what_is_weak_or_wrong_with_a_topic_is_said() {
        assert_eq!((GOOD.refusal(), GOOD.weakness(), GOOD.trouble()), (None, None, None));
        let single = TopicFacts { replication: 1, ..GOOD }.weakness().expect("weak");
        assert!(single.contains("one copy"), "{single}");
        let hasty = TopicFacts { min_insync_replicas: Some(1), ..GOOD }.weakness().expect("weak");
        assert!(hasty.contains("min.insync.replicas is 1"), "{hasty}");
        let small = TopicFacts { max_message_bytes: Some(RECORD_BYTES_LEAST - 1), ..GOOD }.refusal().expect("refused");
        assert!(small.contains("655359") && small.contains("655360"), "{small}");
        let behind = TopicFacts { in_sync: 1, ..GOOD }.trouble().expect("stuck");
        assert!(behind.contains("1 copies in step") && behind.contains("is 2"), "{behind}");
        let headless = TopicFacts { leaderless: 2, ..GOOD }.trouble().expect("stuck");
        assert!(headless.contains("2 of its 6 partitions have no leader"), "{headless}");
    }

    #[test]
    fn what_could_not_be_asked_is_taken_for_usual() {
        let unknown = TopicFacts { min_insync_replicas: None, max_message_bytes: None, ..GOOD };
        assert_eq!((unknown.refusal(), unknown.weakness(), unknown.trouble()), (None, None, None));
        assert_eq!(unknown.limit(), MAX_MESSAGE_BYTES_DEFAULT);
    }
}
