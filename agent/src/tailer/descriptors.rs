//! Descriptors: which files are held open, and which are closed for a while.
//!
//! A file that is held open can be renamed or deleted and is read to its end all the same, so all are, as long as there
//! are descriptors. Beyond the bound the file that was not read for the longest is closed ("parked"): one that is read and
//! acknowledged before one that is not, a file in scope under a name that leads to it, never one that is deleted. It stays
//! the generation of its inode, is looked at by its name, and is opened again when it has changed or is needed. The name
//! may lead to another file by then, so what was opened must have the same device, inode and birth, and its bytes are
//! compared as with every read.
//!
//! A parked file that loses its name is looked for by its inode wherever walks come. One that is not found any more was
//! read as far as it was ever seen; only if a hint said that it changed, and it was gone before it could be looked at, an
//! unknown amount may be lost, which is told.

use std::{collections::BTreeSet, io, path::Path, time::Duration};

use super::{
    Tailer,
    source::{FileKey, Presence, Seen, Source},
};
use crate::{
    clock::Now,
    filesystem::{FileStat, Filesystem, Handle},
    inflate::Content,
    parcel::StreamNumber,
};

/// Fewest files that are held open: one may have to be compared with another.
const OPEN_MIN: usize = 2;
/// Files considered for closing at one time.
const CANDIDATES: usize = 64;
/// Files closed when the process has no descriptor left, so that there is room for a few others.
const CLOSED_AT_ONCE: usize = 16;
/// How long a lack of descriptors is told, and the bound stays lowered.
const TOLD_FOR: Duration = Duration::from_secs(600);

/// What is held open, the longest unused first.
#[derive(Debug)]
pub(super) struct Descriptors {
    wished: usize,
    /// Lower than what is wished while the process has fewer descriptors than it was told.
    max: usize,
    by_use: BTreeSet<(Duration, StreamNumber)>,
    exhausted_at: Option<Duration>,
}

impl Descriptors {
    pub(super) fn new(files_open_max: usize) -> Self {
        let max = files_open_max.max(OPEN_MIN);
        Self { wished: max, max, by_use: BTreeSet::new(), exhausted_at: None }
    }

    fn note_exhausted(&mut self, now: Duration) {
        self.max = self.max.min(self.by_use.len() * 3 / 4).max(OPEN_MIN);
        if self.exhausted_at.is_none() {
            tracing::warn!(files_open = self.by_use.len(), "no descriptor is left; files that rest are closed");
        }
        self.exhausted_at = Some(now);
    }

    fn recover(&mut self, now: Duration) {
        if self.exhausted_at.is_some_and(|at| now >= at + TOLD_FOR) {
            self.exhausted_at = None;
            self.max = self.wished;
        }
    }
}

/// Whether an error says that the process or the machine has no descriptor left (EMFILE, ENFILE).
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

impl<F: Filesystem> Tailer<F> {
    /// Opens a file and looks at what was opened, since the name may lead elsewhere by now. Others are closed for it where
    /// there is no room, but not `except`.
    pub(super) fn open(
        &mut self,
        path: &Path,
        except: Option<StreamNumber>,
        now: Now,
    ) -> io::Result<(Content<F::Handle>, FileStat)> {
        self.descriptors.recover(now.mono);
        while self.descriptors.by_use.len() >= self.descriptors.max && self.park_one(except, now) {}
        let file = match self.filesystem.open(path) {
            Err(error) if is_exhausted(&error) => {
                if self.free_some(except, now) == 0 {
                    Err(error)
                } else {
                    self.filesystem.open(path)
                }
            }
            opened => opened,
        }?;
        let file = Content::Plain(file);
        let stat = file.stat()?;
        Ok((file, stat))
    }

    /// No descriptor is left: closes some files that can be spared. Returns how many.
    pub(super) fn free_some(&mut self, except: Option<StreamNumber>, now: Now) -> usize {
        self.descriptors.note_exhausted(now.mono);
        (0..CLOSED_AT_ONCE).take_while(|_| self.park_one(except, now)).count()
    }

    /// Notes that a file is open, and was used now.
    pub(super) fn used(&mut self, number: StreamNumber, now: Now) {
        let Some(source) = self.sources.get_mut(&number) else { return };
        if let Some(before) = source.used_at.replace(now.mono) {
            self.descriptors.by_use.remove(&(before, number));
        }
        self.descriptors.by_use.insert((now.mono, number));
    }

    /// Notes that a file is open no more.
    pub(super) fn released(&mut self, number: StreamNumber, used_at: Option<Duration>) {
        if let Some(used_at) = used_at {
            self.descriptors.by_use.remove(&(used_at, number));
        }
    }

