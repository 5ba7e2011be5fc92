//! What a processor measures: OpenTelemetry instruments, recorded once per batch.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter},
};

use crate::{attempt::Verdict, document::Tally};

/// Upper bounds in seconds of the latency histogram's buckets.
const LATENCY_BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0];

/// The instruments. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Instruments {
    records: Counter<u64>,
    bytes: Counter<u64>,
    levels: Counter<u64>,
    parse_failures: Counter<u64>,
    indexed: Counter<u64>,
    existing: Counter<u64>,
    retries: Counter<u64>,
    dead_letters: Counter<u64>,
    undecodable: Counter<u64>,
    gaps: Counter<u64>,
    latency: Histogram<f64>,
    lag: Gauge<u64>,
    lag_age: Gauge<f64>,
}

impl Instruments {
    /// Makes the instruments.
    pub(crate) fn new(meter: &Meter) -> Self {
        let counter = |name: &'static str, what: &'static str| meter.u64_counter(name).with_description(what).build();
        Self {
            records: counter("logmesh_processor_records_received", "Records read from the bus"),
            bytes: counter("logmesh_processor_bytes_received", "Bytes of record bodies read from the bus"),
            levels: counter("logmesh_processor_records_by_level", "Records by normalised log level"),
            parse_failures: counter("logmesh_processor_parse_failures", "Records not in the format asked for"),
            indexed: counter("logmesh_processor_documents_indexed", "Documents written to the index"),
            existing: counter("logmesh_processor_documents_existing", "Documents that were in the index already"),
            retries: counter("logmesh_processor_documents_retried", "Documents sent to the index again"),
            dead_letters: counter("logmesh_processor_dead_letters", "Records kept as dead letters"),
            undecodable: counter("logmesh_processor_batches_undecodable", "Bus records that are no batch"),
            gaps: counter("logmesh_processor_bus_records_lost", "Bus records removed before they were read"),
            latency: meter
                .f64_histogram("logmesh_processor_read_to_indexed_seconds")
                .with_description("From a batch's first read in the agent to the index's answer")
                .with_boundaries(LATENCY_BOUNDS.to_vec())
                .build(),
            lag: meter
                .u64_gauge("logmesh_processor_lag_batches")
                .with_description("Bus records appended and not committed")
                .build(),
            lag_age: meter
                .f64_gauge("logmesh_processor_lag_seconds")
                .with_description("Age of the oldest bus record not committed")
                .build(),
        }
    }

    /// Notes a batch that became documents.
    pub(crate) fn built(&self, tally: &Tally) {
        self.records.add(tally.records, &[]);
        self.bytes.add(tally.bytes, &[]);
        for (level, count) in Tally::LEVELS.iter().zip(tally.by_level).filter(|(_, count)| *count > 0) {
            self.levels.add(count, &[KeyValue::new("level", *level)]);
        }
        if tally.parse_failed > 0 {
            self.parse_failures.add(tally.parse_failed, &[]);
        }
    }

    /// Notes an index's answer.
    pub(crate) fn answered(&self, verdict: &Verdict) {
        self.indexed.add(verdict.created, &[]);
        self.existing.add(verdict.existing, &[]);
        self.retries.add(verdict.retry.len() as u64, &[]);
        self.dead_letters.add(verdict.rejected.len() as u64, &[]);
    }

    /// Notes how long a batch took from its first read to its last answer.
    pub(crate) fn finished(&self, latency: Duration) {
        self.latency.record(latency.as_secs_f64(), &[]);
    }

    /// Notes a bus record that could not be read.
    pub(crate) fn undecodable(&self) {
        self.undecodable.add(1, &[]);
    }

    /// Notes records that the bus removed before they were read.
    pub(crate) fn gap(&self, records: u64) {
        self.gaps.add(records, &[KeyValue::new("reason", "bus_retention")]);
    }

    /// Notes how far behind the group is.
    pub(crate) fn lag(&self, batches: u64, age: Duration) {
        self.lag.record(batches, &[]);
        self.lag_age.record(age.as_secs_f64(), &[]);
    }
}
