//! What a command writes: run once, again whenever it ends, or at an interval.

use std::{io, process::ExitStatus, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    child::{Child, last_words},
    config::{CommandConfig, Runs},
    lines::{Cutter, PumpError, pump},
    outlet::Outlet,
    standing::{Pace, Part},
};
use crate::lines::Framing;

/// A command that ran so long has worked: the next pause is a short one.
const WORKED: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(super) struct CommandInput {
    pub(super) config: CommandConfig,
    pub(super) framing: Framing,
    pub(super) patience: Duration,
    pub(super) outlet: Outlet,
    pub(super) part: Part,
    pub(super) stop: CancellationToken,
}

/// How one run ended.
enum Ended {
    Exited(ExitStatus, String),
    Failed(String),
    Stopped,
}

impl CommandInput {
    /// Runs the command as it is configured, until `stop`.
    pub(super) async fn run(self) {
        let mut pace = Pace::new();
        let mut first = true;
        loop {
            let begun = Instant::now();
            let ended = self.run_once(std::mem::take(&mut first)).await;
            if begun.elapsed() > WORKED {
                pace.reset();
            }
            let well = match ended {
                Ended::Stopped => return,
                Ended::Exited(status, words) => self.judge(status, &words),
                Ended::Failed(why) => {
                    self.part.fail(why);
                    false
                }
            };
            let goes_on = match self.config.runs {
                Runs::Once if well => return,
                Runs::Once | Runs::Always => pace.wait(&self.stop).await,
                Runs::Every(interval) => {
                    let next = tokio::time::sleep_until(begun + interval);
                    self.stop.run_until_cancelled(next).await.is_some()
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Says how it ended; answers whether there is nothing to mend.
    fn judge(&self, status: ExitStatus, words: &str) -> bool {
        let said = if words.is_empty() { String::new() } else { format!(", saying: {words}") };
        let ended = format!("`{}` ended with {status}{said}", self.config.command.join(" "));
        match self.config.runs {
            Runs::Always => self.part.warn(format!("{ended}; it is started again after a pause")),
            Runs::Once | Runs::Every(_) if status.success() => self.part.well(),
            Runs::Every(_) => self.part.warn(format!("{ended}; it runs again at its next time")),
            // What ran once and failed is not run again: its records may be there already.
            Runs::Once => self.part.fail(format!("{ended}; it is not run again before the agent restarts")),
        }
        matches!(self.config.runs, Runs::Once) || status.success()
    }

    /// `first` says that nothing is known of it yet, so that it is well once it runs. Later what is said of the last run
    /// holds until this one ends.
    async fn run_once(&self, first: bool) -> Ended {
        let (mut child, stdout, stderr) = match Child::start(&self.config.command) {
            Ok(started) => started,
            Err(error) => return Ended::Failed(self.cannot_start(&error)),
        };
        if first || matches!(self.config.runs, Runs::Always) {
            self.part.well();
        }
        let cutter = || Cutter::new(&self.framing, self.outlet.record_bytes_max);
        let records = pump(stdout, cutter(), &self.outlet, self.patience);
        let words = async {
            if self.config.stderr {
                pump(stderr, cutter(), &self.outlet, self.patience).await.map(|()| String::new())
            } else {
                Ok(last_words(stderr).await)
            }
        };
        let mut reading = std::pin::pin!(async { tokio::try_join!(records, words) });
        let read = tokio::select! {
            read = &mut reading => read,
            () = self.stop.cancelled() => {
                child.end(reading).await;
                return Ended::Stopped;
            }
        };
        let words = match read {
            Ok(((), words)) => words,
            Err(PumpError::Closed(_)) => return Ended::Stopped,
            Err(PumpError::Read(error)) => return Ended::Failed(format!("its output cannot be read: {error}")),
        };
        match self.stop.run_until_cancelled(child.wait()).await {
            None => {
                child.end(std::future::ready(())).await;
                Ended::Stopped
            }
            Some(Ok(status)) => Ended::Exited(status, words),
            Some(Err(error)) => Ended::Failed(format!("its end cannot be waited for: {error}")),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "kinds of errors are an open set")]
    fn cannot_start(&self, error: &io::Error) -> String {
        let program = self.config.command.first().map_or("", String::as_str);
        let cure = match error.kind() {
            io::ErrorKind::NotFound => "install it, or write its whole path in `command`",
            io::ErrorKind::PermissionDenied => "make it executable for the agent's user",
            _ => "it is tried again",
        };
        format!("`{program}` cannot be started: {error}; {cure}")
    }
}
