//! How progress is made durable once a second, at a cost that does not grow with the number of files.
//!
//! A checkpoint holds every generation, so a large one is written less often: at so many bytes a second on average. In
//! between, what changed is appended to the cut log as facts and synced, which is as durable. Nothing is changed for a
//! small state: its checkpoint is written each second.

use std::time::Duration;

use super::{Tailer, pace, source::Source};
use crate::{clock::Now, filesystem::Filesystem, state::Fact};

/// Bytes of checkpoints a second, on average.
const BYTES_PER_SECOND: u64 = 512 * 1024;

impl<F: Filesystem> Tailer<F> {
    /// Makes all progress durable. Returns whether it is.
    pub(super) fn save(&mut self, now: Now) -> bool {
        let is_due = now.mono >= self.checkpoint.whole_next || self.checkpoint.log_broken || self.store.is_log_long();
        #[cfg(test)]
        let is_due = is_due
            && !(self.checkpoint.changes_alone && self.store.checkpoint_bytes() > 0 && !self.checkpoint.log_broken);
        if !is_due && let Some(saved) = self.save_changes() {
            return saved;
        }
        let written = self.write_checkpoint(false);
        if written {
            self.checkpoint.whole_next = now.mono + interval(self.store.checkpoint_bytes());
        }
        written
    }

    /// Appends what changed since it was saved. Returns whether it is durable; `None` where a checkpoint is no dearer.
    fn save_changes(&mut self) -> Option<bool> {
        let changed = self.sources.values().filter(|source| source.saved != Some(source.progress_mark()));
        let facts: Vec<Fact> = changed.filter_map(Source::record).map(Fact::Generation).collect();
        let is_dearer = facts.len() > self.sources.len() / 4;
        #[cfg(test)]
        let is_dearer = is_dearer && !self.checkpoint.changes_alone;
        if is_dearer {
            return None;
        }
        if !self.append(&facts) || !self.sync() {
            return Some(false);
        }
        for source in self.sources.values_mut() {
            source.logged |= source.stream_id.is_some();
            source.durable = source.logged;
            source.saved = Some(source.progress_mark());
        }
        self.checkpoint.dirty = false;
        Some(true)
    }
}

/// Between two checkpoints of so many bytes.
fn interval(bytes: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND as f64).max(pace::CHECKPOINT)
}

impl<H> Source<H> {
    /// What of a generation's record changes as it is read and acknowledged.
    pub(super) fn progress_mark(&self) -> (u64, u16) {
        (self.progress.acked().offset, self.head.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_checkpoint_is_written_each_second_and_a_large_one_at_the_same_rate_of_bytes() {
        assert_eq!(interval(0), Duration::from_secs(1));
        assert_eq!(interval(BYTES_PER_SECOND), Duration::from_secs(1));
        assert_eq!(interval(20 * BYTES_PER_SECOND), Duration::from_secs(20));
    }
}
