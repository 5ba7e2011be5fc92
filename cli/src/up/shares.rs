//! How `logmesh up` divides its memory.

/// Fixed shares of the memory, in bytes: no stage ever waits for another's.
pub(super) struct Shares {
    pub(super) agent: u64,
    pub(super) gateway: u64,
    pub(super) processor: u64,
    pub(super) index: u64,
}

impl Shares {
    pub(super) fn of(memory: u64) -> Self {
        let twelfth = memory / 12;
        Self { agent: twelfth, gateway: 3 * twelfth, processor: 3 * twelfth, index: 5 * twelfth }
    }
}
