//! An open file as its content.

use std::{cell::RefCell, io};

use super::{Codec, stream::Stream};
use crate::filesystem::{FileStat, Handle};

/// Content behind the farthest read that is kept, in bytes, since a reader goes back a little: to its anchor, to a line
/// whose end was not there.
pub(super) const KEPT_BYTES: usize = 1024 * 1024;
/// Content inflated at once.
const PIECE_BYTES: usize = 128 * 1024;

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

    /// Inflates one piece. Whoever asks knows of more content: an archive that is at its end holds less than before.
    fn advance(&mut self, archive: &impl Handle) -> io::Result<()> {
        if self.kept.len() > 2 * KEPT_BYTES {
            self.kept.drain(..self.kept.len() - KEPT_BYTES);
        }
        let before = self.kept.len();
        self.kept.resize(before + PIECE_BYTES, 0);
        let read = self.stream.read(archive, &mut self.kept[before..]);
        let count = read.as_ref().map_or(0, |count| *count);
        self.kept.truncate(before + count);
        self.end += count as u64;
        match read? {
            0 => Err(io::Error::new(io::ErrorKind::InvalidData, "the archive holds less than before")),
            _ => Ok(()),
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

    /// Inflates towards an offset, by `budget` bytes or a little more. Returns whether it can be read at once.
    ///
    /// # Errors
    /// As [`Handle::read_at`]; an archive that ends before the offset is no longer what it was.
    pub fn approach(&self, offset: u64, budget: usize) -> io::Result<bool> {
        let mut cursor = self.cursor.borrow_mut();
        let cursor = self.cursor_before(&mut cursor, offset)?;
        let until = cursor.end.saturating_add(budget as u64);
        while cursor.end < offset.min(self.size) {
            if cursor.end >= until {
                return Ok(false);
            }
            cursor.advance(&self.archive)?;
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
