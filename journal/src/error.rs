//! What can go wrong with a journal.

use std::io;
use std::path::PathBuf;

use crate::Position;

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another journal in this one) has it.
    #[error(
        "the directory {} is in use by {holder}: stop that process, or choose another directory",
        directory.display()
    )]
    Locked {
        /// The journal's directory.
        directory: PathBuf,
        /// `process <pid>`, as the lock file tells.
        holder: String,
    },
    /// A file operation failed.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// A setting that cannot be.
    #[error("the journal's options are not possible: {0}")]
    Options(&'static str),
}

/// Why an entry was not made durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No room on the disk, or less than the reserve. Try again later; the journal heals by itself.
    #[error("{reason}")]
    Full {
        /// What is full, where, and by how much.
        reason: String,
    },
    /// Larger than the journal takes.
    #[error("the entry has {size} bytes, the journal takes {limit}")]
    TooLarge {
        /// Bytes of the entry.
        size: usize,
        /// Largest number of bytes taken.
        limit: usize,
    },
    /// An entry has at least one byte.
    #[error("the entry is empty")]
    Empty,
    /// The journal is closing.
    #[error("the journal is closing")]
    Closed,
    /// The journal is poisoned: nothing passes until it is opened again.
    #[error("{reason}")]
    Failed {
        /// What failed, where, and what to do.
        reason: String,
    },
}

/// Why an entry could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The segment is not there (any more).
    #[error("segment {segment} is not there; the first one kept is {first:?}")]
    Removed {
        /// The segment that was asked for.
        segment: u64,
        /// The lowest that exists.
        first: Option<u64>,
    },
    /// The bytes at this place are not what was written.
    #[error("{} is damaged at byte {}: {what}", path.display(), position.byte)]
    Damaged {
        /// The segment's file.
        path: PathBuf,
        /// The place.
        position: Position,
        /// How it shows.
        what: &'static str,
    },
    /// A file operation failed.
    #[error("reading {}", path.display())]
    Io {
        /// The segment's file.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
}
