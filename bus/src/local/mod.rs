//! The bus for one machine: journals on its disk, one copy, one process.
//!
//! Owns one directory:
//!
//! ```text
//! flow/       journal of all topics, entries as in `codec`
//! apart/      journal of the topics that are set apart (made when there is one)
//! commits     groups and their commits, as in `commits`
//! ```
//!
//! All topics and partitions of a journal share its segments and its syncs. Offsets are given when a record is encoded, and are
//! contiguous within a partition; so a consumer that finds one missing knows that records were lost to damage, and says so
//! ([`Event::Gap`](crate::Event::Gap)). Each segment's preamble keeps where every partition begins in it: opening reads the last segment only, and
//! a consumer finds its place by a search over preambles. A partition keeps the number of partitions with which its topic was made.
//!
//! Memory does not grow with the backlog: the queue, one index per segment for the segment that is written and eight others,
//! 64 preambles, and per consumer one fetch.
//!
//! A segment is unlinked once every group that reads a topic has committed all records of that topic in it, for all topics in it; the last
//! one always stays. A topic that no group reads is kept.
//!
//! Not here: other processes. They reach the bus through the process that owns it, never through its files.

mod codec;
mod commits;
mod conditions;
mod consumer;
mod group;
mod index;
mod keeper;
mod look;
mod options;
mod scribe;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod topics;
mod wake;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use logmesh_journal::Options;
use tokio::sync::watch;
use tokio::time::Instant;

use self::commits::{CommitFile, Groups};
use self::conditions::Conditions;
use self::consumer::LocalConsumer;
use self::group::Group;
use self::keeper::Keeper;
pub use self::options::LocalOptions;
use self::scribe::Draft;
use self::shared::{Shared, is_set_apart};
use self::store::{Opening, Store};
use self::topics::{Ends, Topic};
use self::wake::Wake;
use crate::{
    AppendError, Bus, BusError, Condition, Consumer, Delivered, Delivery, PartitionLag, PartitionRange, Record,
    Subscription, TopicPartition, is_topic_name,
};

/// Most partitions of a topic.
const PARTITIONS_MAX: u32 = 1024;
/// Segments are not made smaller on their own account, in bytes.
const SEGMENT_BYTES_MIN: u64 = 2 << 20;
/// A limit of what is stored never falls below so many segments.
const SEGMENTS_MIN: u64 = 4;
/// Most headers of a record that are counted on when the journal's largest entry is set.
const HEADERS_USUAL: usize = 256;

/// A bus in a directory of this machine. Dropping it without [`Bus::close`] loses nothing that was acknowledged, and ends once its
/// consumers are dropped too.
pub struct LocalBus {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for LocalBus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LocalBus").field("directory", &self.shared.options.directory).finish_non_exhaustive()
    }
}

impl LocalBus {
    /// Opens or makes the bus. Reads its last segment, so it blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`BusError::Invalid`] for options that cannot be; [`BusError::Fatal`] when another process has the directory, or a file
    /// cannot be read or made.
    pub fn open(options: LocalOptions) -> Result<Self, BusError> {
        check(&options)?;
        let mut openings = vec![Opening::open(journal_options(&options, "flow")?)?];
        if !options.set_apart.is_empty() || options.directory.join("apart").exists() {
            openings.push(Opening::open(journal_options(&options, "apart")?)?);
        }
        let file = CommitFile::new(&options.directory);
        let kept = file.load();
        raise_ends(&options, &openings, &kept);
        let (wake, conditions) = (Wake::new(), Arc::new(Conditions::new()));
        let stores = openings.into_iter().enumerate();
        let stores = stores.map(|(number, opening)| opening.start(number, &wake, &conditions));
        let stores = stores.collect::<Result<Vec<Store>, BusError>>()?;
        let groups = restore_groups(&options, kept);
        let shared = Arc::new(Shared::new(options, stores, groups, wake, conditions));
        for topic in shared.options.topics.clone() {
            ensure_topic(&shared, &topic).map_err(|error| BusError::Invalid { reason: error.to_string() })?;
        }
        shared.groups().values_mut().for_each(|group| shared.announce_all(group));
        let keeper = Keeper::new(shared.clone(), file);
        let thread = std::thread::Builder::new().name("bus-keeper".to_owned()).spawn(move || keeper.run());
        let thread = thread.map_err(|error| BusError::Fatal { reason: format!("starting the keeper: {error}") })?;
        // Groups that the options name must outlive a crash before their first commit; nothing is removed before, since
        // only durable commits count.
        drop(shared.desk.request());
        Ok(Self { shared, keeper: Mutex::new(Some(thread)) })
    }

