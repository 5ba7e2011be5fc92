//! Cutting by rules: other delimiters, other encodings, lines that are joined.

use std::borrow::Cow;

use logmesh_proto::RecordsBuilder;

use super::{
    At, Beginning, Cutter, Encoding, Flush, Piece, Start, cri,
    delimiter::{Behind, Delimiter},
    joining::Joining,
};

/// What a record is, where it is more than a line that ends in LF or CRLF.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) encoding: Encoding,
    pub(super) delimiter: Delimiter,
    /// Whether NUL where a record would begin is padding.
    pub(super) padding: bool,
    pub(super) joining: Option<Joining>,
}

impl Rules {
    /// The line at the beginning of `rest`, as [`Cutter::next`] does it for records.
    fn line(&self, rest: &[u8], flush: Flush, source_max: usize) -> Option<Piece> {
        let window = &rest[..rest.len().min(source_max + self.delimiter.bytes_max())];
        let fits = |body: &usize| *body <= source_max;
        if let Some((body, terminator)) = self.delimiter.find(window).filter(|(body, _)| fits(body)) {
            return Some(Piece { body, source: body + terminator, end: Start::Fresh, split: false });
        }
        if window.len() == source_max + self.delimiter.bytes_max() {
            return Some(self.too_long(window, source_max));
        }
        if flush == Flush::Wait || rest.is_empty() {
            return None;
        }
        let half = if flush == Flush::Idle { self.half(rest) } else { 0 };
        let body = rest.len() - half;
        if body > source_max {
            return Some(self.too_long(window, source_max));
        }
        (body > 0).then_some(Piece { body, source: body, end: Start::Unterminated, split: false })
    }

    /// Bytes at the end that a flush leaves: they may be half a terminator or half a character.
    fn half(&self, rest: &[u8]) -> usize {
        let half = self.delimiter.half(rest);
        half + self.encoding.parted(&rest[..rest.len() - half])
    }

    fn too_long(&self, window: &[u8], source_max: usize) -> Piece {
        let body = self.encoding.whole(&window[..source_max]);
        Piece { body, source: body, end: Start::Split, split: true }
    }

    fn text<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        self.encoding.decode(bytes).0
    }

    /// Whether the line at the beginning of `rest` goes on from a record that is out of sight.
    fn is_continuation(&self, rest: &[u8], flush: Flush, source_max: usize) -> bool {
        let Some(joining) = &self.joining else { return false };
        let line = self.line(rest, flush, source_max);
        line.is_some_and(|line| joining.is_continuation(&self.text(&rest[..line.body])))
    }

    /// The record that begins with the line `first`.
    fn join(
        &self,
        joining: &Joining,
        rest: &[u8],
        first: Piece,
        continued: bool,
        flush: Flush,
        source_max: usize,
    ) -> Option<Piece> {
        let mut record = first;
        let mut trail = joining.begin(&self.text(&rest[..first.body]), continued);
        let mut lines = 1;
        while record.end == Start::Fresh && !joining.is_complete(trail) {
            let behind = &rest[record.source..];
            let open = Piece { end: Start::Joined, ..record };
            if self.is_padding(behind) {
                return Some(open);
            }
            let Some(line) = self.line(behind, flush, source_max) else {
                return (flush != Flush::Wait).then_some(open);
            };
            let Some(next) = joining.follow(trail, &self.text(&behind[..line.body])) else { return Some(record) };
            let body = record.source + line.body;
            if line.split || body > source_max || lines >= joining.lines_max {
                return Some(Piece { split: true, ..open });
            }
            record = Piece { body, source: record.source + line.source, end: line.end, split: false };
            trail = next;
            lines += 1;
        }
        Some(record)
    }
}

impl Cutter for Rules {
    fn begin(&self, block: &[u8], at: &At, record_bytes_max: usize) -> Option<Beginning> {
        let source_max = self.encoding.source_bytes(record_bytes_max);
        let lead = self.encoding.lead(block, at.offset);
        let rest = &block[lead..];
        let unseen = |rest| self.is_continuation(rest, at.flush, source_max);
        let (skipped, after, continued) = match at.start {
            // A generation that begins in the middle of a record was cut off by rotation.
            Start::Fresh if at.offset == 0 || (at.offset == 2 && self.encoding.unit() == 2) => {
                (lead, Start::Fresh, unseen(rest))
            }
            Start::Fresh => (lead, Start::Fresh, false),
            Start::Joined => (lead, Start::Joined, unseen(rest)),
            Start::Unterminated | Start::Split => match self.delimiter.behind(rest, at.flush) {
                Behind::Undecided => return None,
                Behind::More => (lead, at.start, true),
                Behind::Terminator(length) => {
                    let after = if self.joining.is_some() { Start::Joined } else { Start::Fresh };
                    (lead + length, after, unseen(&rest[length..]))
                }
            },
        };
        Some(Beginning { skipped, after, continued })
    }

    fn next(&self, rest: &[u8], continued: bool, flush: Flush, record_bytes_max: usize) -> Option<Piece> {
        let source_max = self.encoding.source_bytes(record_bytes_max);
        let first = self.line(rest, flush, source_max)?;
        match &self.joining {
            Some(joining) => self.join(joining, rest, first, continued, flush, source_max),
            None => Some(first),
        }
    }

    fn body_bytes(&self, source: usize) -> usize {
        self.encoding.body_bytes(source)
    }

    fn is_padding(&self, rest: &[u8]) -> bool {
        self.padding && rest.first() == Some(&0) && (self.encoding.unit() == 1 || rest.get(1) == Some(&0))
    }

    fn push(&self, body: &[u8], source: usize, records: &mut RecordsBuilder) -> usize {
        let (text, replaced) = self.encoding.decode(body);
        let text = if self.joining.as_ref().is_some_and(|joining| joining.cri) { cri::fold(text) } else { text };
        records.push(&text, u32::try_from(source).unwrap_or(u32::MAX));
        replaced
    }

    fn with_text<R>(&self, body: &[u8], read: impl FnOnce(&[u8]) -> R) -> R {
        let text = self.text(body);
        if !self.joining.as_ref().is_some_and(|joining| joining.cri) {
            return read(&text);
        }
        let folded = cri::fold(text);
        read(cri::read(&folded).map_or(&folded[..], |line| line.message))
    }

    fn split_body<'a>(&self, range: &'a [u8]) -> &'a [u8] {
        // Where lines are joined, a record is split behind a whole line if it can be.
        if self.joining.is_none() {
            return range;
        }
        let mut line_end = None;
        let mut from = 0;
        while let Some((body, terminator)) = self.delimiter.find(&range[from..]) {
            line_end = Some((from + body, from + body + terminator));
            from += body + terminator;
        }
        match line_end {
            Some((body, end)) if end == range.len() => &range[..body],
            Some(_) | None => range,
        }
    }
}
