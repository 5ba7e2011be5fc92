//! An append-only, crash-safe log of entries on disk.
//!
//! Owns one directory: its lock, its segments, and the one thread that writes them. Knows nothing of what entries mean: the owner
//! ([`Owner`]) encodes them, keeps what it wants at the head of each segment, and hears what became durable. Removing segments is the
//! owner's decision too ([`Log::remove_below`]). Not here: indexes, topics, positions of readers.
//!
//! # Promises
//!
//! - An entry is reported durable only after `fdatasync` has returned for it, and only then is it visible to readers.
//! - Entries are written in the order in which they were queued; a group of them is one write and one `fdatasync`.
//! - An error of `fdatasync` poisons the journal: nothing is reported durable any more ([`State::Failed`]), since after such an error the
//!   kernel may have dropped the pages and a second call would answer "fine".
//! - A full disk, a full quota, or less free space than the reserve is backpressure ([`State::Full`]): nothing is lost,
//!   appends fail as [`AppendError::Full`] and pass again by themselves once there is room.
//! - Whatever a crash or a bit flip does, an entry that is read is one that was written, at that place (CRC-32C on every read).
//!
//! # Files
//!
//! ```text
//! lock                             held (flock) while open; text: the holder's process id
//! 00000000000000000001.segment     segments, numbered without holes from 1 on; the lowest are removed first
//! 00000000000000000002.temporary   a segment that is being made; swept at open
//! ```
//!
//! All integers are little-endian.
//!
//! ```text
//! segment   at  0   8  magic "LMJOURNL"
//!               8   4  format version, 1
//!              12   4  length of the preamble, P
//!              16   8  number of the segment, as in its name
//!              24   8  when it was begun, in nanoseconds since the epoch
//!              32   4  CRC-32C of bytes 0..32 and of the preamble
//!              36   P  preamble: the owner's bytes
//!            36+P      entries, end to end
//!
//! entry     at  0   4  length of the payload, L; at least 1
//!               4   4  byte of the segment at which the group begins that this entry was written and synced with
//!               8   4  CRC-32C of: segment number (8), byte at which this entry begins (8), bytes 0..8 of this header, payload
//!              12   L  payload
//! ```
//!
//! The last segment is preallocated: zeros stand behind its last entry. Every other one is *sealed*: it ends with its last entry. A
//! segment is sealed when it is full, when the journal is closed, and at the next open; entries are only ever added to a segment that was
//! begun since the journal was opened. So no byte of a segment is written twice, and what an unfinished write left
//! behind can never be mistaken for an entry of later: besides, the CRC covers segment and place.
//!
//! # Crash cases
//!
//! - *While a segment is made* (temporary name, header, preallocation, `fdatasync`, rename, directory `fsync`): the temporary file is swept,
//!   or the segment exists, whole and empty. A named segment always has a sound header; an empty one stays, for its preamble.
//! - *While a group is written*: any part of it may have reached the disk, in any order. The longest sound beginning stays (entries that
//!   nobody was told of: they are durable now), the rest is cut. Cutting is synced before anything is read or appended.
//! - *After the write, before `fdatasync` returned, and only the process died*: the group is whole in the page cache. Opening
//!   syncs the segment before it shows it.
//! - *While a segment is sealed* (cut to its end, `fdatasync`, and only then is the next one begun): it is the last one still, and is
//!   sealed again.
//! - *While segments are removed*: the lowest go first; what remains has no holes.
//!
//! # Damage
//!
//! Bytes of an entry that was durable and is not sound any more. In a sealed segment anything unsound is damage. In the last one, where a torn
//! tail looks alike, the group field tells: a sound entry whose group begins behind the unsound place was written after that place
//! had been synced. What cannot be told apart is a flip within the very last group before a crash: it is cut as torn.
//!
//! Damage never stops a journal: a reader reports it ([`Item::Damage`], file and bytes), finds the next sound entry, and goes on. It is
//! the owner's duty to count what is missing; opening logs it as an error.

mod begin;
mod error;
mod format;
mod journal;
mod lock;
mod log;
mod options;
mod owner;
mod plain;
mod position;
mod queue;
mod reader;
mod recover;
mod scan;
mod settings;
mod storage;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{AppendError, OpenError, ReadError};
pub use format::{ENTRY_BYTES_MAX, PREAMBLE_BYTES_MAX, SEGMENT_BYTES_MAX};
pub use journal::{Journal, Opened, Refused, State};
pub use log::{Log, Preamble, SegmentInfo};
pub use options::Options;
pub use owner::{Owner, Written};
pub use plain::{Plain, PlainEntry, Ticket};
pub use position::Position;
pub use reader::{Damage, Item, Reader};
pub use recover::Recovery;
pub use storage::volume_bytes;
