//! One walk over directories that can hold matches, a small step at a time, so that reading goes on in between.
//!
//! A step either enters a directory, or looks at some of its names. A directory that has not changed since it was listed
//! is not listed again ([`Memory`]); the names in it that matter are looked at all the same, for a file that grows does
//! not change its directory.
//!
//! Bounds: the way through the tree is kept as the names of the directories beside it, shared with the memory; only names
//! that matter are kept, never all those of a large directory.

use std::{
    collections::HashSet,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Memory, Patterns,
    memory::{Listed, Name},
};
use crate::{
    clock::Now,
    filesystem::{Entry, FileStat, Filesystem, Kind},
};

/// Deepest directory below a root that is looked into.
pub(super) const DEPTH_MAX: usize = 64;
/// Names looked at in one step.
const NAMES_MAX: usize = 64;
/// Names that cost as much to list as one stat.
const NAMES_PER_STAT: usize = 8;

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
    /// The directory that was entered, links resolved, where changes in it give hints.
    pub directory: Option<PathBuf>,
    /// Directories that hold targets of links.
    pub targets: Vec<PathBuf>,
    /// Links to files, each after what it leads to in the end.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// What could not be looked at.
    pub failed: Vec<(PathBuf, io::Error)>,
    /// What it cost, in stats.
    pub cost: usize,
    /// Whether the walk is over.
    pub finished: bool,
}

/// What a walk goes over, and by what it chooses.
pub struct Ground<'a, F> {
    /// The file system.
    pub filesystem: &'a F,
    /// What is looked for.
    pub patterns: &'a Patterns,
    /// Says of an inode whether it is looked for under any name.
    pub wanted: &'a dyn Fn(u64) -> bool,
    /// The time now.
    pub now: Now,
}

impl<F> std::fmt::Debug for Ground<'_, F> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ground").field("now", &self.now).finish_non_exhaustive()
    }
}

/// Directories beside each other that are still to be entered.
#[derive(Debug)]
struct Beside {
    parent: PathBuf,
    names: Arc<[Box<OsStr>]>,
    next: usize,
    depth: usize,
}

/// The directory whose names are being looked at.
#[derive(Debug)]
struct Entered {
    path: PathBuf,
    names: Arc<[Name]>,
    next: usize,
    depth: usize,
}

/// A walk under way.
#[derive(Debug)]
pub struct Scan {
    /// Where it begins, and directories that links led to.
    waiting: Vec<(PathBuf, usize)>,
    beside: Vec<Beside>,
    entered: Option<Entered>,
    /// Directories walked, by device and inode: links may lead in circles.
    walked: HashSet<(u64, u64)>,
}

impl Scan {
    /// A walk over everything.
    #[must_use]
    pub fn all(patterns: &Patterns, memory: &mut Memory) -> Self {
        memory.forget_volumes();
        Self::over(patterns.roots())
    }

    /// A walk over some directories, each with the levels of names that are looked at below it.
    #[must_use]
    pub fn over(directories: impl IntoIterator<Item = (PathBuf, usize)>) -> Self {
        let waiting = directories.into_iter().map(|(root, depth)| (root, depth.min(DEPTH_MAX))).collect();
        Self { waiting, beside: Vec::new(), entered: None, walked: HashSet::new() }
    }

    /// Goes one step.
    pub fn step<F: Filesystem>(&mut self, ground: &Ground<'_, F>, memory: &mut Memory) -> Step {
        let mut step = Step::default();
        match self.entered.take() {
            Some(entered) => self.look_at_some(ground, memory, entered, &mut step),
            None => {
                if let Some((directory, depth)) = self.next_directory() {
                    self.enter(ground, memory, directory, depth, &mut step);
                }
            }
        }
        step.finished = self.entered.is_none() && self.waiting.is_empty() && self.beside.is_empty();
        step
    }

    fn next_directory(&mut self) -> Option<(PathBuf, usize)> {
        if let Some(waiting) = self.waiting.pop() {
            return Some(waiting);
        }
        let beside = self.beside.last_mut()?;
        let next = beside.names.get(beside.next).map(|name| (beside.parent.join(&**name), beside.depth));
        beside.next += 1;
        if beside.next >= beside.names.len() {
            self.beside.pop();
        }
        next
    }

