//! Writing the files of a PKI: whole or not at all, private where they must be, and never over another one by accident.
//!
//! A file is written under a temporary name beside its place, flushed, given its mode, moved into place, and the
//! directory is flushed. After a crash there is the old state or the new one, and perhaps a temporary file that the
//! next write removes.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What to do where the file exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leave it alone and fail with [`io::ErrorKind::AlreadyExists`].
    Keep,
    /// Put the new one in its place, in one step.
    Replace,
}

/// Who may read the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privacy {
    /// Its owner alone: mode 0600.
    Private,
    /// Everybody: mode 0644.
    Public,
}

impl Privacy {
    const fn mode(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Public => 0o644,
        }
    }
}

/// Writes `contents` to `path`, durably and atomically.
pub(crate) fn write(path: &Path, contents: &[u8], privacy: Privacy, existing: Existing) -> io::Result<()> {
    let temporary = temporary_name(path)?;
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_temporary(&temporary, contents, privacy).and_then(|()| place(&temporary, path, existing));
    if written.is_err() {
        // The error at hand matters more than a leftover, which the next write removes.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_directory(path)
}

/// Appends `line` to a file, durably; creates it where it is missing.
pub(crate) fn append_line(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_all()?;
    sync_directory(path)
}

/// Makes the directory and its parents where they are missing. A new one is closed to others.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn write_temporary(temporary: &Path, contents: &[u8], privacy: Privacy) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(privacy.mode()).open(temporary)?;
    // The mode given to open(2) is subject to the umask, which may only have taken too much away.
    file.set_permissions(Permissions::from_mode(privacy.mode()))?;
    file.write_all(contents)?;
    file.sync_all()
}

fn place(temporary: &Path, path: &Path, existing: Existing) -> io::Result<()> {
    match existing {
        Existing::Replace => fs::rename(temporary, path),
        Existing::Keep => match fs::hard_link(temporary, path) {
            Ok(()) => fs::remove_file(temporary),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // A file system without hard links: look first, then rename.
            Err(_) if path.symlink_metadata().is_err() => fs::rename(temporary, path),
            Err(_) => Err(io::ErrorKind::AlreadyExists.into()),
        },
    }
}

fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".tmp");
    Ok(path.with_file_name(temporary))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_private_file_is_readable_by_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        write(&path, b"secret", Privacy::Private, Existing::Keep).unwrap();
        assert_eq!(mode(&path), 0o600);
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["key.pem"], "no temporary file stays behind");
    }

    #[test]
    fn an_existing_file_is_kept_unless_replacing_was_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cert.pem");
        write(&path, b"first", Privacy::Public, Existing::Keep).unwrap();
        let refused = write(&path, b"second", Privacy::Public, Existing::Keep).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write(&path, b"second", Privacy::Public, Existing::Replace).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
    }

    #[test]
    fn a_leftover_of_a_crash_does_not_stand_in_the_way_nor_lend_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        fs::write(directory.path().join(".key.pem.tmp"), b"half").unwrap();
        write(&path, b"whole", Privacy::Private, Existing::Keep).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(mode(&path), 0o600);
    }
}
