//! Real servers for the tests: Kafka, Elasticsearch and OpenSearch, from Maven artefacts.
//!
//! Everything here blocks: an async test calls it through `spawn_blocking` or before its runtime is busy. Each server
//! listens on free ports of the loopback address, keeps all it writes in a directory of its own under the system's
//! temporary directory, and ends with the test process, whatever that one's end is. What a server is made of is fetched
//! once and kept under `target/rig`; that needs Java 17 and Maven (`make setup`) and, the first time, the network.
//!
//! Invariants: a server handed out has answered a real request; one that cannot be started is an error that bears its
//! last words, never a skipped test.

mod artefacts;
mod blocking;
mod certificates;
mod java;
mod kafka;
mod ports;
mod scratch;
mod search;
mod server;

pub use kafka::{Kafka, KafkaCluster, ReadRecord, SecureKafka, TokenEndpoint};
pub use ports::free as free_ports;
pub use search::{ADMIN, Credentials, Elasticsearch, OpenSearch, PASSWORD, SearchServer};

/// A name that no other test uses at a shared server, good for topics, groups, indexes and users.
#[must_use]
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{:012x}", rand::random::<u64>() >> 16)
}
