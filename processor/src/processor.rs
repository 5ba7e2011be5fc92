//! The processor's driver: bus events in, lanes fed, finished prefixes committed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use logmesh_bus::{Bus, BusError, Condition as BusCondition, Consumer, Delivered, Event, PartitionLag, TopicPartition};
use logmesh_runtime::{Context, backoff::Backoff, config::Live, health::Condition};
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

use crate::{
    config::Config,
    dead_letter::DeadLetters,
    index::Index,
    instruments::Instruments,
    lane::{Finished, Lane, Shared},
    progress::Progress,
    trouble::Troubles,
};

/// Deliveries that may wait in a lane before its partition is paused.
const DELIVERIES_MAX: usize = 2;

/// How often commits that did not pass are tried again.
const COMMIT_INTERVAL: Duration = Duration::from_secs(2);

/// How often lag is asked for.
const LAG_INTERVAL: Duration = Duration::from_secs(2);

/// How long bulks under way may take to finish when the process stops; what is not finished is read again.
const DRAIN: Duration = Duration::from_secs(3);

/// Consumes batches from a bus and brings their records into an index.
pub struct Processor {
    bus: Arc<dyn Bus>,
    shared: Arc<Shared>,
    context: Context,
}

/// One partition that is assigned.
struct Held {
    epoch: u64,
    progress: Progress,
    /// `None` once the partition is being given back.
    lane: Option<mpsc::Sender<Vec<Delivered>>>,
    paused: bool,
    committing: bool,
    committed: u64,
}

/// The state of a processor at work.
struct Work {
    consumer: Box<dyn Consumer>,
    held: HashMap<TopicPartition, Held>,
    lanes: JoinSet<()>,
    commits: FuturesUnordered<BoxFuture<'static, Committed>>,
    finished_sender: mpsc::Sender<Finished>,
    share: watch::Sender<usize>,
    /// Numbers assignments, so that reports of an earlier one are told apart.
    epoch: u64,
    reading: Condition,
    /// Batches that the bus removed unread, which a person must acknowledge.
    retention: Condition,
    lost: u64,
    shared: Arc<Shared>,
}

struct Committed {
    partition: TopicPartition,
    epoch: u64,
    offset: u64,
    result: Result<(), BusError>,
}

impl Processor {
    /// Makes a processor that reads `bus`, writes `index`, and keeps what is refused on `dead_letters`.
    pub fn new(
        config: Config,
        bus: Arc<dyn Bus>,
        index: Arc<dyn Index>,
        dead_letters: Arc<dyn Bus>,
        context: Context,
    ) -> Self {
        let shared = Arc::new(Shared {
            config: Live::new(config),
            index,
            dead_letters: DeadLetters::new(dead_letters),
            instruments: Instruments::new(&context.meter),
            troubles: Troubles::new(context.health.condition("processor.index")),
            shutdown: context.shutdown.clone(),
        });
        Self { bus, shared, context }
    }

