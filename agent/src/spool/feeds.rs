//! From records of inputs to batches.
//!
//! Owns the stream of each input: a random stream id for each run, and offsets that count bodies with a terminator each, so
//! that no two records of a run have the same. What an arrival holds goes into one batch, with the cursor behind it;
//! where it alone is more than a batch takes, or has a record in pieces, the last of its batches has the cursor: so what
//! is spooled and where the input goes on from agree on disk.
//!
//! A batch ends behind a record that was split, and a record that goes on from an earlier one begins a batch, for both
//! are marks of a batch.
//!
//! A batch leaves when it is full, when nothing of the spool is on its way to the disk, or after [`LINGER`].

use std::time::Duration;

use bytes::Bytes;
use logmesh_proto::{BatchMeta, Flags, RecordsBuilder, SealError, Sealer, v1};

use super::{Queued, entry::Entry};
use crate::{
    clock::Now,
    inputs::intake::{Arrival, Record},
    lines::CutLimits,
};

/// Longest wait for more records while the disk is busy.
const LINGER: Duration = Duration::from_millis(50);

/// Room in the intake that is given back once the records are durable.
pub(super) type Room = Vec<Arrival>;

/// One input, as its records are to be described.
#[derive(Clone, Debug)]
pub struct FeedInfo {
    /// Its name, under which its cursor is kept.
    pub name: String,
    /// What is said of its stream.
    pub info: v1::StreamInfo,
}

/// All inputs of one agent.
#[derive(Debug)]
pub(super) struct Feeds {
    feeds: Vec<Feed>,
    limits: CutLimits,
    sealer: Sealer,
    /// Records taken since the start, and bytes of their bodies.
    pub(super) records: u64,
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct Feed {
    name: String,
    info: v1::StreamInfo,
    stream_id: Bytes,
    /// Where the batch begins that is being filled.
    first: u64,
    /// Where its next record begins.
    end: u64,
    observed_unix_nano: u64,
    records: RecordsBuilder,
    /// Whether its first record goes on from an earlier one.
    continued: bool,
    /// Whether its last record was split.
    split: bool,
    room: Room,
    cursor: Option<Bytes>,
    since: Duration,
}

impl Feeds {
    pub(super) fn new(inputs: &[FeedInfo], codec: v1::Codec, limits: CutLimits) -> Result<Self, SealError> {
        let feed = |input: &FeedInfo| Feed {
            name: input.name.clone(),
            info: input.info.clone(),
            stream_id: Bytes::copy_from_slice(&rand::random::<[u8; 16]>()),
            first: 0,
            end: 0,
            observed_unix_nano: 0,
            records: RecordsBuilder::new(),
            continued: false,
            split: false,
            room: Room::new(),
            cursor: None,
            since: Duration::ZERO,
        };
        let feeds = inputs.iter().map(feed).collect();
        Ok(Self { feeds, limits, sealer: Sealer::new(codec)?, records: 0, bytes: 0 })
    }

    /// Takes an arrival. Batches that it fills are pushed to `out`.
    pub(super) fn take(&mut self, mut arrival: Arrival, now: Now, out: &mut Vec<Queued<Room>>) {
        let Some(feed) = self.feeds.get_mut(arrival.input) else { return };
        let records = std::mem::take(&mut arrival.records);
        let bytes: usize = records.iter().map(|record| record.body.len()).sum();
        if !feed.has_room(bytes, records.len(), &self.limits) {
            feed.seal(&mut self.sealer, now, out);
        }
        self.records += records.len() as u64;
        self.bytes += bytes as u64;
        for record in &records {
            if feed.split || record.continued || !feed.has_room(record.body.len(), 1, &self.limits) {
                feed.seal(&mut self.sealer, now, out);
            }
            feed.push(record, now);
        }
        feed.cursor = arrival.cursor.take().or(feed.cursor.take());
        feed.room.push(arrival);
    }

    /// Seals what has waited long enough; everything where `at_once` says so. Returns when to come again.
    pub(super) fn flush(&mut self, at_once: bool, now: Now, out: &mut Vec<Queued<Room>>) -> Duration {
        let mut wake = Duration::MAX;
        for feed in &mut self.feeds {
            if feed.records.is_empty() {
                continue;
            }
            let due = feed.since + LINGER;
            if at_once || due <= now.mono {
                feed.seal(&mut self.sealer, now, out);
            } else {
                wake = wake.min(due);
            }
        }
        wake
    }

    /// Whether no record waits for its batch.
    pub(super) fn is_empty(&self) -> bool {
        self.feeds.iter().all(|feed| feed.records.is_empty())
    }
}

impl Feed {
    /// Whether so much goes into the batch; into an empty one anything does.
    fn has_room(&self, bytes: usize, records: usize, limits: &CutLimits) -> bool {
        let fits_bytes = self.records.bytes() + bytes <= limits.batch_bytes_max;
        self.records.is_empty() || (fits_bytes && self.records.len() + records <= limits.batch_records_max)
    }

    fn push(&mut self, record: &Record, now: Now) {
        if self.records.is_empty() {
            self.observed_unix_nano = record.observed_unix_nano;
            self.since = now.mono;
            self.continued = record.continued;
        }
        self.split = record.split;
        // Bodies are bounded by the inputs, far below 4 GiB.
        let source = u32::try_from(record.body.len() + 1).unwrap_or(u32::MAX);
        match record.observed_unix_nano.checked_signed_diff(self.observed_unix_nano) {
            Some(0) | None => self.records.push(&record.body, source),
            Some(delta) => self.records.push_at(&record.body, source, delta),
        }
        self.end += u64::from(source);
    }

    fn flags(&self) -> Flags {
        let first = if self.continued { Flags::FIRST_CONTINUED } else { Flags::NONE };
        let last = if self.split { Flags::LAST_SPLIT } else { Flags::NONE };
        first.union(last)
    }

    fn seal(&mut self, sealer: &mut Sealer, now: Now, out: &mut Vec<Queued<Room>>) {
        if self.records.is_empty() {
            return;
        }
        let meta = BatchMeta {
            stream_id: self.stream_id.clone(),
            first_offset: self.first,
            end_offset: self.end,
            observed_unix_nano: self.observed_unix_nano,
            flags: self.flags(),
        };
        match sealer.seal(meta, &mut self.records) {
            Ok(batch) => {
                let batch = v1::Batch { info: Some(self.info.clone()), ..batch };
                let (input, cursor) = (self.name.clone(), self.cursor.take());
                let entry = Entry { spooled_unix_nano: now.unix_nano, input, cursor, batch };
                out.push(Queued::new(&entry, std::mem::take(&mut self.room)));
            }
            // Without memory for the compressor nothing goes on: the records stay, and the input waits for room.
            Err(error) => return tracing::error!(%error, input = self.name, "cannot build a batch"),
        }
        self.first = self.end;
        self.records.clear();
    }
}
