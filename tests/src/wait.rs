//! Waiting for a condition under a deadline: the only way in which scenarios wait.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::time::MissedTickBehavior;

/// How many times its promised time a condition may take: tests share their machine.
pub const SLACK: u32 = 5;

/// Time between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a look at a condition found.
#[derive(Debug)]
pub enum Look<T> {
    /// It holds.
    Holds(T),
    /// Not yet, and why: said when the deadline passes.
    NotYet(String),
}

/// Looks at a condition until it holds and returns what it found.
///
/// # Errors
///
/// When the deadline passes, with the last reason; and at once when a look itself fails.
pub async fn wait_until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<Look<T>>,
) -> Result<T> {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let reason = match look().await? {
            Look::Holds(found) => return Ok(found),
            Look::NotYet(reason) => reason,
        };
        if begun.elapsed() > deadline {
            bail!("waited {deadline:?} in vain: {what}; last seen: {reason}");
        }
    }
}

/// Watches that a condition keeps holding for all of a period.
///
/// # Errors
///
/// As soon as a look fails or says [`Look::NotYet`].
pub async fn holds_for(what: &str, period: Duration, mut look: impl AsyncFnMut() -> Result<Look<()>>) -> Result<()> {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while begun.elapsed() < period {
        ticks.tick().await;
        if let Look::NotYet(reason) = look().await? {
            bail!("{what} ceased to hold after {:?}: {reason}", begun.elapsed());
        }
    }
    Ok(())
}
