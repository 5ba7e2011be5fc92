//! What a spool may hold: what is over its budget or too old is dropped, the oldest first, and counted.

use std::time::Duration;

use logmesh_journal::Position;

use super::{
    Dropped, Spool,
    entry::Entry,
    transit::{Remembered, Span},
};
use crate::{clock::Now, losses::LossReason};

impl<T: Send + 'static> Spool<T> {
    /// Drops what is over the budget or too old, as much of it as one turn may.
    pub(super) fn drop_oldest(&mut self, now: Now) {
        while self.left > 0 {
            let is_over = self.is_over();
            if !is_over && self.settings.age_max == Duration::MAX {
                return;
            }
            if let Some(oldest) = self.transit.oldest_deferred() {
                let Some(reason) = self.reason(is_over, oldest.spooled_unix_nano, now) else { return };
                self.drop_deferred(&oldest, reason);
            } else if self.fill(now) {
                if !self.drop_next(is_over, now) {
                    return;
                }
            } else if is_over && self.unreadable.is_some() {
                self.skip_segment("it cannot be read, and the spool is over its budget");
            } else {
                return;
            }
        }
    }

    /// Drops the entry that was read, if it has to go. Returns whether it had.
    fn drop_next(&mut self, is_over: bool, now: Now) -> bool {
        let Some((_, entry)) = &self.next else { return false };
        let Some(reason) = self.reason(is_over, entry.spooled_unix_nano, now) else { return false };
        let dropped = Dropped { path: entry.path().to_owned(), bytes: entry.source_bytes(), reason };
        self.next = None;
        self.count(dropped);
        true
    }

    /// Drops an entry that is deferred: it is read once more, to count what is left of it.
    fn drop_deferred(&mut self, oldest: &Remembered, reason: LossReason) {
        self.left = self.left.saturating_sub(1);
        let payload = self.journal.log().read_at(oldest.position).ok();
        self.transit.forget(oldest.position);
        let Some(entry) = payload.and_then(|payload| Entry::decode(payload).ok()) else { return self.count_damage() };
        let rest: u64 = oldest.rest.iter().map(Span::bytes).sum();
        let bytes = if oldest.rest.is_empty() { entry.source_bytes() } else { rest };
        self.count(Dropped { path: entry.path().to_owned(), bytes, reason });
    }

    /// Why an entry that was spooled at that time has to go, if it has.
    fn reason(&self, is_over: bool, spooled_unix_nano: u64, now: Now) -> Option<LossReason> {
        if is_over {
            return Some(LossReason::SpoolFull);
        }
        let age = Duration::from_nanos(now.unix_nano.saturating_sub(spooled_unix_nano));
        (age > self.settings.age_max).then_some(LossReason::SpoolAged)
    }

    /// Counts what was dropped: what goes of one file at once is one loss, and one line in the log.
    fn count(&mut self, dropped: Dropped) {
        let is_same = |other: &Dropped| other.path == dropped.path && other.reason == dropped.reason;
        match self.dropped.iter().position(is_same) {
            Some(at) => self.dropped[at].bytes += dropped.bytes,
            None => self.dropped.push(dropped),
        }
    }

    /// Counts entries of which nobody knows what they held.
    pub(super) fn count_damage(&mut self) {
        self.dropped.push(Dropped { path: String::new(), bytes: 0, reason: LossReason::SpoolDamaged });
    }

    /// Whether there is more than may be. What lies behind the oldest entry that is not delivered counts, delivered or not:
    /// the disk has it. But where that one is under way, nothing that is dropped behind it would give room back, and only
    /// what may be dropped counts.
    fn is_over(&self) -> bool {
        let is_in_the_way = self.transit.begins_under_way();
        let bytes = if is_in_the_way { self.stored_bytes() } else { self.bytes_from(self.settled()) };
        bytes > self.settings.bytes_max
    }

    /// Bytes on disk that are not under way: what is deferred, and what was not read yet.
    pub(super) fn stored_bytes(&self) -> u64 {
        let from = self.next.as_ref().map_or_else(|| self.reader.position(), |(position, _)| *position);
        self.bytes_from(from) + self.transit.deferred_bytes() as u64
    }

    /// Bytes on disk from a place on.
    fn bytes_from(&self, from: Position) -> u64 {
        let segments = self.journal.log().segments();
        let behind = segments.iter().filter(|segment| segment.number > from.segment).map(|segment| segment.end);
        let rest = segments.iter().find(|segment| segment.number == from.segment);
        behind.sum::<u64>() + rest.map_or(0, |segment| segment.end.saturating_sub(from.byte))
    }
}
