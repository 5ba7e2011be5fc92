//! The ten real logs, and what is expected of each of their lines.
//!
//! The expectations are read out of the lines here by means of their own, far simpler than the product's parsers: a
//! fixed place in the line for level and time.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::ledger::Ledger;

/// Names of the ten logs.
pub const NAMES: [&str; 10] = [
    "apache.log",
    "apache_access.log",
    "hadoop.log",
    "hdfs.log",
    "linux.log",
    "nginx_json.log",
    "openssh.log",
    "openstack.log",
    "spark.log",
    "zookeeper.log",
];

/// Where the ten logs are kept.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join("logs")
}

/// Copies the ten logs and returns what a reader of the copies must find.
///
/// # Errors
///
/// When a log is missing or cannot be copied.
pub fn copy_into(directory: &Path) -> Result<Ledger> {
    let mut ledger = Ledger::default();
    for name in NAMES {
        let from = self::directory().join(name);
        let bytes = std::fs::read(&from).with_context(|| format!("cannot read the sample log {}", from.display()))?;
        let to = directory.join(name);
        std::fs::write(&to, &bytes)?;
        for (offset, line) in lines(&bytes) {
            ledger.wrote(&to, offset, line);
        }
    }
    Ok(ledger)
}

/// The lines of a file with their offsets: without LF or CRLF, and the last one with or without its end.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut offset = 0_u64;
    bytes.split_inclusive(|byte| *byte == b'\n').map(move |raw| {
        let begin = offset;
        offset += raw.len() as u64;
        let line = raw.strip_suffix(b"\n").unwrap_or(raw);
        (begin, if raw.ends_with(b"\n") { line.strip_suffix(b"\r").unwrap_or(line) } else { line })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_with_their_offsets_and_without_their_ends() {
        let found: Vec<_> = lines(b"a\r\n\nbc\nd").collect();
        assert_eq!(found, [(0, &b"a"[..]), (3, b""), (4, b"bc"), (7, b"d")]);
    }
}
