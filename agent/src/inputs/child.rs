//! A process that is read from: started without a shell in a group of its own, and ended with it.
//!
//! Invariant: signals go to the group only while its leader is not reaped, so that the number cannot belong to anybody
//! else. Whoever drops a child kills its group.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{ChildStderr, ChildStdout, Command},
    time::timeout,
};

/// How long a process may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(2);
/// How much of what it says on standard error is kept, from the end.
const LAST_WORDS_BYTES: usize = 1024;

/// A running process.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    /// `None` once it is reaped.
    group: Option<Pid>,
}

impl Child {
    /// Starts it, with pipes to read from.
    pub(super) fn start(words: &[String]) -> io::Result<(Self, ChildStdout, ChildStderr)> {
        let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn()?;
        let group = process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pipes = (process.stdout.take(), process.stderr.take());
        let child = Self { process, group };
        match pipes {
            (Some(stdout), Some(stderr)) => Ok((child, stdout, stderr)),
            _ => Err(io::Error::other("it has no pipes")),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It may have ended on its own; then there is nobody to tell.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Asks it to end, waits for `reading` to see the end of its pipes, and kills what is left after the grace.
    pub(super) async fn end(mut self, reading: impl Future) {
        self.signal(Signal::TERM);
        let ending = async {
            reading.await;
            self.wait().await
        };
        if timeout(GRACE, ending).await.is_err() {
            self.signal(Signal::KILL);
            // Only a process that hangs in the kernel takes longer; nothing is gained by waiting for it.
            let _ = timeout(GRACE, self.wait()).await;
        }
    }

    /// Waits for its end. Call it when its pipes are at theirs.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.process.wait().await?;
        self.group = None;
        Ok(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Reads to the end and keeps what was said last, for people.
pub(super) async fn last_words(mut source: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::with_capacity(LAST_WORDS_BYTES);
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = source.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..length]);
        kept.drain(..kept.len().saturating_sub(LAST_WORDS_BYTES));
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}
