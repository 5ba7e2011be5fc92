//! The services as processes of their own.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use logmesh_runtime::process;

/// Why a gateway or processor of its own cannot run yet.
const NO_SHARED_BUS: &str = "this version has no bus that processes can share: the local one lives inside `logmesh up`";

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
