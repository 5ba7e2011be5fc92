//! Opening batches: from a payload back to records.

use bytes::Bytes;
use prost::Message;

use super::{
    Flags, Marks,
    check::{BatchFault, Limits, check, codec, flags},
};
use crate::v1;

/// Opens batches; the codecs' contexts are reused.
pub struct Opener {
    limits: Limits,
    snappy: snap::raw::Decoder,
    /// Made with the first zstd batch.
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Opener").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Opener {
    /// Makes an opener that refuses what is over the limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, snappy: snap::raw::Decoder::new(), zstd: None }
    }

    /// Checks a batch whole ([`check()`], then all counts and sums of the inflated payload) and opens it. Takes at most
    /// `uncompressed_bytes_max` for the payload and four times that for its arrays.
    ///
    /// # Errors
    /// The first fault found.
    pub fn open(&mut self, batch: &v1::Batch) -> Result<OpenBatch, BatchFault> {
        check(batch, &self.limits)?;
        let block = self.inflate(batch)?;
        let records = v1::Records::decode(block)
            .map_err(|error| BatchFault::corrupt(format!("the payload is no Records message: {error}")))?;
        verify(batch, &records)?;
        Ok(OpenBatch {
            bodies: records.bodies,
            body_lengths: records.body_lengths,
            source_lengths: records.source_lengths,
            time_deltas_nano: records.observed_time_deltas_nano,
            first_offset: batch.first_offset,
            observed_unix_nano: batch.observed_time_unix_nano,
            flags: flags(batch),
        })
    }

    fn inflate(&mut self, batch: &v1::Batch) -> Result<Bytes, BatchFault> {
        let size = batch.uncompressed_size as usize;
        let codec = codec(batch)?;
        if codec == v1::Codec::None {
            return Ok(batch.payload.clone());
        }
        let mut block = vec![0; size];
        let inflated = if codec == v1::Codec::Snappy {
            self.snappy.decompress(&batch.payload, &mut block).map_err(|error| error.to_string())
        } else {
            self.zstd(&batch.payload, &mut block)
        };
        match inflated {
            Ok(inflated) if inflated == size => Ok(block.into()),
            Ok(inflated) => Err(BatchFault::corrupt(format!("the payload inflates to {inflated} bytes, not {size}"))),
            Err(error) => Err(BatchFault::corrupt(format!("the payload does not inflate: {error}"))),
        }
    }

    fn zstd(&mut self, payload: &[u8], block: &mut [u8]) -> Result<usize, String> {
        let decompressor = match &mut self.zstd {
            Some(decompressor) => decompressor,
            None => self.zstd.insert(zstd::bulk::Decompressor::new().map_err(|error| error.to_string())?),
        };
        decompressor.decompress_to_buffer(payload, block).map_err(|error| error.to_string())
    }
}

/// Compares counts and sums, so that iterating needs no checks.
fn verify(batch: &v1::Batch, records: &v1::Records) -> Result<(), BatchFault> {
    let count = batch.record_count as usize;
    let counts = [
        ("body_lengths", records.body_lengths.len(), false),
        ("source_lengths", records.source_lengths.len(), true),
        ("observed_time_deltas_nano", records.observed_time_deltas_nano.len(), true),
    ];
    for (name, length, may_be_absent) in counts {
        if length != count && !(may_be_absent && length == 0) {
            return Err(BatchFault::corrupt(format!("{name} has {length} entries for {count} records")));
        }
    }
    let bodies: u64 = records.body_lengths.iter().copied().map(u64::from).sum();
    if bodies != records.bodies.len() as u64 {
        let length = records.bodies.len();
        return Err(BatchFault::corrupt(format!("body_lengths add up to {bodies}, bodies has {length} bytes")));
    }
    if records.source_lengths.contains(&0) {
        return Err(BatchFault::corrupt("a source length is 0"));
    }
    let sources = if records.source_lengths.is_empty() {
        bodies + count as u64
    } else {
        records.source_lengths.iter().copied().map(u64::from).sum()
    };
    let span = batch.end_offset - batch.first_offset;
    if sources != span {
        return Err(BatchFault::corrupt(format!("source lengths add up to {sources}, the offsets span {span}")));
    }
    Ok(())
}

/// A batch that was checked whole.
#[derive(Clone, Debug)]
pub struct OpenBatch {
    bodies: Bytes,
    body_lengths: Vec<u32>,
    /// Empty, or as many as `body_lengths`.
    source_lengths: Vec<u32>,
    /// Empty, or as many as `body_lengths`.
    time_deltas_nano: Vec<i64>,
    first_offset: u64,
    observed_unix_nano: u64,
    flags: Flags,
}

/// One record of an opened batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Byte offset in the source at which it begins.
    pub offset: u64,
    /// Byte offset in the source at which the next one begins.
    pub end_offset: u64,
    /// When it was read, nanoseconds since 1970-01-01 UTC.
    pub observed_unix_nano: u64,
    /// Its bytes.
    pub body: &'a [u8],
    /// Its marks.
    pub marks: Marks,
}

impl OpenBatch {
    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.body_lengths.len()
    }

    /// Whether there is no record; never true, since a batch has at least one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.body_lengths.is_empty()
    }

    /// All bodies end to end.
    #[must_use]
    pub const fn bodies(&self) -> &Bytes {
        &self.bodies
    }

    /// The batch's marks.
    #[must_use]
    pub const fn flags(&self) -> Flags {
        self.flags
    }

    /// The records in order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> {
        let last = self.len() - 1;
        let mut body_start = 0;
        let mut offset = self.first_offset;
        self.body_lengths.iter().enumerate().map(move |(place, &length)| {
            let source = self.source_lengths.get(place).map_or(u64::from(length) + 1, |&source| source.into());
            let delta = self.time_deltas_nano.get(place).copied().unwrap_or(0);
            let body = &self.bodies[body_start..body_start + length as usize];
            let record = RecordRef {
                offset,
                end_offset: offset + source,
                observed_unix_nano: self.observed_unix_nano.saturating_add_signed(delta),
                body,
                marks: Marks {
                    partial: place == last && self.flags.contains(Flags::LAST_PARTIAL),
                    continued: place == 0 && self.flags.contains(Flags::FIRST_CONTINUED),
                    split: place == last && self.flags.contains(Flags::LAST_SPLIT),
                },
            };
            body_start += length as usize;
            offset += source;
            record
        })
    }
}
