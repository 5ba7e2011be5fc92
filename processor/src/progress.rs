//! How far a partition is finished: a pure count of what was handed out, and what of it is done.
//!
//! Batches finish in any order; what may be committed is only the contiguous prefix. Invariant: every record below
//! [`Progress::committable`] is finished.

use std::collections::VecDeque;

/// The records of one partition that were handed to its lane and are not committed.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Offsets in the order in which they were handed out, which is ascending, and whether each is finished.
    outstanding: VecDeque<(u64, bool)>,
    /// The next offset to commit, once anything is finished.
    committable: Option<u64>,
}

impl Progress {
    /// Notes that the record at `offset` was handed to the lane. Offsets ascend; gaps mean nothing.
    pub(crate) fn start(&mut self, offset: u64) {
        debug_assert!(self.outstanding.back().is_none_or(|(last, _)| *last < offset), "offsets ascend");
        self.outstanding.push_back((offset, false));
    }

    /// Notes that the record at `offset` is finished. Answers with the offset to commit if that moved.
    pub(crate) fn finish(&mut self, offset: u64) -> Option<u64> {
        let place = self.outstanding.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        self.outstanding[place].1 = true;
        let before = self.committable;
        while let Some(&(offset, true)) = self.outstanding.front() {
            self.outstanding.pop_front();
            self.committable = Some(offset + 1);
        }
        self.committable.filter(|_| self.committable != before)
    }

    /// The offset below which all is finished, once anything is.
    pub(crate) const fn committable(&self) -> Option<u64> {
        self.committable
    }

    /// Number of records that are handed out and not covered by [`Self::committable`].
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_contiguous_prefix_is_committed() {
        let mut progress = Progress::default();
        [3, 4, 9].into_iter().for_each(|offset| progress.start(offset));
        assert_eq!(progress.finish(4), None);
        assert_eq!(progress.finish(9), None);
        assert_eq!(progress.finish(3), Some(10));
        assert_eq!(progress.outstanding(), 0);
    }

    #[test]
    fn a_record_that_is_not_outstanding_moves_nothing() {
        let mut progress = Progress::default();
        progress.start(1);
        assert_eq!(progress.finish(7), None);
        assert_eq!(progress.finish(1), Some(2));
        assert_eq!(progress.finish(1), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn nothing_unfinished_is_ever_below_the_commit(order in Just((0_u64..40).collect::<Vec<_>>()).prop_shuffle()) {
            let mut progress = Progress::default();
            (0..40).for_each(|offset| progress.start(offset));
            let mut finished = BTreeSet::new();
            for offset in order {
                finished.insert(offset);
                progress.finish(offset);
                let commit = progress.committable().unwrap_or(0);
                prop_assert!((0..commit).all(|offset| finished.contains(&offset)));
                prop_assert!(!finished.contains(&commit));
            }
            prop_assert_eq!(progress.committable(), Some(40));
        }
    }
}
