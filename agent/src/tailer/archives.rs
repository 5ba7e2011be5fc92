//! Archives that walks come across.
//!
//! Owns which files are archives and what they wait for; `unpack.rs` passes over them,
//! `archived.rs` decides what they are. A file
//! is an archive by its first bytes, under any name. Where archives are not read, those that are named as such are left
//! alone, for their bytes are no lines.
//!
//! An archive waits until nothing was written to it for a while, is passed over as a whole (one at a time), and is then
//! the continuation of a generation, a file of its own, or nothing new. Meanwhile it has no descriptor. One that is
//! damaged, or stays incomplete, is told once and looked at again when it changes.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Tailer,
    past::{KEPT_MAX, PastGenerations, Present},
    source::FileKey,
};
use crate::{
    clock::Now,
    discovery::Found,
    filesystem::{FileStat, Filesystem, Handle},
    identity::{MARK_BYTES_MAX, Mark},
    inflate::{Codec, Content, Looks, MAGIC_BYTES, Pass, is_named_as_archive},
    parcel::StreamNumber,
    state::{Fact, Seal, Store},
};

/// How long nothing is written to an archive before it is passed over.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// What a writer changes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) modified_nano: i64,
}

impl Written {
    pub(super) fn of(stat: &FileStat) -> Self {
        Self { bytes: stat.size, modified_nano: stat.modified_nano }
    }
}

/// An archive that was found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    /// Bytes of its content.
    pub(super) size: u64,
    pub(super) seal: Seal,
    /// Generations that its content may be of, the most likely first.
    pub(super) of: Vec<StreamNumber>,
    pub(super) since: Duration,
}

/// What an archive waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// That nothing is written to it any more.
    Settling,
    /// Its pass, or the end of it.
    Passing,
    /// That it is clear what it is, or for room to be read.
    Whole(Whole),
    /// Its rest, which was not there.
    Incomplete,
    /// Another content: this one cannot be read.
    Refused(String),
}

#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    /// `None` for one out of scope.
    pub(super) group: Option<usize>,
    pub(super) codec: Codec,
    pub(super) written: Written,
    /// Since when it is as it is.
    pub(super) since: Duration,
    pub(super) stage: Stage,
    /// The last walk or hint that came across it.
    pub(super) walk: u64,
    due: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Archives<H> {
    pub(super) candidates: HashMap<FileKey, Candidate>,
    due: BTreeSet<(Duration, FileKey)>,
    /// Those that are quiet, in the order of their passes.
    pub(super) queue: VecDeque<FileKey>,
    pub(super) passing: Option<(FileKey, Pass<H>)>,
    /// Archives that are not read, and the last walk that came across them.
    left_alone: HashMap<FileKey, (Written, u64)>,
}

impl<H> Default for Archives<H> {
    fn default() -> Self {
        Self {
            candidates: HashMap::new(),
            due: BTreeSet::new(),
            queue: VecDeque::new(),
            passing: None,
            left_alone: HashMap::new(),
        }
    }
}

impl<H> Archives<H> {
    /// Has a candidate considered at `at`.
    pub(super) fn schedule(&mut self, key: FileKey, at: Duration) {
        let Some(candidate) = self.candidates.get_mut(&key) else { return };
        if let Some(before) = candidate.due.replace(at) {
            self.due.remove(&(before, key));
        }
        self.due.insert((at, key));
    }

    /// The next candidate whose time has come.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<FileKey> {
        let &(at, key) = self.due.first().filter(|(at, _)| *at <= now)?;
        self.due.remove(&(at, key));
        if let Some(candidate) = self.candidates.get_mut(&key) {
            candidate.due = None;
        }
        Some(key)
    }

    pub(super) fn next_due(&self) -> Duration {
        self.due.first().map_or(Duration::MAX, |(at, _)| *at)
    }

    pub(super) fn remove(&mut self, key: &FileKey) -> Option<Candidate> {
        let candidate = self.candidates.remove(key)?;
        if let Some(at) = candidate.due {
            self.due.remove(&(at, *key));
        }
        Some(candidate)
    }

    /// Lets an archive be, without a word.
    pub(super) fn leave_alone(&mut self, stat: &FileStat, walk: u64) {
        self.left_alone.insert(FileKey::of(stat), (Written::of(stat), walk));
    }

    /// Whether what is missing elsewhere may turn up in one of them.
    fn may_hold_more(&self) -> bool {
        self.candidates.values().any(|candidate| !matches!(candidate.stage, Stage::Refused(_)))
    }
}

