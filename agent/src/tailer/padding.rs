//! Padding: room in a file that is not written yet, and holes.
//!
//! NUL bytes up to the end of a file are not written yet: they are neither read nor flushed, and the file is looked at
//! again when it changes, be it in place. Once something stands behind them they are skipped. A cut that follows would
//! begin far from the one before, so padding is skipped only when everything before it is acknowledged, and the skip is
//! noted in the log by the acknowledged offset.

use std::{io, time::Duration};

use super::{Tailer, pace, source::Source, turns::QUANTUM_BYTES};
use crate::{
    clock::Now,
    filesystem::{Filesystem, Handle},
    lines::written_bytes,
    parcel::StreamNumber,
    state::Fact,
};

/// Reads of padding in one visit.
const READS_MAX: usize = 16;

impl<F: Filesystem> Tailer<F> {
    /// The whole block behind the position, as long as any record, came to nothing, so it ends in padding: finds out
    /// whether something stands behind.
    pub(super) fn follow_padding(&mut self, number: StreamNumber, anchor_bytes: usize, now: Now) -> io::Result<()> {
        let Some(source) = self.sources.get_mut(&number) else { return Ok(()) };
        let position = source.progress.position().offset;
        let rest = &self.block[anchor_bytes..];
        let block_end = position + rest.len() as u64;
        let blank_from = position + written_bytes(rest, position, &source.framing) as u64;
        source.blank_to = source.blank_to.max(block_end);
        source.pending_since = None;
        source.visited_at = now.mono;
        for _ in 0..READS_MAX {
            let Some(file) = &source.file else { return Ok(()) };
            let count = self.block.fill(QUANTUM_BYTES, |room| file.read_full_at(room, source.blank_to))?;
            if let Some(written) = self.block.iter().position(|byte| *byte != 0) {
                source.written_at = source.blank_to + written as u64;
                return Ok(());
            }
            source.blank_to += count as u64;
            if count < QUANTUM_BYTES {
                source.rest_until(source.blank_to, blank_from, self.settings.partial_flush, now.mono);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether padding may be skipped now; if not, the file is visited again when it may.
    pub(super) fn may_skip_padding(&mut self, number: StreamNumber) -> bool {
        let Some(source) = self.sources.get_mut(&number) else { return false };
        source.settle_first = !source.progress.is_settled();
        !source.settle_first
    }

    /// Notes padding that was skipped.
    pub(super) fn note_skipped(&mut self, number: StreamNumber, bytes: usize) {
        self.tally.skipped_bytes += bytes as u64;
        let Some(record) = self.sources.get(&number).and_then(Source::record) else { return };
        self.append(&[Fact::Generation(record)]);
    }
}

impl<H> Source<H> {
    /// Where the file ends, if a block that ends at `block_end` says so: at its own end, or with nothing but padding
    /// behind it.
    pub(super) fn known_end(&self, block_end: u64, at_end: bool) -> Option<u64> {
        let padded = self.blank_from.is_some_and(|from| from <= block_end);
        if at_end { Some(block_end) } else { padded.then_some(self.scanned) }
    }

    /// Clocks of file systems are coarse: what was written over padding a moment after a read may show no other time, so
    /// padding of a file that changed lately is read again.
    pub(super) fn doubt_padding(&mut self, now: Now) {
        let age = now.unix_nano.abs_diff(u64::try_from(self.seen.modified_nano).unwrap_or(0));
        let is_doubtful = u128::from(age) < pace::DOUBT.as_nanos() && now.mono >= self.visited_at + pace::LOOK_POLLING;
        if is_doubtful && self.blank_from.take().is_some() {
            self.scanned = 0;
        }
    }

    /// Notes what is left at the end of a file of `size` bytes after a visit: a rest whose end is not known, padding, or
    /// nothing.
    pub(super) fn note_rest(
        &mut self,
        rest: &[u8],
        size: u64,
        progressed: bool,
        partial_flush: Duration,
        now: Duration,
    ) {
        let written = written_bytes(rest, size - rest.len() as u64, &self.framing);
        // A flush that came to nothing is not tried again before growth.
        let came_to_nothing = self.flush_at.is_some_and(|at| at <= now) && !progressed;
        let blank_from = if written < rest.len() { size - (rest.len() - written) as u64 } else { size };
        self.rest_until(size, blank_from, partial_flush, now);
        if came_to_nothing {
            self.flush_at = None;
        }
    }

    fn rest_until(&mut self, size: u64, blank_from: u64, partial_flush: Duration, now: Duration) {
        self.scanned = size;
        self.seen.size = self.seen.size.max(size);
        // What is appended later is seen by the size; what was seen to grow since is not blank.
        self.blank_from = (blank_from < size && self.seen.size == size).then_some(blank_from);
        let at = if self.seen.deleted || self.archive.is_some() {
            now
        } else {
            self.grown_at + self.framing.patience(partial_flush)
        };
        self.flush_at = (self.unread() > 0).then_some(at);
    }
}
