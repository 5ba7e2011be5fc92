//! One generation of a file: what was read of it, how it was cut, and what of that is acknowledged.
//!
//! Owns the arithmetic of offsets: cuts follow each other, acknowledgements come in any order, and only a contiguous
//! prefix moves `acked`. Pure; the tailer reads the file and decides what a generation is.
//!
//! Invariants: `acked <= position`; every byte between the two is in a cut or is a swallowed terminator; cuts are in
//! order and do not overlap; the first one is not done.

use std::collections::VecDeque;

use crate::{identity::Mark, lines::Start, state::CutRecord};

/// A place in a generation, with what is needed to go on from there and to recognise it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Byte offset.
    pub offset: u64,
    /// How the record before it ended.
    pub after: Start,
    /// Mark of the bytes before it.
    pub anchor: Mark,
}

/// Where a cut is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutState {
    /// To be read (again) and built along the cut.
    ToBuild,
    /// Built and handed to the shipper; so many bytes encoded.
    Out {
        /// Encoded size of its batch in bytes.
        encoded: usize,
    },
    /// Acknowledged, but one before it is not.
    Done,
}

/// A cut and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The cut.
    pub record: CutRecord,
    /// Where it is.
    pub state: CutState,
}

/// What an acknowledgement released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Encoded bytes that are no longer in flight.
    pub encoded: usize,
    /// Source bytes by which the acknowledged prefix grew.
    pub prefix: u64,
}

/// The ordered cuts of a generation between its acknowledged and its read position.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    acked: Place,
    position: Place,
    cuts: VecDeque<Cut>,
    /// How many of the cuts are out.
    out: usize,
    /// How many of the cuts are to be built.
    to_build: usize,
}

impl Progress {
    /// Begins at `acked`, with cuts that were made behind it before; up to `skipped_max` bytes between two of them
    /// belong to no record.
    #[must_use]
    pub fn resume(acked: Place, cuts: &[CutRecord], skipped_max: u64) -> Self {
        let mut position = acked;
        let mut progress = Self { acked, ..Self::default() };
        for record in cuts {
            // A gap that is no swallowed terminator means that facts are missing: what follows is cut afresh.
            let gap = record.first.checked_sub(position.offset);
            if gap.is_none_or(|gap| gap > skipped_max) {
                break;
            }
            let state = if record.is_dropped() { CutState::Done } else { CutState::ToBuild };
            progress.cuts.push_back(Cut { record: *record, state });
            progress.to_build += usize::from(state == CutState::ToBuild);
            position = Place { offset: record.end, after: record.after, anchor: record.anchor };
        }
        progress.position = position;
        progress.release_prefix();
        progress
    }

    /// Everything before it is acknowledged.
    #[must_use]
    pub fn acked(&self) -> Place {
        self.acked
    }

    /// Everything before it was cut.
    #[must_use]
    pub fn position(&self) -> Place {
        self.position
    }

    /// How many batches the shipper has.
    #[must_use]
    pub fn out(&self) -> usize {
        self.out
    }

