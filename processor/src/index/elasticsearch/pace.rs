//! How much is sent at once, and how many requests are under way: a pure controller.
//!
//! Additive increase while the server keeps up, multiplicative decrease when it pushes back (429, a timeout, a cut) or
//! grows slow: what fits is found, whatever the cluster is, and follows it when it changes. Requests that had begun before
//! a decrease say nothing more. Invariants: `1 <= concurrency <= concurrency_max`, `BYTES_MIN <= bytes <= bytes_max`.

use std::time::{Duration, Instant};

/// Least bytes of a request that the controller asks for; a single larger document is still a request.
const BYTES_MIN: usize = 16 << 10;

/// How long a size that the server called too large is remembered: its limit may have been raised.
const LIMIT_REMEMBERED: Duration = Duration::from_secs(600);

/// How a request went, as far as it says something about pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Answered.
    Answered,
    /// The server asked for patience, or did not answer in time.
    PushedBack,
    /// The server does not take so many bytes in one request.
    TooLarge,
    /// It never reached a server: says nothing about pace.
    NotSent,
}

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bytes_max: usize,
    pub(super) concurrency_max: usize,
    /// A request that takes longer is a sign that the server has enough.
    pub(super) slow: Duration,
}

/// The controller.
#[derive(Debug)]
pub(super) struct Pace {
    bounds: Bounds,
    bytes: usize,
    concurrency: f64,
    /// A size that the server does not take, and when it said so.
    limit: Option<(usize, Instant)>,
    decreased: Option<Instant>,
}

impl Pace {
    pub(super) fn new(bounds: Bounds) -> Self {
        let concurrency = (bounds.concurrency_max as f64).min(2.0);
        Self { bounds, bytes: bounds.bytes_max, concurrency, limit: None, decreased: None }
    }

    /// Uncompressed bytes of a request.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Requests that may be under way.
    pub(super) fn concurrency(&self) -> usize {
        self.concurrency as usize
    }

    /// Learns from a request of `bytes` that was sent at `begun` and ended at `now`. `busy`: all that was allowed was
    /// under way, so that more could have been used.
    pub(super) fn learn(&mut self, course: Course, bytes: usize, busy: bool, begun: Instant, now: Instant) {
        match course {
            Course::NotSent => {}
            Course::TooLarge => {
                self.limit = Some((bytes, now));
                self.bytes = self.bytes.min(bytes / 2).max(BYTES_MIN);
            }
            Course::PushedBack => self.decrease(begun, now),
            Course::Answered if now.duration_since(begun) > self.bounds.slow => self.decrease(begun, now),
            Course::Answered => self.increase(busy, now),
        }
    }

    fn increase(&mut self, busy: bool, now: Instant) {
        if busy {
            self.concurrency = (self.concurrency + 1.0 / self.concurrency).min(self.bounds.concurrency_max as f64);
        }
        if self.limit.is_some_and(|(_, said)| now.duration_since(said) > LIMIT_REMEMBERED) {
            self.limit = None;
        }
        let most = self.limit.map_or(self.bounds.bytes_max, |(limit, _)| (limit / 2).max(BYTES_MIN));
        self.bytes = (self.bytes + self.bounds.bytes_max / 32).min(most.min(self.bounds.bytes_max));
    }

    fn decrease(&mut self, begun: Instant, now: Instant) {
        if self.decreased.is_some_and(|decreased| begun < decreased) {
            return;
        }
        self.decreased = Some(now);
        self.concurrency = (self.concurrency / 2.0).max(1.0);
        self.bytes = (self.bytes / 2).max(BYTES_MIN.min(self.bounds.bytes_max));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { bytes_max: 4 << 20, concurrency_max: 8, slow: Duration::from_secs(5) };

    fn answered(pace: &mut Pace, now: Instant, times: usize) {
        for _ in 0..times {
            pace.learn(Course::Answered, 1 << 20, true, now, now + Duration::from_millis(100));
        }
    }

    #[test]
    fn a_server_that_keeps_up_gets_more_up_to_the_bounds() {
        let (mut pace, now) = (Pace::new(BOUNDS), Instant::now());
        assert_eq!(pace.concurrency(), 2);
        answered(&mut pace, now, 5);
        assert!(pace.concurrency() > 2);
        answered(&mut pace, now, 100);
        assert_eq!((pace.concurrency(), pace.bytes()), (8, BOUNDS.bytes_max));
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let (mut pace, now) = (Pace::new(BOUNDS), Instant::now());
        for _ in 0..100 {
            pace.learn(Course::Answered, 1000, false, now, now);
        }
        assert_eq!(pace.concurrency(), 2);
    }

    #[test]
    fn one_push_back_of_many_requests_halves_once() {
        let (mut pace, now) = (Pace::new(BOUNDS), Instant::now());
        answered(&mut pace, now, 100);
        for _ in 0..8 {
            pace.learn(Course::PushedBack, 1 << 20, true, now, now + Duration::from_secs(1));
        }
        assert_eq!((pace.concurrency(), pace.bytes()), (4, BOUNDS.bytes_max / 2));
        let later = now + Duration::from_secs(2);
        for second in 0..20 {
            let begun = later + Duration::from_secs(second);
            pace.learn(Course::PushedBack, 1 << 20, true, begun, begun);
        }
        assert_eq!((pace.concurrency(), pace.bytes()), (1, BYTES_MIN));
        answered(&mut pace, later + Duration::from_secs(60), 100);
        assert_eq!((pace.concurrency(), pace.bytes()), (8, BOUNDS.bytes_max));
    }

    #[test]
    fn a_slow_answer_counts_as_push_back() {
        let (mut pace, now) = (Pace::new(BOUNDS), Instant::now());
        pace.learn(Course::Answered, 1 << 20, true, now, now + Duration::from_secs(6));
        assert_eq!((pace.concurrency(), pace.bytes()), (1, BOUNDS.bytes_max / 2));
    }

    #[test]
    fn a_size_that_was_refused_is_not_tried_again_for_a_while() {
        let (mut pace, now) = (Pace::new(BOUNDS), Instant::now());
        pace.learn(Course::TooLarge, 2 << 20, true, now, now);
        answered(&mut pace, now, 100);
        assert_eq!(pace.bytes(), 1 << 20);
        answered(&mut pace, now + LIMIT_REMEMBERED, 100);
        assert_eq!(pace.bytes(), BOUNDS.bytes_max);
    }

    proptest! {
        #[test]
        fn bounds_hold_whatever_happens(steps in prop::collection::vec((0_u8..4, 1_usize..100 << 20, 0_u64..20_000), 1..200)) {
            let mut pace = Pace::new(BOUNDS);
            let mut now = Instant::now();
            for (course, bytes, took) in steps {
                let course = [Course::Answered, Course::PushedBack, Course::TooLarge, Course::NotSent][usize::from(course)];
                let begun = now;
                now += Duration::from_millis(took);
                pace.learn(course, bytes, true, begun, now);
                prop_assert!((1..=BOUNDS.concurrency_max).contains(&pace.concurrency()));
                prop_assert!((BYTES_MIN..=BOUNDS.bytes_max).contains(&pace.bytes()));
            }
        }
    }
}
