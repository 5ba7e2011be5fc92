//! Halving a batch that its lane takes none so large of, between records.

use logmesh_proto::{BatchMeta, Flags, Limits, Opener, RecordsBuilder, Sealer, v1};
use prost::Message as _;

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
        let batch = &parcel.batch;
        let opened = self
            .opener
            .open(batch)
            .inspect_err(|error| tracing::error!(%error, offset = batch.first_offset, "cannot open a batch of our own"))
            .ok()?;
        let count = opened.len();
        if count < 2 {
            return None;
        }
        let mut sealer = Sealer::new(batch.codec()).ok()?;
        let flags = Flags::from_bits(batch.flags).bits();
        let ends = [Flags::LAST_PARTIAL, Flags::LAST_SPLIT].iter().fold(0, |bits, flag| bits | flag.bits());
        let parts = [(0, count / 2, flags & !ends), (count / 2, count, flags & !Flags::FIRST_CONTINUED.bits())];
        let halves = parts.into_iter().map(|(from, to, flags)| {
            self.records.clear();
            let (mut first, mut end) = (batch.first_offset, batch.end_offset);
            for (at, record) in opened.records().enumerate().take(to).skip(from) {
                first = if at == from { record.offset } else { first };
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
                flags: Flags::from_bits(flags),
            };
            let batch: v1::Batch = sealer.seal(meta, &mut self.records).ok()?;
            let encoded = batch.encoded_len();
            Some(Parcel { stream: parcel.stream, batch, info: parcel.info.clone(), encoded })
        });
        halves.collect()
    }
}
