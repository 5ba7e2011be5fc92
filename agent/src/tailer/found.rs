//! A file was found: which generation is it?

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    Tailer, Unreadable,
    descriptors::is_exhausted,
    source::{FileKey, Presence, Seen, Source},
};
use crate::{
    clock::Now,
    discovery::Found,
    filesystem::{FileStat, Filesystem, Handle, Kind},
    generation::{Place, Progress},
    identity::{MARK_BYTES_MAX, StreamId},
    inflate::Content,
    parcel::StreamNumber,
    state::{Fact, Past, Remembered, Trust},
};

impl<F: Filesystem> Tailer<F> {
    /// Takes a generation from the state; its file is yet to be found.
    pub(super) fn remember(&mut self, remembered: Remembered) {
        let number = self.new_number();
        self.remember_as(number, remembered);
    }

    /// Takes in a generation that ended in an earlier run.
    pub(super) fn recall(&mut self, past: Past) {
        let number = self.new_number();
        self.past.learn(number, past, None);
    }

    pub(super) fn remember_as(&mut self, number: StreamNumber, remembered: Remembered) {
        let Remembered { generation, cuts } = remembered;
        let group = self.settings.patterns.group(&generation.path).unwrap_or(0);
        let (info, framing) = (self.info(group, &generation.path), self.framing(group));
        let skipped_max = framing.skipped_bytes_max() as u64;
        let mut source = Source::new(generation.path, info, framing, std::time::Duration::ZERO);
        (source.group, source.sift) = (group, self.rules(group).sift);
        source.stream_id = Some(generation.stream_id);
        source.inode = generation.inode;
        source.birth_nano = generation.birth_nano;
        source.epoch = generation.epoch;
        source.head = generation.head;
        let acked = Place { offset: generation.acked, after: generation.after, anchor: generation.anchor };
        source.progress = Progress::resume(acked, &cuts, skipped_max);
        // Where the last cuts may be missing, intervals of what was sent cannot be trusted.
        source.resend = generation.resend || self.trust != Trust::Whole;
        source.own = true;
        source.logged = true;
        source.durable = true;
        self.heads.insert(source.head, number);
        self.ids.extend(source.stream_id);
        self.walk.wanted.entry(source.inode).or_default().push(number);
        self.sources.insert(number, source);
    }

    pub(super) fn new_number(&mut self) -> StreamNumber {
        self.next_number += 1;
        StreamNumber(self.next_number)
    }

    /// A walk or a hint came across a file.
    pub(super) fn found(&mut self, found: Found, now: Now) {
        let key = FileKey::of(&found.stat);
        let Some(&number) = self.by_key.get(&key) else {
            if !self.is_known_archive(&found, &key, now) {
                self.adopt(&found, now);
            }
            return;
        };
        let walk = self.walk.number;
        let Some(source) = self.sources.get_mut(&number) else { return };
        if found.group.is_some() {
            let seen_by_this_walk = source.presence == Presence::InScope { walk };
            source.presence = Presence::InScope { walk };
            // With several names the first one found in a walk is the one that is told.
            if !seen_by_this_walk && source.path != found.path {
                source.path.clone_from(&found.path);
                source.scope_path.clone_from(&found.path);
                source.saved = None;
            }
        }
        if source.parked {
            // Any name that leads to it will do.
            source.path.clone_from(&found.path);
        }
        let changed = source.seen != Seen::of(&found.stat);
        self.by_path.insert(found.path, number);
        if changed {
            self.attend(number, now);
        }
    }

