//! Shell completions and man pages, made from the command line's own definition.

use std::{io, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Prints completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  logmesh completions bash > /etc/bash_completion.d/logmesh")]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

/// Writes man pages, one for each command.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  logmesh man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Directory for the pages.
    directory: PathBuf,
}

impl Completions {
    /// Prints them.
    pub(crate) fn run<Arguments: CommandFactory>(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "logmesh", &mut script);
        io::Write::write_all(&mut io::stdout(), &script)?;
        Ok(())
    }
}

impl Man {
    /// Writes them.
    pub(crate) fn run<Arguments: CommandFactory>(self) -> anyhow::Result<()> {
        let directory = &self.directory;
        std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(Arguments::command(), directory))
            .with_context(|| format!("cannot write man pages into {}", directory.display()))
    }
}
