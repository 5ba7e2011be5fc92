//! The real file system.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirEntryExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::{Entry, FileStat, Filesystem, Handle, Kind};

/// Opening must never wait, should a name turn into a pipe between stat and open.
const O_NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFilesystem;

impl Filesystem for OsFilesystem {
    type Handle = File;

    fn list(&self, directory: &Path, visit: &mut dyn FnMut(Entry)) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let kind = entry.file_type().map_or(Kind::Other, kind);
            visit(Entry { name: entry.file_name(), inode: entry.ino(), kind });
        }
        Ok(())
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        fs::metadata(path).map(|metadata| stat(&metadata))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        File::options().read(true).custom_flags(O_NONBLOCK).open(path)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn volume_type(&self, path: &Path) -> io::Result<u64> {
        // The kernel's numbers have 32 bits; where its word has as many, half of them come out negative.
        Ok(rustix::fs::statfs(path)?.f_type.cast_unsigned() & 0xffff_ffff)
    }
}

impl Handle for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.metadata().map(|metadata| stat(&metadata))
    }

    fn filesystem_id(&self) -> u64 {
        rustix::fs::fstatvfs(self).map_or(0, |volume| volume.f_fsid)
    }
}

fn kind(file_type: fs::FileType) -> Kind {
    if file_type.is_file() {
        Kind::File
    } else if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_symlink() {
        Kind::Link
    } else {
        Kind::Other
    }
}

fn stat(metadata: &fs::Metadata) -> FileStat {
    let birth_nano = metadata
        .created()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .and_then(|age| i64::try_from(age.as_nanos()).ok())
        // Some file systems answer with zero instead of saying that they keep none.
        .filter(|nanos| *nanos != 0);
    FileStat {
        device: metadata.dev(),
        inode: metadata.ino(),
        birth_nano,
        size: metadata.size(),
        modified_nano: nanos(metadata.mtime(), metadata.mtime_nsec()),
        changed_nano: nanos(metadata.ctime(), metadata.ctime_nsec()),
        links: metadata.nlink(),
        kind: kind(metadata.file_type()),
    }
}

fn nanos(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
