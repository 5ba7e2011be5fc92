//! From the records of a batch to its documents.

use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use logmesh_proto::{Envelope, Flags, OpenBatch, RecordId, RecordRef};

use super::constants::Constants;
use super::days::Days;
use super::fields::Key;
use super::{Document, detail, writer};
use crate::parse::time::{DAY, days_from_civil};
use crate::parse::{self, Detail, Format, Input, Level, Parsed, Scratch, Text};

/// When the exact line is kept beside the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KeepOriginal {
    /// Where parsing made the message something else than the line.
    #[default]
    WhenParsed,
    /// With every document.
    Always,
    /// Never, so that the exact bytes of a parsed line, or of one that is not UTF-8, cannot be had from its document.
    Never,
}

/// Settings of a [`Builder`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuilderConfig {
    /// When the exact line is kept beside the message.
    pub keep_original: KeepOriginal,
}

/// What was built from one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records, and so documents.
    pub records: u64,
    /// Bytes of the records' bodies.
    pub bytes: u64,
    /// Bytes of the documents' bodies.
    pub document_bytes: u64,
    /// Records by level: trace, debug, info, warn, error, fatal, and those without one.
    pub by_level: [u64; 7],
    /// Records that are not in the format that was asked for.
    pub parse_failed: u64,
}

impl Tally {
    /// Names of the places of [`Tally::by_level`].
    pub const LEVELS: [&'static str; 7] = ["trace", "debug", "info", "warn", "error", "fatal", "none"];
}

/// Most bytes beside its record that a document is expected to have; one that has more makes its block grow.
const OVERHEAD_MAX: usize = 2048;

/// Tags of a document, in the order in which they are written.
#[derive(Clone, Copy, Debug, Default)]
struct Tags {
    partial: bool,
    continued: bool,
    split: bool,
    parse_failed: bool,
    time_clamped: bool,
    fields_truncated: bool,
    fields_duplicate: bool,
    labels_truncated: bool,
    invalid_utf8: bool,
}

/// Makes documents, one batch after the other. It keeps no state between batches but room and names, so that a document
/// depends on its record and envelope alone.
#[derive(Debug, Default)]
pub struct Builder {
    config: BuilderConfig,
    scratch: Scratch,
    keys: Vec<Key>,
    days: Days,
    constants: Constants,
    /// Where each body of the batch ends in the block.
    ends: Vec<usize>,
    /// Bytes that a document of the last batch had beside twice its record, to guess the next block's size.
    overhead: usize,
}

/// A line ready to be parsed.
struct Line<'a> {
    /// Valid UTF-8.
    text: &'a [u8],
    /// The record's bytes, where they are not UTF-8 and `text` is a repaired copy.
    broken: Option<&'a [u8]>,
}

/// The time that a document bears.
struct Stamp<'a> {
    unix_nano: i64,
    /// The line's own time, which was not believed.
    clamped: Option<&'a [u8]>,
}

impl Builder {
    /// Makes a builder.
    #[must_use]
    pub fn new(config: BuilderConfig) -> Self {
        Self { config, overhead: OVERHEAD_MAX, ..Self::default() }
    }

    /// Appends one document for each record to `out`, in order. All bodies are slices of one new block.
    pub fn build(
        &mut self,
        envelope: &Envelope,
        records: &OpenBatch,
        format: Format,
        out: &mut Vec<Document>,
    ) -> Tally {
        self.constants.render(envelope);
        self.days.tenant(&envelope.tenant);
        self.ends.clear();
        let bytes: usize = records.bodies().len();
        let mut block = Vec::with_capacity(self.expected(records.len(), bytes));
        let mut tally = Tally { bytes: bytes as u64, ..Tally::default() };
        let first = out.len();
        out.reserve(records.len());
        for record in records.records() {
            let document = self.document(envelope, &record, format, &mut block, &mut tally);
            self.ends.push(block.len());
            out.push(document);
        }
        tally.document_bytes = block.len() as u64;
        self.overhead = (block.len().saturating_sub(2 * bytes) / records.len().max(1)).min(OVERHEAD_MAX);
        if block.len() < block.capacity() / 2 {
            block.shrink_to_fit();
        }
        let block = Bytes::from(block);
        let mut start = 0;
        for (document, end) in out[first..].iter_mut().zip(&self.ends) {
            document.body = block.slice(start..*end);
            start = *end;
        }
        tally
    }