    /// Changes the reserve, in bytes; a full bus looks at once whether it has room now.
    pub fn set_reserve_bytes(&self, bytes: u64) {
        self.shared.stores.iter().for_each(|store| store.journal.set_reserve_bytes(bytes));
    }

    /// Bytes on the disk up to the last durable record.
    pub fn stored_bytes(&self) -> u64 {
        self.shared.stores.iter().map(|store| store.journal.log().bytes()).sum()
    }

    /// Bytes of records that wait for the disk.
    pub fn queued_bytes(&self) -> usize {
        self.shared.stores.iter().map(|store| store.journal.queued_bytes()).sum()
    }

    /// Forgets a group that has no members, so that it holds back no segment any more. Whether there was one.
    ///
    /// # Errors
    /// [`BusError::Invalid`] when it has members; [`BusError::Unavailable`] when that could not be written.
    pub async fn forget_group(&self, name: &str) -> Result<bool, BusError> {
        let written = {
            let mut groups = self.shared.groups();
            match groups.get(name) {
                None => return Ok(false),
                Some(group) if group.has_members() => {
                    return Err(BusError::Invalid {
                        reason: format!("the group `{name}` has members: stop them first"),
                    });
                }
                Some(_) => groups.remove(name),
            };
            self.shared.desk.request()
        };
        written.await.map(|()| true)
    }

    async fn append_record(&self, topic: &str, record: Record) -> Result<Delivery, AppendError> {
        let shared = &self.shared;
        if shared.is_closed() {
            return Err(AppendError::Closed);
        }
        let limit = shared.options.record_bytes_max;
        if record.size() > limit || !codec::is_encodable(&record) {
            return Err(AppendError::TooLarge { size: record.size() as u64, limit: limit as u64 });
        }
        let topic = ensure_topic(shared, topic)?;
        let store = &shared.stores[shared.store_of(&topic.name)];
        let partition = topic.partition_of(&record.key);
        let bytes = record.size() + codec::overhead(record.headers.len());
        let (answer, delivery) = Delivery::channel();
        let draft = Draft { topic, partition, record, appended_unix_nano: unix_nano(), answer, offset: 0 };
        store.append(draft, bytes).await?;
        Ok(delivery)
    }

    async fn join(&self, subscription: Subscription) -> Result<Box<dyn Consumer>, BusError> {
        check_subscription(&subscription)?;
        if self.shared.is_closed() {
            return Err(BusError::Closed);
        }
        let member = self.shared.next_member();
        // Made first, so that it leaves the group again should this future be dropped.
        let consumer = LocalConsumer::new(self.shared.clone(), member, &subscription);
        let registered = {
            let mut groups = self.shared.groups();
            let group = groups.entry(subscription.group.clone()).or_default();
            let before = group.topics.clone();
            group.join(member, subscription, Instant::now());
            self.shared.announce_all(group);
            (group.topics != before).then(|| self.shared.desk.request())
        };
        self.shared.wake.all();
        if let Some(registered) = registered {
            registered.await?;
        }
        Ok(Box::new(consumer))
    }

    fn group_lag(&self, name: &str) -> Result<Vec<PartitionLag>, BusError> {
        let committed: Vec<_> = match self.shared.groups().get(name) {
            None => return Ok(Vec::new()),
            Some(group) => group.partitions().map(|(name, partition)| (name.clone(), partition.committed)).collect(),
        };
        let mut lags = Vec::with_capacity(committed.len());
        for (partition, committed) in committed {
            let store = &self.shared.stores[self.shared.store_of(&partition.topic)];
            let number = u16::try_from(partition.partition).unwrap_or(u16::MAX);
            let topic = store.topics.find(&partition.topic);
            let end =
                topic.as_ref().and_then(|topic| topic.partitions.get(usize::from(number))).map_or(0, Ends::durable);
            let key = (partition.topic.clone(), number);
            let committed = match committed {
                Some(committed) => committed,
                None => store.earliest(&key).map_err(|error| BusError::Unavailable { reason: error.to_string() })?,
            };
            let oldest_appended_unix_nano = if committed < end { store.oldest(&key, committed) } else { None };
            lags.push(PartitionLag { partition, end, committed, oldest_appended_unix_nano });
        }
        Ok(lags)
    }

