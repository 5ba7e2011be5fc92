//! How the servers are, for readiness: one sentence while something is wrong with them as a whole.
//!
//! What one lane suffers (a missing right on its index, a mapping) is that lane's affair and not said here.

use logmesh_runtime::health::{Condition, State as ConditionState};
use tokio::sync::watch;

/// Cheap to share; the last word counts.
#[derive(Debug)]
pub(super) struct State {
    condition: Condition,
    trouble: watch::Sender<Option<String>>,
}

impl State {
    pub(super) fn new(condition: Condition) -> Self {
        Self { condition, trouble: watch::Sender::new(None) }
    }

    /// Notes what is wrong, or that nothing is.
    pub(super) fn note(&self, trouble: Option<String>) {
        let changed = self.trouble.send_if_modified(|known| {
            let changed = *known != trouble;
            known.clone_from(&trouble);
            changed
        });
        // The condition begins as *starting*: the first word counts even if all is well.
        if changed || self.condition.state() == ConditionState::Starting {
            match trouble {
                Some(words) => self.condition.set(words),
                None => self.condition.clear(),
            }
        }
    }

    pub(super) fn is_troubled(&self) -> bool {
        self.trouble.borrow().is_some()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }
}
