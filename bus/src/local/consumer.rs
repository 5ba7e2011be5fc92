//! A member of a group on the local bus.
//!
//! Its events are the difference between what the group has decided and what the caller was told, so that no queue of
//! notices can grow, and a commit is good exactly while the two agree. At most one fetch is under way; what it brings
//! for a partition that was paused or lost meanwhile is dropped and read again later.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::task::{Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use logmesh_journal::ReadError;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::group::{Group, MemberId};
use super::shared::Shared;
use super::store::Fetched;
use super::topics::{Ends, Topic};
use crate::{Assignment, BusError, Consumer, Event, Subscription, TopicPartition};

/// Of the bytes that a consumer may hold, how many one turn of a partition takes.
const TURNS: usize = 4;

type ReadOutcome = Result<(Result<Fetched, ReadError>, u64), JoinError>;
type CommitFuture = BoxFuture<'static, Result<(), BusError>>;

pub(super) struct LocalConsumer {
    shared: Arc<Shared>,
    group: String,
    member: MemberId,
    turn_bytes: usize,
    told: BTreeMap<TopicPartition, Told>,
    /// Whose turn it was last.
    last: Option<TopicPartition>,
    news: watch::Receiver<u64>,
    fetch: Option<Fetch>,
}

/// A partition that the caller believes to hold.
struct Told {
    generation: u64,
    topic: Arc<Topic>,
    /// What was committed when it was assigned.
    committed: Option<u64>,
    /// The offset to hand out next; `None` = the earliest kept.
    next: Option<u64>,
    paused: bool,
    revoking: bool,
    /// The segment that was read last.
    segment: u64,
}

struct Fetch {
    partition: TopicPartition,
    generation: u64,
    reading: JoinHandle<(Result<Fetched, ReadError>, u64)>,
}

impl LocalConsumer {
    pub(super) fn new(shared: Arc<Shared>, member: MemberId, subscription: &Subscription) -> Self {
        let news = shared.wake.subscribe();
        Self {
            shared,
            group: subscription.group.clone(),
            member,
            turn_bytes: (subscription.fetch_bytes / TURNS).max(1),
            told: BTreeMap::new(),
            last: None,
            news,
            fetch: None,
        }
    }

    async fn next_event(&mut self) -> Result<Event, BusError> {
        loop {
            self.news.borrow_and_update();
            if self.shared.is_closed() {
                return Err(BusError::Closed);
            }
            let (event, deadline) = self.compare();
            if let Some(event) = event {
                return Ok(event);
            }
            self.begin_fetch();
            tokio::select! {
                biased;
                fetched = read(&mut self.fetch) => if let Some(event) = self.finish_fetch(fetched)? {
                    return Ok(event);
                },
                changed = self.news.changed() => changed.map_err(|_| BusError::Closed)?,
                () = at(deadline) => {}
            }
        }
    }

    /// The next thing that the caller has to be told about its partitions, and when to look again at the latest.
    fn compare(&mut self) -> (Option<Event>, Option<Instant>) {
        let shared = self.shared.clone();
        let mut groups = shared.groups();
        let Some(group) = groups.get_mut(&self.group) else { return (None, None) };
        let now = Instant::now();
        if group.deadline().is_some_and(|deadline| deadline <= now) {
            group.tick(now);
            shared.wake.all();
        }
        let event =
            self.take_lost(group).or_else(|| self.take_revoking(group)).or_else(|| self.take_assigned(group, &shared));
        (event, group.deadline())
    }

    /// Partitions that the caller believes to hold, and does not.
    fn take_lost(&mut self, group: &Group) -> Option<Event> {
        let member = self.member;
        let is_lost = |partition: &TopicPartition, told: &mut Told| {
            let holding = group.holding(partition);
            !holding.is_some_and(|held| held.member == member && held.generation == told.generation)
        };
        let lost: Vec<_> = self.told.extract_if(.., is_lost).map(|(partition, _)| partition).collect();
        (!lost.is_empty()).then_some(Event::Lost(lost))
    }

    /// Partitions that are wanted elsewhere, which the caller does not know yet.
    fn take_revoking(&mut self, group: &Group) -> Option<Event> {
        let mut partitions = Vec::new();
        let mut earliest: Option<Instant> = None;
        for (partition, holding, _) in group.held(self.member) {
            let told = self.told.get_mut(partition).filter(|told| !told.revoking);
            if let (Some(told), Some(deadline)) = (told, holding.revoking) {
                told.revoking = true;
                partitions.push(partition.clone());
                earliest = Some(earliest.map_or(deadline, |earliest| earliest.min(deadline)));
            }
        }
        earliest.map(|deadline| Event::Revoking { partitions, deadline })
    }

    /// Partitions that are the caller's, which it does not know yet.
    fn take_assigned(&mut self, group: &Group, shared: &Shared) -> Option<Event> {
        let mut assigned = Vec::new();
        for (partition, holding, committed) in group.held(self.member) {
            if self.told.contains_key(partition) {
                continue;
            }
            // A topic that is known from commits alone has nothing to hand out yet.
            let store = &shared.stores[shared.store_of(&partition.topic)];
            let Some(topic) = store.topics.find(&partition.topic) else { continue };
            let generation = holding.generation;
            let told =
                Told { generation, topic, committed, next: committed, paused: false, revoking: false, segment: 0 };
            self.told.insert(partition.clone(), told);
            assigned.push(Assignment { partition: partition.clone(), committed });
        }
        (!assigned.is_empty()).then_some(Event::Assigned(assigned))
    }

