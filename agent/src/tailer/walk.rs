//! Hints and walks.
//!
//! The main walk goes over everything, every [`pace::WALK`]; what it does not come upon is gone. A side walk goes over what
//! is asked for by name: directories that appeared, and those on network file systems, which give no hints. Both are
//! walked in small steps, and at a rate ([`Allowance`]) unless someone waits for them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Tailer,
    descriptors::is_exhausted,
    pace,
    source::{Presence, Source},
};
use crate::{
    clock::Now,
    discovery::{Found, Ground, Hint, Memory, Scan, Step},
    filesystem::{Filesystem, Kind},
    inflate::Content,
    parcel::StreamNumber,
};

/// Steps of a walk in one turn.
const STEPS_MAX: usize = 128;
/// Stats of a walk in one turn.
const COST_MAX: usize = 2048;
/// Names out of scope that are followed, at most.
const FOLLOWED_MAX: usize = 1024;
/// Directories that a side walk is asked for, at most; more ask for a main walk.
const ASKED_MAX: usize = 4096;
/// Between two walks that hints ask for.
const WALK_PACE: Duration = Duration::from_millis(100);

/// Walks, and what they need to know of each other.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) main: Option<Scan>,
    pub(super) number: u64,
    pub(super) next: Duration,
    pub(super) first_done: bool,
    pub(super) polling: bool,
    /// Generations that have no file open, by inode, to be found under any name.
    pub(super) wanted: HashMap<u64, Vec<StreamNumber>>,
    /// Names out of scope to which files in scope were moved, by hints.
    followed: BTreeMap<PathBuf, usize>,
    /// Links in scope by what they lead to, with the last walk that came upon them: hints name the targets.
    links: BTreeMap<PathBuf, (PathBuf, u64)>,
    /// Paths under which walks came through directories that links lead to, with the last such walk, by the
    /// directories' own paths: hints know no others.
    aliases: BTreeMap<PathBuf, BTreeMap<PathBuf, u64>>,
    /// Directories to watch that the last steps came through.
    directories: BTreeSet<PathBuf>,
    /// What could not be looked at.
    failed: Failed,
    pub(super) finished_at: Duration,
    began_at: Duration,
    /// Whether someone waits for the main walk: for the first one, or because hints were lost.
    hurried: bool,
    hurry_next: bool,
    allowance: Allowance,
    cost: usize,
    side: Option<Scan>,
    /// What the next side walk goes over, with the levels of names that are looked at.
    asked: BTreeMap<PathBuf, usize>,
    side_allowance: Allowance,
    side_cost: usize,
    /// What is left alone ([`Patterns::own`](crate::discovery::Patterns::own)), by device and inode, as it was when the
    /// last walk began.
    own: Vec<(u64, u64)>,
    /// When directories on network file systems are walked again.
    networks_next: Duration,
    pub(super) memory: Memory,
}

/// What a walk could not look at: what is there, or below it, may still be there although it was not found.
#[derive(Debug, Default)]
struct Failed {
    paths: BTreeSet<PathBuf>,
    /// More than is remembered, or there was no descriptor to look with.
    everything: bool,
}

impl Failed {
    /// Paths remembered.
    const PATHS_MAX: usize = 1024;

    fn add(&mut self, path: PathBuf) {
        self.everything |= self.paths.len() >= Self::PATHS_MAX;
        if !self.everything {
            self.paths.insert(path);
        }
    }

    fn hides(&self, path: &Path) -> bool {
        self.everything || (!self.paths.is_empty() && path.ancestors().any(|above| self.paths.contains(above)))
    }
}

/// How much a walk may cost now.
#[derive(Debug)]
struct Allowance {
    /// Stats; spent ones may make it negative.
    left: f64,
    filled_at: Duration,
    /// Stats a second.
    rate: f64,
}

impl Allowance {
    /// Stats a second of a walk that nobody waits for: some 3 % of a core while it lasts.
    const CALM: f64 = 20_000.0;
    /// The most that polling a large tree takes.
    const POLLING: f64 = 200_000.0;
    /// A walk that is the only way to find anything takes no longer, where the rate allows it.
    const POLLED_WITHIN: f64 = 4.0;
    /// Seconds for which unused allowance is kept.
    const KEPT: f64 = 0.25;

    /// For a walk that polls: what it cost the last time says how fast it must be.
    fn poll(&mut self, last_cost: usize) {
        self.rate = (last_cost as f64 / Self::POLLED_WITHIN).clamp(Self::CALM, Self::POLLING);
    }

    fn calm(&mut self) {
        self.rate = Self::CALM;
    }

