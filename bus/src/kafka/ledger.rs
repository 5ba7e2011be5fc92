//! What was handed to the producer and not yet answered for: pure bookkeeping.
//!
//! Each record has a number, given in the order of appending. It stays here until its brokers have confirmed or refused
//! it, so that a producer that failed for good can be replaced and everything open be sent again, in order. Bytes are
//! shared with the caller, not copied.
//!
//! A report belongs to the producer that was handed the record. Of an earlier producer only success counts: its
//! failures are the reason why the record was sent again.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::{DeliverySender, Record};

/// A record under way. `Hold` is what is given back when it is answered: its bytes of the queue.
#[derive(Debug)]
pub(super) struct Entry<Hold> {
    pub(super) topic: Arc<str>,
    pub(super) record: Record,
    pub(super) answer: DeliverySender,
    /// When its sender is told that nobody answered, should no producer do so.
    pub(super) expires: Instant,
    pub(super) _hold: Hold,
}

/// All records under way.
#[derive(Debug)]
pub(super) struct Ledger<Hold> {
    entries: BTreeMap<u64, Entry<Hold>>,
    next: u64,
    /// Which producer is the current one.
    generation: u64,
}

impl<Hold> Ledger<Hold> {
    pub(super) fn new() -> Self {
        Self { entries: BTreeMap::new(), next: 0, generation: 0 }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes a record in, behind all others.
    pub(super) fn enter(&mut self, entry: Entry<Hold>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.entries.insert(number, entry);
        number
    }

    /// Takes back a record that the producer did not take.
    pub(super) fn withdraw(&mut self, number: u64) -> Option<Entry<Hold>> {
        self.entries.remove(&number)
    }

    /// The brokers confirmed a record, through whichever producer.
    pub(super) fn confirmed(&mut self, number: u64) -> Option<Entry<Hold>> {
        self.entries.remove(&number)
    }

    /// A producer says that a record failed for good; `None` when it is not that one's to say.
    pub(super) fn failed(&mut self, number: u64, generation: u64) -> Option<Entry<Hold>> {
        if generation == self.generation { self.entries.remove(&number) } else { None }
    }

    /// The producer is being replaced: from now on its failures mean nothing.
    pub(super) fn replace_producer(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// Everything open, in order: what a new producer is to be given.
    pub(super) fn open(&self) -> impl Iterator<Item = (u64, &Entry<Hold>)> {
        self.entries.iter().map(|(number, entry)| (*number, entry))
    }

    /// Gives up what nobody answered for in time.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Entry<Hold>> {
        self.entries.extract_if(.., |_, entry| entry.expires <= now).map(|(_, entry)| entry).collect()
    }

    /// Gives up everything.
    pub(super) fn clear(&mut self) -> Vec<Entry<Hold>> {
        std::mem::take(&mut self.entries).into_values().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::Delivery;

    fn entry(value: &'static str, expires: Instant) -> Entry<()> {
        let record = Record { key: Bytes::new(), headers: Vec::new(), value: Bytes::from_static(value.as_bytes()) };
        Entry { topic: "logs.a".into(), record, answer: Delivery::channel().0, expires, _hold: () }
    }

    fn values(ledger: &Ledger<()>) -> Vec<(u64, Bytes)> {
        ledger.open().map(|(number, entry)| (number, entry.record.value.clone())).collect()
    }

    #[test]
    fn a_new_producer_is_given_what_is_open_in_the_order_of_appending() {
        let (mut ledger, later) = (Ledger::new(), Instant::now() + Duration::from_secs(9));
        for value in ["a", "b", "c", "d"] {
            ledger.enter(entry(value, later));
        }
        assert!(ledger.confirmed(1).is_some());
        ledger.replace_producer();
        assert_eq!(values(&ledger), [(0, "a".into()), (2, "c".into()), (3, "d".into())]);
    }

    #[test]
    fn of_a_replaced_producer_success_counts_and_failure_does_not() {
        let (mut ledger, later) = (Ledger::new(), Instant::now() + Duration::from_secs(9));
        let (one, other) = (ledger.enter(entry("a", later)), ledger.enter(entry("b", later)));
        let old = ledger.generation();
        let new = ledger.replace_producer();
        assert!(ledger.failed(one, old).is_none(), "it was sent again");
        assert!(ledger.confirmed(one).is_some());
        assert!(ledger.failed(one, new).is_none(), "it is answered already");
        assert!(ledger.failed(other, new).is_some());
        assert_eq!(ledger.len(), 0);
    }

    #[test]
    fn what_nobody_answers_for_expires_alone() {
        let (mut ledger, now) = (Ledger::new(), Instant::now());
        ledger.enter(entry("soon", now + Duration::from_secs(1)));
        ledger.enter(entry("late", now + Duration::from_secs(2)));
        assert_eq!(ledger.expire(now + Duration::from_secs(1)).len(), 1);
        assert_eq!(values(&ledger), [(1, "late".into())]);
    }
}
