//! The embedded index, on tantivy: one directory for each arrival day, one thread that writes.
//!
//! Owns the directory it is given (its layout: [`retention`]; a day's format: [`day`]; what a commit says beside its
//! documents: [`payload`]). Documents are not doubled because every commit carries, atomically with its documents, which
//! bytes of which stream they are ([`coverage`]).
//!
//! All writing is done by one thread ([`committer`]): calls queue up in a bounded channel, their documents are added, and
//! one commit answers for all of them (group commit, paced by [`pacing`]). Searches read a [`View`] and never wait for
//! writers.
//!
//! Memory: the writers' share ([`EmbeddedConfig::memory_bytes`]), what waits for a commit (bounded by
//! [`EmbeddedConfig::commit_bytes_max`], some three times over while parsed), and the intervals (100 bytes for each
//! stream ever indexed). Segments are memory-mapped: the kernel's cache, not ours.

mod calendar;
mod committer;
mod coverage;
mod day;
mod entry;
mod opening;
mod pacing;
mod payload;
mod retention;
pub(crate) mod schema;
#[cfg(test)]
mod tests;
mod view;
mod waiting;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use serde::Serialize;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use self::committer::{Command, Committer};
pub(crate) use self::entry::TIMES;
pub(crate) use self::view::DayView;
pub use self::view::View;
use super::{Index, Mode, Outcome};
use crate::document::Document;

/// Calls that may wait to be taken up by the writing thread.
const QUEUED_CALLS_MAX: usize = 64;

/// tantivy's least memory for a writer thread.
const THREAD_BYTES_MIN: usize = 15_000_000;

/// How the embedded index is kept.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// Where it lives; nothing else may.
    pub directory: PathBuf,
    /// Memory for building segments, in bytes, shared by the writers' threads. Less than 30 MB counts as 30 MB: two days
    /// can be open at once, and tantivy wants 15 MB for each thread.
    pub memory_bytes: usize,
    /// Threads of each day's writer, 1 to 8, as far as the memory reaches.
    pub writer_threads: usize,
    /// Documents after which a commit begins at once.
    pub commit_documents_max: usize,
    /// Bytes of documents after which a commit begins at once.
    pub commit_bytes_max: usize,
    /// Longest that a document waits for a commit to begin.
    pub commit_interval_max: Duration,
    /// Days to keep a directory after its arrival day; `None` keeps all.
    pub retention_days: Option<u32>,
}

impl EmbeddedConfig {
    /// The defaults, in `directory`.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            memory_bytes: 120_000_000,
            writer_threads: 2,
            commit_documents_max: 50_000,
            commit_bytes_max: 32 << 20,
            commit_interval_max: Duration::from_secs(1),
            retention_days: None,
        }
    }
}

/// Why the index cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the index in {} is in use by another process; stop that one, or choose another directory", .0.display())]
    Locked(PathBuf),
    /// The directory cannot be used.
    #[error("cannot use the index directory {}: {source}", .path.display())]
    Directory {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A day cannot be opened, by no fault of its content.
    #[error("cannot open {} of the index: {reason}", .path.display())]
    Day {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// How the index is doing, for health and status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// Why nothing can be written at the moment; gone as soon as something is.
    pub failing: Option<String>,
    /// Directories that could not be opened, set aside as they were found.
    pub damaged: Vec<String>,
    /// Searchable documents.
    pub documents: u64,
    /// Days with a directory.
    pub days: usize,
    /// Streams ever indexed, as far as they are remembered.
    pub streams: usize,
    /// Intervals of bytes that these streams have; as many as streams where nothing is missing in between.
    pub intervals: usize,
    /// Commits since the start.
    pub commits: u64,
    /// Smoothed duration of a commit, in milliseconds.
    pub commit_ms: u64,
}

/// The embedded index. Dropping it without [`close`](Index::close) loses only what no outcome was given for.
pub struct Embedded {
    commands: mpsc::Sender<Command>,
    view: Arc<ArcSwap<View>>,
    state: watch::Receiver<State>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Embedded {
    /// Opens the index, or begins one. Blocks: call it where that does no harm.
    ///
    /// A day whose directory is damaged is moved to `damaged/` and named in [`State::damaged`]; the others go on.
    ///
    /// # Errors
    /// The directory is locked or cannot be used.
    pub fn open(config: EmbeddedConfig) -> Result<Self, OpenError> {
        let (commands, queue) = mpsc::channel(QUEUED_CALLS_MAX);
        let (publish, state) = watch::channel(State::default());
        let directory = config.directory.clone();
        let (committer, view) = Committer::open(config, publish)?;
        let thread = std::thread::Builder::new()
            .name("index".to_owned())
            .spawn(move || committer.run(queue))
            .map_err(|source| OpenError::Directory { path: directory, source })?;
        Ok(Self { commands, view, state, thread: Mutex::new(Some(thread)) })
    }

    /// What is searchable now.
    #[must_use]
    pub fn view(&self) -> View {
        View::clone(&self.view.load())
    }

    /// How the index is doing; changes can be waited for.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Drops the days that are past their retention at `now`; does nothing when all are kept. To be called now and then.
    pub async fn enforce_retention(&self, now: SystemTime) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Retain { now, done }).await.is_ok() {
            let _ = wait.await;
        }
    }

    async fn write(&self, documents: Vec<Document>, mode: Mode) -> Vec<Outcome> {
        let count = documents.len();
        if count == 0 {
            return Vec::new();
        }
        let (answer, outcomes) = oneshot::channel();
        if self.commands.send(Command::Bulk { documents, mode, answer }).await.is_ok()
            && let Ok(outcomes) = outcomes.await
        {
            return outcomes;
        }
        vec![Outcome::Retry { reason: "the index is closed".to_owned(), after: None }; count]
    }

    async fn stop(&self) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Close { done }).await.is_ok() {
            let _ = wait.await;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
            if !matches!(joined, Ok(true)) {
                tracing::error!("the index's writing thread ended with a panic");
            }
        }
    }
}

impl Index for Embedded {
    fn bulk(&self, documents: Vec<Document>, mode: Mode) -> BoxFuture<'_, Vec<Outcome>> {
        Box::pin(self.write(documents, mode))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.stop())
    }
}
