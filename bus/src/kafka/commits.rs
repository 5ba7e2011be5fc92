//! The commits of one partition: what was asked for, what is under way, what is durable.
//!
//! Only the highest request is sent; it answers for all lower ones. At most one is under way.

use tokio::sync::oneshot;

use crate::{BusError, TopicPartition};

/// Somebody who waits for a commit.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) offset: u64,
    answer: oneshot::Sender<Result<(), BusError>>,
}

/// How a commit went, where not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CommitFault {
    /// The group is being shared out: the same commit may pass in a moment.
    Again,
    /// The caller is told, and asks again.
    Refused(BusError),
}

#[derive(Debug, Default)]
pub(super) struct Commits {
    durable: Option<u64>,
    requested: Option<u64>,
    waiters: Vec<Waiter>,
}

impl Waiter {
    pub(super) fn resolve(self, result: Result<(), BusError>) {
        // Whoever dropped the future does not want to know.
        let _ = self.answer.send(result);
    }
}

impl Commits {
    /// Begins at what the group has committed.
    pub(super) fn new(durable: Option<u64>) -> Self {
        Self { durable, requested: durable, waiters: Vec::new() }
    }

    /// Notes a request. `delivered` is the next offset to be handed out.
    pub(super) fn request(
        &mut self,
        partition: &TopicPartition,
        offset: u64,
        delivered: u64,
    ) -> oneshot::Receiver<Result<(), BusError>> {
        let (answer, result) = oneshot::channel();
        let waiter = Waiter { offset, answer };
        let partition = || partition.clone();
        match self.requested {
            Some(committed) if offset < committed => {
                waiter.resolve(Err(BusError::Backwards { partition: partition(), committed, requested: offset }));
            }
            _ if offset > delivered => {
                waiter.resolve(Err(BusError::Beyond { partition: partition(), delivered, requested: offset }));
            }
            _ if self.durable.is_some_and(|durable| offset <= durable) => waiter.resolve(Ok(())),
            _ => {
                self.requested = Some(offset);
                self.waiters.push(waiter);
            }
        }
        result
    }

    /// What is to be sent, if anything.
    pub(super) fn wanted(&self) -> Option<u64> {
        self.requested.filter(|requested| self.durable.is_none_or(|durable| *requested > durable))
    }

    /// `offset` is durable.
    pub(super) fn done(&mut self, offset: u64) {
        self.durable = self.durable.max(Some(offset));
        for waiter in self.waiters.extract_if(.., |waiter| waiter.offset <= offset) {
            waiter.resolve(Ok(()));
        }
    }

    /// A commit of `offset` was refused: who waits for it is told, and what was asked for is as before.
    pub(super) fn refused(&mut self, offset: u64, error: &BusError) {
        for waiter in self.waiters.extract_if(.., |waiter| waiter.offset <= offset) {
            waiter.resolve(Err(error.clone()));
        }
        if self.waiters.is_empty() {
            self.requested = self.durable;
        }
    }

    /// The log was cut short in the cluster: commits begin anew from there.
    pub(super) fn rewind(&mut self) {
        let (durable, requested) = (None, None);
        *self = Self { durable, requested, waiters: std::mem::take(&mut self.waiters) };
    }

    /// Ends; those who wait for no more than `under_way` are handed back, the others are told that it is not held any more.
    pub(super) fn end(self, partition: &TopicPartition, under_way: Option<u64>) -> Vec<Waiter> {
        let mut rest = Vec::new();
        for waiter in self.waiters {
            if under_way.is_some_and(|offset| waiter.offset <= offset) {
                rest.push(waiter);
            } else {
                waiter.resolve(Err(BusError::Fenced { partition: partition.clone() }));
            }
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> TopicPartition {
        TopicPartition::new("logs.a", 3)
    }

    #[test]
    fn the_highest_request_answers_for_all_lower_ones() {
        let mut commits = Commits::new(None);
        let mut waiting = [2, 5, 9].map(|offset| commits.request(&partition(), offset, 10));
        assert_eq!(commits.wanted(), Some(9));
        commits.done(5);
        assert_eq!(waiting[0].try_recv(), Ok(Ok(())));
        assert_eq!(waiting[1].try_recv(), Ok(Ok(())));
        assert!(waiting[2].try_recv().is_err(), "not yet");
        commits.done(9);
        assert_eq!(waiting[2].try_recv(), Ok(Ok(())));
        assert_eq!(commits.wanted(), None);
    }

    #[test]
    fn a_refused_commit_may_be_asked_for_again() {
        let mut commits = Commits::new(Some(1));
        let mut first = commits.request(&partition(), 4, 10);
        let error = BusError::Unavailable { reason: "trial".to_owned() };
        commits.refused(4, &error);
        assert_eq!(first.try_recv(), Ok(Err(error)));
        assert_eq!(commits.wanted(), None);
        let mut again = commits.request(&partition(), 4, 10);
        assert_eq!(commits.wanted(), Some(4));
        commits.done(4);
        assert_eq!(again.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn the_end_fences_all_but_what_is_under_way() {
        let mut commits = Commits::new(None);
        let mut waiting = [2, 5].map(|offset| commits.request(&partition(), offset, 10));
        let rest = commits.end(&partition(), Some(2));
        assert_eq!(rest.iter().map(|waiter| waiter.offset).collect::<Vec<_>>(), [2]);
        assert!(waiting[0].try_recv().is_err());
        assert_eq!(waiting[1].try_recv(), Ok(Err(BusError::Fenced { partition: partition() })));
    }
}
