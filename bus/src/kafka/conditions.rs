//! One condition out of what brokers, topics and clients say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::Condition;

/// Who is in trouble. The first of several is what is told: without brokers nothing else matters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// The way to the brokers: addresses, TLS, credentials.
    Brokers,
    /// The producer, which is being rebuilt.
    Producer,
    /// A group that may not be used or joined.
    Group(String),
    /// A topic whose lane is held.
    Topic(Arc<str>),
    /// A topic whose records are not confirmed.
    Stuck(Arc<str>),
}

/// What is not in order, and who listens.
#[derive(Debug)]
pub(super) struct Conditions {
    troubles: Mutex<BTreeMap<Source, String>>,
    whole: watch::Sender<Condition>,
}

impl Conditions {
    pub(super) fn new() -> Self {
        Self { troubles: Mutex::new(BTreeMap::new()), whole: watch::channel(Condition::Ok).0 }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Condition> {
        self.whole.subscribe()
    }

    /// Notes a trouble. Whether it is new or has changed its words.
    pub(super) fn set(&self, source: Source, reason: &str) -> bool {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let before = troubles.insert(source, reason.to_owned());
        self.tell(&troubles);
        before.as_deref() != Some(reason)
    }

    /// Forgets a trouble. Whether there was one.
    pub(super) fn clear(&self, source: &Source) -> bool {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let cleared = troubles.remove(source).is_some();
        if cleared {
            self.tell(&troubles);
        }
        cleared
    }

    /// What is wrong with `source`, if anything.
    pub(super) fn trouble(&self, source: &Source) -> Option<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).get(source).cloned()
    }

    /// Says all troubles in one sentence each: an operator cures them in this order.
    fn tell(&self, troubles: &BTreeMap<Source, String>) {
        let condition = if troubles.is_empty() {
            Condition::Ok
        } else {
            Condition::Degraded { reason: troubles.values().map(String::as_str).collect::<Vec<_>>().join("; ") }
        };
        self.whole.send_if_modified(|whole| {
            let changed = *whole != condition;
            *whole = condition;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_told_together_and_are_over_one_by_one() {
        let conditions = Conditions::new();
        let told = conditions.subscribe();
        let reason = || match &*told.borrow() {
            Condition::Degraded { reason } => reason.clone(),
            other @ (Condition::Ok | Condition::Full { .. } | Condition::Failed { .. }) => format!("{other:?}"),
        };
        assert!(conditions.set(Source::Topic("logs.a".into()), "no topic"));
        assert!(!conditions.set(Source::Topic("logs.a".into()), "no topic"), "nothing new");
        conditions.set(Source::Brokers, "no broker");
        assert_eq!(reason(), "no broker; no topic");
        assert!(conditions.clear(&Source::Brokers));
        assert!(!conditions.clear(&Source::Brokers));
        assert_eq!(reason(), "no topic");
        conditions.clear(&Source::Topic("logs.a".into()));
        assert_eq!(*told.borrow(), Condition::Ok);
    }
}
