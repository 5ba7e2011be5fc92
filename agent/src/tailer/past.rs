//! Generations that are over, of which an archive may turn up.
//!
//! Owns how long they are remembered: [`KEPT_SECONDS`], and [`KEPT_MAX`] for each group that reads archives; the oldest go
//! first. One whose archive is in scope is never let go, for it would be read again at the next walk.

use std::collections::{BTreeMap, HashMap};

use super::{heads::HeadIndex, source::FileKey};
use crate::{
    parcel::StreamNumber,
    state::{Past, PastLog, Seal},
};

/// How long a generation is remembered once it is over and its file gone.
pub(super) const KEPT_SECONDS: u64 = 31 * 24 * 3600;
/// How many are remembered.
pub(super) const KEPT_MAX: usize = 10_000;

/// Where the archive of a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Present {
    pub(super) key: FileKey,
    /// The last walk or hint that came across it.
    pub(super) walk: u64,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) past: Past,
    pub(super) present: Option<Present>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PastGenerations {
    log: Option<PastLog>,
    kept_max: usize,
    entries: BTreeMap<StreamNumber, Entry>,
    heads: HeadIndex,
    by_inode: HashMap<u64, Vec<StreamNumber>>,
}

impl PastGenerations {
    pub(super) fn new(log: Option<PastLog>, kept_max: usize) -> Self {
        Self { log, kept_max, ..Self::default() }
    }

    /// Takes one in that the file has.
    pub(super) fn learn(&mut self, number: StreamNumber, past: Past, present: Option<Present>) {
        self.forget(number);
        self.heads.insert(past.generation.head, number);
        self.by_inode.entry(past.generation.inode).or_default().push(number);
        self.entries.insert(number, Entry { past, present });
    }

    /// Notes one that is over.
    pub(super) fn insert(&mut self, number: StreamNumber, past: Past, present: Option<Present>) {
        self.write(&past);
        self.learn(number, past, present);
        if self.entries.len() > self.kept_max {
            let gone = self.entries.iter().filter(|(_, entry)| entry.present.is_none());
            let oldest = gone.min_by_key(|(_, entry)| entry.past.ended_unix).map(|(number, _)| *number);
            oldest.into_iter().for_each(|number| drop(self.forget(number)));
        }
    }

    /// A failure costs no more than what it says.
    fn write(&mut self, past: &Past) {
        if let Some(Err(error)) = self.log.as_mut().map(|log| log.append(past)) {
            let path = past.generation.path.display();
            tracing::warn!(%path, %error, "cannot note that a generation is over; its archive may be read again after a restart");
        }
    }

    pub(super) fn get(&self, number: StreamNumber) -> Option<&Entry> {
        self.entries.get(&number)
    }

