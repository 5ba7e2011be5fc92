//! News for all who wait on a local bus: records became durable, topics or assignments changed, it closes.

use tokio::sync::watch;

/// Wakes everyone; each looks for itself whether the news concerns it.
#[derive(Clone, Debug)]
pub(super) struct Wake(watch::Sender<u64>);

impl Wake {
    pub(super) fn new() -> Self {
        Self(watch::channel(0).0)
    }

    pub(super) fn all(&self) {
        self.0.send_modify(|version| *version = version.wrapping_add(1));
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
