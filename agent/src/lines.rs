//! From bytes to records: where records end, and which of them go into one batch.
//!
//! Owns the rules of cutting; knows no file. Pure: a block of bytes in, records pushed into a builder out. What a record
//! is, is said by its group's [`Framing`]: a line without its terminator (LF or CRLF) unless it says otherwise, several
//! lines where lines are joined. An empty line is a record.
//!
//! What comes out depends only on the bytes, on [`Start`] and on where the block ends, never on how the bytes arrived,
//! except where a flush is asked for; such cuts are kept in the cut log, so that they come out the same after a restart.
//! Nothing is kept between two cuts but the position: a record whose end is not seen yet is not consumed, so that a
//! restart begins again at its first byte.
//!
//! Runs of NUL where a record would begin are padding: room that was reserved and not written yet, or a hole. At the end
//! of what is there they are left alone; once something stands behind them they are skipped.

mod config;
mod cri;
mod delimiter;
mod encoding;
mod framing;
mod joining;
mod plain;
mod presets;
mod rules;
mod sifted;

use logmesh_proto::{Flags, RecordsBuilder};

pub use config::FORMATS;
pub(crate) use config::read_format;
pub use delimiter::DELIMITER_BYTES_MAX;
pub use encoding::Encoding;
pub use framing::{Framing, FramingConfig, FramingError, LINES_MAX, Multiline};
pub use presets::Preset;

use crate::sift::{Dropped, Sifter};
use plain::Plain;

/// How the record before a position ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With its terminator, or there is none: a new record begins.
    #[default]
    Fresh,
    /// It was flushed without terminator: a lone terminator is swallowed, more bytes are a continued record.
    Unterminated,
    /// It was split for its length within a line: the rest follows as a continued record.
    Split,
    /// It was flushed or split behind a whole line, before it was known whether the next line belongs to it.
    Joined,
}

/// Whether a rest whose end is not known may become a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// No: its end may still come.
    Wait,
    /// Yes: nothing came for a time.
    Idle,
    /// Yes, and nothing can follow it: its generation has ended.
    End,
}

/// Where a block stands in its generation, and what is known of what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Byte offset of its first byte.
    pub offset: u64,
    /// How the record before it ended.
    pub start: Start,
    /// Whether a rest may be cut.
    pub flush: Flush,
    /// Whether something other than padding is known to stand behind the block.
    pub written_behind: bool,
}

/// How much goes into one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutLimits {
    /// Largest sum of bodies in bytes; one record may exceed it.
    pub batch_bytes_max: usize,
    /// Largest number of records.
    pub batch_records_max: usize,
    /// Longest body in bytes; longer records are split.
    pub record_bytes_max: usize,
}

/// What was cut from the beginning of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cutting {
    /// Bytes in front of the first record that belong to none: the terminator of a record flushed before, a byte order
    /// mark, or padding.
    pub skipped: usize,
    /// Bytes from the beginning of the block that are dealt with, the skipped ones included.
    pub consumed: usize,
    /// Marks of the batch.
    pub flags: u32,
    /// How the last record ended.
    pub after: Start,
    /// Code units that are no text in the file's encoding and were replaced.
    pub replaced: usize,
    /// Whether what is skipped is padding; nothing else comes with it.
    pub padding: bool,
    /// Records that were consumed and are not kept.
    pub dropped: Dropped,
}

/// Cuts one batch from the beginning of `block` into `records`, which must be empty. Nothing consumed means that more
/// bytes are needed.
pub fn cut(block: &[u8], at: At, limits: &CutLimits, framing: &Framing, records: &mut RecordsBuilder) -> Cutting {
    cut_sifted(block, at, limits, framing, None, records)
}

