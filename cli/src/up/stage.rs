//! The parts of a process at work, and the order in which they stop.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures_util::{FutureExt as _, future};
use logmesh_runtime::shutdown::{Exit, Shutdown};
use tokio::{task::JoinHandle, time::Instant};

/// What a part does.
pub(super) trait Part: Future<Output = anyhow::Result<Exit>> + Send + 'static {}

impl<F: Future<Output = anyhow::Result<Exit>> + Send + 'static> Part for F {}

/// One part, running as a task.
pub(super) struct Stage {
    name: &'static str,
    /// Whether it may come to an end of its own.
    may_end: bool,
    shutdown: Shutdown,
    task: JoinHandle<anyhow::Result<Exit>>,
    ended: Option<anyhow::Result<Exit>>,
}

/// The parts, in the order in which they stop: whoever feeds another stops before it.
#[derive(Default)]
pub(super) struct Stages(Vec<Stage>);

impl Stages {
    /// Starts a part that stops when `shutdown` is requested.
    pub(super) fn start(&mut self, name: &'static str, shutdown: Shutdown, part: impl Part) {
        self.0.push(Stage { name, may_end: false, shutdown, task: tokio::spawn(part), ended: None });
    }

    /// Starts a part that may be done before, and the others go on: an agent is when its standard input has ended and is
    /// delivered.
    pub(super) fn start_finite(&mut self, name: &'static str, shutdown: Shutdown, part: impl Part) {
        self.0.push(Stage { name, may_end: true, shutdown, task: tokio::spawn(part), ended: None });
    }

    /// Waits until a part ends by itself that should not, or not so. Cancel safe.
    pub(super) async fn first_to_end(&mut self) -> &'static str {
        let ends = self.0.iter_mut().map(|stage| {
            async {
                stage.join().await;
                if stage.may_end && matches!(stage.ended, Some(Ok(Exit::Clean))) {
                    future::pending::<()>().await;
                }
                stage.name
            }
            .boxed()
        });
        future::select_all(ends).await.0
    }

    /// Stops all parts in order, within `grace`; a part that does not end in time is dropped where it is, and
    /// counts as one that left something unacknowledged. The worst of their ends is the process's.
    pub(super) async fn stop(mut self, grace: Duration) -> anyhow::Result<Exit> {
        let deadline = Instant::now() + grace;
        let mut worst = Ok(Exit::Clean);
        let count = self.0.len();
        for (place, stage) in self.0.iter_mut().enumerate() {
            // Each part may take its share of what is left and whatever those before it did not need.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = if place == 0 { left / 2 } else { left / u32::try_from(count - place).unwrap_or(1) };
            stage.shutdown.begin();
            if tokio::time::timeout(share, stage.join()).await.is_err() {
                tracing::warn!(part = stage.name, after = ?share, "a part did not stop in time and is dropped");
                stage.task.abort();
                // What it had read and not passed on is read again at the next start.
                worst = worst.map(|worst| worst.worse(Exit::Unacknowledged));
                continue;
            }
            worst = match (worst, stage.ended.take()) {
                (Err(first), _) => Err(first),
                (Ok(_), Some(Err(error))) => Err(error),
                (Ok(worst), Some(Ok(exit))) => Ok(worst.worse(exit)),
                (Ok(worst), None) => Ok(worst),
            };
        }
        worst
    }
}

impl Stage {
    /// Waits for the end. Cancel safe.
    async fn join(&mut self) {
        if self.ended.is_none() {
            let ended = (&mut self.task).await.map_err(|error| anyhow!("it panicked: {error}")).flatten();
            self.ended = Some(ended.with_context(|| format!("the {} failed", self.name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn obedient(exit: Exit, shutdown: Shutdown) -> anyhow::Result<Exit> {
        shutdown.requested().await;
        Ok(exit)
    }

    #[tokio::test(start_paused = true)]
    async fn the_worst_end_of_a_part_is_the_processes() {
        let mut stages = Stages::default();
        for exit in [Exit::Clean, Exit::Unacknowledged, Exit::Clean] {
            let shutdown = Shutdown::new();
            stages.start("part", shutdown.clone(), obedient(exit, shutdown));
        }
        assert_eq!(stages.stop(Duration::from_secs(10)).await.expect("no failure"), Exit::Unacknowledged);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_never_ends_does_not_outlast_the_grace() {
        let mut stages = Stages::default();
        stages.start("deaf part", Shutdown::new(), future::pending());
        let shutdown = Shutdown::new();
        stages.start("part", shutdown.clone(), obedient(Exit::Clean, shutdown));
        let before = Instant::now();
        let exit = stages.stop(Duration::from_secs(10)).await.expect("no failure");
        assert!(before.elapsed() <= Duration::from_secs(10));
        assert_eq!(exit, Exit::Unacknowledged, "what it left behind is said");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_may_end_ends_nothing_in_order_and_something_when_it_fails() {
        for (exit, ends) in [(Exit::Clean, false), (Exit::Failed, true)] {
            let mut stages = Stages::default();
            stages.start_finite("agent", Shutdown::new(), async move { Ok(exit) });
            let ended = tokio::time::timeout(Duration::from_secs(10), stages.first_to_end()).await;
            assert_eq!(ended.is_ok(), ends, "{exit:?}");
            assert_eq!(stages.stop(Duration::from_secs(10)).await.expect("no failure"), exit);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_ends_by_itself_is_named_and_its_failure_is_kept() {
        let mut stages = Stages::default();
        let shutdown = Shutdown::new();
        stages.start("good part", shutdown.clone(), obedient(Exit::Clean, shutdown));
        stages.start("bad part", Shutdown::new(), async { Err(anyhow!("disk on fire")) });
        assert_eq!(stages.first_to_end().await, "bad part");
        let error = stages.stop(Duration::from_secs(10)).await.expect_err("failed");
        assert_eq!(format!("{error:#}"), "the bad part failed: disk on fire");
    }
}