/// What is remembered of generations that are over, where archives are read.
pub(super) fn recall(store: &Store, compressed: &[bool]) -> (PastGenerations, Vec<crate::state::Past>) {
    let groups = compressed.iter().filter(|compressed| **compressed).count();
    if groups == 0 {
        return (PastGenerations::default(), Vec::new());
    }
    let kept_max = KEPT_MAX * groups;
    match store.open_past() {
        Ok((log, past, note)) => {
            if let Some(note) = note {
                tracing::warn!(%note, "archives of some generations may be read again");
            }
            (PastGenerations::new(Some(log), kept_max), past)
        }
        Err(error) => {
            tracing::warn!(%error, "cannot open the file of past generations; archives may be read again after a restart");
            (PastGenerations::new(None, kept_max), Vec::new())
        }
    }
}

impl<F: Filesystem> Tailer<F> {
    pub(super) fn reads_archives(&self, group: Option<usize>) -> bool {
        group.and_then(|group| self.settings.compressed.get(group)).copied().unwrap_or(false)
    }

    /// Whether an archive of a generation may turn up.
    pub(super) fn may_be_archived(&self, number: StreamNumber) -> bool {
        let Some(source) = self.sources.get(&number) else { return false };
        self.settings.compressed.contains(&true)
            && self.reads_archives(self.settings.patterns.group(&source.scope_path))
    }

    /// Whether the rest of a generation may be in an archive that is not read yet.
    pub(super) fn may_be_in_an_archive(&self, number: StreamNumber) -> bool {
        self.archives.may_hold_more() && self.may_be_archived(number)
    }

    /// A walk or a hint came across a file. Returns whether it is an archive that is taken care of.
    pub(super) fn is_known_archive(&mut self, found: &Found, key: &FileKey, now: Now) -> bool {
        let walk = self.walk.number;
        if let Some((written, seen)) = self.archives.left_alone.get_mut(key)
            && *written == Written::of(&found.stat)
        {
            *seen = walk;
            return true;
        }
        if self.past.came_across(key, found.stat.size, walk) {
            return true;
        }
        let Some(candidate) = self.archives.candidates.get_mut(key) else { return false };
        if candidate.written != Written::of(&found.stat) && key.birth_nano.is_none() {
            // Without birth times it may be another file in the same inode.
            self.archives.remove(key);
            return false;
        }
        if found.group.is_some() {
            candidate.path.clone_from(&found.path);
            candidate.group = found.group;
        }
        candidate.walk = walk;
        if candidate.written == Written::of(&found.stat) {
            if let Stage::Refused(reason) = &candidate.stage {
                let error = io::Error::other(reason.clone());
                self.note_unreadable(&found.path, &error);
            }
            return true;
        }
        if matches!(candidate.stage, Stage::Refused(_) | Stage::Incomplete | Stage::Whole(_)) {
            candidate.stage = Stage::Settling;
            self.unreadable.remove(&found.path);
            self.archives.schedule(*key, now.mono);
        }
        true
    }

    /// Sets a file aside that turns out to be an archive. Returns whether it did.
    pub(super) fn set_archive_aside(
        &mut self,
        file: &Content<F::Handle>,
        stat: &FileStat,
        found: &Found,
        now: Now,
    ) -> bool {
        let group = found.group.or_else(|| self.group_of_inode(&FileKey::of(stat)));
        let (read, named) = (self.reads_archives(group), is_named_as_archive(&found.path));
        if !read && !named {
            return false;
        }
        let mut first = [0; MAGIC_BYTES];
        let Ok(count) = file.read_full_at(&mut first, 0) else { return false };
        match (Looks::of(&first[..count]), read) {
            // What is named as an archive and is not written yet will be one.
            (Looks::Plain, _) => named && count < MAGIC_BYTES,
            (Looks::Archive(codec), true) => {
                self.take_archive(file, codec, stat, found, now);
                true
            }
            (Looks::Archive(_), false) => {
                let path = found.path.display();
                tracing::info!(%path, "an archive is left alone; `compressed = true` has the group's archives read");
                self.archives.leave_alone(stat, self.walk.number);
                true
            }
            (Looks::Foreign, _) => {
                let path = found.path.display();
                tracing::info!(%path, "an archive is left alone; only those of gzip and zstd can be read");
                self.archives.leave_alone(stat, self.walk.number);
                true
            }
        }
    }

