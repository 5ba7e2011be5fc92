//! What directories held when they were last listed, so that one that has not changed is not listed again.
//!
//! Owns which names of a directory matter, with the group that each belongs to, and when that may be relied on. Does not
//! read anything itself.
//!
//! Invariants: what is remembered is used only while the directory is the same one and shows the times that it showed
//! when it was listed. Clocks of file systems are coarse: a change right after a listing may show no other time, so a
//! listing is relied on only if the directory had rested for [`REST`] before it. The memory is bounded; what does not fit
//! is listed at each walk.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    clock::Now,
    filesystem::{FileStat, Filesystem, network_name},
};

/// How long a directory must have rested before a listing of it is relied on; FAT has a clock of 2 s.
const REST: Duration = Duration::from_secs(3);
/// A directory that shows no change is listed all the same after so long.
const LISTED_FOR: Duration = Duration::from_secs(600);
/// The same on a network file system, whose times may be cached, or not kept at all.
const LISTED_FOR_NETWORK: Duration = Duration::from_secs(60);
/// Directories remembered.
const DIRECTORIES_MAX: usize = 100_000;

/// A name that matters.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) name: Box<OsStr>,
    /// The group of the file, if it is one.
    pub(super) group: Option<usize>,
    pub(super) is_link: bool,
}

/// What a directory held.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    /// Directories in it.
    pub(super) directories: Arc<[Box<OsStr>]>,
    /// Names in it that belong to a group, may lead to a directory, or were wanted.
    pub(super) names: Arc<[Name]>,
    /// Its path with links resolved, where that is another one.
    pub(super) resolved: Option<PathBuf>,
    identity: (u64, u64),
    times: (i64, i64),
    /// Since when these times were seen, by our clock.
    times_since: Duration,
    listed_at: Duration,
    visited_at: Duration,
    is_sure: bool,
}

/// A directory at the top of a network file system.
#[derive(Clone, Copy, Debug)]
struct Network {
    name: &'static str,
    depth: usize,
    visited_at: Duration,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Memory {
    directories: HashMap<PathBuf, Listed>,
    /// By device number: the name of a network file system's type.
    volumes: HashMap<u64, Option<&'static str>>,
    networks: BTreeMap<PathBuf, Network>,
}

impl Memory {
    /// What the directory holds, if that is known without listing it.
    pub(super) fn recall(&mut self, directory: &Path, stat: &FileStat, now: Now) -> Option<Listed> {
        let kept_for = if self.is_network(stat.device) { LISTED_FOR_NETWORK } else { LISTED_FOR };
        let listed = self.directories.get_mut(directory)?;
        listed.visited_at = now.mono;
        let is_same = listed.identity == (stat.device, stat.inode) && listed.times == times(stat);
        (listed.is_sure && is_same && now.mono < listed.listed_at + kept_for).then(|| listed.clone())
    }

    /// Remembers what a directory held; `stat` was taken before it was listed.
    pub(super) fn learn(
        &mut self,
        directory: &Path,
        stat: &FileStat,
        (directories, names): (Vec<Box<OsStr>>, Vec<Name>),
        resolved: Option<PathBuf>,
        now: Now,
    ) -> Listed {
        let (identity, times) = ((stat.device, stat.inode), times(stat));
        let before = self.directories.get(directory);
        let before = before.filter(|before| before.identity == identity && before.times == times);
        let times_since = before.map_or(now.mono, |before| before.times_since);
        let last_change = u64::try_from(times.0.max(times.1)).unwrap_or(0);
        // Another machine's clock says nothing; a change seen long ago by our own does.
        let rested_by_its_clock =
            !self.is_network(stat.device) && u128::from(now.unix_nano.abs_diff(last_change)) >= REST.as_nanos();
        let listed = Listed {
            directories: directories.into(),
            names: names.into(),
            resolved: resolved.filter(|resolved| resolved != directory),
            identity,
            times,
            times_since,
            listed_at: now.mono,
            visited_at: now.mono,
            is_sure: rested_by_its_clock || now.mono >= times_since + REST,
        };
        if self.directories.len() < DIRECTORIES_MAX || self.directories.contains_key(directory) {
            self.directories.insert(directory.into(), listed.clone());
        }
        listed
    }

    /// Forgets the directories that no walk has come through since `began`, and what is mounted where.
    pub fn forget_before(&mut self, began: Duration) {
        self.directories.retain(|_, listed| listed.visited_at >= began);
        self.networks.retain(|_, network| network.visited_at >= began);
    }

