//! How the servers are, for readiness: one sentence while something is wrong with them as a whole.
//!
//! What one lane suffers (a missing right on its index, a mapping) is that lane's affair and not said here.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use logmesh_runtime::health::{Condition, State as ConditionState};
use tokio::sync::watch;

/// What a request says of the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// They answer as they should.
    Well,
    /// Nothing: one node of several did not answer.
    Silent,
    /// They do not answer, or not as they should: whoever asks them how they are will know when that is over.
    Trouble(String),
    /// They answer, and refuse what we ask: only the next bulk request shows whether that is over.
    Refusal(String),
}

/// Cheap to share; the last word counts.
#[derive(Debug)]
pub(super) struct State {
    condition: Condition,
    trouble: watch::Sender<Option<String>>,
    /// Asking them how they are would tell whether the trouble is over.
    askable: AtomicBool,
}

impl State {
    pub(super) fn new(condition: Condition) -> Self {
        Self { condition, trouble: watch::Sender::new(None), askable: AtomicBool::new(false) }
    }

    /// Notes what a request said.
    pub(super) fn note(&self, health: Health) {
        let (trouble, askable) = match health {
            Health::Silent => return,
            Health::Well => (None, false),
            Health::Trouble(words) => (Some(words), true),
            Health::Refusal(words) => (Some(words), false),
        };
        self.askable.store(askable, Relaxed);
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

    /// Whether asking the servers how they are would tell when the trouble is over.
    pub(super) fn is_askable(&self) -> bool {
        self.askable.load(Relaxed)
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }
}
