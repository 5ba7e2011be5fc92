//! `logmesh config`: defaults and what is in force.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use logmesh_runtime::shutdown::Exit;

use crate::settings;

/// Shows the default configuration, or the one in force.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Prints every key with its default and what it does.
    Default,
    Show(Show),
}

/// Prints the configuration in force: file, environment and defaults, secrets masked.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  logmesh config show --config logmesh.toml")]
pub(crate) struct Show {
    /// The configuration; without it, defaults and environment alone.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Config {
    /// Prints.
    pub(crate) fn run(self) -> Exit {
        match self {
            Self::Default => print!("{}", settings::default_toml()),
            Self::Show(show) => match settings::root(show.config.as_deref()).and_then(settings::read) {
                Ok((_, resolved)) => print!("{}", resolved.to_toml()),
                Err(faults) => {
                    eprintln!("{faults}");
                    return Exit::Usage;
                }
            },
        }
        Exit::Clean
    }
}