    /// Starts reading for the partition whose turn it is, if none is being read and one has something.
    fn begin_fetch(&mut self) {
        if self.fetch.is_some() {
            return;
        }
        let ready = |(partition, told): &(&TopicPartition, &Told)| {
            !told.paused && !told.revoking && told.end(partition) > told.next.unwrap_or(0)
        };
        let later =
            self.last.as_ref().and_then(|last| self.told.range((Bound::Excluded(last), Bound::Unbounded)).find(ready));
        let Some((partition, told)) = later.or_else(|| self.told.iter().find(ready)) else { return };
        let (shared, topic, from) = (self.shared.clone(), told.topic.clone(), told.next);
        let (bytes, mut segment) = (self.turn_bytes, told.segment);
        let partition = partition.clone();
        let number = u16::try_from(partition.partition).unwrap_or(u16::MAX);
        let generation = told.generation;
        let reading = tokio::task::spawn_blocking(move || {
            let store = &shared.stores[shared.store_of(&topic.name)];
            let fetched = store.fetch(&topic, number, from, bytes, &mut segment);
            (fetched, segment)
        });
        self.last = Some(partition.clone());
        self.fetch = Some(Fetch { partition, generation, reading });
    }

    /// What a finished fetch means for the caller.
    fn finish_fetch(&mut self, (fetch, read): (Fetch, ReadOutcome)) -> Result<Option<Event>, BusError> {
        let told = self.told.get_mut(&fetch.partition).filter(|told| told.generation == fetch.generation);
        let Some(told) = told.filter(|told| !told.paused && !told.revoking) else { return Ok(None) };
        let (fetched, segment) =
            read.map_err(|error| BusError::Fatal { reason: format!("reading panicked: {error}") })?;
        let fetched = fetched.map_err(|error| BusError::Unavailable {
            reason: format!("reading {} failed: {error}", fetch.partition),
        })?;
        told.segment = segment;
        let from = *told.next.get_or_insert(fetched.from);
        if let Some(to) = fetched.gap_to {
            told.next = Some(to);
            return Ok(Some(Event::Gap { partition: fetch.partition, from, to }));
        }
        let Some(last) = fetched.records.last() else { return Ok(None) };
        told.next = Some(last.offset + 1);
        Ok(Some(Event::Records { partition: fetch.partition, records: fetched.records }))
    }

    fn request_commit(&mut self, partition: &TopicPartition, next_offset: u64) -> CommitFuture {
        let fenced = || BusError::Fenced { partition: partition.clone() };
        if self.shared.is_closed() {
            return refused(BusError::Closed);
        }
        let Some(told) = self.told.get(partition) else { return refused(fenced()) };
        let mut groups = self.shared.groups();
        let Some(group) = groups.get_mut(&self.group) else { return refused(fenced()) };
        let delivered = told.next.or(told.committed).unwrap_or(0);
        match group.commit(partition, (self.member, told.generation), next_offset, delivered) {
            Ok(()) => self.shared.desk.request(),
            Err(error) => refused(error),
        }
    }
}

impl Consumer for LocalConsumer {
    fn next(&mut self) -> BoxFuture<'_, Result<Event, BusError>> {
        self.next_event().boxed()
    }

    fn commit(&mut self, partition: &TopicPartition, next_offset: u64) -> CommitFuture {
        self.request_commit(partition, next_offset)
    }

    fn pause(&mut self, partition: &TopicPartition) {
        if let Some(told) = self.told.get_mut(partition) {
            told.paused = true;
        }
    }

    fn resume(&mut self, partition: &TopicPartition) {
        if let Some(told) = self.told.get_mut(partition) {
            told.paused = false;
        }
    }

    fn release(&mut self, partition: &TopicPartition) {
        if !self.told.get(partition).is_some_and(|told| told.revoking) {
            return;
        }
        self.told.remove(partition);
        if let Some(group) = self.shared.groups().get_mut(&self.group) {
            group.release(self.member, partition, Instant::now());
        }
        self.shared.wake.all();
    }
}

impl Drop for LocalConsumer {
    fn drop(&mut self) {
        if let Some(group) = self.shared.groups().get_mut(&self.group) {
            group.leave(self.member, Instant::now());
        }
        self.shared.wake.all();
    }
}

impl Told {
    fn end(&self, partition: &TopicPartition) -> u64 {
        let ends = usize::try_from(partition.partition).ok().and_then(|number| self.topic.partitions.get(number));
        ends.map_or(0, Ends::durable)
    }
}

/// Waits for the fetch under way; for good when there is none. Cancel safe: it is taken only together with its result.
async fn read(fetch: &mut Option<Fetch>) -> (Fetch, ReadOutcome) {
    std::future::poll_fn(|context| {
        let Some(reading) = fetch.as_mut() else { return Poll::Pending };
        let outcome = ready!(reading.reading.poll_unpin(context));
        match fetch.take() {
            Some(fetch) => Poll::Ready((fetch, outcome)),
            None => Poll::Pending,
        }
    })
    .await
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn refused(error: BusError) -> CommitFuture {
    std::future::ready(Err(error)).boxed()
}
