//! What the operating system says about directories, taken as hints.
//!
//! One inotify instance watches directories, never files. Its thread puts hints into [`Hints`], which holds a bounded
//! number of them; what does not fit raises a flag, and the next walk over everything makes up for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
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
    /// A file's content or attributes changed, or it is gone.
    Changed(PathBuf),
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
    /// Whether some were thrown away.
    pub overflowed: bool,
}

impl Hints {
    /// Notes a hint.
    pub fn add(&mut self, hint: Hint) {
        if self.waiting.len() + self.changed.len() >= HINTS_MAX {
            self.overflowed = true;
            return;
        }
        match hint {
            Hint::Changed(path) => {
                self.changed.insert(path);
            }
            hint @ (Hint::Appeared(_) | Hint::Moved { .. }) => self.waiting.push(hint),
        }
    }

    /// Whether there is nothing to take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.changed.is_empty() && !self.overflowed
    }

    /// Takes all: names first, in order, then changes.
    pub fn take(&mut self) -> Vec<Hint> {
        let mut hints = std::mem::take(&mut self.waiting);
        hints.extend(std::mem::take(&mut self.changed).into_iter().map(Hint::Changed));
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
    watched: BTreeMap<PathBuf, u64>,
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
        Ok(Self { inner, watched: BTreeMap::new() })
    }

    /// Watches a directory, and notes that walk number `walk` came through it. Returns whether the watch is new.
    ///
    /// # Errors
    /// The kernel has no watch left. A directory that is gone is no error.
    pub fn watch(&mut self, directory: &Path, walk: u64) -> Result<bool, WatchError> {
        if let Some(seen) = self.watched.get_mut(directory) {
            *seen = walk;
            return Ok(false);
        }
        match self.inner.watch(directory, RecursiveMode::NonRecursive).map_err(WatchError::from) {
            Err(WatchError::Exhausted) => Err(WatchError::Exhausted),
            // It went away in between, or may not be read, which the walk reports.
            Err(WatchError::Other(_)) => Ok(false),
            Ok(()) => {
                self.watched.insert(directory.into(), walk);
                Ok(true)
            }
        }
    }

    /// Gives up the directories that walk number `walk` did not come through.
    pub fn forget_before(&mut self, walk: u64) {
        let gone: Vec<PathBuf> =
            self.watched.iter().filter(|(_, seen)| **seen < walk).map(|(path, _)| path.clone()).collect();
        for path in gone {
            self.watched.remove(&path);
            // The kernel has dropped the watch of a directory that is gone.
            let _ = self.inner.unwatch(&path);
        }
    }

    /// Forgets a directory that was moved or removed, so that it is watched anew should it return.
    pub fn forget(&mut self, directory: &Path) {
        if self.watched.remove(directory).is_some() {
            let _ = self.inner.unwatch(directory);
        }
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
                note(Some(Hint::Changed(from.clone())));
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
            EventKind::Any | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => {
                paths.for_each(|path| note(Some(Hint::Changed(path))));
            }
        }
    }
}
