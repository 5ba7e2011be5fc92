//! Files that were born and gone before anyone looked into them.
//!
//! A name in scope appeared, and when it was looked at there was nothing. Either the file has another name by now, which a
//! hint will say, or it is gone with whatever was written to it: nobody will ever know how much that was. Without hints
//! such a file leaves no trace at all.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use super::Tailer;
use crate::{
    clock::Now,
    filesystem::{Filesystem, Kind},
    losses::LossReason,
};

/// How long a hint about its new name may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Names remembered at most; more than are born and gone within that time are not told one by one.
const NAMES_MAX: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Unseen(BTreeMap<PathBuf, Born>);

/// A file that has not been seen.
#[derive(Debug, PartialEq, Eq)]
struct Born {
    /// Its name in scope.
    name: PathBuf,
    /// When it is given up.
    until: Duration,
}

impl Unseen {
    /// A name in scope appeared, and there is nothing under it.
    pub(super) fn missed(&mut self, name: &Path, now: Duration) {
        if self.0.len() < NAMES_MAX {
            self.0.insert(name.into(), Born { name: name.into(), until: now + PATIENCE });
        }
    }

    /// A name became another one, under which there is a file, or nothing any more.
    pub(super) fn moved(&mut self, from: &Path, to: &Path, is_there: bool) {
        if let Some(born) = self.0.remove(from)
            && !is_there
        {
            self.0.insert(to.into(), born);
        }
    }

    /// When the next one is given up.
    pub(super) fn next_due(&self) -> Duration {
        self.0.values().map(|born| born.until).min().unwrap_or(Duration::MAX)
    }

    /// The names of those that are given up now.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<PathBuf> {
        self.0.extract_if(.., |_, born| born.until <= now).map(|(_, born)| born.name).collect()
    }
}

impl<F: Filesystem> Tailer<F> {
    /// Counts the files that are not waited for any longer.
    pub(super) fn tell_unseen(&mut self, now: Now) {
        for name in self.unseen.take_due(now.mono) {
            if !self.is_link(&name) {
                self.tally.lost_events += 1;
                self.losses.note(&name, None, LossReason::Unseen, now.unix_nano);
            }
        }
    }

    /// Whether a name is that of a link, to a file that is not there yet.
    fn is_link(&self, path: &Path) -> bool {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return false };
        let mut is_link = false;
        let listed = self.filesystem.list(parent, &mut |entry| {
            is_link |= entry.name == name && entry.kind == Kind::Link;
        });
        listed.is_ok() && is_link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(10);

    #[test]
    fn a_file_that_nobody_saw_is_told_under_its_name_in_scope_once() {
        let mut unseen = Unseen::default();
        unseen.missed(Path::new("a.log"), Duration::ZERO);
        unseen.moved(Path::new("a.log"), Path::new("elsewhere"), false);
        assert_eq!(unseen.next_due(), PATIENCE);
        assert!(unseen.take_due(SOON).is_empty());
        assert_eq!(unseen.take_due(PATIENCE), [PathBuf::from("a.log")]);
        assert!(unseen.take_due(PATIENCE * 2).is_empty());
        assert_eq!(unseen.next_due(), Duration::MAX);
    }

    #[test]
    fn a_file_that_has_another_name_by_now_is_seen_there() {
        let mut unseen = Unseen::default();
        unseen.missed(Path::new("a.log"), Duration::ZERO);
        unseen.moved(Path::new("a.log"), Path::new("a.log.1"), false);
        unseen.moved(Path::new("a.log.1"), Path::new("a.log.2"), true);
        assert!(unseen.take_due(PATIENCE).is_empty());
    }
}
