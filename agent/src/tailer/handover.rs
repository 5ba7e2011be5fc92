//! Handing the rest of a deleted file over to the spool, so that its descriptor, and with it its disk space, can go.
//!
//! A file that is deleted lives on through our descriptor alone: what is unread or unacknowledged of it dies with this
//! process. It is read on and shipped as any other while it grows and for a while after; then batches that wait for a
//! gateway are called back, and everything that is not acknowledged goes to the spool, along the same cuts. What is
//! durable there counts as acknowledged. At the end of a run nothing waits: the rest is handed over at once.
//!
//! The spool's batches leave only once the shipper has none of the generation any more, so that its stream stays in order.

use std::time::Duration;

use super::{Tailer, pace, source::Source, turns::QUANTUM_BYTES};
use crate::{
    clock::Now,
    filesystem::Filesystem,
    losses::LossReason,
    parcel::{Errand, Parcel, StreamNumber},
    state::Fact,
};

/// Encoded bytes handed to the spool that are not durable yet, at most.
const AHEAD_BYTES: usize = 2 << 20;
/// Visits of one turn.
const VISITS_MAX: usize = 8;

/// What is on its way to the spool.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// To be given to the spool.
    parcels: Vec<Parcel>,
    /// Generations with something to hand over.
    pub(super) ready: std::collections::VecDeque<StreamNumber>,
    /// Encoded bytes that are not durable yet.
    bytes: usize,
    /// Whether the run ends.
    pub(super) stopping: bool,
}

impl Handover {
    pub(super) fn has_room(&self) -> bool {
        self.bytes < AHEAD_BYTES
    }

    pub(super) fn push(&mut self, parcel: Parcel) {
        self.bytes += parcel.encoded;
        self.parcels.push(parcel);
    }
}

impl<F: Filesystem> Tailer<F> {
    /// Begins to hand a generation over when its time has come, and calls back what the shipper has of it.
    pub(super) fn hand_over_when_due(&mut self, number: StreamNumber, now: Now) {
        let Some(source) = self.sources.get(&number) else { return };
        if !source.is_leaving(self.handover.stopping, now.mono) {
            return;
        }
        if !self.settings.spools_deleted {
            // What is another generation's continuation is not lost with its file.
            let own = source.own;
            if own || self.is_own(number, now) {
                self.release(number, now);
            }
            return;
        }
        if source.spooled_cuts.is_none() {
            tracing::info!(
                path = %source.path.display(), unread = source.unread(),
                "a deleted file is not delivered yet; what is left of it goes to the spool"
            );
        }
        let Some(source) = self.sources.get_mut(&number) else { return };
        if source.spooled_cuts.is_none() {
            source.spooled_cuts = Some(0);
            // Where it waits for the window, or for its lane, it would wait in vain.
            source.queued = false;
            source.paused_until = Duration::ZERO;
        }
        self.call_back(number, now);
    }

    /// Calls back what the shipper has of a generation. At the end of a run an answer that does not come is not waited
    /// for long: what is sent again has the ids it had.
    fn call_back(&mut self, number: StreamNumber, now: Now) {
        let Some(source) = self.sources.get_mut(&number) else { return };
        if source.shipped() > 0 && source.recalled_at.is_none_or(|at| now.mono >= at + pace::RETRY) {
            let in_flight = self.handover.stopping && source.recalled_at.is_some();
            source.recalled_at = Some(now.mono);
            self.errands.push(Errand::Recall { stream: number, in_flight });
        }
    }

    /// Without a budget the rest of a deleted file is given up, and counted.
    fn release(&mut self, number: StreamNumber, now: Now) {
        let Some(source) = self.sources.get(&number) else { return };
        if source.unread() > 0 || source.progress.to_build().is_some() {
            self.give_up(number, LossReason::SpoolFull, now);
        }
        if let Some(source) = self.sources.get_mut(&number) {
            source.file = None;
            let used_at = source.used_at.take();
            if let Some(key) = source.key.take() {
                self.by_key.remove(&key);
            }
            self.released(number, used_at);
        }
    }

    /// Reads on in generations that are handed over, while the spool keeps up.
    pub(super) fn visit_leaving(&mut self, now: Now) {
        for _ in 0..VISITS_MAX {
            if !self.handover.has_room() {
                return;
            }
            let Some(number) = self.handover.ready.pop_front() else { return };
            if let Some(source) = self.sources.get_mut(&number) {
                source.queued = false;
                self.quantum = QUANTUM_BYTES;
                self.visit(number, None, now);
            }
        }
    }

