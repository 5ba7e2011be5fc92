//! How an input is: one condition for all of its parts, and the pauses between tries.
//!
//! An input with several parts (the listeners of syslog) has one condition, which says what is wrong with each of them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use logmesh_runtime::{
    backoff::Backoff,
    health::{Condition, Health},
};
use tokio_util::sync::CancellationToken;

/// One part's share in the condition of its input.
#[derive(Clone, Debug)]
pub(super) struct Part {
    shared: Arc<Shared>,
    index: usize,
}

#[derive(Debug)]
struct Shared {
    condition: Condition,
    parts: Mutex<Vec<How>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    Starting,
    Well,
    Warning(String),
    Failing(String),
}

/// The parts of the input with this name.
pub(super) fn parts(health: &Health, name: &str, count: usize) -> Vec<Part> {
    // Conditions are named for as long as the process lives; there are as many as inputs are configured.
    let name: &'static str = Box::leak(format!("agent.input.{name}").into_boxed_str());
    let parts = Mutex::new(vec![How::Starting; count]);
    let shared = Arc::new(Shared { condition: health.condition(name), parts });
    (0..count).map(|index| Part { shared: Arc::clone(&shared), index }).collect()
}

impl Part {
    /// It works.
    pub(super) fn well(&self) {
        self.enter(How::Well);
    }

    /// It works, but this should be known.
    pub(super) fn warn(&self, what: impl Into<String>) {
        self.enter(How::Warning(what.into()));
    }

    /// It does not work, for this reason.
    pub(super) fn fail(&self, what: impl Into<String>) {
        self.enter(How::Failing(what.into()));
    }

    fn enter(&self, how: How) {
        let mut parts = self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if parts[self.index] == how {
            return;
        }
        parts[self.index] = how;
        let words = |wanted: fn(&How) -> Option<&str>| parts.iter().filter_map(wanted).collect::<Vec<_>>().join("; ");
        let failing = words(|how| if let How::Failing(what) = how { Some(what) } else { None });
        let warnings = words(|how| if let How::Warning(what) = how { Some(what) } else { None });
        let condition = &self.shared.condition;
        match (failing.as_str(), warnings.as_str()) {
            ("", _) if parts.contains(&How::Starting) => {}
            ("", "") => condition.clear(),
            ("", _) => condition.warn(warnings),
            (_, "") => condition.set(failing),
            (_, _) => condition.set(format!("{failing}; {warnings}")),
        }
    }
}

/// The pauses between the tries of one part.
#[derive(Debug)]
pub(super) struct Pace {
    backoff: Backoff,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(30)) }
    }

    /// It has worked: the next pause is a short one.
    pub(super) fn reset(&mut self) {
        self.backoff.reset();
    }

    /// Waits for the next try; `false` when there is to be none.
    pub(super) async fn wait(&mut self, stop: &CancellationToken) -> bool {
        let pause = self.backoff.next(rand::random());
        stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
    }
}

#[cfg(test)]
mod tests {
    use logmesh_runtime::health::State;

    use super::*;

    #[test]
    fn the_condition_of_an_input_says_what_is_wrong_with_each_part_of_it() {
        let health = Health::new();
        let parts = parts(&health, "syslog", 2);
        let reasons = || health.readiness().reasons;
        parts[0].well();
        assert_eq!(reasons()[0].state, State::Starting, "the other has not begun");
        parts[1].fail("port 514 is in use");
        assert_eq!((reasons()[0].condition, reasons()[0].state), ("agent.input.syslog", State::Failing));
        parts[0].warn("3 datagrams dropped");
        assert_eq!(reasons()[0].reason, "port 514 is in use; 3 datagrams dropped");
        parts[1].well();
        assert_eq!((reasons()[0].state, reasons()[0].reason.as_str()), (State::Warning, "3 datagrams dropped"));
        parts[0].well();
        assert!(reasons().is_empty());
    }
}
