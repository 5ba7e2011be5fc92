//! Hints and walks.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Tailer, pace, source::Presence};
use crate::{
    clock::Now,
    discovery::{Found, Hint, Scan},
    filesystem::{Filesystem, Kind},
    parcel::StreamNumber,
};

/// Directories walked in one turn.
const STEPS_MAX: usize = 32;
/// Names out of scope that are followed, at most.
const FOLLOWED_MAX: usize = 1024;
/// Between two walks that hints ask for.
const WALK_PACE: Duration = Duration::from_millis(100);

impl<F: Filesystem> Tailer<F> {
    /// Asks for a walk soon: hints were lost, or a directory appeared.
    pub fn walk_soon(&mut self, now: Now) {
        let soon = now.mono.max(self.walk.finished_at + WALK_PACE);
        self.walk.next = self.walk.next.min(soon);
    }

    /// Says whether hints come; without them walks and looks are more frequent.
    pub fn set_polling(&mut self, polling: bool) {
        self.walk.polling = polling;
    }

    /// Whether the first walk is over.
    #[must_use]
    pub fn has_walked(&self) -> bool {
        self.walk.first_done
    }

    /// Takes the directories that walks came through since the last call, with the number of the last walk.
    pub fn take_directories(&mut self) -> (Vec<PathBuf>, u64) {
        (std::mem::take(&mut self.walk.directories), self.walk.number)
    }

    /// Whether no walk is under way.
    #[must_use]
    pub fn is_between_walks(&self) -> bool {
        self.walk.under_way.is_none()
    }

    pub(super) fn take_hints(&mut self, hints: Vec<Hint>, now: Now) {
        for hint in hints {
            match hint {
                Hint::Changed(path) => {
                    if let Some(&number) = self.by_path.get(&path) {
                        self.attend(number, now);
                    }
                }
                Hint::Appeared(path) => {
                    let group = self.settings.patterns.group(&path);
                    self.examine(path, group, now);
                }
                Hint::Moved { from, to } => self.moved(&from, to, now),
            }
        }
    }

    /// A name became another one. A file that was in scope under its old name is in scope, even when it was never seen
    /// under that name.
    fn moved(&mut self, from: &Path, to: PathBuf, now: Now) {
        let followed = self.walk.followed.remove(from);
        let before = self.settings.patterns.group(from).or(followed);
        let group = self.settings.patterns.group(&to);
        if let (Some(before), None) = (before, group)
            && self.walk.followed.len() < FOLLOWED_MAX
        {
            self.walk.followed.insert(to.clone(), before);
        }
        self.by_path.remove(from);
        self.examine(to, group.or(before), now);
    }

    fn examine(&mut self, path: PathBuf, group: Option<usize>, now: Now) {
        let Ok(stat) = self.filesystem.stat(&path) else { return };
        match stat.kind {
            Kind::Directory => self.walk_soon(now),
            Kind::File if group.is_some() || self.walk.wanted.contains_key(&stat.inode) => {
                self.found(Found { path, group, stat }, now);
            }
            Kind::File | Kind::Link | Kind::Other => {}
        }
    }

    pub(super) fn walk_on(&mut self, now: Now) {
        if self.walk.under_way.is_none() {
            if now.mono < self.walk.next {
                return;
            }
            self.walk.number += 1;
            self.walk.incomplete = false;
            self.walk.under_way = Some(Scan::all(&self.settings.patterns));
        }
        for _ in 0..STEPS_MAX {
            if self.step(now) {
                return self.finish_walk(now);
            }
        }
    }

    /// Walks one directory. Returns whether the walk is over.
    fn step(&mut self, now: Now) -> bool {
        let Some(mut scan) = self.walk.under_way.take() else { return true };
        let wanted = &self.walk.wanted;
        let step = scan.step(&self.filesystem, &self.settings.patterns, &|inode| wanted.contains_key(&inode));
        for (path, error) in step.failed {
            self.walk.incomplete = true;
            self.note_unreadable(&path, &error);
        }
        self.walk.directories.extend(step.directory);
        self.walk.directories.extend(step.targets);
        step.found.into_iter().for_each(|found| self.found(found, now));
        if !step.finished {
            self.walk.under_way = Some(scan);
        }
        step.finished
    }

    fn finish_walk(&mut self, now: Now) {
        let number = self.walk.number;
        // What this walk did not come upon can be read by now, or is no more.
        self.unreadable.retain(|_, why| why.walk >= number);
        self.walk.finished_at = now.mono;
        self.walk.next = now.mono + if self.walk.polling { pace::WALK_POLLING } else { pace::WALK };
        self.walk.first_done = true;
        let filesystem = &self.filesystem;
        self.walk.followed.retain(|path, _| filesystem.stat(path).is_ok());
        if self.walk.incomplete {
            return;
        }
        self.archives_walked(now);
        let mut gone: Vec<StreamNumber> = Vec::new();
        for (stream, source) in &mut self.sources {
            match source.presence {
                Presence::InScope { walk } if walk < number => source.kept_for = pace::RENAMED_KEPT,
                Presence::Dormant => source.kept_for = pace::VANISHED_KEPT,
                Presence::InScope { .. } | Presence::Gone { .. } => continue,
            }
            source.presence = Presence::Gone { since: now.mono };
            gone.push(*stream);
        }
        gone.into_iter().for_each(|stream| self.attend(stream, now));
    }
}
