//! One walk over directories that can hold matches, a small step at a time, so that reading goes on in between.
//!
//! A step either enters a directory, or looks at some of its names. A directory that has not changed since it was listed
//! is not listed again ([`Memory`]); the names in it that matter are looked at all the same, for a file that grows does
//! not change its directory.
//!
//! Bounds: a tree is walked as deep as paths reach (`PATH_MAX`), and what is deeper is told as any other path that cannot be
//! looked at. The way through the tree is kept as the names of the directories beside it, shared with the memory; only names
//! that matter are kept, never all those of a large directory.

use std::{
    collections::HashMap,
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

/// Names looked at in one step.
const NAMES_MAX: usize = 64;
/// Names that cost as much to list as one stat.
const NAMES_PER_STAT: usize = 8;
/// Paths under which one directory is walked, at most: links may lead to it from anywhere.
const PATHS_MAX: u8 = 8;

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
    /// The path under which it was entered, where links lead there.
    pub alias: Option<PathBuf>,
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
    /// Files and directories, by device and inode, that are left alone under any name.
    pub own: &'a [(u64, u64)],
    /// The time now.
    pub now: Now,
}

impl<F> std::fmt::Debug for Ground<'_, F> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ground").field("now", &self.now).finish_non_exhaustive()
    }
}

/// The directories on the way to one, by device and inode: a link may lead back to one of them.
#[derive(Clone, Debug, Default)]
struct Trail(Option<Arc<Passed>>);

#[derive(Debug)]
struct Passed {
    directory: (u64, u64),
    above: Trail,
}

impl Trail {
    fn on_to(&self, directory: (u64, u64)) -> Self {
        Self(Some(Arc::new(Passed { directory, above: self.clone() })))
    }

    fn holds(&self, directory: (u64, u64)) -> bool {
        let passed = std::iter::successors(self.0.as_ref(), |passed| passed.above.0.as_ref());
        passed.into_iter().any(|passed| passed.directory == directory)
    }
}

/// A directory to be entered.
#[derive(Debug)]
struct Ahead {
    path: PathBuf,
    depth: usize,
    trail: Trail,
}

/// Directories beside each other that are still to be entered.
#[derive(Debug)]
struct Beside {
    parent: PathBuf,
    names: Arc<[Box<OsStr>]>,
    next: usize,
    depth: usize,
    trail: Trail,
}

/// The directory whose names are being looked at.
#[derive(Debug)]
struct Entered {
    path: PathBuf,
    names: Arc<[Name]>,
    next: usize,
    depth: usize,
    trail: Trail,
}

/// A walk under way.
#[derive(Debug)]
pub struct Scan {
    /// Where it begins.
    roots: Vec<Ahead>,
    beside: Vec<Beside>,
    /// Directories that links led to; they come last, so that what has a path of its own is found under that.
    linked: Vec<Ahead>,
    entered: Option<Entered>,
    /// How often each directory was walked, by device and inode.
    walked: HashMap<(u64, u64), u8>,
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
        let ahead = |(path, depth)| Ahead { path, depth, trail: Trail::default() };
        let roots = directories.into_iter().map(ahead).collect();
        Self { roots, beside: Vec::new(), linked: Vec::new(), entered: None, walked: HashMap::new() }
    }

    /// Goes one step.
    pub fn step<F: Filesystem>(&mut self, ground: &Ground<'_, F>, memory: &mut Memory) -> Step {
        let mut step = Step::default();
        match self.entered.take() {
            Some(entered) => self.look_at_some(ground, memory, entered, &mut step),
            None => {
                if let Some(ahead) = self.next_directory() {
                    self.enter(ground, memory, ahead, &mut step);
                }
            }
        }
        step.finished =
            self.entered.is_none() && self.roots.is_empty() && self.beside.is_empty() && self.linked.is_empty();
        step
    }

    fn next_directory(&mut self) -> Option<Ahead> {
        if let Some(root) = self.roots.pop() {
            return Some(root);
        }
        let Some(beside) = self.beside.last_mut() else { return self.linked.pop() };
        let ahead = |name: &OsStr| {
            let (path, trail) = (beside.parent.join(name), beside.trail.clone());
            Ahead { path, depth: beside.depth, trail }
        };
        let next = beside.names.get(beside.next).map(|name| ahead(name));
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
        Ahead { path: directory, depth, mut trail }: Ahead,
        step: &mut Step,
    ) {
        step.cost += 1;
        let entered = ground.filesystem.stat(&directory).and_then(|stat| {
            let id = stat.id();
            let is_left = stat.kind != Kind::Directory || trail.holds(id) || ground.own.contains(&id);
            if is_left || !self.may_walk(id) {
                return Ok(None);
            }
            trail = trail.on_to(id);
            let is_network = memory.enters_network(ground.filesystem, &directory, (&stat, depth), ground.now);
            let listed = match memory.recall(&directory, &stat, ground.now) {
                Some(listed) => listed,
                None => list(ground, memory, &directory, (&stat, depth), step)?,
            };
            if !is_network {
                step.directory = Some(listed.resolved.clone().unwrap_or_else(|| directory.clone()));
                step.alias = listed.resolved.is_some().then(|| directory.clone());
            }
            Ok(Some(listed))
        });
        match entered {
            Ok(Some(listed)) => {
                if depth > 1 && !listed.directories.is_empty() {
                    let (parent, names) = (directory.clone(), listed.directories);
                    self.beside.push(Beside { parent, names, next: 0, depth: depth - 1, trail: trail.clone() });
                }
                if !listed.names.is_empty() {
                    let names = listed.names;
                    self.entered = Some(Entered { path: directory, names, next: 0, depth, trail });
                }
            }
            Ok(None) => {}
            // What is not there yet may come.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => step.failed.push((directory, error)),
        }
    }

    /// Whether a directory may be walked once more, and notes that it is.
    fn may_walk(&mut self, directory: (u64, u64)) -> bool {
        let times = self.walked.entry(directory).or_insert(0);
        *times = times.saturating_add(1);
        *times <= PATHS_MAX
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
            Kind::Directory if entered.depth > 1 => {
                self.linked.push(Ahead { path, depth: entered.depth - 1, trail: entered.trail.clone() });
            }
            Kind::File if ground.own.contains(&stat.id()) => {}
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
