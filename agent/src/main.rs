//! `logmesh-agent`: the agent alone, for edge hosts. Links neither Kafka nor an index.

use std::process::ExitCode;

use clap::Parser;
use logmesh_agent::command::Arguments;

/// Tails files and ships them to gateways, none lost and none twice.
#[derive(Debug, Parser)]
#[command(
    name = "logmesh-agent",
    version = option_env!("LOGMESH_VERSION").unwrap_or(env!("CARGO_PKG_VERSION")),
    max_term_width = 110,
    after_help = "Examples:\n  logmesh-agent --config agent.toml\n  logmesh-agent check --config agent.toml\n  logmesh-agent state --config agent.toml"
)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
}

fn main() -> ExitCode {
    CommandLine::parse().arguments.run("logmesh-agent")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::CommandLine;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }
}