    /// What is mounted where may have changed.
    pub(super) fn forget_volumes(&mut self) {
        self.volumes.clear();
    }

    /// Finds out whether a directory is on a network file system, and remembers the topmost ones.
    pub(super) fn enters_network<F: Filesystem>(
        &mut self,
        filesystem: &F,
        directory: &Path,
        (stat, depth): (&FileStat, usize),
        now: Now,
    ) -> bool {
        let Some(name) = self.network_of(filesystem, directory, stat.device) else { return false };
        let is_inside = directory.ancestors().skip(1).any(|above| self.networks.contains_key(above));
        if !is_inside {
            self.networks.insert(directory.into(), Network { name, depth, visited_at: now.mono });
        }
        true
    }

    /// The name of the type of the network file system that a path leads to; where it cannot be told it counts as local.
    pub(super) fn network_of<F: Filesystem>(
        &mut self,
        filesystem: &F,
        path: &Path,
        device: u64,
    ) -> Option<&'static str> {
        *self.volumes.entry(device).or_insert_with(|| filesystem.volume_type(path).ok().and_then(network_name))
    }

    /// Whether a device is known as a network file system.
    #[must_use]
    pub fn is_network(&self, device: u64) -> bool {
        self.volumes.get(&device).copied().flatten().is_some()
    }

    /// Topmost directories on network file systems, with the levels that are looked at below them.
    pub fn network_roots(&self) -> impl Iterator<Item = (&Path, usize)> {
        self.networks.iter().map(|(path, network)| (path.as_path(), network.depth))
    }

    /// The same, with the names of their file systems' types.
    #[must_use]
    pub fn networks(&self) -> Vec<(PathBuf, &'static str)> {
        self.networks.iter().map(|(path, network)| (path.clone(), network.name)).collect()
    }
}

fn times(stat: &FileStat) -> (i64, i64) {
    (stat.modified_nano, stat.changed_nano)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filesystem::Kind;

    fn stat(modified_nano: i64) -> FileStat {
        let (device, inode, links) = (1, 2, 2);
        let (size, changed_nano, birth_nano, kind) = (0, modified_nano, None, Kind::Directory);
        FileStat { device, inode, birth_nano, size, modified_nano, changed_nano, links, kind }
    }

    fn at(seconds: u64) -> Now {
        Now { mono: Duration::from_secs(seconds), unix_nano: (1_000 + seconds) * 1_000_000_000 }
    }

    fn knows(memory: &mut Memory, modified_nano: i64, now: Now) -> bool {
        memory.recall(Path::new("/d"), &stat(modified_nano), now).is_some()
    }

    fn learn(memory: &mut Memory, modified_nano: i64, now: Now) {
        memory.learn(Path::new("/d"), &stat(modified_nano), (Vec::new(), Vec::new()), None, now);
    }

    #[test]
    fn a_directory_that_has_just_changed_is_listed_again_until_it_has_rested() {
        let mut memory = Memory::default();
        let changed = 1_000_000_000_000 + 1_000_000_000;
        learn(&mut memory, changed, at(2));
        assert!(!knows(&mut memory, changed, at(3)), "it may have changed within the same tick");
        learn(&mut memory, changed, at(10));
        assert!(knows(&mut memory, changed, at(12)));
        assert!(!knows(&mut memory, changed + 1, at(12)));
        assert!(!knows(&mut memory, changed, at(10) + LISTED_FOR), "nothing is relied on for ever");
    }

    #[test]
    fn on_a_network_the_clock_of_the_other_machine_is_not_relied_on() {
        let mut memory = Memory::default();
        memory.volumes.insert(1, Some("NFS"));
        learn(&mut memory, 5, at(10));
        assert!(!knows(&mut memory, 5, at(11)), "its clock may be wrong by any time");
        learn(&mut memory, 5, at(14));
        assert!(knows(&mut memory, 5, at(16)));
        assert!(!knows(&mut memory, 5, at(14) + LISTED_FOR_NETWORK));
    }

    impl std::ops::Add<Duration> for Now {
        type Output = Self;
        fn add(self, time: Duration) -> Self {
            Self { mono: self.mono + time, unix_nano: self.unix_nano + u64::try_from(time.as_nanos()).unwrap() }
        }
    }
}
