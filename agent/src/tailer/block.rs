//! What was read from a file at one time.

use std::{io, ops::Deref};

/// Bytes of one read. The room for them stays, and is not cleared between two reads: that would cost a tenth of what an
/// agent costs.
#[derive(Debug, Default)]
pub(super) struct Block {
    room: Vec<u8>,
    /// How many of `room` were read.
    length: usize,
}

impl Block {
    /// Has at most `wanted` bytes read, in the place of what was there; `read` answers how many they were.
    pub(super) fn fill(
        &mut self,
        wanted: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.length = 0;
        if self.room.len() < wanted {
            self.room.resize(wanted, 0);
        }
        self.length = read(&mut self.room[..wanted])?.min(wanted);
        Ok(self.length)
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.room[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_what_was_read_last_and_nothing_after_a_failure() {
        let mut block = Block::default();
        let read = |bytes: &'static [u8]| {
            move |room: &mut [u8]| {
                room[..bytes.len()].copy_from_slice(bytes);
                Ok(bytes.len())
            }
        };
        assert_eq!(block.fill(8, read(b"abcdef")).unwrap(), 6);
        assert_eq!(block.fill(4, read(b"xy")).unwrap(), 2);
        assert_eq!(*block, *b"xy");
        block.fill(4, |_| Err(io::Error::other("a bad sector"))).unwrap_err();
        assert!(block.is_empty());
    }
}
