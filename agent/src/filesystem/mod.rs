//! The one seam between the agent and a file system.
//!
//! Owns the words in which the agent speaks of files: what it may ask (list, stat, open, read at an offset) and what it
//! hears. Knows nothing of lines, generations or patterns. Everything that decides from these answers can therefore be
//! tested over the fake in `fake.rs`, with renames, truncations and reused inodes at will.

#[cfg(test)]
pub(crate) mod fake;
mod network;
mod os;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

pub use network::network_name;
pub use os::OsFilesystem;

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; only in listings, since stat follows links.
    Link,
    /// Anything else: sockets, pipes, devices. Never opened.
    Other,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, without its directory.
    pub name: OsString,
    /// Inode that the name leads to (of the link itself, for a link).
    pub inode: u64,
    /// What the name leads to.
    pub kind: Kind,
}

/// What a stat says about a file, links followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Device number: a key within one run, since it changes with a reboot.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Birth time in nanoseconds since 1970, where the file system keeps one.
    pub birth_nano: Option<i64>,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last change of content, nanoseconds since 1970.
    pub modified_nano: i64,
    /// Time of the last change of content or inode, nanoseconds since 1970.
    pub changed_nano: i64,
    /// Number of names; zero once the file is deleted and lives on only through open descriptors.
    pub links: u64,
    /// What it is.
    pub kind: Kind,
}

impl FileStat {
    /// Device and inode: the same under every name, while it is there.
    #[must_use]
    pub fn id(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

/// An open file.
pub trait Handle: Send + 'static {
    /// Reads at `offset` into `buffer` and returns how many bytes came; 0 at the end.
    ///
    /// # Errors
    /// The operating system's.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Stat of the open file, whatever its name is by now.
    ///
    /// # Errors
    /// The operating system's.
    fn stat(&self) -> io::Result<FileStat>;

    /// A number that stands for the file system and survives a reboot, for files without birth time.
    fn filesystem_id(&self) -> u64;

    /// Reads until `buffer` is full or the file ends; returns how many bytes came.
    ///
    /// # Errors
    /// As [`Self::read_at`]; interruptions are retried.
    fn read_full_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// A file system to tail in.
pub trait Filesystem: Send + 'static {
    /// Its open files.
    type Handle: Handle;

    /// Calls `visit` for each name in a directory, in no order.
    ///
    /// # Errors
    /// The operating system's.
    fn list(&self, directory: &Path, visit: &mut dyn FnMut(Entry)) -> io::Result<()>;

    /// Stat of what the path leads to, links followed.
    ///
    /// # Errors
    /// The operating system's.
    fn stat(&self, path: &Path) -> io::Result<FileStat>;

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// The operating system's.
    fn open(&self, path: &Path) -> io::Result<Self::Handle>;

    /// The path with all links resolved.
    ///
    /// # Errors
    /// The operating system's.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;

    /// The type of the file system that holds what the path leads to, as statfs(2) numbers it; see [`network_name`].
    ///
    /// # Errors
    /// The operating system's.
    fn volume_type(&self, path: &Path) -> io::Result<u64>;
}
