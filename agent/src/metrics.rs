//! The agent's instruments, observed from the tailer's last snapshot: nothing is recorded in the hot path, and no label
//! takes its values from files.

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};

use crate::{
    losses::Lost,
    sift::{Count, Reason},
    tailer::{Snapshot, drive::Shown},
};

/// Name, description, and how it is read from what is shown.
type Instrument<S, T> = (&'static str, &'static str, fn(&S) -> T);

/// Makes the instruments.
pub(crate) fn observe(meter: &Meter, shown: &Shown) {
    let counters: [Instrument<Snapshot, u64>; 15] = [
        ("logmesh_agent_records_read", "Records cut from files", |now| now.tally.read_records),
        ("logmesh_agent_bytes_read", "Source bytes cut from files", |now| now.tally.read_bytes),
        ("logmesh_agent_batches_read", "Batches cut from files", |now| now.tally.read_batches),
        ("logmesh_agent_bytes_acknowledged", "Source bytes acknowledged, contiguous per file", |now| {
            now.tally.acked_bytes
        }),
        ("logmesh_agent_batches_acknowledged", "Batches acknowledged", |now| now.tally.acked_batches),
        ("logmesh_agent_batches_resent", "Batches built or sent again", |now| now.tally.resent),
        ("logmesh_agent_spooled_bytes", "Source bytes of deleted files that went to the spool", |now| {
            now.tally.spooled_bytes
        }),
        ("logmesh_agent_input_records", "Records taken of inputs that are no files", |now| now.input_records),
        ("logmesh_agent_input_bytes", "Bytes of their bodies", |now| now.input_bytes),
        ("logmesh_agent_truncations", "Truncations seen", |now| now.tally.truncated),
        ("logmesh_agent_unreadable_paths", "Paths found unreadable", |now| now.tally.unreadable),
        ("logmesh_agent_read_errors", "Reads that failed", |now| now.tally.read_errors),
        ("logmesh_agent_records_split", "Records split for their length", |now| now.tally.split_records),
        ("logmesh_agent_bytes_skipped", "Bytes of padding before something that was written", |now| {
            now.tally.skipped_bytes
        }),
        ("logmesh_agent_units_replaced", "Code units that are no text in their file's encoding", |now| {
            now.tally.replaced_units
        }),
    ];
    for (name, what, read) in counters {
        let shown = shown.clone();
        let counter = meter.u64_observable_counter(name).with_description(what);
        counter.with_callback(move |observer| observer.observe(shown.with(read), &[])).build();
    }
    let losses: [Instrument<Lost, u64>; 2] = [
        ("logmesh_agent_bytes_lost", "Source bytes gone before they were delivered, where known", |lost| lost.bytes),
        ("logmesh_agent_losses", "Times that bytes were lost, their number known or not", |lost| lost.events),
    ];
    for (name, what, read) in losses {
        let shown = shown.clone();
        let observe = move |observer: &dyn AsyncInstrument<u64>| {
            shown.with(|now| {
                for (reason, lost) in &now.lost {
                    observer.observe(read(lost), &[KeyValue::new("reason", reason.name())]);
                }
            });
        };
        meter.u64_observable_counter(name).with_description(what).with_callback(observe).build();
    }
    let drops: [Instrument<Count, u64>; 2] = [
        ("logmesh_agent_records_dropped", "Records dropped at the source as asked for", |count| count.records),
        ("logmesh_agent_bytes_dropped", "Source bytes of records dropped at the source as asked for", |count| {
            count.bytes
        }),
    ];
    for (name, what, read) in drops {
        let shown = shown.clone();
        let observe = move |observer: &dyn AsyncInstrument<u64>| {
            shown.with(|now| {
                for reason in Reason::ALL {
                    let count = now.tally.dropped.of(reason);
                    observer.observe(read(&count), &[KeyValue::new("reason", reason.name())]);
                }
            });
        };
        meter.u64_observable_counter(name).with_description(what).with_callback(observe).build();
    }
    let gauges: [Instrument<Snapshot, f64>; 7] = [
        ("logmesh_agent_files_open", "Files open", |now| now.files_open as f64),
        ("logmesh_agent_spool_stored_bytes", "Bytes in the spool that are not under way", |now| {
            now.spools.values().map(|spool| spool.stored_bytes as f64).sum()
        }),
        ("logmesh_agent_in_flight_bytes", "Encoded bytes that are not acknowledged", |now| now.in_flight_bytes as f64),
        ("logmesh_agent_in_flight_batches", "Batches that are not acknowledged", |now| now.in_flight_batches as f64),
        ("logmesh_agent_credit_bytes", "Credit of the session, 0 without one", |now| {
            now.credit_bytes.unwrap_or(0) as f64
        }),
        ("logmesh_agent_oldest_unacknowledged_seconds", "Age of the oldest record that is not acknowledged", |now| {
            now.oldest_unacked_seconds
        }),
        ("logmesh_agent_checkpoint_age_seconds", "Time for which the checkpoint could not be written", |now| {
            now.checkpoint_age_seconds
        }),
    ];
    for (name, what, read) in gauges {
        let shown = shown.clone();
        let gauge = meter.f64_observable_gauge(name).with_description(what);
        gauge.with_callback(move |observer| observer.observe(shown.with(read), &[])).build();
    }
}
