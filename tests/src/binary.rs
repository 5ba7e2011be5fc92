//! Where the binaries under test are.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The built `logmesh` beside this executable: in cargo's profile directory, which is the directory of an executable
/// or, for a test, its parent.
///
/// # Errors
///
/// When it was not built.
pub fn logmesh() -> Result<PathBuf> {
    named("logmesh")
}

/// The agent as it is built for hosts, with a profile of its own, beside the profile of this executable.
///
/// # Errors
///
/// When it was not built.
pub fn agent() -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot tell where this executable is")?;
    let target = this.ancestors().nth(2).context("an executable without a target directory")?;
    let binary = target.join("agent/logmesh-agent");
    if !binary.is_file() {
        bail!("no agent at {}: run `make agent`", binary.display());
    }
    Ok(binary)
}

/// A built binary of the workspace by its name.
///
/// # Errors
///
/// When it was not built.
pub fn named(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot tell where this executable is")?;
    let mut tried = Vec::new();
    for directory in this.ancestors().skip(1).take(2) {
        let candidate = directory.join(name);
        if candidate.is_file() {
            return Ok(candidate);
        }
        tried.push(candidate.display().to_string());
    }
    bail!("no {name} binary at {}: run `cargo build --workspace --features logmesh/faults`", tried.join(" or "))
}
