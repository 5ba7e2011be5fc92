//! The tailer: from files to batches, and from answers to checkpoints.
//!
//! Owns all state of all files. One thread drives it (see [`drive`]); it waits for nothing but the disk. A turn takes
//! hints, walks a directory, attends to files whose time has come, and reads a quantum of each file that is ready, one
//! after the other, while the window lets it. It has no clock, no thread and no socket of its own, so that a test can
//! drive it over the fake file system through any schedule.
//!
//! - `found.rs`: a file found, and which generation it is;
//! - `resemble.rs`: a new inode that looks like a known generation;
//! - `archives.rs`, `unpack.rs`, `archived.rs`: archives, the passes over them, what they are and reading them;
//! - `past.rs`: generations that may turn up in one;
//! - `attend.rs`: what changed about a file, and what is to be done when;
//! - `turns.rs`, `throttle.rs`, `schedule.rs`: whose turn it is, at what rate, and taking it;
//! - `rate.rs`: how quickly a stream is read, for how long its batches wait for company;
//! - `visit.rs`: reading, cutting, building;
//! - `dropped.rs`: cuts of which nothing is sent;
//! - `padding.rs`: room in a file that is not written yet;
//! - `descriptors.rs`: which files are held open;
//! - `answers.rs`: acknowledgements and refusals;
//! - `handover.rs`: deleted files that go to the spool;
//! - `orphans.rs`: batches that came back and whose file is gone;
//! - `keep.rs`: state on disk, and generations that are over;
//! - `save.rs`: how often which of it is written;
//! - `unseen.rs`: what was gone before it was seen;
//! - `walk.rs`: hints and walks;
//! - `watching.rs`: where hints come from, and what is done without them.

mod answers;
mod archived;
mod archives;
mod attend;
mod block;
mod descriptors;
pub mod drive;
mod dropped;
mod found;
mod group;
mod handover;
mod heads;
mod keep;
mod orphans;
mod padding;
mod past;
mod rate;
mod resemble;
mod save;
mod schedule;
mod source;
mod status;
#[cfg(test)]
mod tests;
mod throttle;
mod turns;
mod unpack;
mod unseen;
mod visit;
mod walk;
pub mod watching;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use logmesh_proto::{Limits, Opener, RecordsBuilder, SealError, Sealer, v1};

pub use group::GroupRules;
pub use status::{FileStatus, Snapshot, Tally};

use crate::{
    clock::Now,
    discovery::{Hint, Patterns},
    filesystem::Filesystem,
    identity::StreamId,
    inflate::Content,
    kubernetes::{Container, Kubernetes},
    lines::{CutLimits, Framing},
    losses::Losses,
    mailbox::Rest,
    parcel::{Errand, StreamNumber},
    state::{Recovered, Store, Trust},
};
use archives::Archives;
use block::Block;
use heads::HeadIndex;
use past::PastGenerations;
use source::{FileKey, Source};
use throttle::Throttle;
use turns::{QUANTUM_BYTES, Turns};
use unseen::Unseen;

/// Batches that may be out at once; with the byte limit it bounds every queue to the shipper.
pub const PARCELS_MAX: usize = 1024;

/// Longest that what a file has may wait for company.
pub const LINGER_MAX: Duration = pace::LINGER_MAX;

/// Files attended to in one turn for their time has come.
const TIMERS_MAX: usize = 4096;

/// What the tailer is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which files.
    pub patterns: Patterns,
    /// For each group, what is said of its streams; the path is filled in.
    pub infos: Vec<v1::StreamInfo>,
    /// For each group, what its records are.
    pub framings: Vec<Framing>,
    /// For each group, whether its archives are read.
    pub compressed: Vec<bool>,
    /// For each group, what else is said of it.
    pub groups: Vec<GroupRules>,
    /// How batches are cut.
    pub limits: CutLimits,
    /// After how long without growth an unterminated rest is sent.
    pub partial_flush: Duration,
    /// Encoded bytes that may be unacknowledged.
    pub window_bytes: usize,
    /// How batches are compressed.
    pub codec: v1::Codec,
    /// Whether what is left of deleted files goes to the spool; if not, it is given up and counted.
    pub spools_deleted: bool,
    /// Files held open at most; others are opened when they change.
    pub files_open_max: usize,
    /// Whether no agent can have run with these files before, so that nothing can be a resend.
    pub fresh: bool,
}

