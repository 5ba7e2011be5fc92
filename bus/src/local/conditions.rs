//! One condition out of what the journals and the commit file say.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use logmesh_journal::State;
use tokio::sync::watch;

use crate::Condition;

/// Who spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Journal(usize),
    Commits,
}

#[derive(Debug)]
pub(super) struct Conditions {
    /// What is not in order.
    troubles: Mutex<BTreeMap<Source, Condition>>,
    whole: watch::Sender<Condition>,
}

impl Conditions {
    pub(super) fn new() -> Self {
        Self { troubles: Mutex::new(BTreeMap::new()), whole: watch::channel(Condition::Ok).0 }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Condition> {
        self.whole.subscribe()
    }

    pub(super) fn journal(&self, store: usize, state: &State) {
        let condition = match state {
            State::Ok | State::Closed => Condition::Ok,
            State::Full { reason } => Condition::Full { reason: reason.clone() },
            State::Failed { reason } => Condition::Failed { reason: reason.clone() },
        };
        self.set(Source::Journal(store), condition);
    }

    pub(super) fn commits(&self, trouble: Option<&str>) {
        let condition = trouble.map_or(Condition::Ok, |reason| Condition::Degraded { reason: reason.to_owned() });
        self.set(Source::Commits, condition);
    }

    fn set(&self, source: Source, condition: Condition) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if condition == Condition::Ok {
            troubles.remove(&source);
        } else {
            troubles.insert(source, condition);
        }
        let worst = troubles.values().max_by_key(|condition| severity(condition)).cloned().unwrap_or_default();
        self.whole.send_if_modified(|whole| {
            let changed = *whole != worst;
            *whole = worst;
            changed
        });
    }
}

fn severity(condition: &Condition) -> u8 {
    match condition {
        Condition::Ok => 0,
        Condition::Degraded { .. } => 1,
        Condition::Full { .. } => 2,
        Condition::Failed { .. } => 3,
    }
}
