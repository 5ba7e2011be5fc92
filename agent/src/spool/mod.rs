//! The spool: what would be lost if it were only in memory, on disk until a gateway has it.
//!
//! Owns batches of two kinds, each in a journal of its own below `<data_dir>/spool/`: `deleted/`, the unacknowledged rest
//! of files that are gone, and `inputs/`, everything of inputs that are no files. Knows neither files nor inputs: it takes
//! finished batches, says when they are durable, sends those of each stream in the order in which they came, and forgets
//! them once they are acknowledged.
//!
//! Invariants: what is said to be durable is synced; nothing is removed from disk before it is acknowledged, or dropped for
//! its budget and counted; memory is bounded by the window of what is under way, and by so many places of what a gateway
//! does not take now. A batch that is sent again, after a crash too, is the same batch: stream, offsets and bodies, so its
//! records have the same ids.
//!
//! - `entry.rs`: an entry as bytes; `scribe.rs`: the journal's writing side; `progress.rs`: how far it is delivered;
//! - `reading.rs`: what is read next; `budget.rs`: what is dropped;
//! - `transit.rs`: what is under way or waits for its lane, as a machine;
//! - `spools.rs`: both kinds together, and the way to the tailer; `feeds.rs`: batches from inputs.

mod budget;
mod config;
mod divide;
mod entry;
mod feeds;
mod progress;
mod reading;
mod scribe;
mod spools;
#[cfg(test)]
mod tests;
mod transit;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use logmesh_journal::{Item, Journal, OpenError, Opened, Options, Position, Reader, Refused};

pub use config::SpoolConfig;
pub use entry::Entry;
pub use feeds::FeedInfo;
pub use scribe::Bell;
pub use spools::{SpoolError, SpoolStatus, Spools, SpoolsConfig};

use crate::{
    clock::Now,
    losses::LossReason,
    parcel::{Errand, Parcel, Returned, StreamNumber},
};
use divide::Divider;
use entry::decode_places;
use progress::{Progress, is_full};
use scribe::{Board, Queued, Scribe};
use transit::Transit;

/// Batches under way to gateways at once.
const PARCELS_MAX: usize = 256;
/// A batch that came back for no reason that names a time.
const RETRY: Duration = Duration::from_secs(1);
/// A lone record that is larger than its topic takes.
const RETRY_OVERSIZED: Duration = Duration::from_secs(30);
/// Entries that are read, or dropped, in one turn.
const READS_MAX: usize = 64;
/// Between two looks for what is too old.
const AGE: Duration = Duration::from_secs(60);
/// Between two notes of how far it is delivered.
const NOTE: Duration = Duration::from_secs(1);
/// Names of streams kept beyond those under way.
const STREAMS_MAX: usize = 1024;
/// Disk space left alone, for checkpoint and cut log.
const RESERVE_BYTES: u64 = 4 << 20;

/// What one spool is told once.
#[derive(Clone, Copy, Debug)]
struct Settings {
    /// Name of its directory.
    name: &'static str,
    /// Numbers of its streams begin there, apart from all others.
    first_stream: u64,
    /// Bytes on disk, from the oldest entry on that is not delivered.
    bytes_max: u64,
    age_max: Duration,
    /// Whether the oldest goes when there is no room; otherwise whoever appends waits.
    drops_oldest: bool,
    window_bytes: usize,
}

/// What was dropped for a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Last known path of the file.
    pub(crate) path: String,
    /// Bytes of the source.
    pub(crate) bytes: u64,
    /// Why.
    pub(crate) reason: LossReason,
}

/// One spool; `T` is what whoever appends knows an entry by. See the module.
struct Spool<T: Send + 'static> {
    settings: Settings,
    journal: Journal<Scribe<T>>,
    board: Arc<Board<T>>,
    /// To be appended, once there is room.
    waiting: VecDeque<Queued<T>>,
    /// Bytes of entries that the journal has taken and not answered: it may have them on disk or not.
    unanswered_bytes: usize,
    reader: Reader,
    /// Read, and not under way yet.
    next: Option<(Position, Entry)>,
    /// How many entries may still be read in this turn.
    left: usize,
    transit: Transit,
    streams: HashMap<Bytes, StreamNumber>,
    /// Names at which those of streams with nothing in transit are swept away.
    sweep_at: usize,
    numbers: u64,
    divider: Divider,
    progress: Progress,
    note_at: Duration,
    /// Whether a session is open; without one nothing is read.
    open: bool,
    /// Whether what the shipper has is to be called back: there was a session, and there is none.
    calls_back: bool,
    dropped: Vec<Dropped>,
    /// Why the journal takes nothing.
    failure: Option<String>,
    /// Why what is next cannot be read, and when it is tried again.
    unreadable: Option<(String, Duration)>,
    /// Why what is deferred cannot be read again.
    unresumed: Option<String>,
    /// Why it cannot be noted how far it is delivered.
    unnoted: Option<String>,
    /// Records that their topics do not take.
    oversized: usize,
}

