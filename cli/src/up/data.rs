//! The data directory: one process at a time.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::Addresses;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DataError {
    #[error("the data directory {} is in use by another process{}; stop it, or choose another with --data", .0.display(), .1)]
    InUse(PathBuf, String),
    #[error("cannot use the data directory {}", .path.display())]
    Unusable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The data directory, held until this is dropped.
#[derive(Debug)]
pub(super) struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory where it is missing, and takes it.
    pub(super) fn take(path: &Path) -> Result<Self, DataError> {
        let unusable = |source| DataError::Unusable { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(unusable)?;
        let path = path.canonicalize().map_err(unusable)?;
        let lock_path = path.join("lock");
        let mut lock =
            File::options().create(true).truncate(false).read(true).write(true).open(&lock_path).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&lock_path).unwrap_or_default();
                let holder = holder.trim().parse::<u32>().map(|pid| format!(" (pid {pid})")).unwrap_or_default();
                return Err(DataError::InUse(path, holder));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        // Only for people: the lock itself is the kernel's, and ends with the process.
        let noted = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        noted
            .or_else(|error| if error.kind() == io::ErrorKind::StorageFull { Ok(()) } else { Err(error) })
            .map_err(unusable)?;
        Ok(Self { path, _lock: lock })
    }

    /// What logmesh keeps in it, which nobody else writes to. Logs may lie beside it, as the demo's do.
    pub(super) fn own(&self) -> Vec<PathBuf> {
        let files = ["lock", Addresses::FILE, Addresses::FRESH];
        ["agent", "bus", "index", "pki"].iter().chain(&files).map(|name| self.path.join(name)).collect()
    }

    /// The directory, absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_has_it() {
        let scratch = tempfile::tempdir().expect("scratch");
        let held = DataDirectory::take(&scratch.path().join("data")).expect("taken");
        let error = DataDirectory::take(held.path()).expect_err("in use").to_string();
        assert!(error.contains("another process") && error.contains(&std::process::id().to_string()), "{error}");
        drop(held);
        DataDirectory::take(&scratch.path().join("data")).expect("free again");
    }
}
