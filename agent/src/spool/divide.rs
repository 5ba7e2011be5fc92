//! Cutting a batch that its lane takes none so large of into smaller ones, between records.

use std::ops::Range;

use logmesh_proto::{BatchMeta, Flags, Limits, OpenBatch, Opener, RecordsBuilder, Sealer, v1};
use prost::Message as _;

use super::transit::Span;
use crate::parcel::Parcel;

/// What this agent made itself is of any size.
const OWN_LIMITS: Limits =
    Limits { encoded_bytes_max: u32::MAX, uncompressed_bytes_max: u32::MAX, records_max: u32::MAX };

/// Opens and seals; the codecs' contexts are kept.
#[derive(Debug)]
pub(super) struct Divider {
    opener: Opener,
    records: RecordsBuilder,
}

impl Default for Divider {
    fn default() -> Self {
        Self { opener: Opener::new(OWN_LIMITS), records: RecordsBuilder::new() }
    }
}

impl Divider {
    /// Two batches with the records of one; `None` where it is a single record, or cannot be opened.
    pub(super) fn halves(&mut self, parcel: &Parcel) -> Option<Vec<Parcel>> {
        let opened = self.open(parcel)?;
        let (middle, end) = (opened.len() / 2, opened.len());
        if middle > 0 { self.pieces(parcel, &opened, &[0..middle, middle..end]) } else { None }
    }

    /// A batch for each span, which were cut from this one before; `None` where it cannot be opened.
    pub(super) fn spans(&mut self, parcel: &Parcel, spans: &[Span]) -> Option<Vec<Parcel>> {
        let opened = self.open(parcel)?;
        let offsets: Vec<u64> = opened.records().map(|record| record.offset).collect();
        let index = |offset: u64| offsets.partition_point(|other| *other < offset);
        let ranges: Vec<Range<usize>> = spans.iter().map(|span| index(span.first)..index(span.end)).collect();
        self.pieces(parcel, &opened, &ranges)
    }

    fn open(&mut self, parcel: &Parcel) -> Option<OpenBatch> {
        let batch = &parcel.batch;
        self.opener
            .open(batch)
            .inspect_err(|error| tracing::error!(%error, offset = batch.first_offset, "cannot open a batch of our own"))
            .ok()
    }

    /// A batch for each range of records.
    fn pieces(&mut self, parcel: &Parcel, opened: &OpenBatch, ranges: &[Range<usize>]) -> Option<Vec<Parcel>> {
        let batch = &parcel.batch;
        let mut sealer = Sealer::new(batch.codec()).ok()?;
        let pieces = ranges.iter().map(|range| {
            self.records.clear();
            let (mut first, mut end) = (batch.first_offset, batch.end_offset);
            for (at, record) in opened.records().enumerate().take(range.end).skip(range.start) {
                first = if at == range.start { record.offset } else { first };
                end = record.end_offset;
                let source = u32::try_from(record.end_offset - record.offset).ok()?;
                match record.observed_unix_nano.checked_signed_diff(batch.observed_time_unix_nano) {
                    Some(0) | None => self.records.push(record.body, source),
                    Some(delta) => self.records.push_at(record.body, source, delta),
                }
            }
            let meta = BatchMeta {
                stream_id: batch.stream_id.clone(),
                first_offset: first,
                end_offset: end,
                observed_unix_nano: batch.observed_time_unix_nano,
                flags: marks(batch, range, opened.len()),
            };
            let batch: v1::Batch = sealer.seal(meta, &mut self.records).ok()?;
            let encoded = batch.encoded_len();
            Some(Parcel { stream: parcel.stream, batch, info: parcel.info.clone(), encoded })
        });
        pieces.collect()
    }
}

/// What of a batch's marks holds for a range of its records: some speak of the first or the last one alone.
fn marks(batch: &v1::Batch, range: &Range<usize>, count: usize) -> Flags {
    let first = if range.start == 0 { Flags::NONE } else { Flags::FIRST_CONTINUED };
    let last = if range.end == count { Flags::NONE } else { Flags::LAST_PARTIAL.union(Flags::LAST_SPLIT) };
    Flags::from_bits(batch.flags & !first.union(last).bits())
}
