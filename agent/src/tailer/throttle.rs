//! The rate at which a group's files are read, where it has a limit.
//!
//! A bucket of bytes that holds a second's worth. It is paid when something was cut, so that any record passes, however
//! slow the rate, and its group waits until the debt is paid; nothing is ever dropped for it. Files that wait do so in
//! line. Batches that are sent again are not charged again. Pure: time is passed in.

use std::{collections::VecDeque, time::Duration};

use super::turns::QUANTUM_BYTES;
use crate::parcel::StreamNumber;

const NANOS: u128 = 1_000_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Throttle {
    bytes_per_second: u64,
    /// Bytes that may be read; negative while there is a debt.
    bytes: i64,
    /// Up to when `bytes` is counted.
    counted_to: Duration,
    waiting: VecDeque<StreamNumber>,
}

impl Throttle {
    /// A full bucket.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        let bytes_per_second = bytes_per_second.clamp(1, 1 << 40);
        let bytes = i64::try_from(bytes_per_second).unwrap_or(i64::MAX);
        Self { bytes_per_second, bytes, counted_to: Duration::ZERO, waiting: VecDeque::new() }
    }

    /// Bytes that one turn may take; `None` while there are not so many. Turns are alike, so that those in line get alike.
    pub(super) fn budget(&mut self, now: Duration) -> Option<usize> {
        self.refill(now);
        (self.bytes >= self.turn_bytes()).then(|| usize::try_from(self.turn_bytes()).unwrap_or(1))
    }

    /// A tenth of a second's worth, or what one read takes.
    fn turn_bytes(&self) -> i64 {
        i64::try_from((self.bytes_per_second / 10).clamp(1, QUANTUM_BYTES as u64)).unwrap_or(1)
    }

    /// Pays for what was cut.
    pub(super) fn pay(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Puts a file in line.
    pub(super) fn wait(&mut self, number: StreamNumber) {
        self.waiting.push_back(number);
    }

    /// When those who wait may go on; `None` while nobody does.
    pub(super) fn opens_at(&self) -> Option<Duration> {
        let missing = u128::try_from(self.turn_bytes().saturating_sub(self.bytes)).unwrap_or(0);
        let nanos = (missing * NANOS).div_ceil(u128::from(self.bytes_per_second));
        let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        (!self.waiting.is_empty()).then(|| self.counted_to.saturating_add(wait))
    }

    /// Those who may go on, in order.
    pub(super) fn released(&mut self, now: Duration) -> VecDeque<StreamNumber> {
        if self.opens_at().is_some_and(|at| at <= now) { std::mem::take(&mut self.waiting) } else { VecDeque::new() }
    }

    fn refill(&mut self, now: Duration) {
        let rate = u128::from(self.bytes_per_second);
        let gained = now.saturating_sub(self.counted_to).as_nanos().saturating_mul(rate) / NANOS;
        let full = i64::try_from(self.bytes_per_second).unwrap_or(i64::MAX);
        match i64::try_from(gained) {
            Ok(gained) if self.bytes.saturating_add(gained) < full => {
                self.bytes += gained;
                // Parts of a byte are not lost, however often it is asked.
                let nanos = (u128::try_from(gained).unwrap_or(0) * NANOS).div_ceil(rate);
                self.counted_to += Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            }
            Ok(_) | Err(_) => (self.bytes, self.counted_to) = (full, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_of_any_size_passes_and_is_waited_for() {
        let mut throttle = Throttle::new(1000);
        assert_eq!(throttle.budget(Duration::ZERO), Some(100));
        throttle.pay(5000);
        assert_eq!((throttle.budget(Duration::from_secs(4)), throttle.opens_at()), (None, None));
        throttle.wait(StreamNumber(1));
        throttle.wait(StreamNumber(2));
        assert_eq!(throttle.opens_at(), Some(Duration::from_millis(4100)));
        assert!(throttle.released(Duration::from_millis(4099)).is_empty());
        assert_eq!(throttle.released(Duration::from_millis(4100)), [StreamNumber(1), StreamNumber(2)]);
        assert_eq!(throttle.budget(Duration::from_millis(4100)), Some(100));
        assert_eq!(throttle.budget(Duration::from_secs(3600)), Some(100));
        throttle.pay(901);
        assert_eq!(throttle.budget(Duration::from_secs(3600)), None, "a second's worth at most");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn what_passes_is_a_bucket_plus_the_rate_and_whoever_waits_as_told_gets_in(
            rate in 1u64..10_000_000,
            reads in prop::collection::vec((1usize..300_000, 0u64..3_000_000_000), 1..80),
        ) {
            let (mut throttle, mut now, mut passed) = (Throttle::new(rate), Duration::ZERO, 0u128);
            let mut last = 0;
            for (bytes, pause) in reads {
                now += Duration::from_nanos(pause);
                if throttle.budget(now).is_none() {
                    throttle.wait(StreamNumber(0));
                    now = now.max(throttle.opens_at().unwrap());
                    prop_assert_eq!(throttle.released(now).len(), 1);
                    prop_assert!(throttle.budget(now).is_some());
                }
                throttle.pay(bytes);
                passed += bytes as u128;
                last = bytes as u128;
            }
            let allowed = u128::from(rate) + now.as_nanos() * u128::from(rate) / NANOS + last + 1;
            prop_assert!(passed <= allowed, "{} of {}", passed, allowed);
        }
    }
}
