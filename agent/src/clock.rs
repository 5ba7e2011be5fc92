//! Time, as the agent is told it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One look at the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Time since some beginning; never goes back.
    pub mono: Duration,
    /// Nanoseconds since 1970-01-01 UTC.
    pub unix_nano: u64,
}

/// A source of time, so that a test can bring midnight about.
pub trait Clock: Send + 'static {
    /// The time now.
    fn now(&self) -> Now;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
    /// Nanoseconds added to the time of day.
    shift_nano: i64,
}

impl SystemClock {
    /// A clock whose time of day is shifted: for tests that cross a midnight.
    #[must_use]
    pub fn shifted(shift_nano: i64) -> Self {
        Self { start: Instant::now(), shift_nano }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::shifted(0)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_nano = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
        Now { mono: self.start.elapsed(), unix_nano: unix_nano.saturating_add_signed(self.shift_nano) }
    }
}
