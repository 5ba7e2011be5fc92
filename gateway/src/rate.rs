//! A rate limit as a bucket of tokens.
//!
//! Pure: time is passed in. One token is one uncompressed byte. The bucket holds one second's worth, but at least one
//! batch of the largest size, so that no batch can be too large for its rate.

use std::time::Duration;

use tokio::time::Instant;

/// Tokens, refilled at a steady rate.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    bytes_per_second: u64,
    capacity: f64,
    tokens: f64,
    refilled: Option<Instant>,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) fn new(bytes_per_second: u64, batch_bytes_max: u32) -> Self {
        let capacity = to_f64(bytes_per_second.max(u64::from(batch_bytes_max)));
        Self { bytes_per_second: bytes_per_second.max(1), capacity, tokens: capacity, refilled: None }
    }

    /// Takes `bytes` tokens, or says after what time it is worth trying again.
    pub(crate) fn take(&mut self, bytes: u32, now: Instant) -> Result<(), Duration> {
        let rate = to_f64(self.bytes_per_second);
        if let Some(refilled) = self.refilled {
            self.tokens = (self.tokens + now.duration_since(refilled).as_secs_f64() * rate).min(self.capacity);
        }
        self.refilled = Some(now);
        let wanted = f64::from(bytes).min(self.capacity);
        if self.tokens >= wanted {
            self.tokens -= wanted;
            return Ok(());
        }
        Err(Duration::from_secs_f64((wanted - self.tokens) / rate).max(Duration::from_millis(1)))
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate beyond 2^53 bytes a second is no limit")]
fn to_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_as_large_as_the_limit_passes_whatever_the_rate() {
        let mut bucket = TokenBucket::new(1, 1 << 20);
        let now = Instant::now();
        assert_eq!(bucket.take(1 << 20, now), Ok(()));
        let delay = bucket.take(100, now).unwrap_err();
        assert_eq!(bucket.take(100, now + delay), Ok(()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_passes_never_exceeds_one_bucket_plus_the_rate(
            rate in 1_u64..1_000_000,
            takes in proptest::collection::vec((0_u32..50_000, 0_u64..200), 1..200),
        ) {
            let begun = Instant::now();
            let mut now = begun;
            let mut bucket = TokenBucket::new(rate, 50_000);
            let mut passed = 0_u64;
            for (bytes, millis) in takes {
                now += Duration::from_millis(millis);
                if bucket.take(bytes, now).is_ok() {
                    passed += u64::from(bytes);
                }
            }
            let elapsed = now.duration_since(begun).as_secs_f64();
            let allowed = to_f64(rate.max(50_000)) + elapsed * to_f64(rate) + 1.0;
            prop_assert!(to_f64(passed) <= allowed, "{passed} of {allowed}");
        }

        #[test]
        fn who_waits_as_told_gets_in(rate in 1_u64..1_000_000, bytes in 1_u32..50_000) {
            let mut now = Instant::now();
            let mut bucket = TokenBucket::new(rate, 50_000);
            for _ in 0..20 {
                if let Err(delay) = bucket.take(bytes, now) {
                    now += delay + Duration::from_micros(1);
                    prop_assert_eq!(bucket.take(bytes, now), Ok(()));
                }
            }
        }
    }
}
