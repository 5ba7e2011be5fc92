//! The stage of one scenario: a directory of its own, and what is shown of it when the scenario fails.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::faults::{Faults, VARIABLE};
use crate::up::Setup;

/// How many lines of each process's stderr a failed scenario shows.
const SHOWN_LINES: usize = 60;

/// A directory with the data directory, the logs and the configuration of one scenario. Removed with it, kept when the
/// scenario fails.
#[derive(Debug)]
pub struct Scene {
    directory: TempDir,
    runs: Cell<u32>,
}

/// Plays a scenario on a stage of its own.
///
/// # Panics
///
/// When the story fails, with its error; the stage then shows where it is and the end of what each process said.
pub async fn scenario(story: impl AsyncFnOnce(&Scene) -> Result<()>) {
    let scene = Scene::build().expect("a temporary directory can be made");
    if let Err(error) = story(&scene).await {
        panic!("{error:?}");
    }
}

impl Scene {
    fn build() -> Result<Scene> {
        let directory = tempfile::Builder::new().prefix("logmesh-scene-").tempdir()?;
        std::fs::create_dir(directory.path().join("logs"))?;
        Ok(Scene { directory, runs: Cell::new(0) })
    }

    /// The data directory of `up`; made by it.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Where writers write.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path("logs")
    }

    /// A path on the stage.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// How to start `up` on this stage: free ports, the pattern `logs/<pattern>`.
    #[must_use]
    pub fn up(&self, pattern: &str) -> Setup {
        let run = self.runs.get() + 1;
        self.runs.set(run);
        Setup {
            data: self.data(),
            patterns: vec![self.logs().join(pattern).into()],
            arguments: Vec::new(),
            environment: vec![(OsString::from("RUST_BACKTRACE"), OsString::from("1"))],
            wrapper: Vec::new(),
            http: String::from("127.0.0.1:0"),
            ingest: String::from("127.0.0.1:0"),
            log_stem: self.path(&format!("run-{run}")),
        }
    }

    /// The same with faults to be set while it runs.
    ///
    /// # Errors
    ///
    /// When the file of faults cannot be written.
    pub fn up_with_faults(&self, pattern: &str) -> Result<(Setup, Faults)> {
        let faults = Faults::none(self.path("faults.json"))?;
        let setup = self.up(pattern).env(VARIABLE, faults.file());
        Ok((setup, faults))
    }

    /// Writes a file on the stage.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn said(&self) -> String {
        let mut text = format!("the stage is kept: {}\n", self.directory.path().display());
        let entries = std::fs::read_dir(self.directory.path()).into_iter().flatten().flatten();
        let mut logs: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| is_log(path)).collect();
        logs.sort();
        for path in logs {
            text.push_str(&format!("--- end of {}\n{}\n", path.display(), last_lines(&path)));
        }
        text
    }
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "stderr")
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.directory.disable_cleanup(true);
            eprintln!("{}", self.said());
        }
    }
}

fn last_lines(path: &Path) -> String {
    let Ok(bytes) = std::fs::read(path) else { return String::from("(none)") };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}
