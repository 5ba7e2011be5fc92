//! The instruments of inputs: observed when asked for, labelled by the kind of input and nothing that a person chose.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use opentelemetry::{KeyValue, metrics::Meter};

use super::outlet::Counts;

/// Name, description, and where it is counted.
type Instrument = (&'static str, &'static str, fn(&Counts) -> &AtomicU64);

/// Makes the instruments of inputs with these names and kinds.
pub(super) fn observe(meter: &Meter, inputs: &[(String, &'static str, Arc<Counts>)]) {
    let counters: [Instrument; 5] = [
        ("logmesh_agent_input_records", "Records taken in by inputs", |counts| &counts.records),
        ("logmesh_agent_input_bytes", "Bytes of records taken in by inputs", |counts| &counts.bytes),
        ("logmesh_agent_input_framing_errors", "Connections ended within a message or for lost framing", |counts| {
            &counts.framing_errors
        }),
        ("logmesh_agent_input_kernel_drops", "Datagrams that the kernel dropped before they were read", |counts| {
            &counts.kernel_drops
        }),
        ("logmesh_agent_input_connections_refused", "Connections whose handshake failed", |counts| &counts.refused),
    ];
    for (name, what, read) in counters {
        let inputs: Vec<_> = inputs.iter().map(|(_, kind, counts)| (*kind, Arc::clone(counts))).collect();
        let observe = move || {
            let mut sums: BTreeMap<&'static str, u64> = BTreeMap::new();
            for (kind, counts) in &inputs {
                *sums.entry(kind).or_default() += read(counts).load(Relaxed);
            }
            sums
        };
        let counter = meter.u64_observable_counter(name).with_description(what);
        counter
            .with_callback(move |observer| {
                for (kind, sum) in observe() {
                    observer.observe(sum, &[KeyValue::new("kind", kind)]);
                }
            })
            .build();
    }
}
