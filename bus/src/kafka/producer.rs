//! The writing side: one idempotent producer, and its replacement when it fails for good.
//!
//! Owns the thread that polls it. A record goes into the ledger and to librdkafka under one lock, so that the order of
//! appends is the order of sending; reports come on the polling thread and answer deliveries. Memory is bounded twice: records
//! reserve bytes of the queue before they enter, and librdkafka's own copy of them can be no larger.
//!
//! When the producer fails for good (idempotence lost, K2), it is purged and dropped, and a new one is given everything
//! open, in order. Until then records only enter the ledger. What the old one had written without saying so is then
//! there twice: twice beats lost (DESIGN 1).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use logmesh_runtime::backoff::Backoff;
use logmesh_runtime::budget::Budget;
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;
use tokio::time::Instant;

use super::client::Cluster;
use super::conditions::Source;
use super::ledger::Entry;
use super::sending::{Client, Desk, make_client, refused, send};
use super::stuck::STUCK_AFTER;
use super::topics::Topics;
use crate::{AppendError, BusError, Delivery, Record};

/// What a record costs in the queue beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 256;
/// How long one poll waits for something to happen. rdkafka waits for whole milliseconds only and spins through what is
/// left of the last one: a little above a whole one leaves nothing, where 50 ms would leave one of every 50 to spin.
const POLL: Duration = Duration::from_micros(50_200);
/// How often waiting records are looked at, and unreachable brokers asked whether they are back.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long one such question may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// What records under way may take when the way to the brokers changes, before they go the new one.
const FLUSH: Duration = Duration::from_secs(2);

/// What appends and the thread share.
pub(super) struct Producer {
    cluster: Arc<Cluster>,
    topics: Arc<Topics>,
    budget: Budget,
    desk: Arc<Desk>,
    closing: AtomicBool,
    /// Polls, and tends topics.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Dropped to end the tending.
    tending: Mutex<Option<SyncSender<()>>>,
}

