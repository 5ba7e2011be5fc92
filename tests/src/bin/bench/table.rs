//! The one table that a run prints.

use std::time::Duration;

/// Bytes of a GiB.
pub(crate) const GIB: f64 = 1_073_741_824.0;

/// Bytes of a MB, as rates are given.
const MB: f64 = 1e6;

/// One figure.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) name: &'static str,
    /// The figure itself, with its unit.
    pub(crate) figure: String,
    /// CPU seconds per GiB of raw log.
    pub(crate) cpu_per_gib: Option<f64>,
    /// Rate per core.
    pub(crate) per_core: Option<String>,
    /// Share of a limit measured in the same run, and which.
    pub(crate) of_limit: Option<(f64, &'static str)>,
    /// The floor, and whether it was reached.
    pub(crate) floor: Option<(&'static str, bool)>,
}

/// What some work on raw log bytes cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Raw log bytes.
    pub(crate) bytes: u64,
    /// Lines.
    pub(crate) lines: u64,
    /// Processor time.
    pub(crate) cpu: Duration,
    /// Time on the wall.
    pub(crate) wall: Duration,
}

impl Cost {
    /// Processor seconds per GiB.
    pub(crate) fn cpu_per_gib(&self) -> f64 {
        self.cpu.as_secs_f64() / (self.bytes as f64 / GIB)
    }

    /// Raw bytes per second of one core.
    pub(crate) fn bytes_per_core(&self) -> f64 {
        self.bytes as f64 / self.cpu.as_secs_f64()
    }

    /// Lines per second of one core.
    pub(crate) fn lines_per_core(&self) -> f64 {
        self.lines as f64 / self.cpu.as_secs_f64()
    }

    /// Raw bytes per second.
    pub(crate) fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.wall.as_secs_f64()
    }

    /// Lines per second.
    pub(crate) fn lines_per_second(&self) -> f64 {
        self.lines as f64 / self.wall.as_secs_f64()
    }

    /// A row with what every stage has.
    pub(crate) fn row(&self, name: &'static str) -> Row {
        Row {
            name,
            figure: format!("{} on the wall", megabytes(self.bytes_per_second())),
            cpu_per_gib: Some(self.cpu_per_gib()),
            per_core: Some(megabytes(self.bytes_per_core())),
            ..Row::default()
        }
    }
}

/// A rate in MB/s.
pub(crate) fn megabytes(bytes_per_second: f64) -> String {
    format!("{:.0} MB/s", bytes_per_second / MB)
}

/// A rate in thousands of lines or documents a second.
pub(crate) fn thousands(per_second: f64, of: &str) -> String {
    format!("{:.0} k {of}/s", per_second / 1e3)
}

/// Prints the head of the table.
pub(crate) fn print_head() {
    println!(
        "| {:<46} | {:<34} | {:>9} | {:>16} | {:<34} | {:<32} |",
        "stage", "figure", "CPU-s/GiB", "per core", "of the limit", "floor"
    );
    println!("|{:-<48}|{:-<36}|{:->11}|{:->18}|{:-<36}|{:-<34}|", "", "", ":", ":", "", "");
}

impl Row {
    /// Prints the row.
    pub(crate) fn print(&self) {
        let cpu = self.cpu_per_gib.map_or_else(String::new, |cpu| format!("{cpu:.2}"));
        let limit = self.of_limit.map_or_else(String::new, |(ratio, of)| format!("{ratio:.2} of {of}"));
        let floor = self.floor.map_or_else(String::new, |(floor, reached)| {
            format!("{floor}: {}", if reached { "reached" } else { "MISSED" })
        });
        println!(
            "| {:<46} | {:<34} | {cpu:>9} | {:>16} | {limit:<34} | {floor:<32} |",
            self.name,
            self.figure,
            self.per_core.as_deref().unwrap_or_default()
        );
    }
}