/// As [`cut`], with records that a sifter drops left out. A cut that consumes bytes beyond what it skipped, and has no
/// record, is one of dropped records alone.
pub fn cut_sifted(
    block: &[u8],
    at: At,
    limits: &CutLimits,
    framing: &Framing,
    sifter: Option<&Sifter<'_>>,
    records: &mut RecordsBuilder,
) -> Cutting {
    let unit = framing.padding_unit();
    let padding = leading_padding(block, unit);
    if padding > 0 {
        let skipped = if block.len() - padding >= unit || at.written_behind { padding } else { 0 };
        return Cutting { skipped, consumed: skipped, after: at.start, padding: true, ..Cutting::default() };
    }
    let written = written_bytes(block, at.offset, framing);
    // What ends in padding with something behind it will not grow any more, nor become whole.
    let ended = written < block.len() && at.written_behind;
    let at = if ended { At { flush: Flush::End, ..at } } else { at };
    let block = &block[..written];
    match (framing.rules(), sifter) {
        (None, None) => cut_by(&Plain, block, at, limits, records),
        (Some(rules), None) => cut_by(rules, block, at, limits, records),
        (None, Some(sifter)) => sifted::cut_by(&Plain, block, at, limits, sifter, records),
        (Some(rules), Some(sifter)) => sifted::cut_by(rules, block, at, limits, sifter, records),
    }
}

/// Cuts a range again that was cut before: all its records, however long. `flags` are those of the first time.
pub fn recut(range: &[u8], flags: Flags, framing: &Framing, records: &mut RecordsBuilder) {
    match framing.rules() {
        None => recut_by(&Plain, range, flags, records),
        Some(rules) => recut_by(rules, range, flags, records),
    }
}

/// Where the record with this index begins in a range that was cut before.
#[must_use]
pub fn boundary(range: &[u8], flags: Flags, framing: &Framing, index: usize) -> Option<usize> {
    match framing.rules() {
        None => Pieces::new(&Plain, range, flags).nth(index).map(|(begin, _)| begin),
        Some(rules) => Pieces::new(rules, range, flags).nth(index).map(|(begin, _)| begin),
    }
}

/// As [`recut`], for a range that was cut at `offset` with a sifter.
pub fn recut_sifted(
    range: &[u8],
    flags: Flags,
    framing: &Framing,
    sifter: Option<&Sifter<'_>>,
    offset: u64,
    records: &mut RecordsBuilder,
) {
    match (framing.rules(), sifter) {
        (_, None) => recut(range, flags, framing, records),
        (None, Some(sifter)) => sifted::recut_by(&Plain, range, flags, sifter, offset, records),
        (Some(rules), Some(sifter)) => sifted::recut_by(rules, range, flags, sifter, offset, records),
    }
}

/// As [`boundary`], for a range that was cut at `offset` with a sifter: counted are the records that it kept.
#[must_use]
pub fn boundary_sifted(
    range: &[u8],
    flags: Flags,
    framing: &Framing,
    sifter: Option<&Sifter<'_>>,
    offset: u64,
    index: usize,
) -> Option<usize> {
    match (framing.rules(), sifter) {
        (_, None) => boundary(range, flags, framing, index),
        (None, Some(sifter)) => sifted::boundary_by(&Plain, range, flags, sifter, offset, index),
        (Some(rules), Some(sifter)) => sifted::boundary_by(rules, range, flags, sifter, offset, index),
    }
}

/// A way of cutting. Generic rather than asked record by record: plain lines are the hot path.
trait Cutter {
    /// What stands before the first record; `None` while that is not clear.
    fn begin(&self, block: &[u8], at: &At, record_bytes_max: usize) -> Option<Beginning>;
    /// The record at the beginning of `rest`; `None` while its end is not known. `continued` says that it goes on from
    /// the one before.
    fn next(&self, rest: &[u8], continued: bool, flush: Flush, record_bytes_max: usize) -> Option<Piece>;
    /// The longest body that so many source bytes can become.
    fn body_bytes(&self, source: usize) -> usize;
    /// Whether padding begins here.
    fn is_padding(&self, rest: &[u8]) -> bool;
    /// Adds a record. Returns how many code units were replaced.
    fn push(&self, body: &[u8], source: usize, records: &mut RecordsBuilder) -> usize;
    /// Shows the text of a body to `read`: without its encoding, and without what a container runtime wrote around it.
    fn with_text<R>(&self, body: &[u8], read: impl FnOnce(&[u8]) -> R) -> R {
        read(body)
    }
    /// The body of a record that was split, in all its bytes.
    fn split_body<'a>(&self, range: &'a [u8]) -> &'a [u8];
}

/// What stands before the first record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Beginning {
    skipped: usize,
    /// How what is skipped leaves things.
    after: Start,
    /// Whether the first record goes on from the one before.
    continued: bool,
}

/// One record, in bytes of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// Length without its last terminator.
    body: usize,
    /// Length up to the next record.
    source: usize,
    end: Start,
    /// Whether it was split for its length.
    split: bool,
}

