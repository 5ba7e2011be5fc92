//! What can be said of a batch without inflating it.

use prost::Message;
use thiserror::Error;

use super::Flags;
use crate::v1;

/// Longest stream id in bytes.
const STREAM_ID_BYTES_MAX: usize = 64;

/// What a batch may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of the encoded `Batch` in bytes.
    pub encoded_bytes_max: u32,
    /// `Batch.uncompressed_size` in bytes.
    pub uncompressed_bytes_max: u32,
    /// `Batch.record_count`.
    pub records_max: u32,
}

impl Default for Limits {
    /// What every gateway and every topic must accept: 640 KiB encoded, 1 MiB inflated, 10,000 records.
    fn default() -> Self {
        Self { encoded_bytes_max: 640 << 10, uncompressed_bytes_max: 1 << 20, records_max: 10_000 }
    }
}

/// What is wrong with a batch.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BatchFault {
    /// More than a limit allows.
    #[error("{what} is {actual}, the limit is {limit}")]
    TooLarge {
        /// The field or size that is over.
        what: &'static str,
        /// What it is, or claims to be.
        actual: u64,
        /// What it may be.
        limit: u64,
    },
    /// Checksum, claim or structure are wrong.
    #[error("{what}")]
    Corrupt {
        /// What, for people.
        what: String,
    },
}

impl BatchFault {
    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    /// How a gateway refuses such a batch.
    #[must_use]
    pub const fn nack_reason(&self) -> v1::NackReason {
        match self {
            Self::TooLarge { .. } => v1::NackReason::TooLarge,
            Self::Corrupt { .. } => v1::NackReason::Corrupt,
        }
    }
}

/// CRC-32C over what a batch says, but for its sequence and its `StreamInfo`: see `Batch.crc32c` in the proto.
#[must_use]
pub fn crc(batch: &v1::Batch) -> u32 {
    let mut header = [0_u8; 4 + STREAM_ID_BYTES_MAX + 40];
    let mut used = 0;
    let mut put = |bytes: &[u8]| {
        // A stream id beyond the limit is refused anyway; cut here, it still gives one definite sum.
        let room = bytes.len().min(header.len() - used);
        header[used..used + room].copy_from_slice(&bytes[..room]);
        used += room;
    };
    let id = &batch.stream_id[..batch.stream_id.len().min(STREAM_ID_BYTES_MAX)];
    put(&u32::try_from(batch.stream_id.len()).unwrap_or(u32::MAX).to_le_bytes());
    put(id);
    put(&batch.first_offset.to_le_bytes());
    put(&batch.end_offset.to_le_bytes());
    put(&batch.record_count.to_le_bytes());
    put(&batch.observed_time_unix_nano.to_le_bytes());
    put(&batch.flags.to_le_bytes());
    put(&batch.codec.to_le_bytes());
    put(&batch.uncompressed_size.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&header[..used]), &batch.payload)
}

/// Checks everything that can be known of a batch without inflating it and without taking memory: limits, checksum, and
/// the claimed size against the codec's own header.
///
/// # Errors
/// The first fault found.
pub fn check(batch: &v1::Batch, limits: &Limits) -> Result<(), BatchFault> {
    within("the encoded batch", batch.encoded_len() as u64, limits.encoded_bytes_max)?;
    within("uncompressed_size", batch.uncompressed_size.into(), limits.uncompressed_bytes_max)?;
    within("record_count", batch.record_count.into(), limits.records_max)?;
    if batch.stream_id.is_empty() || batch.stream_id.len() > STREAM_ID_BYTES_MAX {
        return Err(BatchFault::corrupt(format!("stream_id has {} bytes, not 1 to 64", batch.stream_id.len())));
    }
    // Each record takes at least one byte of its source: two records never share an offset.
    let span = batch.end_offset.checked_sub(batch.first_offset);
    if batch.record_count == 0 || span.is_none_or(|span| span < u64::from(batch.record_count)) {
        let (first, end, count) = (batch.first_offset, batch.end_offset, batch.record_count);
        return Err(BatchFault::corrupt(format!("{count} records cannot lie between offsets {first} and {end}")));
    }
    let sum = crc(batch);
    if sum != batch.crc32c {
        return Err(BatchFault::corrupt(format!("crc32c is {sum:08x}, the batch says {:08x}", batch.crc32c)));
    }
    let stated = stated_size(batch)?;
    if stated != u64::from(batch.uncompressed_size) {
        let claimed = batch.uncompressed_size;
        return Err(BatchFault::corrupt(format!("uncompressed_size is {claimed}, the payload's header says {stated}")));
    }
    Ok(())
}

/// The batch's marks.
pub(super) const fn flags(batch: &v1::Batch) -> Flags {
    Flags::from_bits(batch.flags)
}

/// The batch's codec, of those that can be read.
pub(super) fn codec(batch: &v1::Batch) -> Result<v1::Codec, BatchFault> {
    match v1::Codec::try_from(batch.codec) {
        Ok(codec @ (v1::Codec::None | v1::Codec::Snappy | v1::Codec::Zstd)) => Ok(codec),
        Ok(v1::Codec::Unspecified) | Err(_) => {
            Err(BatchFault::corrupt(format!("codec {} is not one of NONE, SNAPPY, ZSTD", batch.codec)))
        }
    }
}

/// Inflated size in bytes as the codec's own header states it.
fn stated_size(batch: &v1::Batch) -> Result<u64, BatchFault> {
    let payload = &batch.payload[..];
    match codec(batch)? {
        v1::Codec::Snappy => snap::raw::decompress_len(payload)
            .map(|size| size as u64)
            .map_err(|error| BatchFault::corrupt(format!("the payload is not snappy: {error}"))),
        v1::Codec::Zstd => match zstd::zstd_safe::get_frame_content_size(payload) {
            Ok(Some(size)) => Ok(size),
            Ok(None) => Err(BatchFault::corrupt("the payload's zstd frame states no content size")),
            Err(_) => Err(BatchFault::corrupt("the payload is not a zstd frame")),
        },
        v1::Codec::None | v1::Codec::Unspecified => Ok(payload.len() as u64),
    }
}

fn within(what: &'static str, actual: u64, limit: u32) -> Result<(), BatchFault> {
    let limit = u64::from(limit);
    if actual > limit { Err(BatchFault::TooLarge { what, actual, limit }) } else { Ok(()) }
}
