//! Inputs that are no files: standard input, syslog, the systemd journal, a command's output.
//!
//! Owns the reading of them and where their records end; knows neither the spool nor the wire. What they read goes into
//! the [`intake`], from which the tailer's thread takes it. The intake is the only queue between a source and the spool,
//! and it is bounded: when nothing is taken, nothing is read, and the source waits (or its kernel's buffer overflows,
//! where it cannot wait: that is counted).
//!
//! Invariants: every task is tracked and ends with the stop; an input that fails says so in its own condition
//! `agent.input.<name>` and is tried again, and its neighbours go on; no record is dropped for its size.

mod child;
mod command;
mod config;
pub mod intake;
mod journald;
mod lines;
mod look;
mod metrics;
mod outlet;
mod standing;
mod stdin;
mod syslog;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use logmesh_runtime::Context;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use config::read_inputs;
pub use config::{CommandConfig, InputConfig, JournaldConfig, Kind, Listen, Runs, SyslogConfig, SyslogTls};
pub(crate) use look::look;

use self::{
    command::CommandInput, intake::Intake, journald::JournaldInput, outlet::Outlet, standing::Part, syslog::SyslogInput,
};
use crate::lines::{Framing, FramingError};

/// What all inputs have in common.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Longest body in bytes; longer records are split.
    pub record_bytes_max: usize,
    /// How long a record waits for its next line where lines are joined, unless its input says otherwise.
    pub partial_flush: Duration,
}

/// Inputs that run.
#[derive(Debug)]
pub struct Running {
    tasks: JoinSet<()>,
    stdin_ended: CancellationToken,
}

/// Starts all inputs. `cursors` says where one goes on, by its name. They run until `stop`, or until the intake closes.
///
/// # Errors
/// When records cannot be cut as an input says; then none is started.
///
/// # Panics
/// Outside of a runtime.
pub fn start(
    configs: &[InputConfig],
    settings: Settings,
    intake: &Intake,
    cursors: &dyn Fn(&str) -> Option<Bytes>,
    context: &Context,
    stop: &CancellationToken,
) -> Result<Running, FramingError> {
    let framings = configs.iter().map(framing).collect::<Result<Vec<_>, _>>()?;
    let mut running = Running { tasks: JoinSet::new(), stdin_ended: CancellationToken::new() };
    let mut shown = Vec::new();
    for (index, (config, framing)) in configs.iter().zip(framings).enumerate() {
        let outlet = Outlet::new(intake.for_input(index), settings.record_bytes_max);
        shown.push((config.name.clone(), config.kind.name(), Arc::clone(&outlet.counts)));
        let count = if let Kind::Syslog(syslog) = &config.kind { syslog.listen.len() } else { 1 };
        let parts = standing::parts(&context.health, &config.name, count);
        let patience = framing.patience(settings.partial_flush);
        let stop = stop.child_token();
        running.start(config, framing, patience, cursors, outlet, parts, &stop);
    }
    metrics::observe(&context.meter, &shown);
    let part = move || {
        let input = |(name, kind, counts): &(String, _, Arc<outlet::Counts>)| {
            let mut shown = counts.shown();
            shown["kind"] = json!(kind);
            (name.clone(), shown)
        };
        shown.iter().map(input).collect::<serde_json::Map<_, _>>().into()
    };
    context.status.register("agent_inputs", Arc::new(part));
    Ok(running)
}

fn framing(config: &InputConfig) -> Result<Framing, FramingError> {
    match &config.kind {
        Kind::Stdin(framing) | Kind::Command(CommandConfig { framing, .. }) => Framing::new(framing),
        Kind::Syslog(_) | Kind::Journald(_) => Ok(Framing::default()),
    }
}

impl Running {
    #[allow(clippy::too_many_arguments, reason = "what one input is made of, in one place")]
    fn start(
        &mut self,
        input: &InputConfig,
        framing: Framing,
        patience: Duration,
        cursors: &dyn Fn(&str) -> Option<Bytes>,
        outlet: Outlet,
        mut parts: Vec<Part>,
        stop: &CancellationToken,
    ) {
        let stop = stop.clone();
        if let Kind::Syslog(config) = &input.kind {
            let config = Arc::new(config.clone());
            for (listen, part) in config.listen.iter().zip(parts) {
                let (config, outlet, stop) = (Arc::clone(&config), outlet.clone(), stop.clone());
                let listener = SyslogInput { listen: listen.clone(), config, outlet, part: part.clone(), stop };
                self.track(part, listener.run());
            }
            return;
        }
        let Some(part) = parts.pop() else { return };
        match &input.kind {
            Kind::Syslog(_) => {}
            Kind::Stdin(_) => {
                let ended = self.stdin_ended.clone().drop_guard();
                let reading = stdin::run(framing, patience, outlet, part.clone(), stop);
                self.track(part, async move {
                    let _ended = ended;
                    reading.await;
                });
            }
            Kind::Command(config) => {
                let config = config.clone();
                self.track(part.clone(), CommandInput { config, framing, patience, outlet, part, stop }.run());
            }
            Kind::Journald(config) => {
                let (names_service, cursor) = (input.service.is_empty(), cursors(&input.name));
                let config = config.clone();
                self.track(part.clone(), JournaldInput { config, names_service, cursor, outlet, part, stop }.run());
            }
        }
    }

    /// A task that panics leaves its neighbours alone, and says so in its condition.
    fn track(&mut self, part: Part, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            let mut alone = JoinSet::new();
            alone.spawn(work);
            if let Some(Err(error)) = alone.join_next().await {
                part.fail(format!("its task failed: {error}; restart the agent"));
            }
        });
    }

    /// Cancelled once standard input is read to its end and its last record is in the intake.
    #[must_use]
    pub fn stdin_ended(&self) -> CancellationToken {
        self.stdin_ended.clone()
    }

    /// Resolves once every input has ended, which they do after the stop. What they read is in the intake then.
    pub async fn ended(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "the task of an input failed");
            }
        }
    }
}
