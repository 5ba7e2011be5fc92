//! A file system in memory, for tests: names, inodes that are reused, births that may be missing, and a clock that each
//! change moves on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::{Entry, FileStat, Filesystem, Handle, Kind};

#[derive(Debug, Default)]
struct Node {
    inode: u64,
    birth: i64,
    content: Vec<u8>,
    /// Where there is one, the content is lines of so many bytes in all.
    generated: Option<u64>,
    modified: i64,
    links: u64,
    /// Added to the device number, for a file system of its own.
    volume: u64,
}

#[derive(Debug, Default)]
struct Directory {
    /// Last change of its names.
    modified: i64,
    /// Names of files that nobody looks for, and that have no nodes.
    fillers: usize,
    /// Type of the file system that is mounted here.
    mounted: Option<u64>,
}

/// What was asked of the file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) stats: usize,
    pub(crate) lists: usize,
    /// Names that lists brought.
    pub(crate) names: usize,
    pub(crate) opens: usize,
}

#[derive(Debug, Default)]
struct World {
    /// Every node ever made, open or not; a node without links lives on for its handles.
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, usize>,
    directories: BTreeMap<PathBuf, Directory>,
    unreadable: BTreeSet<PathBuf>,
    clock: i64,
    is_coarse: bool,
    no_births: bool,
    device: u64,
    open: BTreeMap<usize, usize>,
    bytes_read: usize,
    asked: Asked,
    /// Descriptors that there are.
    descriptors: Option<usize>,
}

/// The file system; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeFilesystem(Arc<Mutex<World>>);

/// An open file of it.
#[derive(Debug)]
pub(crate) struct FakeHandle {
    world: FakeFilesystem,
    node: usize,
}

impl FakeFilesystem {
    pub(crate) fn new() -> Self {
        let fake = Self::default();
        fake.world().device = 1;
        fake
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    pub(crate) fn forget_births(&self) {
        self.world().no_births = true;
    }

    pub(crate) fn set_device(&self, device: u64) {
        self.world().device = device;
    }

    pub(crate) fn set_unreadable(&self, path: &str, unreadable: bool) {
        let mut world = self.world();
        if unreadable {
            world.unreadable.insert(path.into());
        } else {
            world.unreadable.remove(Path::new(path));
        }
    }

    /// Appends; creates the file with the lowest free inode where there is none.
    pub(crate) fn append(&self, path: &str, bytes: &[u8]) {
        let mut world = self.world();
        world.tick();
        let clock = world.clock;
        let node = match world.names.get(Path::new(path)) {
            Some(&node) => node,
            None => world.create(path.into()),
        };
        world.nodes[node].content.extend_from_slice(bytes);
        world.nodes[node].modified = clock;
    }

    /// Appends to the file that was deleted last and is still open, as its writer may.
    pub(crate) fn append_deleted(&self, bytes: &[u8]) {
        let mut world = self.world();
        world.clock += 1;
        let clock = world.clock;
        let is_open = |node: &usize| world.open.get(node).is_some_and(|count| *count > 0);
        let node = (0..world.nodes.len()).rev().find(|node| world.nodes[*node].links == 0 && is_open(node)).unwrap();
        world.nodes[node].content.extend_from_slice(bytes);
        world.nodes[node].modified = clock;
    }

    /// Writes in place.
    pub(crate) fn overwrite(&self, path: &str, at: usize, bytes: &[u8]) {
        let mut world = self.world();
        world.tick();
        let (clock, node) = (world.clock, world.names[Path::new(path)]);
        world.nodes[node].content[at..at + bytes.len()].copy_from_slice(bytes);
        world.nodes[node].modified = clock;
    }

    /// Makes a file of any size whose lines are their own offsets: nothing of it is kept.
    pub(crate) fn generate(&self, path: &str, size: u64) {
        self.append(path, b"");
        let mut world = self.world();
        let node = world.names[Path::new(path)];
        world.nodes[node].generated = Some(size);
    }

    /// Cuts to `size`.
    pub(crate) fn truncate(&self, path: &str, size: usize) {
        let mut world = self.world();
        world.tick();
        let (clock, node) = (world.clock, world.names[Path::new(path)]);
        world.nodes[node].content.truncate(size);
        world.nodes[node].modified = clock;
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        let mut world = self.world();
        world.tick();
        let node = world.names.remove(Path::new(from)).unwrap();
        world.make_directories(Path::new(to).parent().unwrap());
        if let Some(old) = world.names.insert(to.into(), node) {
            world.nodes[old].links -= 1;
        }
        world.touch_parent(Path::new(from));
        world.touch_parent(Path::new(to));
    }

    pub(crate) fn delete(&self, path: &str) {
        let mut world = self.world();
        world.tick();
        let node = world.names.remove(Path::new(path)).unwrap();
        world.nodes[node].links -= 1;
        world.touch_parent(Path::new(path));
    }

    /// Makes a directory with so many names in it that nobody looks for.
    pub(crate) fn fill(&self, directory: &str, fillers: usize) {
        let mut world = self.world();
        world.tick();
        world.make_directories(Path::new(directory));
        world.directories.get_mut(Path::new(directory)).unwrap().fillers = fillers;
    }

    /// Mounts a file system of that type at a directory that is empty or missing.
    pub(crate) fn mount(&self, directory: &str, volume_type: u64) {
        let mut world = self.world();
        world.make_directories(Path::new(directory));
        world.directories.get_mut(Path::new(directory)).unwrap().mounted = Some(volume_type);
    }

    /// Lets no more than so many descriptors be open.
    pub(crate) fn set_descriptors(&self, descriptors: Option<usize>) {
        self.world().descriptors = descriptors;
    }

    /// Sets the clock; a coarse one stands still.
    pub(crate) fn set_clock(&self, nano: i64, is_coarse: bool) {
        let mut world = self.world();
        world.clock = nano;
        world.is_coarse = is_coarse;
    }

    /// What was asked since the last call.
    pub(crate) fn take_asked(&self) -> Asked {
        std::mem::take(&mut self.world().asked)
    }

    pub(crate) fn copy(&self, from: &str, to: &str) {
        let content = self.content(from).unwrap();
        self.append(to, &content);
    }

    pub(crate) fn content(&self, path: &str) -> Option<Vec<u8>> {
        let world = self.world();
        world.names.get(Path::new(path)).map(|&node| world.nodes[node].content.clone())
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.world().names.contains_key(Path::new(path))
    }

    /// Bytes that all reads together brought.
    pub(crate) fn bytes_read(&self) -> usize {
        self.world().bytes_read
    }

    /// Descriptors that are open.
    pub(crate) fn open_files(&self) -> usize {
        self.world().open.values().sum()
    }
}

impl World {
    fn take_descriptor(&self) -> io::Result<()> {
        let is_left = self.descriptors.is_none_or(|descriptors| self.open.values().sum::<usize>() < descriptors);
        // EMFILE
        if is_left { Ok(()) } else { Err(io::Error::from_raw_os_error(24)) }
    }