    fn fill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.filled_at).as_secs_f64();
        self.left = elapsed.mul_add(self.rate, self.left).min(self.rate * Self::KEPT);
        self.filled_at = now;
    }

    fn spend(&mut self, cost: usize) {
        self.left -= cost as f64;
    }

    /// When there is some again.
    fn ready_at(&self, now: Duration) -> Duration {
        if self.left > 0.0 { now } else { now + Duration::from_secs_f64((1.0 - self.left) / self.rate) }
    }
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: 0.0, filled_at: Duration::ZERO, rate: Self::CALM }
    }
}

impl Walk {
    /// Every path by which walks come to what is in a directory that a watch knows by its own path.
    fn names_of(&self, path: &Path) -> Vec<PathBuf> {
        let mut names = vec![path.to_path_buf()];
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            let aliases = self.aliases.get(parent).into_iter().flat_map(BTreeMap::keys);
            names.extend(aliases.map(|alias| alias.join(name)));
        }
        names
    }

    /// A hint under every path by which walks come there.
    fn translated(&self, hint: Hint) -> Vec<Hint> {
        match hint {
            Hint::Changed(path) => self.names_of(&path).into_iter().map(Hint::Changed).collect(),
            Hint::Vanished(path) => self.names_of(&path).into_iter().map(Hint::Vanished).collect(),
            Hint::Appeared(path) => self.names_of(&path).into_iter().map(Hint::Appeared).collect(),
            Hint::Moved { from, to } => {
                let (from, to) = (self.names_of(&from), self.names_of(&to));
                let count = from.len().max(to.len());
                let at = |names: &[PathBuf], at: usize| names[at.min(names.len() - 1)].clone();
                (0..count).map(|place| Hint::Moved { from: at(&from, place), to: at(&to, place) }).collect()
            }
        }
    }
}

impl<F: Filesystem> Tailer<F> {
    /// Asks for a walk soon: hints were lost.
    pub fn walk_soon(&mut self, now: Now) {
        let soon = now.mono.max(self.walk.finished_at + WALK_PACE);
        self.walk.next = self.walk.next.min(soon);
        self.walk.hurry_next = true;
        self.walk.hurried |= self.walk.main.is_some();
    }

    /// Asks for a look into a directory and what is below it: it appeared, or something may have happened in it unseen.
    pub fn walk_into(&mut self, directory: &Path, now: Now) {
        let aliases = self.walk.aliases.get(directory).into_iter().flat_map(BTreeMap::keys).cloned();
        let paths: Vec<_> = self.walk.names_of(directory).into_iter().chain(aliases).collect();
        let depth = |path: PathBuf| Some((self.settings.patterns.depth_below(&path)?, path));
        let below: Vec<_> = paths.into_iter().filter_map(depth).collect();
        // A link may lead there that is not known yet.
        if below.is_empty() || !self.walk.first_done || self.walk.asked.len() >= ASKED_MAX {
            return self.walk_soon(now);
        }
        self.walk.asked.extend(below.into_iter().map(|(depth, path)| (path, depth)));
    }

    /// Says whether hints come; without them walks and looks are more frequent.
    pub fn set_polling(&mut self, polling: bool) {
        self.walk.polling = polling;
    }

    /// Directories on network file systems, with the names of their types.
    #[must_use]
    pub fn networks(&self) -> Vec<(PathBuf, &'static str)> {
        self.walk.memory.networks()
    }

    /// Whether the first walk is over.
    #[must_use]
    pub fn has_walked(&self) -> bool {
        self.walk.first_done
    }

    /// Takes the directories that walks came through since the last call, with the number of the last walk.
    pub fn take_directories(&mut self) -> (BTreeSet<PathBuf>, u64) {
        (std::mem::take(&mut self.walk.directories), self.walk.number)
    }

    /// Whether no walk is under way.
    #[must_use]
    pub fn is_between_walks(&self) -> bool {
        self.walk.main.is_none()
    }

    pub(super) fn take_hints(&mut self, hints: Vec<Hint>, now: Now) {
        for hint in hints {
            if self.walk.aliases.is_empty() {
                self.take_hint(hint, now);
            } else {
                self.walk.translated(hint).into_iter().for_each(|hint| self.take_hint(hint, now));
            }
        }
    }