    /// Room for the documents of a batch, by those of the last one and an eighth more. A block of the right size from the
    /// start is never moved, and malloc hands out the same pages again.
    fn expected(&self, records: usize, bytes: usize) -> usize {
        let expected = records * self.overhead + 2 * bytes;
        expected + expected / 8 + 4096
    }

    fn document(
        &mut self,
        envelope: &Envelope,
        record: &RecordRef<'_>,
        format: Format,
        block: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> Document {
        let repaired;
        let line = if std::str::from_utf8(record.body).is_ok() {
            Line { text: record.body, broken: None }
        } else {
            repaired = String::from_utf8_lossy(record.body);
            Line { text: repaired.as_bytes(), broken: Some(record.body) }
        };
        let observed_unix_nano = observed(record, envelope);
        let mut input = Input { line: line.text, observed_unix_nano, scratch: &mut self.scratch };
        let parsed = parse::parse(format, &mut input);
        let failed = parsed.is_none();
        let parsed = parsed.unwrap_or_else(Parsed::unparsed);
        tally.records += 1;
        tally.parse_failed += u64::from(failed);
        tally.by_level[parsed.level.map_or(6, Level::place)] += 1;
        let stamp = stamp(&parsed, observed_unix_nano);
        let mut tags = Tags {
            partial: record.marks.partial || parsed.cri.is_some_and(|cri| cri.partial),
            continued: record.marks.continued,
            split: record.marks.split,
            parse_failed: failed,
            time_clamped: stamp.clamped.is_some(),
            labels_truncated: self.constants.labels_truncated,
            invalid_utf8: line.broken.is_some(),
            ..Tags::default()
        };
        self.constants.observed(observed_unix_nano);
        let index = self.body(block, record, &line, &parsed, &stamp, &mut tags);
        Document {
            id: RecordId::derive(envelope.stream_key, record.offset, record.body),
            stream_key: envelope.stream_key,
            offset: record.offset,
            end_offset: record.end_offset,
            index,
            timestamp_unix_nano: stamp.unix_nano,
            received_unix_nano: envelope.received_unix_nano,
            resend: envelope.flags.contains(Flags::RESEND),
            body: Bytes::new(),
        }
    }

    /// Writes one body; gives its index.
    fn body(
        &mut self,
        out: &mut Vec<u8>,
        record: &RecordRef<'_>,
        line: &Line<'_>,
        parsed: &Parsed<'_>,
        stamp: &Stamp<'_>,
        tags: &mut Tags,
    ) -> Arc<str> {
        let day = self.days.day(stamp.unix_nano);
        out.extend_from_slice(b"{\"@timestamp\":\"");
        out.extend_from_slice(&day.date);
        out.push(b'T');
        writer::clock(out, stamp.unix_nano.rem_euclid(DAY));
        out.extend_from_slice(b"\",\"message\":\"");
        let index = Arc::clone(&day.index);
        let message = out.len();
        writer::text(out, parsed.message.unwrap_or(Text::Plain(line.text)));
        let message = message..out.len();
        out.push(b'"');
        out.extend_from_slice(&self.constants.log);
        writer::unsigned(out, record.offset);
        detail::log(out, parsed);
        out.push(b'}');
        let service = self.names(out, parsed);
        out.extend_from_slice(&self.constants.event);
        out.extend_from_slice(parsed.format.name().as_bytes());
        out.push(b'"');
        self.original(out, line, parsed, message);
        out.push(b'}');
        detail::process(out, parsed);
        if let Detail::Access(access) = &parsed.detail {
            detail::access(out, access);
        }
        detail::error_and_trace(out, parsed);
        let extra = detail::Extra { time: stamp.clamped, service };
        let changes = detail::fields(out, &mut self.keys, parsed, &self.scratch, extra);
        tags.fields_truncated = changes.truncated;
        tags.fields_duplicate = changes.duplicate;
        tags.write(out);
        out.push(b'}');
        index
    }

    /// Agent, labels, host and service: the line's own host stands before the stream's, the stream's service, since
    /// somebody configured it, before the line's. Gives the service that found no place.
    fn names<'a>(&self, out: &mut Vec<u8>, parsed: &Parsed<'a>) -> Option<Text<'a>> {
        out.extend_from_slice(&self.constants.agent);
        match parsed.host {
            Some(host) => {
                writer::member(out, b",\"host\":{\"name\":\"", host);
                out.push(b'}');
            }
            None => out.extend_from_slice(&self.constants.host),
        }
        if !self.constants.service.is_empty() {
            out.extend_from_slice(&self.constants.service);
            return parsed.service;
        }
        if let Some(service) = parsed.service.or(parsed.process) {
            writer::member(out, b",\"service\":{\"name\":\"", service);
            out.push(b'}');
        }
        None
    }

    /// The exact line, inside `event`. `message` is where the message stands in the block.
    fn original(&self, out: &mut Vec<u8>, line: &Line<'_>, parsed: &Parsed<'_>, message: Range<usize>) {
        let keep = match self.config.keep_original {
            KeepOriginal::Never => return,
            KeepOriginal::Always => true,
            KeepOriginal::WhenParsed => parsed.message.is_some_and(|message| message != Text::Plain(line.text)),
        };
        if let Some(broken) = line.broken {
            out.extend_from_slice(b",\"original_base64\":\"");
            out.extend_from_slice(STANDARD.encode(broken).as_bytes());
            out.push(b'"');
        } else if keep && parsed.message.is_some() {
            writer::member(out, b",\"original\":\"", Text::Plain(line.text));
        } else if keep {
            // The message is the line: it is escaped already.
            out.extend_from_slice(b",\"original\":\"");
            out.extend_from_within(message);
            out.push(b'"');
        }
    }
}