    fn enter<F: Filesystem>(
        &mut self,
        ground: &Ground<'_, F>,
        memory: &mut Memory,
        directory: PathBuf,
        depth: usize,
        step: &mut Step,
    ) {
        step.cost += 1;
        let entered = ground.filesystem.stat(&directory).and_then(|stat| {
            if stat.kind != Kind::Directory || !self.walked.insert((stat.device, stat.inode)) {
                return Ok(None);
            }
            let is_network = memory.enters_network(ground.filesystem, &directory, (&stat, depth), ground.now);
            let listed = match memory.recall(&directory, &stat, ground.now) {
                Some(listed) => listed,
                None => list(ground, memory, &directory, (&stat, depth), step)?,
            };
            if !is_network {
                step.directory = Some(listed.resolved.clone().unwrap_or_else(|| directory.clone()));
            }
            Ok(Some(listed))
        });
        match entered {
            Ok(Some(listed)) => {
                if depth > 1 && !listed.directories.is_empty() {
                    let (parent, names) = (directory.clone(), listed.directories);
                    self.beside.push(Beside { parent, names, next: 0, depth: depth - 1 });
                }
                if !listed.names.is_empty() {
                    let names = listed.names;
                    self.entered = Some(Entered { path: directory, names, next: 0, depth });
                }
            }
            Ok(None) => {}
            // What is not there yet may come.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => step.failed.push((directory, error)),
        }
    }

    fn look_at_some<F: Filesystem>(
        &mut self,
        ground: &Ground<'_, F>,
        memory: &mut Memory,
        mut entered: Entered,
        step: &mut Step,
    ) {
        let end = entered.names.len().min(entered.next + NAMES_MAX);
        for name in &entered.names[entered.next..end] {
            step.cost += 1;
            self.look_at(ground, memory, (&entered, name), step);
        }
        entered.next = end;
        if end < entered.names.len() {
            self.entered = Some(entered);
        }
    }

    fn look_at<F: Filesystem>(
        &mut self,
        ground: &Ground<'_, F>,
        memory: &mut Memory,
        (entered, name): (&Entered, &Name),
        step: &mut Step,
    ) {
        let path = entered.path.join(&*name.name);
        let stat = match ground.filesystem.stat(&path) {
            Ok(stat) => stat,
            // It went away in between, or is a link to nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return step.failed.push((path, error)),
        };
        match stat.kind {
            Kind::Directory if entered.depth > 1 => self.waiting.push((path, entered.depth - 1)),
            Kind::File if name.group.is_some() || (ground.wanted)(stat.inode) => {
                if name.is_link && memory.network_of(ground.filesystem, &path, stat.device).is_none() {
                    let target = ground.filesystem.resolve(&path).ok();
                    step.targets.extend(target.as_deref().and_then(Path::parent).map(Path::to_path_buf));
                    step.links.extend(target.map(|target| (target, path.clone())));
                }
                step.found.push(Found { path, group: name.group, stat });
            }
            Kind::Directory | Kind::File | Kind::Link | Kind::Other => {}
        }
    }
}

/// Lists a directory and remembers what matters of it.
fn list<F: Filesystem>(
    ground: &Ground<'_, F>,
    memory: &mut Memory,
    directory: &Path,
    (stat, depth): (&FileStat, usize),
    step: &mut Step,
) -> io::Result<Listed> {
    let (mut directories, mut names) = (Vec::new(), Vec::new());
    let mut path = directory.to_path_buf();
    let mut count = 0;
    let listed = ground.filesystem.list(directory, &mut |entry: Entry| {
        count += 1;
        if entry.kind == Kind::Directory {
            if depth > 1 {
                directories.push(entry.name.into_boxed_os_str());
            }
            return;
        }
        path.push(&entry.name);
        let group = ground.patterns.group(&path);
        path.pop();
        let is_link = entry.kind == Kind::Link;
        if group.is_some() || (is_link && depth > 1) || (ground.wanted)(entry.inode) {
            names.push(Name { name: entry.name.into_boxed_os_str(), group, is_link });
        }
    });
    step.cost += count / NAMES_PER_STAT;
    listed?;
    let resolved = ground.filesystem.resolve(directory).ok();
    Ok(memory.learn(directory, stat, (directories, names), resolved, ground.now))
}
