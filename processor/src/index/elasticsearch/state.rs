//! How the servers are, for readiness: one sentence while something is wrong with them as a whole.
//!
//! What one lane suffers (a missing right on its index, a mapping) is that lane's affair and not said here.

use logmesh_runtime::health::Condition;
use tokio::sync::watch;

/// Cheap to share; the last word counts.
#[derive(Debug)]
pub(super) struct State {
    condition: Condition,
    trouble: watch::Sender<Option<String>>,
}

impl State {
    pub(super) fn new(condition: Condition) -> Self {
        condition.clear();
        Self { condition, trouble: watch::Sender::new(None) }
    }

    /// Notes what is wrong, or that nothing is.
    pub(super) fn note(&self, trouble: Option<String>) {
        let changed = self.trouble.send_if_modified(|known| {
            let changed = *known != trouble;
            known.clone_from(&trouble);
            changed
        });
        if changed {
            match trouble {
                Some(words) => self.condition.set(words),
                None => self.condition.clear(),
            }
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }
}
