//! How long to wait before the next try: exponential with full jitter.
//!
//! Pure: the caller brings the randomness and does the waiting. Each wait is uniform over `[floor, ceiling]`, where the
//! ceiling is `min * 2^tries`, capped at `max`. The jitter is drawn *after* the cap, so that a crowd that was cut off
//! together does not come back together, however long the outage was ("exponential backoff and jitter", AWS
//! architecture blog). The floor is a tenth of `min`, so that even the luckiest draw is a pause and no spin.

use std::time::Duration;

/// The state of one retry loop.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    tries: u32,
}

impl Backoff {
    /// The first wait is at most `min`, each later one at most twice the one before, none more than `max`. A `max` below
    /// `min` counts as `min`.
    pub fn new(min: Duration, max: Duration) -> Backoff {
        Backoff { min, max: max.max(min), tries: 0 }
    }

    /// The next wait. `random` is a fresh uniform draw from `0.0..1.0`; anything outside is clamped.
    pub fn next(&mut self, random: f64) -> Duration {
        let ceiling = self.ceiling();
        self.tries = self.tries.saturating_add(1);
        let floor = self.min / 10;
        let random = if random.is_nan() { 1.0 } else { random.clamp(0.0, 1.0) };
        floor + ceiling.saturating_sub(floor).mul_f64(random)
    }

    /// The longest the next wait can be.
    pub fn ceiling(&self) -> Duration {
        let factor = 1u32.checked_shl(self.tries).unwrap_or(u32::MAX);
        self.min.saturating_mul(factor).min(self.max)
    }

    /// How many waits were asked for since the start or the last [`reset`](Self::reset).
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Starts over. To be called once the thing retried has *worked*, not when it has merely begun: a peer that accepts
    /// and then fails must still be paced.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIN: Duration = Duration::from_millis(200);
    const MAX: Duration = Duration::from_secs(10);

    #[test]
    fn ceilings_double_from_min_and_stop_at_max() {
        let mut backoff = Backoff::new(MIN, MAX);
        let seen: Vec<u128> = (0..8).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(seen, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }

    #[test]
    fn jitter_survives_the_cap() {
        let mut backoff = Backoff::new(MIN, MAX);
        for _ in 0..1000 {
            backoff.next(0.5);
        }
        assert!(backoff.next(0.1) < Duration::from_secs(2));
        assert!(backoff.next(0.9) > Duration::from_secs(8));
    }

    #[test]
    fn reset_starts_over() {
        let mut backoff = Backoff::new(MIN, MAX);
        backoff.next(0.3);
        backoff.next(0.3);
        backoff.reset();
        assert_eq!((backoff.tries(), backoff.next(1.0)), (0, MIN));
    }

    proptest! {
        #[test]
        fn every_wait_lies_between_floor_and_ceiling(
            min in 1u64..10_000, max in 0u64..1_000_000, draws in prop::collection::vec(0.0f64..1.0, 1..80),
        ) {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(max));
            let mut backoff = Backoff::new(min, max);
            let mut last_ceiling = Duration::ZERO;
            for draw in draws {
                let ceiling = backoff.ceiling();
                prop_assert!(ceiling >= last_ceiling && ceiling <= max.max(min));
                let wait = backoff.next(draw);
                prop_assert!(wait >= min / 10 && wait <= ceiling, "{wait:?} of {ceiling:?}");
                last_ceiling = ceiling;
            }
        }

        #[test]
        fn a_crowd_spreads_over_the_whole_span(tries in 0u32..2000, low in 0.0f64..0.5) {
            let mut one = Backoff { min: MIN, max: MAX, tries };
            let mut other = one.clone();
            let span = one.ceiling() - MIN / 10;
            let apart = other.next(low + 0.5) - one.next(low);
            prop_assert!(apart >= span.mul_f64(0.49), "{apart:?} of {span:?}");
        }
    }
}