    /// The group of a generation that had this inode.
    fn group_of_inode(&self, key: &FileKey) -> Option<usize> {
        let known = self.same_inode(key);
        known.iter().find_map(|number| self.settings.patterns.group(&self.sources.get(number)?.scope_path))
    }

    fn take_archive(&mut self, file: &Content<F::Handle>, codec: Codec, stat: &FileStat, found: &Found, now: Now) {
        let (key, walk) = (FileKey::of(stat), self.walk.number);
        let sealed = self.past.sealed(&key, stat.size);
        if !sealed.is_empty()
            && let Ok(seal) = seal(file, stat.size)
            && let Some((number, _)) = sealed.into_iter().find(|(_, other)| *other == seal)
        {
            return self.past.set_present(number, Present { key, walk });
        }
        let written = Written::of(stat);
        // A file that was there for long is quiet.
        let age = now.unix_nano.saturating_sub(u64::try_from(stat.modified_nano).unwrap_or(0));
        let since = now.mono.saturating_sub(Duration::from_nanos(age).min(QUIET));
        let candidate = Candidate {
            path: found.path.clone(),
            group: found.group,
            codec,
            written,
            since,
            stage: Stage::Settling,
            walk,
            due: None,
        };
        self.archives.candidates.insert(key, candidate);
        self.archives.schedule(key, now.mono);
    }

    /// A file that was adopted before its first bytes were there turns out to be an archive.
    pub(super) fn turns_out_archive(&mut self, number: StreamNumber, now: Now) -> bool {
        let Some(source) = self.sources.get(&number) else { return false };
        let Some(file) = &source.file else { return false };
        if source.archive.is_some() || source.progress.position().offset > 0 {
            return false;
        }
        let Ok(stat) = file.stat() else { return false };
        let path = source.path.clone();
        let found = Found { group: self.settings.patterns.group(&path), path, stat };
        if !self.reads_archives(found.group) && !is_named_as_archive(&found.path) {
            return false;
        }
        let Some(file) = self.sources.get_mut(&number).and_then(|source| source.file.take()) else { return false };
        if self.set_archive_aside(&file, &stat, &found, now) {
            let removed = self.remove(number);
            if let Some(stream_id) = removed.and_then(|source| source.stream_id.filter(|_| source.logged)) {
                self.append(&[Fact::Forgotten(stream_id)]);
            }
            return true;
        }
        if let Some(source) = self.sources.get_mut(&number) {
            source.file = Some(file);
        }
        false
    }

    /// A whole walk is over: what it did not come across is gone, unless it may be where the walk could not look.
    pub(super) fn archives_walked(&mut self, is_hidden: impl Fn(&Path) -> bool, now: Now) {
        let walk = self.walk.number;
        let candidates = self.archives.candidates.iter();
        let gone: Vec<FileKey> =
            candidates.filter(|(_, it)| it.walk < walk && !is_hidden(&it.path)).map(|(key, _)| *key).collect();
        gone.iter().for_each(|key| drop(self.archives.remove(key)));
        self.archives.left_alone.retain(|_, (_, seen)| *seen >= walk);
        self.past.walked(walk, now.unix_nano / 1_000_000_000);
    }
}

/// What an archive of this size is recognised by.
pub(super) fn seal(file: &impl Handle, bytes: u64) -> io::Result<Seal> {
    let mut tail = [0; MARK_BYTES_MAX];
    let length = MARK_BYTES_MAX.min(usize::try_from(bytes).unwrap_or(usize::MAX));
    let count = file.read_full_at(&mut tail[..length], bytes - length as u64)?;
    if count < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Seal { bytes, tail: Mark::anchor(&tail[..length]) })
}

/// Whether two files are the same before an offset, as far as `tail` reaches.
pub(super) fn holds_before(file: &impl Handle, offset: u64, tail: &[u8]) -> bool {
    let mut other = [0; MARK_BYTES_MAX];
    let Some(at) = offset.checked_sub(tail.len() as u64) else { return false };
    let other = &mut other[..tail.len().min(MARK_BYTES_MAX)];
    matches!(file.read_full_at(other, at), Ok(count) if count == tail.len()) && other == tail
}

/// What is told of an archive whose end does not come.
pub(super) fn told_incomplete(path: &Path) -> io::Error {
    tracing::debug!(path = %path.display(), "an archive stays incomplete");
    io::Error::new(io::ErrorKind::InvalidData, "the archive ends in the middle, and nothing was added for a minute")
}
