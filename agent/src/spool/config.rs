//! `[agent.spool]`.

use std::time::Duration;

use logmesh_runtime::config::{Section, parse_duration, parse_size};

const GIB: u64 = 1 << 30;
/// Word for "without limit".
const UNLIMITED: &str = "unlimited";

/// How much may be kept for files that are gone and for inputs that are no files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// Bytes on disk of what was unread of deleted files; beyond it the oldest goes and is counted. 0: nothing is kept.
    pub deleted_bytes_max: u64,
    /// How long it is kept; beyond it, it goes and is counted.
    pub deleted_age_max: Duration,
    /// Bytes on disk of inputs that are no files; beyond it they wait.
    pub inputs_bytes_max: u64,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self { deleted_bytes_max: GIB, deleted_age_max: Duration::MAX, inputs_bytes_max: GIB }
    }
}

impl SpoolConfig {
    /// Reads the section; faults are noted in it.
    pub(crate) fn read(section: &Section) -> Self {
        let size = |key, least: u64| {
            let limit = limit(section, key, "1 GiB", parse_size, u64::MAX);
            if limit < least && limit != 0 {
                section.fault(key, format!("less than {} MiB", least >> 20), "write a larger size, or \"unlimited\"");
            }
            limit
        };
        let config = Self {
            deleted_bytes_max: size("deleted_bytes_max", 1 << 20),
            deleted_age_max: limit(section, "deleted_age_max", UNLIMITED, parse_duration, Duration::MAX),
            inputs_bytes_max: size("inputs_bytes_max", 16 << 20),
        };
        if config.inputs_bytes_max == 0 {
            section.fault("inputs_bytes_max", "0", "inputs need a spool: write 16 MiB or more");
        }
        config
    }
}

fn limit<T>(section: &Section, key: &str, default: &str, parse: fn(&str) -> Result<T, String>, none: T) -> T {
    let text = section.text(key, default);
    if text == UNLIMITED {
        return none;
    }
    parse(&text).unwrap_or_else(|what| {
        section.fault(key, what, "write a number and a unit, as in \"10 GiB\" or \"7d\", or \"unlimited\"");
        none
    })
}
