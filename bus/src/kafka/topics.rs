//! What a topic must be before anything is written to it, and how a missing one is made.
//!
//! A topic is looked at when it is first written and then from time to time: it must exist, and take a batch of the
//! largest size (DESIGN 4). Weak durability is no reason to refuse, but it is said. A topic that does not fit holds its own
//! lane alone, and is looked at again with the next record that comes a moment later.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::client::Cluster;
use super::conditions::Source;
use super::inspection::{LOOK_TIMEOUT, MAX_MESSAGE_BYTES_DEFAULT, TopicFacts, create, inspect, unfit};
use super::stuck::Stuck;
use crate::{AppendError, Record, is_topic_name};

/// How long what was found out about a topic counts.
const FRESH: Duration = Duration::from_secs(300);
/// How long a refusal counts.
const STALE: Duration = Duration::from_secs(2);
/// How long to wait before brokers that did not answer are asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// A refused topic that nobody has written to for so long is of no interest any more.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// How often known and refused topics are looked at, whether anybody writes or not.
const TEND_INTERVAL: Duration = Duration::from_secs(1);
/// What a batch of one record costs beside the record: batch header, lengths and deltas as varints.
const FRAME_BYTES: u64 = 61 + 36;
/// What a header costs beside its name and value.
const HEADER_BYTES: u64 = 10;

/// The bytes that a record brings to a batch of its own, at most.
pub(super) fn framed_bytes(record: &Record) -> u64 {
    (record.size() as u64) + FRAME_BYTES + HEADER_BYTES * (record.headers.len() as u64)
}

/// What is known of a topic.
#[derive(Clone, Debug)]
enum Known {
    Fit { facts: TopicFacts, until: Instant },
    Unfit { error: AppendError, until: Instant, asked: Instant },
}

/// All topics that were written to.
pub(super) struct Topics {
    cluster: Arc<Cluster>,
    known: Mutex<HashMap<Arc<str>, Known>>,
    /// One look at a time: a herd of first records asks once.
    looking: tokio::sync::Mutex<()>,
    pub(super) stuck: Stuck,
}

impl Topics {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        let stuck = Stuck::new(Arc::clone(&cluster));
        Self { cluster, known: Mutex::new(HashMap::new()), looking: tokio::sync::Mutex::new(()), stuck }
    }

    /// Makes sure that `record` can be written to `topic`; looks at the topic if that was not done lately.
    pub(super) async fn admit(&self, topic: &str, record: &Record) -> Result<Arc<str>, AppendError> {
        let (name, facts) = match self.lookup(topic, Instant::now()) {
            Some(known) => known?,
            None => {
                let looked = self.look(topic, self.cluster.options.message_timeout).await;
                self.asked(topic);
                looked?
            }
        };
        let (size, limit) = (framed_bytes(record), facts.limit());
        if size > limit {
            let overhead = size - record.size() as u64;
            return Err(AppendError::TooLarge { size: record.size() as u64, limit: limit.saturating_sub(overhead) });
        }
        Ok(name)
    }

    /// Somebody wants to write to it.
    fn asked(&self, topic: &str) {
        if let Some(Known::Unfit { asked, .. }) = self.known().get_mut(topic) {
            *asked = Instant::now();
        }
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
            Known::Unfit { error, until, .. } if *until > now => Some(Err(error.clone())),
            Known::Fit { .. } | Known::Unfit { .. } => None,
        }
    }

    /// Looks at the topics that are known from the start, and at those that were refused, until `stop` is closed: so that
    /// what is wrong is told before anybody writes, and is over when it is cured. Looks after certificates and secrets, too.
    pub(super) fn tend(&self, stop: &Receiver<()>) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::warn!(%error, "topics are looked at only when they are written"),
        };
        let mut unseen = self.cluster.options.topics.clone();
        loop {
            let due = self.due(Instant::now());
            for topic in unseen.iter().cloned().chain(due.iter().map(ToString::to_string)) {
                // Each look may take its time while we are refused: what was renewed is not to wait for all of them.
                self.cluster.renew();
                // The outcome is kept, and told as a condition.
                let _ = runtime.block_on(self.look(&topic, LOOK_TIMEOUT));
            }
            self.cluster.renew();
            runtime.block_on(self.stuck.tell());
            unseen.retain(|topic| !self.known().contains_key(topic.as_str()));
            if !matches!(stop.recv_timeout(TEND_INTERVAL), Err(RecvTimeoutError::Timeout)) {
                return;
            }
        }
    }

    /// Refused topics that may be cured by now. One that nobody is interested in any more is forgotten.
    fn due(&self, now: Instant) -> Vec<Arc<str>> {
        let mut known = self.known();
        let lasting = |topic: &str| self.cluster.options.topics.iter().any(|known| known == topic);
        let forgotten = |name: &Arc<str>, known: &mut Known| match known {
            Known::Unfit { asked, .. } => now - *asked > FORGOTTEN && !lasting(name),
            Known::Fit { .. } => false,
        };
        for (name, _) in known.extract_if(forgotten) {
            self.cluster.conditions.clear(&Source::Topic(name));
        }
        let due = known.iter().filter(|(_, known)| matches!(known, Known::Unfit { until, .. } if *until <= now));
        due.map(|(name, _)| Arc::clone(name)).collect()
    }

    async fn look(&self, topic: &str, patience: Duration) -> Result<(Arc<str>, TopicFacts), AppendError> {
        let deadline = Instant::now() + patience;
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
                    tokio::time::sleep(AGAIN).await;
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
                if !matches!(before, Some(Known::Fit { facts: before, .. }) if before.is_like(facts)) {
                    tell(topic, facts);
                }
            }
            Err(error) => {
                if self.cluster.conditions.set(source, &error.to_string()) {
                    tracing::warn!(topic, %error, "a topic's lane is held");
                }
                let mut known = self.known();
                let before = known.get(&name);
                let asked = if let Some(Known::Unfit { asked, .. }) = before { *asked } else { now };
                let unfit = Known::Unfit { error: error.clone(), until: now + STALE, asked };
                known.insert(Arc::clone(&name), unfit);
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
    let TopicFacts { partitions, replication, min_insync_replicas, max_message_bytes, .. } = *facts;
    tracing::info!(topic, partitions, replication, ?min_insync_replicas, ?max_message_bytes, "a topic is ready");
    if let Some(weakness) = facts.weakness() {
        tracing::warn!(topic, "weak durability: {weakness}");
    }
}
