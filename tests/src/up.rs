//! `logmesh up` as a child process.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::api::Api;
use crate::binary;
use crate::faults;
use crate::process::{Ended, Process, line_with, seen_by};
use crate::wait::{Look, SLACK, wait_until};

/// Promised time from the start of the command to serving.
pub const SERVING_WITHIN: Duration = Duration::from_secs(5);

/// How to start `logmesh up`.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The data directory, as the process sees it.
    pub data: PathBuf,
    /// Patterns of files to tail.
    pub patterns: Vec<OsString>,
    /// Further arguments.
    pub arguments: Vec<OsString>,
    /// Environment beside the inherited one.
    pub environment: Vec<(OsString, OsString)>,
    /// A command that runs the rest of its arguments: `unshare -Urm sh -c '… exec "$@"' sh`.
    pub wrapper: Vec<OsString>,
    /// Address of the search and admin interface.
    pub http: String,
    /// Address at which agents are taken.
    pub ingest: String,
    /// Where what it says is kept: `<stem>.stderr` and `<stem>.stdout`.
    pub log_stem: PathBuf,
}

/// A started `logmesh up`. Dropped, it is killed.
#[derive(Debug)]
pub struct Up {
    process: Process,
    /// Whether faults are to be injected, which only a binary built for it can.
    faulty: bool,
    addresses_file: PathBuf,
    addresses: Option<Addresses>,
}

/// What `DIR/addresses.json` says.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Addresses {
    /// Search and admin interface.
    pub http: SocketAddr,
    /// Where agents are taken.
    pub ingest: SocketAddr,
    /// The process that serves them.
    pub pid: i32,
}

impl Setup {
    /// Starts the process, without waiting for anything.
    ///
    /// # Errors
    ///
    /// When the binary was not built or cannot be run.
    pub fn spawn(&self) -> Result<Up> {
        let mut words: Vec<OsString> = self.wrapper.clone();
        words.push(binary::logmesh()?.into());
        words.extend(["up", "--data"].map(OsString::from));
        words.push(self.data.clone().into());
        words.extend(["--http", &self.http, "--ingest", &self.ingest].map(OsString::from));
        words.extend(self.arguments.iter().cloned());
        words.extend(self.patterns.iter().cloned());
        let process = Process::spawn(&words, &self.environment, &self.log_stem)?;
        let inside = self.data.join("addresses.json");
        // A process with mounts of its own shows its files below `/proc/PID/root`.
        let addresses_file = if self.wrapper.is_empty() { inside } else { seen_by(process.pid(), &inside)? };
        let faulty = self.environment.iter().any(|(name, _)| name == faults::VARIABLE);
        Ok(Up { process, faulty, addresses_file, addresses: None })
    }

    /// Starts the process and waits until it serves.
    ///
    /// # Errors
    ///
    /// When it does not serve within [`SLACK`] times the promise, or ends.
    pub async fn start(&self) -> Result<Up> {
        let mut up = self.spawn()?;
        up.serving().await?;
        Ok(up)
    }

    /// Starts the process and waits for its end: it is to refuse.
    ///
    /// # Errors
    ///
    /// When it does not end within [`SLACK`] times [`SERVING_WITHIN`].
    pub async fn refused(&self) -> Result<Ended> {
        let up = self.spawn()?;
        let started = up.started();
        up.process.ended_within(started, SERVING_WITHIN * SLACK).await
    }

    /// Adds a configuration file.
    #[must_use]
    pub fn config(mut self, file: &Path) -> Setup {
        self.arguments.extend([OsString::from("--config"), file.into()]);
        self
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Setup {
        self.environment.push((name.into(), value.into()));
        self
    }
}

impl Up {
    /// Waits until it serves: `addresses.json` names this very process, and `/readyz` says 200. Returns the time since
    /// the start.
    ///
    /// # Errors
    ///
    /// When it does not within [`SLACK`] times the promise, or ends.
    pub async fn serving(&mut self) -> Result<Duration> {
        let api = Api::new(self.listening().await?.http);
        wait_until("logmesh up is ready", SERVING_WITHIN * SLACK, async || {
            self.process.require_alive()?;
            api.ready().await
        })
        .await
        .with_context(|| format!("stderr so far:\n{}", self.stderr()))?;
        let took = self.started().elapsed();
        let injected = !self.faulty || line_with(&self.stderr(), &["faults are injected"]).is_some();
        ensure!(injected, "the binary knows no faults: build it with `--features logmesh/faults`, as `make test` does");
        Ok(took)
    }

    /// Looks whether it serves, without waiting.
    ///
    /// # Errors
    ///
    /// Never for want of an answer: that is a reason too.
    pub async fn look(&mut self) -> Result<Look<()>> {
        match read_addresses(&self.addresses_file) {
            Ok(addresses) if addresses.pid == self.process.pid() => self.addresses = Some(addresses),
            Ok(addresses) => return Ok(Look::NotYet(format!("addresses.json is of process {}", addresses.pid))),
            Err(error) => return Ok(Look::NotYet(format!("{error:#}"))),
        }
        self.api()?.ready().await
    }

    /// Whether it has ended.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    pub fn ended_by_itself(&mut self) -> Result<bool> {
        self.process.ended_by_itself()
    }

    /// Waits until `addresses.json` names this process, ready or not.
    ///
    /// # Errors
    ///
    /// When it does not within [`SLACK`] times the promise, or ends.
    pub async fn listening(&mut self) -> Result<Addresses> {
        let found = wait_until("logmesh up listens", SERVING_WITHIN * SLACK, async || {
            self.process.require_alive()?;
            Ok(match read_addresses(&self.addresses_file) {
                Ok(addresses) if addresses.pid == self.process.pid() => Look::Holds(addresses),
                Ok(addresses) => Look::NotYet(format!("addresses.json is of process {}", addresses.pid)),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })
        .await
        .with_context(|| format!("stderr so far:\n{}", self.stderr()))?;
        self.addresses = Some(found);
        Ok(found)
    }

    /// Its addresses.
    ///
    /// # Errors
    ///
    /// Before [`Up::serving`] or [`Up::listening`] succeeded.
    pub fn addresses(&self) -> Result<Addresses> {
        self.addresses.context("logmesh up does not serve yet")
    }

    /// A client of its search and admin interface.
    ///
    /// # Errors
    ///
    /// Before [`Up::serving`] or [`Up::listening`] succeeded.
    pub fn api(&self) -> Result<Api> {
        Ok(Api::new(self.addresses()?.http))
    }

    /// As [`Process::kill`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn kill(self) -> Result<()> {
        self.process.kill().await
    }

    /// As [`Process::terminate`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn terminate(self) -> Result<Ended> {
        self.process.terminate().await
    }

    /// As [`Process::ended`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn ended(self) -> Result<Ended> {
        self.process.ended().await
    }
}

impl Deref for Up {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// Reads a whole `addresses.json`.
fn read_addresses(file: &Path) -> Result<Addresses> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not whole", file.display()))
}
