//! What container runtimes write around each line: `2016-10-06T00:17:09.669794202Z stdout F message`.
//!
//! A runtime splits long lines into pieces, all but the last marked `P`. The pieces of one line become one line again:
//! the time and stream of the first piece, the mark of the last, and all messages. So whoever reads the record needs to
//! know nothing of pieces, nor of lines that were joined.

use std::borrow::Cow;

use memchr::memchr;

/// One line that a runtime wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CriLine<'a> {
    /// Time and stream with the spaces behind them.
    before_tags: &'a [u8],
    pub(super) mark: CriMark,
    pub(super) message: &'a [u8],
}

/// What decides whether the next line goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CriMark {
    is_stderr: bool,
    /// Whether it is a piece, and more of its line follows.
    pub(super) is_piece: bool,
}

impl CriMark {
    /// Whether both were written to the same stream.
    pub(super) fn same_stream(self, other: Self) -> bool {
        self.is_stderr == other.is_stderr
    }
}

/// Reads a line; `None` for what no runtime wrote.
pub(super) fn read(line: &[u8]) -> Option<CriLine<'_>> {
    if line.get(10) != Some(&b'T') || !line[0].is_ascii_digit() {
        return None;
    }
    let stream = memchr(b' ', line)? + 1;
    let (is_stderr, tags) = match &line[stream..] {
        rest if rest.starts_with(b"stdout ") => (false, stream + 7),
        rest if rest.starts_with(b"stderr ") => (true, stream + 7),
        _ => return None,
    };
    let (before_tags, rest) = line.split_at(tags);
    let (tags, message) = match memchr(b' ', rest) {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (rest, &rest[rest.len()..]),
    };
    // Tags are separated by colons, and the first says whether the line is whole.
    let is_piece = match tags.split(|byte| *byte == b':').next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    Some(CriLine { before_tags, mark: CriMark { is_stderr, is_piece }, message })
}

/// Several lines as one; a lone line as it is.
pub(super) fn fold(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if memchr(b'\n', &text).is_none() {
        return text;
    }
    let folded = fold_lines(&text);
    folded.map_or(text, Cow::Owned)
}

fn fold_lines(text: &[u8]) -> Option<Vec<u8>> {
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| read(line.strip_suffix(b"\r").unwrap_or(line)));
    let first = lines.next()??;
    let mut folded = Vec::with_capacity(text.len());
    folded.extend_from_slice(first.before_tags);
    let tag = folded.len();
    folded.extend_from_slice(b"F ");
    folded.extend_from_slice(first.message);
    let mut mark = first.mark;
    for line in lines {
        let line = line?;
        if !mark.is_piece {
            folded.push(b'\n');
        }
        folded.extend_from_slice(line.message);
        mark = line.mark;
    }
    if mark.is_piece {
        folded[tag] = b'P';
    }
    Some(folded)
}
