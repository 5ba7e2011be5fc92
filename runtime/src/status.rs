//! What `/status` shows: one JSON value per part, computed when asked for.
//!
//! Owns the list of parts and nothing else; a part costs nothing while nobody asks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// What a part hands in: called for each request, on the thread of the admin server, so it must not block.
pub type Part = Arc<dyn Fn() -> Value + Send + Sync>;

/// All parts of one process. Cheap to clone; all clones are the same list.
#[derive(Clone, Default)]
pub struct Status {
    parts: Arc<Mutex<BTreeMap<&'static str, Part>>>,
}

impl Status {
    /// A process with nothing to show.
    pub fn new() -> Status {
        Status::default()
    }

    /// Shows `part` under `name`, in place of what was there.
    pub fn register(&self, name: &'static str, part: Part) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(name, part);
    }

    /// All parts as they are now: an object with one member per part.
    pub fn snapshot(&self) -> Value {
        // The list is copied first, so that a part may itself use this handle.
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Value::Object(parts.into_iter().map(|(name, part)| (name.to_owned(), part())).collect())
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        formatter.debug_tuple("Status").field(&parts.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use serde_json::json;

    use super::*;

    #[test]
    fn a_snapshot_asks_every_part_anew() {
        let status = Status::new();
        let streams = Arc::new(AtomicU64::new(1));
        let shown = Arc::clone(&streams);
        status.register("agent", Arc::new(move || json!({ "streams": shown.load(Ordering::Relaxed) })));
        status.register("gateway", Arc::new(|| json!({ "sessions": 0 })));
        assert_eq!(status.snapshot(), json!({ "agent": { "streams": 1 }, "gateway": { "sessions": 0 } }));
        streams.store(2, Ordering::Relaxed);
        assert_eq!(status.snapshot()["agent"]["streams"], 2);
    }

    #[test]
    fn a_part_may_use_the_handle_it_is_registered_in() {
        let status = Status::new();
        let inner = status.clone();
        status.register("self", Arc::new(move || json!(format!("{inner:?}"))));
        assert!(status.snapshot()["self"].as_str().is_some_and(|text| text.contains("self")));
    }
}
