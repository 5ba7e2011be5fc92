//! The bus over Apache Kafka, with librdkafka.
//!
//! What is here: one producer ([`producer`]), a thread with two clients for each consumer ([`member`]), and clients that only
//! ask ([`lag`], [`topics`]). What is decided is decided in pure modules: [`ledger`] (records under way), [`assignment`]
//! and [`commits`] (who holds what, and what may be committed).
//!
//! How Kafka is used: acks=all from an idempotent producer; records go to partitions by the hash that Kafka's own
//! clients use; groups of the classic protocol, whose commits are only ever made by hand; no topic is ever made by
//! accident. Everything that librdkafka can only say in its error callback (credentials, TLS, unreachable brokers) is told by
//! [`Bus::condition`] in plain words, and is over by itself once the brokers answer.

mod assignment;
mod browse;
mod check;
mod client;
mod commits;
mod committer;
mod conditions;
mod consumer;
mod ear;
mod fetcher;
mod inspection;
mod lag;
mod ledger;
mod member;
mod membership;
mod options;
mod producer;
mod security;
mod sending;
mod shared;
mod stuck;
mod token;
mod topics;
mod words;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::check::check;
use self::client::Cluster;
use self::consumer::KafkaConsumer;
pub use self::inspection::TopicFacts;
use self::lag::Readers;
use self::member::Member;
pub use self::options::{Assignor, CreateTopics, Credentials, Identity, KafkaOptions, OAuth, Sasl, Tls};
use self::producer::Producer;
use self::shared::Shared;
use crate::{
    AppendError, Bus, BusError, Condition, Consumer, Delivered, Delivery, PartitionLag, PartitionRange, Record,
    Subscription, TopicPartition, is_topic_name,
};

/// A Kafka cluster as a bus. Closing it is [`Bus::close`]; dropped without that, it ends in the background.
pub struct KafkaBus {
    cluster: Arc<Cluster>,
    producer: Arc<Producer>,
    readers: Readers,
    members: Members,
    closed: AtomicBool,
}

impl std::fmt::Debug for KafkaBus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KafkaBus").field("brokers", &self.cluster.security().brokers).finish_non_exhaustive()
    }
}

/// The consumers of this process.
struct Members {
    threads: Mutex<BTreeMap<u64, Weak<Shared>>>,
    next: AtomicU64,
    /// What each living consumer has subscribed to: a group without commits is known by it.
    subscriptions: Arc<Mutex<BTreeMap<u64, Subscription>>>,
    /// How many threads run.
    running: watch::Sender<usize>,
}

impl KafkaBus {
    /// Begins to talk to the cluster; that it can be reached is not waited for, and is told by [`Bus::condition`].
    ///
    /// # Errors
    /// [`BusError::Invalid`] for settings that cannot be (no brokers, a file that cannot be read, a mechanism that is not
    /// built in).
    pub fn open(options: KafkaOptions) -> Result<Self, BusError> {
        if let (Some(sasl), None) = (&options.sasl, &options.tls) {
            let mechanism = sasl.mechanism();
            tracing::warn!(
                mechanism,
                "credentials without TLS: whoever listens on the network can read what is sent; set `tls`"
            );
        }
        let cluster = Arc::new(Cluster::new(options)?);
        let producer = Producer::start(Arc::clone(&cluster))?;
        let members = Members {
            threads: Mutex::default(),
            next: AtomicU64::new(0),
            subscriptions: Arc::default(),
            running: watch::channel(0).0,
        };
        let readers = Readers::new(Arc::clone(&cluster));
        Ok(Self { cluster, producer, readers, members, closed: AtomicBool::new(false) })
    }

    /// Bytes of records that wait for the brokers.
    pub fn queued_bytes(&self) -> usize {
        self.producer.queued_bytes()
    }

    /// Takes over brokers, credentials and TLS from `options` (all else stays as it was at the start), and looks whether
    /// certificates were renewed where they lie, which is done every second anyway. Clients are then made anew: what is under way is
    /// sent again, and consumers lose their partitions and join again. Whether anything has changed; what cannot work is
    /// said in the log and changes nothing.
    ///
    /// # Errors
    /// [`BusError::Invalid`] for settings that cannot be.
    pub fn reload(&self, options: &KafkaOptions) -> Result<bool, BusError> {
        self.cluster.reload(options)
    }

    async fn join(&self, subscription: Subscription) -> Result<Box<dyn Consumer>, BusError> {
        check_subscription(&subscription)?;
        if self.closed.load(Ordering::Acquire) {
            return Err(BusError::Closed);
        }
        let shared = Shared::new(&subscription);
        let member = Member::new(Arc::clone(&self.cluster), subscription.clone(), Arc::clone(&shared))?;
        let number = self.members.next.fetch_add(1, Ordering::Relaxed);
        let running = self.members.running.clone();
        running.send_modify(|running| *running += 1);
        let thread = std::thread::Builder::new().name("kafka-consumer".to_owned()).spawn(move || {
            member.run();
            running.send_modify(|running| *running -= 1);
        });
        if let Err(error) = thread {
            self.members.running.send_modify(|running| *running -= 1);
            return Err(BusError::Fatal { reason: format!("starting a consumer: {error}") });
        }
        let mut threads = self.members.threads();
        threads.retain(|_, shared| shared.strong_count() > 0);
        threads.insert(number, Arc::downgrade(&shared));
        let subscribed = Subscribed::new(&self.members.subscriptions, number, subscription);
        Ok(Box::new(KafkaConsumer::new(shared, Box::new(subscribed))))
    }

