//! The one thread that writes: takes calls, decides about their documents, commits for all of them together.
//!
//! A generation is what was added since the last commit. Its calls are answered together when it is settled: each
//! document by the commit of the day it went to. After a failed commit the day is rebuilt from its directory, its
//! documents are answered `Retry`, and its pending intervals are forgotten, so that the retry is no duplicate.
//!
//! At most [`WRITERS_MAX`] days are open for writing; a further one settles the generation first and closes the day that
//! was opened for writing the longest ago.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    DayView, EmbeddedConfig, OpenError, State, THREAD_BYTES_MIN, View,
    calendar::ArrivalDay,
    coverage::{Coverage, Decision},
    day::{Day, DayError, WriterShape},
    entry::EntryReader,
    opening::{OpenDays, load_dropped, open_days},
    pacing::{Pace, Pacing},
    retention::{Dropped, Layout},
    schema,
    waiting::{Verdict, Waiting},
};
use crate::{
    document::Document,
    index::{Mode, Outcome},
};

/// Days open for writing at once: today, and the one before while it still arrives.
const WRITERS_MAX: usize = 2;

/// How soon to try again after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the writing thread is asked to do.
pub(crate) enum Command {
    /// Write documents.
    Bulk { documents: Vec<Document>, mode: Mode, answer: oneshot::Sender<Vec<Outcome>> },
    /// Drop days that are past their retention.
    Retain { now: SystemTime, done: oneshot::Sender<()> },
    /// Commit, and end.
    Close { done: oneshot::Sender<()> },
}

/// State of the writing thread.
pub(crate) struct Committer {
    config: EmbeddedConfig,
    layout: Layout,
    days: BTreeMap<ArrivalDay, Day>,
    dropped: Dropped,
    coverage: Coverage,
    entries: EntryReader,
    pacing: Pacing,
    waiting: Vec<Waiting>,
    /// Days open for writing, the longest open first.
    writing: Vec<ArrivalDay>,
    /// Days whose generation is lost, and why.
    broken: BTreeMap<ArrivalDay, String>,
    next_sequence: u64,
    view: Arc<ArcSwap<View>>,
    state: State,
    publish: watch::Sender<State>,
    _lock: File,
}

impl Committer {
    /// Opens all days.
    pub(crate) fn open(
        config: EmbeddedConfig,
        publish: watch::Sender<State>,
    ) -> Result<(Self, Arc<ArcSwap<View>>), OpenError> {
        let unusable = |source| OpenError::Directory { path: config.directory.clone(), source };
        let layout = Layout::prepare(&config.directory).map_err(unusable)?;
        let Some(lock) = layout.lock().map_err(unusable)? else {
            return Err(OpenError::Locked(config.directory.clone()));
        };
        let mut state = State::default();
        let dropped = load_dropped(&layout, &mut state).map_err(unusable)?;
        let days = open_days(&layout, &mut state).map_err(|error| match error {
            OpenDays::List(source) => unusable(source),
            OpenDays::Day(error) => error,
        })?;
        let mut coverage = Coverage::default();
        coverage.reset(days.values().map(|day| &day.committed().intervals), dropped.union());
        let next_sequence = days.values().map(|day| day.committed().next_sequence).max().unwrap_or(0);
        let empty = View { days: Arc::new([]), fields: schema::schema_fields(), next_sequence };
        let view = Arc::new(ArcSwap::from_pointee(empty));
        let mut committer = Self {
            pacing: Pacing::new(Pace {
                documents_max: config.commit_documents_max,
                bytes_max: config.commit_bytes_max,
                gather: Duration::from_millis(20),
                interval_max: config.commit_interval_max,
            }),
            config,
            layout,
            days,
            dropped,
            coverage,
            entries: EntryReader::default(),
            waiting: Vec::new(),
            writing: Vec::new(),
            broken: BTreeMap::new(),
            next_sequence,
            view: Arc::clone(&view),
            state,
            publish,
            _lock: lock,
        };
        committer.publish();
        Ok((committer, view))
    }

