//! A directory for one server, removed with the value or, when that is never dropped, with the test process.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

const SWEEP: &str = include_str!("../files/sweep.sh");

#[derive(Debug)]
pub(crate) struct Scratch {
    directory: TempDir,
    /// Removes the directory when its stdin closes.
    sweeper: Child,
}

impl Scratch {
    pub(crate) fn new(name: &str) -> Result<Scratch> {
        let directory = tempfile::Builder::new().prefix(&format!("logmesh-rig-{name}-")).tempdir()?;
        // A server that refuses root looks into it as another user.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let sweeper = Command::new("sh")
            .args(["-c", SWEEP, "sweep"])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot run sh")?;
        Ok(Scratch { directory, sweeper })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Closes the pipe and waits until all is removed.
        drop(self.sweeper.stdin.take());
        let _ = self.sweeper.wait();
    }
}
