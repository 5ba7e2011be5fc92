//! What becomes of whole directories: dropped by age, or set aside when damaged.
//!
//! Layout below the index's directory:
//!
//! | path | is |
//! |---|---|
//! | `lock` | locked by the process that has the index open |
//! | `days/2026-11-23/` | one arrival day |
//! | `trash/` | days being removed; emptied at start |
//! | `damaged/` | days that could not be opened, as they were found |
//! | `dropped` | intervals of dropped days |
//!
//! Dropping a day: its intervals are written to `dropped` (whole, to a temporary file, synced, renamed), the directory
//! is renamed into `trash/`, then removed. Crash cases: after the first step the intervals are known twice, which
//! changes nothing; after the second, `trash/` is emptied at the next start. At no time is a day gone and its intervals
//! unknown, so what it held is not indexed again.
//!
//! `dropped` holds: format version (1 byte), the number of days, for each its number and its intervals
//! ([`Intervals::encode`]), CRC-32C of all that (4 bytes). A day's intervals are forgotten [`REMEMBERED_DAYS`] after it
//! was dropped, when no bus and no agent can still hold its records.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::calendar::ArrivalDay;
use crate::index::intervals::{Intervals, read_number, write_number};

const FORMAT: u8 = 1;

/// For how many days beyond the retention the intervals of dropped days are kept.
const REMEMBERED_DAYS: u32 = 30;

/// The file of dropped intervals is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the file of dropped intervals is damaged")]
pub(crate) struct DroppedDamaged;

