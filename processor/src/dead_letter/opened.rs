//! Which letters of a partition are open: a pure fold over its records, in order.
//!
//! Memory is a few words for each key, of at most [`KEYS_MAX`]; what goes beyond is not counted and not passed over, and is
//! seen once those before it are dealt with.

use std::collections::HashMap;

use logmesh_bus::Delivered;
use xxhash_rust::xxh3::xxh3_128;

use super::letter::{Fate, kept};

/// Most keys of one partition that are told apart at once: some 15 MB.
pub(super) const KEYS_MAX: usize = 200_000;

/// The letters of one partition.
#[derive(Debug)]
pub(super) struct Opened {
    /// What is below is dealt with.
    committed: u64,
    states: HashMap<u128, State>,
    /// The first letter that found no room here.
    first_left_out: Option<u64>,
    /// Behind the last record that was looked at.
    end: u64,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// The newest letter of this key: a repeat is the same letter.
    offset: u64,
    fate: Fate,
    /// When the oldest one was kept; 0 = not known.
    kept_unix_nano: u64,
}

impl Opened {
    /// Nothing yet; records come from `from` on, and the group has committed up to `committed`.
    pub(super) fn new(from: u64, committed: u64) -> Self {
        Self { committed, states: HashMap::new(), first_left_out: None, end: from }
    }

    /// Notes a letter or a mark. Offsets ascend.
    pub(super) fn see(&mut self, delivered: &Delivered) {
        let (offset, record) = (delivered.offset, &delivered.record);
        self.end = offset + 1;
        let key = xxh3_128(&record.key);
        let mark = Fate::of_mark(&record.headers);
        let room = self.states.len() < KEYS_MAX;
        match (self.states.get_mut(&key), mark) {
            (Some(state), Some(fate)) => state.fate = fate,
            (Some(state), None) => {
                // A letter that is kept again after it was settled waits again.
                state.fate = if offset < self.committed { Fate::Passed } else { Fate::Open };
                state.offset = offset;
            }
            // A mark on what is not kept any more.
            (None, Some(_)) => {}
            (None, None) if room => {
                let fate = if offset < self.committed { Fate::Passed } else { Fate::Open };
                let kept_unix_nano = kept(&record.headers).unwrap_or(0);
                self.states.insert(key, State { offset, fate, kept_unix_nano });
            }
            (None, None) => {
                self.first_left_out.get_or_insert(offset);
            }
        }
    }

    /// Offsets of the letters, ascending: the open ones, or all.
    pub(super) fn offsets(&self, all: bool) -> Vec<(u64, Fate)> {
        let wanted = self.states.values().filter(|state| all || state.fate == Fate::Open);
        let mut offsets: Vec<_> = wanted.map(|state| (state.offset, state.fate)).collect();
        offsets.sort_unstable_by_key(|(offset, _)| *offset);
        offsets
    }

    /// The letter of `key`, where it is here.
    pub(super) fn find(&self, key: &[u8]) -> Option<(u64, Fate)> {
        self.states.get(&xxh3_128(key)).map(|state| (state.offset, state.fate))
    }

    /// Notes that the letter of `key` is dealt with.
    pub(super) fn settle(&mut self, key: &[u8], fate: Fate) {
        if let Some(state) = self.states.get_mut(&xxh3_128(key)) {
            state.fate = fate;
        }
    }

    /// Notes a mark that was written at `offset`. Where another record came in between, somebody else must look at it first.
    pub(super) fn see_mark(&mut self, offset: u64) {
        if offset == self.end {
            self.end += 1;
        }
    }

    /// Number of open letters.
    pub(super) fn open(&self) -> u64 {
        self.states.values().filter(|state| state.fate == Fate::Open).count() as u64
    }

    /// When the oldest open letter was kept, where that is known.
    pub(super) fn oldest_unix_nano(&self) -> Option<u64> {
        let open = self.states.values().filter(|state| state.fate == Fate::Open && state.kept_unix_nano > 0);
        open.map(|state| state.kept_unix_nano).min()
    }

    /// Whether every letter is told apart here.
    pub(super) fn is_complete(&self) -> bool {
        self.first_left_out.is_none()
    }

    /// Below it all is dealt with: the offset to commit, where it is beyond what is committed.
    pub(super) fn committable(&self) -> Option<u64> {
        let open = self.states.values().filter(|state| state.fate == Fate::Open).map(|state| state.offset);
        let first = open.chain(self.first_left_out).min().unwrap_or(self.end);
        (first > self.committed).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use logmesh_bus::Record;
    use proptest::prelude::*;

    use super::*;
    use crate::dead_letter::{names, write};

    fn record(offset: u64, key: u8, mark: Option<Fate>) -> Delivered {
        let headers = mark.map(|fate| write::text(names::SETTLED, fate.word().to_owned())).into_iter().collect();
        Delivered { offset, record: Record { key: Bytes::from(vec![key; 16]), headers, value: Bytes::new() } }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Against a model that looks at each letter by itself: open is what has no mark behind it, once for each key.
        #[test]
        fn what_is_open_has_no_mark_behind_it_and_is_never_committed(
            records in prop::collection::vec((0_u8..6, prop::option::of(Just(Fate::Replayed))), 0..60),
        ) {
            let mut opened = Opened::new(10, 10);
            for (offset, (key, mark)) in (10_u64..).zip(&records) {
                opened.see(&record(offset, *key, *mark));
            }
            let last = |key: u8| (10_u64..).zip(&records).filter(|(_, (other, _))| *other == key).last();
            let model: Vec<u64> =
                (0..6).filter_map(last).filter(|(_, (_, mark))| mark.is_none()).map(|(offset, _)| offset).collect();
            let mut open: Vec<u64> = opened.offsets(false).into_iter().map(|(offset, _)| offset).collect();
            let mut expected = model.clone();
            expected.sort_unstable();
            open.sort_unstable();
            prop_assert_eq!(&open, &expected);
            prop_assert_eq!(opened.open(), expected.len() as u64);
            let committable = opened.committable().unwrap_or(10);
            prop_assert!(expected.iter().all(|offset| *offset >= committable));
            prop_assert_eq!(committable, expected.first().copied().unwrap_or(10 + records.len() as u64));
        }
    }

    #[test]
    fn letters_without_room_are_neither_counted_nor_passed_over() {
        let mut opened = Opened::new(0, 0);
        for number in 0..=KEYS_MAX as u64 {
            let key = Bytes::copy_from_slice(&number.to_be_bytes());
            opened.see(&Delivered {
                offset: number,
                record: Record { key: key.clone(), headers: Vec::new(), value: Bytes::new() },
            });
            opened.settle(&key, Fate::Discarded);
        }
        assert!(!opened.is_complete());
        assert_eq!((opened.open(), opened.committable()), (0, Some(KEYS_MAX as u64)));
    }
}