    /// Works until the process stops. What is under way then gets a short time to finish; the rest is not committed and
    /// is read again by whoever comes next.
    ///
    /// # Errors
    /// The bus refuses the subscription, or has failed for good.
    pub async fn run(self) -> Result<(), BusError> {
        let (finished_sender, mut finished) = mpsc::channel(1024);
        let mut work = self.begin(finished_sender).await?;
        // Beside the work, since brokers may take long to answer; it ends with it.
        let mut measuring = JoinSet::new();
        measuring.spawn(measure_lag(Arc::clone(&self.bus), Arc::clone(&self.shared), self.register_status()));
        let mut tick = tokio::time::interval(COMMIT_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut read_again = Instant::now();
        let mut condition = self.bus.condition();
        work.bus_is(&condition.borrow_and_update());
        loop {
            tokio::select! {
                biased;
                () = self.context.shutdown.requested() => break,
                () = changed(&mut condition) => work.bus_is(&condition.borrow_and_update()),
                Some(report) = finished.recv() => work.finish(&report),
                Some(committed) = work.commits.next(), if !work.commits.is_empty() => work.committed(committed)?,
                _ = tick.tick() => work.commit_all(),
                event = next(&mut *work.consumer, read_again) => match event {
                    Ok(event) => {
                        backoff.reset();
                        work.bus_is(&condition.borrow());
                        work.handle(event);
                    }
                    Err(error) if error.is_retryable() => {
                        work.reading.set(error.to_string());
                        read_again = Instant::now() + backoff.next(rand::random());
                    }
                    Err(BusError::Closed) => break,
                    Err(error) => return Err(error),
                },
            }
        }
        work.drain(&mut finished).await
    }

    /// Joins the group.
    async fn begin(&self, finished_sender: mpsc::Sender<Finished>) -> Result<Work, BusError> {
        let reading = self.context.health.condition("processor.bus");
        let retention = self.context.health.condition("processor.bus_retention");
        let config = self.shared.config.load();
        let consumer = self.bus.subscribe(config.subscription()).await?;
        retention.clear();
        Ok(Work {
            consumer,
            held: HashMap::new(),
            lanes: JoinSet::new(),
            commits: FuturesUnordered::new(),
            finished_sender,
            share: watch::channel(config.memory_bytes).0,
            epoch: 0,
            reading,
            retention,
            lost: 0,
            shared: Arc::clone(&self.shared),
        })
    }

    /// Offers `/status` and gives the cell in which lag is kept.
    fn register_status(&self) -> Arc<Mutex<Vec<PartitionLag>>> {
        let cell: Arc<Mutex<Vec<PartitionLag>>> = Arc::default();
        let (lag, shared) = (Arc::clone(&cell), Arc::clone(&self.shared));
        self.context.status.register(
            "processor",
            Arc::new(move || {
                let lag = lag.lock().unwrap_or_else(PoisonError::into_inner);
                let partitions = lag.iter().map(
                    |lag| json!({ "partition": lag.partition.to_string(), "committed": lag.committed, "end": lag.end }),
                );
                json!({
                    "group": shared.config.load().group,
                    "lag_batches": lag.iter().map(PartitionLag::records).sum::<u64>(),
                    "partitions": partitions.collect::<Vec<_>>(),
                    "waiting_lanes": shared.troubles.snapshot(),
                })
            }),
        );
        cell
    }
}

/// Asks again and again how far behind the group is, for metrics and `/status`.
async fn measure_lag(bus: Arc<dyn Bus>, shared: Arc<Shared>, cell: Arc<Mutex<Vec<PartitionLag>>>) {
    let mut tick = tokio::time::interval(LAG_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let group = shared.config.load().group.clone();
        let Ok(lag) = bus.lag(&group).await else { continue };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let oldest = lag.iter().filter_map(|lag| lag.oldest_appended_unix_nano).min();
        let age = oldest.map_or(Duration::ZERO, |oldest| now.saturating_sub(Duration::from_nanos(oldest)));
        shared.instruments.lag(lag.iter().map(PartitionLag::records).sum(), age);
        *cell.lock().unwrap_or_else(PoisonError::into_inner) = lag;
    }
}

impl Work {
    /// Shows whether the bus can be read. A bus without room for more is the gateway's concern.
    fn bus_is(&self, condition: &BusCondition) {
        match condition {
            BusCondition::Ok | BusCondition::Full { .. } => self.reading.clear(),
            BusCondition::Degraded { reason } | BusCondition::Failed { reason } => self.reading.set(reason.as_str()),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Assigned(assignments) => {
                for assignment in assignments {
                    self.take(assignment.partition, assignment.committed.unwrap_or(0));
                }
            }
            Event::Records { partition, records } => self.deliver(&partition, records),
            Event::Revoking { partitions, .. } => partitions.iter().for_each(|partition| self.give_back(partition)),
            Event::Lost(partitions) => {
                for partition in partitions {
                    self.held.remove(&partition);
                }
                self.divide();
            }
            Event::Gap { partition, from, to } => self.miss(&partition, from, to),
        }
    }

    /// Batches that will never come: counted, and said until somebody knows.
    fn miss(&mut self, partition: &TopicPartition, from: u64, to: u64) {
        tracing::error!(%partition, from, to, "the bus removed batches before they were read");
        self.shared.instruments.gap(to - from);
        self.lost += to - from;
        self.retention.keep(format!(
            "the bus removed {} batches before they were read, the last ones {from} to {} of {partition}: they are lost; \
             raise the topic's retention, then acknowledge (POST /acknowledge/processor.bus_retention)",
            self.lost,
            to - 1
        ));
    }

    fn take(&mut self, partition: TopicPartition, committed: u64) {
        self.epoch += 1;
        let (sender, deliveries) = mpsc::channel(DELIVERIES_MAX + 1);
        let lane = Lane {
            partition: partition.clone(),
            epoch: self.epoch,
            deliveries,
            finished: self.finished_sender.clone(),
            share: self.share.subscribe(),
            shared: Arc::clone(&self.shared),
        };
        let held = Held {
            epoch: self.epoch,
            progress: Progress::default(),
            lane: Some(sender),
            paused: false,
            committing: false,
            committed,
        };
        self.held.insert(partition, held);
        self.divide();
        self.lanes.spawn(lane.run());
    }