    fn adopt(&mut self, found: &Found, now: Now) {
        let (file, stat) = match self.open(&found.path, None, now) {
            Ok(opened) => opened,
            // The next walk comes upon it again, and there may be descriptors then.
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_exhausted(&error) => return,
            Err(error) => return self.note_unreadable(&found.path, &error),
        };
        self.unreadable.remove(&found.path);
        let key = FileKey::of(&stat);
        if stat.kind != Kind::File || self.by_key.contains_key(&key) {
            return;
        }
        if self.set_archive_aside(&file, &stat, found, now) {
            return;
        }
        let known = self.same_inode(&key);
        let alike = known.iter().copied().filter(|number| self.is_same(*number, &file, &stat));
        // Little may be known of a generation that was begun a moment before a kill, so that it agrees with anything.
        let resumed = alike.max_by_key(|number| self.evidence(*number, &file));
        let number = match resumed {
            Some(number) => number,
            // Out of scope, and not what was looked for; but one that was born at the same moment is the file itself, of
            // which other content was written while it was in scope.
            None if found.group.is_none() && (known.is_empty() || key.birth_nano.is_none()) => return,
            None => {
                let before = known.first().and_then(|number| self.sources.get(number));
                let group = found.group.or(before.map(|before| before.group)).unwrap_or(0);
                self.begin(&found.path, group, &key, !known.is_empty(), now)
            }
        };
        for other in known.into_iter().filter(|other| *other != number) {
            self.vanish(other, now);
        }
        self.log_generation(number);
        self.attach(number, file, &stat, found, now);
    }

    /// Notes a new generation in the cut log, so that a kill before its first batch does not make it a stranger.
    pub(super) fn log_generation(&mut self, number: StreamNumber) {
        let Some(source) = self.sources.get(&number).filter(|source| !source.logged) else { return };
        let Some(record) = source.record() else { return };
        let written = self.append(&[Fact::Generation(record)]);
        if let Some(source) = self.sources.get_mut(&number) {
            source.logged = written;
        }
    }

    pub(super) fn note_unreadable(&mut self, path: &Path, error: &io::Error) {
        let (reason, walk) = (error.to_string(), self.walk.number);
        let before = self.unreadable.insert(path.into(), Unreadable { reason: reason.clone(), walk });
        if before.is_none_or(|before| before.reason != reason) {
            tracing::warn!(path = %path.display(), %error, "cannot read a path; it is tried again at each walk");
            self.tally.unreadable += 1;
        }
    }

    /// Generations without a file that had this inode and birth time.
    pub(super) fn same_inode(&self, key: &FileKey) -> Vec<StreamNumber> {
        let numbers = self.walk.wanted.get(&key.inode).into_iter().flatten().copied();
        numbers
            .filter(|number| {
                let source = self.sources.get(number);
                source.is_some_and(|source| {
                    source.file.is_none() && !source.parked && source.birth_nano == key.birth_nano
                })
            })
            .collect()
    }

    /// Whether a file holds what is known of a generation: its head, and the bytes before the acknowledged offset.
    fn is_same(&self, number: StreamNumber, file: &Content<F::Handle>, stat: &FileStat) -> bool {
        let Some(source) = self.sources.get(&number) else { return false };
        let acked = source.progress.acked();
        let mut buffer = [0; MARK_BYTES_MAX];
        let head = &mut buffer[..usize::from(source.head.length)];
        if stat.size < acked.offset || !matches!(file.read_full_at(head, 0), Ok(count) if count == head.len()) {
            return false;
        }
        if !source.head.begins(head) {
            return false;
        }
        holds(file, acked)
    }

    /// How much speaks for a file's being in a generation that it does not contradict: whether it holds all that was read
    /// of it, and how many bytes were compared.
    fn evidence(&self, number: StreamNumber, file: &Content<F::Handle>) -> (bool, u16) {
        let Some(source) = self.sources.get(&number) else { return (false, 0) };
        let (acked, position) = (source.progress.acked(), source.progress.position());
        let read = position.offset > 0 && holds(file, position);
        (read, source.head.length + acked.anchor.length.max(position.anchor.length))
    }

