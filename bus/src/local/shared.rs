//! What the parts of a local bus share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::conditions::Conditions;
use super::group::{Group, MemberId};
use super::keeper::Desk;
use super::options::LocalOptions;
use super::store::Store;
use super::topics::Topic;
use super::wake::Wake;

pub(super) struct Shared {
    pub(super) options: LocalOptions,
    /// The first holds all topics but those set apart, which are in the second (if any are).
    pub(super) stores: Vec<Store>,
    pub(super) desk: Desk,
    pub(super) wake: Wake,
    pub(super) conditions: Arc<Conditions>,
    groups: Mutex<BTreeMap<String, Group>>,
    members: AtomicU64,
    closed: AtomicBool,
}

impl Shared {
    pub(super) fn new(
        options: LocalOptions,
        stores: Vec<Store>,
        groups: BTreeMap<String, Group>,
        wake: Wake,
        conditions: Arc<Conditions>,
    ) -> Self {
        Self {
            options,
            stores,
            desk: Desk::new(),
            wake,
            conditions,
            groups: Mutex::new(groups),
            members: AtomicU64::new(1),
            closed: AtomicBool::new(false),
        }
    }

    /// The groups. Never held over anything that waits.
    pub(super) fn groups(&self) -> MutexGuard<'_, BTreeMap<String, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which journal holds `topic`.
    pub(super) fn store_of(&self, topic: &str) -> usize {
        usize::from(is_set_apart(&self.options, topic))
    }

    pub(super) fn next_member(&self) -> MemberId {
        self.members.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells every group that reads it of a topic.
    pub(super) fn announce(&self, topic: &Topic) {
        let now = Instant::now();
        for group in self.groups().values_mut() {
            if group.reads(&topic.name) {
                group.topic(&topic.name, topic.count(), now);
            }
        }
        self.wake.all();
    }

    /// Tells one group of all topics that it reads.
    pub(super) fn announce_all(&self, group: &mut Group) {
        let now = Instant::now();
        for topic in self.stores.iter().flat_map(|store| store.topics.all()) {
            if group.reads(&topic.name) {
                group.topic(&topic.name, topic.count(), now);
            }
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake.all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// Whether `topic` is kept in the second journal.
pub(super) fn is_set_apart(options: &LocalOptions, topic: &str) -> bool {
    options.set_apart.iter().any(|pattern| crate::consumer::matches_pattern(pattern, topic))
}
