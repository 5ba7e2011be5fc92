//! Stopping: one request, shared by all parts, in two degrees.
//!
//! *Begun* means: stop taking work in, drain, flush, commit, close, within the grace period. *Aborted* means: drop
//! everything and leave now; what was not acknowledged is sent again after the next start. Both are one-way and an
//! abort implies a begin. How long the grace is belongs to the service, not here.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

/// The request to stop. Cheap to clone; all clones are one request.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    begun: CancellationToken,
    aborted: CancellationToken,
}

impl Shutdown {
    /// A request nobody has made yet.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// A part of this one: stops with its parent, and can be stopped alone without stopping the parent.
    pub fn child(&self) -> Shutdown {
        Shutdown { begun: self.begun.child_token(), aborted: self.aborted.child_token() }
    }

    /// Asks all parts to stop in order. Asking again changes nothing.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// Asks all parts to stop at once.
    pub fn abort(&self) {
        self.begun.cancel();
        self.aborted.cancel();
    }

    /// Whether [`begin`](Self::begin) was called.
    pub fn is_requested(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Whether [`abort`](Self::abort) was called.
    pub fn is_aborted(&self) -> bool {
        self.aborted.is_cancelled()
    }

    /// Resolves once stopping was asked for. Cancel safe.
    pub async fn requested(&self) {
        self.begun.cancelled().await;
    }

    /// Resolves once leaving at once was asked for. Cancel safe.
    pub async fn aborted(&self) {
        self.aborted.cancelled().await;
    }
}

/// Turns the process's signals into requests: the first SIGTERM or SIGINT begins, a second one aborts. Returns after the
/// second, or when the request was aborted otherwise; run it beside the service.
pub async fn signals(shutdown: Shutdown) {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "signals cannot be caught; a signal will end the process without draining");
            return shutdown.aborted().await;
        }
    };
    for count in 0.. {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = shutdown.aborted() => return,
        };
        if count == 0 && !shutdown.is_requested() {
            tracing::info!(signal = name, "stopping in order; a second signal stops at once");
            shutdown.begin();
        } else {
            tracing::warn!(signal = name, "stopping at once");
            return shutdown.abort();
        }
    }
}

/// How a process ended, as its exit status (INTERFACE 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Stopped in order with nothing owed. Unread files are no debt: they are the buffer.
    Clean = 0,
    /// Something failed that a person must look at.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Stopped in order with data read but not acknowledged: the next start sends it again.
    Unacknowledged = 3,
}

impl Exit {
    /// The graver of two, for a process made of several services: failed, then usage, then unacknowledged, then clean.
    #[must_use]
    pub fn worse(self, other: Exit) -> Exit {
        if other.gravity() > self.gravity() { other } else { self }
    }

    /// The number the operating system is told.
    pub fn status(self) -> u8 {
        self as u8
    }

    fn gravity(self) -> u8 {
        match self {
            Exit::Clean => 0,
            Exit::Unacknowledged => 1,
            Exit::Usage => 2,
            Exit::Failed => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.status())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn begin_reaches_every_clone_and_does_not_abort() {
        let shutdown = Shutdown::new();
        let clone = shutdown.clone();
        assert!(clone.requested().now_or_never().is_none());
        shutdown.begin();
        clone.requested().await;
        assert!(clone.is_requested() && !clone.is_aborted());
    }

    #[tokio::test]
    async fn abort_implies_begin() {
        let shutdown = Shutdown::new();
        shutdown.abort();
        shutdown.requested().await;
        shutdown.aborted().await;
    }

    #[test]
    fn a_child_stops_with_its_parent_and_alone_without_it() {
        let parent = Shutdown::new();
        let (one, two) = (parent.child(), parent.child());
        one.begin();
        assert!(one.is_requested() && !parent.is_requested() && !two.is_requested());
        parent.abort();
        assert!(two.is_aborted());
    }

    #[tokio::test]
    async fn the_first_signal_begins_and_the_second_aborts() {
        use tokio::signal::unix::{SignalKind, signal};
        // Caught here as well, so that the signals below cannot end the test process whatever the code under test does.
        let _caught = signal(SignalKind::terminate()).expect("signals can be caught");
        let shutdown = Shutdown::new();
        let catching = tokio::spawn(signals(shutdown.clone()));
        tokio::task::yield_now().await;
        let raise = || rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
        raise().expect("may signal itself");
        shutdown.requested().await;
        assert!(!shutdown.is_aborted());
        raise().expect("may signal itself");
        shutdown.aborted().await;
        catching.await.expect("ends by itself");
    }

    #[test]
    fn the_graver_exit_wins_in_either_order() {
        let grave = [Exit::Clean, Exit::Unacknowledged, Exit::Usage, Exit::Failed];
        for (low, a) in grave.iter().enumerate() {
            for (high, b) in grave.iter().enumerate() {
                assert_eq!(a.worse(*b), grave[low.max(high)]);
            }
        }
    }
}
