//! Where commits are made: one thread per member, one request at a time (K7).
//!
//! It waits for each answer, since rdkafka (0.39) tells of commits that do not wait only when they are automatic. An
//! answer says that all went well or gives one error for all; when that error is one partition's, each is tried by
//! itself, so that none is held back by another.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::types::RDKafkaErrorCode;

use super::ear::{Ear, Heard};
use super::shared::Shared;
use super::words::places;
use crate::TopicPartition;

/// Partitions with the offsets to be committed.
pub(super) type Offsets = Vec<(TopicPartition, u64)>;

/// The thread, which ends when this is dropped.
pub(super) struct Committer {
    requests: Option<SyncSender<Offsets>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub(super) fn start(membership: Arc<BaseConsumer<Ear>>, shared: Arc<Shared>) -> std::io::Result<Self> {
        let (sender, requests) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("kafka-commits".to_owned())
            .spawn(move || run(&membership, &shared, &requests))?;
        Ok(Self { requests: Some(sender), thread: Some(thread) })
    }

    /// Hands over a request; its outcome is [`Heard::Committed`]. The one before has been answered.
    pub(super) fn commit(&self, offsets: Offsets) {
        if let Some(requests) = &self.requests {
            // The thread lives as long as this.
            let _ = requests.send(offsets);
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(membership: &BaseConsumer<Ear>, shared: &Shared, requests: &Receiver<Offsets>) {
    while let Ok(offsets) = requests.recv() {
        let whole = commit(membership, &offsets);
        let alone = |one: &(TopicPartition, u64)| match whole {
            Err(code) if offsets.len() > 1 && is_one_partitions(code) => commit(membership, std::slice::from_ref(one)),
            whole => whole,
        };
        let results = offsets.iter().map(|one| (one.0.clone(), alone(one))).collect();
        membership.context().heard(Heard::Committed(results));
        shared.wake();
    }
}

fn commit(membership: &BaseConsumer<Ear>, offsets: &[(TopicPartition, u64)]) -> Result<(), RDKafkaErrorCode> {
    let list = places(offsets.iter().map(|(partition, offset)| (partition, Some(*offset))));
    let committed = membership.commit(&list, CommitMode::Sync);
    committed.map_err(|error| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
}

/// Whether an error is about a partition, and not about the group or the way to it.
fn is_one_partitions(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopicId
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::OffsetMetadataTooLarge
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::UnknownPartition
    )
}
