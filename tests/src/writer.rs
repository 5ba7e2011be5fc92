//! Writers of numbered lines, which rotate, truncate and leave lines unfinished, and know all that they wrote.
//!
//! Every line is unlike every other: its writer's name and its number are in it. Some have a time and a level, some
//! have neither, so that their day can only come from when they were read.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::ledger::Ledger;

/// Time between two writes of a paced writer.
const WRITE_EVERY: Duration = Duration::from_millis(5);

/// Words that make lines differ in length and in content.
const FILLER: &str = "the quick brown fox jumps over the lazy dog while forty two agents watch the pipeline flow ";

/// Which lines have a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// Every one.
    Always,
    /// None.
    Never,
    /// Every other one.
    Mixed,
}

/// How fast a paced writer goes, and when it rotates.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Lines in all.
    pub lines: u64,
    /// Lines per second.
    pub per_second: u64,
    /// Lines between two rotations by rename.
    pub rotate_every: u64,
}

/// A writer of one log and its rotations.
#[derive(Debug)]
pub struct Writer {
    name: String,
    path: PathBuf,
    stamp: Stamp,
    base: Timestamp,
    file: File,
    offset: u64,
    written: u64,
    rotations: u32,
    unfinished: Vec<u8>,
    ledger: Ledger,
}

impl Writer {
    /// Creates `<directory>/<name>.log`.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn create(directory: &Path, name: &str, stamp: Stamp) -> Result<Writer> {
        let path = directory.join(format!("{name}.log"));
        Ok(Writer {
            name: name.to_owned(),
            file: create(&path)?,
            path,
            stamp,
            base: Timestamp::now(),
            offset: 0,
            written: 0,
            rotations: 0,
            unfinished: Vec::new(),
            ledger: Ledger::default(),
        })
    }

    /// The live file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of lines written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// What was written.
    #[must_use]
    pub fn into_ledger(self) -> Ledger {
        self.ledger
    }

    /// What was written so far.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Appends whole lines.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn write(&mut self, count: u64) -> Result<()> {
        let mut block = std::mem::take(&mut self.unfinished);
        for _ in 0..count {
            self.next_line(&mut block);
        }
        self.file.write_all(&block).with_context(|| format!("cannot write to {}", self.path.display()))
    }

    /// Appends whole lines and a part of one more; the next write begins with its rest.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn write_and_begin_one(&mut self, count: u64) -> Result<()> {
        self.write(count)?;
        let mut line = Vec::new();
        self.next_line(&mut line);
        let rest = line.split_off(line.len() / 2);
        self.unfinished = rest;
        self.file.write_all(&line).with_context(|| format!("cannot write to {}", self.path.display()))
    }

    /// Renames the file to `<name>.log.<n>` and begins a new one, as logrotate does.
    ///
    /// # Errors
    ///
    /// When either fails.
    pub fn rotate(&mut self) -> Result<()> {
        self.write(0)?;
        self.rotations += 1;
        let away = self.path.with_extension(format!("log.{}", self.rotations));
        std::fs::rename(&self.path, &away).with_context(|| format!("cannot rename {}", self.path.display()))?;
        self.begin_anew()
    }

    /// Truncates the file and begins again at its beginning, as a careless `> file` does. What was not read is lost by
    /// this, so a scenario waits first.
    ///
    /// # Errors
    ///
    /// When it cannot be truncated.
    pub fn truncate(&mut self) -> Result<()> {
        self.write(0)?;
        self.file.set_len(0).with_context(|| format!("cannot truncate {}", self.path.display()))?;
        self.offset = 0;
        Ok(())
    }

    /// Writes lines at a pace with rotations in between and reports how many it has written. Every third write leaves a
    /// line unfinished until the next.
    ///
    /// # Errors
    ///
    /// When a write or a rotation fails.
    pub async fn run(mut self, pace: Pace, progress: watch::Sender<u64>) -> Result<Writer> {
        let mut ticks = tokio::time::interval(WRITE_EVERY);
        // Late ticks are made up for: the rate holds over time.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let per_tick = (pace.per_second * u64::try_from(WRITE_EVERY.as_millis())?).div_ceil(1000);
        let mut rotated_at = 0;
        let mut tick = 0_u64;
        while self.written < pace.lines {
            ticks.tick().await;
            tick += 1;
            let count = per_tick.min(pace.lines - self.written);
            if tick.is_multiple_of(3) && count > 1 {
                self.write_and_begin_one(count - 1)?;
            } else {
                self.write(count)?;
            }
            if self.written - rotated_at >= pace.rotate_every {
                rotated_at = self.written;
                self.rotate()?;
            }
            progress.send_replace(self.written);
        }
        self.write(0)?;
        Ok(self)
    }

    fn begin_anew(&mut self) -> Result<()> {
        self.file = create(&self.path)?;
        self.offset = 0;
        Ok(())
    }

    /// Adds the next line with its terminator to a block, and to the ledger.
    fn next_line(&mut self, block: &mut Vec<u8>) {
        let begin = block.len();
        let number = self.written;
        let timed = match self.stamp {
            Stamp::Always => true,
            Stamp::Never => false,
            Stamp::Mixed => number.is_multiple_of(2),
        };
        if timed {
            let time = self.base + Duration::from_millis(number);
            block.extend_from_slice(format!("{time:.3} INFO ").as_bytes());
        }
        let filler = &FILLER[..usize::try_from(number % FILLER.len() as u64).unwrap_or(0)];
        block.extend_from_slice(format!("{} line n{number:09} {filler}", self.name).trim_end().as_bytes());
        let line_length = block.len() - begin;
        self.ledger.wrote(&self.path, self.offset, &block[begin..]);
        block.push(b'\n');
        self.offset += line_length as u64 + 1;
        self.written += 1;
    }
}

/// Opened for appending: after a truncation, writing goes on at the new end.
fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_hold_what_the_ledger_says_across_rotation_and_unfinished_lines() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(directory.path(), "w", Stamp::Mixed).unwrap();
        writer.write(3).unwrap();
        writer.write_and_begin_one(2).unwrap();
        writer.rotate().unwrap();
        writer.write(2).unwrap();
        let mut bytes = std::fs::read(directory.path().join("w.log.1")).unwrap();
        assert_eq!(crate::samples::lines(&bytes).count(), 6);
        bytes.extend(std::fs::read(writer.path()).unwrap());
        let on_disk: Vec<Vec<u8>> = crate::samples::lines(&bytes).map(|(_, line)| line.to_vec()).collect();
        let ledger = writer.into_ledger();
        assert_eq!(ledger.len(), 8);
        let found: Vec<_> =
            on_disk.into_iter().map(|line| crate::api::Found { line, ..crate::api::Found::default() }).collect();
        ledger.balance_by_content(&found).require_exact().unwrap();
    }
}
