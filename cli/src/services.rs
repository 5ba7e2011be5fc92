//! The services as processes of their own.

use std::process::ExitCode;

use clap::Args;
use logmesh_agent::command::AgentService;
use logmesh_runtime::service;

/// Tails files and ships them to gateways.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  logmesh agent --config agent.toml")]
pub(crate) struct Agent {
    #[command(flatten)]
    arguments: service::Arguments,
}

impl Agent {
    /// Runs until the process is told to stop.
    pub(crate) fn run(self) -> ExitCode {
        service::run::<AgentService>("logmesh agent", &self.arguments)
    }
}
