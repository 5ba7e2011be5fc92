//! Documents: what one record becomes, ready for an index.
//!
//! A document is complete when it is built: its id, its index and its JSON follow from the record and its batch alone,
//! never from the clock or from the machine, so that a replay writes the same document again.

//!
//! [`Builder`] makes the documents of one batch at a time. Bodies are written byte by byte into one block for the whole
//! batch, with no tree in between: what all records of a batch share is rendered once and copied. Invariants:
//!
//! * A body is one JSON object on one line, valid UTF-8, its names those of [`FIELDS`], no name twice in an object.
//! * The record's exact bytes come back out of it (unless `keep_original` is `never`): from `event.original_base64` if
//!   there, else from `event.original` if there, else from `message`.
//! * However hostile the record, a body holds it at most three times (message, original, fields), and `fields` is
//!   bounded in number, depth and length of keys.

mod builder;
mod constants;
mod days;
mod detail;
mod fields;
mod names;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use logmesh_proto::{RecordId, StreamKey};

pub use builder::{Builder, BuilderConfig, KeepOriginal, Tally};
pub use names::{FIELDS, FieldKind};

/// One document, as every index takes it.
#[derive(Clone, Debug)]
pub struct Document {
    /// The `_id`.
    pub id: RecordId,
    /// Identity and stream of the record, to which the offsets belong.
    pub stream_key: StreamKey,
    /// Byte offset in the source at which the record begins.
    pub offset: u64,
    /// Byte offset in the source at which the next record begins; greater than `offset`.
    pub end_offset: u64,
    /// The `_index`: `logmesh-<tenant>-YYYY.MM.DD`.
    pub index: Arc<str>,
    /// The event's time, which orders search results, in nanoseconds since 1970-01-01 UTC.
    pub timestamp_unix_nano: i64,
    /// When the gateway received the batch, in nanoseconds since 1970-01-01 UTC.
    pub received_unix_nano: u64,
    /// The sender had lost its state: the id decides whether the record is known, not its offsets.
    pub resend: bool,
    /// The document itself: one JSON object with ECS names, without `_id` and `_index`. A slice of its batch's block.
    pub body: Bytes,
}
