//! `logmesh up` as a child process: started, watched, killed, stopped, and never left behind.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::process::{Child, Command};

use crate::api::Api;
use crate::binary;
use crate::wait::{Look, SLACK, wait_until};

/// Promised time from the start of the command to serving.
pub const SERVING_WITHIN: Duration = Duration::from_secs(5);

/// Promised longest time from SIGTERM to the exit.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Size of a memory page where `/proc` counts in pages; `/proc/PID/status` counts in KiB.
const KIB: u64 = 1024;

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
    child: Child,
    pid: Pid,
    addresses_file: PathBuf,
    stderr: PathBuf,
    started: Instant,
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

/// How a process ended that was expected to end.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// All it said on stderr.
    pub stderr: String,
    /// From the signal or the start to the end.
    pub took: Duration,
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
        let stderr = self.log_stem.with_extension("stderr");
        let child = Command::new(&words[0])
            .args(&words[1..])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(self.log_stem.with_extension("stdout"))?)
            .stderr(File::create(&stderr)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", words[0].display()))?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).context("a child without a pid")?;
        let addresses_file = self.addresses_file(pid)?;
        Ok(Up { child, pid, addresses_file, stderr, started: Instant::now(), addresses: None })
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
        let started = up.started;
        up.ended(started, SERVING_WITHIN * SLACK).await
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

    /// A process with mounts of its own shows its files below `/proc/PID/root`.
    fn addresses_file(&self, pid: Pid) -> Result<PathBuf> {
        let inside = self.data.join("addresses.json");
        if self.wrapper.is_empty() {
            return Ok(inside);
        }
        Ok(seen_by(pid.as_raw_nonzero().get(), &inside)?)
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
        let found = wait_until("logmesh up serves", SERVING_WITHIN * SLACK, async || {
            if let Some(status) = self.child.try_wait()? {
                bail!("logmesh up ended with {status}:\n{}", self.stderr());
            }
            let addresses = match read_addresses(&self.addresses_file) {
                Ok(addresses) if addresses.pid == self.pid() => addresses,
                Ok(addresses) => return Ok(Look::NotYet(format!("addresses.json is of process {}", addresses.pid))),
                Err(error) => return Ok(Look::NotYet(format!("{error:#}"))),
            };
            Ok(match Api::new(addresses.http).ready().await? {
                Look::Holds(()) => Look::Holds(addresses),
                Look::NotYet(reason) => Look::NotYet(reason),
            })
        })
        .await
        .with_context(|| format!("stderr so far:\n{}", self.stderr()))?;
        self.addresses = Some(found);
        Ok(self.started.elapsed())
    }

    /// Waits until `addresses.json` names this process, ready or not.
    ///
    /// # Errors
    ///
    /// When it does not within [`SLACK`] times the promise.
    pub async fn listening(&mut self) -> Result<Addresses> {
        let found = wait_until("logmesh up listens", SERVING_WITHIN * SLACK, async || {
            if let Some(status) = self.child.try_wait()? {
                bail!("logmesh up ended with {status}:\n{}", self.stderr());
            }
            Ok(match read_addresses(&self.addresses_file) {
                Ok(addresses) if addresses.pid == self.pid() => Look::Holds(addresses),
                Ok(addresses) => Look::NotYet(format!("addresses.json is of process {}", addresses.pid)),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })
        .await?;
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

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// All it has said on stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        std::fs::read(&self.stderr).map_or_else(|error| error.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until a line on stderr has all of these words (any case), and returns it.
    ///
    /// # Errors
    ///
    /// When the deadline passes.
    pub async fn says(&self, words: &[&str], deadline: Duration) -> Result<String> {
        wait_until(&format!("a log line with {words:?}"), deadline, async || {
            let stderr = self.stderr();
            Ok(match line_with(&stderr, words) {
                Some(line) => Look::Holds(line.to_owned()),
                None => Look::NotYet(format!("{} bytes on stderr:\n{stderr}", stderr.len())),
            })
        })
        .await
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When it had ended by itself.
    pub async fn kill(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("logmesh up had ended by itself with {status}:\n{}", self.stderr());
        }
        self.child.kill().await.context("cannot kill logmesh up")
    }

    /// Asks it to stop with SIGTERM and waits for its end.
    ///
    /// # Errors
    ///
    /// When it does not end within [`SLACK`] times the grace.
    pub async fn terminate(self) -> Result<Ended> {
        let asked = Instant::now();
        self.signal(Signal::TERM)?;
        self.ended(asked, SHUTDOWN_GRACE * SLACK).await
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal).with_context(|| format!("cannot send {signal:?} to process {}", self.pid()))
    }

    /// Largest resident memory so far, in bytes.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn peak_memory(&self) -> Result<u64> {
        memory(self.pid(), "VmHWM:")
    }

    /// Resident memory now, in bytes.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn memory(&self) -> Result<u64> {
        memory(self.pid(), "VmRSS:")
    }

    /// Bytes that it has read so far by read calls of any kind.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn bytes_read(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.pid()))?;
        let value = text.lines().find_map(|line| line.strip_prefix("rchar: ")).context("no rchar")?;
        Ok(value.parse()?)
    }

    async fn ended(mut self, since: Instant, deadline: Duration) -> Result<Ended> {
        let status = tokio::time::timeout(deadline, self.child.wait())
            .await
            .with_context(|| format!("logmesh up still runs after {deadline:?}:\n{}", self.stderr()))??;
        Ok(Ended { status, stderr: self.stderr(), took: since.elapsed() })
    }
}

impl Ended {
    /// The exit code, where it was not a signal.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Checks the exit code, and that a line of stderr has all of these words (any case).
    ///
    /// # Errors
    ///
    /// When not, with all of stderr.
    pub fn require(&self, code: i32, words: &[&str]) -> Result<()> {
        if self.code() != Some(code) {
            bail!("ended with {} instead of exit status {code}; stderr:\n{}", self.status, self.stderr);
        }
        if line_with(&self.stderr, words).is_none() {
            bail!("no line of stderr has all of {words:?}:\n{}", self.stderr);
        }
        Ok(())
    }
}

/// A path as it looks from within another process, which may have mounts of its own.
///
/// # Errors
///
/// When the path is not absolute.
pub fn seen_by(pid: i32, path: &Path) -> Result<PathBuf> {
    let relative = path.strip_prefix("/").with_context(|| format!("{} is not absolute", path.display()))?;
    Ok(Path::new("/proc").join(pid.to_string()).join("root").join(relative))
}

/// Reads a whole `addresses.json`.
///
/// # Errors
///
/// When it is not there or not whole.
pub fn read_addresses(file: &Path) -> Result<Addresses> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not whole", file.display()))
}

/// The first line that has all of these words, in any case of letters.
#[must_use]
pub fn line_with<'a>(text: &'a str, words: &[&str]) -> Option<&'a str> {
    text.lines().find(|line| {
        let line = line.to_lowercase();
        words.iter().all(|word| line.contains(&word.to_lowercase()))
    })
}

fn memory(pid: i32, field: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{field} is {line:?}"))?;
    Ok(kib * KIB)
}