    async fn shut(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.shared.close();
        let left = || deadline.saturating_duration_since(Instant::now());
        let journals = join_all(self.shared.stores.iter().map(|store| store.journal.close(left()))).await;
        self.shared.desk.close();
        let kept = tokio::time::timeout(left(), self.shared.desk.ended()).await.is_ok();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper.filter(|_| kept) {
            join_keeper(keeper);
        }
        if !kept || journals.contains(&false) {
            tracing::error!(?grace, "the bus did not close in time, the disk does not answer");
        }
    }
}

impl Bus for LocalBus {
    fn append<'a>(&'a self, topic: &'a str, record: Record) -> BoxFuture<'a, Result<Delivery, AppendError>> {
        self.append_record(topic, record).boxed()
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Box<dyn Consumer>, BusError>> {
        self.join(subscription).boxed()
    }

    fn lag(&self, group: &str) -> BoxFuture<'_, Result<Vec<PartitionLag>, BusError>> {
        let (shared, group) = (self, group.to_owned());
        async move { shared.group_lag(&group) }.boxed()
    }

    fn ranges(&self, topics: &[String]) -> BoxFuture<'_, Result<Vec<PartitionRange>, BusError>> {
        let ranges = check_topics(topics).and_then(|()| look::ranges(&self.shared, topics));
        std::future::ready(ranges).boxed()
    }

    fn read(
        &self,
        partition: &TopicPartition,
        from: u64,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivered>, BusError>> {
        look::read(self.shared.clone(), partition.clone(), from, bytes_max).boxed()
    }

    fn condition(&self) -> watch::Receiver<Condition> {
        self.shared.conditions.subscribe()
    }

    fn close(&self, grace: Duration) -> BoxFuture<'_, ()> {
        self.shut(grace).boxed()
    }
}

impl Drop for LocalBus {
    fn drop(&mut self) {
        self.shared.close();
        self.shared.desk.close();
        if let Some(keeper) = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            join_keeper(keeper);
        }
    }
}

fn join_keeper(keeper: JoinHandle<()>) {
    if keeper.join().is_err() {
        tracing::error!("the bus's keeper panicked");
    }
}

/// The topic, made if it is new.
fn ensure_topic(shared: &Shared, name: &str) -> Result<Arc<Topic>, AppendError> {
    let topics = &shared.stores[shared.store_of(name)].topics;
    if let Some(topic) = topics.find(name) {
        return Ok(topic);
    }
    let unknown = |reason: &str| AppendError::UnknownTopic { topic: name.to_owned(), reason: reason.to_owned() };
    if !is_topic_name(name) {
        return Err(unknown("a name has 1 to 249 of the characters a-z A-Z 0-9 . _ -"));
    }
    let partitions = u16::try_from(shared.options.partitions).unwrap_or(u16::MAX);
    let made = topics.ensure(name, partitions);
    let (topic, is_new) = made.ok_or_else(|| unknown("there are 10,000 topics already, and no room for more"))?;
    if is_new {
        shared.announce(&topic);
    }
    Ok(topic)
}

