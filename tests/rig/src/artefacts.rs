//! What the servers are made of: fetched by Maven once, kept under the target directory for all runs to come.
//!
//! An entry appears whole, by a rename, or not at all; a file lock keeps test processes that start together from
//! fetching the same thing.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::java::{Java, OLDEST};

/// Pinned, for what it does differs between versions.
const DEPENDENCY_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";

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

/// Copies all jars that the `pom.xml` in a directory names, and theirs, into its directory `libs`.
pub(crate) fn copy_dependencies(directory: &Path) -> Result<()> {
    maven(directory, &[&format!("{DEPENDENCY_PLUGIN}:copy-dependencies"), "-DoutputDirectory=libs"])
}

/// Unpacks a zip, named as Maven does (`group:name:version:zip`), into a directory.
pub(crate) fn unpack(artefact: &str, directory: &Path) -> Result<()> {
    let (artefact, output) = (format!("-Dartifact={artefact}"), format!("-DoutputDirectory={}", directory.display()));
    // Maven leaves marks where it runs.
    let elsewhere = tempfile::tempdir()?;
    maven(elsewhere.path(), &[&format!("{DEPENDENCY_PLUGIN}:unpack"), &artefact, &output])
}

fn maven(directory: &Path, arguments: &[&str]) -> Result<()> {
    Java::find(OLDEST)?;
    let mut command = Command::new("mvn");
    command.args(["-q", "-B"]).args(arguments).current_dir(directory);
    run(&mut command)
        .context("Maven could not fetch what the tests need (if it is missing: `make setup`, or install maven)")
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
