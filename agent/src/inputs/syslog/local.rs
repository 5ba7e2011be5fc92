//! The files of local sockets.
//!
//! A file that a process left behind is replaced; one behind which somebody listens, or that is no socket, never is. On
//! leaving, the file is removed if it is still the one that was made.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
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
        clear_way(path, SocketType::STREAM)?;
        let listener = UnixListener::bind(path)?;
        Ok((listener, Self::made(path, mode)?))
    }

    /// Listens for datagrams.
    pub(super) fn bind(path: &Path, mode: Option<u32>) -> io::Result<(UnixDatagram, Self)> {
        clear_way(path, SocketType::DGRAM)?;
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
fn clear_way(path: &Path, kind: SocketType) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    match knock(path, kind) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Whether it answers, is too busy to, or is a socket of the other kind: somebody is there.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Connects without waiting: whoever listens there may hang, and have as many callers waiting as it takes.
fn knock(path: &Path, kind: SocketType) -> io::Result<()> {
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    Ok(connect(&socket, &SocketAddrUnix::new(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_whose_owner_hangs_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let _hanging = std::os::unix::net::UnixListener::bind(&path).unwrap();
        // Callers stay in its queue, though they are gone.
        let full = loop {
            if let Err(error) = knock(&path, SocketType::STREAM) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let refused = LocalSocket::listen(&path, None).map(drop).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
    }
}