/// How often things are done. All are durations without growth or since the last time.
pub(crate) mod pace {
    use std::time::Duration;

    /// A new inode that resembles a known generation, and a truncated generation whose copy may turn up.
    pub(crate) const SETTLE: Duration = Duration::from_secs(5);
    /// A look at a file that was active lately, in case a hint was lost.
    pub(crate) const LOOK_ACTIVE: Duration = Duration::from_millis(500);
    /// The same without hints.
    pub(crate) const LOOK_POLLING: Duration = Duration::from_millis(250);
    /// How long after a change another one may show no other time of change.
    pub(crate) const DOUBT: Duration = Duration::from_secs(2);
    /// How long a file counts as active.
    pub(crate) const ACTIVE: Duration = Duration::from_secs(30);
    /// A deleted file that is read and acknowledged is closed.
    pub(crate) const DELETED_KEPT: Duration = Duration::from_secs(30);
    /// The same for one that was renamed out of scope.
    pub(crate) const RENAMED_KEPT: Duration = Duration::from_secs(300);
    /// A generation whose file has vanished, and may turn up on another inode.
    pub(crate) const VANISHED_KEPT: Duration = Duration::from_secs(600);
    /// Between two walks while hints come.
    pub(crate) const WALK: Duration = Duration::from_secs(10);
    /// Between two walks without hints.
    pub(crate) const WALK_POLLING: Duration = Duration::from_secs(2);
    /// Between two checkpoints.
    pub(crate) const CHECKPOINT: Duration = Duration::from_secs(1);
    /// Before something that failed for a reason outside is tried again.
    pub(crate) const RETRY: Duration = Duration::from_secs(1);
    /// Bytes of a record from which on it is not looked at again for every line that is added to it.
    pub(crate) const PENDING_LONG: u64 = 16 * 1024;
    /// A look at such a record.
    pub(crate) const LOOK_PENDING: Duration = Duration::from_millis(100);
    /// Linger of a slow stream, and of one at or above [`FAST`].
    pub(crate) const LINGER_MIN: Duration = Duration::from_millis(2);
    /// See [`LINGER_MIN`].
    pub(crate) const LINGER_MAX: Duration = Duration::from_millis(200);
    /// Bytes a second.
    pub(crate) const FAST: f64 = 10_000_000.0;
    /// Bytes a second from which on a stream's batches wait for company even while nothing of it is on its way.
    pub(crate) const QUICK: f64 = 5_000_000.0;
    /// While a stream is quick, hints and answers are heard this often: each wakes a thread, and few bring more to do. As
    /// long as the longest linger, so that all that has come leaves together.
    pub(crate) const REST: Duration = LINGER_MAX;
}

/// Bytes and batches on their way.
#[derive(Debug, Default)]
struct Window {
    bytes: usize,
    parcels: usize,
    /// The session's credit; `None` without one.
    credit: Option<u64>,
}

/// What this agent made itself is of any size.
const OWN_LIMITS: Limits =
    Limits { encoded_bytes_max: u32::MAX, uncompressed_bytes_max: u32::MAX, records_max: u32::MAX };

/// A record that its topic does not take.
#[derive(Clone, Copy, Debug)]
struct Oversized {
    /// Size of the batch that holds nothing else, in bytes.
    encoded: usize,
    /// What the topic takes; 0 where the gateway did not say.
    limit: usize,
}

/// Reads ahead of credit by so much at most, so that a batch is ready when an answer comes.
const AHEAD_BYTES: u64 = 512 * 1024;

impl Window {
    fn is_open(&self, window_bytes: usize) -> bool {
        let ahead = self.credit.unwrap_or(0).saturating_add(AHEAD_BYTES);
        let limit = window_bytes.min(usize::try_from(ahead).unwrap_or(usize::MAX));
        self.parcels == 0 || (self.bytes < limit && self.parcels < PARCELS_MAX)
    }
}