    fn tick(&mut self) {
        self.clock += i64::from(!self.is_coarse);
    }

    fn create(&mut self, path: PathBuf) -> usize {
        let taken: BTreeSet<u64> = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(index, node)| node.links > 0 || self.open.get(index).is_some_and(|count| *count > 0))
            .map(|(_, node)| node.inode)
            .collect();
        let inode = (10..).find(|inode| !taken.contains(inode)).unwrap();
        self.nodes.push(Node { inode, birth: self.clock, links: 1, ..Node::default() });
        let node = self.nodes.len() - 1;
        if let Some(parent) = path.parent() {
            self.make_directories(parent);
            self.nodes[node].volume = self.volume(parent).0;
        }
        self.touch_parent(&path);
        self.names.insert(path, node);
        node
    }

    fn make_directories(&mut self, path: &Path) {
        for directory in path.ancestors() {
            if !self.directories.contains_key(directory) {
                self.directories.insert(directory.into(), Directory { modified: self.clock, ..Directory::default() });
                self.touch_parent(directory);
            }
        }
    }

    fn touch_parent(&mut self, path: &Path) {
        let clock = self.clock;
        if let Some(parent) = path.parent().and_then(|parent| self.directories.get_mut(parent)) {
            parent.modified = clock;
        }
    }

    /// Number and type of the file system that holds a directory.
    fn volume(&self, directory: &Path) -> (u64, u64) {
        let mounted = |at: &Path| Some((hash(at), self.directories.get(at)?.mounted?));
        directory.ancestors().find_map(mounted).unwrap_or((0, 0xef53))
    }

    fn stat(&self, node: usize) -> FileStat {
        let found = &self.nodes[node];
        FileStat {
            device: self.device + found.volume,
            inode: found.inode,
            birth_nano: (!self.no_births).then_some(found.birth),
            size: found.generated.unwrap_or(found.content.len() as u64),
            modified_nano: found.modified,
            changed_nano: found.modified,
            links: found.links,
            kind: Kind::File,
        }
    }
}

