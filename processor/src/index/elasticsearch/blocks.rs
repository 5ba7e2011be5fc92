//! Blocks of memory that bodies are written into, kept from request to request.
//!
//! A body takes some MiB. Memory that was given back to the system comes again as pages that it must clear first: with a
//! new block for each request that was a quarter of all that a processor does. Invariant: at most [`KEPT_MAX`] blocks wait
//! here, each as large as what a request is meant to take.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Blocks that wait to be written into again.
const KEPT_MAX: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Blocks {
    kept: Mutex<Vec<Vec<u8>>>,
    bytes_max: usize,
}

impl Blocks {
    /// Keeps blocks of `bytes_max`.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { kept: Mutex::default(), bytes_max }
    }

    /// An empty block with room for so many bytes.
    pub(super) fn take(&self, bytes: usize) -> Vec<u8> {
        if bytes > self.bytes_max {
            return Vec::with_capacity(bytes);
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // All of one size, so that each serves any body; what is not written to costs nothing.
        let mut block = kept.unwrap_or_else(|| Vec::with_capacity(self.bytes_max));
        block.clear();
        block
    }

    /// Takes a body back, if nobody else has a share of it any more.
    pub(super) fn give_back(&self, body: Bytes) {
        let Ok(block) = body.try_into_mut() else { return };
        let block = Vec::from(block);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX && block.capacity() == self.bytes_max {
            kept.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_written_into_again_once_nobody_has_a_share_of_it() {
        let blocks = Blocks::new(1 << 20);
        let mut block = blocks.take(1000);
        block.extend_from_slice(b"body");
        let at = block.as_ptr();
        let body = Bytes::from(block);
        let share = body.clone();
        blocks.give_back(share);
        let other = blocks.take(1000);
        assert_ne!(other.as_ptr(), at, "somebody still reads it");
        blocks.give_back(body);
        let again = blocks.take(1000);
        assert!(again.is_empty() && again.as_ptr() == at);
    }

    #[test]
    fn neither_many_nor_large_blocks_are_kept() {
        let blocks = Blocks::new(1000);
        for _ in 0..10 {
            blocks.give_back(vec![0; 1000].into());
        }
        blocks.give_back(vec![0; 1001].into());
        let kept = blocks.kept.lock().unwrap();
        assert_eq!(kept.len(), KEPT_MAX);
        assert!(kept.iter().all(|block| block.capacity() == 1000));
    }
}
