//! Topics whose records wait for too long though the brokers answer: replicas or a leader are missing. librdkafka tries
//! such records again until their time is over, without a word; an operator should hear of it earlier.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::client::Cluster;
use super::conditions::Source;
use super::inspection::inspect;

/// After so long without a confirmation a record's topic is told.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(5);

/// The topics that are stuck now.
pub(super) struct Stuck {
    cluster: Arc<Cluster>,
    topics: Mutex<BTreeSet<Arc<str>>>,
}

impl Stuck {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, topics: Mutex::default() }
    }

    /// These are stuck; all others are not (any more).
    pub(super) fn are(&self, stuck: BTreeSet<Arc<str>>) {
        let mut topics = self.topics();
        let before = std::mem::replace(&mut *topics, stuck);
        for topic in before.difference(&topics) {
            if self.cluster.conditions.clear(&Source::Stuck(Arc::clone(topic))) {
                tracing::info!(%topic, "records are confirmed again");
            }
        }
    }

    /// Finds out why, and tells.
    pub(super) async fn tell(&self) {
        let stuck = self.topics().clone();
        for topic in stuck {
            // That nobody answers is told already.
            if self.cluster.conditions.trouble(&Source::Brokers).is_some() {
                return;
            }
            let facts = inspect(&self.cluster, &topic).await.ok().flatten();
            let cause = facts.and_then(|facts| facts.trouble()).unwrap_or_else(|| "look at its brokers".to_owned());
            let reason = format!(
                "records of the topic `{topic}` have waited for longer than {STUCK_AFTER:?} for their confirmation: {cause}"
            );
            let source = Source::Stuck(Arc::clone(&topic));
            // Under the lock, so that it is not told after it is over.
            let topics = self.topics();
            if topics.contains(&topic) && self.cluster.conditions.set(source, &reason) {
                tracing::warn!(%reason, "a topic is stuck");
            }
        }
    }

    fn topics(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
