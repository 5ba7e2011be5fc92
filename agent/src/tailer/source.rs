//! A generation as the tailer holds it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use logmesh_proto::v1;

use super::{pace, rate::Rate, turns::Standing};
use crate::{
    filesystem::FileStat,
    generation::Progress,
    identity::{Mark, StreamId},
    lines::Framing,
    parcel::{Parcel, StreamNumber},
    sift::{Sift, Sifter},
    state::{GenerationRecord, Seal},
};

/// A file within one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileKey {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) birth_nano: Option<i64>,
}

impl FileKey {
    pub(super) fn of(stat: &FileStat) -> Self {
        Self { device: stat.device, inode: stat.inode, birth_nano: stat.birth_nano }
    }
}

/// Where its file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Remembered from an earlier run; the first walk has not come across it yet.
    Dormant,
    /// In scope, seen by that walk.
    InScope { walk: u64 },
    /// Out of scope, deleted, truncated, or not found.
    Gone { since: Duration },
}

/// A new file that looks like a known generation and is not read until it is clear what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) of: StreamNumber,
    /// Size up to which it was seen to equal that generation's file.
    pub(super) equal_to: u64,
}

/// What the last look saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) size: u64,
    pub(super) modified_nano: i64,
    pub(super) changed_nano: i64,
    pub(super) deleted: bool,
}

impl Seen {
    pub(super) fn of(stat: &FileStat) -> Self {
        Self {
            size: stat.size,
            modified_nano: stat.modified_nano,
            changed_nano: stat.changed_nano,
            deleted: stat.links == 0,
        }
    }
}

#[derive(Debug)]
pub(super) struct Source<H> {
    /// `None` until the first line of a file without birth time is whole.
    pub(super) stream_id: Option<StreamId>,
    pub(super) inode: u64,
    pub(super) birth_nano: Option<i64>,
    /// Its file now; `None` while there is none.
    pub(super) key: Option<FileKey>,
    pub(super) epoch: u64,
    pub(super) path: PathBuf,
    /// Its last path in scope, by which it belongs to a group.
    pub(super) scope_path: PathBuf,
    pub(super) info: Arc<v1::StreamInfo>,
    /// What its records are.
    pub(super) framing: Framing,
    /// The group it belongs to.
    pub(super) group: usize,
    /// Which of them are kept.
    pub(super) sift: Sift,
    /// Whether nothing of what was cut last was kept.
    pub(super) dropped_last: bool,
    pub(super) head: Mark,
    pub(super) progress: Progress,
    pub(super) resend: bool,
    pub(super) file: Option<H>,
    /// Its file is closed for a while and is known by its key; see `descriptors.rs`.
    pub(super) parked: bool,
    /// While it was parked something happened to it, and it was not found.
    pub(super) doubted: bool,
    /// When its file was used, while it is open.
    pub(super) used_at: Option<Duration>,
    pub(super) seen: Seen,
    pub(super) presence: Presence,
    /// How long it is kept once it is gone, read and acknowledged.
    pub(super) kept_for: Duration,
    /// Whether it is clear that this is no other generation's continuation.
    pub(super) own: bool,
    pub(super) held: Option<Held>,
    /// Its file is a copy that ends before what was read of the original: nothing new is read from it.
    pub(super) short: bool,
    /// Its file was truncated, and what that took away is not told yet: a copy may turn up.
    pub(super) truncated: bool,
    /// Its file is this archive, which never grows.
    pub(super) archive: Option<Seal>,
    /// Whether the cut log knows it.
    pub(super) logged: bool,
    /// Acknowledged offset and length of the head as the state has them; `None` where more than that may differ.
    pub(super) saved: Option<(u64, u16)>,
    /// Whether it is known on disk beyond a power cut.
    pub(super) durable: bool,
    pub(super) paused_until: Duration,
    /// Batches that came back and cannot be built again, since the file is gone.
    pub(super) kept: Vec<Parcel>,
    /// When it was seen to be deleted.
    pub(super) deleted_at: Duration,
    /// A moment by which no copy of its file could be made any more; `None` while it is there, or gone since before this
    /// run.
    pub(super) gone_by: Option<Duration>,
    /// While it is handed over to the spool: how many of the cuts that are out the spool has.
    pub(super) spooled_cuts: Option<usize>,
    /// Encoded bytes of those, by first offset.
    pub(super) leaving_bytes: BTreeMap<u64, usize>,
    /// When its batches were called back last.
    pub(super) recalled_at: Option<Duration>,
    /// Largest encoded batch that its lane takes.
    pub(super) encoded_bytes_max: usize,
    /// Up to where an unterminated rest was seen.
    pub(super) scanned: u64,
    /// Where padding begins that went on to the end of the file when it was last read; `None` once the file changed.
    pub(super) blank_from: Option<u64>,
    /// Up to where padding was followed.
    pub(super) blank_to: u64,
    /// A place behind padding at which something was written.
    pub(super) written_at: u64,
    /// Padding is to be skipped, which waits until everything before it is acknowledged.
    pub(super) settle_first: bool,
    /// Size at which a read last proved that the file is still this generation's.
    pub(super) proven: u64,
    /// When that rest is sent.
    pub(super) flush_at: Option<Duration>,
    /// Since when there are bytes to read.
    pub(super) pending_since: Option<Duration>,
    pub(super) grown_at: Duration,
    pub(super) visited_at: Duration,
    pub(super) rate: Rate,
    pub(super) queued: bool,
    pub(super) standing: Standing,
    pub(super) timer: Option<Duration>,
}

