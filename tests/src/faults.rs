//! Faults behind the seams of the running binary.
//!
//! A binary built with the feature `faults` reads the small JSON file that `LOGMESH_FAULTS` names, again and again:
//! `{"index": "ok" | "fail" | {"delay_ms": N} | {"reject": TEXT}, "agent_clock_offset_ms": N}`. One without the feature does not know the
//! variable.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

/// Name of the environment variable that names the file.
pub const VARIABLE: &str = "LOGMESH_FAULTS";

/// How the index behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexFault {
    /// As it is.
    None,
    /// Every bulk fails and is to be tried again.
    Fail,
    /// Every bulk takes this much longer.
    Crawl(Duration),
    /// Documents that hold this text are refused for good, unless they are reduced ones.
    Reject(&'static str),
}

/// The file of faults of one scenario.
#[derive(Debug)]
pub struct Faults {
    file: PathBuf,
    index: IndexFault,
    agent_clock_offset_millis: i64,
}

impl Faults {
    /// Writes a file without faults.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn none(file: PathBuf) -> Result<Faults> {
        let faults = Faults { file, index: IndexFault::None, agent_clock_offset_millis: 0 };
        faults.write()?;
        Ok(faults)
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Changes how the index behaves, from the next bulk on.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn index(&mut self, index: IndexFault) -> Result<()> {
        self.index = index;
        self.write()
    }

    /// Moves the agent's clock.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn agent_clock(&mut self, offset_millis: i64) -> Result<()> {
        self.agent_clock_offset_millis = offset_millis;
        self.write()
    }

    /// Replaces the file whole, since it is read at any time.
    fn write(&self) -> Result<()> {
        let index = match self.index {
            IndexFault::None => json!("ok"),
            IndexFault::Fail => json!("fail"),
            IndexFault::Reject(text) => json!({ "reject": text }),
            IndexFault::Crawl(delay) => json!({ "delay_ms": u64::try_from(delay.as_millis())? }),
        };
        let text = json!({ "index": index, "agent_clock_offset_ms": self.agent_clock_offset_millis }).to_string();
        let fresh = self.file.with_extension("new");
        std::fs::write(&fresh, text).with_context(|| format!("cannot write {}", fresh.display()))?;
        std::fs::rename(&fresh, &self.file).with_context(|| format!("cannot replace {}", self.file.display()))
    }
}
