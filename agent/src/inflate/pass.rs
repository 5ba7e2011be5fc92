//! The one pass over an archive that shows that it is whole.
//!
//! On its way it looks for what is known: the marks of bytes before offsets, at which generations were left.

use super::{Codec, Fault, stream::Stream};
use crate::{
    filesystem::Handle,
    identity::{MARK_BYTES_MAX, Mark},
    parcel::StreamNumber,
};

const PIECE_BYTES: usize = 64 * 1024;

/// A place of a generation, looked for in the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sought {
    of: StreamNumber,
    offset: u64,
    anchor: Mark,
    found: bool,
}

/// See the module.
pub(crate) struct Pass<H> {
    archive: H,
    stream: Stream,
    /// The last bytes of the content before `size`: a KiB at least, where there is one.
    block: Vec<u8>,
    size: u64,
    head: Vec<u8>,
    sought: Vec<Sought>,
    done: bool,
}

impl<H> std::fmt::Debug for Pass<H> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pass").field("size", &self.size).field("done", &self.done).finish_non_exhaustive()
    }
}

impl<H: Handle> Pass<H> {
    /// Begins with the head of the content.
    pub(crate) fn begin(archive: H, codec: Codec) -> Result<Self, Fault> {
        let mut pass = Self {
            archive,
            stream: Stream::new(codec)?,
            block: Vec::new(),
            size: 0,
            head: Vec::new(),
            sought: Vec::new(),
            done: false,
        };
        while pass.block.len() < MARK_BYTES_MAX && !pass.done {
            pass.read(MARK_BYTES_MAX - pass.block.len())?;
        }
        pass.head.clone_from(&pass.block);
        Ok(pass)
    }

    /// The first bytes of the content.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Looks for the bytes before a place of a generation; to be told before the first step.
    pub(crate) fn seek(&mut self, of: StreamNumber, offset: u64, anchor: Mark) {
        self.sought.push(Sought { of, offset, anchor, found: false });
        self.look(0);
    }

    /// Goes on by `budget` bytes or a little more. Returns whether it is over, and the archive whole.
    pub(crate) fn step(&mut self, budget: usize) -> Result<bool, Fault> {
        let until = self.size.saturating_add(budget as u64);
        while !self.done && self.size < until {
            let before = self.size;
            self.block.drain(..self.block.len().saturating_sub(MARK_BYTES_MAX));
            self.read(PIECE_BYTES)?;
            self.look(before);
        }
        Ok(self.done)
    }

    /// Bytes of the content so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The last bytes of the content.
    pub(crate) fn tail(&self) -> &[u8] {
        &self.block[self.block.len().saturating_sub(MARK_BYTES_MAX)..]
    }

    /// The generations whose places were found, those that end farthest before all others.
    pub(crate) fn found(&self) -> Vec<StreamNumber> {
        let mut found: Vec<&Sought> = self.sought.iter().filter(|sought| sought.found).collect();
        found.sort_by_key(|sought| std::cmp::Reverse(sought.offset));
        found.into_iter().map(|sought| sought.of).collect()
    }

    /// The archive.
    pub(crate) fn into_archive(self) -> H {
        self.archive
    }

    fn read(&mut self, bytes: usize) -> Result<(), Fault> {
        let before = self.block.len();
        self.block.resize(before + bytes, 0);
        let read = self.stream.read(&self.archive, &mut self.block[before..]);
        let count = read.as_ref().map_or(0, |count| *count);
        self.block.truncate(before + count);
        self.size += count as u64;
        self.done = read? == 0;
        Ok(())
    }

    /// Looks at the places behind `before`, which the block has now.
    fn look(&mut self, before: u64) {
        let begin = self.size - self.block.len() as u64;
        for sought in self.sought.iter_mut().filter(|sought| sought.offset > before && sought.offset <= self.size) {
            let end = usize::try_from(sought.offset - begin).unwrap_or(usize::MAX);
            sought.found = sought.found || self.block.get(..end).is_some_and(|bytes| sought.anchor.ends(bytes));
        }
    }
}
