//! The one pass over an archive that shows that it is whole.
//!
//! On its way it looks for what is known: the marks of bytes before offsets, at which generations were left.

use super::{
    Codec, Fault,
    stream::{Step, Stream},
};
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
    /// The first bytes of the content, once they are known.
    head: Option<Vec<u8>>,
    sought: Vec<Sought>,
    done: bool,
}

impl<H> std::fmt::Debug for Pass<H> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pass").field("size", &self.size).field("done", &self.done).finish_non_exhaustive()
    }
}

impl<H: Handle> Pass<H> {
    /// A pass that has not begun.
    pub(crate) fn new(archive: H, codec: Codec) -> Result<Self, Fault> {
        Ok(Self {
            archive,
            stream: Stream::new(codec)?,
            block: Vec::new(),
            size: 0,
            head: None,
            sought: Vec::new(),
            done: false,
        })
    }

    /// Inflates the head of the content, by `budget` bytes or a little more, for an archive may begin with much that
    /// holds no content. Returns whether the head is known.
    pub(crate) fn begin(&mut self, budget: usize) -> Result<bool, Fault> {
        let mut left = budget;
        while self.head.is_none() && left > 0 {
            left = left.saturating_sub(self.read(MARK_BYTES_MAX - self.block.len())?);
            if self.done || self.block.len() == MARK_BYTES_MAX {
                self.head = Some(self.block.clone());
            }
        }
        Ok(self.has_head())
    }

    /// Whether the head is known.
    pub(crate) fn has_head(&self) -> bool {
        self.head.is_some()
    }

    /// The first bytes of the content, once they are known.
    pub(crate) fn head(&self) -> &[u8] {
        self.head.as_deref().unwrap_or_default()
    }

    /// Looks for the bytes before a place of a generation; to be told between the head and the first step.
    pub(crate) fn seek(&mut self, of: StreamNumber, offset: u64, anchor: Mark) {
        self.sought.push(Sought { of, offset, anchor, found: false });
        self.look(0);
    }

    /// Goes on behind the head by `budget` bytes or a little more; what holds no content is charged, too. Returns
    /// whether it is over, and the archive whole.
    pub(crate) fn step(&mut self, budget: usize) -> Result<bool, Fault> {
        let mut left = budget;
        while !self.done && left > 0 {
            let before = self.size;
            self.block.drain(..self.block.len().saturating_sub(MARK_BYTES_MAX));
            left = left.saturating_sub(self.read(PIECE_BYTES)?);
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

    /// Inflates so many bytes at most. Returns what that counts of a budget.
    fn read(&mut self, bytes_max: usize) -> Result<usize, Fault> {
        let before = self.block.len();
        self.block.resize(before + bytes_max, 0);
        let step = self.stream.read(&self.archive, &mut self.block[before..]);
        let bytes = step.as_ref().map_or(0, Step::bytes);
        self.block.truncate(before + bytes);
        self.size += bytes as u64;
        let step = step?;
        self.done = step == Step::End;
        Ok(step.cost())
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
