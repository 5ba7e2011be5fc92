//! The services as processes of their own.

use std::process::ExitCode;

use clap::Args;

/// Tails files and ships them to gateways.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  logmesh agent --config agent.toml")]
pub(crate) struct Agent {
    #[command(flatten)]
    arguments: logmesh_agent::command::Arguments,
}

impl Agent {
    /// Runs until the process is told to stop.
    pub(crate) fn run(self) -> ExitCode {
        logmesh_agent::command::run("logmesh agent", &self.arguments)
    }
}
