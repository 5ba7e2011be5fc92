//! Lanes that the bus does not take at the moment.
//!
//! A lane is a bus topic here. When the bus refuses one (it does not exist, writing is denied), it is held for a while:
//! its batches are refused at once, and those of other lanes go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a lane is held before the next batch tries it again.
pub(crate) const HOLD: Duration = Duration::from_secs(5);

/// All held lanes of a gateway. As many as the policy has pairs of topic and tenant, at most.
#[derive(Debug, Default)]
pub(crate) struct Lanes(Mutex<HashMap<Arc<str>, Hold>>);

/// Why and until when a lane is held.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) until: Instant,
    pub(crate) reason: String,
}

impl Lanes {
    /// Holds a lane. Whether it was free before.
    pub(crate) fn hold(&self, lane: &Arc<str>, reason: String, now: Instant) -> bool {
        let hold = Hold { until: now + HOLD, reason };
        self.lock().insert(Arc::clone(lane), hold).is_none()
    }

    /// The hold on a lane, if there is one now.
    pub(crate) fn held(&self, lane: &str, now: Instant) -> Option<Hold> {
        self.lock().get(lane).filter(|hold| hold.until > now).cloned()
    }

    /// Frees a lane that the bus took a batch for. Whether it was held.
    pub(crate) fn free(&self, lane: &str) -> bool {
        let mut lanes = self.lock();
        // The usual case costs no hashing.
        !lanes.is_empty() && lanes.remove(lane).is_some()
    }

    /// Lanes that were refused and have not been taken since, with the reasons.
    pub(crate) fn snapshot(&self) -> Vec<(Arc<str>, String)> {
        let lanes = self.lock();
        let mut list: Vec<_> = lanes.iter().map(|(lane, hold)| (Arc::clone(lane), hold.reason.clone())).collect();
        list.sort();
        list
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Hold>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_held_for_a_while_alone_and_freed_by_a_batch_that_passes() {
        let (lanes, now) = (Lanes::default(), Instant::now());
        let lane: Arc<str> = "logs.web".into();
        assert!(lanes.hold(&lane, "no such topic".to_owned(), now));
        assert_eq!(lanes.held("logs.web", now).unwrap().reason, "no such topic");
        assert!(lanes.held("logs.db", now).is_none());
        assert!(lanes.held("logs.web", now + HOLD).is_none(), "the next batch may try");
        assert!(lanes.free("logs.web") && !lanes.free("logs.web"));
        assert!(lanes.snapshot().is_empty());
    }
}
