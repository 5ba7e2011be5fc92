//! An open file as its content.

use std::{cell::RefCell, io};

use super::{
    Codec,
    stream::{Step, Stream},
};
use crate::filesystem::{FileStat, Handle};

/// How much is kept of the content inflated last, in bytes: it is inflated ahead of its reader, who goes back a little,
/// to its anchor, to a line whose end was not there.
pub(super) const KEPT_BYTES: usize = 1024 * 1024;
/// Content inflated at once.
const PIECE_BYTES: usize = 128 * 1024;
/// Content inflated ahead of a reader, within its budget: more than it reads at once, but for the longest records, so
/// that a read does not come to a part of the archive without content by itself. What is kept reaches back to the
/// reader.
const AHEAD_BYTES: usize = KEPT_BYTES - 3 * PIECE_BYTES;

/// A file that is what it is, or the content of an archive.
#[derive(Debug)]
pub enum Content<H> {
    /// The file itself.
    Plain(H),
    /// What an archive holds.
    Inflated(Box<Inflated<H>>),
}

/// The content of an archive that was found whole.
///
/// Reads go forward at the cost of what they read; one that goes back by more than what is kept begins again at the
/// front.
pub struct Inflated<H> {
    archive: H,
    codec: Codec,
    /// Bytes of its content.
    size: u64,
    cursor: RefCell<Option<Cursor>>,
}

struct Cursor {
    stream: Stream,
    /// The content before `end`.
    kept: Vec<u8>,
    end: u64,
}

impl Cursor {
    /// Where what is kept begins.
    fn begin(&self) -> u64 {
        self.end - self.kept.len() as u64
    }

    /// Inflates one piece, or takes a part of the archive that holds none. Returns what that counts of a budget. Who
    /// asks knows of more content: an archive that is at its end holds less than before.
    fn advance(&mut self, archive: &impl Handle) -> io::Result<usize> {
        if self.kept.len() > 2 * KEPT_BYTES {
            self.kept.drain(..self.kept.len() - KEPT_BYTES);
        }
        let before = self.kept.len();
        self.kept.resize(before + PIECE_BYTES, 0);
        let step = self.stream.read(archive, &mut self.kept[before..]);
        let bytes = step.as_ref().map_or(0, Step::bytes);
        self.kept.truncate(before + bytes);
        self.end += bytes as u64;
        match step? {
            Step::End => Err(io::Error::new(io::ErrorKind::InvalidData, "the archive holds less than before")),
            step @ (Step::Content(_) | Step::Nothing) => Ok(step.cost()),
        }
    }
}

impl<H> std::fmt::Debug for Inflated<H> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Inflated").field("codec", &self.codec).field("size", &self.size).finish_non_exhaustive()
    }
}

impl<H: Handle> Inflated<H> {
    /// The content of an archive, which a pass found to be of this size.
    #[must_use]
    pub fn new(archive: H, codec: Codec, size: u64) -> Self {
        Self { archive, codec, size, cursor: RefCell::new(None) }
    }

    /// Inflates towards an offset and a little beyond it, by `budget` bytes or a little more; what holds no content is
    /// charged, too. Returns whether it can be read at once.
    ///
    /// # Errors
    /// As [`Handle::read_at`]; an archive that ends before that place is no longer what it was.
    pub fn approach(&self, offset: u64, budget: usize) -> io::Result<bool> {
        let mut cursor = self.cursor.borrow_mut();
        let cursor = self.cursor_before(&mut cursor, offset)?;
        let until = offset.saturating_add(AHEAD_BYTES as u64).min(self.size);
        let mut left = budget;
        while cursor.end < until {
            if left == 0 {
                return Ok(false);
            }
            left = left.saturating_sub(cursor.advance(&self.archive)?);
        }
        Ok(true)
    }

    /// Gives its memory back until the next read, which begins again at the front.
    pub fn release(&self) {
        self.cursor.borrow_mut().take();
    }

    /// A cursor that keeps `offset` or comes to it.
    fn cursor_before<'a>(&self, cursor: &'a mut Option<Cursor>, offset: u64) -> io::Result<&'a mut Cursor> {
        if cursor.as_ref().is_some_and(|cursor| offset < cursor.begin()) {
            *cursor = None;
        }
        match cursor {
            Some(cursor) => Ok(cursor),
            None => Ok(cursor.insert(Cursor { stream: Stream::new(self.codec)?, kept: Vec::new(), end: 0 })),
        }
    }
}

impl<H: Handle> Handle for Inflated<H> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.size || buffer.is_empty() {
            return Ok(0);
        }
        let mut cursor = self.cursor.borrow_mut();
        let cursor = self.cursor_before(&mut cursor, offset)?;
        while cursor.end <= offset {
            cursor.advance(&self.archive)?;
        }
        let at = usize::try_from(offset - cursor.begin()).unwrap_or(usize::MAX);
        let kept = &cursor.kept[at..];
        let count = kept.len().min(buffer.len());
        buffer[..count].copy_from_slice(&kept[..count]);
        Ok(count)
    }

    fn stat(&self) -> io::Result<FileStat> {
        Ok(FileStat { size: self.size, ..self.archive.stat()? })
    }

    fn filesystem_id(&self) -> u64 {
        self.archive.filesystem_id()
    }
}

impl<H: Handle> Content<H> {
    /// Stat of the file itself, be it an archive.
    ///
    /// # Errors
    /// As [`Handle::stat`].
    pub fn archive_stat(&self) -> io::Result<FileStat> {
        match self {
            Self::Plain(file) => file.stat(),
            Self::Inflated(content) => content.archive.stat(),
        }
    }
}

impl<H: Handle> Handle for Content<H> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read_at(buffer, offset),
            Self::Inflated(content) => content.read_at(buffer, offset),
        }
    }

    fn stat(&self) -> io::Result<FileStat> {
        match self {
            Self::Plain(file) => file.stat(),
            Self::Inflated(content) => content.stat(),
        }
    }

    fn filesystem_id(&self) -> u64 {
        match self {
            Self::Plain(file) => file.filesystem_id(),
            Self::Inflated(content) => content.filesystem_id(),
        }
    }
}
