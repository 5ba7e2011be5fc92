//! When to commit: soon when little is written, seldom when much is.
//!
//! A commit costs some ten fsyncs whatever it holds, so one for each line would leave no time for lines; and what waits
//! for a commit is neither searchable nor acknowledged. Pure: the clock is passed in.

use std::time::{Duration, Instant};

/// The bounds within which commits are paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Documents that are committed at once.
    pub(crate) documents_max: usize,
    /// Bytes of bodies that are committed at once.
    pub(crate) bytes_max: usize,
    /// Least time from a first document to its commit: its neighbours come along.
    pub(crate) gather: Duration,
    /// Longest time between commits, and the longest that a document waits for one to begin.
    pub(crate) interval_max: Duration,
}

/// Share of the time that commits may take: one part in so many.
const INTERVALS_PER_COMMIT: u32 = 4;

/// Least time between the end of one commit and the begin of the next.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// What is not yet committed, and how long commits take here.
#[derive(Debug)]
pub(crate) struct Pacing {
    pace: Pace,
    documents: usize,
    bytes: usize,
    first: Option<Instant>,
    last_commit: Option<Instant>,
    /// Smoothed duration of a commit.
    commit_duration: Duration,
}

impl Pacing {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, documents: 0, bytes: 0, first: None, last_commit: None, commit_duration: Duration::ZERO }
    }

    /// Notes that documents were added.
    pub(crate) fn added(&mut self, documents: usize, bytes: usize, now: Instant) {
        self.documents += documents;
        self.bytes += bytes;
        self.first.get_or_insert(now);
    }

    /// Whether enough has gathered to commit at once.
    pub(crate) fn is_full(&self) -> bool {
        self.documents >= self.pace.documents_max || self.bytes >= self.pace.bytes_max
    }

    /// When the next commit is due; `None` while nothing waits for one.
    pub(crate) fn due(&self) -> Option<Instant> {
        let first = self.first?;
        if self.is_full() {
            return Some(first);
        }
        let interval = (self.commit_duration * INTERVALS_PER_COMMIT).clamp(INTERVAL_MIN, self.pace.interval_max);
        let gathered = first + self.pace.gather;
        let spaced = self.last_commit.map_or(gathered, |last| last + interval);
        Some(gathered.max(spaced).min(first + self.pace.interval_max))
    }

    /// Notes a commit, good or bad, that began and ended so: everything added so far is settled.
    pub(crate) fn committed(&mut self, began: Instant, ended: Instant) {
        let took = ended.saturating_duration_since(began);
        self.commit_duration =
            if self.commit_duration.is_zero() { took } else { (self.commit_duration * 3 + took) / 4 };
        self.last_commit = Some(ended);
        (self.documents, self.bytes, self.first) = (0, 0, None);
    }

    /// Smoothed duration of a commit.
    pub(crate) fn commit_duration(&self) -> Duration {
        self.commit_duration
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pacing() -> Pacing {
        Pacing::new(Pace {
            documents_max: 1000,
            bytes_max: 1 << 20,
            gather: Duration::from_millis(20),
            interval_max: Duration::from_secs(1),
        })
    }

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn nothing_is_due_while_nothing_waits() {
        assert_eq!(pacing().due(), None);
    }

    #[test]
    fn a_lone_document_is_committed_after_a_short_gathering() {
        let (mut pacing, now) = (pacing(), Instant::now());
        pacing.added(1, 100, now);
        assert_eq!(pacing.due(), Some(now + ms(20)));
        pacing.committed(now + ms(20), now + ms(80));
        assert_eq!(pacing.due(), None);
        let later = now + ms(5000);
        pacing.added(1, 100, later);
        assert_eq!(pacing.due(), Some(later + ms(20)));
    }

    #[test]
    fn a_steady_trickle_is_committed_at_intervals_of_four_commits() {
        let (mut pacing, now) = (pacing(), Instant::now());
        pacing.added(1, 100, now);
        pacing.committed(now, now + ms(60));
        pacing.added(1, 100, now + ms(61));
        assert_eq!(pacing.due(), Some(now + ms(60 + 4 * 60)));
    }

    #[test]
    fn no_document_waits_longer_than_the_longest_interval() {
        let (mut pacing, now) = (pacing(), Instant::now());
        pacing.added(1, 100, now);
        pacing.committed(now, now + ms(3000));
        pacing.added(1, 100, now + ms(3000));
        assert_eq!(pacing.due(), Some(now + ms(4000)));
    }

    #[test]
    fn a_full_generation_is_due_at_once() {
        let (mut pacing, now) = (pacing(), Instant::now());
        pacing.added(1, 100, now);
        pacing.committed(now, now + ms(60));
        pacing.added(1000, 100, now + ms(61));
        assert!(pacing.is_full());
        assert_eq!(pacing.due(), Some(now + ms(61)));
        pacing.committed(now + ms(61), now + ms(120));
        pacing.added(1, 1 << 20, now + ms(121));
        assert!(pacing.is_full());
    }
}
