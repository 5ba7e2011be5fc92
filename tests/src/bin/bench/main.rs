//! The benchmarks: one table of figures, each beside its floor and a limit of this machine measured in the same run.
//!
//! `bench [STAGE…]` measures all stages or those named. Rates are of raw log bytes (1 MB = 10^6 bytes), processor time
//! is of the one process whose stage it is, user and system together.

mod agent;
mod asking;
mod bare;
mod batches;
mod bus;
mod clock;
mod cluster;
mod corpus;
mod documents;
mod gateway;
mod kafka;
mod limits;
mod lone;
mod paced;
mod table;
mod whole;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::cluster::Stages;
use crate::corpus::Corpus;
use crate::gateway::Pki;
use crate::limits::Limits;

/// Measures the stages of the pipeline.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Stages to measure: agent, gateway, bus, processor, index, pace, idle, whole; over real servers kafka, elasticsearch,
    /// cluster. All by default.
    stages: Vec<String>,
    /// Be the gateway of a measurement, with the certificates in this directory.
    #[arg(long, hide = true, value_name = "DIR")]
    null_gateway: Option<PathBuf>,
    /// As that gateway, say when so many bytes of sources have arrived.
    #[arg(long, hide = true, value_name = "BYTES")]
    until: Option<u64>,
    /// As that gateway, say of every batch where it ends in its source and when it arrived.
    #[arg(long, hide = true)]
    report: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.null_gateway {
        Some(pki) => gateway::serve(pki, arguments.until, arguments.report),
        None => measure(&arguments.stages),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(stages: &[String]) -> Result<()> {
    let wanted = |stage: &str| stages.is_empty() || stages.iter().any(|name| name == stage);
    let corpus = Corpus::write()?;
    println!("{} MiB of combined access lines, {} lines\n", corpus.bytes >> 20, corpus.lines);
    table::print_head();
    let limits = Limits::measure(&corpus)?;
    let pki = Pki::make(&corpus.scratch("pki")?)?;
    if wanted("agent") {
        agent::measure(&corpus, &pki, &limits)?;
    }
    if wanted("gateway") {
        gateway::measure(&corpus, &pki, limits.scan)?;
    }
    if wanted("bus") {
        bus::measure(&corpus, limits.write)?;
    }
    if wanted("processor") {
        documents::processor(&corpus)?;
    }
    if wanted("index") {
        documents::index(&corpus)?;
    }
    if wanted("pace") {
        lone::at_a_pace(&corpus, &pki)?;
    }
    if wanted("idle") {
        lone::at_rest(&corpus, &pki)?;
    }
    if wanted("whole") {
        whole::measure(&corpus)?;
    }
    if wanted("kafka") {
        kafka::measure(&corpus)?;
    }
    if wanted("elasticsearch") || wanted("cluster") {
        let stages = Stages::start()?;
        // What is measured second needs a server that has warmed up all the more.
        stages.processor(&corpus)?;
        if wanted("cluster") {
            stages.write_to_indexed()?;
        }
    }
    Ok(())
}
