//! Where the records of each partition stand, segment by segment.
//!
//! The index of the segment that is written grows with it; those of older ones are built by reading the segment once
//! when a consumer reaches it. Only a few are kept, so that memory does not grow with the backlog: a segment has at
//! most 262,144 entries, an entry takes 24 bytes here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Indexes of older segments that are kept.
const KEPT: usize = 8;

/// Which partition: topic and number.
pub(super) type Key = (Arc<str>, u16);

/// Where one record stands within its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) offset: u64,
    pub(super) byte: u32,
    pub(super) length: u32,
    /// When it was appended, in milliseconds since the segment was begun.
    pub(super) age_ms: u32,
}

/// All records of one segment.
#[derive(Debug, Default)]
pub(super) struct SegmentIndex {
    pub(super) begun_unix_nano: u64,
    partitions: HashMap<Key, Vec<Slot>>,
}

/// The indexes of a journal.
#[derive(Debug, Default)]
pub(super) struct Index {
    active: Mutex<(u64, SegmentIndex)>,
    kept: Mutex<VecDeque<(u64, Arc<SegmentIndex>)>>,
}

impl SegmentIndex {
    pub(super) fn new(begun_unix_nano: u64) -> Self {
        Self { begun_unix_nano, partitions: HashMap::new() }
    }

    /// Notes a record; offsets of a partition come ascending.
    pub(super) fn push(&mut self, key: Key, slot: Slot) {
        self.partitions.entry(key).or_default().push(slot);
    }

    /// The slot of a record.
    pub(super) fn slot(&self, offset: u64, byte: u64, length: u32, appended_unix_nano: u64) -> Slot {
        let age = appended_unix_nano.saturating_sub(self.begun_unix_nano) / 1_000_000;
        // Segments are smaller than 4 GiB; an age of more than 49 days is told too early, as is allowed.
        let byte = u32::try_from(byte).unwrap_or(u32::MAX);
        Slot { offset, byte, length, age_ms: u32::try_from(age).unwrap_or(0) }
    }

    /// Slots of `key` from offset `from` on: at least one where there is one, then as many as `bytes` allow.
    fn slots(&self, key: &Key, from: u64, bytes: usize) -> Vec<Slot> {
        let Some(slots) = self.partitions.get(key) else { return Vec::new() };
        let first = slots.partition_point(|slot| slot.offset < from);
        let mut size = 0_usize;
        let fits = |slot: &&Slot| {
            let before = size;
            size += slot.length as usize;
            before == 0 || size <= bytes
        };
        slots[first..].iter().take_while(fits).copied().collect()
    }
}

impl Index {
    /// Changes the index of the segment that is written; `segment` above the last one turns to a new one.
    pub(super) fn write<T>(
        &self,
        segment: u64,
        begun_unix_nano: u64,
        change: impl FnOnce(&mut SegmentIndex) -> T,
    ) -> T {
        let mut active = lock(&self.active);
        if active.0 != segment {
            let (number, sealed) = std::mem::replace(&mut *active, (segment, SegmentIndex::new(begun_unix_nano)));
            if number != 0 {
                self.keep(number, Arc::new(sealed));
            }
        }
        change(&mut active.1)
    }

    /// Slots of `key` in `segment` from offset `from` on (see [`SegmentIndex::slots`]), with the time at which the segment was
    /// begun; an index that is not there is built.
    pub(super) fn slots<E>(
        &self,
        segment: u64,
        (key, from, bytes): (&Key, u64, usize),
        build: impl FnOnce() -> Result<SegmentIndex, E>,
    ) -> Result<(Vec<Slot>, u64), E> {
        if let Some(found) = self.held_slots(segment, (key, from, bytes)) {
            return Ok(found);
        }
        // Built twice when two come at once; that is rarer and cheaper than a lock held while reading.
        let built = build()?;
        let found = (built.slots(key, from, bytes), built.begun_unix_nano);
        self.keep(segment, Arc::new(built));
        Ok(found)
    }

    /// The same, only if it is there already.
    pub(super) fn held_slots(&self, segment: u64, (key, from, bytes): (&Key, u64, usize)) -> Option<(Vec<Slot>, u64)> {
        {
            let active = lock(&self.active);
            if active.0 == segment {
                return Some((active.1.slots(key, from, bytes), active.1.begun_unix_nano));
            }
        }
        let kept = self.find(segment)?;
        Some((kept.slots(key, from, bytes), kept.begun_unix_nano))
    }

    /// Keeps the index of a sealed segment; the one that was not wanted for longest goes.
    pub(super) fn keep(&self, number: u64, index: Arc<SegmentIndex>) {
        let mut kept = lock(&self.kept);
        kept.retain(|(kept, _)| *kept != number);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((number, index));
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        lock(&self.kept).len()
    }

    fn find(&self, number: u64) -> Option<Arc<SegmentIndex>> {
        let mut kept = lock(&self.kept);
        let at = kept.iter().position(|(kept, _)| *kept == number)?;
        let found = kept.remove(at)?;
        let index = found.1.clone();
        kept.push_back(found);
        Some(index)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
