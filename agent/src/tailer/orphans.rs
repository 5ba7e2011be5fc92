//! Batches that came back and whose file is gone: they are all there is of their records.
//!
//! They cannot be built again, so they are kept as they are and sent again. One that is too large for its lane is taken
//! apart between records: its payload gives back the bytes of the source, and those make the halves, as if the file
//! were there.

use logmesh_proto::{Flags, OpenBatch};

use super::{Tailer, pace, visit::halves};
use crate::{
    clock::Now,
    filesystem::Filesystem,
    identity::range_hash,
    lines::{Framing, recut},
    parcel::{Errand, Parcel, StreamNumber},
    state::CutRecord,
};

impl<F: Filesystem> Tailer<F> {
    /// Keeps a batch; `divide` says that its lane takes none so large.
    pub(super) fn keep_orphan(&mut self, parcel: Parcel, divide: bool, now: Now) {
        let number = parcel.stream;
        let parts = if divide { self.divide_orphan(&parcel, now) } else { None };
        let Some(source) = self.sources.get_mut(&number) else { return };
        match parts {
            Some(parts) => source.kept.extend(parts),
            None => {
                // What cannot be taken apart waits for another limit, as a lone record does.
                if divide {
                    source.paused_until = source.paused_until.max(now.mono + pace::SETTLE * 6);
                }
                source.kept.push(parcel);
            }
        }
        let at = source.paused_until.max(now.mono);
        self.arm(number, at);
    }

    /// Two batches in the place of one, once the cut log has both cuts.
    fn divide_orphan(&mut self, parcel: &Parcel, now: Now) -> Option<[Parcel; 2]> {
        let (number, first) = (parcel.stream, parcel.batch.first_offset);
        let cut = self.sources.get(&number)?.progress.cuts().find(|cut| cut.record.first == first)?.record;
        let opened = self
            .opener
            .open(&parcel.batch)
            .inspect_err(|error| tracing::error!(%error, offset = first, "cannot open a batch of our own"))
            .ok()?;
        let framing = &self.sources.get(&number)?.framing;
        let range = source_bytes(&opened, framing)?;
        if range_hash(&range) != cut.hash {
            tracing::error!(offset = first, "a batch does not hold the bytes of its cut; it is kept as it is");
            return None;
        }
        let halves = halves(&range, &cut, opened.len(), framing, None)?;
        let middle = range.len().checked_sub(usize::try_from(halves[1].end - halves[1].first).ok()?)?;
        let one = self.seal_range(number, &halves[0], &range[..middle])?;
        let other = self.seal_range(number, &halves[1], &range[middle..])?;
        if !self.log_halves(number, &halves) {
            self.pause(number, now);
            return None;
        }
        let source = self.sources.get_mut(&number)?;
        source.progress.divide(first, &[(halves[0], one.encoded), (halves[1], other.encoded)]);
        // They never stopped counting as being on their way.
        self.window.bytes = (self.window.bytes + one.encoded + other.encoded).saturating_sub(parcel.encoded);
        self.window.parcels += 1;
        Some([one, other])
    }

    fn seal_range(&mut self, number: StreamNumber, record: &CutRecord, range: &[u8]) -> Option<Parcel> {
        self.records.clear();
        let framing = &self.sources.get(&number)?.framing;
        recut(range, Flags::from_bits(record.flags), framing, &mut self.records);
        self.seal(number, record)
    }

    /// Sends batches again that cannot be built again.
    pub(super) fn send_kept(&mut self, number: StreamNumber, now: Now) {
        let Some(source) = self.sources.get_mut(&number) else { return };
        if source.kept.is_empty() || source.paused_until > now.mono {
            return;
        }
        source.kept.sort_by_key(|parcel| parcel.batch.first_offset);
        self.tally.resent += source.kept.len() as u64;
        // They never stopped counting as being on their way.
        self.errands.extend(source.kept.drain(..).map(Errand::Ship));
    }
}

/// The bytes of the source that a batch was cut from: how far a record's length there exceeds its body's says how it
/// ended. `None` where lines of container runtimes were made one.
fn source_bytes(opened: &OpenBatch, framing: &Framing) -> Option<Vec<u8>> {
    let mut range = Vec::with_capacity(opened.bodies().len() + 2 * opened.len());
    for record in opened.records() {
        let source = usize::try_from(record.end_offset - record.offset).ok()?;
        range.extend(framing.source_of(record.body, source)?);
    }
    Some(range)
}
