//! The bus on real Kafka brokers, which the rig starts.

mod check;
mod cluster;
mod consumer;
mod contract;
mod producer;
mod security;

use std::time::Duration;

use bytes::Bytes;
use logmesh_bus::kafka::{KafkaBus, KafkaOptions};
use logmesh_bus::{AppendError, Bus, Condition, Consumer, Event, Position, Record};
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;

/// How long a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);

fn options(bootstrap: String) -> KafkaOptions {
    KafkaOptions { metadata_refresh: Duration::from_secs(1), ..KafkaOptions::new([bootstrap]) }
}

fn open(options: KafkaOptions) -> KafkaBus {
    KafkaBus::open(options).expect("the bus opens")
}

fn record(key: &str, value: impl Into<Bytes>) -> Record {
    Record { key: Bytes::copy_from_slice(key.as_bytes()), headers: Vec::new(), value: value.into() }
}

async fn put(bus: &dyn Bus, topic: &str, value: &str) -> Result<Position, AppendError> {
    bus.append(topic, record(value, value.to_owned())).await?.await
}

async fn patient<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(PATIENCE, what, future).await
}

async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited for {what} for {limit:?}"),
    }
}

/// The next event; errors that pass are waited out.
async fn next(consumer: &mut dyn Consumer) -> Event {
    loop {
        match patient("an event", consumer.next()).await {
            Ok(event) => return event,
            Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("the consumer ended: {error}"),
        }
    }
}

fn text(value: &Bytes) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// Waits until the bus's condition holds words that `wanted` likes; `None` = all is well.
async fn condition(bus: &dyn Bus, what: &str, wanted: impl Fn(Option<&str>) -> bool) -> Option<String> {
    let mut condition = bus.condition();
    let told = condition.wait_for(|condition| wanted(words(condition).as_deref()));
    words(&patient(what, told).await.expect("the bus lives"))
}

fn words(condition: &Condition) -> Option<String> {
    match condition {
        Condition::Ok => None,
        Condition::Full { reason } | Condition::Degraded { reason } | Condition::Failed { reason } => {
            Some(reason.clone())
        }
    }
}

/// Runs what blocks beside the test's own runtime.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("an admin client")
}