    /// Closes the file that can best be spared. Returns whether a descriptor is free for it.
    fn park_one(&mut self, except: Option<StreamNumber>, now: Now) -> bool {
        let candidates: Vec<_> = self.descriptors.by_use.iter().take(CANDIDATES).copied().collect();
        for is_resting in [true, false] {
            for &(at, number) in candidates.iter().filter(|(_, number)| Some(*number) != except) {
                let Some(source) = self.sources.get(&number).filter(|source| source.file.is_some()) else {
                    self.descriptors.by_use.remove(&(at, number));
                    return true;
                };
                if source.is_resting() == is_resting && source.may_be_parked() && self.park(number) {
                    return true;
                }
            }
        }
        // None of them can be spared; others are considered next time.
        candidates.into_iter().for_each(|(_, number)| self.used(number, now));
        false
    }

    /// Closes a file whose name leads to it. Returns whether it did.
    fn park(&mut self, number: StreamNumber) -> bool {
        let Some(source) = self.sources.get_mut(&number) else { return false };
        let Ok(stat) = self.filesystem.stat(&source.path) else { return false };
        let is_named = source.key == Some(FileKey::of(&stat));
        if !is_named || (source.is_resting() && source.seen != Seen::of(&stat)) {
            return false;
        }
        source.file = None;
        source.parked = true;
        self.walk.wanted.entry(source.inode).or_default().push(number);
        let used_at = source.used_at.take();
        self.released(number, used_at);
        true
    }

    /// Opens a parked file again. Returns whether it is open.
    pub(super) fn reopen(&mut self, number: StreamNumber, except: Option<StreamNumber>, now: Now) -> bool {
        let Some(source) = self.sources.get(&number) else { return false };
        if source.file.is_some() || !source.parked {
            return source.file.is_some();
        }
        let (path, key) = (source.path.clone(), source.key);
        let file = match self.open(&path, except, now) {
            Ok((file, stat)) if key == Some(FileKey::of(&stat)) => file,
            // Its name leads to another file, or to none: walks look for it.
            Ok(_) => return false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
            Err(error) => {
                self.read_failed(number, &error, now);
                return false;
            }
        };
        let Some(source) = self.sources.get_mut(&number) else { return false };
        source.file = Some(file);
        source.parked = false;
        source.doubted = false;
        let inode = source.inode;
        self.unwanted(inode, number);
        self.used(number, now);
        true
    }

    /// A generation is no longer looked for by its inode.
    pub(super) fn unwanted(&mut self, inode: u64, number: StreamNumber) {
        if let Some(numbers) = self.walk.wanted.get_mut(&inode) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.walk.wanted.remove(&inode);
            }
        }
    }

    /// Looks at a parked file by its name. Returns whether it is open now, for it has changed.
    pub(super) fn look_by_name(&mut self, number: StreamNumber, now: Now) -> bool {
        let Some(source) = self.sources.get_mut(&number) else { return false };
        match self.filesystem.stat(&source.path) {
            Ok(stat) if source.key == Some(FileKey::of(&stat)) => {
                if source.seen == Seen::of(&stat) {
                    source.doubt_padding(now);
                    return false;
                }
            }
            Ok(_) | Err(_) => return false,
        }
        self.reopen(number, Some(number), now)
    }

    /// A hint said that a parked file changed, which may have been its last change.
    pub(super) fn doubt(&mut self, number: StreamNumber) {
        let Some(source) = self.sources.get_mut(&number).filter(|source| source.parked) else { return };
        let is_there = self.filesystem.stat(&source.path).is_ok_and(|stat| source.key == Some(FileKey::of(&stat)));
        source.doubted |= !is_there;
    }

    /// What there is to say of descriptors, while there are too few.
    #[must_use]
    pub fn descriptor_shortage(&self) -> Option<String> {
        self.descriptors.exhausted_at?;
        Some(format!(
            "the process had no descriptor left: at most {} files are held open now, others are opened when they change; \
             raise the limit of open files (LimitNOFILE), or set `files_open_max` below it",
            self.descriptors.max
        ))
    }
}

impl<H> Source<H> {
    /// Whether all of it is read and acknowledged.
    fn is_resting(&self) -> bool {
        self.unread() == 0 && self.progress.is_settled() && self.kept.is_empty() && self.flush_at.is_none()
    }

    /// Whether its file may be closed for a while, if its name leads to it.
    fn may_be_parked(&self) -> bool {
        let is_named = match self.presence {
            Presence::InScope { .. } => true,
            Presence::Gone { .. } => self.is_resting(),
            Presence::Dormant => false,
        };
        is_named
            && !self.seen.deleted
            && self.held.is_none()
            && !self.short
            && !self.truncated
            && self.archive.is_none()
    }
}
