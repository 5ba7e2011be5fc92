//! What both search servers find in their directory, and running them as somebody else than root.

use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::artefacts::run;
use crate::certificates::{Authority, LOOPBACK};

const LOG4J: &str = include_str!("../../files/search-log4j2.properties");
const OPTIONS: &str = include_str!("../../files/search.options");
/// Whom a server becomes when the tests are root's, for both refuse root. Nobody has to have that number.
const UNPRIVILEGED: u32 = 12_345;
const OTHERS_SEARCH: u32 = 0o001;

/// What runs a server.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) words: Vec<OsString>,
    pub(super) environment: Vec<(&'static str, OsString)>,
}

/// Of one server: `config`, with certificates, and empty `data`, `logs` and `tmp`.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(super) fn create(path: PathBuf, jvm: &[&str]) -> Result<Directory> {
        for part in ["config", "data", "logs", "tmp"] {
            std::fs::create_dir_all(path.join(part))?;
        }
        let directory = Directory { path };
        let authority = Authority::new("rig-ca")?;
        let server = authority.issue("localhost", &LOOPBACK)?;
        let temporary = directory.part("tmp");
        for (name, text) in [
            ("ca.pem", authority.pem()),
            ("http.pem", &server.certificate),
            ("http.key", &server.key),
            ("log4j2.properties", LOG4J),
            ("jvm.options", &OPTIONS.replace("@TMP@", &temporary.to_string_lossy())),
            ("jvm.options.d/test.options", &jvm.join("\n")),
        ] {
            directory.write(name, text)?;
        }
        Ok(directory)
    }

    pub(super) fn part(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.part("config").join("ca.pem")
    }

    /// Writes a file of the configuration.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.part("config").join(name);
        std::fs::create_dir_all(path.parent().context("a file without a directory")?)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Copies the files of a directory into a part of the configuration.
    pub(super) fn copy(&self, from: &Path, part: &str) -> Result<()> {
        let to = self.part("config").join(part);
        std::fs::create_dir_all(&to)?;
        for file in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
            let file = file?;
            std::fs::copy(file.path(), to.join(file.file_name()))?;
        }
        Ok(())
    }

    /// The words that run a server from `home`, as whoever may; all is handed to that one.
    pub(super) fn command(&self, home: &Path, script: &str) -> Result<Vec<OsString>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(vec![home.join(script).into_os_string()]);
        }
        let mut home = home.to_owned();
        if !open_to_all(&home) {
            // The target directory lies where only root may look: the server gets a copy.
            let copy = self.part("home");
            run(std::process::Command::new("cp").arg("-R").arg(&home).arg(&copy))?;
            home = copy;
        }
        hand_over(&self.path)?;
        let identity = ["--reuid", "--regid"].map(|option| format!("{option}={UNPRIVILEGED}").into());
        let mut words: Vec<OsString> = vec!["setpriv".into(), "--clear-groups".into()];
        words.extend(identity);
        words.push(home.join(script).into_os_string());
        Ok(words)
    }
}

fn hand_over(path: &Path) -> Result<()> {
    chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).with_context(|| format!("cannot chown {}", path.display()))?;
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            hand_over(&entry?.path())?;
        }
    }
    Ok(())
}

/// Whether anybody may reach what lies under a path.
fn open_to_all(path: &Path) -> bool {
    let mut modes = path.ancestors().filter_map(|each| each.metadata().ok()).map(|each| each.permissions().mode());
    modes.all(|mode| mode & OTHERS_SEARCH != 0)
}

/// Lets anybody read a server's home.
pub(super) fn readable(home: &Path) -> Result<()> {
    run(std::process::Command::new("chmod").args(["-R", "a+rX"]).arg(home))
}
