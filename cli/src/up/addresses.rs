//! `addresses.json`: where a running `logmesh up` is found.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::SocketAddr,
    path::Path,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// The addresses of a running `logmesh up`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// Admin and search.
    pub(crate) http: SocketAddr,
    /// The gateway's.
    pub(crate) ingest: SocketAddr,
    /// The process.
    pub(crate) pid: u32,
}

impl Addresses {
    /// Its name in the data directory.
    pub(super) const FILE: &str = "addresses.json";
    /// Its name until it is whole.
    pub(super) const FRESH: &str = "addresses.json.new";

    /// Writes the file into a data directory, whole and at once: a reader sees the old one or the new one.
    pub(crate) fn write(&self, data: &Path) -> io::Result<()> {
        let (path, fresh) = (data.join(Self::FILE), data.join(Self::FRESH));
        let mut file = File::create(&fresh)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(fresh, path)
    }

    /// Reads the file of a data directory.
    pub(crate) fn read(data: &Path) -> anyhow::Result<Self> {
        let path = data.join(Self::FILE);
        let text = fs::read(&path).with_context(|| {
            format!("no `logmesh up` has run in {} (cannot read {}); give --data or --url", data.display(), Self::FILE)
        })?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged; start `logmesh up` again", path.display()))
    }

    /// Takes the file away when the process stops: nobody is there any more.
    pub(crate) fn remove(data: &Path) {
        // Left behind it does no harm but a slower error message: the next start replaces it.
        let _ = fs::remove_file(data.join(Self::FILE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let data = tempfile::tempdir().expect("scratch");
        let addresses = Addresses {
            http: "127.0.0.1:4400".parse().expect("address"),
            ingest: "127.0.0.1:4417".parse().expect("address"),
            pid: 7,
        };
        addresses.write(data.path()).expect("writes");
        assert_eq!(Addresses::read(data.path()).expect("reads"), addresses);
        Addresses::remove(data.path());
        let error = Addresses::read(data.path()).expect_err("gone");
        assert!(error.to_string().contains("--data"), "{error}");
    }
}
