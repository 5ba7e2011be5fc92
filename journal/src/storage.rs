//! The few file operations whose failure decides what is durable, behind a seam so that tests can make them fail.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// File operations of the writer.
pub(crate) trait Storage: Send + Sync + 'static {
    /// Makes sure that writing below `length` needs no more space, and extends the file to it.
    fn allocate(&self, file: &File, length: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `at`.
    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&self, file: &File, length: u64) -> io::Result<()>;
    /// Makes data and size durable (fdatasync).
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Makes names durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Bytes that this process may still take on the file system of `directory`.
    fn free(&self, directory: &Path) -> io::Result<u64>;
}

/// The real thing.
#[derive(Debug)]
pub(crate) struct Disk;

impl Storage for Disk {
    fn allocate(&self, file: &File, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => write_zeros(file, length),
            Err(errno) => Err(errno.into()),
        }
    }

    fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn free(&self, directory: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(directory)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

/// Zeros from the file's end up to `length`: what is already there (the header) stays.
fn write_zeros(file: &File, length: u64) -> io::Result<()> {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut at = file.metadata()?.len();
    while at < length {
        let step = (length - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..step as usize], at)?;
        at += step;
    }
    Ok(())
}

/// Bytes of the file system that holds `path`: all of it, used or not.
///
/// # Errors
/// Of statvfs: the path must exist.
pub fn volume_bytes(path: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(path)?;
    Ok(space.f_blocks.saturating_mul(space.f_frsize))
}

/// Whether `error` says that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
