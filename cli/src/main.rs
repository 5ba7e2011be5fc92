//! `logmesh`: the one command that people type.
//!
//! Owns the command line and the composition of services into processes. What a service does is its own crate's.

mod certs;
mod check;
mod client;
mod config;
mod dead_letters;
mod generate;
mod manual;
mod search;
mod services;
mod settings;
mod status;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use logmesh_runtime::{process, shutdown::Exit};

/// Version and, where the build was told, the git revision.
pub(crate) const VERSION: &str = match option_env!("LOGMESH_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// Moves log records from files to a search index, none lost and none twice.
#[derive(Debug, Parser)]
#[command(name = "logmesh", version = VERSION, max_term_width = 110, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    Agent(services::Agent),
    Gateway(services::Gateway),
    Processor(services::Processor),
    Check(check::Check),
    #[command(subcommand)]
    Config(config::Config),
    #[command(subcommand)]
    Certs(certs::Certs),
    Search(search::Search),
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    Status(status::Status),
    Generate(generate::Generate),
    Completions(manual::Completions),
    Man(manual::Man),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Up(up) => up.run(),
        Command::Agent(agent) => agent.run(),
        Command::Gateway(gateway) => gateway.run(),
        Command::Processor(processor) => processor.run(),
        Command::Check(check) => check.run().into(),
        Command::Config(config) => config.run().into(),
        Command::Certs(certs) => said(certs.run()).into(),
        Command::Search(search) => said(client::run(search.run())).into(),
        Command::DeadLetters(letters) => said(client::run(letters.run())).into(),
        Command::Status(status) => said(client::run(status.run())).into(),
        Command::Generate(generate) => said(generate.run()).into(),
        Command::Completions(completions) => said(completions.run::<Arguments>()).into(),
        Command::Man(man) => said(man.run::<Arguments>()).into(),
    }
}

/// The exit status of a command that ends by itself; an error is said on stderr with all its causes.
fn said(result: anyhow::Result<()>) -> Exit {
    match result {
        Ok(()) => Exit::Clean,
        Err(error) if is_closed_pipe(&error) => Exit::Clean,
        Err(error) => {
            eprintln!("logmesh: {}", process::chain(error.as_ref()));
            if error.is::<client::UsageError>() { Exit::Usage } else { Exit::Failed }
        }
    }
}

/// Whether the reader of our output went away, as `head` does: no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let is_pipe = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(is_pipe))
}
