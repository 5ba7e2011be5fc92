//! `logmesh check`: every fault of a configuration at once.

use std::path::PathBuf;

use clap::Args;
use logmesh_runtime::shutdown::Exit;

use crate::settings;

/// Says what is wrong with a configuration: every fault, with file, line and cure.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  logmesh check --config logmesh.toml")]
pub(crate) struct Check {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Check {
    /// Reads and reports.
    pub(crate) fn run(&self) -> Exit {
        match settings::root(Some(&self.config)).and_then(settings::read) {
            Ok(_) => {
                println!("{}: good", self.config.display());
                Exit::Clean
            }
            Err(faults) => {
                eprintln!("{faults}");
                Exit::Usage
            }
        }
    }
}
