//! `logmesh up`: the whole pipeline in one process.
//!
//! Owns the composition: which parts there are, what of the memory each gets, in which order they start and stop. The
//! parts talk to each other as they would across hosts, over mTLS gRPC and the bus, and know nothing of being together.

mod addresses;
mod data;
mod demo;
#[cfg(feature = "faults")]
mod faults;
mod mesh;
mod pipeline;
mod shares;
mod stage;
mod stores;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use logmesh_runtime::{
    config::{Faults, Root},
    process,
    shutdown::Exit,
};

pub(crate) use self::addresses::Addresses;
use self::demo::Demo;
use crate::settings::{self, Settings};

/// Keys that `up` sets itself, since its parts find each other.
const OWN_KEYS: [(&str, &[&str]); 3] = [
    ("agent", &["gateways", "tls", "data_dir", "admin", "admin_token", "memory"]),
    ("gateway", &["listen", "tls", "admin", "admin_token", "memory", "shutdown_grace"]),
    ("processor", &["admin", "admin_token", "memory", "shutdown_grace"]),
];

/// Runs the whole pipeline in one process: tails files, indexes them, and answers searches.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  logmesh up '/var/log/**/*.log'
  logmesh up app.log --data /var/lib/logmesh --http 127.0.0.1:4400
  logmesh up --demo
  logmesh up --config logmesh.toml

Quote patterns, so that files that come later are found too. A directory means all files below it.")]
pub(crate) struct Up {
    /// Files to tail: paths and patterns with * and **.
    #[arg(value_name = "PATTERN")]
    patterns: Vec<String>,
    /// Everything that must survive a restart [default: ./logmesh-data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Search, readiness, metrics and status [default: 127.0.0.1:4400]. Port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// Where agents and other clients connect [default: 127.0.0.1:4417]. Port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS")]
    ingest: Option<SocketAddr>,
    /// A configuration file; `logmesh config default` prints one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write living sample logs, and tail them.
    #[arg(long)]
    demo: bool,
}

impl Up {
    /// Runs until the process is told to stop.
    pub(crate) fn run(self) -> ExitCode {
        match self.settings() {
            Ok(settings) => {
                let options = process::Options { worker_threads: Some(workers()), ..process::Options::new("logmesh") };
                process::run(&options, |shutdown| pipeline::run(settings, self.demo, shutdown))
            }
            Err(faults) => {
                eprintln!("{faults}");
                Exit::Usage.into()
            }
        }
    }

    /// Reads the configuration and lays the command line over it.
    fn settings(&self) -> Result<Settings, Faults> {
        let mut root = settings::root(self.config.as_deref())?;
        let flags = [
            ("up.data", self.data.as_ref().map(|data| data.display().to_string()), "--data"),
            ("up.http", self.http.as_ref().map(SocketAddr::to_string), "--http"),
            ("up.ingest", self.ingest.as_ref().map(SocketAddr::to_string), "--ingest"),
        ];
        for (key, value, flag) in flags {
            if let Some(value) = value {
                root = root.set(key, value, flag);
            }
        }
        refuse_own_keys(&root);
        let (mut settings, _) = settings::read(root)?;
        let mut patterns: Vec<String> = self.patterns.iter().map(|pattern| with_everything_below(pattern)).collect();
        if self.demo {
            patterns.push(Demo::pattern(&demo_directory(&settings.up.data)));
        }
        settings.tail(&patterns)?;
        Ok(settings)
    }
}

/// A directory means all files below it.
fn with_everything_below(pattern: &str) -> String {
    if Path::new(pattern).is_dir() { format!("{}/**", pattern.trim_end_matches('/')) } else { pattern.to_owned() }
}

/// Where the demo's sample logs are.
fn demo_directory(data: &Path) -> PathBuf {
    data.join("demo")
}

/// Threads that run tasks: as many as cores, but two at least, so that a batch that is being parsed delays no ack.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2))
}

/// The parts find each other: what a file says of that would be ignored, so it is refused.
pub(crate) fn refuse_own_keys(root: &Root) {
    for (name, keys) in OWN_KEYS {
        let section = root.section(name);
        for key in keys.iter().filter(|key| section.is_set(key)) {
            section.fault(key, "`logmesh up` sets this itself", "take it out of this file");
        }
    }
}
