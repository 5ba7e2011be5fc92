//! `logmesh-gateway`: the gateway alone. Links no index.

use std::process::ExitCode;

use clap::Parser;
use logmesh_gateway::command::GatewayService;
use logmesh_runtime::service;

/// Takes batches from agents over mutual TLS and writes them to Kafka.
#[derive(Debug, Parser)]
#[command(
    name = "logmesh-gateway",
    version = option_env!("LOGMESH_VERSION").unwrap_or(env!("CARGO_PKG_VERSION")),
    max_term_width = 110,
    after_help = "Examples:\n  logmesh-gateway --config gateway.toml\n  logmesh-gateway check --config gateway.toml"
)]
struct CommandLine {
    #[command(flatten)]
    arguments: service::Arguments,
}

fn main() -> ExitCode {
    service::run::<GatewayService>("logmesh-gateway", &CommandLine::parse().arguments)
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