    /// Gives each lane an equal share, so that one that is held never takes another's.
    fn divide(&mut self) {
        let share = self.shared.config.load().memory_bytes / self.held.len().max(1);
        self.share.send_replace(share);
        while self.lanes.try_join_next().is_some() {}
    }

    fn deliver(&mut self, partition: &TopicPartition, records: Vec<Delivered>) {
        let Some(held) = self.held.get_mut(partition) else { return };
        let Some(lane) = &held.lane else { return };
        records.iter().for_each(|delivered| held.progress.start(delivered.offset));
        // The partition is paused before the queue is full, so that this never waits: a lane in trouble stops no other.
        if lane.try_send(records).is_err() {
            tracing::error!(%partition, "a lane ended before its partition was given back");
            return;
        }
        if !held.paused && lane.max_capacity() - lane.capacity() >= DELIVERIES_MAX {
            held.paused = true;
            self.consumer.pause(partition);
        }
    }

    fn finish(&mut self, report: &Finished) {
        let Some(held) = self.held.get_mut(&report.partition).filter(|held| held.epoch == report.epoch) else { return };
        held.progress.finish(report.offset);
        if held.paused && held.lane.as_ref().is_some_and(|lane| lane.max_capacity() - lane.capacity() < DELIVERIES_MAX)
        {
            held.paused = false;
            self.consumer.resume(&report.partition);
        }
        self.commit(&report.partition);
    }

    /// Asks for the commit of what is finished, one at a time for each partition; a partition being given back is let
    /// go once all of it is committed.
    fn commit(&mut self, partition: &TopicPartition) {
        let Some(held) = self.held.get_mut(partition) else { return };
        if held.committing {
            return;
        }
        match held.progress.committable().filter(|offset| *offset > held.committed) {
            Some(offset) => {
                held.committing = true;
                let (partition, epoch) = (partition.clone(), held.epoch);
                let commit = self.consumer.commit(&partition, offset);
                self.commits
                    .push(Box::pin(async move { Committed { partition, epoch, offset, result: commit.await } }));
            }
            None if held.lane.is_none() && held.progress.outstanding() == 0 => self.consumer.release(partition),
            None => {}
        }
    }

    fn committed(&mut self, committed: Committed) -> Result<(), BusError> {
        let Committed { partition, epoch, offset, result } = committed;
        let Some(held) = self.held.get_mut(&partition).filter(|held| held.epoch == epoch) else { return Ok(()) };
        match result {
            Ok(()) => {
                held.committing = false;
                held.committed = offset;
                self.commit(&partition);
            }
            // The next look commits again: what is finished stays finished.
            Err(error) if error.is_retryable() => {
                held.committing = false;
                tracing::warn!(%partition, offset, %error, "a commit did not pass");
            }
            // Not ours any more: whoever holds the partition now gets the batches again. No further commit is tried.
            Err(error @ (BusError::Fenced { .. } | BusError::Closed)) => {
                tracing::info!(%partition, offset, %error, "a commit came too late");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Asks again for every commit that did not pass.
    fn commit_all(&mut self) {
        let partitions: Vec<_> = self.held.keys().cloned().collect();
        partitions.iter().for_each(|partition| self.commit(partition));
    }

    fn give_back(&mut self, partition: &TopicPartition) {
        if let Some(held) = self.held.get_mut(partition) {
            held.lane = None;
            self.commit(partition);
        }
    }

    /// Lets bulks under way finish for a short time and commits what they finished.
    async fn drain(mut self, finished: &mut mpsc::Receiver<Finished>) -> Result<(), BusError> {
        let deadline = Instant::now() + DRAIN;
        self.held.values_mut().for_each(|held| held.lane = None);
        // Only lanes hold senders from here on, so that the reports end with the last lane.
        self.finished_sender = mpsc::channel(1).0;
        let mut reporting = true;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => break,
                report = finished.recv(), if reporting => match report {
                    Some(report) => self.finish(&report),
                    None => reporting = false,
                },
                Some(committed) = self.commits.next(), if !self.commits.is_empty() => self.committed(committed)?,
                else => break,
            }
            if !reporting && self.commits.is_empty() {
                break;
            }
        }
        self.lanes.shutdown().await;
        Ok(())
    }
}

/// Waits until the bus fares otherwise; a bus that says nothing any more never does. Cancel safe.
async fn changed(condition: &mut watch::Receiver<BusCondition>) {
    if condition.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The next event, asked for no earlier than `from`. Cancel safe.
async fn next(consumer: &mut dyn Consumer, from: Instant) -> Result<Event, BusError> {
    tokio::time::sleep_until(from).await;
    consumer.next().await
}

#[cfg(test)]
mod tests;
