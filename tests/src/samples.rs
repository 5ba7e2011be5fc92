//! The ten real logs, and what is expected of each of their lines.
//!
//! The expectations are read out of the lines here by means of their own, far simpler than the product's parsers: a
//! fixed place in the line for level and time.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

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

/// What is expected of one line's document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// `event.dataset`.
    pub dataset: &'static str,
    /// `@timestamp`, where the line has a time.
    pub time: Option<Timestamp>,
    /// `log.level`, where the line has one in a fixed place.
    pub level: Option<&'static str>,
}

/// What is expected of a line of the log `name`, read at `now`.
///
/// # Errors
///
/// When the log is not one of the ten, or the line is not as all lines of it are.
pub fn expected(name: &str, line: &str, now: Timestamp) -> Result<Expected> {
    let word = |nth: usize| line.split_whitespace().nth(nth).unwrap_or_default();
    let (dataset, time, level) = match name {
        "apache.log" => ("apache_error", utc("[%a %b %d %H:%M:%S %Y]", &line[..26])?, word(5)),
        "apache_access.log" => {
            let at = line.find('[').map_or("", |begin| &line[begin + 1..begin + 21]);
            let full = line.split('"').count() == 7;
            (if full { "combined" } else { "common" }, utc("%d/%b/%Y:%H:%M:%S", at)?, "")
        }
        "hadoop.log" => ("text", utc("%Y-%m-%d %H:%M:%S,%f", &line[..23])?, word(2)),
        "hdfs.log" => ("text", utc("%y%m%d %H%M%S", &line[..13])?, word(3)),
        "linux.log" | "openssh.log" => ("syslog3164", without_year(&line[..15], now)?, ""),
        "nginx_json.log" => ("json", json_millis(line)?, ""),
        "openstack.log" => ("text", utc("%Y-%m-%d %H:%M:%S.%f", &format!("{} {}", word(1), word(2)))?, word(4)),
        "spark.log" => ("text", utc("%y/%m/%d %H:%M:%S", &line[..17])?, word(2)),
        "zookeeper.log" => ("text", utc("%Y-%m-%d %H:%M:%S,%f", &line[..23])?, word(3)),
        other => bail!("{other} is none of the sample logs"),
    };
    Ok(Expected { dataset, time: Some(time), level: level_of(level) })
}

fn level_of(word: &str) -> Option<&'static str> {
    Some(match word.trim_matches(['[', ']']) {
        "INFO" | "notice" => "info",
        "WARN" | "WARNING" => "warn",
        "ERROR" | "error" => "error",
        "FATAL" => "fatal",
        _ => return None,
    })
}

fn utc(format: &str, text: &str) -> Result<Timestamp> {
    let civil = DateTime::strptime(format, text).with_context(|| format!("{text:?} is no time like {format}"))?;
    Ok(civil.to_zoned(TimeZone::UTC)?.timestamp())
}

/// A time of the latest year that does not put it more than a day after `now`.
fn without_year(text: &str, now: Timestamp) -> Result<Timestamp> {
    let this_year = now.to_zoned(TimeZone::UTC).year();
    let at = |year: i16| utc("%Y %b %d %H:%M:%S", &format!("{year} {text}"));
    let time = at(this_year)?;
    Ok(if time > now.checked_add(Span::new().hours(24))? { at(this_year - 1)? } else { time })
}

fn json_millis(line: &str) -> Result<Timestamp> {
    let value: serde_json::Value = serde_json::from_str(line)?;
    Ok(Timestamp::from_millisecond(value["timestamp"].as_i64().context("no timestamp")?)?)
}

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

    #[test]
    fn every_line_of_the_ten_logs_has_an_expectation() {
        let now = Timestamp::now();
        for name in NAMES {
            let bytes = std::fs::read(directory().join(name)).unwrap();
            for (offset, line) in lines(&bytes) {
                let line = std::str::from_utf8(line).unwrap();
                let expected = expected(name, line, now).unwrap_or_else(|error| panic!("{name}:{offset}: {error:#}"));
                assert!(expected.time.is_some());
            }
        }
    }
}