impl<T: Send + 'static> Spool<T> {
    /// Opens the spool below `directory`. Returns where each input stood behind its last entry, too.
    fn open(directory: &Path, settings: Settings, bell: Bell) -> Result<(Self, BTreeMap<String, Bytes>), OpenError> {
        let share = (settings.bytes_max / 8).clamp(1 << 20, 16 << 20);
        let options = Options {
            segment_bytes: share,
            queue_bytes: 4 << 20,
            group_bytes: 2 << 20,
            reserve_bytes: RESERVE_BYTES,
            stored_bytes_max: if settings.drops_oldest { u64::MAX } else { settings.bytes_max },
            ..Options::new(directory.join(settings.name))
        };
        let opened = Opened::open(options)?;
        let places = places(&opened);
        let (progress, noted) = Progress::load(directory.join(format!("{}.acked", settings.name)));
        let reader = opened.log().reader(progress.place_in(noted, opened.log()));
        let board = Board::new(bell);
        let journal = opened.start(Scribe::new(Arc::clone(&board), places.clone()))?;
        let spool = Self {
            settings,
            journal,
            board,
            waiting: VecDeque::new(),
            unanswered_bytes: 0,
            reader,
            next: None,
            left: 0,
            transit: Transit::default(),
            streams: HashMap::new(),
            sweep_at: STREAMS_MAX,
            numbers: 0,
            divider: Divider::default(),
            progress,
            note_at: Duration::ZERO,
            open: false,
            calls_back: false,
            dropped: Vec::new(),
            failure: None,
            unreadable: None,
            unresumed: None,
            unnoted: None,
            oversized: 0,
        };
        Ok((spool, places))
    }

    /// Takes an entry; its token comes back from [`Self::take_durable`].
    #[cfg(test)]
    fn append(&mut self, entry: &Entry, token: T) {
        self.waiting.push_back(Queued::new(entry, token));
        self.write();
    }

    /// Hands to the journal what it has room for.
    fn write(&mut self) {
        while let Some(queued) = self.waiting.pop_front() {
            let size = queued.size;
            if let Err(Refused { entry, error }) = self.journal.try_append(queued, size) {
                self.failure = error.map(|error| error.to_string());
                return self.waiting.push_front(entry);
            }
            self.unanswered_bytes += size;
            self.failure = None;
        }
    }

    /// Takes what became durable since the last call.
    fn take_durable(&mut self) -> Vec<T> {
        let news = self.board.take();
        let failed_bytes: usize = news.failed.iter().map(|queued| queued.size).sum();
        self.unanswered_bytes = self.unanswered_bytes.saturating_sub(news.durable_bytes + failed_bytes);
        for queued in news.failed.into_iter().rev() {
            self.waiting.push_front(queued);
        }
        news.durable
    }

    /// Bytes that are not known to be durable.
    fn unwritten_bytes(&self) -> usize {
        self.waiting.iter().map(|queued| queued.size).sum::<usize>() + self.unanswered_bytes
    }

    /// A session began or ended.
    fn set_open(&mut self, open: bool) {
        self.calls_back |= self.open && !open;
        self.open = open;
    }

    fn owns(&self, stream: StreamNumber) -> bool {
        stream.0 & STREAM_KINDS == self.settings.first_stream
    }

    fn acknowledged(&mut self, stream: StreamNumber, first: u64) {
        self.transit.acknowledge(stream, first);
    }

    fn returned(&mut self, parcel: Parcel, why: Returned, now: Now) {
        let (stream, first) = (parcel.stream, parcel.batch.first_offset);
        match why {
            Returned::Corrupt => self.transit.returned(parcel, now.mono + RETRY),
            Returned::Recalled => self.transit.put_back(stream, first),
            Returned::Held { delay } => self.transit.held(stream, first, now.mono + delay),
            Returned::TooLarge { limit } => match self.divider.halves(&parcel) {
                Some(halves) => self.transit.divide(stream, first, halves, now.mono),
                None => {
                    self.oversized = limit.max(1);
                    self.transit.oversized(stream, first, now.mono + RETRY_OVERSIZED);
                }
            },
        }
    }

    /// Does what is due: writes, drops what is over the budget, reads ahead while the window lets it, notes progress. What
    /// the shipper is to do is pushed to `out`. Returns when to come again at the latest.
    fn turn(&mut self, now: Now, out: &mut Vec<Errand>) -> Duration {
        self.left = READS_MAX;
        self.write();
        if self.settings.drops_oldest {
            self.drop_oldest(now);
        }
        if self.open {
            self.read(now);
        }
        if std::mem::take(&mut self.calls_back) && !self.open {
            // In the shipper's hands it could neither be dropped for the budget nor left behind by a run that ends.
            let recall = |stream| Errand::Recall { stream, in_flight: false };
            out.extend(self.transit.streams_out().into_iter().map(recall));
        }
        out.extend(self.transit.due(now.mono).into_iter().map(Errand::Ship));
        if self.transit.is_empty() {
            (self.oversized, self.unresumed) = (0, None);
        }
        self.note_when_due(now);
        self.wake(now)
    }

    fn wake(&self, now: Now) -> Duration {
        if self.left == 0 {
            return now.mono;
        }
        let has_age = self.settings.drops_oldest && self.settings.age_max < Duration::MAX && self.stored_bytes() > 0;
        let readable = self.unreadable.as_ref().map(|(_, again)| *again).filter(|again| *again > now.mono);
        let times = [
            self.transit.next_due(),
            self.transit.next_wanted(now.mono).filter(|_| self.open),
            readable,
            (!self.is_noted()).then_some(self.note_at),
            (!self.waiting.is_empty()).then_some(now.mono + RETRY),
            has_age.then_some(now.mono + AGE),
        ];
        times.into_iter().flatten().min().unwrap_or(Duration::MAX)
    }

    fn has_window(&self) -> bool {
        self.transit.parts() == 0
            || (self.transit.bytes() < self.settings.window_bytes && self.transit.parts() < PARCELS_MAX)
    }

    /// Everything before it is delivered.
    fn settled(&self) -> Position {
        let next = self.next.as_ref().map(|(position, _)| *position);
        self.transit.settled().or(next).unwrap_or_else(|| self.reader.position())
    }

    fn is_noted(&self) -> bool {
        self.progress.is_at(self.settled())
    }

    fn note_when_due(&mut self, now: Now) {
        if now.mono >= self.note_at && !self.is_noted() {
            self.note_at = now.mono + NOTE;
            self.note();
        }
    }

    /// Notes how far the spool is delivered, and gives the disk back what is.
    fn note(&mut self) {
        match self.give_back(self.settled()) {
            Ok(()) => self.unnoted = None,
            Err(error) => {
                if self.unnoted.is_none() {
                    let spool = self.settings.name;
                    tracing::warn!(spool, %error, "cannot note how far it is delivered; it is tried again");
                }
                self.unnoted = Some(error.to_string());
            }
        }
    }

    /// Notes what is settled and removes segments that are. On a full disk they go though it cannot be noted: they make
    /// the room to note it.
    fn give_back(&mut self, settled: Position) -> io::Result<()> {
        let stored = self.progress.store(settled);
        if stored.as_ref().is_err_and(|error| !is_full(error)) {
            return stored;
        }
        let removed = self.journal.remove_below(settled.segment)?;
        if removed > 0 { self.progress.store(settled) } else { stored }
    }

    /// Whether everything that was taken is known to be durable.
    fn is_written(&self) -> bool {
        self.waiting.is_empty() && self.unanswered_bytes == 0
    }

    /// Whether nothing is left to write or to send.
    fn is_empty(&self) -> bool {
        self.is_written() && self.transit.is_empty() && self.stored_bytes() == 0
    }
}

/// The bits of a stream's number that say where it belongs.
const STREAM_KINDS: u64 = 0b11 << 62;

/// Where each input stood behind its last entry: what the head of the last segment says, and the entries behind it.
fn places(opened: &Opened) -> BTreeMap<String, Bytes> {
    let Some((_, last)) = opened.log().bounds() else { return BTreeMap::new() };
    let mut places = opened.log().preamble(last).map_or_else(|_| BTreeMap::new(), |head| decode_places(head.bytes));
    let mut reader = opened.log().reader(Position { segment: last, byte: 0 });
    while let Ok(Some(item)) = reader.try_next() {
        if let Item::Entry { payload, .. } = item
            && let Ok(Entry { input, cursor: Some(cursor), .. }) = Entry::decode(payload)
        {
            places.insert(input, cursor);
        }
    }
    places
}
