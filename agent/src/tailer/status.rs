//! What the tailer shows of itself.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Tailer,
    source::{Presence, Source},
};
use crate::{
    clock::Now,
    filesystem::Filesystem,
    losses::{Loss, LossReason, Lost},
    sift::Dropped,
    spool::SpoolStatus,
};

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Tally {
    /// Records cut.
    pub read_records: u64,
    /// Source bytes cut.
    pub read_bytes: u64,
    /// Batches cut.
    pub read_batches: u64,
    /// Source bytes acknowledged, contiguous per file.
    pub acked_bytes: u64,
    /// Batches acknowledged.
    pub acked_batches: u64,
    /// Batches built or sent again.
    pub resent: u64,
    /// Source bytes of deleted files that went to the spool.
    pub spooled_bytes: u64,
    /// Source bytes that were gone before they were delivered, where their number is known.
    pub lost_bytes: u64,
    /// Times that bytes were lost, their number known or not.
    pub lost_events: u64,
    /// Truncations seen.
    pub truncated: u64,
    /// Paths found unreadable.
    pub unreadable: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Records that were split for their length.
    pub split_records: u64,
    /// Bytes of padding that were skipped, for something was written behind them.
    pub skipped_bytes: u64,
    /// Code units that are no text in their file's encoding, and were replaced.
    pub replaced_units: u64,
    /// Records that were dropped at the source as asked for, by reason; none of them is in `read_records`.
    pub dropped: Dropped,
}

impl Tally {
    pub(super) fn read(&mut self, records: usize, bytes: u64) {
        self.read_records += records as u64;
        self.read_bytes += bytes;
        self.read_batches += 1;
    }
}

/// One generation.
#[derive(Clone, Debug, Serialize)]
pub struct FileStatus {
    /// Last known path.
    pub path: String,
    /// Stream id, hex.
    pub stream: Option<String>,
    /// Everything before it is acknowledged.
    pub acked_offset: u64,
    /// Everything before it was read.
    pub read_offset: u64,
    /// Size at the last look.
    pub size: u64,
    /// Batches without answer.
    pub batches_out: usize,
    /// What is happening to it.
    pub state: &'static str,
    /// Whether its records are marked `resend`.
    pub resend: bool,
    /// Bytes lost under its path, where their number is known, of the losses in [`Snapshot::losses`].
    pub lost_bytes: u64,
    /// Times that bytes were lost under its path, their number known or not, of the losses in [`Snapshot::losses`].
    pub lost_events: u64,
}

/// The tailer at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    /// Counts.
    pub tally: Tally,
    /// Files open.
    pub files_open: usize,
    /// Generations known.
    pub generations: usize,
    /// Encoded bytes without answer.
    pub in_flight_bytes: usize,
    /// Batches without answer.
    pub in_flight_batches: usize,
    /// Credit of the session.
    pub credit_bytes: Option<u64>,
    /// Age of the oldest record without answer, in seconds.
    pub oldest_unacked_seconds: f64,
    /// Time since the last checkpoint while there is something to write, in seconds.
    pub checkpoint_age_seconds: f64,
    /// The first generations, those with something unread or unacknowledged before all others.
    pub files: Vec<FileStatus>,
    /// The last losses, the oldest first; at most 100.
    pub losses: Vec<Loss>,
    /// Everything lost since the start, by reason.
    pub lost: BTreeMap<LossReason, Lost>,
    /// Paths that cannot be read, with the reason.
    pub unreadable: Vec<(String, String)>,
    /// The spools that are open, by name.
    pub spools: BTreeMap<&'static str, SpoolStatus>,
    /// Records taken of inputs that are no files.
    pub input_records: u64,
    /// Bytes of their bodies.
    pub input_bytes: u64,
}

impl<F: Filesystem> Tailer<F> {
    /// What there is to say of records that are too large for their topics, while there are any.
    #[must_use]
    pub fn oversized(&self) -> Option<String> {
        let (&(number, offset), record) = self.oversized.first_key_value()?;
        let path = self.sources.get(&number)?.path.display();
        let limit = match record.limit {
            0 => "less".to_owned(),
            limit => format!("{limit} bytes"),
        };
        Some(format!(
            "{} records are larger than their topics take, for one that at offset {offset} of {path} with {} bytes, where \
             the topic takes {limit}: their files wait, and each is tried again every 30 s; raise the topic's limit",
            self.oversized.len(),
            record.encoded,
        ))
    }

    /// The tailer now, with at most `files_max` generations in detail.
    #[must_use]
    pub fn snapshot(&self, now: Now, files_max: usize) -> Snapshot {
        let oldest = self.sources.values().filter_map(|source| source.progress.cuts().next());
        let oldest = oldest.map(|cut| cut.record.observed_unix_nano).min();
        let age = oldest.map_or(0, |oldest| now.unix_nano.saturating_sub(oldest));
        let dirty = self.checkpoint.dirty && self.checkpoint.failure.is_some();
        let checkpoint_age = if dirty { now.mono.saturating_sub(self.checkpoint.done_at).as_secs_f64() } else { 0.0 };
        let mut sources: Vec<_> = self.sources.values().collect();
        sources.sort_by_key(|source| source.unread() == 0 && source.progress.is_settled());
        let by_path = self.losses.by_path();
        let files = sources.into_iter().take(files_max).map(|source| file_status(source, &by_path, now));
        Snapshot {
            tally: self.tally,
            files_open: self.sources.values().filter(|source| source.file.is_some()).count(),
            generations: self.sources.len(),
            in_flight_bytes: self.window.bytes,
            in_flight_batches: self.window.parcels,
            credit_bytes: self.window.credit,
            oldest_unacked_seconds: age as f64 / 1e9,
            checkpoint_age_seconds: checkpoint_age,
            files: files.collect(),
            losses: self.losses.last(),
            lost: self.losses.totals(),
            unreadable: self
                .unreadable
                .iter()
                .map(|(path, why)| (path.to_string_lossy().into_owned(), why.reason.clone()))
                .collect(),
            ..Snapshot::default()
        }
    }
}

fn file_status<H>(source: &Source<H>, by_path: &BTreeMap<&str, Lost>, now: Now) -> FileStatus {
    let path = source.path.to_string_lossy().into_owned();
    let lost = by_path.get(path.as_str()).copied().unwrap_or_default();
    FileStatus {
        path,
        stream: source.stream_id.map(|id| id.to_string()),
        acked_offset: source.progress.acked().offset,
        read_offset: source.progress.position().offset,
        size: source.seen.size,
        batches_out: source.progress.out(),
        state: match (source.presence, source.held.is_some(), source.paused_until > now.mono) {
            (_, true, _) => "held back",
            (_, _, true) => "paused",
            (Presence::Dormant, ..) => "not found yet",
            (Presence::InScope { .. }, ..) if source.parked => "closed",
            (Presence::InScope { .. }, ..) => "tailing",
            (Presence::Gone { .. }, ..) if !source.has_file() => "vanished",
            (Presence::Gone { .. }, ..) => "rotated",
        },
        resend: source.resend,
        lost_bytes: lost.bytes,
        lost_events: lost.events,
    }
}
