//! One walk over the directories that can hold matches, a directory at a time, so that reading goes on in between.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use super::Patterns;
use crate::filesystem::{Entry, FileStat, Filesystem, Kind};

/// Deepest directory below a root that is looked into.
const DEPTH_MAX: usize = 64;
/// Most directories that wait to be walked; beyond it the walk is cut short and says so.
const WAITING_MAX: usize = 1_000_000;

/// A file that the walk came across.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its path, links not resolved.
    pub path: PathBuf,
    /// Its group; `None` for one out of scope whose inode is wanted.
    pub group: Option<usize>,
    /// What it leads to.
    pub stat: FileStat,
}

/// What a step of the walk came to.
#[derive(Debug, Default)]
pub struct Step {
    /// Files found.
    pub found: Vec<Found>,
    /// The directory that was walked, links resolved.
    pub directory: Option<PathBuf>,
    /// Directories that hold targets of links.
    pub targets: Vec<PathBuf>,
    /// What could not be looked at.
    pub failed: Vec<(PathBuf, io::Error)>,
    /// Whether the walk is over.
    pub finished: bool,
}

/// A walk under way.
#[derive(Debug)]
pub struct Scan {
    waiting: Vec<(PathBuf, usize)>,
    /// Directories walked, by device and inode: links may lead in circles.
    walked: HashSet<(u64, u64)>,
}

impl Scan {
    /// A walk over everything.
    #[must_use]
    pub fn all(patterns: &Patterns) -> Self {
        let waiting = patterns.roots().into_iter().map(|(root, depth)| (root, depth.min(DEPTH_MAX))).collect();
        Self { waiting, walked: HashSet::new() }
    }

    /// Walks one directory. `wanted` says of an inode whether it is looked for under any name.
    pub fn step<F: Filesystem>(&mut self, filesystem: &F, patterns: &Patterns, wanted: &dyn Fn(u64) -> bool) -> Step {
        let mut step = Step::default();
        if let Some((directory, depth)) = self.waiting.pop() {
            self.walk(filesystem, patterns, wanted, &directory, depth, &mut step);
        }
        step.finished = self.waiting.is_empty();
        step
    }

    fn walk<F: Filesystem>(
        &mut self,
        filesystem: &F,
        patterns: &Patterns,
        wanted: &dyn Fn(u64) -> bool,
        directory: &Path,
        depth: usize,
        step: &mut Step,
    ) {
        let stat = match filesystem.stat(directory) {
            Ok(stat) => stat,
            // What is not there yet may come.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return step.failed.push((directory.into(), error)),
        };
        if stat.kind != Kind::Directory || !self.walked.insert((stat.device, stat.inode)) {
            return;
        }
        let mut entries = Vec::new();
        if let Err(error) = filesystem.list(directory, &mut |entry| entries.push(entry)) {
            step.failed.push((directory.into(), error));
        }
        for entry in entries {
            self.look_at(filesystem, patterns, wanted, directory, depth, &entry, step);
        }
        step.directory = filesystem.resolve(directory).ok();
    }

    #[allow(clippy::too_many_arguments, reason = "one step of one walk; a struct would only rename the arguments")]
    fn look_at<F: Filesystem>(
        &mut self,
        filesystem: &F,
        patterns: &Patterns,
        wanted: &dyn Fn(u64) -> bool,
        directory: &Path,
        depth: usize,
        entry: &Entry,
        step: &mut Step,
    ) {
        let path = directory.join(&entry.name);
        if entry.kind == Kind::Directory {
            return self.wait(path, depth);
        }
        let group = patterns.group(&path);
        let may_be_directory = entry.kind == Kind::Link && depth > 1;
        if group.is_none() && !may_be_directory && !wanted(entry.inode) {
            return;
        }
        let stat = match filesystem.stat(&path) {
            Ok(stat) => stat,
            // It went away in between, or is a link to nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return step.failed.push((path, error)),
        };
        match stat.kind {
            Kind::Directory => self.wait(path, depth),
            Kind::File if group.is_some() || wanted(stat.inode) => {
                if entry.kind == Kind::Link {
                    let target = filesystem.resolve(&path).ok();
                    step.targets.extend(target.as_deref().and_then(Path::parent).map(Path::to_path_buf));
                }
                step.found.push(Found { path, group, stat });
            }
            Kind::File | Kind::Link | Kind::Other => {}
        }
    }

    fn wait(&mut self, directory: PathBuf, depth: usize) {
        if depth > 1 && self.waiting.len() < WAITING_MAX {
            self.waiting.push((directory, depth - 1));
        }
    }
}
