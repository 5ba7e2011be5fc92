//! The demo: a few living sample logs, written as real programs write theirs.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use logmesh_runtime::shutdown::Shutdown;
use tokio::time::MissedTickBehavior;

use crate::generate::{Format, Generator};

/// One line of each log at a time, and this often.
const INTERVAL: Duration = Duration::from_millis(200);

/// A log that has grown to this size is renamed away and begun anew; one older generation is kept.
const ROTATE_BYTES: u64 = 8 << 20;

const LOGS: [(&str, Format); 5] = [
    ("access.log", Format::Combined),
    ("orders.json.log", Format::Json),
    ("system.log", Format::Syslog),
    ("app.log", Format::Plain),
    ("worker.log", Format::Logfmt),
];

/// The sample logs.
pub(super) struct Demo {
    logs: Vec<Log>,
}

struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    generator: Generator,
}

impl Demo {
    /// Begins (or goes on with) the sample logs in `directory`.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let seed = std::process::id().into();
        let open = |(name, format): (&str, Format)| Log::open(directory.join(name), Generator::new(format, seed));
        Ok(Self { logs: LOGS.into_iter().map(open).collect::<io::Result<_>>()? })
    }

    /// What to tail.
    pub(super) fn pattern(directory: &Path) -> String {
        directory.join("*.log*").display().to_string()
    }

    /// Writes until the process stops. A full disk skips lines, as it does for any program that logs.
    pub(super) async fn run(mut self, shutdown: Shutdown) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                _ = tick.tick() => {}
            }
            for log in &mut self.logs {
                if let Err(error) = log.write() {
                    tracing::debug!(path = %log.path.display(), %error, "the demo could not write a line");
                }
            }
        }
    }
}

impl Log {
    fn open(path: PathBuf, generator: Generator) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size, generator })
    }

    fn write(&mut self) -> io::Result<()> {
        if self.size > ROTATE_BYTES {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            self.size = 0;
        }
        let line = self.generator.line(Timestamp::now()) + "\n";
        self.size += line.len() as u64;
        self.file.write_all(line.as_bytes())
    }
}