/// The index's directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the directories that are missing, and empties the trash.
    pub(crate) fn prepare(root: &Path) -> io::Result<Self> {
        for name in ["days", "trash", "damaged"] {
            fs::create_dir_all(root.join(name))?;
        }
        for entry in fs::read_dir(root.join("trash"))? {
            fs::remove_dir_all(entry?.path())?;
        }
        sync_directory(root)?;
        Ok(Self { root: root.to_owned() })
    }

    /// Locks the index for this process; `None` if another one has it.
    pub(crate) fn lock(&self) -> io::Result<Option<File>> {
        let file = File::options().create(true).write(true).truncate(false).open(self.root.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    pub(crate) fn day(&self, day: ArrivalDay) -> PathBuf {
        self.root.join("days").join(day.to_string())
    }

    /// The days that have a directory.
    pub(crate) fn days(&self) -> io::Result<Vec<ArrivalDay>> {
        let mut days = Vec::new();
        for entry in fs::read_dir(self.root.join("days"))? {
            let name = entry?.file_name();
            match name.to_str().and_then(|name| name.parse().ok()) {
                Some(day) => days.push(day),
                None => tracing::warn!(name = %name.display(), "ignoring what is no day in the index's directory"),
            }
        }
        days.sort_unstable();
        Ok(days)
    }

    /// Moves something damaged out of the way; says where to.
    pub(crate) fn set_aside(&self, path: &Path, unix_seconds: u64) -> io::Result<PathBuf> {
        let name = path.file_name().map(|name| name.display().to_string()).unwrap_or_default();
        let aside = (0..).map(|n| self.root.join("damaged").join(format!("{name}.{unix_seconds}.{n}")));
        let Some(to) = aside.into_iter().find(|path| !path.exists()) else {
            return Err(io::Error::other("no name is left"));
        };
        fs::rename(path, &to)?;
        sync_directory(&self.root.join("damaged"))?;
        if let Some(parent) = path.parent() {
            sync_directory(parent)?;
        }
        Ok(to)
    }

    /// Takes a day away for good. Its intervals must be in [`Dropped`] and saved before.
    pub(crate) fn drop_day(&self, day: ArrivalDay) -> io::Result<()> {
        let trash = self.root.join("trash").join(day.to_string());
        fs::rename(self.day(day), &trash)?;
        sync_directory(&self.root.join("days"))?;
        fs::remove_dir_all(trash)
    }

    fn dropped_path(&self) -> PathBuf {
        self.root.join("dropped")
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Intervals of the days that retention has dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    days: BTreeMap<ArrivalDay, Intervals>,
}

impl Dropped {
    /// Reads the file; none is none dropped.
    ///
    /// # Errors
    /// The file cannot be read, or (as `InvalidData`) is damaged.
    pub(crate) fn load(layout: &Layout) -> io::Result<Self> {
        match fs::read(layout.dropped_path()) {
            Ok(bytes) => Self::decode(&bytes).map_err(|damage| io::Error::new(io::ErrorKind::InvalidData, damage)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Path of the file, for messages and for setting it aside.
    pub(crate) fn path(layout: &Layout) -> PathBuf {
        layout.dropped_path()
    }

    /// Replaces the file, durably and at once.
    pub(crate) fn save(&self, layout: &Layout) -> io::Result<()> {
        let path = layout.dropped_path();
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(&self.encode())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_directory(&layout.root)
    }

    /// Takes a day in.
    pub(crate) fn add(&mut self, day: ArrivalDay, intervals: &Intervals) {
        self.days.entry(day).or_default().extend(intervals);
    }

    /// Forgets the days that were dropped long before `oldest_kept`.
    pub(crate) fn forget_before(&mut self, oldest_kept: ArrivalDay) {
        self.days = self.days.split_off(&oldest_kept.minus(REMEMBERED_DAYS));
    }

    /// All intervals together.
    pub(crate) fn union(&self) -> Intervals {
        let mut union = Intervals::default();
        self.days.values().for_each(|intervals| union.extend(intervals));
        union
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        write_number(&mut out, self.days.len() as u64);
        for (day, intervals) in &self.days {
            write_number(&mut out, u64::from(day.number()));
            intervals.encode(&mut out);
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, DroppedDamaged> {
        let (content, crc) = bytes.split_last_chunk::<4>().ok_or(DroppedDamaged)?;
        if crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
            return Err(DroppedDamaged);
        }
        let Some((&FORMAT, mut rest)) = content.split_first() else { return Err(DroppedDamaged) };
        let mut dropped = Self::default();
        let count = read_number(&mut rest).map_err(|_| DroppedDamaged)?;
        for _ in 0..count {
            let number = read_number(&mut rest).ok().and_then(|number| u32::try_from(number).ok());
            let day = ArrivalDay::from_number(number.ok_or(DroppedDamaged)?);
            dropped.days.insert(day, Intervals::decode(&mut rest).map_err(|_| DroppedDamaged)?);
        }
        Ok(dropped)
    }
}

#[cfg(test)]
mod tests {
    use logmesh_proto::StreamKey;

    use super::*;

    #[test]
    fn dropped_intervals_are_read_back_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(directory.path()).unwrap();
        assert_eq!(Dropped::load(&layout).unwrap(), Dropped::default());
        let mut intervals = Intervals::default();
        intervals.insert(StreamKey::from_bytes([1; 16]), 5, 50);
        let mut dropped = Dropped::default();
        dropped.add(ArrivalDay::from_number(20_000), &intervals);
        dropped.add(ArrivalDay::from_number(20_050), &intervals);
        dropped.save(&layout).unwrap();
        assert_eq!(Dropped::load(&layout).unwrap(), dropped);
        dropped.forget_before(ArrivalDay::from_number(20_050));
        assert_eq!(dropped.days.len(), 1, "a day is remembered for a while after it was dropped, not for ever");

        let bytes = fs::read(Dropped::path(&layout)).unwrap();
        for length in 0..bytes.len() {
            fs::write(Dropped::path(&layout), &bytes[..length]).unwrap();
            assert_eq!(Dropped::load(&layout).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn only_one_holder_of_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(directory.path()).unwrap();
        let held = layout.lock().unwrap();
        assert!(held.is_some());
        assert!(layout.lock().unwrap().is_none());
        drop(held);
        assert!(layout.lock().unwrap().is_some());
    }
}
