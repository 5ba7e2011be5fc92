//! The configuration in force, which a reload replaces whole.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// A value that readers take without waiting and a reload swaps once the new one was found valid. Readers that need
/// several settings to agree load once and keep what they loaded.
#[derive(Debug)]
pub struct Live<T> {
    value: ArcSwap<T>,
}

impl<T> Live<T> {
    /// Holds `value` until the first swap.
    pub fn new(value: T) -> Live<T> {
        Live { value: ArcSwap::from_pointee(value) }
    }

    /// What is in force now.
    pub fn load(&self) -> Arc<T> {
        self.value.load_full()
    }

    /// Puts `value` in force and returns what was before.
    pub fn swap(&self, value: T) -> Arc<T> {
        self.value.swap(Arc::new(value))
    }
}