/// When the record was read. A client that does not say gets the time at which the gateway received the batch.
fn observed(record: &RecordRef<'_>, envelope: &Envelope) -> i64 {
    let observed = i64::try_from(record.observed_unix_nano).unwrap_or(i64::MAX);
    if observed >= year_2000() { observed } else { i64::try_from(envelope.received_unix_nano).unwrap_or(i64::MAX) }
}

fn year_2000() -> i64 {
    days_from_civil(2000, 1, 1) * DAY
}

/// The event's time if it can be believed, else the observed time (DESIGN 5).
fn stamp<'a>(parsed: &Parsed<'a>, observed_unix_nano: i64) -> Stamp<'a> {
    match parsed.time {
        None => Stamp { unix_nano: observed_unix_nano, clamped: None },
        Some(time) if time.unix_nano < year_2000() || time.unix_nano > observed_unix_nano.saturating_add(DAY) => {
            Stamp { unix_nano: observed_unix_nano, clamped: Some(time.raw) }
        }
        Some(time) => Stamp { unix_nano: time.unix_nano, clamped: None },
    }
}

impl Tags {
    /// `,"tags":[…]`
    fn write(self, out: &mut Vec<u8>) {
        let mut separator: &[u8] = b",\"tags\":[\"";
        for (set, name) in [
            (self.partial, "partial"),
            (self.continued, "continued"),
            (self.split, "split"),
            (self.parse_failed, "parse_failed"),
            (self.time_clamped, "time_clamped"),
            (self.fields_truncated, "fields_truncated"),
            (self.fields_duplicate, "fields_duplicate"),
            (self.labels_truncated, "labels_truncated"),
            (self.invalid_utf8, "invalid_utf8"),
        ] {
            if set {
                writer::member(out, separator, Text::Plain(name.as_bytes()));
                separator = b",\"";
            }
        }
        if separator == b",\"" {
            out.push(b']');
        }
    }
}