    /// Works until it is told to close, or until nobody can ask any more.
    pub(crate) fn run(mut self, queue: mpsc::Receiver<Command>) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "the index's writing thread cannot start");
                return;
            }
        };
        runtime.block_on(self.work(queue));
    }

    async fn work(&mut self, mut queue: mpsc::Receiver<Command>) {
        loop {
            let command = match self.pacing.due() {
                None => queue.recv().await,
                Some(due) if due <= Instant::now() => {
                    self.settle();
                    continue;
                }
                Some(due) => match tokio::time::timeout_at(due.into(), queue.recv()).await {
                    Ok(command) => command,
                    Err(_) => continue,
                },
            };
            match command {
                Some(Command::Bulk { documents, mode, answer }) => self.take(&documents, mode, answer),
                Some(Command::Retain { now, done }) => {
                    self.settle();
                    self.retain(now);
                    let _ = done.send(());
                }
                Some(Command::Close { done }) => {
                    queue.close();
                    self.settle();
                    self.days.clear();
                    let _ = done.send(());
                    return;
                }
                None => return,
            }
        }
    }

    /// Decides about the documents of one call and adds those that are new.
    fn take(&mut self, documents: &[Document], mode: Mode, answer: oneshot::Sender<Vec<Outcome>>) {
        if let Err(error) = self.refresh() {
            let reason = format!("what was committed cannot be made searchable: {error}");
            self.note_failure(&reason);
            let _ = answer.send(vec![retry(&reason); documents.len()]);
            return;
        }
        let now = Instant::now();
        // The call waits before its documents are decided about: a change of days may settle some of them on the way.
        self.waiting.push(Waiting::new(documents.len(), answer));
        for document in documents {
            let verdict = self.place(document, mode, now);
            if let Some(waiting) = self.waiting.last_mut() {
                waiting.verdicts.push(verdict);
            }
        }
        for key in self.writing.clone() {
            let handed_over = self.days.get_mut(&key).map_or(Ok(()), Day::hand_over);
            self.note_outcome(key, handed_over);
        }
        if self.broken.is_empty() {
            self.answer_what_is_known();
        } else {
            self.settle();
        }
    }

    /// Makes every day searchable again that an error left stale, and takes in what its directory turned out to hold.
    fn refresh(&mut self) -> Result<(), DayError> {
        let stale: Vec<ArrivalDay> = self.days.iter().filter(|(_, day)| !day.is_fresh()).map(|(key, _)| *key).collect();
        for key in &stale {
            if let Some(day) = self.days.get_mut(key) {
                day.refresh()?;
            }
            self.take_in(*key);
        }
        if !stale.is_empty() {
            self.publish();
        }
        Ok(())
    }

    /// A commit that failed late may have been made all the same: the directory decides what is covered.
    fn take_in(&mut self, key: ArrivalDay) {
        if let Some(day) = self.days.get(&key) {
            self.coverage.add_committed(&day.committed().intervals);
            self.next_sequence = self.next_sequence.max(day.committed().next_sequence);
        }
    }

    /// Decides about one document, and adds it if it is new.
    fn place(&mut self, document: &Document, mode: Mode, now: Instant) -> Verdict {
        if document.end_offset <= document.offset {
            let reason = format!("its end offset {} is not after its offset {}", document.end_offset, document.offset);
            return Verdict::Final(Outcome::Rejected { reason });
        }
        let arrival = ArrivalDay::of(document.received_unix_nano);
        let days = &self.days;
        let find = |document: &Document| {
            for (key, day) in days.iter().rev() {
                if day.holds(document.stream_key, document.offset, &document.id)? {
                    return Ok(Some(*key));
                }
            }
            Ok::<_, DayError>(None)
        };
        match self.coverage.decide(document, mode, find) {
            Ok(Decision::Exists) => Verdict::Final(Outcome::Exists),
            Ok(Decision::SameAsPending(key)) => Verdict::With(key, Outcome::Exists),
            Ok(Decision::Add { replace }) => self.add(document, arrival, replace, now),
            Err(error) => {
                self.note_outcome(arrival, Err(error));
                Verdict::With(arrival, Outcome::Created)
            }
        }
    }

    fn add(&mut self, document: &Document, arrival: ArrivalDay, replace: Option<ArrivalDay>, now: Instant) -> Verdict {
        // A replacement goes to where the document is: both in one commit, so that no crash can leave two or none.
        let key = replace.unwrap_or(arrival);
        let created = Verdict::With(key, Outcome::Created);
        let opened = self.open_for_writing(key);
        self.note_outcome(key, opened);
        let fields = schema::schema_fields();
        let entry = match self.entries.read(document, fields, self.next_sequence) {
            Ok(entry) => entry,
            Err(reason) => return Verdict::Final(Outcome::Rejected { reason }),
        };
        let Some(day) = self.days.get_mut(&key).filter(|_| !self.broken.contains_key(&key)) else { return created };
        self.next_sequence += 1;
        let place = (document.stream_key, document.offset, document.end_offset);
        let added = day.add(entry, place, document.timestamp_unix_nano, replace.map(|_| &document.id));
        self.coverage.added(document, key);
        self.pacing.added(1, document.body.len(), now);
        self.note_outcome(key, added);
        created
    }

    /// Opens a day and its writer; to make room for it, settles what waits and closes another.
    fn open_for_writing(&mut self, key: ArrivalDay) -> Result<(), DayError> {
        if self.writing.contains(&key) {
            return Ok(());
        }
        if self.writing.len() >= WRITERS_MAX {
            self.settle();
        }
        // A day whose commit failed has closed its writer by itself.
        while self.writing.len() >= WRITERS_MAX {
            let longest_open = self.writing.remove(0);
            if let Some(day) = self.days.get_mut(&longest_open) {
                day.close_writer();
            }
        }
        let day = match self.days.entry(key) {
            Entry::Occupied(day) => day.into_mut(),
            Entry::Vacant(place) => place.insert(Day::open(&self.layout.day(key))?),
        };
        day.open_writer(writer_shape(&self.config))?;
        self.writing.push(key);
        Ok(())
    }

    /// Commits what was added, and answers everybody who waits for it.
    fn settle(&mut self) {
        let began = Instant::now();
        let mut keys = self.writing.clone();
        keys.extend(self.broken.keys().filter(|key| !self.writing.contains(key)));
        let mut committed = 0;
        for key in keys {
            let Some(day) = self.days.get_mut(&key) else { continue };
            if !self.broken.contains_key(&key) && day.is_dirty() {
                let next_sequence = self.next_sequence;
                let outcome = catch_unwind(AssertUnwindSafe(|| day.commit(next_sequence))).unwrap_or_else(|_| {
                    Err(DayError::Io(std::io::Error::other("a panic in the index; see the log above")))
                });
                committed += usize::from(outcome.is_ok());
                self.note_outcome(key, outcome);
            }
            let lost = self.broken.contains_key(&key);
            self.coverage.settle(key, !lost);
            if lost {
                self.rebuild(key);
            }
        }
        if committed > 0 {
            self.state.commits += 1;
            if self.broken.is_empty() {
                self.state.failing = None;
            }
        }
        self.pacing.committed(began, Instant::now());
        self.publish();
        self.resolve();
    }

    /// Turns what hung on a commit into outcomes, and answers.
    fn resolve(&mut self) {
        let broken = std::mem::take(&mut self.broken);
        for verdict in self.waiting.iter_mut().flat_map(|waiting| &mut waiting.verdicts) {
            let resolved = match verdict {
                Verdict::Final(_) => continue,
                Verdict::With(key, outcome) => broken.get(key).map_or_else(|| outcome.clone(), |reason| retry(reason)),
            };
            *verdict = Verdict::Final(resolved);
        }
        self.answer_what_is_known();
    }

    fn answer_what_is_known(&mut self) {
        let (known, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(Waiting::is_known);
        self.waiting = waiting;
        let known: Vec<Waiting> = known;
        known.into_iter().for_each(Waiting::answer);
    }

    /// Reads a day whose generation is lost again from its directory.
    fn rebuild(&mut self, key: ArrivalDay) {
        self.writing.retain(|day| *day != key);
        let Some(day) = self.days.get_mut(&key) else { return };
        match day.rebuild() {
            Ok(()) => self.take_in(key),
            Err(error) => {
                tracing::error!(day = %key, %error, "a day of the index cannot be read again; trying again later");
            }
        }
    }

    fn note_outcome(&mut self, key: ArrivalDay, outcome: Result<(), DayError>) {
        let Err(error) = outcome else { return };
        let reason = if error.is_disk_full() {
            format!("the disk of the index is full; free some space ({error})")
        } else {
            format!("the index cannot be written: {error}")
        };
        self.note_failure(&reason);
        self.broken.entry(key).or_insert(reason);
    }

    fn note_failure(&mut self, reason: &str) {
        if self.state.failing.is_none() {
            tracing::error!(reason, "writing to the index fails; documents wait");
        }
        self.state.failing = Some(reason.to_owned());
        self.publish.send_replace(self.state.clone());
    }

    /// Shows searches what is committed, and everybody how the index is doing.
    fn publish(&mut self) {
        let days: Vec<DayView> = self.days.values().rev().map(|day| DayView { searcher: day.searcher() }).collect();
        let view = View { days: days.into(), fields: schema::schema_fields(), next_sequence: self.next_sequence };
        let state = &mut self.state;
        state.documents = view.documents();
        state.days = view.days.len();
        (state.streams, state.intervals) = self.coverage.size();
        state.commit_ms = u64::try_from(self.pacing.commit_duration().as_millis()).unwrap_or(u64::MAX);
        self.view.store(Arc::new(view));
        self.publish.send_replace(self.state.clone());
    }

    /// Drops the days that are past their retention. Nothing may wait for a commit.
    fn retain(&mut self, now: SystemTime) {
        let Some(days) = self.config.retention_days else { return };
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let oldest_kept = ArrivalDay::of(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)).minus(days);
        let old: Vec<ArrivalDay> = self.days.range(..oldest_kept).map(|(key, _)| *key).collect();
        if old.is_empty() {
            return;
        }
        for key in &old {
            if let Some(day) = self.days.get(key) {
                self.dropped.add(*key, &day.committed().intervals);
            }
        }
        self.dropped.forget_before(oldest_kept);
        if let Err(error) = self.dropped.save(&self.layout) {
            tracing::error!(%error, "days past their retention stay: what they held cannot be noted");
            return;
        }
        for key in old {
            self.writing.retain(|day| *day != key);
            self.days.remove(&key);
            match self.layout.drop_day(key) {
                Ok(()) => tracing::info!(day = %key, "dropped a day of the index that is past its retention"),
                Err(error) => tracing::error!(day = %key, %error, "a day past its retention cannot be removed"),
            }
        }
        self.coverage.reset(self.days.values().map(|day| &day.committed().intervals), self.dropped.union());
        self.publish();
    }
}

fn retry(reason: &str) -> Outcome {
    Outcome::Retry { reason: reason.to_owned(), after: Some(RETRY_AFTER) }
}

fn writer_shape(config: &EmbeddedConfig) -> WriterShape {
    let writer_bytes = config.memory_bytes / WRITERS_MAX;
    let threads = config.writer_threads.clamp(1, 8).min(writer_bytes / THREAD_BYTES_MIN).max(1);
    let thread_bytes = (writer_bytes / threads).clamp(THREAD_BYTES_MIN, 4_000_000_000);
    WriterShape { threads, thread_bytes }
}