/// See the module.
pub struct Tailer<F: Filesystem> {
    filesystem: F,
    settings: Settings,
    store: Store,
    /// All generations, over or not.
    sources: BTreeMap<StreamNumber, Source<Content<F::Handle>>>,
    /// The generation that each file is in now.
    by_key: HashMap<FileKey, StreamNumber>,
    by_path: HashMap<PathBuf, StreamNumber>,
    heads: HeadIndex,
    /// Stream ids of all generations.
    ids: HashSet<StreamId>,
    descriptors: descriptors::Descriptors,
    turns: Turns,
    /// By group, where there is a limit.
    throttles: BTreeMap<usize, Throttle>,
    /// Bytes that the visit under way may read.
    quantum: usize,
    timers: BTreeSet<(Duration, StreamNumber)>,
    next_number: u64,
    window: Window,
    /// Limits of the session.
    limits: CutLimits,
    sealer: Sealer,
    /// Opens batches of our own that are to be taken apart.
    opener: Opener,
    /// Lone records that their topics refused for their size, by generation and offset.
    oversized: BTreeMap<(StreamNumber, u64), Oversized>,
    records: RecordsBuilder,
    block: Block,
    errands: Vec<Errand>,
    handover: handover::Handover,
    walk: walk::Walk,
    /// Whether this run began without state that can be relied on.
    trust: Trust,
    checkpoint: Checkpointing,
    tally: Tally,
    losses: Losses,
    unseen: Unseen,
    /// Generations whose files were seen to be gone in this turn.
    newly_gone: Vec<StreamNumber>,
    /// Until when some stream counts as quick.
    quick_until: Duration,
    unreadable: BTreeMap<PathBuf, Unreadable>,
    archives: Archives<F::Handle>,
    past: PastGenerations,
    random: fn() -> u64,
}

impl<F: Filesystem> std::fmt::Debug for Tailer<F> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tailer").field("sources", &self.sources.len()).finish_non_exhaustive()
    }
}

/// A path that cannot be read.
#[derive(Debug)]
struct Unreadable {
    reason: String,
    /// The last walk that said so; the next one that does not come upon it again forgets it.
    walk: u64,
}

#[derive(Debug, Default)]
struct Checkpointing {
    dirty: bool,
    next: Duration,
    done_at: Duration,
    /// When all generations are written again, and not only what changed.
    whole_next: Duration,
    /// As if the state were so large that no second checkpoint is ever due.
    #[cfg(test)]
    changes_alone: bool,
    failure: Option<String>,
    /// Whether the cut log takes nothing until a checkpoint has begun a new one: nothing new is cut.
    log_broken: bool,
    day: u64,
}

impl<F: Filesystem> Tailer<F> {
    /// Begins with what was recovered.
    ///
    /// # Errors
    /// The compressor found no memory.
    pub fn new(filesystem: F, settings: Settings, store: Store, recovered: Recovered) -> Result<Self, SealError> {
        let (past, ended) = archives::recall(&store, &settings.compressed);
        let limited = settings.groups.iter().enumerate();
        let throttles = limited.filter_map(|(group, rules)| Some((group, Throttle::new(rules.rate_limit?)))).collect();
        let mut tailer = Self {
            filesystem,
            sealer: Sealer::new(settings.codec)?,
            opener: Opener::new(OWN_LIMITS),
            oversized: BTreeMap::new(),
            limits: settings.limits,
            store,
            sources: BTreeMap::new(),
            by_key: HashMap::new(),
            by_path: HashMap::new(),
            heads: HeadIndex::default(),
            ids: HashSet::new(),
            descriptors: descriptors::Descriptors::new(settings.files_open_max),
            turns: Turns::default(),
            throttles,
            quantum: QUANTUM_BYTES,
            timers: BTreeSet::new(),
            next_number: 0,
            window: Window::default(),
            records: RecordsBuilder::new(),
            block: Block::default(),
            errands: Vec::new(),
            handover: handover::Handover::default(),
            walk: walk::Walk::default(),
            trust: recovered.trust,
            checkpoint: Checkpointing { dirty: true, ..Checkpointing::default() },
            tally: Tally::default(),
            losses: Losses::default(),
            unseen: Unseen::default(),
            newly_gone: Vec::new(),
            quick_until: Duration::ZERO,
            unreadable: BTreeMap::new(),
            archives: Archives::default(),
            past,
            random: rand::random,
            settings,
        };
        for remembered in recovered.generations {
            tailer.remember(remembered);
        }
        // One that was begun again after it ended lives.
        let living: HashSet<_> = tailer.sources.values().filter_map(|source| source.stream_id).collect();
        let ended = ended.into_iter().filter(|past| !living.contains(&past.generation.stream_id));
        ended.for_each(|past| tailer.recall(past));
        Ok(tailer)
    }

