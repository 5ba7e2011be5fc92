//! The client that belongs to the group: it is told what it gets and has to give, and commits.
//!
//! librdkafka is told that it is assigned nothing, so it fetches nothing and its queue holds events alone.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};

use super::client::{Cluster, POLLS, millis};
use super::committer::{Committer, Offsets};
use super::ear::{Ear, Heard, answer};
use super::shared::Shared;
use super::words::{list, native_pattern, offset_of, owned};
use crate::{Subscription, TopicPartition};

/// The client, and the thread that commits through it.
pub(super) struct Membership {
    /// Before the client: it has a share of it, and the last to let go of it leaves the group.
    committer: Committer,
    client: Arc<BaseConsumer<Ear>>,
}

impl Membership {
    /// Joins.
    pub(super) fn join(cluster: &Cluster, subscription: &Subscription, shared: &Arc<Shared>) -> KafkaResult<Self> {
        let options = &cluster.options;
        let mut config = cluster.config("member");
        config
            .set("group.id", &subscription.group)
            .set("partition.assignment.strategy", options.assignor.name())
            .set("session.timeout.ms", millis(options.session_timeout))
            .set("heartbeat.interval.ms", millis(options.session_timeout / 5))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error");
        let ear = Ear::new(cluster.watch("member"));
        let mut client = BaseConsumer::from_config_and_context(&config, ear)?;
        client.set_nonempty_callback(shared.waker());
        let topics: Vec<_> = subscription.topics.iter().map(|topic| native_pattern(topic)).collect();
        client.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
        let client = Arc::new(client);
        let committer = Committer::start(Arc::clone(&client), Arc::clone(shared));
        let committer = committer.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { committer, client })
    }

    /// Lets the group say what it has to say, and whether there may be more.
    pub(super) fn hear(&self) -> (Vec<Heard>, bool) {
        let ear = self.client.context();
        let before = ear.watch().served();
        for _ in 0..POLLS {
            let served = ear.watch().served();
            match self.client.poll(Duration::ZERO) {
                Some(Err(error)) => ear.heard(Heard::Error(error)),
                // Nothing is fetched here.
                Some(Ok(_)) => {}
                None if served == ear.watch().served() => break,
                None => {}
            }
        }
        (ear.take(), ear.watch().served() != before)
    }

    /// Whether what is held was taken away in the meantime.
    pub(super) fn is_lost(&self) -> bool {
        self.client.assignment_lost()
    }

    /// The brokers answered.
    pub(super) fn alive(&self) {
        self.client.context().watch().alive();
    }

    /// Hands over a commit; the one before has been answered.
    pub(super) fn commit(&self, offsets: Offsets) {
        self.committer.commit(offsets);
    }

    /// What the group has committed for `partitions`.
    pub(super) fn committed(
        &self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> KafkaResult<Vec<(TopicPartition, Option<u64>)>> {
        let committed = self.client.committed_offsets(list(partitions), timeout)?;
        let each = committed.elements().into_iter().map(|element| {
            let partition = owned(element.topic(), element.partition());
            element.error().map(|()| (partition, offset_of(element.offset())))
        });
        each.collect()
    }

    /// Answers what was heard. The group goes on at once; when to begin is our own matter.
    pub(super) fn accept(&self) {
        self.answer(true);
    }

    /// Gives back what was asked for: others may have it from now on.
    pub(super) fn give_back(&self) {
        self.answer(false);
    }

    fn answer(&self, assigned: bool) {
        if let Err(error) = answer(&self.client, assigned) {
            tracing::warn!(%error, assigned, "a rebalance could not be answered");
        }
    }

    /// From now on nothing is drained any more. Dropping then leaves the group, for which it blocks.
    pub(super) fn prepare_to_leave(&self) {
        self.client.context().leave();
        // One that waits for an answer would hold up the end; one that does not is unharmed.
        let _ = answer(&self.client, false);
    }
}