    fn take_hint(&mut self, hint: Hint, now: Now) {
        match hint {
            Hint::Changed(path) => {
                let link = self.walk.links.get(&path).map(|(link, _)| link);
                if let Some(&number) = self.by_path.get(&path).or_else(|| self.by_path.get(link?)) {
                    self.doubt(number);
                    self.attend(number, now);
                }
            }
            Hint::Vanished(path) => {
                if let Some(&number) = self.by_path.get(&path) {
                    self.attend(number, now);
                }
            }
            Hint::Appeared(path) => {
                self.examine_link_to(&path, now);
                let group = self.settings.patterns.group(&path);
                let known = self.by_path.contains_key(&path);
                if !self.examine(&path, group, now) && group.is_some() && !known {
                    self.unseen.missed(&path, now.mono);
                }
            }
            Hint::Moved { from, to } => self.moved(&from, &to, now),
        }
    }

    /// A name became another one. A file that was in scope under its old name is in scope, even when it was never seen
    /// under that name.
    fn moved(&mut self, from: &Path, to: &Path, now: Now) {
        let followed = self.walk.followed.remove(from);
        let link = self.walk.links.get(from).map(|(link, _)| link);
        let linked = link.and_then(|link| self.settings.patterns.group(link));
        let before = self.settings.patterns.group(from).or(followed).or(linked);
        let group = self.settings.patterns.group(to);
        if let (Some(before), None) = (before, group)
            && self.walk.followed.len() < FOLLOWED_MAX
        {
            self.walk.followed.insert(to.into(), before);
        }
        self.by_path.remove(from);
        self.examine_link_to(to, now);
        let is_there = self.examine(to, group.or(before), now);
        self.unseen.moved(from, to, is_there);
        if !is_there && before.is_none() && group.is_some() {
            self.unseen.missed(to, now.mono);
        }
    }

    /// Looks at what is under a name. Returns whether there is something.
    fn examine(&mut self, path: &Path, group: Option<usize>, now: Now) -> bool {
        let stat = match self.filesystem.stat(path) {
            Ok(stat) => stat,
            Err(error) => return error.kind() != io::ErrorKind::NotFound,
        };
        match stat.kind {
            Kind::Directory => self.walk_into(path, now),
            Kind::File if self.walk.own.contains(&stat.id()) => {}
            Kind::File if group.is_some() || self.walk.wanted.contains_key(&stat.inode) => {
                self.follow_link(path);
                self.found(Found { path: path.into(), group, stat }, now);
            }
            Kind::File | Kind::Link | Kind::Other => {}
        }
        true
    }

    /// Looks at the link in scope that leads to a name which has just got another file.
    fn examine_link_to(&mut self, target: &Path, now: Now) {
        let Some((link, _)) = self.walk.links.get(target) else { return };
        let (link, group) = (link.clone(), self.settings.patterns.group(link));
        self.examine(&link, group, now);
    }

