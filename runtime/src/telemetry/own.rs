//! What the process itself uses, observed when somebody looks.

use std::fs;

use opentelemetry::metrics::Meter;

/// Makes the process's instruments. Where `/proc` is missing they have no values.
pub(super) fn observe(meter: &Meter) {
    meter
        .u64_observable_gauge("logmesh_process_resident_memory_bytes")
        .with_description("Resident memory of the process")
        .with_callback(|observer| {
            if let Some(bytes) = resident_bytes() {
                observer.observe(bytes, &[]);
            }
        })
        .build();
    meter
        .f64_observable_counter("logmesh_process_cpu_seconds")
        .with_description("Processor time used by the process, user and system")
        .with_callback(|observer| {
            if let Some(seconds) = cpu_seconds() {
                observer.observe(seconds, &[]);
            }
        })
        .build();
    meter
        .u64_observable_gauge("logmesh_process_open_descriptors")
        .with_description("Open file descriptors of the process")
        .with_callback(|observer| {
            if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
                observer.observe(descriptors.count() as u64, &[]);
            }
        })
        .build();
}

/// The resident set, in bytes.
pub(super) fn resident_bytes() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// User and system time, in seconds.
pub(super) fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name may hold anything, so fields are counted from its closing parenthesis: state is the first,
    // utime the twelfth, stime the thirteenth (proc_pid_stat(5)).
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}
