//! The files of local sockets.
//!
//! A file that a process left behind is replaced; one behind which somebody listens, or that is no socket, never is. On
//! leaving, the file is removed if it is still the one that was made.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixDatagram as StdDatagram, UnixStream as StdStream},
    },
    path::{Path, PathBuf},
};

use tokio::net::{UnixDatagram, UnixListener};

/// A socket's file; removed when dropped.
#[derive(Debug)]
pub(super) struct LocalSocket {
    path: PathBuf,
    identity: (u64, u64),
}

impl LocalSocket {
    /// Listens for connections.
    pub(super) fn listen(path: &Path, mode: Option<u32>) -> io::Result<(UnixListener, Self)> {
        clear_way(path, || StdStream::connect(path).map(drop))?;
        let listener = UnixListener::bind(path)?;
        Ok((listener, Self::made(path, mode)?))
    }

    /// Listens for datagrams.
    pub(super) fn bind(path: &Path, mode: Option<u32>) -> io::Result<(UnixDatagram, Self)> {
        clear_way(path, || StdDatagram::unbound()?.connect(path))?;
        let socket = UnixDatagram::bind(path)?;
        Ok((socket, Self::made(path, mode)?))
    }

    fn made(path: &Path, mode: Option<u32>) -> io::Result<Self> {
        let identity = identity(path)?;
        if let Some(mode) = mode {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(Self { path: path.to_owned(), identity })
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // Left behind it does no harm: the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Removes a socket's file that nobody listens behind.
fn clear_way(path: &Path, knock: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    match knock() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Whether it answers, is too busy to, or is a socket of the other kind: somebody is there.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}
