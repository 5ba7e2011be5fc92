//! Files that were born and gone before anyone looked into them.
//!
//! A name in scope appeared, and when it was looked at there was nothing. Either the file has another name by now, which a
//! hint will say, or it is gone with whatever was written to it: nobody will ever know how much that was. Without hints
//! such a file leaves no trace at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use super::Tailer;
use crate::{
    clock::Now,
    filesystem::{Filesystem, Kind},
    losses::LossReason,
};

/// How long a hint about its new name may take at least. It ends at a whole second: what is given up is looked for in its
/// directory once more, and a storm of files must not have that listed for each of them.
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
            let until = Duration::from_secs((now + PATIENCE).as_secs() + 1);
            self.0.insert(name.into(), Born { name: name.into(), until });
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
        let mut by_parent: BTreeMap<PathBuf, BTreeSet<OsString>> = BTreeMap::new();
        for path in self.unseen.take_due(now.mono) {
            if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
                by_parent.entry(parent.into()).or_default().insert(name.into());
            }
        }
        for (parent, mut names) in by_parent {
            // A link to a file that is not there yet is no file that is gone. A directory that is gone too has none.
            let _ = self.filesystem.list(&parent, &mut |entry| {
                if entry.kind == Kind::Link {
                    names.remove(&entry.name);
                }
            });
            for name in names {
                self.tally.lost_events += 1;
                self.losses.note(&parent.join(name), None, LossReason::Unseen, now.unix_nano);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_nobody_saw_is_told_under_its_name_in_scope_once() {
        let mut unseen = Unseen::default();
        unseen.missed(Path::new("a.log"), Duration::ZERO);
        unseen.moved(Path::new("a.log"), Path::new("elsewhere"), false);
        assert_eq!(unseen.next_due(), PATIENCE * 2);
        assert!(unseen.take_due(PATIENCE).is_empty());
        assert_eq!(unseen.take_due(PATIENCE * 2), [PathBuf::from("a.log")]);
        assert!(unseen.take_due(PATIENCE * 3).is_empty());
        assert_eq!(unseen.next_due(), Duration::MAX);
    }

    #[test]
    fn a_file_that_has_another_name_by_now_is_seen_there() {
        let mut unseen = Unseen::default();
        unseen.missed(Path::new("a.log"), Duration::ZERO);
        unseen.moved(Path::new("a.log"), Path::new("a.log.1"), false);
        unseen.moved(Path::new("a.log.1"), Path::new("a.log.2"), true);
        assert!(unseen.take_due(PATIENCE * 3).is_empty());
    }

    #[test]
    fn what_is_given_up_within_a_second_is_given_up_at_once() {
        let mut unseen = Unseen::default();
        for number in 0..900 {
            unseen.missed(Path::new(&format!("{number}.log")), Duration::from_millis(number));
        }
        assert_eq!(unseen.take_due(unseen.next_due()).len(), 900);
    }
}
