//! A server process: started, watched, signalled, and gone when the test process is.
//!
//! Between the two stands a shell (`files/guard.sh`) that kills the server when a pipe from the test process closes,
//! which the kernel does whatever the end of that process was. So a server in a `static`, which is never dropped, or
//! one whose test was killed, does not stay behind either.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

const GUARD: &str = include_str!("../files/guard.sh");
/// How many of its last words an error bears.
const TAIL_BYTES: usize = 4096;
/// Longest time that the kernel may take to end a killed process.
const END_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at a process that is ending or a server that is starting.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// A running server, the leader of its own process group. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Server {
    /// The shell. It holds the pipe, and ends when the server does.
    guard: Child,
    pid: Pid,
    log: PathBuf,
}

impl Server {
    /// Starts a command, given as its words, in an environment beside the inherited one. What it says is added to `log`.
    pub(crate) fn spawn(words: &[OsString], environment: &[(&str, OsString)], log: &Path) -> Result<Server> {
        let mut guard = Command::new("sh")
            .args([OsStr::new("-c"), OsStr::new(GUARD), OsStr::new("guard"), log.as_os_str()])
            .args(words)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // An interrupt from the terminal ends the test process; the guard must outlive it.
            .process_group(0)
            .spawn()
            .context("cannot run sh")?;
        let mut line = String::new();
        BufReader::new(guard.stdout.take().context("the guard has no stdout")?).read_line(&mut line)?;
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("the guard said {line:?} instead of a pid"))?;
        Ok(Server { guard, pid, log: log.to_owned() })
    }

    /// Of the server, not of its guard.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.guard.try_wait()?)
    }

    /// Calls `ready` until it is; the error of the last call tells why it was not within `within`.
    pub(crate) fn wait_ready(&mut self, within: Duration, mut ready: impl FnMut() -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended()? {
                bail!("it ended at start ({status}); its last words:\n{}", log_tail(&self.log));
            }
            match ready() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    let context = format!("not ready within {within:?}; its last words:\n{}", log_tail(&self.log));
                    return Err(error.context(context));
                }
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }

    /// Signals it and all it started.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process_group(self.pid, signal).with_context(|| format!("cannot signal {}", self.pid()))
    }

    /// Kills it and all it started, and waits until they are gone.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.end()
    }

    /// Asks it to end, and waits for that; killed when it does not within `grace`.
    pub(crate) fn terminate(mut self, grace: Duration) -> Result<()> {
        // Already gone is as well.
        let _ = kill_process(self.pid, Signal::TERM);
        let deadline = Instant::now() + grace;
        while self.guard.try_wait()?.is_none() && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let deadline = Instant::now() + END_WITHIN;
        // A child of the server may hold its port and its locks a moment longer than the server itself.
        while group_lives(self.pid()) {
            ensure!(Instant::now() < deadline, "process {} is still there {END_WITHIN:?} after SIGKILL", self.pid());
            let _ = kill_process_group(self.pid, Signal::KILL);
            std::thread::sleep(Duration::from_millis(5));
        }
        self.guard.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Failing, it leaves the server to its guard, whose pipe closes now.
        let _ = self.end();
    }
}

/// Whether a process group has a process that is not merely waiting to be reaped: nobody may do that for an orphan.
fn group_lives(group: i32) -> bool {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok()).any(|stat| {
        // The name, in parentheses, may have anything in it; behind it are state, parent and group.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let mut fields = fields.split_whitespace();
        let (state, of) = (fields.next(), fields.nth(1).and_then(|of| of.parse().ok()));
        of == Some(group) && !matches!(state, Some("Z" | "X"))
    })
}

/// The last words in a log.
pub(crate) fn log_tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL_BYTES)..]).into_owned();
    if text.is_empty() { "(nothing)".to_owned() } else { text }
}

/// Whether the log shows that somebody else took the port between our look and the server's.
pub(crate) fn port_was_taken(log: &Path) -> bool {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.contains("Address already in use") || text.contains("BindException")
}
