//! Walking the entries of one segment file, over sound and damaged ground.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::Position;
use crate::format::{ENTRY_HEADER, EntryHead, SEGMENT_HEADER, SegmentHead};

/// Bytes read at once.
const WINDOW: usize = 256 << 10;

/// A buffered look at one segment. Holds one window, or one entry if that is larger.
pub(crate) struct Scan {
    file: Arc<File>,
    number: u64,
    /// Nothing at or above is looked at.
    limit: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Scan {
    pub(crate) fn new(file: Arc<File>, number: u64, limit: u64) -> Self {
        Self { file, number, limit, window: Vec::new(), window_at: 0 }
    }

    /// Moves the limit up, as a segment grows.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Where the first entry begins, or what is wrong with the header.
    pub(crate) fn first(&mut self) -> io::Result<Result<u64, &'static str>> {
        const TOO_SHORT: &str = "it is too short for a segment";
        let number = self.number;
        let Some(bytes) = self.bytes(0, SEGMENT_HEADER)? else { return Ok(Err(TOO_SHORT)) };
        let mut fixed = [0; SEGMENT_HEADER];
        fixed.copy_from_slice(bytes);
        let head = match SegmentHead::parse(&fixed, number) {
            Ok(head) => head,
            Err(what) => return Ok(Err(what)),
        };
        let Some(preamble) = self.bytes(SEGMENT_HEADER as u64, head.preamble_length)? else {
            return Ok(Err(TOO_SHORT));
        };
        if !head.matches(preamble) {
            return Ok(Err("the checksum of its header does not match"));
        }
        Ok(Ok((SEGMENT_HEADER + head.preamble_length) as u64))
    }

    /// The entry at `byte`, with its payload, if a whole and sound one begins there.
    pub(crate) fn entry(&mut self, byte: u64) -> io::Result<Option<(EntryHead, &[u8])>> {
        let position = Position { segment: self.number, byte };
        let Some(head) = self.head(byte)? else { return Ok(None) };
        let Some(bytes) = self.bytes(byte, ENTRY_HEADER + head.length as usize)? else { return Ok(None) };
        let payload = &bytes[ENTRY_HEADER..];
        Ok(head.matches(position, payload).then_some((head, payload)))
    }

    /// The first place at or above `from` where a sound entry begins: tried byte by byte, since a damaged length tells nothing.
    /// That an entry's CRC covers its place makes a hit trustworthy.
    pub(crate) fn resync(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        while at + ENTRY_HEADER as u64 <= self.limit {
            at = match self.skip_zeros(at)? {
                Some(next) => next,
                None => return Ok(None),
            };
            if self.entry(at)?.is_some() {
                return Ok(Some(at));
            }
            at += 1;
        }
        Ok(None)
    }

    fn head(&mut self, byte: u64) -> io::Result<Option<EntryHead>> {
        let limit = self.limit;
        let Some(bytes) = self.bytes(byte, ENTRY_HEADER)? else { return Ok(None) };
        Ok(EntryHead::parse(bytes, byte).filter(|head| head.size() <= limit - byte))
    }

    /// The first place at or above `at` where a header could begin. A length has four bytes, of which three may be zero.
    fn skip_zeros(&mut self, mut at: u64) -> io::Result<Option<u64>> {
        while at + ENTRY_HEADER as u64 <= self.limit {
            let available = usize::try_from(self.limit - at).unwrap_or(WINDOW).min(WINDOW);
            // What the window holds already is enough to decide; only an exhausted one is read anew.
            let held = self.held(at).unwrap_or(0);
            let length = if held >= ENTRY_HEADER { held } else { available };
            let Some(bytes) = self.bytes(at, length)? else { return Ok(None) };
            match bytes.iter().position(|byte| *byte != 0) {
                Some(zeros) => return Ok(Some(at + (zeros as u64).saturating_sub(3))),
                None => at += (bytes.len() as u64).saturating_sub(3).max(1),
            }
        }
        Ok(None)
    }

    /// Bytes of the window from `at` on.
    fn held(&self, at: u64) -> Option<usize> {
        let skip = usize::try_from(at.checked_sub(self.window_at)?).ok()?;
        self.window.len().checked_sub(skip)
    }

    /// `length` bytes at `at`; `None` where they would cross the limit or the file's end.
    fn bytes(&mut self, at: u64, length: usize) -> io::Result<Option<&[u8]>> {
        if at + length as u64 > self.limit {
            return Ok(None);
        }
        if self.held(at).is_none_or(|held| held < length) {
            self.fill(at, length)?;
        }
        match self.held(at) {
            Some(held) if held >= length => {
                let skip = self.window.len() - held;
                Ok(Some(&self.window[skip..skip + length]))
            }
            Some(_) | None => Ok(None),
        }
    }

    fn fill(&mut self, at: u64, length: usize) -> io::Result<()> {
        let wanted = usize::try_from(self.limit - at).unwrap_or(usize::MAX).min(length.max(WINDOW));
        if self.window.capacity() > WINDOW && wanted <= WINDOW {
            self.window = Vec::new();
        }
        self.window.resize(wanted, 0);
        self.window_at = at;
        let mut filled = 0;
        while filled < wanted {
            match self.file.read_at(&mut self.window[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.window.clear();
                    return Err(error);
                }
            }
        }
        self.window.truncate(filled);
        Ok(())
    }
}