    /// The run ends: nothing new is read but what deleted files still hold.
    pub fn begin_stop(&mut self, now: Now) {
        self.handover.stopping = true;
        let delivered = |source: &Source<_>| source.unread() == 0 && source.progress.is_settled();
        let numbers: Vec<_> =
            self.sources.iter().filter(|(_, source)| !delivered(source)).map(|(number, _)| *number).collect();
        numbers.into_iter().for_each(|number| self.attend(number, now));
    }

    /// Goes on with what deleted files still hold. Returns whether there is more.
    pub fn turn_stopping(&mut self, now: Now, out: &mut Vec<Errand>) -> bool {
        let stuck: Vec<_> = self
            .sources
            .iter()
            .filter(|(_, source)| source.spooled_cuts.is_some() && !source.queued)
            .map(|(number, _)| *number)
            .collect();
        stuck.into_iter().for_each(|number| self.attend(number, now));
        self.hand_orphans_over(now);
        self.visit_leaving(now);
        out.append(&mut self.errands);
        self.sources.values().any(|source| source.spooled_cuts.is_some() && source.is_leaving(true, now.mono))
    }

    /// The time to stop is over: what deleted files still hold is lost with their descriptors, and counted.
    pub fn give_up_leaving(&mut self, now: Now) {
        let leaving = |source: &Source<_>| source.spooled_cuts.is_some() && source.is_leaving(true, now.mono);
        let numbers: Vec<_> =
            self.sources.iter().filter(|(_, source)| leaving(source)).map(|(number, _)| *number).collect();
        numbers.into_iter().for_each(|number| self.give_up(number, LossReason::Deleted, now));
    }

    /// Batches whose file is gone are in memory alone: at the end of a run they go to the spool as they are.
    fn hand_orphans_over(&mut self, now: Now) {
        if !self.settings.spools_deleted {
            return;
        }
        let is_orphaned = |source: &Source<_>| !source.has_file() && (source.shipped() > 0 || !source.kept.is_empty());
        let numbers: Vec<_> =
            self.sources.iter().filter(|(_, source)| is_orphaned(source)).map(|(number, _)| *number).collect();
        for number in numbers {
            let kept = self.sources.get_mut(&number).map(|source| std::mem::take(&mut source.kept));
            kept.into_iter().flatten().for_each(|parcel| self.spool_orphan(parcel));
            self.call_back(number, now);
        }
    }

    /// Has the spool take a batch that cannot be built again.
    pub(super) fn spool_orphan(&mut self, parcel: Parcel) {
        let Some(source) = self.sources.get_mut(&parcel.stream) else { return };
        self.window.bytes = self.window.bytes.saturating_sub(parcel.encoded);
        self.window.parcels = self.window.parcels.saturating_sub(1);
        *source.spooled_cuts.get_or_insert(0) += 1;
        source.leaving_bytes.insert(parcel.batch.first_offset, parcel.encoded);
        self.handover.push(parcel);
    }

    /// Batches for the spool. [`Self::kept`] says when they are durable.
    pub fn take_leaving(&mut self) -> Vec<Parcel> {
        std::mem::take(&mut self.handover.parcels)
    }

    /// Cuts are durable in the spool: as good as acknowledged.
    pub fn kept(&mut self, cuts: &[(StreamNumber, u64)], now: Now) {
        for (number, first) in cuts {
            let Some(source) = self.sources.get_mut(number) else { continue };
            let before = source.progress.out();
            let encoded = source.leaving_bytes.remove(first).unwrap_or(0);
            let released = source.progress.acknowledge(*first);
            if source.progress.out() < before {
                source.spooled_cuts = source.spooled_cuts.map(|count| count.saturating_sub(1));
                self.tally.spooled_bytes += released.prefix;
                self.handover.bytes = self.handover.bytes.saturating_sub(encoded);
                self.checkpoint.dirty = true;
            }
        }
        for (number, _) in cuts {
            // A kill from here on finds the cuts in the spool, and must not count them as lost.
            if let Some(record) = self.sources.get(number).and_then(Source::record) {
                self.append(&[Fact::Generation(record)]);
                self.attend(*number, now);
            }
        }
    }
}

impl<H> Source<H> {
    /// Whether it is deleted, with something that is neither delivered nor spooled, and has not grown for a while. One that
    /// equals a living generation so far has nothing that would be lost at once.
    fn is_leaving(&self, at_once: bool, now: Duration) -> bool {
        let is_delivered = self.unread() == 0 && self.progress.is_settled();
        let rested = now >= self.grown_at.max(self.deleted_at) + pace::DELETED_KEPT;
        let is_due = rested || (at_once && self.held.is_none());
        self.seen.deleted && self.file.is_some() && !is_delivered && is_due
    }

    /// Batches that the shipper has.
    pub(super) fn shipped(&self) -> usize {
        self.progress.out() - self.spooled_cuts.unwrap_or(0)
    }
}
