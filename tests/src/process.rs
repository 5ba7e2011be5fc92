//! A child process: started, watched, killed, stopped, and never left behind.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::wait::{Look, SLACK, wait_until};

/// Promised longest time from SIGTERM to the exit.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// `/proc/PID/status` counts in KiB.
const KIB: u64 = 1024;

/// A started process. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    stderr: PathBuf,
    started: Instant,
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

impl Process {
    /// Starts a command, given as its words, in an environment beside the inherited one. What it says is kept in
    /// `<stem>.stderr` and `<stem>.stdout`.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub fn spawn(words: &[OsString], environment: &[(OsString, OsString)], log_stem: &Path) -> Result<Process> {
        let program = words.first().context("a command without a program")?;
        let stderr = log_stem.with_extension("stderr");
        let mut command = Command::new(program);
        // What is set for the tests themselves (LOGMESH_SOAK) would be an unknown setting of the process. The filter of
        // its log is passed on, for who looks into a scenario.
        let own = |name: &str| name.starts_with("LOGMESH_") && name != "LOGMESH_LOG";
        for (name, _) in std::env::vars_os().filter(|(name, _)| own(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        let child = command
            .args(&words[1..])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(log_stem.with_extension("stdout"))?)
            .stderr(File::create(&stderr)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).context("a child without a pid")?;
        Ok(Process { child, pid, stderr, started: Instant::now() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// When it was started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// All it has said on stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        std::fs::read(&self.stderr)
            .map_or_else(|error| error.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether it has ended.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    pub fn ended_by_itself(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Checks that it still runs.
    ///
    /// # Errors
    ///
    /// When it has ended, with its status and all it said.
    pub fn require_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the process ended with {status}:\n{}", self.stderr()),
            None => Ok(()),
        }
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
        self.require_alive()?;
        self.child.kill().await.with_context(|| format!("cannot kill process {}", self.pid()))
    }

    /// Asks it to stop with SIGTERM and waits for its end.
    ///
    /// # Errors
    ///
    /// When it does not end within [`SLACK`] times the grace.
    pub async fn terminate(self) -> Result<Ended> {
        self.signal(Signal::TERM)?;
        self.ended().await
    }

    /// Waits for its end, which something else has brought about.
    ///
    /// # Errors
    ///
    /// When it does not end within [`SLACK`] times the grace.
    pub async fn ended(self) -> Result<Ended> {
        self.ended_within(Instant::now(), SHUTDOWN_GRACE * SLACK).await
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
        memory_field(self.pid(), "VmHWM:")
    }

    /// Resident memory now, in bytes.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn memory(&self) -> Result<u64> {
        memory(self.pid())
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

    /// Waits for its end; `since` is when it was brought about.
    ///
    /// # Errors
    ///
    /// When it does not end within the deadline.
    pub async fn ended_within(mut self, since: Instant, deadline: Duration) -> Result<Ended> {
        let status = tokio::time::timeout(deadline, self.child.wait())
            .await
            .with_context(|| format!("it still runs after {deadline:?}:\n{}", self.stderr()))??;
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
        let (status, stderr) = (self.status, &self.stderr);
        ensure!(self.code() == Some(code), "ended with {status} instead of exit status {code}; stderr:\n{stderr}");
        ensure!(line_with(stderr, words).is_some(), "no line of stderr has all of {words:?}:\n{stderr}");
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

/// The first line that has all of these words, in any case of letters.
#[must_use]
pub fn line_with<'a>(text: &'a str, words: &[&str]) -> Option<&'a str> {
    text.lines().find(|line| {
        let line = line.to_lowercase();
        words.iter().all(|word| line.contains(&word.to_lowercase()))
    })
}

/// Resident memory of a process, in bytes.
///
/// # Errors
///
/// When it is gone.
pub fn memory(pid: i32) -> Result<u64> {
    memory_field(pid, "VmRSS:")
}

fn memory_field(pid: i32, field: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{field} is {line:?}"))?;
    Ok(kib * KIB)
}