    /// Lets one go: it lives again, or is too old.
    pub(super) fn forget(&mut self, number: StreamNumber) -> Option<Past> {
        let entry = self.entries.remove(&number)?;
        self.heads.remove(entry.past.generation.head, number);
        let inode = entry.past.generation.inode;
        if let Some(numbers) = self.by_inode.get_mut(&inode) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.by_inode.remove(&inode);
            }
        }
        Some(entry.past)
    }

    /// Those whose head begins `content`.
    pub(super) fn matching(&self, content: &[u8]) -> Vec<StreamNumber> {
        self.heads.matching(content)
    }

    /// Whether some generation had this inode and birth time.
    pub(super) fn had(&self, key: &FileKey) -> bool {
        self.of(key).next().is_some()
    }

    fn of(&self, key: &FileKey) -> impl Iterator<Item = (StreamNumber, &Entry)> {
        let numbers = self.by_inode.get(&key.inode).into_iter().flatten();
        let entries = numbers.filter_map(|number| self.entries.get(number).map(|entry| (*number, entry)));
        let birth_nano = key.birth_nano;
        entries.filter(move |(_, entry)| entry.past.generation.birth_nano == birth_nano)
    }

    /// Those whose archive a file of this size may be.
    pub(super) fn sealed(&self, key: &FileKey, bytes: u64) -> Vec<(StreamNumber, Seal)> {
        let of = self.of(key);
        of.filter_map(|(number, entry)| Some((number, entry.past.seal.filter(|seal| seal.bytes == bytes)?))).collect()
    }

    /// Notes that a walk came across an archive that is known. Returns whether it is.
    pub(super) fn came_across(&mut self, key: &FileKey, bytes: u64, walk: u64) -> bool {
        let known = self.sealed(key, bytes).into_iter().find(|(number, _)| {
            self.entries.get(number).is_some_and(|entry| entry.present.is_some_and(|present| present.key == *key))
        });
        let Some((number, _)) = known else { return false };
        self.set_present(number, Present { key: *key, walk });
        true
    }

    pub(super) fn set_present(&mut self, number: StreamNumber, present: Present) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.present = Some(present);
        }
    }

    /// A whole walk is over: archives that it did not come across are gone, and what is too old is let go.
    pub(super) fn walked(&mut self, walk: u64, now_unix: u64) {
        let mut gone = Vec::new();
        let mut old = Vec::new();
        for (number, entry) in &mut self.entries {
            if entry.present.take_if(|present| present.walk < walk).is_some() {
                entry.past.ended_unix = now_unix;
                gone.push(entry.past.clone());
            } else if entry.present.is_none() && now_unix > entry.past.ended_unix + KEPT_SECONDS {
                old.push(*number);
            }
        }
        gone.iter().for_each(|past| self.write(past));
        old.into_iter().for_each(|number| drop(self.forget(number)));
        let known: Vec<&Past> = self.entries.values().map(|entry| &entry.past).collect();
        if let Some(Err(error)) = self.log.as_mut().map(|log| log.tidy(known)) {
            tracing::debug!(%error, "cannot write the file of past generations anew; it is tried again");
        }
    }

    /// Makes durable what was noted, before a checkpoint forgets it.
    pub(super) fn sync(&mut self) {
        if let Some(Err(error)) = self.log.as_mut().map(PastLog::sync) {
            tracing::warn!(%error, "cannot sync the file of past generations");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::{Mark, StreamId},
        lines::Start,
        state::GenerationRecord,
    };

    fn past(number: u64) -> Past {
        let content = vec![u8::try_from(number).unwrap(); 300];
        let generation = GenerationRecord {
            stream_id: StreamId::born(number, 5, 0),
            inode: number,
            birth_nano: Some(5),
            epoch: 0,
            head: Mark::head(&content),
            acked: 300,
            after: Start::Fresh,
            anchor: Mark::anchor(&content),
            resend: false,
            path: "/logs/a.log".into(),
        };
        Past { generation, ended_unix: number, seal: None }
    }

    fn key(inode: u64) -> FileKey {
        let stat = crate::filesystem::FileStat {
            device: 1,
            inode,
            birth_nano: Some(5),
            size: 0,
            modified_nano: 0,
            changed_nano: 0,
            links: 1,
            kind: crate::filesystem::Kind::File,
        };
        FileKey::of(&stat)
    }

    #[test]
    fn the_oldest_go_first_and_those_whose_archive_is_there_stay() {
        let mut known = PastGenerations::new(None, 3);
        known.insert(StreamNumber(1), past(1), Some(Present { key: key(1), walk: 1 }));
        (2..=6).for_each(|number| known.insert(StreamNumber(number), past(number), None));
        let left: Vec<u64> = known.entries.keys().map(|number| number.0).collect();
        assert_eq!(left, [1, 5, 6]);
        assert_eq!((known.matching(&[5; 300]), known.matching(&[2; 300])), (vec![StreamNumber(5)], vec![]));
        // The archive is gone at the next walk, which is when its time begins.
        known.walked(2, 1000);
        assert_eq!(known.get(StreamNumber(1)).map(|entry| entry.past.ended_unix), Some(1000));
        known.walked(3, 1000 + KEPT_SECONDS);
        let left: Vec<u64> = known.entries.keys().map(|number| number.0).collect();
        assert_eq!((left, known.by_inode.len()), (vec![1], 1));
    }
}
