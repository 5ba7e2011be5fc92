//! The benchmarks: one table of figures, each beside its floor and a limit of this machine measured in the same run.
//!
//! `bench [STAGE…]` measures all stages or those named. Rates are of raw log bytes (1 MB = 10^6 bytes), processor time
//! is of the one process whose stage it is, user and system together.

mod clock;
mod corpus;
mod limits;
mod table;
mod whole;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::corpus::Corpus;
use crate::limits::Limits;

/// Measures the stages of the pipeline.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Stages to measure; all by default.
    stages: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let corpus = Corpus::write()?;
    println!("{} MiB of combined access lines, {} lines\n", corpus.bytes >> 20, corpus.lines);
    table::print_head();
    let limits = Limits::measure(&corpus)?;
    let _ = limits;
    let wanted = |stage: &str| arguments.stages.is_empty() || arguments.stages.iter().any(|name| name == stage);
    if wanted("whole") {
        whole::measure(&corpus)?;
    }
    Ok(())
}
