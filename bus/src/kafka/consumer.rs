//! The caller's end of a member.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::shared::Shared;
use crate::{BusError, Consumer, Event, TopicPartition};

/// A member of a group on Kafka; its thread does the work.
pub(super) struct KafkaConsumer {
    shared: Arc<Shared>,
    /// What the group's subscription is known by, for as long as this lives.
    _subscribed: Box<dyn Send>,
}

impl KafkaConsumer {
    pub(super) fn new(shared: Arc<Shared>, subscribed: Box<dyn Send>) -> Self {
        Self { shared, _subscribed: subscribed }
    }

    async fn next_event(&mut self) -> Result<Event, BusError> {
        loop {
            let (event, was_full) = {
                let mut state = self.shared.state();
                if let Some(ended) = &state.ended {
                    return Err(ended.clone());
                }
                if let Some(trouble) = state.trouble.take() {
                    return Err(trouble);
                }
                let was_full = !state.assignments.has_room();
                (state.assignments.next_event(), was_full)
            };
            if let Some(event) = event {
                if was_full {
                    self.shared.wake();
                }
                return Ok(event);
            }
            self.shared.news.notified().await;
        }
    }
}

impl Consumer for KafkaConsumer {
    fn next(&mut self) -> BoxFuture<'_, Result<Event, BusError>> {
        self.next_event().boxed()
    }

    fn commit(&mut self, partition: &TopicPartition, next_offset: u64) -> BoxFuture<'static, Result<(), BusError>> {
        let requested = {
            let mut state = self.shared.state();
            match &state.ended {
                Some(ended) => Err(ended.clone()),
                None => state.assignments.request_commit(partition, next_offset),
            }
        };
        self.shared.wake();
        match requested {
            Ok(answer) => async move { answer.await.unwrap_or(Err(BusError::Closed)) }.boxed(),
            Err(error) => std::future::ready(Err(error)).boxed(),
        }
    }

    fn pause(&mut self, partition: &TopicPartition) {
        self.shared.state().assignments.pause(partition, true);
        self.shared.wake();
    }

    fn resume(&mut self, partition: &TopicPartition) {
        self.shared.state().assignments.pause(partition, false);
        self.shared.wake();
    }

    fn release(&mut self, partition: &TopicPartition) {
        self.shared.state().assignments.release(partition);
        self.shared.wake();
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        self.shared.leave(BusError::Closed);
    }
}
