//! `logmesh check`: every fault of a configuration at once.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use logmesh_runtime::{config::Faults, shutdown::Exit, telemetry::TelemetryConfig};

use crate::{settings, up};

/// Says what is wrong with a configuration: every fault, with file, line and cure.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  logmesh check --config logmesh.toml
  logmesh check --config agent.toml --role agent")]
pub(crate) struct Check {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Also check what this process needs, and what it does not allow.
    #[arg(long, value_enum)]
    role: Option<Role>,
}

/// Processes that read a configuration.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// `logmesh up`.
    Up,
    /// `logmesh agent`.
    Agent,
}

impl Check {
    /// Reads and reports.
    pub(crate) fn run(&self) -> Exit {
        match self.read() {
            Ok(()) => {
                println!("{}: good", self.config.display());
                Exit::Clean
            }
            Err(faults) => {
                eprintln!("{faults}");
                Exit::Usage
            }
        }
    }

    fn read(&self) -> Result<(), Faults> {
        let root = settings::root(Some(&self.config))?;
        match self.role {
            Some(Role::Agent) => {
                let root = root.leave(&settings::NOT_THE_AGENTS);
                logmesh_agent::Config::read_standalone(&root);
                TelemetryConfig::read(&root);
                return root.finish().map(|_| ());
            }
            Some(Role::Up) => up::refuse_own_keys(&root),
            None => {}
        }
        settings::read(root).map(|_| ())
    }
}
