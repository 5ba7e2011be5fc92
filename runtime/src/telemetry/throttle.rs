//! One log line per key and interval, and a count of those held back.
//!
//! Pure: the caller passes the time and writes the line. Holds a bounded number of keys; when there are more, the one
//! longest silent is forgotten, which can only let a line through early.

use std::collections::HashMap;
use std::time::{Duration, Instant};

const KEYS_MAX: usize = 256;

/// The memory of what was said lately.
///
/// ```
/// # use std::time::{Duration, Instant};
/// # use logmesh_runtime::telemetry::Throttle;
/// let mut throttle = Throttle::new(Duration::from_secs(10));
/// # let (peer, now) = ("10.0.0.1", Instant::now());
/// if let Some(suppressed) = throttle.admit(peer, now) {
///     tracing::warn!(peer, suppressed, "connection refused");
/// }
/// ```
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    said: HashMap<String, Said>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    suppressed: u64,
}

impl Throttle {
    /// At most one line per key and `interval`.
    pub fn new(interval: Duration) -> Throttle {
        Throttle { interval, said: HashMap::new() }
    }

    /// Whether a line about `key` may be written now; if so, how many were held back since the last.
    pub fn admit(&mut self, key: &str, now: Instant) -> Option<u64> {
        if let Some(said) = self.said.get_mut(key) {
            if now.saturating_duration_since(said.at) < self.interval {
                said.suppressed += 1;
                return None;
            }
            said.at = now;
            return Some(std::mem::take(&mut said.suppressed));
        }
        if self.said.len() >= KEYS_MAX {
            let oldest = self.said.iter().min_by_key(|(_, said)| said.at).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.said.remove(&key));
        }
        self.said.insert(key.to_owned(), Said { at: now, suppressed: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn one_line_per_key_and_interval_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut throttle = Throttle::new(INTERVAL);
        assert_eq!(throttle.admit("a", start), Some(0));
        assert_eq!(throttle.admit("b", start), Some(0));
        for second in 1..10 {
            assert_eq!(throttle.admit("a", start + Duration::from_secs(second)), None);
        }
        assert_eq!(throttle.admit("a", start + INTERVAL), Some(9));
        assert_eq!(throttle.admit("a", start + 2 * INTERVAL), Some(0));
    }

    #[test]
    fn keys_are_bounded_and_the_longest_silent_goes() {
        let start = Instant::now();
        let mut throttle = Throttle::new(INTERVAL);
        for key in 0..10_000u32 {
            assert_eq!(throttle.admit(&key.to_string(), start + Duration::from_millis(u64::from(key))), Some(0));
        }
        assert_eq!(throttle.said.len(), KEYS_MAX);
        assert_eq!(throttle.admit("9999", start + INTERVAL), None);
    }
}
