//! The contract of the bus, on a real Kafka broker with its default limits.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use logmesh_bus::Bus;
use logmesh_bus::contract::Rig;
use logmesh_bus::kafka::{CreateTopics, KafkaBus, KafkaOptions};
use logmesh_rig::{Kafka, unique};

/// The broker of these tests, with Kafka's own limit of a record.
fn kafka() -> &'static Kafka {
    static KAFKA: OnceLock<Kafka> = OnceLock::new();
    KAFKA.get_or_init(|| Kafka::start(&[("message.max.bytes", "1048588")]).expect("Kafka starts"))
}

/// Topics and groups of its own at that broker. Topics are made at their first record.
struct KafkaRig {
    kafka: &'static Kafka,
    name: String,
}

impl KafkaRig {
    fn new() -> Self {
        Self { kafka: kafka(), name: unique("contract") }
    }
}

impl Rig for KafkaRig {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Bus>> {
        let mut options = KafkaOptions::new([self.kafka.bootstrap()]);
        options.create_topics = Some(CreateTopics { partitions: 6, replication: None });
        options.metadata_refresh = Duration::from_secs(1);
        // Several records of the largest size, so that appends have to wait for room.
        options.queue_bytes = 4 << 20;
        let bus: Arc<dyn Bus> = Arc::new(KafkaBus::open(options).expect("the bus opens"));
        std::future::ready(bus).boxed()
    }

    fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    fn group(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// Kafka's default `max.message.bytes` is 1,048,588 with the framing of batch and record.
    fn record_bytes_max(&self) -> usize {
        1_048_000
    }
}

logmesh_bus::contract_tests!(KafkaRig::new());
