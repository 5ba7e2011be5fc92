//! Which lanes wait for the index, and why: one readiness condition for all of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use logmesh_runtime::health::Condition;

/// Lanes in trouble, by topic. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Troubles {
    condition: Condition,
    lanes: Arc<Mutex<BTreeMap<Arc<str>, String>>>,
}

impl Troubles {
    /// Speaks through `condition`, which is cleared while no lane is in trouble.
    pub(crate) fn new(condition: Condition) -> Self {
        condition.clear();
        Self { condition, lanes: Arc::default() }
    }

    /// Notes why a lane waits.
    pub(crate) fn set(&self, lane: &Arc<str>, reason: &str) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.get(lane).is_none_or(|known| known != reason) {
            lanes.insert(Arc::clone(lane), reason.to_owned());
            self.condition.set(describe(&lanes));
        }
    }

    /// Notes that a lane flows.
    pub(crate) fn clear(&self, lane: &Arc<str>) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.remove(lane).is_some() {
            if lanes.is_empty() { self.condition.clear() } else { self.condition.set(describe(&lanes)) }
        }
    }

    /// The lanes in trouble, for `/status`.
    pub(crate) fn snapshot(&self) -> BTreeMap<Arc<str>, String> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn describe(lanes: &BTreeMap<Arc<str>, String>) -> String {
    lanes.iter().map(|(lane, reason)| format!("{lane}: {reason}")).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use logmesh_runtime::health::Health;

    use super::*;

    #[test]
    fn readiness_names_each_lane_in_trouble_and_no_other() {
        let health = Health::new();
        let troubles = Troubles::new(health.condition("index"));
        let (first, second): (Arc<str>, Arc<str>) = ("logs.a".into(), "logs.b".into());
        troubles.set(&first, "no right");
        troubles.set(&second, "busy");
        troubles.clear(&first);
        let readiness = health.readiness();
        assert!(!readiness.ready);
        assert_eq!(troubles.snapshot().len(), 1);
        troubles.clear(&second);
        assert!(health.readiness().ready);
    }
}
