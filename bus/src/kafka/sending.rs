//! What is handed to librdkafka, and what it says of it.
//!
//! The [`Desk`] is where both meet: a record goes into the ledger and to the client under its one lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logmesh_proto::Header;
use logmesh_runtime::budget::Permit;
use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header as KafkaHeader, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use super::client::{Cluster, Watch, millis};
use super::inspection::RECORD_BYTES_LEAST;
use super::ledger::{Entry, Ledger};
use crate::{AppendError, Position, Record};

/// Several records travel together up to so many bytes: below what every topic takes, since a batch is refused whole.
const BATCH_BYTES: u64 = RECORD_BYTES_LEAST / 2;
/// The largest record that is handed to librdkafka; a topic's own limit is checked before.
const RECORD_BYTES_MAX: u64 = 64 << 20;

pub(super) type Client = BaseProducer<Reports>;

/// Records under way, and who has them.
pub(super) struct Desk {
    inner: Mutex<Inner>,
}

/// What lies on it.
pub(super) struct Inner {
    pub(super) ledger: Ledger<Permit>,
    /// `None` while it is being replaced, and after the end.
    pub(super) client: Option<Arc<Client>>,
    /// Nothing enters any more, and no client is made any more.
    pub(super) ended: bool,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self { inner: Mutex::new(Inner { ledger: Ledger::new(), client: None, ended: false }) }
    }

    /// Lets nothing in any more; what is left is for the caller to answer and to drop.
    pub(super) fn end(&self) -> (Option<Arc<Client>>, Vec<Entry<Permit>>) {
        let mut inner = self.lock();
        inner.ended = true;
        (inner.client.take(), inner.ledger.clear())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a record its place: in the ledger, and with the producer if there is one.
    pub(super) fn enter(&self, entry: Entry<Permit>) -> Result<(), AppendError> {
        let mut inner = self.lock();
        if inner.ended {
            return Err(AppendError::Closed);
        }
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

/// A new client, whose reports go to `desk`.
pub(super) fn make_client(cluster: &Cluster, desk: &Arc<Desk>) -> Result<Arc<Client>, KafkaError> {
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

/// Hands a record over; it has its place when this returns.
pub(super) fn send(client: &Client, number: u64, topic: &str, record: &Record) -> Result<(), KafkaError> {
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
pub(super) fn refused(topic: &str, record: &Record, limit: u64, error: &KafkaError) -> AppendError {
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
pub(super) struct Reports {
    pub(super) watch: Watch,
    desk: Arc<Desk>,
    /// What failed, until it is clear whose fault it was.
    failures: Mutex<Vec<(u64, KafkaError)>>,
}

impl Reports {
    pub(super) fn take_failures(&self) -> Vec<(u64, KafkaError)> {
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