    /// Does a bounded amount of work; what is to be shipped is pushed to `out`. Returns when to come again at the latest.
    pub fn turn(&mut self, now: Now, hints: Vec<Hint>, out: &mut Vec<Errand>) -> Duration {
        self.date_gone(now);
        self.take_hints(hints, now);
        self.tell_unseen(now);
        self.walk_on(now);
        self.fire_timers(now);
        let inflate_on = self.inflate_on(now);
        self.visit_leaving(now);
        let read_on = self.visit_ready(now) || inflate_on;
        self.checkpoint_when_due(now);
        out.append(&mut self.errands);
        let leaves_on = self.handover.has_room() && !self.handover.ready.is_empty();
        if read_on || leaves_on || !self.newly_gone.is_empty() {
            return now.mono;
        }
        let timer = self.timers.first().map_or(Duration::MAX, |(at, _)| *at);
        let checkpoint = if self.checkpoint.dirty { self.checkpoint.next } else { Duration::MAX };
        let throttled = self.throttled_until().unwrap_or(Duration::MAX);
        let others = checkpoint.min(self.archives.next_due()).min(throttled).min(self.unseen.next_due());
        timer.min(self.next_step(now.mono)).min(others)
    }

    /// How long it is in no hurry, however files change. Answers may wait as long while there is room for what comes.
    #[must_use]
    pub fn rest(&self, now: Now) -> Rest {
        let time = if now.mono < self.quick_until { pace::REST } else { Duration::ZERO };
        Rest { time, answers_wait: self.window.is_open(self.settings.window_bytes) }
    }

    /// Stops reading: a last checkpoint. Returns whether everything that was read is acknowledged.
    pub fn stop(&mut self) -> bool {
        self.write_checkpoint(true);
        self.is_settled()
    }

    /// Whether everything that was read is acknowledged.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.window.parcels == 0 && self.sources.values().all(|source| source.progress.to_build().is_none())
    }

    fn fire_timers(&mut self, now: Now) {
        for _ in 0..TIMERS_MAX {
            let Some(&(at, number)) = self.timers.first().filter(|(at, _)| *at <= now.mono) else { return };
            self.timers.pop_first();
            if let Some(source) = self.sources.get_mut(&number)
                && source.timer == Some(at)
            {
                source.timer = None;
                self.attend(number, now);
            }
        }
    }

    /// Has a file attended to at `at` or before.
    fn arm(&mut self, number: StreamNumber, at: Duration) {
        let Some(source) = self.sources.get_mut(&number) else { return };
        if let Some(armed) = source.timer {
            if armed <= at {
                return;
            }
            self.timers.remove(&(armed, number));
        }
        source.timer = Some(at);
        self.timers.insert((at, number));
    }

    fn framing(&self, group: usize) -> Framing {
        self.settings.framings.get(group).cloned().unwrap_or_default()
    }

    fn rules(&self, group: usize) -> GroupRules {
        self.settings.groups.get(group).cloned().unwrap_or_default()
    }

    fn info(&self, group: usize, path: &Path) -> Arc<v1::StreamInfo> {
        let mut info = self.settings.infos.get(group).cloned().unwrap_or_default();
        info.path = path.to_string_lossy().into_owned();
        if let Some(container) = self.container(group, path) {
            for (key, value) in container.labels() {
                info.labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
            }
            if info.service.is_empty() {
                info.service = container.name;
            }
        }
        Arc::new(info)
    }

    /// The container that a file is the log of, by its path; where that is the kubelet's link, its target has the pod's uid.
    fn container(&self, group: usize, path: &Path) -> Option<Container> {
        let kubernetes = self.settings.groups.get(group).map_or_else(Kubernetes::default, |rules| rules.kubernetes);
        let container = kubernetes.read(path)?;
        let target = if container.uid.is_none() { self.filesystem.resolve(path).ok() } else { None };
        let uid = target.and_then(|target| Kubernetes::On.read(&target)).and_then(|target| target.uid);
        Some(Container { uid: container.uid.clone().or(uid), ..container })
    }
}