    /// Whether questions about `topics` can be asked.
    fn open_for(&self, topics: &[String]) -> Result<(), BusError> {
        check_topics(topics)?;
        if self.closed.load(Ordering::Acquire) { Err(BusError::Closed) } else { Ok(()) }
    }

    async fn end(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let members: Vec<_> = self.members.threads().values().filter_map(Weak::upgrade).collect();
        members.iter().for_each(|shared| shared.leave(BusError::Closed));
        let mut running = self.members.running.subscribe();
        let left = async {
            // The sender is in `self`.
            let _ = tokio::time::timeout_at(deadline, running.wait_for(|running| *running == 0)).await;
        };
        // A client may hang when its brokers do (RRDK#453): its thread is then left to itself, the process ends anyway.
        futures_util::future::join(self.producer.close(grace), left).await;
        self.readers.close();
        let running = *self.members.running.borrow();
        if running > 0 {
            tracing::warn!(running, "consumers take long to leave their groups; leaving them to themselves");
        }
    }
}

impl Members {
    fn threads(&self) -> MutexGuard<'_, BTreeMap<u64, Weak<Shared>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry among the subscriptions, for as long as it lives.
struct Subscribed {
    subscriptions: Arc<Mutex<BTreeMap<u64, Subscription>>>,
    number: u64,
}

impl Subscribed {
    fn new(subscriptions: &Arc<Mutex<BTreeMap<u64, Subscription>>>, number: u64, subscription: Subscription) -> Self {
        subscriptions.lock().unwrap_or_else(PoisonError::into_inner).insert(number, subscription);
        Self { subscriptions: Arc::clone(subscriptions), number }
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

impl Bus for KafkaBus {
    fn append<'a>(&'a self, topic: &'a str, record: Record) -> BoxFuture<'a, Result<Delivery, AppendError>> {
        self.producer.append(topic, record).boxed()
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Box<dyn Consumer>, BusError>> {
        self.join(subscription).boxed()
    }

    fn lag(&self, group: &str) -> BoxFuture<'_, Result<Vec<PartitionLag>, BusError>> {
        if self.closed.load(Ordering::Acquire) {
            return std::future::ready(Err(BusError::Closed)).boxed();
        }
        let subscriptions = self.members.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let group = group.to_owned();
        let ours: Vec<_> = subscriptions.values().filter(|subscription| subscription.group == group).cloned().collect();
        drop(subscriptions);
        let subscribed = move |topic: &str| ours.iter().any(|subscription| subscription.matches(topic));
        async move { self.readers.lag(&group, subscribed).await }.boxed()
    }

    fn ranges(&self, topics: &[String]) -> BoxFuture<'_, Result<Vec<PartitionRange>, BusError>> {
        if let Err(error) = self.open_for(topics) {
            return std::future::ready(Err(error)).boxed();
        }
        self.readers.ranges(topics.to_vec()).boxed()
    }

    fn read(
        &self,
        partition: &TopicPartition,
        from: u64,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivered>, BusError>> {
        if let Err(error) = self.open_for(&[partition.topic.to_string()]) {
            return std::future::ready(Err(error)).boxed();
        }
        self.readers.read(partition.clone(), from, bytes_max).boxed()
    }

    fn condition(&self) -> watch::Receiver<Condition> {
        self.cluster.conditions.subscribe()
    }

    fn close(&self, grace: Duration) -> BoxFuture<'_, ()> {
        self.end(grace).boxed()
    }
}

impl Drop for KafkaBus {
    fn drop(&mut self) {
        let members: Vec<_> = self.members.threads().values().filter_map(Weak::upgrade).collect();
        members.iter().for_each(|shared| shared.leave(BusError::Closed));
        self.readers.close();
        self.producer.abandon();
    }
}

fn check_subscription(subscription: &Subscription) -> Result<(), BusError> {
    let invalid = |reason: String| Err(BusError::Invalid { reason });
    if subscription.group.is_empty() {
        return invalid("the group needs a name".to_owned());
    }
    if subscription.topics.is_empty() {
        return invalid("a subscription needs at least one topic or pattern".to_owned());
    }
    check_topics(&subscription.topics)
}

fn check_topics(topics: &[String]) -> Result<(), BusError> {
    match topics.iter().find(|topic| !is_topic_name(&topic.replace('*', "-"))) {
        Some(topic) => {
            let reason = format!("`{topic}` is no topic's name or pattern: use 1 to 249 of a-z A-Z 0-9 . _ - and *");
            Err(BusError::Invalid { reason })
        }
        None => Ok(()),
    }
}
