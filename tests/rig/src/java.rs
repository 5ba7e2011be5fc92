//! Finding a Java that is new enough.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// What all servers run on that the tests cannot do without.
pub(crate) const OLDEST: u32 = 17;
/// Where Debian puts them.
const INSTALLED: &str = "/usr/lib/jvm";

/// An installed Java.
#[derive(Clone, Debug)]
pub(crate) struct Java {
    home: PathBuf,
    version: u32,
}

impl Java {
    /// The oldest of at least that version, for old servers do not run on every new Java. Looked for in `JAVA_HOME`, on the
    /// path and in Debian's place.
    pub(crate) fn find(oldest: u32) -> Result<Java> {
        static FOUND: OnceLock<Vec<Java>> = OnceLock::new();
        let found = FOUND.get_or_init(installed);
        let java = found.iter().filter(|java| java.version >= oldest).min_by_key(|java| java.version).cloned();
        java.with_context(|| {
            format!("no Java {oldest} or newer: install openjdk-{oldest}-jdk-headless and maven (`make setup`)")
        })
    }

    /// 17, 21 and so on.
    pub(crate) fn version(&self) -> u32 {
        self.version
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The command that runs it.
    pub(crate) fn command(&self) -> PathBuf {
        self.home.join("bin/java")
    }

    /// Asks a `java` who it is.
    fn ask(command: &Path) -> Result<Java> {
        let output = Command::new(command).args(["-XshowSettings:properties", "-version"]).output()?;
        ensure!(output.status.success(), "{} failed ({})", command.display(), output.status);
        let said = String::from_utf8_lossy(&output.stderr);
        let property = |name: &str| {
            let mut lines = said.lines().filter_map(|line| line.split_once(" = "));
            lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
        };
        let home = property("java.home").context("it does not say where it is")?.into();
        let version = property("java.specification.version").context("it does not say what it is")?;
        // Java 8 calls itself 1.8.
        Ok(Java { home, version: version.parse().unwrap_or(1) })
    }
}

fn installed() -> Vec<Java> {
    let mut commands: Vec<PathBuf> = Vec::new();
    commands.extend(std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java")));
    commands.push("java".into());
    let entries = std::fs::read_dir(INSTALLED).into_iter().flatten().flatten();
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.path().join("bin/java")).collect();
    entries.sort();
    commands.extend(entries);
    // Those that are not there or are broken are not installed.
    commands.iter().filter_map(|command| Java::ask(command).ok()).collect()
}
