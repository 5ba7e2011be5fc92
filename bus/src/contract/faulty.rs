//! A bus that fails on purpose, for the tests of those who use one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::{
    AppendError, Bus, BusError, Condition, Consumer, Delivered, Delivery, Event, PartitionLag, PartitionRange, Record,
    Subscription, TopicPartition,
};

/// Wraps a bus; what goes wrong is said through [`Faults`], at any time.
pub struct Faulty<B> {
    inner: B,
    faults: Faults,
}

/// The plan of a [`Faulty`] bus; clones share it. Without orders everything passes.
#[derive(Clone, Debug)]
pub struct Faults {
    plan: Arc<Mutex<Plan>>,
    stalled: watch::Sender<bool>,
    condition: watch::Sender<Condition>,
}

#[derive(Debug, Default)]
struct Plan {
    appends: VecDeque<AppendError>,
    deliveries: VecDeque<AppendError>,
    commits: VecDeque<BusError>,
    fetches: VecDeque<BusError>,
    delay: Duration,
}

impl<B: Bus> Faulty<B> {
    /// A wrapper around `inner`, and the plan that breaks it.
    pub fn new(inner: B) -> (Self, Faults) {
        let faults = Faults {
            plan: Arc::default(),
            stalled: watch::channel(false).0,
            condition: watch::channel(Condition::Ok).0,
        };
        (Self { inner, faults: faults.clone() }, faults)
    }
}

impl Faults {
    /// The next `count` appends fail at once; nothing of them is written.
    pub fn fail_appends(&self, count: usize, error: &AppendError) {
        self.plan().appends.extend(std::iter::repeat_n(error.clone(), count));
    }

    /// The next `count` records are written, and their deliveries say that they were not: the lost answer.
    pub fn fail_deliveries(&self, count: usize, error: &AppendError) {
        self.plan().deliveries.extend(std::iter::repeat_n(error.clone(), count));
    }

    /// The next `count` commits fail; nothing of them is written.
    pub fn fail_commits(&self, count: usize, error: &BusError) {
        self.plan().commits.extend(std::iter::repeat_n(error.clone(), count));
    }

    /// The next `count` calls of `next` fail.
    pub fn fail_fetches(&self, count: usize, error: &BusError) {
        self.plan().fetches.extend(std::iter::repeat_n(error.clone(), count));
    }

    /// Deliveries and commits come this much later than they are durable, on tokio's clock.
    pub fn delay(&self, delay: Duration) {
        self.plan().delay = delay;
    }

    /// While stalled, appends, deliveries, commits and `next` wait.
    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// What [`Bus::condition`] says.
    pub fn set_condition(&self, condition: Condition) {
        self.condition.send_replace(condition);
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits out a stall.
    async fn pass(&self) {
        // The sender is in `self`, so that this ends only with the stall.
        let _ = self.stalled.subscribe().wait_for(|stalled| !stalled).await;
    }

    async fn pass_late(&self) {
        let delay = self.plan().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        self.pass().await;
    }
}

impl<B: Bus> Bus for Faulty<B> {
    fn append<'a>(&'a self, topic: &'a str, record: Record) -> BoxFuture<'a, Result<Delivery, AppendError>> {
        async move {
            self.faults.pass().await;
            let (refusal, denial) = {
                let mut plan = self.faults.plan();
                match plan.appends.pop_front() {
                    Some(error) => (Some(error), None),
                    None => (None, plan.deliveries.pop_front()),
                }
            };
            if let Some(error) = refusal {
                return Err(error);
            }
            let inner = self.inner.append(topic, record).await?;
            let faults = self.faults.clone();
            let late = async move {
                let answer = inner.await;
                faults.pass_late().await;
                denial.map_or(answer, Err)
            };
            Ok(Delivery::from_future(late))
        }
        .boxed()
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Box<dyn Consumer>, BusError>> {
        async move {
            let inner = self.inner.subscribe(subscription).await?;
            let consumer: Box<dyn Consumer> = Box::new(FaultyConsumer { inner, faults: self.faults.clone() });
            Ok(consumer)
        }
        .boxed()
    }

    fn lag(&self, group: &str) -> BoxFuture<'_, Result<Vec<PartitionLag>, BusError>> {
        self.inner.lag(group)
    }

    fn ranges(&self, topics: &[String]) -> BoxFuture<'_, Result<Vec<PartitionRange>, BusError>> {
        self.inner.ranges(topics)
    }

    fn read(
        &self,
        partition: &TopicPartition,
        from: u64,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivered>, BusError>> {
        self.inner.read(partition, from, bytes_max)
    }

    fn condition(&self) -> watch::Receiver<Condition> {
        self.faults.condition.subscribe()
    }

    fn close(&self, grace: Duration) -> BoxFuture<'_, ()> {
        self.inner.close(grace)
    }
}

struct FaultyConsumer {
    inner: Box<dyn Consumer>,
    faults: Faults,
}

impl Consumer for FaultyConsumer {
    fn next(&mut self) -> BoxFuture<'_, Result<Event, BusError>> {
        async move {
            self.faults.pass().await;
            let refusal = self.faults.plan().fetches.pop_front();
            match refusal {
                Some(error) => Err(error),
                None => self.inner.next().await,
            }
        }
        .boxed()
    }

    fn commit(&mut self, partition: &TopicPartition, next_offset: u64) -> BoxFuture<'static, Result<(), BusError>> {
        let refusal = self.faults.plan().commits.pop_front();
        let inner = match refusal {
            Some(error) => std::future::ready(Err(error)).boxed(),
            None => self.inner.commit(partition, next_offset),
        };
        let faults = self.faults.clone();
        async move {
            let answer = inner.await;
            faults.pass_late().await;
            answer
        }
        .boxed()
    }

    fn pause(&mut self, partition: &TopicPartition) {
        self.inner.pause(partition);
    }

    fn resume(&mut self, partition: &TopicPartition) {
        self.inner.resume(partition);
    }

    fn release(&mut self, partition: &TopicPartition) {
        self.inner.release(partition);
    }
}
