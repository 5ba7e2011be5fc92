//! What was handed to the producer and not yet answered for: pure bookkeeping.
//!
//! Each record has a number, given in the order of appending. It stays here until its brokers have confirmed or refused
//! it, so that a producer that failed for good can be replaced and everything open be sent again, in order. Bytes are
//! shared with the caller, not copied.
//!
//! Success counts from whichever producer it comes. That a producer failed a record counts only once it is clear that it
//! was not the producer itself that failed; who asks decides that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use crate::{DeliverySender, Record};

/// A record under way. `Hold` is what is given back when it is answered: its bytes of the queue.
#[derive(Debug)]
pub(super) struct Entry<Hold> {
    pub(super) topic: Arc<str>,
    pub(super) record: Record,
    pub(super) answer: DeliverySender,
    pub(super) entered: Instant,
    /// When its sender is told that nobody answered, should no producer do so.
    pub(super) expires: Instant,
    pub(super) _hold: Hold,
}

/// All records under way.
#[derive(Debug)]
pub(super) struct Ledger<Hold> {
    entries: BTreeMap<u64, Entry<Hold>>,
    next: u64,
}

impl<Hold> Ledger<Hold> {
    pub(super) fn new() -> Self {
        Self { entries: BTreeMap::new(), next: 0 }
    }

    /// Takes a record in, behind all others.
    pub(super) fn enter(&mut self, entry: Entry<Hold>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.entries.insert(number, entry);
        number
    }

    /// Takes back a record that is not to be tried again.
    pub(super) fn withdraw(&mut self, number: u64) -> Option<Entry<Hold>> {
        self.entries.remove(&number)
    }

    /// The brokers confirmed a record, through whichever producer.
    pub(super) fn confirmed(&mut self, number: u64) -> Option<Entry<Hold>> {
        self.entries.remove(&number)
    }

    /// Everything open, in order: what a new producer is to be given.
    pub(super) fn open(&self) -> impl Iterator<Item = (u64, &Entry<Hold>)> {
        self.entries.iter().map(|(number, entry)| (*number, entry))
    }

    /// Topics of records that entered no later than `limit`, which are the first.
    pub(super) fn topics_since(&self, limit: Instant) -> BTreeSet<Arc<str>> {
        let old = self.entries.values().take_while(|entry| entry.entered <= limit);
        old.map(|entry| Arc::clone(&entry.topic)).collect()
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
        Entry { topic: "logs.a".into(), record, answer: Delivery::channel().0, entered: expires, expires, _hold: () }
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
        assert_eq!(values(&ledger), [(0, "a".into()), (2, "c".into()), (3, "d".into())]);
    }

    #[test]
    fn a_record_is_answered_once() {
        let (mut ledger, later) = (Ledger::new(), Instant::now() + Duration::from_secs(9));
        let (one, other) = (ledger.enter(entry("a", later)), ledger.enter(entry("b", later)));
        assert!(ledger.confirmed(one).is_some());
        assert!(ledger.withdraw(one).is_none(), "an earlier producer's failure comes too late");
        assert!(ledger.withdraw(other).is_some());
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
