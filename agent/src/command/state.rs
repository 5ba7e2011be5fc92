//! `logmesh agent state`: what an agent remembers, read without disturbing it.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use logmesh_runtime::config::Root;
use logmesh_runtime::shutdown::Exit;
use logmesh_runtime::terminal::printable;
use logmesh_runtime::{process, service};
use serde_json::{Value, json};

use super::AgentService;
use crate::config::Config;
use crate::state::{Past, PastLog, Recovered, Remembered, Store, Trust};

/// Shows the files that an agent knows, and how far each is acknowledged. It may run meanwhile.
#[derive(Clone, Debug, Args)]
pub struct State {
    /// The agent's data directory. Default: the one that the configuration names.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The same as JSON.
    #[arg(long)]
    json: bool,
}

impl State {
    pub(super) fn run(&self, name: &'static str, config: Option<&Path>) -> ExitCode {
        let data_dir = match (&self.data_dir, config) {
            (Some(data_dir), _) => data_dir.clone(),
            (None, None) => Config::default().data_dir,
            (None, Some(path)) => {
                match Root::read(path).map(Root::process_env).and_then(service::read::<AgentService>) {
                    Ok((AgentService(config), _)) => config.data_dir,
                    Err(faults) => return process::refuse(name, &faults),
                }
            }
        };
        let memory = match Memory::look(&data_dir) {
            Ok(memory) => memory,
            Err(error) => {
                eprintln!("{name}: {}", process::chain(error.as_ref()));
                return Exit::Failed.into();
            }
        };
        let shown = if self.json { print_json(&data_dir, memory) } else { print_table(memory) };
        match shown {
            // Whoever read it has seen enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                eprintln!("{name}: {error}");
                Exit::Failed.into()
            }
            Ok(()) | Err(_) => Exit::Clean.into(),
        }
    }
}

/// All that an agent has on disk.
struct Memory {
    recovered: Recovered,
    past: Vec<Past>,
}

impl Memory {
    fn look(data_dir: &Path) -> anyhow::Result<Self> {
        let mut recovered = Store::look(data_dir)?;
        let (past, note) =
            PastLog::look(data_dir).context("cannot read what is remembered of generations that are over")?;
        recovered.notes.extend(note);
        Ok(Self { recovered, past })
    }
}

/// One generation as it is shown.
struct Line {
    path: String,
    acked: u64,
    /// Behind the last batch that was cut.
    cut: u64,
    /// Of its file now, if that is still where it was.
    size: Option<u64>,
    known: Remembered,
}

impl Line {
    fn new(known: Remembered) -> Self {
        let generation = &known.generation;
        let metadata = std::fs::metadata(&generation.path).ok();
        Self {
            path: generation.path.to_string_lossy().into_owned(),
            acked: generation.acked,
            cut: known.cuts.last().map_or(generation.acked, |cut| cut.end),
            size: metadata.filter(|metadata| metadata.ino() == generation.inode).map(|metadata| metadata.len()),
            known,
        }
    }

    fn json(&self) -> Value {
        let generation = &self.known.generation;
        json!({
            "path": self.path,
            "stream_id": generation.stream_id.to_string(),
            "inode": generation.inode,
            "birth_unix_nano": generation.birth_nano,
            "epoch": generation.epoch,
            "acknowledged": self.acked,
            "cut": self.cut,
            "batches_unacknowledged": self.known.cuts.len(),
            "size": self.size,
            "resend": generation.resend,
        })
    }
}

fn lines(recovered: Vec<Remembered>) -> Vec<Line> {
    let mut lines: Vec<_> = recovered.into_iter().map(Line::new).collect();
    lines.sort_by(|one, other| (&one.path, one.acked).cmp(&(&other.path, other.acked)));
    lines
}

fn trust(trust: Trust) -> &'static str {
    match trust {
        Trust::Whole => "whole",
        Trust::PowerCut => "power_cut",
        Trust::Lost => "lost",
    }
}

fn past_json(past: &Past) -> Value {
    json!({
        "path": past.generation.path.to_string_lossy(),
        "stream_id": past.generation.stream_id.to_string(),
        "acknowledged": past.generation.acked,
        "ended_unix": past.ended_unix,
        "archive_bytes": past.seal.map(|seal| seal.bytes),
    })
}

fn print_json(data_dir: &Path, memory: Memory) -> io::Result<()> {
    let Memory { recovered, past } = memory;
    let shown = json!({
        "data_dir": data_dir.to_string_lossy(),
        "trust": trust(recovered.trust),
        "notes": recovered.notes,
        "generations": lines(recovered.generations).iter().map(Line::json).collect::<Vec<_>>(),
        "past": past.iter().map(past_json).collect::<Vec<_>>(),
    });
    writeln!(io::stdout().lock(), "{shown}")
}

fn print_table(memory: Memory) -> io::Result<()> {
    let Memory { recovered, past } = memory;
    let mut out = io::stdout().lock();
    match recovered.trust {
        Trust::Whole => {}
        Trust::PowerCut => writeln!(out, "The machine stopped without warning: the last cuts may be missing.")?,
        Trust::Lost => writeln!(out, "No state, or none that can be read: an agent would read all files anew.")?,
    }
    for note in &recovered.notes {
        writeln!(out, "{}", printable(note))?;
    }
    writeln!(out, "{:>14} {:>14} {:>14}  {:<32}  FILE", "ACKNOWLEDGED", "CUT", "SIZE", "STREAM")?;
    for line in lines(recovered.generations) {
        let size = line.size.map_or_else(|| "moved".to_owned(), |size| size.to_string());
        let resend = if line.known.generation.resend { "  (resend)" } else { "" };
        let stream = line.known.generation.stream_id;
        writeln!(out, "{:>14} {:>14} {size:>14}  {stream}  {}{resend}", line.acked, line.cut, printable(&line.path))?;
    }
    if !past.is_empty() {
        writeln!(out, "{} generations are over, and known should they turn up compressed.", past.len())?;
    }
    Ok(())
}