    /// Begins a generation; `again` says that its file had one before.
    pub(super) fn begin(&mut self, path: &Path, group: usize, key: &FileKey, again: bool, now: Now) -> StreamNumber {
        let number = self.new_number();
        let mut source = Source::new(path.to_path_buf(), self.info(group, path), self.framing(group), now.mono);
        (source.group, source.sift) = (group, self.rules(group).sift);
        source.inode = key.inode;
        source.birth_nano = key.birth_nano;
        if let Some(birth_nano) = key.birth_nano {
            let id = |epoch| StreamId::born(key.inode, birth_nano, epoch);
            // The same inode and birth on two devices: one is a clone of the other's disk.
            source.epoch = if again || self.ids.contains(&id(0)) { self.random_epoch() } else { 0 };
            source.stream_id = Some(id(source.epoch));
            self.ids.extend(source.stream_id);
        } else if again {
            source.epoch = self.random_epoch();
        }
        // A truncated file is no new inode; what an agent without state finds may have been sent before.
        source.own = again;
        let may_be_sent = match self.trust {
            Trust::Whole => false,
            // The end of the cut log may be missing, and with it whole generations.
            Trust::PowerCut => true,
            Trust::Lost => !self.settings.fresh,
        };
        source.resend = may_be_sent && !self.walk.first_done;
        self.sources.insert(number, source);
        number
    }

    fn random_epoch(&self) -> u64 {
        (self.random)().max(1)
    }

    pub(super) fn attach(
        &mut self,
        number: StreamNumber,
        file: Content<F::Handle>,
        stat: &FileStat,
        found: &Found,
        now: Now,
    ) {
        let key = FileKey::of(stat);
        self.by_key.insert(key, number);
        self.by_path.insert(found.path.clone(), number);
        let walk = self.walk.number;
        if let Some(inode) = self.sources.get(&number).map(|source| source.inode) {
            self.unwanted(inode, number);
        }
        self.used(number, now);
        let Some(source) = self.sources.get_mut(&number) else { return };
        source.inode = key.inode;
        source.birth_nano = key.birth_nano;
        source.key = Some(key);
        source.saved = None;
        source.file = Some(file);
        source.parked = false;
        source.truncated = false;
        source.gone_by = None;
        source.seen = Seen::default();
        source.path.clone_from(&found.path);
        if found.group.is_some() {
            source.scope_path.clone_from(&found.path);
        }
        source.grown_at = now.mono;
        source.presence = match found.group {
            Some(_) => Presence::InScope { walk },
            None => Presence::Gone { since: now.mono },
        };
        source.kept_for = super::pace::RENAMED_KEPT;
        self.checkpoint.dirty = true;
        self.attend(number, now);
    }

    /// A generation has lost its file for good, unless a continuation turns up.
    pub(super) fn vanish(&mut self, number: StreamNumber, now: Now) {
        let kept_for = self.kept_without_file(number);
        let Some(source) = self.sources.get_mut(&number) else { return };
        source.presence = Presence::Gone { since: now.mono };
        source.kept_for = kept_for;
        source.archive = None;
        source.file = None;
        source.parked = false;
        let used_at = source.used_at.take();
        if let Some(key) = source.key.take() {
            self.by_key.remove(&key);
        }
        self.released(number, used_at);
        self.newly_gone.push(number);
        self.arm(number, now.mono + super::pace::SETTLE);
    }

    /// Dates those that were seen to be gone in the turn before. Its own time does not do: a process may stand still
    /// within a turn, and what it sees then is younger than the time at which the turn began.
    pub(super) fn date_gone(&mut self, now: Now) {
        for number in std::mem::take(&mut self.newly_gone) {
            let source = self.sources.get_mut(&number);
            if let Some(source) = source.filter(|source| matches!(source.presence, Presence::Gone { .. })) {
                source.gone_by.get_or_insert(now.mono);
            }
        }
    }

    /// Paths that cannot be read now, with the reason.
    #[must_use]
    pub fn unreadable(&self) -> Vec<(PathBuf, String)> {
        self.unreadable.iter().map(|(path, why)| (path.clone(), why.reason.clone())).collect()
    }
}

/// Whether a file holds the bytes before a place.
fn holds(file: &impl Handle, place: Place) -> bool {
    let mut buffer = [0; MARK_BYTES_MAX];
    let anchor = &mut buffer[..usize::from(place.anchor.length)];
    let at = place.offset - anchor.len() as u64;
    matches!(file.read_full_at(anchor, at), Ok(count) if count == anchor.len()) && place.anchor.ends(anchor)
}
