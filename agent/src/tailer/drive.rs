//! The thread under the tailer: mail in, a turn, batches out.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use logmesh_runtime::health::Condition;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::CancellationToken;

use super::{Snapshot, Tailer, watching::Watching};
use crate::{
    clock::{Clock, Now},
    filesystem::Filesystem,
    inputs::intake::Arrivals,
    mailbox::{Mail, Mailbox, Rest},
    parcel::{Answer, Errand},
    spool::Spools,
};

/// Longest sleep, so that a broken clock or a lost wake-up costs little.
const SLEEP_MAX: Duration = Duration::from_secs(10);
/// Between two snapshots for metrics and status, while something happens.
const SHOW: Duration = Duration::from_millis(500);
/// Generations shown in detail.
const FILES_SHOWN_MAX: usize = 1000;

/// The last snapshot, for whoever asks.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<Mutex<Snapshot>>);

impl Shown {
    /// The last snapshot.
    #[must_use]
    pub fn load(&self) -> Snapshot {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads something of the last snapshot.
    pub fn with<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn store(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}

/// Conditions that the tailer keeps.
#[derive(Debug)]
pub struct Conditions {
    /// Whether the state can be written.
    pub state: Condition,
    /// Whether all files can be read.
    pub files: Condition,
    /// Whether topics take all records.
    pub records: Condition,
    /// Whether the spool can be written and read.
    pub spool: Condition,
    /// Whether there are descriptors for all files.
    pub descriptors: Condition,
}

/// Everything around the tailer on its thread.
#[derive(Debug)]
pub struct Driver<F: Filesystem, C: Clock> {
    /// The tailer.
    pub tailer: Tailer<F>,
    /// Its clock.
    pub clock: C,
    /// Where answers, hints and the wish to stop come from.
    pub mailbox: Arc<Mailbox>,
    /// What would be lost if it were only in memory.
    pub spools: Spools,
    /// Records of inputs that are no files.
    pub arrivals: Arrivals,
    /// Where batches go.
    pub errands: mpsc::Sender<Errand>,
    /// Where hints come from.
    pub watching: Watching,
    /// What it shows.
    pub shown: Shown,
    /// How it is.
    pub conditions: Conditions,
    /// What exceeds the capacity of `errands` for a moment.
    pub backlog: VecDeque<Errand>,
    /// Cancelled once inputs give nothing more and all that they gave is delivered.
    pub delivered: CancellationToken,
}

impl<F: Filesystem, C: Clock> Driver<F, C> {
    /// Runs until it is asked to stop; hands the tailer back for the end of the story.
    pub fn run(mut self) -> Stopped<F, C> {
        let mut wake = Duration::ZERO;
        let mut shown_at = None;
        loop {
            let now = self.clock.now();
            let patience =
                if self.backlog.is_empty() { wake.saturating_sub(now.mono).min(SLEEP_MAX) } else { SHOW / 10 };
            let mail = self.mailbox.take(patience, self.rest(now));
            let now = self.clock.now();
            if mail.stop {
                self.hear(mail.answers, now);
                return Stopped { driver: self };
            }
            wake = self.turn(mail, now);
            if shown_at.is_none_or(|at| now.mono >= at + SHOW) {
                shown_at = Some(now.mono);
                self.show(now);
            } else if wake > now.mono + SHOW {
                // Something happened since the last snapshot, and nothing else would bring one about.
                wake = wake.min(shown_at.unwrap_or_default() + SHOW);
            }
        }
    }

    /// The spools count on answers: what is on its way is all that they may send.
    fn rest(&self, now: Now) -> Rest {
        let rest = self.tailer.rest(now);
        Rest { answers_wait: rest.answers_wait && self.spools.is_settled(), ..rest }
    }

    fn turn(&mut self, mail: Mail, now: Now) -> Duration {
        self.hear(mail.answers, now);
        if mail.overflowed {
            tracing::info!("hints about files were lost; everything is looked at");
            self.tailer.walk_soon(now);
        }
        let mut errands = Vec::new();
        let wake = self.tailer.turn(now, mail.hints, &mut errands);
        self.backlog.extend(errands);
        let wake = wake.min(self.spool(now));
        if mail.ending && self.spools.is_empty() {
            self.delivered.cancel();
        }
        self.ship();
        self.watching.follow(&mut self.tailer, now);
        wake
    }

    /// Each answer to whom it concerns.
    fn hear(&mut self, answers: Vec<Answer>, now: Now) {
        for answer in answers {
            if let Some(answer) = self.spools.handle(answer, now) {
                self.tailer.handle(answer, now);
            }
        }
    }

    /// Brings inputs and deleted files to their spools, and what is spooled on its way. Returns when to come again.
    fn spool(&mut self, now: Now) -> Duration {
        let arrivals = self.arrivals.take();
        self.spools.take_arrivals(arrivals, now);
        for parcel in self.tailer.take_leaving() {
            self.spools.keep(parcel);
        }
        let mut errands = Vec::new();
        let wake = self.spools.turn(now, &mut errands);
        self.backlog.extend(errands);
        for dropped in self.spools.take_dropped() {
            self.tailer.note_dropped(&dropped.path, dropped.bytes, dropped.reason, now);
        }
        let kept = self.spools.take_kept();
        if kept.is_empty() {
            return wake;
        }
        self.tailer.kept(&kept, now);
        now.mono
    }

    fn ship(&mut self) {
        ship_in_order(&mut self.backlog, |errand| match self.errands.try_send(errand) {
            Err(TrySendError::Full(errand)) => Some(errand),
            // Without a shipper the agent ends; what is not acknowledged is sent by the next run.
            Ok(()) | Err(TrySendError::Closed(_)) => None,
        });
    }

    fn show(&mut self, now: Now) {
        let spools = self.spools.status();
        match spools.iter().find_map(|(name, spool)| spool.failure.as_ref().map(|why| (name, why))) {
            Some((name, why)) => self.conditions.spool.warn(format!("spool `{name}`: {why}")),
            None => self.conditions.spool.clear(),
        }
        let (input_records, input_bytes) = self.spools.taken();
        let snapshot = self.tailer.snapshot(now, FILES_SHOWN_MAX);
        self.shown.store(Snapshot { spools, input_records, input_bytes, ..snapshot });
        self.watching.show(&self.tailer);
        match self.tailer.state_failure() {
            Some(failure) if self.tailer.is_held_by_state() => self.conditions.state.set(format!(
                "{failure}; nothing new is read until it can be written: make room in the data directory"
            )),
            Some(failure) => self.conditions.state.warn(format!("{failure}; progress is not kept over a restart")),
            None => self.conditions.state.clear(),
        }
        match self.tailer.oversized() {
            Some(oversized) => self.conditions.records.warn(oversized),
            None => self.conditions.records.clear(),
        }
        match self.tailer.descriptor_shortage() {
            Some(shortage) => self.conditions.descriptors.warn(shortage),
            None => self.conditions.descriptors.clear(),
        }
        let unreadable = self.tailer.unreadable();
        match unreadable.first() {
            Some((path, reason)) => self.conditions.files.warn(format!(
                "{} paths cannot be read, {} for one ({reason}): give the agent's user the right to read what it \
                 may not, mend or remove links in a circle and damaged archives",
                unreadable.len(),
                path.display()
            )),
            None => self.conditions.files.clear(),
        }
    }
}

/// Ships from the front until there is no room: a later batch never overtakes one that has to wait. `send` gives back
/// what it has no room for.
fn ship_in_order<T>(backlog: &mut VecDeque<T>, mut send: impl FnMut(T) -> Option<T>) {
    while let Some(errand) = backlog.pop_front() {
        if let Some(errand) = send(errand) {
            return backlog.push_front(errand);
        }
    }
}

/// A tailer that reads no more, and still takes answers.
#[derive(Debug)]
pub struct Stopped<F: Filesystem, C: Clock> {
    driver: Driver<F, C>,
}

impl<F: Filesystem, C: Clock> Stopped<F, C> {
    /// Takes answers until all that was read is acknowledged, `patience` is over, or `hurry` says so; then a last
    /// checkpoint. What inputs have and what deleted files still hold goes to the spool first. Returns whether
    /// everything was acknowledged or spooled.
    pub fn settle(mut self, patience: Duration, hurry: &dyn Fn() -> bool) -> bool {
        let deadline = self.driver.clock.now().mono + patience;
        self.driver.arrivals.close();
        self.driver.tailer.begin_stop(self.driver.clock.now());
        let leaving = loop {
            let now = self.driver.clock.now();
            let mut errands = Vec::new();
            let leaving = self.driver.tailer.turn_stopping(now, &mut errands);
            self.driver.backlog.extend(errands);
            self.driver.spools.hold();
            let wake = self.driver.spool(now);
            self.driver.ship();
            let written = !leaving && self.driver.spools.is_written();
            let settled = written && self.driver.tailer.is_settled() && self.driver.spools.is_settled();
            if settled || now.mono >= deadline || hurry() {
                break leaving;
            }
            // The wish to stop is no news: it would end every wait at once.
            let mail = self.driver.mailbox.take_answers(wake.saturating_sub(now.mono).min(SHOW / 10));
            let now = self.driver.clock.now();
            self.driver.hear(mail, now);
        };
        if leaving {
            self.driver.tailer.give_up_leaving(self.driver.clock.now());
        }
        let settled =
            self.driver.tailer.stop() && !leaving && self.driver.spools.is_written() && self.driver.spools.is_settled();
        self.driver.spools.stop();
        let now = self.driver.clock.now();
        self.driver.show(now);
        settled
    }
}

#[cfg(test)]
mod tests {
    use logmesh_proto::v1;

    use super::*;
    use crate::parcel::{Parcel, StreamNumber};

    fn parcel(first_offset: u64) -> Parcel {
        let batch = v1::Batch { first_offset, ..v1::Batch::default() };
        Parcel { stream: StreamNumber(1), batch, info: Arc::default(), encoded: 1 }
    }

    #[test]
    fn a_batch_that_finds_no_room_is_not_overtaken() {
        let mut backlog: VecDeque<Parcel> = (0..5).map(parcel).collect();
        let mut sent = Vec::new();
        let mut calls = 0;
        while !backlog.is_empty() {
            ship_in_order(&mut backlog, |parcel| {
                calls += 1;
                // Room comes and goes between two calls.
                if calls % 3 == 2 {
                    return Some(parcel);
                }
                sent.push(parcel.batch.first_offset);
                None
            });
        }
        assert_eq!(sent, [0, 1, 2, 3, 4]);
    }
}
