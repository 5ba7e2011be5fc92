//! The frame of a `main`: runtime, signals, exit status.
//!
//! Owns the tokio runtime and the way out of the process. Invariants: the process ends within [`LEAVE`] of its service's
//! return or of the second signal, whatever tasks are still about; every error ends as plain words on standard error
//! and a status (INTERFACE 1).

use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Builder;

use crate::shutdown::{Exit, Shutdown, signals};

/// How long tasks that nobody joined may hold the process up.
pub const LEAVE: Duration = Duration::from_secs(1);

/// How a process runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program's name, before every message.
    pub name: &'static str,
    /// Threads that run tasks; none is one per core.
    pub worker_threads: Option<usize>,
    /// Threads for calls that block (file system, name resolution), at most. Each costs a stack and an allocator arena.
    pub blocking_threads_max: usize,
}

impl Options {
    /// One worker per core and at most sixteen blocking threads.
    pub fn new(name: &'static str) -> Options {
        Options { name, worker_threads: None, blocking_threads_max: 16 }
    }
}

/// Runs `main` to its end on a runtime of its own, with signals caught, and says how it ended. After a second signal it is
/// dropped where it stands.
pub fn run<F, E>(options: &Options, main: impl FnOnce(Shutdown) -> F) -> ExitCode
where
    F: Future<Output = Result<Exit, E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let mut builder = Builder::new_multi_thread();
    builder.enable_all().thread_name(options.name).max_blocking_threads(options.blocking_threads_max);
    if let Some(threads) = options.worker_threads {
        builder.worker_threads(threads.max(1));
    }
    let runtime = match builder.build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(options.name, &error).into(),
    };
    let shutdown = Shutdown::new();
    let exit = runtime.block_on(async {
        let catching = tokio::spawn(signals(shutdown.clone()));
        let ended = tokio::select! {
            ended = main(shutdown.clone()) => ended,
            // What was read and not acknowledged is sent again after the next start.
            () = shutdown.aborted() => Ok(Exit::Unacknowledged),
        };
        catching.abort();
        let _ = catching.await;
        ended.unwrap_or_else(|error| fail(options.name, error.into().as_ref()))
    });
    runtime.shutdown_timeout(LEAVE);
    exit.into()
}

/// An error and its causes in one line: `cannot listen on 127.0.0.1:4400: address in use`. A cause whose words its effect
/// already says is not repeated.
pub fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}

/// Says what is wrong with the command line or the configuration, line by line, and ends with the status for that.
pub fn refuse(name: &str, faults: &dyn fmt::Display) -> ExitCode {
    for line in faults.to_string().lines() {
        say(name, line);
    }
    Exit::Usage.into()
}

fn fail(name: &str, error: &dyn Error) -> Exit {
    say(name, &chain(error));
    Exit::Failed
}

fn say(name: &str, words: &str) {
    // Nobody may be reading; the status says the rest, and `eprintln!` would panic.
    let _ = writeln!(io::stderr(), "{name}: {words}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start the gateway")]
    struct Start(#[source] Listen);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot listen on 127.0.0.1:4417: {0}")]
    struct Listen(#[source] io::Error);

    #[test]
    fn an_error_is_told_with_its_causes_and_none_twice() {
        let error = Start(Listen(io::Error::other("address in use")));
        assert_eq!(chain(&error), "cannot start the gateway: cannot listen on 127.0.0.1:4417: address in use");
    }

    #[test]
    fn the_status_is_what_main_returned() {
        let options = Options { worker_threads: Some(1), ..Options::new("test") };
        let status = run(&options, async |_| Ok::<_, io::Error>(Exit::Unacknowledged));
        assert_eq!(format!("{status:?}"), format!("{:?}", ExitCode::from(3)));
        let status = run(&options, async |_| Err::<Exit, _>(io::Error::other("no")));
        assert_eq!(format!("{status:?}"), format!("{:?}", ExitCode::from(1)));
    }

    #[test]
    fn an_abort_ends_a_main_that_never_would_and_tasks_nobody_joins() {
        let options = Options { worker_threads: Some(1), ..Options::new("test") };
        let status = run(&options, async |shutdown: Shutdown| {
            tokio::spawn(std::future::pending::<()>());
            shutdown.abort();
            std::future::pending::<Result<Exit, io::Error>>().await
        });
        assert_eq!(format!("{status:?}"), format!("{:?}", ExitCode::from(3)));
    }
}
