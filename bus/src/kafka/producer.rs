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

use logmesh_proto::Header;
use logmesh_runtime::backoff::Backoff;
use logmesh_runtime::budget::{Budget, Permit};
use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header as KafkaHeader, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use tokio::time::Instant;

use super::client::{Cluster, Watch, millis};
use super::conditions::Source;
use super::inspection::RECORD_BYTES_LEAST;
use super::ledger::{Entry, Ledger};
use super::stuck::STUCK_AFTER;
use super::topics::Topics;
use crate::{AppendError, BusError, Delivery, Position, Record};

/// What a record costs in the queue beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 256;
/// Several records travel together up to so many bytes: below what every topic takes, since a batch is refused whole.
const BATCH_BYTES: u64 = RECORD_BYTES_LEAST / 2;
/// The largest record that is handed to librdkafka; a topic's own limit is checked before.
const RECORD_BYTES_MAX: u64 = 64 << 20;
/// How long one poll waits for something to happen.
const POLL: Duration = Duration::from_millis(50);
/// How often waiting records are looked at, and unreachable brokers asked whether they are back.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long one such question may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What records under way may take when the way to the brokers changes, before they go the new one.
const FLUSH: Duration = Duration::from_secs(2);

type Client = BaseProducer<Reports>;

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

/// Records under way, and who has them.
struct Desk {
    inner: Mutex<Inner>,
}

struct Inner {
    ledger: Ledger<Permit>,
    /// `None` while it is being replaced, and after the end.
    client: Option<Arc<Client>>,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Producer {
    pub(super) fn start(cluster: Arc<Cluster>) -> Result<Arc<Self>, BusError> {
        let topics = Arc::new(Topics::new(Arc::clone(&cluster)));
        let desk = Arc::new(Desk { inner: Mutex::new(Inner { ledger: Ledger::new(), client: None }) });
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
        let (client, open) = {
            let mut desk = self.desk.lock();
            (desk.client.take(), desk.ledger.clear())
        };
        for entry in open {
            let reason = self.words("the bus was closed before the brokers had confirmed the record");
            entry.answer.resolve(Err(AppendError::Unavailable { reason }));
        }
        drop_aside(client, threads, deadline).await;
    }

    /// Ends in the background: what is open is told that nobody answered.
    pub(super) fn abandon(&self) {
        self.shut();
        let (client, open) = {
            let mut desk = self.desk.lock();
            (desk.client.take(), desk.ledger.clear())
        };
        drop(open);
        let _ = std::thread::Builder::new().name("kafka-closing".to_owned()).spawn(move || drop(client));
    }

    fn run(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let mut probed = std::time::Instant::now();
        let mut number = self.cluster.security().number;
        loop {
            let client = self.desk.lock().client.clone();
            let Some(client) = client else {
                if self.closing.load(Ordering::Acquire) {
                    return;
                }
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
                        desk.client = Some(client);
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

impl Desk {
    /// Gives a record its place: in the ledger, and with the producer if there is one.
    fn enter(&self, entry: Entry<Permit>) -> Result<(), AppendError> {
        let mut inner = self.lock();
        let (topic, record) = (Arc::clone(&entry.topic), entry.record.clone());
        let number = inner.ledger.enter(entry);
        let Some(client) = inner.client.clone() else { return Ok(()) };
        let Err(error) = send(&client, number, &topic, &record) else { return Ok(()) };
        // The producer has failed for good, and the thread is about to see it: the next one gets the record.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            return Ok(());
        }
        inner.ledger.withdraw(number);
        Err(refused(&topic, &record, RECORD_BYTES_MAX, &error))
    }
}

fn make_client(cluster: &Cluster, desk: &Arc<Desk>) -> Result<Arc<Client>, KafkaError> {
    let options = &cluster.options;
    let timeout = options.message_timeout;
    let mut config: ClientConfig = cluster.config("producer");
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("compression.type", "none")
        .set("linger.ms", millis(options.linger))
        .set("message.timeout.ms", millis(timeout))
        .set("request.timeout.ms", millis((timeout / 2).min(Duration::from_secs(10))))
        .set("retry.backoff.ms", "50")
        .set("retry.backoff.max.ms", "1000")
        .set("topic.metadata.propagation.max.ms", millis((timeout / 2).min(Duration::from_secs(10))))
        .set("batch.size", BATCH_BYTES.to_string())
        .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
        // Bounded by our own count; theirs must only not be less.
        .set("queue.buffering.max.messages", "0")
        .set(
            "queue.buffering.max.kbytes",
            (options.queue_bytes.saturating_mul(2) / 1024).clamp(256 << 10, 2_147_483_647).to_string(),
        );
    let context = Reports { watch: cluster.watch("producer"), desk: Arc::clone(desk), failures: Mutex::default() };
    Client::from_config_and_context(&config, context).map(Arc::new)
}

fn send(client: &Client, number: u64, topic: &str, record: &Record) -> Result<(), KafkaError> {
    let opaque = usize::try_from(number).unwrap_or(usize::MAX);
    let mut headers = None;
    if !record.headers.is_empty() {
        let add = |headers: OwnedHeaders, header: &Header| {
            headers.insert(KafkaHeader { key: &header.name, value: Some(header.value.as_ref()) })
        };
        headers = Some(record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), add));
    }
    let mut outgoing =
        BaseRecord::with_opaque_to(topic, opaque).key(record.key.as_ref()).payload(record.value.as_ref());
    outgoing.headers = headers;
    client.send::<[u8], [u8]>(outgoing).map_err(|(error, _)| error)
}

/// A refusal in our words. `limit` is what a record of the topic may have.
fn refused(topic: &str, record: &Record, limit: u64, error: &KafkaError) -> AppendError {
    let topic = topic.to_owned();
    let Some(code) = error.rdkafka_error_code() else {
        return AppendError::Unavailable { reason: error.to_string() };
    };
    if matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
    ) {
        return AppendError::TooLarge { size: record.size() as u64, limit };
    }
    if matches!(
        code,
        RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::InvalidTopic
    ) {
        let reason = "the brokers do not have it (any more): create it".to_owned();
        return AppendError::UnknownTopic { topic, reason };
    }
    if matches!(code, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) {
        let reason = format!("{code}: allow this user to Write to it (and IdempotentWrite on brokers before 2.8)");
        return AppendError::Denied { topic, reason };
    }
    AppendError::Unavailable { reason: format!("the brokers did not confirm the record: {code}") }
}

/// Hears of each record how it went.
struct Reports {
    watch: Watch,
    desk: Arc<Desk>,
    /// What failed, until it is clear whose fault it was.
    failures: Mutex<Vec<(u64, KafkaError)>>,
}

impl Reports {
    fn take_failures(&self) -> Vec<(u64, KafkaError)> {
        std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Reports {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.watch.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.watch.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.watch.generate_oauth_token(config)
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, opaque: usize) {
        let number = opaque as u64;
        match report {
            Ok(message) => {
                self.watch.alive();
                let Some(entry) = self.desk.lock().ledger.confirmed(number) else { return };
                // Without a place: a duplicate whose first copy the brokers have.
                let partition = u32::try_from(message.partition()).unwrap_or(0);
                let offset = u64::try_from(message.offset()).unwrap_or(0);
                // Outside the lock: whoever waits may be woken on this thread.
                entry.answer.resolve(Ok(Position { partition, offset }));
            }
            Err((error, _)) => {
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.push((number, error.clone()));
            }
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
