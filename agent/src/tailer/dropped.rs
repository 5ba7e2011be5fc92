//! Cuts whose records were all dropped at the source.

use super::Tailer;
use crate::{
    clock::Now, filesystem::Filesystem, generation::Place, lines::Cutting, parcel::StreamNumber, state::CutRecord,
};

impl<F: Filesystem> Tailer<F> {
    /// Takes a cut of which no record is kept. It is logged as any other, so that what is cut behind it is cut the same
    /// way after a restart.
    pub(super) fn take_dropped(
        &mut self,
        number: StreamNumber,
        first: u64,
        place: Place,
        cutting: &Cutting,
        now: Now,
    ) -> bool {
        let record = CutRecord {
            first,
            end: place.offset,
            observed_unix_nano: now.unix_nano,
            flags: CutRecord::DROPPED,
            hash: 0,
            after: place.after,
            anchor: place.anchor,
        };
        if !self.log_cut(number, record) {
            self.pause(number, now);
            return false;
        }
        let Some(source) = self.sources.get_mut(&number) else { return false };
        let released = source.progress.push_dropped(record);
        source.dropped_last = true;
        self.tally.acked_bytes += released;
        self.tally.read_bytes += record.end - record.first;
        self.tally.dropped.add(&cutting.dropped);
        self.checkpoint.dirty = true;
        true
    }
}
