//! What ends a line, in the bytes of the file's encoding, and where it is.

use memchr::memmem::Finder;

use super::{Encoding, Flush};

/// Longest delimiter of one's own, in bytes of UTF-8.
pub const DELIMITER_BYTES_MAX: usize = 16;

/// Ends lines. A line feed takes a carriage return before it along; a text of one's own stands for itself.
#[derive(Clone, Debug)]
pub(super) struct Delimiter {
    finder: Finder<'static>,
    /// A carriage return, encoded; empty where there is no such thing.
    carriage_return: Vec<u8>,
    /// Bytes of a code unit: a delimiter begins at a multiple of it.
    unit: usize,
    /// As it was configured.
    text: Option<String>,
}

/// What the bytes behind a record without terminator are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Its terminator, of that length.
    Terminator(usize),
    /// Something that may become one.
    Undecided,
    /// More of the record.
    More,
}

impl Delimiter {
    /// `None` stands for the line feed.
    pub(super) fn new(text: Option<&str>, encoding: Encoding) -> Self {
        let carriage_return = if text.is_none() { encoding.encode("\r") } else { Vec::new() };
        let needle = encoding.encode(text.unwrap_or("\n"));
        let text = text.map(str::to_owned);
        Self { finder: Finder::new(&needle).into_owned(), carriage_return, unit: encoding.unit(), text }
    }

    /// The same in another encoding.
    pub(super) fn in_encoding(&self, encoding: Encoding) -> Self {
        Self::new(self.text.as_deref(), encoding)
    }

    /// A body, encoded, with the terminator that makes it `source` bytes long; `None` where none does.
    pub(super) fn whole(&self, body: &[u8], source: usize) -> Option<Vec<u8>> {
        let needle = self.finder.needle();
        let terminator = match source.checked_sub(body.len())? {
            0 => Vec::new(),
            length if length == needle.len() => needle.to_vec(),
            length if length == self.bytes_max() => [&self.carriage_return, needle].concat(),
            _ => return None,
        };
        Some([body, &terminator].concat())
    }

    /// Bytes of the longest terminator.
    pub(super) fn bytes_max(&self) -> usize {
        self.finder.needle().len() + self.carriage_return.len()
    }

    /// Length of the line's content, and of the terminator behind it.
    pub(super) fn find(&self, text: &[u8]) -> Option<(usize, usize)> {
        let mut from = 0;
        let place = loop {
            let place = from + self.finder.find(&text[from..])?;
            if place % self.unit == 0 {
                break place;
            }
            from = place + 1;
        };
        let needle = self.finder.needle().len();
        let before = self.carriage_return.len();
        let takes_along = before > 0 && text[..place].ends_with(&self.carriage_return);
        Some(if takes_along { (place - before, before + needle) } else { (place, needle) })
    }

    /// How many bytes at the end may be the beginning of a terminator, or of a code unit.
    pub(super) fn half(&self, rest: &[u8]) -> usize {
        let odd = rest.len() % self.unit;
        let whole = &rest[..rest.len() - odd];
        if !self.carriage_return.is_empty() {
            return odd + if whole.ends_with(&self.carriage_return) { self.carriage_return.len() } else { 0 };
        }
        let needle = self.finder.needle();
        let half = (1..needle.len()).rev().filter(|length| length % self.unit == 0);
        odd + half.into_iter().find(|length| whole.ends_with(&needle[..*length])).unwrap_or(0)
    }

    /// What stands behind a record that was flushed without its terminator.
    pub(super) fn behind(&self, block: &[u8], flush: Flush) -> Behind {
        let needle = self.finder.needle();
        if block.starts_with(needle) {
            return Behind::Terminator(needle.len());
        }
        let both = self.carriage_return.len() + needle.len();
        let is_half = |whole: &[u8]| !block.is_empty() && block.len() < whole.len() && whole.starts_with(block);
        if self.carriage_return.is_empty() {
            return if is_half(needle) && flush != Flush::End { Behind::Undecided } else { Behind::More };
        }
        match block.strip_prefix(self.carriage_return.as_slice()) {
            Some(rest) if rest.starts_with(needle) => Behind::Terminator(both),
            // A lone carriage return at the very end is what is left of a terminator.
            Some([]) if flush == Flush::End => Behind::Terminator(self.carriage_return.len()),
            Some(rest) if rest.len() < needle.len() && needle.starts_with(rest) && flush != Flush::End => {
                Behind::Undecided
            }
            None if flush != Flush::End && (is_half(&self.carriage_return) || is_half(needle)) => Behind::Undecided,
            Some(_) | None => Behind::More,
        }
    }
}
