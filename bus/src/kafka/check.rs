//! Trying a cluster out: what `logmesh check --connect` says of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use logmesh_runtime::finding::{Finding, Verdict};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;

use super::client::{Cluster, Watch};
use super::conditions::Source;
use super::inspection::{TopicFacts, inspect};
use super::lag::{Reader, Readers};
use super::options::KafkaOptions;
use super::words::list;
use crate::{AppendError, BusError, TopicPartition};

/// How long the brokers may take to let us in.
const REACH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long each other question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// Tries the brokers, each topic, and whether the group's commits can be read. Writes nothing and makes nothing. Takes
/// some ten seconds when nobody answers; what cannot be tried then is left out.
///
/// # Errors
/// [`BusError::Invalid`] for settings that cannot be.
pub async fn check(options: KafkaOptions, topics: &[String], group: Option<&str>) -> Result<Vec<Finding>, BusError> {
    let cluster = Arc::new(Cluster::new(options)?);
    let asked = Arc::clone(&cluster);
    let reached = tokio::task::spawn_blocking(move || reach(&asked)).await;
    let brokers = reached.map_err(|error| BusError::Unavailable { reason: error.to_string() })?;
    let unreachable = brokers.verdict == Verdict::Bad;
    let mut findings = vec![brokers];
    if unreachable {
        return Ok(findings);
    }
    let mut readable = None;
    for topic in topics {
        let found = inspect(&cluster, topic).await;
        if let Ok(Some(_)) = found {
            readable.get_or_insert(TopicPartition::new(topic.as_str(), 0));
        }
        findings.push(judge(&cluster, topic, found));
    }
    if let (Some(group), Some(partition)) = (group, readable) {
        findings.push(try_group(&cluster, group, partition).await);
    }
    Ok(findings)
}

fn reach(cluster: &Cluster) -> Finding {
    let bad = |says: String| Finding::new("brokers", Verdict::Bad, says);
    let client = BaseConsumer::<Watch>::from_config_and_context(&cluster.config("check"), cluster.watch("check"));
    let client = match client {
        Ok(client) => client,
        Err(error) => return bad(format!("a client cannot be made: {error}")),
    };
    let deadline = Instant::now() + REACH_TIMEOUT;
    loop {
        client.poll(Duration::from_millis(100));
        // A topic that nobody has: only the brokers are of interest, not all topics of a large cluster.
        if let Ok(metadata) = client.fetch_metadata(Some("logmesh-check"), Duration::from_secs(1)) {
            let brokers = metadata.brokers();
            let names: Vec<_> = brokers.iter().map(|broker| format!("{}:{}", broker.host(), broker.port())).collect();
            let says = format!("{} answer as a cluster: {}", brokers.len(), names.join(", "));
            return Finding::new("brokers", Verdict::Good, says);
        }
        client.poll(Duration::ZERO);
        // What is refused now is refused in ten seconds too; what cannot be reached may only be slow.
        let trouble = cluster.conditions.trouble(&Source::Brokers);
        let refused = trouble.as_ref().is_some_and(|words| words.contains("refuse") || words.contains("TLS"));
        if refused || Instant::now() >= deadline {
            return bad(trouble.unwrap_or_else(|| format!("nobody has answered for {REACH_TIMEOUT:?}")));
        }
    }
}

fn judge(cluster: &Cluster, topic: &str, found: Result<Option<TopicFacts>, AppendError>) -> Finding {
    let what = format!("topic {topic}");
    match found {
        Ok(Some(facts)) => {
            let known = |value: Option<u64>| value.map_or("unknown".to_owned(), |value| value.to_string());
            let says = format!(
                "{} partitions, {} copies ({} in step), min.insync.replicas {}, max.message.bytes {}",
                facts.partitions,
                facts.replication,
                facts.in_sync,
                known(facts.min_insync_replicas.map(u64::from)),
                known(facts.max_message_bytes),
            );
            let cure = facts.refusal().or_else(|| facts.trouble());
            let verdict = if cure.is_some() { Verdict::Bad } else { Verdict::Good };
            match facts.weakness().filter(|_| cure.is_none()) {
                Some(weakness) => Finding::new(what, Verdict::Doubtful, says).cured_by(weakness),
                None => Finding { cure, ..Finding::new(what, verdict, says) },
            }
        }
        Ok(None) if cluster.options.create_topics.is_some() && !cluster.needs_token() => {
            Finding::new(what, Verdict::Good, "does not exist yet, and is made when it is first written")
        }
        Ok(None) => {
            let cure = format!(
                "kafka-topics --create --topic {topic} --partitions 6 --replication-factor 3 --config min.insync.replicas=2"
            );
            Finding::new(what, Verdict::Bad, "does not exist").cured_by(cure)
        }
        Err(error) => Finding::new(what, Verdict::Bad, error.to_string()),
    }
}

/// A group's coordinator may have to be found first.
fn commits(reader: &Reader, partition: &TopicPartition) -> KafkaResult<()> {
    let deadline = Instant::now() + REACH_TIMEOUT;
    loop {
        let asked = reader.committed_offsets(list(std::slice::from_ref(partition)), ASK_TIMEOUT);
        let denied =
            |error: &KafkaError| error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed);
        match asked {
            Ok(_) => return Ok(()),
            Err(error) if denied(&error) || Instant::now() >= deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

async fn try_group(cluster: &Arc<Cluster>, group: &str, partition: TopicPartition) -> Finding {
    let what = format!("group {group}");
    let readers = Readers::new(Arc::clone(cluster));
    let asked = readers.ask(group.to_owned(), move |_, reader| Ok(commits(reader, &partition))).await;
    readers.close();
    match asked {
        Ok(Ok(())) => Finding::new(what, Verdict::Good, "its commits can be read"),
        Ok(Err(error)) => {
            let denied = error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed);
            let cure =
                denied.then(|| format!("allow Read on the group: kafka-acls --add --operation Read --group {group} …"));
            let says = format!("its commits cannot be read: {error}");
            Finding { cure, ..Finding::new(what, Verdict::Bad, says) }
        }
        Err(error) => Finding::new(what, Verdict::Bad, error.to_string()),
    }
}
