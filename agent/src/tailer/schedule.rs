//! Which files are visited now: in turn, at the rates of their groups, while the window is open.

use super::{
    Tailer,
    turns::{TURN_BYTES_MIN, Turn},
};
use crate::{clock::Now, filesystem::Filesystem, parcel::StreamNumber};

/// Visits of one turn of the tailer, so that answers and hints are not kept waiting.
const VISITS_MAX: usize = 16;

impl<F: Filesystem> Tailer<F> {
    /// Visits files that are ready while the window is open. Returns whether there is more to do at once.
    pub(super) fn visit_ready(&mut self, now: Now) -> bool {
        self.release_throttled(now);
        for _ in 0..VISITS_MAX {
            if !self.window.is_open(self.settings.window_bytes) {
                return false;
            }
            let Some(turn) = self.turns.next() else { return false };
            self.take_turn(turn, now);
        }
        !self.turns.is_empty()
    }

    fn take_turn(&mut self, turn: Turn, now: Now) {
        let Some(source) = self.sources.get_mut(&turn.number) else { return };
        if source.spooled_cuts.is_some() {
            // It is handed over to the spool since it was put in line here.
            return;
        }
        let (group, is_new) = (source.group, source.progress.to_build().is_none());
        let throttle = self.throttles.get_mut(&group).filter(|_| is_new);
        let budget = throttle.map_or(Some(usize::MAX), |throttle| {
            let budget = throttle.budget(now.mono);
            if budget.is_none() {
                throttle.wait(turn.number);
            }
            budget
        });
        // One that waits for its rate stays in line.
        let Some(budget) = budget else { return };
        let weight = self.settings.groups.get(group).map_or(1, |rules| rules.weight);
        let Some(quantum) = self.turns.begin(turn, &mut source.standing, weight) else {
            return self.turns.push(turn.number, &source.standing);
        };
        source.queued = false;
        self.quantum = quantum.min(budget).max(TURN_BYTES_MIN);
        self.visit(turn.number, Some(turn), now);
    }

    /// Charges a visit that brought so many bytes.
    pub(super) fn charge(&mut self, turn: Turn, bytes: usize, is_new: bool) {
        let Some(source) = self.sources.get_mut(&turn.number) else { return };
        if let Some(throttle) = self.throttles.get_mut(&source.group).filter(|_| is_new) {
            throttle.pay(bytes);
        }
        self.turns.end(turn, &mut source.standing, bytes);
    }

    pub(super) fn queue(&mut self, number: StreamNumber) {
        if let Some(source) = self.sources.get_mut(&number)
            && !source.queued
        {
            source.queued = true;
            if source.spooled_cuts.is_some() {
                return self.handover.ready.push_back(number);
            }
            // Where a rate ends turns before their time, nobody goes on with his: others of the group have waited longer.
            if self.throttles.contains_key(&source.group) {
                self.turns.push_last(number, &source.standing);
            } else {
                self.turns.push(number, &source.standing);
            }
        }
    }

    fn release_throttled(&mut self, now: Now) {
        for throttle in self.throttles.values_mut() {
            for number in throttle.released(now.mono) {
                if let Some(source) = self.sources.get(&number) {
                    self.turns.push_last(number, &source.standing);
                }
            }
        }
    }

    /// When files that wait for their rate may go on.
    pub(super) fn throttled_until(&self) -> Option<std::time::Duration> {
        self.throttles.values().filter_map(super::throttle::Throttle::opens_at).min()
    }
}
