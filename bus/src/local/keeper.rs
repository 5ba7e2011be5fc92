//! The one thread that makes commits durable and removes what nobody needs any more.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::codec::Starts;
use super::commits::{CommitFile, Groups, Kept};
use super::shared::Shared;
use super::store::{Store, start_of};
use crate::{BusError, TopicPartition};

/// How long after a failure the next attempt is made.
const RETRY: Duration = Duration::from_millis(250);

/// Where commits are handed in: a count of requests, and how many of them are durable.
#[derive(Debug)]
pub(super) struct Desk {
    inner: Mutex<Inner>,
    changed: Condvar,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
struct Inner {
    requested: u64,
    closing: bool,
}

/// How far the keeper is.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// Requests up to this one are durable.
    durable: u64,
    /// Requests up to this one were tried last, and failed.
    failed: Option<(u64, String)>,
    ended: bool,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self { inner: Mutex::default(), changed: Condvar::new(), progress: watch::channel(Progress::default()).0 }
    }

    /// Asks for what stands now to be made durable; the future says when it is. To be called behind the change that is meant.
    pub(super) fn request(&self) -> BoxFuture<'static, Result<(), BusError>> {
        let mut inner = self.lock();
        inner.requested += 1;
        let request = inner.requested;
        drop(inner);
        self.changed.notify_all();
        let mut progress = self.progress.subscribe();
        Box::pin(async move {
            let told = progress.wait_for(|progress| {
                let failed = progress.failed.as_ref().is_some_and(|(tried, _)| *tried >= request);
                progress.durable >= request || failed || progress.ended
            });
            match told.await {
                Ok(progress) if progress.durable >= request => Ok(()),
                Ok(progress) => match &progress.failed {
                    Some((_, reason)) => Err(BusError::Unavailable { reason: reason.clone() }),
                    None => Err(BusError::Closed),
                },
                Err(_) => Err(BusError::Closed),
            }
        })
    }

    /// Lets the keeper end once everything that was requested has been tried.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    /// Resolves when the keeper has ended.
    pub(super) async fn ended(&self) {
        let mut progress = self.progress.subscribe();
        // An error says that the keeper is gone as well.
        let _ = progress.wait_for(|progress| progress.ended).await;
    }

    /// Waits for a request beyond `done`, then lingers so that others can join it. `None`: closing, and nothing is left.
    fn wait(&self, done: u64, linger: Duration) -> Option<u64> {
        let mut inner = self.lock();
        while inner.requested == done {
            if inner.closing {
                return None;
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + linger;
        while !inner.closing {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(inner.requested)
    }

    fn is_closing(&self) -> bool {
        self.lock().closing
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keeper's work.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    file: CommitFile,
    /// Topics of which it was said that nobody reads them.
    unread: BTreeSet<String>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, file: CommitFile) -> Self {
        Self { shared, file, unread: BTreeSet::new() }
    }

    /// Serves the desk until it closes.
    pub(super) fn run(mut self) {
        let mut done = 0;
        let mut linger = self.shared.options.commit_linger;
        self.remove();
        while let Some(requested) = self.shared.desk.wait(done, linger) {
            match self.write() {
                Ok(()) => {
                    done = requested;
                    linger = self.shared.options.commit_linger;
                    self.shared.conditions.commits(None);
                    self.shared.desk.progress.send_modify(|progress| {
                        progress.durable = requested;
                        progress.failed = None;
                    });
                    self.remove();
                }
                Err(reason) => {
                    linger = RETRY;
                    self.shared.conditions.commits(Some(&reason));
                    self.shared.desk.progress.send_modify(|progress| progress.failed = Some((requested, reason)));
                    if self.shared.desk.is_closing() {
                        break;
                    }
                }
            }
        }
        self.shared.desk.progress.send_modify(|progress| progress.ended = true);
    }

    fn write(&self) -> Result<(), String> {
        let groups = self.snapshot();
        self.file.replace(&groups).map_err(|error| {
            format!("the commit file in {} cannot be written: {error}", self.shared.options.directory.display())
        })?;
        let mut held = self.shared.groups();
        for (name, kept) in groups {
            let Some(group) = held.get_mut(&name) else { continue };
            for (partition, committed) in kept.commits {
                group.set_durable(&partition, committed);
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> Groups {
        let groups = self.shared.groups();
        let keep = |group: &super::group::Group| Kept {
            topics: group.topics.clone(),
            commits: group
                .partitions()
                .filter_map(|(name, partition)| Some((name.clone(), partition.committed?)))
                .collect(),
        };
        groups.iter().map(|(name, group)| (name.clone(), keep(group))).collect()
    }

    /// Removes segments that every group is beyond.
    fn remove(&mut self) {
        let shared = self.shared.clone();
        for store in &shared.stores {
            let limit = self.needed_from(store);
            if let Err(error) = store.journal.remove_below(limit) {
                let directory = store.journal.log().directory().display();
                tracing::warn!(%directory, %error, "a segment that is not needed any more cannot be removed");
            }
        }
    }

    /// The lowest segment that is still needed.
    fn needed_from(&mut self, store: &Store) -> u64 {
        let segments = store.journal.log().segments();
        let Some(first) = segments.first() else { return 0 };
        let base = store.starts(first.number).map(|starts| (*starts).clone()).unwrap_or_default();
        let mut needed = first.number;
        for segment in &segments[1..] {
            // One whose header is damaged says nothing: the next one decides for both.
            let Ok(starts) = store.starts(segment.number) else { continue };
            if !self.all_are_beyond(&base, &starts) {
                break;
            }
            needed = segment.number;
        }
        needed
    }

    /// Whether every record from `base` up to `starts` is committed by all groups that read it, of which there is one at least.
    fn all_are_beyond(&mut self, base: &Starts, starts: &Starts) -> bool {
        let shared = self.shared.clone();
        let groups = shared.groups();
        for (topic, offsets) in starts {
            let name: Arc<str> = topic.as_str().into();
            let readers: Vec<_> = groups.values().filter(|group| group.reads(topic)).collect();
            for (number, offset) in (0_u16..).zip(offsets) {
                if *offset <= start_of(base, &(name.clone(), number)) {
                    continue;
                }
                if readers.is_empty() {
                    if self.unread.insert(topic.clone()) {
                        tracing::warn!(
                            topic,
                            "records are kept that no group reads: they hold disk space until one does"
                        );
                    }
                    return false;
                }
                let partition = TopicPartition { topic: name.clone(), partition: u32::from(number) };
                let committed = |group: &&super::group::Group| group.partition(&partition)?.durable;
                if readers.iter().any(|group| committed(group).is_none_or(|committed| committed < *offset)) {
                    return false;
                }
            }
        }
        true
    }
}