/// Offsets that a group has committed are never given again, whatever became of the journal.
fn raise_ends(options: &LocalOptions, openings: &[Opening], kept: &Groups) {
    let mut counts = BTreeMap::<&str, u32>::new();
    for partition in kept.values().flat_map(|kept| kept.commits.keys()) {
        let count = counts.entry(&partition.topic).or_insert(options.partitions);
        *count = (*count).max(partition.partition + 1);
    }
    for (partition, committed) in kept.values().flat_map(|kept| &kept.commits) {
        let Some(opening) = openings.get(usize::from(is_set_apart(options, &partition.topic))) else { continue };
        let count = counts.get(partition.topic.as_ref()).copied().unwrap_or(options.partitions);
        let made = opening.topics().ensure(&partition.topic, u16::try_from(count).unwrap_or(u16::MAX));
        let number = usize::try_from(partition.partition).unwrap_or(usize::MAX);
        let Some((topic, _)) = made else { continue };
        let Some(ends) = topic.partitions.get(number) else { continue };
        if ends.durable() < *committed {
            let end = ends.durable();
            tracing::warn!(%partition, end, committed, "the journal ends below a commit: records are gone");
            ends.raise(*committed);
        }
    }
}

fn restore_groups(options: &LocalOptions, kept: Groups) -> BTreeMap<String, Group> {
    let mut groups = BTreeMap::<String, Group>::new();
    for (name, kept) in kept {
        let group = groups.entry(name).or_default();
        group.topics = kept.topics;
        kept.commits.into_iter().for_each(|(partition, committed)| group.restore(partition, committed));
    }
    for (name, topics) in &options.groups {
        groups.entry(name.clone()).or_default().topics.clone_from(topics);
    }
    groups
}

fn journal_options(options: &LocalOptions, name: &str) -> Result<Options, BusError> {
    let entry_bytes_max = options.record_bytes_max + codec::overhead(HEADERS_USUAL);
    let volume = volume_bytes(&options.directory)?;
    // A segment is begun larger where one entry needs it.
    let small = (volume.min(options.backlog_bytes_max) / 16).max(SEGMENT_BYTES_MIN);
    let segment_bytes = options.segment_bytes.unwrap_or((128 << 20).min(small));
    Ok(Options {
        segment_bytes,
        entry_bytes_max,
        queue_bytes: options.queue_bytes,
        group_bytes: (options.queue_bytes / 2).clamp(1, 8 << 20),
        reserve_bytes: options.reserve_bytes.unwrap_or((64 << 20).min(volume / 20)),
        // The segment that is written cannot be removed, whatever is committed: a limit within it would never heal.
        stored_bytes_max: options.backlog_bytes_max.max(SEGMENTS_MIN * segment_bytes).max(2 * entry_bytes_max as u64),
        probe_interval: options.probe_interval,
        ..Options::new(options.directory.join(name))
    })
}

fn volume_bytes(directory: &Path) -> Result<u64, BusError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    let volume = made.and_then(|()| logmesh_journal::volume_bytes(directory));
    volume.map_err(|error| BusError::Fatal { reason: format!("making {}: {error}", directory.display()) })
}

fn check(options: &LocalOptions) -> Result<(), BusError> {
    let invalid = |reason: String| Err(BusError::Invalid { reason });
    if !(1..=PARTITIONS_MAX).contains(&options.partitions) {
        return invalid(format!("a topic has 1 to {PARTITIONS_MAX} partitions"));
    }
    if !(1..=logmesh_journal::ENTRY_BYTES_MAX - (1 << 16)).contains(&options.record_bytes_max) {
        return invalid("record_bytes_max must be 1 byte to 15 MiB".to_owned());
    }
    for (group, topics) in &options.groups {
        check_subscription(&Subscription::new(group.as_str(), topics.iter().map(String::as_str)))?;
    }
    Ok(())
}

fn check_subscription(subscription: &Subscription) -> Result<(), BusError> {
    let invalid = |reason: &str| Err(BusError::Invalid { reason: reason.to_owned() });
    if !(1..=249).contains(&subscription.group.len()) {
        return invalid("a group's name has 1 to 249 bytes");
    }
    check_topics(&subscription.topics)
}

fn check_topics(topics: &[String]) -> Result<(), BusError> {
    let invalid = |reason: &str| Err(BusError::Invalid { reason: reason.to_owned() });
    if topics.is_empty() {
        return invalid("at least one topic or pattern is needed");
    }
    match topics.iter().find(|topic| !is_topic_name(&topic.replace('*', "-"))) {
        Some(topic) => invalid(&format!("`{topic}` is neither a topic's name nor a pattern of one")),
        None => Ok(()),
    }
}

fn unix_nano() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
