//! How quickly a stream is read, as far as it tells what comes next.

use std::time::Duration;

/// Bytes that are read within so short a time are one amount: a burst of several visits is no pace.
const SPAN_MIN: Duration = Duration::from_millis(20);
/// It says nothing of what comes next after so long without a visit.
const KEPT: Duration = Duration::from_millis(500);
/// What the last span weighs against those before it.
const WEIGHT: f64 = 0.3;

/// A moving average in bytes a second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    average: f64,
    /// Bytes of the span under way, and when it began.
    bytes: u64,
    since: Duration,
    /// The last visit.
    at: Duration,
}

impl Rate {
    /// Notes a visit that read so many bytes.
    pub(super) fn note(&mut self, bytes: usize, now: Duration) {
        self.at = now;
        self.bytes += bytes as u64;
        let span = now.saturating_sub(self.since);
        if span >= SPAN_MIN {
            let sample = self.bytes as f64 / span.as_secs_f64();
            self.average = self.average.mul_add(1.0 - WEIGHT, sample * WEIGHT);
            self.bytes = 0;
            self.since = now;
        }
    }

    /// The rate as it is now.
    pub(super) fn now(&self, now: Duration) -> f64 {
        if now < self.at + KEPT { self.average } else { 0.0 }
    }

    /// Until when it says something, if nothing more is read.
    pub(super) fn kept_until(&self) -> Duration {
        self.at + KEPT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 256 * 1024;

    #[test]
    fn a_pace_is_the_same_in_whatever_visits_it_is_read() {
        for (every, visits) in [(5, 1), (50, 2), (200, 8)] {
            let (mut rate, mut now) = (Rate::default(), Duration::ZERO);
            for _ in 0..40 {
                now += Duration::from_millis(every);
                for _ in 0..visits {
                    rate.note(10_000 * usize::try_from(every).unwrap() / visits, now);
                }
            }
            let megabytes = rate.now(now) / 1e6;
            assert!((9.0..11.0).contains(&megabytes), "{megabytes} MB/s in {visits} visits every {every} ms");
        }
    }

    #[test]
    fn a_burst_is_no_pace_and_a_pace_is_forgotten() {
        let (mut rate, begun) = (Rate::default(), Duration::from_secs(60));
        for visit in 0..16 {
            rate.note(BLOCK, begun + Duration::from_millis(visit));
        }
        assert!(rate.now(begun) < 10_000.0, "{rate:?}");
        for visit in 0..16 {
            rate.note(BLOCK, begun + Duration::from_millis(visit * 20));
        }
        let last = begun + Duration::from_millis(300);
        assert!(rate.now(last) > 1e7 && rate.now(last + KEPT) == 0.0, "{rate:?}");
    }
}
