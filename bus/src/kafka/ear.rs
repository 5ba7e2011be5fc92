//! What the client that belongs to the group hears: rebalances, errors, commits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::TopicPartitionList;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};

use super::client::Watch;
use super::words::partitions_of;
use crate::TopicPartition;

/// What the client hears.
pub(super) struct Ear {
    watch: Watch,
    heard: Mutex<Vec<Heard>>,
    /// Rebalances are answered at once: nobody drains any more.
    leaving: AtomicBool,
}

/// What the group says.
pub(super) enum Heard {
    /// These are to be read here.
    Assigned(Vec<TopicPartition>),
    /// These are wanted elsewhere, and the group waits.
    Revoked(Vec<TopicPartition>),
    /// Everything was taken away, and nobody waits.
    Lost,
    /// How a commit went.
    Committed(Vec<(TopicPartition, Result<(), RDKafkaErrorCode>)>),
    /// Something went wrong; what the way to the brokers suffers from is told as a condition.
    Error(KafkaError),
}

/// Tells librdkafka that a rebalance was taken note of.
pub(super) fn answer(client: &BaseConsumer<Ear>, assigned: bool) -> KafkaResult<()> {
    let nothing = TopicPartitionList::new();
    match (client.rebalance_protocol(), assigned) {
        (RebalanceProtocol::Cooperative, true) => client.incremental_assign(&nothing),
        (RebalanceProtocol::Cooperative, false) => client.incremental_unassign(&nothing),
        (RebalanceProtocol::Eager | RebalanceProtocol::None, true) => client.assign(&nothing),
        (RebalanceProtocol::Eager | RebalanceProtocol::None, false) => client.unassign(),
    }
}

impl Ear {
    pub(super) fn new(watch: Watch) -> Self {
        Self { watch, heard: Mutex::default(), leaving: AtomicBool::new(false) }
    }

    /// The one that minds the client's errors, and whether it is served.
    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// What was heard since the last call.
    pub(super) fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on rebalances are answered at once.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// Keeps something for [`take`](Self::take).
    pub(super) fn heard(&self, heard: Heard) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
    }
}

impl ClientContext for Ear {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.watch.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.watch.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.watch.generate_oauth_token(config)
    }
}

impl ConsumerContext for Ear {
    fn rebalance(&self, client: &BaseConsumer<Self>, kind: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        self.watch.serve();
        let assigned = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.leaving.load(Ordering::Acquire) {
            let _ = answer(client, assigned);
            return;
        }
        self.heard(match (assigned, !assigned && client.assignment_lost()) {
            (true, _) => Heard::Assigned(partitions_of(partitions)),
            (false, true) => Heard::Lost,
            (false, false) => Heard::Revoked(partitions_of(partitions)),
        });
    }
}
