//! What the operating system says about directories, taken as hints.
//!
//! One inotify instance watches directories, never files. Its thread puts hints into [`Hints`], which holds a bounded
//! number of them; what does not fit raises a flag, and the next walk over everything makes up for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use notify::{
    Event, EventKind, RecursiveMode, Watcher as _,
    event::{ModifyKind, RenameMode},
};
use thiserror::Error;

/// Hints kept at most; more raise [`Hints::overflowed`].
const HINTS_MAX: usize = 8192;

/// One thing that may have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A file's content or attributes changed.
    Changed(PathBuf),
    /// A name is gone.
    Vanished(PathBuf),
    /// A name appeared.
    Appeared(PathBuf),
    /// A name became another one.
    Moved {
        /// Its name before.
        from: PathBuf,
        /// Its name now.
        to: PathBuf,
    },
}

/// Hints that wait to be taken, in order, each change once.
#[derive(Debug, Default)]
pub struct Hints {
    waiting: Vec<Hint>,
    changed: BTreeSet<PathBuf>,
    vanished: BTreeSet<PathBuf>,
    /// Whether some were thrown away.
    pub overflowed: bool,
}

impl Hints {
    /// Notes a hint.
    pub fn add(&mut self, hint: Hint) {
        if self.waiting.len() + self.changed.len() + self.vanished.len() >= HINTS_MAX {
            self.overflowed = true;
            return;
        }
        match hint {
            Hint::Changed(path) => {
                self.changed.insert(path);
            }
            Hint::Vanished(path) => {
                self.vanished.insert(path);
            }
            hint @ (Hint::Appeared(_) | Hint::Moved { .. }) => self.waiting.push(hint),
        }
    }

    /// Whether there is nothing to take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.changed.is_empty() && self.vanished.is_empty() && !self.overflowed
    }

    /// Whether names came or went.
    #[must_use]
    pub fn has_names(&self) -> bool {
        !self.waiting.is_empty() || !self.vanished.is_empty() || self.overflowed
    }

    /// Takes all: names first, in order, then changes.
    pub fn take(&mut self) -> Vec<Hint> {
        let mut hints = std::mem::take(&mut self.waiting);
        hints.extend(std::mem::take(&mut self.changed).into_iter().map(Hint::Changed));
        hints.extend(std::mem::take(&mut self.vanished).into_iter().map(Hint::Vanished));
        hints
    }
}

/// Why a directory is not watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The kernel has no watch or instance left.
    #[error(
        "the limit of inotify watches or instances is reached: raise fs.inotify.max_user_watches and max_user_instances"
    )]
    Exhausted,
    /// Anything else.
    #[error("cannot watch directories: {0}")]
    Other(notify::Error),
}

impl From<notify::Error> for WatchError {
    fn from(error: notify::Error) -> Self {
        // ENOSPC and EMFILE are how the kernel says so.
        let exhausted = match &error.kind {
            notify::ErrorKind::MaxFilesWatch => true,
            notify::ErrorKind::Io(cause) => matches!(cause.raw_os_error(), Some(24 | 28)),
            notify::ErrorKind::Generic(_)
            | notify::ErrorKind::PathNotFound
            | notify::ErrorKind::WatchNotFound
            | notify::ErrorKind::InvalidConfig(_) => false,
        };
        if exhausted { Self::Exhausted } else { Self::Other(error) }
    }
}

/// The one inotify instance of the process.
pub struct Watcher {
    inner: notify::RecommendedWatcher,
    watched: BTreeMap<PathBuf, Watched>,
    /// The path under which each directory is watched: the kernel watches directories, whatever they are called.
    paths: BTreeMap<DirectoryId, PathBuf>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    id: DirectoryId,
    /// The last walk that came through it.
    walk: u64,
}

/// Tells a directory from one that had its name before, or has its inode now: device, inode, birth in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct DirectoryId(u64, u64, Option<u128>);

impl DirectoryId {
    fn of(directory: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(directory).ok()?;
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Some(Self(metadata.dev(), metadata.ino(), born.map(|age| age.as_nanos())))
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Watcher").field("watched", &self.watched.len()).finish_non_exhaustive()
    }
}

impl Watcher {
    /// Starts the instance. `note` is called on its thread, with `None` when hints were lost.
    ///
    /// # Errors
    /// The kernel has none left, or none at all.
    pub fn start(note: impl Fn(Option<Hint>) + Send + 'static) -> Result<Self, WatchError> {
        let mut reader = Reader::default();
        let inner = notify::recommended_watcher(move |event| reader.read(event, &note))?;
        Ok(Self { inner, watched: BTreeMap::new(), paths: BTreeMap::new() })
    }

