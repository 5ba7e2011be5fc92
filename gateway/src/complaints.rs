//! Log lines about refused peers, without letting peers fill the log.
//!
//! Pure but for the log itself: each kind of complaint may be made a few times in a window; what is held back is counted,
//! and told with the first line of the next window.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(10);
const LINES_PER_WINDOW: u32 = 5;

/// Counts complaints by kind. Kinds are a closed list, so that the map is bounded.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<HashMap<&'static str, Window>>);

#[derive(Debug)]
struct Window {
    begun: Instant,
    made: u32,
    held_back: u64,
}

impl Complaints {
    /// Whether a complaint of this kind may be made now; if so, how many were held back since the last one.
    pub(crate) fn may(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = kinds.entry(kind).or_insert(Window { begun: now, made: 0, held_back: 0 });
        if now.duration_since(window.begun) >= WINDOW {
            (window.begun, window.made) = (now, 0);
        }
        if window.made == LINES_PER_WINDOW {
            window.held_back += 1;
            return None;
        }
        window.made += 1;
        Some(std::mem::take(&mut window.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_beyond_a_few_are_counted_and_told_later() {
        let (complaints, now) = (Complaints::default(), Instant::now());
        let made = (0..20).filter(|_| complaints.may("expired", now).is_some()).count();
        assert_eq!(made, 5);
        assert_eq!(complaints.may("revoked", now), Some(0), "other kinds are not held back");
        assert_eq!(complaints.may("expired", now + WINDOW), Some(15));
        assert_eq!(complaints.may("expired", now + WINDOW), Some(0));
    }
}
