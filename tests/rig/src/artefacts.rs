//! What the servers are made of: fetched by Maven once, kept under the target directory for all runs to come.
//!
//! An entry appears whole, by a rename, or not at all; a file lock keeps test processes that start together from
//! fetching the same thing.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

const PACKAGES: &str = "install openjdk-17-jdk-headless and maven (Debian's names; `make setup` does it)";

/// The directory `<target>/rig/<name>`, filled by `fill` if it is not there.
pub(crate) fn cached(name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = target_directory().join("rig");
    let entry = cache.join(name);
    if entry.is_dir() {
        return Ok(entry);
    }
    let parent = entry.parent().context("a cache entry without a parent")?;
    std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let lock = entry.with_added_extension("lock");
    let lock = File::create(&lock).with_context(|| format!("cannot create {}", lock.display()))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    if entry.is_dir() {
        return Ok(entry);
    }
    let filling = tempfile::Builder::new().prefix(".filling-").tempdir_in(parent)?;
    fill(filling.path())?;
    let filled = filling.keep();
    // A server that refuses root reads it as another user.
    std::fs::set_permissions(&filled, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    std::fs::rename(&filled, &entry).with_context(|| format!("cannot rename to {}", entry.display()))?;
    Ok(entry)
}

/// The Java to run: of `JAVA_HOME`, or else of the path.
pub(crate) fn java() -> Result<&'static Path> {
    static JAVA: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let java = JAVA.get_or_init(|| {
        let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
        let java = home.filter(|java| java.is_file()).unwrap_or_else(|| PathBuf::from("java"));
        match Command::new(&java).arg("-version").output() {
            Ok(output) if output.status.success() => Ok(java),
            Ok(output) => Err(format!("{} -version failed ({}): {PACKAGES}", java.display(), output.status)),
            Err(error) => Err(format!("cannot run {}: {error}: {PACKAGES}", java.display())),
        }
    });
    java.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// Runs Maven in a directory.
pub(crate) fn maven(directory: &Path, arguments: &[&str]) -> Result<()> {
    java()?;
    let mut command = Command::new("mvn");
    command.args(["-q", "-B"]).args(arguments).current_dir(directory);
    run(&mut command).with_context(|| format!("Maven could not fetch what the tests need: {PACKAGES}"))
}

/// Runs a command to its end; the error bears what it said.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => bail!("cannot run {name}: {error}"),
    };
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{name} failed ({}):\n{said}{errors}", output.status);
    Ok(())
}

/// Cargo's target directory: as told by the environment, else the workspace's.
fn target_directory() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => workspace.join(directory),
        None => workspace.join("target"),
    }
}
