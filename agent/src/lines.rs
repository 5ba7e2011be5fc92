//! From bytes to records: where lines end, and which of them go into one batch.
//!
//! Owns the rules of cutting; knows no file. Pure: a block of bytes in, records pushed into a builder out. A record is a
//! line without its terminator (LF or CRLF). An empty line is a record. What comes out depends only on the bytes, on
//! [`Start`] and on where the block ends, never on how the bytes arrived, except where a flush is asked for; such cuts
//! are kept in the cut log, so that they come out the same after a restart.

use logmesh_proto::{Flags, RecordsBuilder};
use memchr::memchr;

/// How the record before a position ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With its terminator, or there is none: a new record begins.
    #[default]
    Fresh,
    /// It was flushed without terminator: a lone terminator is swallowed, more bytes are a continued record.
    Unterminated,
    /// It was split for its length: the rest follows as a continued record.
    Split,
}

/// Whether a rest without terminator may become a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// No: its end may still come.
    Wait,
    /// Yes: nothing came for a time.
    Idle,
    /// Yes, and nothing can follow it: its generation has ended.
    End,
}

/// How much goes into one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutLimits {
    /// Largest sum of bodies in bytes; one record may exceed it.
    pub batch_bytes_max: usize,
    /// Largest number of records.
    pub batch_records_max: usize,
    /// Longest body in bytes; longer lines are split.
    pub record_bytes_max: usize,
}

/// What was cut from the beginning of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cutting {
    /// Bytes in front of the first record that belong to none: the terminator of a record flushed before.
    pub skipped: usize,
    /// Bytes from the beginning of the block that are dealt with, the skipped ones included.
    pub consumed: usize,
    /// Marks of the batch.
    pub flags: u32,
    /// How the last record ended.
    pub after: Start,
}

/// Cuts one batch from the beginning of `block` into `records`, which must be empty. Nothing consumed means that more
/// bytes are needed.
pub fn cut(block: &[u8], start: Start, flush: Flush, limits: &CutLimits, records: &mut RecordsBuilder) -> Cutting {
    let skipped = match (start, block) {
        (Start::Fresh, _) => 0,
        (_, [b'\n', ..]) => 1,
        (_, [b'\r', b'\n', ..]) => 2,
        (_, [b'\r']) if flush == Flush::End => 1,
        // A lone CR: with the next byte it will be clear whether it is half a terminator.
        (_, [b'\r']) => return Cutting { after: start, ..Cutting::default() },
        _ => 0,
    };
    let continued = start != Start::Fresh && skipped == 0;
    let after = if skipped > 0 { Start::Fresh } else { start };
    let mut cutting = Cutting { skipped, consumed: skipped, flags: 0, after };
    while records.len() < limits.batch_records_max {
        let Some(line) = next_line(&block[cutting.consumed..], flush, limits.record_bytes_max) else { break };
        let alone = line.end == Start::Split;
        let full = records.bytes() + line.body > limits.batch_bytes_max;
        if !records.is_empty() && (full || alone) {
            break;
        }
        let begin = cutting.consumed;
        records.push(&block[begin..begin + line.body], u32::try_from(line.source).unwrap_or(u32::MAX));
        cutting.consumed += line.source;
        cutting.after = line.end;
        if line.end != Start::Fresh {
            break;
        }
    }
    if !records.is_empty() {
        cutting.flags = flags(continued, cutting.after).bits();
    }
    cutting
}

/// Cuts a range again that was cut before: all its records, however long. `flags` are those of the first time.
pub fn recut(range: &[u8], flags: Flags, records: &mut RecordsBuilder) {
    if flags.contains(Flags::LAST_SPLIT) {
        records.push(range, u32::try_from(range.len()).unwrap_or(u32::MAX));
        return;
    }
    let mut at = 0;
    while let Some(line) = next_line(&range[at..], Flush::End, usize::MAX - 2) {
        records.push(&range[at..at + line.body], u32::try_from(line.source).unwrap_or(u32::MAX));
        at += line.source;
    }
}

fn flags(continued: bool, after: Start) -> Flags {
    let first = if continued { Flags::FIRST_CONTINUED } else { Flags::NONE };
    let last = match after {
        Start::Fresh => Flags::NONE,
        Start::Unterminated => Flags::LAST_PARTIAL,
        Start::Split => Flags::LAST_SPLIT,
    };
    first.union(last)
}

struct Line {
    /// Length of the body.
    body: usize,
    /// Length in the source.
    source: usize,
    end: Start,
}

fn next_line(rest: &[u8], flush: Flush, record_bytes_max: usize) -> Option<Line> {
    // A body of the greatest length and CRLF: whatever has no LF in there is too long for one record.
    let window = &rest[..rest.len().min(record_bytes_max + 2)];
    if let Some(length) = memchr(b'\n', window) {
        let body = length - usize::from(length > 0 && window[length - 1] == b'\r');
        if body <= record_bytes_max {
            return Some(Line { body, source: length + 1, end: Start::Fresh });
        }
        return Some(Line { body: record_bytes_max, source: record_bytes_max, end: Start::Split });
    }
    if window.len() == record_bytes_max + 2 {
        return Some(Line { body: record_bytes_max, source: record_bytes_max, end: Start::Split });
    }
    if flush == Flush::Wait || rest.is_empty() {
        return None;
    }
    // A CR at the end is half a terminator, most likely: it is left where it is, to be swallowed with its LF.
    let half = flush == Flush::Idle && rest.ends_with(b"\r");
    let body = rest.len() - usize::from(half);
    if body > record_bytes_max {
        return Some(Line { body: record_bytes_max, source: record_bytes_max, end: Start::Split });
    }
    (body > 0).then_some(Line { body, source: body, end: Start::Unterminated })
}

#[cfg(test)]
mod tests;
