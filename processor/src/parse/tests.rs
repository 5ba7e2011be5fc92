mod formats;
mod hostile;
mod plain;
mod times;

use super::*;

/// 2026-11-23T03:00:00Z
const OBSERVED: i64 = 1_795_402_800_000_000_000;

/// What a parser found, as owned and readable values.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    format: &'static str,
    time: Option<String>,
    level: Option<&'static str>,
    message: Option<String>,
    host: Option<String>,
    logger: Option<String>,
    process: Option<String>,
    pid: Option<u32>,
    thread: Option<String>,
}

fn owned(text: Option<Text<'_>>) -> Option<String> {
    text.map(|text| String::from_utf8_lossy(text.raw()).into_owned())
}

fn timestamp(unix_nano: i64) -> String {
    jiff::Timestamp::from_nanosecond(unix_nano.into()).unwrap().to_string()
}

impl Found {
    fn new(parsed: &Parsed<'_>) -> Self {
        Self {
            format: parsed.format.name(),
            time: parsed.time.map(|time| timestamp(time.unix_nano)),
            level: parsed.level.map(Level::name),
            message: owned(parsed.message),
            host: owned(parsed.host),
            logger: owned(parsed.logger),
            process: owned(parsed.process),
            pid: parsed.pid,
            thread: owned(parsed.thread),
        }
    }
}

fn parse_as(format: Format, line: &str) -> Option<Found> {
    let mut scratch = Scratch::default();
    let mut input = Input { line: line.as_bytes(), observed_unix_nano: OBSERVED, scratch: &mut scratch };
    parse(format, &mut input).as_ref().map(Found::new)
}

fn auto(line: &str) -> Found {
    parse_as(Format::Auto, line).expect("auto takes every line")
}

/// The expectation that is left after naming what is there.
fn found(format: &'static str) -> Found {
    Found { format, ..Found::default() }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn every_format_is_known_by_its_name() {
    for (name, format) in Format::NAMES {
        assert_eq!(Format::from_name(name), Some(format));
        assert_eq!(format.name(), name);
    }
    assert_eq!(Format::from_name("xml"), None);
}

#[test]
fn levels_follow_their_table() {
    let words = [
        ("trace", "trace TRC finest FINER verbose"),
        ("debug", "DEBUG dbg fine"),
        ("info", "Info inf information INFORMATIONAL notice note"),
        ("warn", "warn WARNING wrn"),
        ("error", "ERROR err eror SEVERE"),
        ("fatal", "FATAL ftl critical CRIT alert emerg emergency panic"),
    ];
    for (name, words) in words {
        for word in words.split(' ') {
            assert_eq!(Level::from_word(word.as_bytes()).map(Level::name), Some(name), "{word}");
        }
    }
    for word in ["", "i", "infos", "banana", "informationally", "a word much longer than any level"] {
        assert_eq!(Level::from_word(word.as_bytes()), None, "{word}");
    }
    let severities: Vec<_> = (0..8).map(|severity| Level::from_severity(severity).name()).collect();
    assert_eq!(severities, ["fatal", "fatal", "fatal", "error", "warn", "info", "info", "debug"]);
}
