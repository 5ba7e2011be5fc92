//! What an owner may set.

use std::path::PathBuf;
use std::time::Duration;

use crate::OpenError;
use crate::format::{ENTRY_BYTES_MAX, SEGMENT_BYTES_MAX};

/// Settings of a journal.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it lives; made when missing (mode 0700). Nothing else may be in it.
    pub directory: PathBuf,
    /// Size to which a segment is preallocated, in bytes; on a nearly full disk the next one is made smaller.
    pub segment_bytes: u64,
    /// Entries after which a segment ends though it has room, so that whoever keeps an index of one has a bound.
    pub segment_entries_max: u32,
    /// Largest payload, in bytes; at most [`ENTRY_BYTES_MAX`].
    pub entry_bytes_max: usize,
    /// Bytes that may wait for the writer. One entry that is larger is taken alone.
    pub queue_bytes: usize,
    /// Bytes after which a group is written and synced though more is waiting.
    pub group_bytes: usize,
    /// Appends fail as `Full` while the file system has less than this free, in bytes.
    pub reserve_bytes: u64,
    /// Appends fail as `Full` while the segments hold this many bytes, until some are removed. The last segment cannot be
    /// removed, so this should be several times `segment_bytes`.
    pub stored_bytes_max: u64,
    /// How often a full journal looks whether there is room again.
    pub probe_interval: Duration,
}

impl Options {
    /// The defaults for a journal in `directory`: segments of 128 MiB or 262,144 entries, entries of 1 MiB, a queue of 32 MiB,
    /// groups of 8 MiB, no reserve, a look every 500 ms.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            segment_bytes: 128 << 20,
            segment_entries_max: 262_144,
            entry_bytes_max: 1 << 20,
            queue_bytes: 32 << 20,
            group_bytes: 8 << 20,
            reserve_bytes: 0,
            stored_bytes_max: u64::MAX,
            probe_interval: Duration::from_millis(500),
        }
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if self.entry_bytes_max == 0 || self.entry_bytes_max > ENTRY_BYTES_MAX {
            return Err(OpenError::Options("entry_bytes_max must be 1 byte to 16 MiB"));
        }
        if self.segment_bytes > SEGMENT_BYTES_MAX {
            return Err(OpenError::Options("segment_bytes must be at most 2 GiB"));
        }
        if self.segment_entries_max == 0 || self.queue_bytes == 0 || self.probe_interval.is_zero() {
            return Err(OpenError::Options("segment_entries_max, queue_bytes and probe_interval must not be 0"));
        }
        if u32::try_from(self.queue_bytes).is_err() {
            return Err(OpenError::Options("queue_bytes must be less than 4 GiB"));
        }
        Ok(())
    }
}