    /// Watches a directory, and notes that walk number `walk` came through it. Returns whether the watch is new: also
    /// where a directory was removed or moved away, and another one has its path.
    ///
    /// # Errors
    /// The kernel has no watch left. A directory that is gone is no error.
    pub fn watch(&mut self, directory: &Path, walk: u64) -> Result<bool, WatchError> {
        let Some(id) = DirectoryId::of(directory) else {
            self.forget(directory);
            return Ok(false);
        };
        if let Some(watched) = self.watched.get_mut(directory).filter(|watched| watched.id == id) {
            watched.walk = walk;
            return Ok(false);
        }
        self.forget(directory);
        if let Some(before) = self.paths.get(&id).cloned() {
            // The same walk came through it under another path: it is mounted twice.
            if self.watched.get(&before).is_some_and(|watched| watched.walk == walk) {
                return Ok(false);
            }
            // It was moved here. Giving its old path up later would take the watch with it.
            self.forget(&before);
        }
        match self.inner.watch(directory, RecursiveMode::NonRecursive).map_err(WatchError::from) {
            Err(WatchError::Exhausted) => Err(WatchError::Exhausted),
            // It went away in between, or may not be read, which the walk reports.
            Err(WatchError::Other(_)) => Ok(false),
            Ok(()) => {
                self.watched.insert(directory.into(), Watched { id, walk });
                self.paths.insert(id, directory.into());
                Ok(true)
            }
        }
    }

    /// Gives up the directories that walk number `walk` did not come through.
    pub fn forget_before(&mut self, walk: u64) {
        let gone: Vec<PathBuf> =
            self.watched.iter().filter(|(_, seen)| seen.walk < walk).map(|(path, _)| path.clone()).collect();
        gone.iter().for_each(|path| self.forget(path));
    }

    fn forget(&mut self, directory: &Path) {
        let Some(watched) = self.watched.remove(directory) else { return };
        self.paths.remove(&watched.id);
        // The kernel has dropped the watch of a directory that is gone.
        let _ = self.inner.unwatch(directory);
    }
}

/// Turns events into hints.
#[derive(Default)]
struct Reader {
    /// The last name moved from, with its cookie, until its new name comes.
    moved: Option<(Option<usize>, PathBuf)>,
}

impl Reader {
    fn read(&mut self, event: notify::Result<Event>, note: &impl Fn(Option<Hint>)) {
        let Ok(event) = event else { return note(None) };
        if event.need_rescan() {
            return note(None);
        }
        let tracker = event.attrs.tracker();
        let mut paths = event.paths.into_iter();
        match event.kind {
            EventKind::Access(_) => {}
            EventKind::Create(_) => paths.for_each(|path| note(Some(Hint::Appeared(path)))),
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
                let Some(from) = paths.next() else { return };
                note(Some(Hint::Vanished(from.clone())));
                self.moved = Some((tracker, from));
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                let Some(to) = paths.next() else { return };
                match self.moved.take() {
                    Some((cookie, from)) if cookie == tracker => note(Some(Hint::Moved { from, to })),
                    Some(_) | None => note(Some(Hint::Appeared(to))),
                }
            }
            // Follows From and To, which were taken already.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {}
            EventKind::Remove(_) => paths.for_each(|path| note(Some(Hint::Vanished(path)))),
            EventKind::Any | EventKind::Modify(_) | EventKind::Other => {
                paths.for_each(|path| note(Some(Hint::Changed(path))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc, time::Duration};

    use super::*;

    fn start() -> (Watcher, mpsc::Receiver<Option<Hint>>) {
        let (sender, hints) = mpsc::sync_channel(1024);
        let watcher = Watcher::start(move |hint| {
            // Nobody listens any more once the test is over.
            let _ = sender.try_send(hint);
        });
        (watcher.unwrap(), hints)
    }

    fn is_told(hints: &mpsc::Receiver<Option<Hint>>, path: &Path) -> bool {
        let patience = Duration::from_secs(10);
        std::iter::from_fn(|| hints.recv_timeout(patience).ok()).any(|hint| hint == Some(Hint::Appeared(path.into())))
    }

    #[test]
    fn an_overflow_of_the_kernels_queue_is_told_as_lost_hints() {
        let overflow = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        let told = std::cell::RefCell::new(Vec::new());
        Reader::default().read(Ok(overflow), &|hint| told.borrow_mut().push(hint));
        assert_eq!(told.into_inner(), [None]);
    }

    #[test]
    fn a_directory_that_was_removed_and_made_again_is_watched_anew() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("d");
        let (mut watcher, hints) = start();
        fs::create_dir(&directory).unwrap();
        assert!(watcher.watch(&directory, 1).unwrap());
        assert!(!watcher.watch(&directory, 2).unwrap(), "it is the same one");
        fs::remove_dir_all(&directory).unwrap();
        // Its inode is taken, so that the new one is another for sure.
        fs::create_dir(root.path().join("e")).unwrap();
        fs::create_dir(&directory).unwrap();
        assert!(watcher.watch(&directory, 3).unwrap());
        fs::write(directory.join("a.log"), "").unwrap();
        assert!(is_told(&hints, &directory.join("a.log")));
    }

    #[test]
    fn a_directory_that_was_moved_is_watched_under_its_new_path_and_stays_so() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("d"), root.path().join("e"));
        let (mut watcher, hints) = start();
        fs::create_dir(&from).unwrap();
        assert!(watcher.watch(&from, 1).unwrap());
        fs::rename(&from, &to).unwrap();
        assert!(watcher.watch(&to, 2).unwrap());
        watcher.forget_before(2);
        fs::write(to.join("a.log"), "").unwrap();
        assert!(is_told(&hints, &to.join("a.log")));
    }
}
