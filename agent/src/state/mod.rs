//! What the agent remembers: which generations there are, how far each is acknowledged, and where batches were cut.
//!
//! Owns the files in `data_dir`, their format and their recovery. Does not know what the facts mean: the tailer does.
//!
//! # Files
//! - `lock`: held with flock while an agent runs here.
//! - `checkpoint`: every generation with its acknowledged offset; replaced as a whole: `checkpoint.new` is written and
//!   synced, `checkpoint` becomes `checkpoint.previous`, the new one becomes `checkpoint`, the directory is synced.
//! - `cuts-<number>.log`: the cut log. What happened since: generations met, cuts made. One write(2) per append, before
//!   the batch leaves; synced with each checkpoint, before the first batch of a UTC day, and after a generation with an
//!   epoch of its own. Where the checkpoint is large it is written less than once a second; in between, generations that
//!   got farther are appended here and synced.
//! - `past`: generations that are over and may turn up as archives; only where archives are read. See `past.rs`.
//! - `*.damaged`: a file that could not be read, set aside for a person to look at.
//!
//! # Formats (integers little endian)
//! - checkpoint: `LMCHECK1`, length u32 and CRC-32C u32 of what follows; then boot id 16 B, log number u64, clean u8,
//!   count u32, and as many generations.
//! - cut log: `LMCUTS_1`, boot id 16 B, CRC-32C u32 of both; then entries: length u32, CRC-32C u32, kind u8, payload. The
//!   CRC covers kind and payload. See `codec.rs` for generations and cuts.
//!
//! # Crash cases
//! - Killed between append and send: the cut is made again, the same batch is sent. Between send and checkpoint: the
//!   same, and everything downstream knows it already.
//! - Killed, or power cut, between two large checkpoints: the generations in the log are newer than those in the
//!   checkpoint, and of the two the farther one holds, in whatever order they are read.
//! - Between the two renames: `checkpoint` is missing and the previous one holds, with the logs it needs.
//! - Power cut: the end of the log may be missing or torn. A new boot id without a clean stop says that this may have
//!   happened ([`Trust::PowerCut`]); cuts that were sent may be unknown, so generations are marked `resend`.
//! - Checkpoint damaged: the previous one and all logs since give the same facts, only older. Both damaged, or no state
//!   at all: [`Trust::Lost`].
//! - Disk full: an append fails, and nothing new is cut until a checkpoint has begun a new log: a batch never leaves
//!   without its cut on disk. Acknowledged progress on disk is never touched by a failing write.

mod codec;
#[cfg(test)]
mod golden;
mod log;
mod past;
mod store;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf};

use thiserror::Error;

pub use past::{Past, PastLog, Seal};
pub use store::Store;

use crate::{
    identity::{Mark, StreamId},
    lines::Start,
};

/// A generation, as remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationRecord {
    /// Its stream.
    pub stream_id: StreamId,
    /// Inode of its file.
    pub inode: u64,
    /// Birth time of its file in nanoseconds, where there is one.
    pub birth_nano: Option<i64>,
    /// Tells it from other generations of the same file; 0 for the first.
    pub epoch: u64,
    /// Mark of its first bytes.
    pub head: Mark,
    /// Everything before this offset is acknowledged.
    pub acked: u64,
    /// How the record before `acked` ended.
    pub after: Start,
    /// Mark of the bytes before `acked`.
    pub anchor: Mark,
    /// Whether its records may have been sent before under other cuts.
    pub resend: bool,
    /// Last known path in scope: it says to which group the generation belongs.
    pub path: PathBuf,
}

/// A batch, as it was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutRecord {
    /// Offset of its first record.
    pub first: u64,
    /// Offset behind its last record.
    pub end: u64,
    /// When it was read, nanoseconds since 1970.
    pub observed_unix_nano: u64,
    /// Marks of the batch.
    pub flags: u32,
    /// Hash of all its bytes in the source.
    pub hash: u64,
    /// How its last record ended.
    pub after: Start,
    /// Mark of the bytes before `end`.
    pub anchor: Mark,
}

impl CutRecord {
    /// Mark of a cut whose records were all dropped at the source: it is done when it is made. It stands in the log for
    /// its bytes, so that what was cut behind it is cut the same way after a restart. Never sent.
    pub const DROPPED: u32 = 1 << 31;

    /// Whether nothing of it is to be sent.
    #[must_use]
    pub fn is_dropped(&self) -> bool {
        self.flags & Self::DROPPED != 0
    }
}

/// One fact in the cut log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A generation was met, or what is known of it changed.
    Generation(GenerationRecord),
    /// A batch was cut; it takes the place of any earlier cut that it overlaps.
    Cut(StreamId, CutRecord),
    /// A generation is over: all of it is acknowledged, or counted as lost.
    Forgotten(StreamId),
}

/// A generation with its unacknowledged cuts, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The generation.
    pub generation: GenerationRecord,
    /// Its cuts behind the acknowledged offset.
    pub cuts: Vec<CutRecord>,
}

/// How far what was recovered can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// All of it.
    Whole,
    /// The last cuts may be missing.
    PowerCut,
    /// There was no state, or none that could be read.
    Lost,
}

/// What [`Store::open`] found.
#[derive(Debug)]
pub struct Recovered {
    /// Generations and cuts.
    pub generations: Vec<Remembered>,
    /// How far to rely on them.
    pub trust: Trust,
    /// What was damaged, for the log.
    pub notes: Vec<String>,
}

/// Why the state could not be opened.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process holds the lock.
    #[error(
        "the data directory {} is in use by another agent: stop it, or give this one a `data_dir` of its own",
        .0.display()
    )]
    Locked(PathBuf),
    /// The operating system refused.
    #[error("cannot {what} {}: {source}; the agent keeps its offsets there and must own that directory", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}
