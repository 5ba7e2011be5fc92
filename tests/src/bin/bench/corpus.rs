//! The log that is measured with: the combined access lines of the sample log, again and again.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::{Context, Result};
use logmesh_tests::samples;
use tempfile::TempDir;

/// The variable that sets the size of the log, in MiB.
const SIZE: &str = "LOGMESH_BENCH_MIB";

/// Its default.
const SIZE_MIB: u64 = 512;

/// A log on disk, in the page cache since it was just written.
#[derive(Debug)]
pub(crate) struct Corpus {
    directory: TempDir,
    sample: Vec<u8>,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// Number of lines.
    pub(crate) lines: u64,
}

impl Corpus {
    /// Writes the log.
    pub(crate) fn write() -> Result<Corpus> {
        let mib = match std::env::var(SIZE) {
            Ok(text) => text.parse().with_context(|| format!("{SIZE} is a number of MiB, not {text:?}"))?,
            Err(_) => SIZE_MIB,
        };
        let sample = std::fs::read(samples::directory().join("apache_access.log")).context("the sample log")?;
        let directory = tempfile::Builder::new().prefix("logmesh-bench-").tempdir()?;
        let mut file = BufWriter::new(File::create(directory.path().join("access.log"))?);
        let times = (mib << 20).div_ceil(sample.len() as u64);
        for _ in 0..times {
            file.write_all(&sample)?;
        }
        file.into_inner()?.sync_all()?;
        let lines = samples::lines(&sample).count() as u64;
        Ok(Corpus { directory, bytes: times * sample.len() as u64, lines: times * lines, sample })
    }

    /// The log.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("access.log")
    }

    /// A directory for what else a measurement keeps on disk, removed with the log.
    pub(crate) fn scratch(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// One round of the lines, in memory.
    pub(crate) fn sample(&self) -> &[u8] {
        &self.sample
    }
}
