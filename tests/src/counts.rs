//! How much a scenario writes and breaks: little in `make test`, the full counts in `make soak`.

use std::time::Duration;

/// Whether the full counts were asked for, by `LOGMESH_SOAK=1`.
#[must_use]
pub fn soak() -> bool {
    std::env::var("LOGMESH_SOAK").is_ok_and(|value| value == "1")
}

/// Picks the count of the present run.
#[must_use]
pub fn either<T>(small: T, full: T) -> T {
    if soak() { full } else { small }
}

/// One row of the table that a run of scenarios prints.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Lines written.
    pub lines: u64,
    /// Kills, or other faults.
    pub faults: u32,
    /// Lines that were not found.
    pub missing: u64,
    /// Lines found more than once.
    pub twice: u64,
    /// Longest time from a fault to serving again.
    pub longest_return: Duration,
}

impl Row {
    /// Prints the row; `--nocapture` shows it.
    pub fn print(&self) {
        println!(
            "| {:<28} | {:>8} lines | {:>3} faults | {} missing | {} twice | longest return {:>5.2} s |",
            self.scenario,
            self.lines,
            self.faults,
            self.missing,
            self.twice,
            self.longest_return.as_secs_f64()
        );
    }
}
