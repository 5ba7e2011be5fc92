//! `logmesh-processor`: the processor alone. Links no embedded index.

use std::process::ExitCode;

use clap::Parser;
use logmesh_processor::command::ProcessorService;
use logmesh_runtime::service;

/// Reads batches from Kafka, parses them, and indexes their records into Elasticsearch or OpenSearch.
#[derive(Debug, Parser)]
#[command(
    name = "logmesh-processor",
    version = option_env!("LOGMESH_VERSION").unwrap_or(env!("CARGO_PKG_VERSION")),
    max_term_width = 110,
    after_help = "Examples:\n  logmesh-processor --config processor.toml\n  logmesh-processor check --config processor.toml"
)]
struct CommandLine {
    #[command(flatten)]
    arguments: service::Arguments,
}

fn main() -> ExitCode {
    service::run::<ProcessorService>("logmesh-processor", &CommandLine::parse().arguments)
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