impl<H> Source<H> {
    pub(super) fn new(path: PathBuf, info: Arc<v1::StreamInfo>, framing: Framing, now: Duration) -> Self {
        Self {
            stream_id: None,
            inode: 0,
            birth_nano: None,
            key: None,
            epoch: 0,
            scope_path: path.clone(),
            path,
            info,
            framing,
            group: 0,
            sift: Sift::default(),
            dropped_last: false,
            head: Mark::default(),
            progress: Progress::default(),
            resend: false,
            file: None,
            parked: false,
            doubted: false,
            used_at: None,
            seen: Seen::default(),
            presence: Presence::Dormant,
            kept_for: pace::RENAMED_KEPT,
            own: false,
            held: None,
            short: false,
            truncated: false,
            archive: None,
            logged: false,
            saved: None,
            durable: false,
            paused_until: Duration::ZERO,
            kept: Vec::new(),
            deleted_at: Duration::ZERO,
            gone_by: None,
            spooled_cuts: None,
            leaving_bytes: BTreeMap::new(),
            recalled_at: None,
            encoded_bytes_max: usize::MAX,
            scanned: 0,
            blank_from: None,
            blank_to: 0,
            written_at: 0,
            settle_first: false,
            proven: 0,
            flush_at: None,
            pending_since: None,
            grown_at: now,
            visited_at: now,
            rate: Rate::default(),
            queued: false,
            standing: Standing::default(),
            timer: None,
        }
    }

    /// Who judges its records, where some are dropped.
    pub(super) fn sifter(&self) -> Option<Sifter<'_>> {
        let id = self.stream_id.map_or([0; 16], |id| id.0);
        self.sift.sifter(xxhash_rust::xxh3::xxh3_64(&id))
    }

    /// Whether its file is open, or can be opened again.
    pub(super) fn has_file(&self) -> bool {
        self.file.is_some() || self.parked
    }

    /// Bytes that are there and not read; padding up to the end does not count, for it is not written yet.
    pub(super) fn unread(&self) -> u64 {
        let position = self.progress.position().offset;
        let is_blank = self.blank_from.is_some_and(|from| from <= position);
        if self.short || is_blank { 0 } else { self.seen.size.saturating_sub(position) }
    }

    /// When its generation counts as over, if its file is out of scope and does not grow.
    pub(super) fn over_at(&self) -> Option<Duration> {
        match self.presence {
            _ if self.archive.is_some() => Some(Duration::ZERO),
            Presence::Gone { .. } if self.seen.deleted => Some(Duration::ZERO),
            Presence::Gone { since } => Some(since.max(self.grown_at) + self.kept_for),
            Presence::Dormant | Presence::InScope { .. } => None,
        }
    }

    /// When a long record whose end is not there yet is looked at again, unless it grows by much: with every line that is
    /// added to it all of it is read.
    pub(super) fn pending_look(&self) -> Option<Duration> {
        let pending = self.scanned.saturating_sub(self.progress.position().offset);
        let grown = self.unread().saturating_sub(pending);
        (pending > pace::PENDING_LONG && grown < pending / 4).then(|| self.visited_at + pace::LOOK_PENDING)
    }

    pub(super) fn record(&self) -> Option<GenerationRecord> {
        let acked = self.progress.acked();
        Some(GenerationRecord {
            stream_id: self.stream_id?,
            inode: self.inode,
            birth_nano: self.birth_nano,
            epoch: self.epoch,
            head: self.head,
            acked: acked.offset,
            after: acked.after,
            anchor: acked.anchor,
            resend: self.resend,
            path: self.scope_path.clone(),
        })
    }
}
