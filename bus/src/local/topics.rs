//! The topics of one journal, with the ends of their partitions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Most topics of a bus: what bounds the memory that names from outside can take.
pub(super) const TOPICS_MAX: usize = 10_000;

/// One topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) partitions: Vec<Ends>,
}

/// Where a partition ends.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// The offset that the next encoded record gets. The writer's alone.
    next: AtomicU64,
    /// The offset behind the last durable record.
    durable: AtomicU64,
}

/// All topics of one journal.
#[derive(Debug, Default)]
pub(super) struct Topics(RwLock<BTreeMap<Arc<str>, Arc<Topic>>>);

impl Topic {
    pub(super) fn count(&self) -> u16 {
        // Made by `Topics::ensure` from a u16.
        u16::try_from(self.partitions.len()).unwrap_or(u16::MAX)
    }

    /// The partition of `key`.
    pub(super) fn partition_of(&self, key: &[u8]) -> u16 {
        let hash = xxhash_rust::xxh3::xxh3_64(key);
        (hash % u64::from(self.count().max(1))) as u16
    }
}

impl Ends {
    /// Takes the next offset.
    pub(super) fn take(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives back the offsets that did not become durable.
    pub(super) fn rewind(&self) {
        self.next.store(self.durable(), Ordering::Relaxed);
    }

    /// The offset behind the last durable record.
    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Everything below `end` is durable.
    pub(super) fn set_durable(&self, end: u64) {
        self.durable.store(end, Ordering::Release);
    }

    /// Begins (or goes on) at `end` at least; only before the writer starts.
    pub(super) fn raise(&self, end: u64) {
        let end = end.max(self.durable());
        self.durable.store(end, Ordering::Release);
        self.next.store(end, Ordering::Relaxed);
    }
}

impl Topics {
    pub(super) fn find(&self, name: &str) -> Option<Arc<Topic>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Topic>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The topic `name`, made with `partitions` when it is new; whether it is. `None`: too many topics.
    pub(super) fn ensure(&self, name: &str, partitions: u16) -> Option<(Arc<Topic>, bool)> {
        let mut topics = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(name) {
            return Some((topic.clone(), false));
        }
        if topics.len() >= TOPICS_MAX {
            return None;
        }
        let name: Arc<str> = name.into();
        let partitions = (0..partitions.max(1)).map(|_| Ends::default()).collect();
        let topic = Arc::new(Topic { name: name.clone(), partitions });
        topics.insert(name, topic.clone());
        Some((topic, true))
    }
}
