//! What may be set about a local bus.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of a [`LocalBus`](super::LocalBus).
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// Where it lives; made when missing (mode 0700). Belongs to the bus alone.
    pub directory: PathBuf,
    /// Partitions of a topic that is new. A topic that exists keeps its own number.
    pub partitions: u32,
    /// Largest record, in bytes, keys and headers included; more is [`AppendError::TooLarge`](crate::AppendError::TooLarge).
    pub record_bytes_max: usize,
    /// Size of a segment in bytes; `None` = 128 MiB, or 1/16 of a small volume or backlog.
    pub segment_bytes: Option<u64>,
    /// Bytes of records that may wait for the disk.
    pub queue_bytes: usize,
    /// Appends stop while the file system has less free, in bytes; what is left is for index commits, checkpoints and the cut
    /// log. `None` = 64 MiB, or 5 % of a small volume.
    pub reserve_bytes: Option<u64>,
    /// Appends stop while the bus holds this many bytes that some group still needs (for the topics set apart: as many
    /// again).
    pub backlog_bytes_max: u64,
    /// How long commits are gathered before they are written.
    pub commit_linger: Duration,
    /// How often a full bus looks whether there is room again.
    pub probe_interval: Duration,
    /// Topics to make at open.
    pub topics: Vec<String>,
    /// Groups to register at open, each with its topics or patterns, so that nothing is removed before their first start.
    pub groups: Vec<(String, Vec<String>)>,
    /// Topics or patterns that are kept in a journal of their own, so that one record there that nobody reads (a dead
    /// letter) does not hold back the removal of all others. To be decided once: a topic that is set apart later begins
    /// anew there, and what the group has not read of it before is not found any more.
    pub set_apart: Vec<String>,
}

impl LocalOptions {
    /// The defaults for a bus in `directory`: 8 partitions, records up to 1 MiB, a queue of 16 MiB.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            partitions: 8,
            record_bytes_max: 1 << 20,
            segment_bytes: None,
            queue_bytes: 16 << 20,
            reserve_bytes: None,
            backlog_bytes_max: u64::MAX,
            commit_linger: Duration::from_millis(20),
            probe_interval: Duration::from_millis(500),
            topics: Vec::new(),
            groups: Vec::new(),
            set_apart: Vec::new(),
        }
    }
}