impl Producer {
    pub(super) fn start(cluster: Arc<Cluster>) -> Result<Arc<Self>, BusError> {
        let topics = Arc::new(Topics::new(Arc::clone(&cluster)));
        let desk = Arc::new(Desk::new());
        let client = make_client(&cluster, &desk)
            .map_err(|error| BusError::Invalid { reason: format!("a producer cannot be made: {error}") })?;
        desk.lock().client = Some(client);
        let producer = Arc::new(Self {
            topics,
            budget: Budget::new("kafka queue", cluster.options.queue_bytes),
            cluster,
            desk,
            closing: AtomicBool::new(false),
            threads: Mutex::default(),
            tending: Mutex::default(),
        });
        let (polling, tending) = (Arc::clone(&producer), Arc::clone(&producer.topics));
        let (stop, stopped) = sync_channel(1);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            thread.map_err(|error| BusError::Fatal { reason: format!("starting the thread {name}: {error}") })
        };
        let threads = vec![
            spawn("kafka-producer", Box::new(move || polling.run()))?,
            spawn("kafka-topics", Box::new(move || tending.tend(&stopped)))?,
        ];
        *producer.threads() = threads;
        *producer.tending.lock().unwrap_or_else(PoisonError::into_inner) = Some(stop);
        Ok(producer)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more, and ends the tending of topics.
    fn shut(&self) {
        self.closing.store(true, Ordering::Release);
        *self.tending.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Bytes of records that wait for the brokers.
    pub(super) fn queued_bytes(&self) -> usize {
        self.budget.used()
    }

    pub(super) async fn append(&self, topic: &str, record: Record) -> Result<Delivery, AppendError> {
        self.open()?;
        let topic = self.topics.admit(topic, &record).await?;
        let timeout = self.cluster.options.message_timeout;
        let waiting = self.budget.reserve(record.size() + RECORD_OVERHEAD_BYTES);
        let hold = tokio::time::timeout(timeout, waiting).await.map_err(|_| AppendError::Unavailable {
            reason: self.words(&format!(
                "the queue of {} bytes had no room for {timeout:?}: the brokers take less than is written",
                self.budget.capacity()
            )),
        })?;
        self.open()?;
        let (answer, delivery) = Delivery::channel();
        // Generous, since librdkafka counts for itself: this is for the time without a producer.
        let entered = Instant::now();
        let expires = entered + timeout + timeout / 2;
        self.desk.enter(Entry { topic, record, answer, entered, expires, _hold: hold })?;
        Ok(delivery)
    }

    fn open(&self) -> Result<(), AppendError> {
        if self.closing.load(Ordering::Acquire) { Err(AppendError::Closed) } else { Ok(()) }
    }

    /// A reason with the trouble behind it.
    fn words(&self, reason: &str) -> String {
        match self.cluster.conditions.trouble(&Source::Brokers) {
            Some(trouble) => format!("{reason}; {trouble}"),
            None => reason.to_owned(),
        }
    }

    /// Takes no more, waits until all is answered or `grace` is over, and then answers the rest itself.
    pub(super) async fn close(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.shut();
        let threads = std::mem::take(&mut *self.threads());
        while self.desk.lock().ledger.len() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5).min(deadline - Instant::now())).await;
        }
        let (client, open) = self.desk.end();
        for entry in open {
            let reason = self.words("the bus was closed before the brokers had confirmed the record");
            entry.answer.resolve(Err(AppendError::Unavailable { reason }));
        }
        drop_aside(client, threads, deadline).await;
    }

    /// Ends in the background: what is open is told that nobody answered.
    pub(super) fn abandon(&self) {
        self.shut();
        let (client, open) = self.desk.end();
        drop(open);
        let _ = std::thread::Builder::new().name("kafka-closing".to_owned()).spawn(move || drop(client));
    }

    fn run(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let mut probed = std::time::Instant::now();
        let mut number = self.cluster.security().number;
        loop {
            let (client, ended) = {
                let desk = self.desk.lock();
                (desk.client.clone(), desk.ended)
            };
            if ended {
                return;
            }
            let Some(client) = client else {
                number = self.cluster.security().number;
                self.rebuild(&mut backoff);
                continue;
            };
            if number != self.cluster.security().number {
                // What is under way may well end well; the rest goes the new way.
                self.desk.lock().client = None;
                let _ = client.flush(FLUSH);
                client.context().take_failures().iter().for_each(|(number, error)| self.failed(*number, error));
                continue;
            }
            client.poll(POLL);
            let failures = client.context().take_failures();
            if let Some((code, reason)) = client.client().fatal_error() {
                tracing::error!(
                    ?code,
                    reason,
                    "the producer failed for good; replacing it and sending again what is open"
                );
                let words = format!("the producer failed ({code}: {reason}) and is being replaced");
                self.cluster.conditions.set(Source::Producer, &words);
                {
                    self.desk.lock().client = None;
                }
                // Its reports for what it purges come here, and mean nothing any more.
                drop(client);
                continue;
            }
            // Only now is it certain that they are the records' own and not the producer's end.
            failures.iter().for_each(|(number, error)| self.failed(*number, error));
            if probed.elapsed() >= PROBE_INTERVAL {
                self.probe(&client);
                probed = std::time::Instant::now();
            }
        }
    }

    /// A record was refused for good by a producer that works.
    fn failed(&self, number: u64, error: &KafkaError) {
        let Some(entry) = self.desk.lock().ledger.withdraw(number) else { return };
        let limit = self.topics.limit(&entry.topic);
        let mut refusal = refused(&entry.topic, &entry.record, limit, error);
        match &mut refusal {
            // A report only says that the time is over; the trouble says why.
            AppendError::Unavailable { reason } => *reason = self.words(reason),
            AppendError::TooLarge { .. } | AppendError::UnknownTopic { .. } | AppendError::Denied { .. } => {
                self.topics.forget(&entry.topic);
            }
            AppendError::Full { .. } | AppendError::Closed | AppendError::Fatal { .. } => {}
        }
        entry.answer.resolve(Err(refusal));
    }

    fn rebuild(&self, backoff: &mut Backoff) {
        std::thread::sleep(backoff.next(rand::random()));
        match make_client(&self.cluster, &self.desk) {
            Ok(client) => {
                let mut desk = self.desk.lock();
                let open: Vec<_> = desk
                    .ledger
                    .open()
                    .map(|(number, entry)| (number, Arc::clone(&entry.topic), entry.record.clone()))
                    .collect();
                tracing::info!(records = open.len(), "a new producer sends what is open again");
                let refused =
                    open.iter().find_map(|(number, topic, record)| send(&client, *number, topic, record).err());
                match refused {
                    None => {
                        if !desk.ended {
                            desk.client = Some(client);
                        }
                        drop(desk);
                        backoff.reset();
                        self.cluster.conditions.clear(&Source::Producer);
                    }
                    // What it took already it may deliver: that counts. All is tried again with another one.
                    Some(error) => {
                        drop(desk);
                        tracing::warn!(%error, "the new producer does not take what is open");
                        drop(client);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "a new producer cannot be made yet"),
        }
        let overdue = self.desk.lock().ledger.expire(Instant::now());
        for entry in overdue {
            let reason = "the producer could not be replaced in time".to_owned();
            entry.answer.resolve(Err(AppendError::Unavailable { reason }));
        }
    }

    /// Looks for records that wait for too long. And librdkafka tells when all brokers are gone, but not when they are back
    /// while nothing is written: so they are asked.
    fn probe(&self, client: &Client) {
        let now = Instant::now();
        let stuck = self.desk.lock().ledger.topics_since(now.checked_sub(STUCK_AFTER).unwrap_or(now));
        self.topics.stuck.are(stuck);
        if self.cluster.conditions.trouble(&Source::Brokers).is_some()
            && client.client().fetch_metadata(Some("logmesh-probe"), PROBE_TIMEOUT).is_ok()
        {
            client.context().watch.alive();
        }
    }
}

/// Dropping a client may block while its connections are torn down: that is done by a thread of its own, which gets until
/// `deadline` and is then left to itself.
async fn drop_aside(client: Option<Arc<Client>>, threads: Vec<JoinHandle<()>>, deadline: Instant) {
    let (done, ended) = tokio::sync::oneshot::channel::<()>();
    let dropping = std::thread::Builder::new().name("kafka-closing".to_owned()).spawn(move || {
        for thread in threads {
            let _ = thread.join();
        }
        drop(client);
        drop(done);
    });
    if dropping.is_ok() && tokio::time::timeout_at(deadline, ended).await.is_err() {
        tracing::warn!("the producer takes long to end; leaving it to itself");
    }
}
