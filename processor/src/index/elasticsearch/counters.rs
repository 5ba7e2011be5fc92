//! What was sent, and what became of it: exact per document.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::super::Outcome;

/// Sums since the start. A document counts once for each time that it got an outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Written.
    pub created: u64,
    /// There already.
    pub existing: u64,
    /// To be tried again.
    pub retried: u64,
    /// Refused for good.
    pub rejected: u64,
    /// Waiting for a person's cure.
    pub held: u64,
    /// Bulk requests sent.
    pub requests: u64,
    /// Documents in them, those sent twice counted twice.
    pub documents_sent: u64,
    /// Bytes of their bodies before packing.
    pub bytes: u64,
    /// Bytes of their bodies on the wire.
    pub bytes_sent: u64,
    /// Requests that were halved for their size.
    pub halved: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    created: AtomicU64,
    existing: AtomicU64,
    retried: AtomicU64,
    rejected: AtomicU64,
    held: AtomicU64,
    requests: AtomicU64,
    documents_sent: AtomicU64,
    bytes: AtomicU64,
    bytes_sent: AtomicU64,
    halved: AtomicU64,
}

impl Counters {
    pub(super) fn sent(&self, documents: usize, bytes: usize, bytes_sent: usize) {
        self.requests.fetch_add(1, Relaxed);
        self.documents_sent.fetch_add(documents as u64, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.bytes_sent.fetch_add(bytes_sent as u64, Relaxed);
    }

    pub(super) fn halved(&self) {
        self.halved.fetch_add(1, Relaxed);
    }

    pub(super) fn answered(&self, outcomes: &[Outcome]) {
        let mut sums = [0_u64; 5];
        for outcome in outcomes {
            let place = match outcome {
                Outcome::Created => 0,
                Outcome::Exists => 1,
                Outcome::Retry { .. } => 2,
                Outcome::Rejected { .. } => 3,
                Outcome::Held { .. } => 4,
            };
            sums[place] += 1;
        }
        let counters = [&self.created, &self.existing, &self.retried, &self.rejected, &self.held];
        for (counter, sum) in counters.into_iter().zip(sums) {
            counter.fetch_add(sum, Relaxed);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            created: self.created.load(Relaxed),
            existing: self.existing.load(Relaxed),
            retried: self.retried.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            held: self.held.load(Relaxed),
            requests: self.requests.load(Relaxed),
            documents_sent: self.documents_sent.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            bytes_sent: self.bytes_sent.load(Relaxed),
            halved: self.halved.load(Relaxed),
        }
    }
}
