//! The services as processes of their own.

use std::process::ExitCode;

use clap::Args;
use logmesh_agent::command;
use logmesh_gateway::command::GatewayService;
use logmesh_processor::command::ProcessorService;
use logmesh_runtime::service;

/// Tails files and ships them to gateways.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  logmesh agent --config agent.toml\n  logmesh agent state --config agent.toml")]
pub(crate) struct Agent {
    #[command(flatten)]
    arguments: command::Arguments,
}

/// Takes batches from agents over mutual TLS and writes them to Kafka.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  logmesh gateway --config gateway.toml")]
pub(crate) struct Gateway {
    #[command(flatten)]
    arguments: service::Arguments,
}

/// Reads batches from Kafka, parses them, and indexes their records into Elasticsearch or OpenSearch.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  logmesh processor --config processor.toml")]
pub(crate) struct Processor {
    #[command(flatten)]
    arguments: service::Arguments,
}

impl Agent {
    /// Runs until the process is told to stop.
    pub(crate) fn run(self) -> ExitCode {
        self.arguments.run("logmesh agent")
    }
}

impl Gateway {
    /// Runs until the process is told to stop.
    pub(crate) fn run(self) -> ExitCode {
        service::run::<GatewayService>("logmesh gateway", &self.arguments)
    }
}

impl Processor {
    /// Runs until the process is told to stop.
    pub(crate) fn run(self) -> ExitCode {
        service::run::<ProcessorService>("logmesh processor", &self.arguments)
    }
}
