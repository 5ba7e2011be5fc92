//! The gateway's instruments. Recorded per batch; no label takes its values from peers.

use logmesh_certs::Reason;
use logmesh_proto::v1::NackReason;
use logmesh_runtime::budget::Budget;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter, UpDownCounter};

/// All instruments.
#[derive(Debug)]
pub(crate) struct Metrics {
    batches: Counter<u64>,
    records: Counter<u64>,
    bytes: Counter<u64>,
    encoded_bytes: Counter<u64>,
    acknowledged: Counter<u64>,
    nacked: Counter<u64>,
    handshake_failures: Counter<u64>,
    sessions_refused: Counter<u64>,
    accept_failures: Counter<u64>,
    pub(crate) sessions: UpDownCounter<i64>,
    pub(crate) connections: UpDownCounter<i64>,
}

impl Metrics {
    /// Makes the instruments. In-flight bytes are read from `budget` when they are asked for.
    pub(crate) fn new(meter: &Meter, budget: &Budget) -> Self {
        let counter = |name: &'static str, what: &'static str| meter.u64_counter(name).with_description(what).build();
        let gauge =
            |name: &'static str, what: &'static str| meter.i64_up_down_counter(name).with_description(what).build();
        let budget = budget.clone();
        meter
            .u64_observable_gauge("logmesh_gateway_in_flight_bytes")
            .with_description("Bytes between receipt and acknowledgement")
            .with_callback(move |observer| observer.observe(budget.used() as u64, &[]))
            .build();
        Self {
            batches: counter("logmesh_gateway_batches_received", "Batches received, refused ones included"),
            records: counter("logmesh_gateway_records_received", "Records in received batches, as claimed"),
            bytes: counter("logmesh_gateway_bytes_received", "Uncompressed bytes in received batches, as claimed"),
            encoded_bytes: counter("logmesh_gateway_encoded_bytes_received", "Bytes of received batches on the wire"),
            acknowledged: counter("logmesh_gateway_batches_acknowledged", "Batches acknowledged: durable on the bus"),
            nacked: counter("logmesh_gateway_batches_nacked", "Batches refused, by reason"),
            handshake_failures: counter("logmesh_gateway_handshake_failures", "TLS handshakes that failed, by reason"),
            sessions_refused: counter("logmesh_gateway_sessions_refused", "Sessions refused, by reason"),
            accept_failures: counter("logmesh_gateway_accept_failures", "Failures of accepting connections"),
            sessions: gauge("logmesh_gateway_sessions", "Open sessions"),
            connections: gauge("logmesh_gateway_connections", "Open connections"),
        }
    }

    /// A batch was received.
    pub(crate) fn received(&self, records: u32, uncompressed_bytes: u32, encoded_bytes: usize) {
        self.batches.add(1, &[]);
        self.records.add(u64::from(records), &[]);
        self.bytes.add(u64::from(uncompressed_bytes), &[]);
        self.encoded_bytes.add(encoded_bytes as u64, &[]);
    }

    /// A batch is durable and its Ack on its way.
    pub(crate) fn acknowledged(&self) {
        self.acknowledged.add(1, &[]);
    }

    /// A batch was refused.
    pub(crate) fn nacked(&self, reason: NackReason) {
        let name = reason.as_str_name().trim_start_matches("NACK_REASON_").to_ascii_lowercase();
        self.nacked.add(1, &[KeyValue::new("reason", name)]);
    }

    /// A handshake failed.
    pub(crate) fn handshake_failed(&self, reason: Reason) {
        self.handshake_failures.add(1, &[KeyValue::new("reason", reason.as_str())]);
    }

    /// A session was refused.
    pub(crate) fn session_refused(&self, reason: &'static str) {
        self.sessions_refused.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// A connection could not be accepted.
    pub(crate) fn accept_failed(&self) {
        self.accept_failures.add(1, &[]);
    }
}