    /// Remembers where a link that was swapped leads now, and has the directory there watched.
    fn follow_link(&mut self, path: &Path) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
        let (Ok(target), Ok(parent)) = (self.filesystem.resolve(path), self.filesystem.resolve(parent)) else { return };
        if target != parent.join(name) {
            self.walk.directories.extend(target.parent().map(Path::to_path_buf));
            self.walk.links.insert(target, (path.into(), self.walk.number));
        }
    }

    /// Goes on with the walks, for a bounded time.
    pub(super) fn walk_on(&mut self, now: Now) {
        self.begin_walks(now);
        if let Some(scan) = self.walk.side.take() {
            self.walk.side_allowance.fill(now.mono);
            let (scan, cost) = self.go(scan, false, now);
            self.walk.side_allowance.spend(cost);
            self.walk.side_cost += cost;
            self.walk.side = scan;
        }
        if let Some(scan) = self.walk.main.take() {
            self.walk.allowance.fill(now.mono);
            let (scan, cost) = self.go(scan, true, now);
            self.walk.allowance.spend(cost);
            self.walk.cost += cost;
            self.walk.main = scan;
            if self.walk.main.is_none() {
                self.finish_walk(now);
            }
        }
    }

    fn begin_walks(&mut self, now: Now) {
        let walk = &mut self.walk;
        if walk.main.is_none() && now.mono >= walk.next {
            walk.number += 1;
            walk.failed = Failed::default();
            walk.began_at = now.mono;
            walk.hurried = std::mem::take(&mut walk.hurry_next) || !walk.first_done;
            if walk.polling {
                walk.allowance.poll(walk.cost);
            } else {
                walk.allowance.calm();
            }
            walk.cost = 0;
            let own = self.settings.patterns.own().iter().filter_map(|path| self.filesystem.stat(path).ok());
            walk.own = own.map(|stat| stat.id()).collect();
            walk.main = Some(Scan::all(&self.settings.patterns, &mut walk.memory));
        }
        if walk.side.is_some() {
            return;
        }
        if now.mono >= walk.networks_next {
            walk.networks_next = now.mono + pace::WALK_POLLING;
            walk.asked.extend(walk.memory.network_roots().map(|(root, depth)| (root.to_path_buf(), depth)));
        }
        if !walk.asked.is_empty() {
            walk.side_allowance.poll(std::mem::take(&mut walk.side_cost));
            walk.side = Some(Scan::over(std::mem::take(&mut walk.asked)));
        }
    }

    /// Goes some steps. Returns the walk, unless it is over, and what the steps cost.
    fn go(&mut self, mut scan: Scan, is_main: bool, now: Now) -> (Option<Scan>, usize) {
        let mut cost = 0;
        for _ in 0..STEPS_MAX {
            let allowance = if is_main { &self.walk.allowance } else { &self.walk.side_allowance };
            let is_free = is_main && self.walk.hurried;
            if cost >= COST_MAX || (!is_free && allowance.left <= cost as f64) {
                break;
            }
            let wanted = &self.walk.wanted;
            let wanted = |inode| wanted.contains_key(&inode);
            let (filesystem, patterns, own) = (&self.filesystem, &self.settings.patterns, self.walk.own.as_slice());
            let ground = Ground { filesystem, patterns, wanted: &wanted, own, now };
            let step = scan.step(&ground, &mut self.walk.memory);
            cost += step.cost;
            let finished = step.finished;
            self.take_step(step, is_main, now);
            if finished {
                return (None, cost);
            }
        }
        (Some(scan), cost)
    }

    fn take_step(&mut self, step: Step, is_main: bool, now: Now) {
        for (path, error) in step.failed {
            if is_exhausted(&error) {
                self.walk.failed.everything |= is_main;
                self.free_some(None, now);
            } else {
                self.note_unreadable(&path, &error);
                if is_main {
                    self.walk.failed.add(path);
                }
            }
        }
        let walk = self.walk.number;
        if let (Some(directory), Some(alias)) = (&step.directory, step.alias) {
            self.walk.aliases.entry(directory.clone()).or_default().insert(alias, walk);
        }
        self.walk.directories.extend(step.directory);
        self.walk.directories.extend(step.targets);
        self.walk.links.extend(step.links.into_iter().map(|(target, link)| (target, (link, walk))));
        step.found.into_iter().for_each(|found| self.found(found, now));
    }

    /// Whether nobody says when a file changes.
    pub(super) fn is_polled(&self, source: &Source<Content<F::Handle>>) -> bool {
        self.walk.polling || source.key.is_some_and(|key| self.walk.memory.is_network(key.device))
    }

    /// When walking goes on.
    pub(super) fn next_step(&self, now: Duration) -> Duration {
        let walk = &self.walk;
        let main = match walk.main {
            Some(_) if walk.hurried => now,
            Some(_) => walk.allowance.ready_at(now),
            None => walk.next,
        };
        let has_networks = walk.memory.network_roots().next().is_some();
        let networks = if has_networks { walk.networks_next } else { Duration::MAX };
        let side = match walk.side {
            Some(_) => walk.side_allowance.ready_at(now),
            None if walk.asked.is_empty() => networks,
            None => now,
        };
        main.min(side)
    }

    fn finish_walk(&mut self, now: Now) {
        let number = self.walk.number;
        // What this walk did not come upon can be read by now, or is no more.
        self.unreadable.retain(|_, why| why.walk >= number);
        self.walk.links.retain(|_, (_, walk)| *walk >= number);
        self.walk.aliases.retain(|_, aliases| {
            aliases.retain(|_, walk| *walk >= number);
            !aliases.is_empty()
        });
        self.walk.finished_at = now.mono;
        let interval = if self.walk.polling { pace::WALK_POLLING } else { pace::WALK };
        let soon = if self.walk.hurry_next { WALK_PACE } else { interval };
        self.walk.next = now.mono + soon;
        self.walk.first_done = true;
        let filesystem = &self.filesystem;
        self.walk.followed.retain(|path, _| filesystem.stat(path).is_ok());
        self.by_path.retain(|_, stream| self.sources.contains_key(stream));
        let failed = std::mem::take(&mut self.walk.failed);
        self.archives_walked(|path| failed.hides(path), now);
        self.walk.memory.forget_before(self.walk.began_at);
        let mut gone: Vec<StreamNumber> = Vec::new();
        for (stream, source) in &mut self.sources {
            if failed.hides(&source.path) {
                continue;
            }
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