fn cut_by(cutter: &impl Cutter, block: &[u8], at: At, limits: &CutLimits, records: &mut RecordsBuilder) -> Cutting {
    let nothing = Cutting { after: at.start, ..Cutting::default() };
    let Some(begin) = cutter.begin(block, &at, limits.record_bytes_max) else { return nothing };
    let mut cutting = Cutting { skipped: begin.skipped, consumed: begin.skipped, after: begin.after, ..nothing };
    let mut split = false;
    while records.len() < limits.batch_records_max {
        let rest = &block[cutting.consumed..];
        let is_first = records.is_empty();
        if (!is_first || begin.skipped > 0) && cutter.is_padding(rest) {
            break;
        }
        let continued = is_first && begin.continued;
        let Some(piece) = cutter.next(rest, continued, at.flush, limits.record_bytes_max) else { break };
        // A record that was split is alone in its batch.
        let full = records.bytes() + cutter.body_bytes(piece.body) > limits.batch_bytes_max;
        if !is_first && (full || piece.split) {
            break;
        }
        cutting.replaced += cutter.push(&rest[..piece.body], piece.source, records);
        cutting.consumed += piece.source;
        cutting.after = piece.end;
        split = piece.split;
        if piece.end != Start::Fresh {
            break;
        }
    }
    if !records.is_empty() {
        cutting.flags = flags(begin.continued, cutting.after, split).bits();
    }
    cutting
}

fn recut_by(cutter: &impl Cutter, range: &[u8], flags: Flags, records: &mut RecordsBuilder) {
    for (begin, piece) in Pieces::new(cutter, range, flags) {
        cutter.push(&range[begin..begin + piece.body], piece.source, records);
    }
}

/// The records of a range that was cut before, with where each begins.
struct Pieces<'a, C> {
    cutter: &'a C,
    range: &'a [u8],
    flags: Flags,
    at: usize,
}

impl<'a, C: Cutter> Pieces<'a, C> {
    fn new(cutter: &'a C, range: &'a [u8], flags: Flags) -> Self {
        Self { cutter, range, flags, at: 0 }
    }
}

impl<C: Cutter> Iterator for Pieces<'_, C> {
    type Item = (usize, Piece);

    fn next(&mut self) -> Option<(usize, Piece)> {
        /// No record is that long, and sums with it do not overflow.
        const UNLIMITED: usize = usize::MAX / 4;
        let begin = self.at;
        let rest = &self.range[begin..];
        let continued = begin == 0 && self.flags.contains(Flags::FIRST_CONTINUED);
        let piece = if rest.is_empty() {
            return None;
        } else if self.flags.contains(Flags::LAST_SPLIT) {
            let body = self.cutter.split_body(rest).len();
            Piece { body, source: rest.len(), end: Start::Split, split: true }
        } else {
            self.cutter.next(rest, continued, Flush::End, UNLIMITED)?
        };
        self.at += piece.source;
        Some((begin, piece))
    }
}

fn flags(continued: bool, after: Start, split: bool) -> Flags {
    let first = if continued { Flags::FIRST_CONTINUED } else { Flags::NONE };
    let last = match after {
        _ if split => Flags::LAST_SPLIT,
        Start::Unterminated => Flags::LAST_PARTIAL,
        Start::Fresh | Start::Split | Start::Joined => Flags::NONE,
    };
    first.union(last)
}

/// Length of the run of NUL code units of `unit` bytes at the beginning; 0 where there is no padding.
fn leading_padding(block: &[u8], unit: usize) -> usize {
    if unit == 0 || block.first() != Some(&0) {
        return 0;
    }
    let zeros = block.iter().position(|byte| *byte != 0).unwrap_or(block.len());
    zeros - zeros % unit
}

/// Length of a block that begins at `offset`, without the padding at its end: the run of NUL code units.
#[must_use]
pub fn written_bytes(block: &[u8], offset: u64, framing: &Framing) -> usize {
    let unit = framing.padding_unit();
    if unit == 0 || block.last() != Some(&0) {
        return block.len();
    }
    let written = block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    // Code units are counted from the beginning of the generation.
    let out_of_step = unit == 2 && (offset + written as u64) % 2 == 1;
    (written + usize::from(out_of_step)).min(block.len())
}

#[cfg(test)]
mod tests;