    /// Whether everything read is acknowledged.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.cuts.is_empty() && self.acked.offset == self.position.offset
    }

    /// The unacknowledged cuts.
    pub fn cuts(&self) -> impl Iterator<Item = &Cut> {
        self.cuts.iter()
    }

    /// The first cut that is to be built.
    #[must_use]
    pub fn to_build(&self) -> Option<CutRecord> {
        if self.to_build == 0 {
            return None;
        }
        self.cuts.iter().find(|cut| cut.state == CutState::ToBuild).map(|cut| cut.record)
    }

    /// Notes a new cut at the read position, about to be handed out.
    pub fn push(&mut self, record: CutRecord, encoded: usize) {
        debug_assert!(record.first >= self.position.offset);
        self.cuts.push_back(Cut { record, state: CutState::Out { encoded } });
        self.out += 1;
        self.position = Place { offset: record.end, after: record.after, anchor: record.anchor };
    }

    /// Notes a cut at the read position of which nothing is to be sent: it is done. Returns the source bytes by which the
    /// acknowledged prefix grew.
    pub fn push_dropped(&mut self, record: CutRecord) -> u64 {
        debug_assert!(record.first >= self.position.offset && record.is_dropped());
        self.cuts.push_back(Cut { record, state: CutState::Done });
        self.position = Place { offset: record.end, after: record.after, anchor: record.anchor };
        let before = self.acked.offset;
        self.release_prefix();
        self.acked.offset - before
    }

    /// Moves the read position over bytes that belong to no record.
    pub fn skip(&mut self, to: Place) {
        self.position = to;
        if self.cuts.is_empty() {
            self.acked = to;
        }
    }

    /// Takes a better anchor for the acknowledged place: the file is the same, more of it was read.
    pub fn set_after(&mut self, after: Start) {
        self.position.after = after;
    }

    /// Notes that a cut was built again and handed out.
    pub fn built(&mut self, first: u64, encoded: usize) {
        if let Some(cut) = self.find(first)
            && cut.state == CutState::ToBuild
        {
            cut.state = CutState::Out { encoded };
            self.to_build -= 1;
            self.out += 1;
        }
    }

    /// Notes that a cut came back and is to be built again. Returns the encoded bytes no longer in flight.
    pub fn returned(&mut self, first: u64) -> usize {
        let Some(cut) = self.find(first) else { return 0 };
        let CutState::Out { encoded } = cut.state else { return 0 };
        cut.state = CutState::ToBuild;
        self.to_build += 1;
        self.out -= 1;
        encoded
    }

    /// Puts smaller cuts in the place of one that is to be built; together they must cover the same bytes.
    pub fn replace(&mut self, first: u64, smaller: &[CutRecord]) {
        let Some(at) = self.index(first).filter(|at| self.cuts[*at].state == CutState::ToBuild) else { return };
        self.cuts.remove(at);
        for (step, record) in smaller.iter().enumerate() {
            self.cuts.insert(at + step, Cut { record: *record, state: CutState::ToBuild });
        }
        self.to_build = self.to_build + smaller.len() - 1;
    }

    /// Puts smaller cuts in the place of one that is out, for its batch was taken apart. Each comes with the encoded size
    /// of its own batch; together they must cover the same bytes.
    pub fn divide(&mut self, first: u64, smaller: &[(CutRecord, usize)]) {
        let is_out = |cut: &Cut| matches!(cut.state, CutState::Out { .. });
        let Some(at) = self.index(first).filter(|at| is_out(&self.cuts[*at])) else { return };
        self.cuts.remove(at);
        for (step, (record, encoded)) in smaller.iter().enumerate() {
            self.cuts.insert(at + step, Cut { record: *record, state: CutState::Out { encoded: *encoded } });
        }
        self.out = self.out + smaller.len() - 1;
    }

    /// Notes an acknowledgement, in any order; one that is not awaited changes nothing.
    pub fn acknowledge(&mut self, first: u64) -> Released {
        let Some(cut) = self.find(first) else { return Released::default() };
        let CutState::Out { encoded } = cut.state else { return Released::default() };
        cut.state = CutState::Done;
        self.out -= 1;
        let before = self.acked.offset;
        self.release_prefix();
        Released { encoded, prefix: self.acked.offset - before }
    }

    /// Moves `acked` over what is done and has nothing before it any more.
    fn release_prefix(&mut self) {
        while let Some(cut) = self.cuts.front().filter(|cut| cut.state == CutState::Done) {
            let record = cut.record;
            self.acked = Place { offset: record.end, after: record.after, anchor: record.anchor };
            self.cuts.pop_front();
        }
        if self.cuts.is_empty() {
            self.acked = self.position;
        }
    }

    /// Gives up the cuts that are to be built: their bytes are gone. Returns how many bytes that were.
    pub fn abandon(&mut self) -> u64 {
        let lost = self.cuts.iter().filter(|cut| cut.state == CutState::ToBuild);
        let bytes = lost.map(|cut| cut.record.end - cut.record.first).sum();
        self.cuts.retain(|cut| cut.state != CutState::ToBuild);
        self.to_build = 0;
        self.release_prefix();
        bytes
    }

    fn index(&self, first: u64) -> Option<usize> {
        self.cuts.binary_search_by_key(&first, |cut| cut.record.first).ok()
    }

    fn find(&mut self, first: u64) -> Option<&mut Cut> {
        let at = self.index(first)?;
        self.cuts.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(first: u64, end: u64) -> CutRecord {
        let anchor = Mark { length: 1, hash: end };
        CutRecord { first, end, observed_unix_nano: 0, flags: 0, hash: 0, after: Start::Fresh, anchor }
    }

    fn with_cuts(count: u64) -> Progress {
        let mut progress = Progress::default();
        (0..count).for_each(|cut| progress.push(record(cut * 10, cut * 10 + 10), 7));
        progress
    }

    #[test]
    fn an_acknowledgement_out_of_order_waits_for_those_before_it() {
        let mut progress = with_cuts(3);
        assert_eq!(progress.acknowledge(20), Released { encoded: 7, prefix: 0 });
        assert_eq!(progress.acknowledge(0), Released { encoded: 7, prefix: 10 });
        assert_eq!(progress.acknowledge(0), Released::default(), "once is enough");
        assert_eq!(progress.acknowledge(10), Released { encoded: 7, prefix: 20 });
        assert!(progress.is_settled());
    }

    #[test]
    fn a_cut_that_came_back_is_built_again_in_its_place() {
        let mut progress = with_cuts(3);
        assert_eq!(progress.returned(10), 7);
        assert_eq!(progress.to_build().map(|cut| cut.first), Some(10));
        progress.replace(10, &[record(10, 14), record(14, 20)]);
        progress.built(10, 3);
        assert_eq!(progress.to_build().map(|cut| cut.first), Some(14));
        progress.built(14, 3);
        for first in [0, 10, 14, 20] {
            progress.acknowledge(first);
        }
        assert!(progress.is_settled() && progress.acked().offset == 30);
    }

    #[test]
    fn resuming_stops_at_a_gap_that_no_terminator_explains() {
        let cuts = [record(0, 10), record(11, 20), record(25, 30)];
        assert_eq!(Progress::resume(Place::default(), &cuts, 2).position().offset, 20);
    }

    #[test]
    fn a_cut_of_dropped_records_is_done_and_holds_nothing_up() {
        let dropped = |first, end| CutRecord { flags: CutRecord::DROPPED, ..record(first, end) };
        let mut progress = Progress::default();
        assert_eq!(progress.push_dropped(dropped(0, 5)), 5);
        progress.push(record(5, 10), 7);
        assert_eq!(progress.push_dropped(dropped(10, 15)), 0, "what is before it is not acknowledged");
        assert_eq!(progress.acknowledge(5), Released { encoded: 7, prefix: 10 });
        assert!(progress.is_settled());
        let cuts = [dropped(0, 5), record(5, 10), dropped(10, 15), record(15, 20)];
        let resumed = Progress::resume(Place::default(), &cuts, 2);
        assert_eq!((resumed.acked().offset, resumed.position().offset), (5, 20));
        assert_eq!(resumed.to_build().map(|cut| cut.first), Some(5));
        assert!(Progress::resume(Place::default(), &cuts[..1], 2).is_settled());
    }

    #[test]
    fn what_was_acknowledged_behind_a_cut_that_is_given_up_is_settled_with_it() {
        let mut progress = with_cuts(2);
        progress.returned(0);
        progress.acknowledge(10);
        assert_eq!(progress.abandon(), 10);
        assert!(progress.is_settled() && progress.acked().offset == 20);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn whatever_comes_of_the_cuts_nothing_done_stays_in_front(steps in prop::collection::vec((0u8..4, 0u64..8), 1..60)) {
            let mut progress = with_cuts(4);
            for (step, cut) in steps {
                match step {
                    0 => assert!(progress.acknowledge(cut * 10).encoded <= 7),
                    1 => assert!(progress.returned(cut * 10) <= 7),
                    2 => progress.built(cut * 10, 7),
                    _ => assert!(progress.abandon() <= 40),
                }
                prop_assert!(progress.cuts().next().is_none_or(|cut| cut.state != CutState::Done));
                prop_assert!(progress.acked().offset <= progress.position().offset);
                prop_assert!(progress.cuts().next().is_some() || progress.is_settled());
            }
        }

        #[test]
        fn the_prefix_is_exactly_what_is_contiguous(order in Just((0u64..12).collect::<Vec<_>>()).prop_shuffle(), skips in any::<u16>()) {
            let mut progress = Progress::default();
            let mut at = 0;
            let mut firsts = Vec::new();
            for cut in 0..12 {
                if skips & (1 << cut) != 0 {
                    progress.skip(Place { offset: at + 1, ..progress.position() });
                    at += 1;
                }
                progress.push(record(at, at + 10), 1);
                firsts.push((at, at + 10));
                at += 10;
            }
            let mut done = [false; 12];
            for cut in order {
                let cut = usize::try_from(cut).unwrap();
                progress.acknowledge(firsts[cut].0);
                done[cut] = true;
                let prefix = done.iter().take_while(|done| **done).count();
                let expected = prefix.checked_sub(1).map(|last| firsts[last].1);
                prop_assert_eq!(progress.acked().offset, expected.unwrap_or_else(|| progress.acked().offset.min(1)));
                prop_assert!(progress.acked().offset <= progress.position().offset);
            }
            prop_assert!(progress.is_settled());
        }
    }
}