impl Filesystem for FakeFilesystem {
    type Handle = FakeHandle;

    fn list(&self, directory: &Path, visit: &mut dyn FnMut(Entry)) -> io::Result<()> {
        let mut entries = Vec::new();
        {
            let mut world = self.world();
            world.take_descriptor()?;
            let Some(listed) = world.directories.get(directory) else { return Err(io::ErrorKind::NotFound.into()) };
            let fillers = (0..listed.fillers).map(|number| (format!("filler-{number}").into(), 9_000_000, Kind::File));
            entries.extend(fillers.map(|(name, inode, kind)| Entry { name, inode, kind }));
            let names = world.names.range(directory.to_path_buf()..).map(|(path, node)| (path, Some(*node)));
            let below = world.directories.range(directory.to_path_buf()..).map(|(path, _)| (path, None));
            let below = below.take_while(|(path, _)| path.starts_with(directory));
            for (path, node) in names.take_while(|(path, _)| path.starts_with(directory)).chain(below) {
                if path.parent() == Some(directory) {
                    let inode = node.map_or(1, |node| world.nodes[node].inode);
                    let kind = if node.is_some() { Kind::File } else { Kind::Directory };
                    entries.push(Entry { name: path.file_name().unwrap().to_owned(), inode, kind });
                }
            }
            world.asked.lists += 1;
            world.asked.names += entries.len();
        }
        entries.into_iter().for_each(visit);
        Ok(())
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let mut world = self.world();
        world.asked.stats += 1;
        if let Some(directory) = world.directories.get(path) {
            return Ok(stat_of_directory(path, world.device + world.volume(path).0, directory.modified));
        }
        world.names.get(path).map(|&node| world.stat(node)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open(&self, path: &Path) -> io::Result<FakeHandle> {
        let mut world = self.world();
        if world.unreadable.contains(path) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        world.take_descriptor()?;
        world.asked.opens += 1;
        let Some(&node) = world.names.get(path) else { return Err(io::ErrorKind::NotFound.into()) };
        *world.open.entry(node).or_default() += 1;
        Ok(FakeHandle { world: self.clone(), node })
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.into())
    }

    fn volume_type(&self, path: &Path) -> io::Result<u64> {
        Ok(self.world().volume(path).1)
    }
}

fn hash(path: &Path) -> u64 {
    xxhash_rust::xxh3::xxh3_64(path.as_os_str().as_encoded_bytes()) % 1_000_000_000
}

fn stat_of_directory(path: &Path, device: u64, modified: i64) -> FileStat {
    FileStat {
        device,
        inode: 1_000_000 + hash(path),
        birth_nano: None,
        size: 0,
        modified_nano: modified,
        changed_nano: modified,
        links: 2,
        kind: Kind::Directory,
    }
}

/// Lines of 64 bytes, each with its own number.
fn generate(buffer: &mut [u8], offset: u64) {
    const LINE: usize = 64;
    let mut at = usize::try_from(offset % LINE as u64).unwrap();
    let (mut line, mut done) = (offset / LINE as u64, 0);
    while done < buffer.len() {
        let text = format!("line {line:058}\n");
        let count = (buffer.len() - done).min(LINE - at);
        buffer[done..done + count].copy_from_slice(&text.as_bytes()[at..at + count]);
        (done, at, line) = (done + count, 0, line + 1);
    }
}

impl Handle for FakeHandle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.world.world();
        if let Some(size) = world.nodes[self.node].generated {
            let count = buffer.len().min(usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX));
            generate(&mut buffer[..count], offset);
            world.bytes_read += count;
            return Ok(count);
        }
        let content = &world.nodes[self.node].content;
        let start = content.len().min(usize::try_from(offset).unwrap());
        let count = buffer.len().min(content.len() - start);
        buffer[..count].copy_from_slice(&content[start..start + count]);
        world.bytes_read += count;
        Ok(count)
    }

    fn stat(&self) -> io::Result<FileStat> {
        Ok(self.world.world().stat(self.node))
    }

    fn filesystem_id(&self) -> u64 {
        77
    }
}

impl Drop for FakeHandle {
    fn drop(&mut self) {
        if let Some(count) = self.world.world().open.get_mut(&self.node) {
            *count -= 1;
        }
    }
}
