//! `logmesh check`: every fault of a configuration at once.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use logmesh_agent::command::AgentService;
use logmesh_gateway::command::GatewayService;
use logmesh_processor::command::ProcessorService;
use logmesh_runtime::{config::Faults, service, shutdown::Exit};

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
    /// `logmesh gateway`.
    Gateway,
    /// `logmesh processor`.
    Processor,
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
            Some(Role::Agent) => service::read::<AgentService>(root).map(drop),
            Some(Role::Gateway) => service::read::<GatewayService>(root).map(drop),
            Some(Role::Processor) => service::read::<ProcessorService>(root).map(drop),
            Some(Role::Up) => {
                up::refuse_own_keys(&root);
                settings::read(root).map(drop)
            }
            None => settings::read(root).map(drop),
        }
    }
}
