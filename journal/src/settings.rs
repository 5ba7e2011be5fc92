//! The options, and the one of them that may change while the journal is open.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Options;

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) options: Options,
    reserve_bytes: AtomicU64,
}

impl Settings {
    pub(crate) fn new(options: Options) -> Self {
        let reserve_bytes = AtomicU64::new(options.reserve_bytes);
        Self { options, reserve_bytes }
    }

    pub(crate) fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_reserve_bytes(&self, bytes: u64) {
        self.reserve_bytes.store(bytes, Ordering::Relaxed);
    }
}
