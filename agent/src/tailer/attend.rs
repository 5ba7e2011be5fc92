//! What changed about a file, and what is to be done about it when.

use std::time::Duration;

use super::{
    Tailer, pace,
    source::{Presence, Seen, Source},
};
use crate::{
    clock::Now,
    filesystem::{FileStat, Filesystem, Handle},
    identity::MARK_BYTES_MAX,
    inflate::Content,
    parcel::StreamNumber,
};

/// What a source needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// A visit.
    Visit,
    /// Another look at that time.
    At(Duration),
    /// Nothing before something happens.
    Nothing,
}

impl<F: Filesystem> Tailer<F> {
    /// Looks at a file and sees to what it needs.
    pub(super) fn attend(&mut self, number: StreamNumber, now: Now) {
        self.look(number, now);
        if self.expire(number, now) || self.finish_archive(number, now) {
            return;
        }
        self.hand_over_when_due(number, now);
        self.send_kept(number, now);
        let Some(source) = self.sources.get(&number) else { return };
        match self.want(source, now.mono) {
            Want::Visit => self.queue(number),
            Want::At(at) => self.arm(number, at),
            Want::Nothing => {}
        }
        if let Some(at) = self.next_look(number, now.mono) {
            self.arm(number, at);
        }
    }

    /// Sees what changed; finds truncations.
    fn look(&mut self, number: StreamNumber, now: Now) {
        if self.sources.get(&number).is_some_and(|source| source.parked) && !self.look_by_name(number, now) {
            return;
        }
        let Some(source) = self.sources.get_mut(&number) else { return };
        let Some(file) = &source.file else { return };
        let stat = match file.stat() {
            Ok(stat) => stat,
            Err(error) => return self.read_failed(number, &error, now),
        };
        let (before, seen) = (source.seen, Seen::of(&stat));
        if before == seen {
            return source.doubt_padding(now);
        }
        source.seen = seen;
        // Padding may have been written over in place.
        let is_written = (seen.size, seen.modified_nano) != (before.size, before.modified_nano);
        let was_padded = is_written && source.blank_from.take().is_some();
        if was_padded {
            source.scanned = 0;
        }
        if seen.size > before.size || was_padded {
            source.grown_at = now.mono;
            source.pending_since.get_or_insert(now.mono);
            if seen.size > source.scanned {
                source.flush_at = None;
            }
        }
        if seen.deleted && !before.deleted {
            source.presence = Presence::Gone { since: now.mono };
            source.kept_for = pace::DELETED_KEPT;
            source.deleted_at = now.mono;
            // Its generation has ended: what waits for a terminator waits in vain.
            source.flush_at = source.flush_at.map(|_| now.mono);
            self.newly_gone.push(number);
        }
        if !source.short && source.archive.is_none() && self.was_rewritten(number, &stat) {
            self.truncated(number, before.size, now);
        }
    }

    /// Whether the bytes that were read are no longer those in the file. A file that grew is checked as it is read.
    fn was_rewritten(&self, number: StreamNumber, stat: &FileStat) -> bool {
        let Some(source) = self.sources.get(&number) else { return false };
        let position = source.progress.position();
        if stat.size != position.offset || source.progress.to_build().is_some() {
            return stat.size < position.offset;
        }
        let Some(file) = &source.file else { return false };
        let mut buffer = [0; MARK_BYTES_MAX];
        let anchor = &mut buffer[..usize::from(position.anchor.length)];
        let at = position.offset - anchor.len() as u64;
        match file.read_full_at(anchor, at) {
            Ok(count) => count < anchor.len() || !position.anchor.ends(anchor),
            Err(_) => false,
        }
    }

    /// What a source needs, as it was last seen.
    pub(super) fn want(&self, source: &Source<Content<F::Handle>>, now: Duration) -> Want {
        if !source.has_file() {
            return Want::Nothing;
        }
        if source.held.is_some() {
            return Want::Visit;
        }
        if source.paused_until > now {
            return Want::At(source.paused_until);
        }
        // The spool's part of a stream begins where the shipper's ends.
        let leaving = source.spooled_cuts.is_some();
        if leaving && source.shipped() > 0 {
            return Want::At(now + pace::RETRY);
        }
        if source.progress.to_build().is_some() {
            return Want::Visit;
        }
        let unread = source.unread();
        if unread == 0 {
            return Want::Nothing;
        }
        if source.scanned == source.seen.size {
            return match source.flush_at {
                Some(at) if at > now => Want::At(at),
                Some(_) => Want::Visit,
                // What no flush takes, half a terminator, goes when nothing can follow it any more.
                None if source.over_at().is_some_and(|at| at <= now)
                    && now >= source.visited_at + pace::LOOK_ACTIVE =>
                {
                    Want::Visit
                }
                None => Want::Nothing,
            };
        }
        if source.settle_first && !source.progress.is_settled() {
            return Want::Nothing;
        }
        if leaving {
            return Want::Visit;
        }
        if let Some(at) = source.pending_look().filter(|at| *at > now) {
            return Want::At(at);
        }
        // What is dropped is in no hurry, and nothing is out whose answer would bring on the next visit.
        let rate = source.rate.now(now);
        let is_idle = source.progress.out() == 0 && !source.dropped_last && rate < pace::QUICK;
        if is_idle || unread >= self.limits.batch_bytes_max as u64 {
            return Want::Visit;
        }
        // Without a session nothing would leave sooner for being cut sooner; the files are the buffer.
        if self.window.credit.is_none() {
            return Want::Nothing;
        }
        // What has not grown since the last visit waits since then.
        let due = source.pending_since.unwrap_or(source.visited_at) + linger(rate);
        if due > now { Want::At(due) } else { Want::Visit }
    }

    fn next_look(&self, number: StreamNumber, now: Duration) -> Option<Duration> {
        let source = self.sources.get(&number)?;
        if let Presence::Gone { since } = source.presence {
            // Without a file there is nothing to see before its time is over.
            let over_at = since.max(source.grown_at) + source.kept_for;
            let soon = now + pace::SETTLE;
            return Some(if source.has_file() { soon } else { over_at.max(soon) });
        }
        let active = now < source.grown_at + pace::ACTIVE || !source.progress.is_settled();
        let interval = if self.is_polled(source) { pace::LOOK_POLLING } else { pace::LOOK_ACTIVE };
        (active && source.has_file()).then(|| now + interval)
    }
}

/// Batches of a slow stream leave almost at once; those of a fast one wait for company.
fn linger(rate: f64) -> Duration {
    let share = (rate / pace::FAST).clamp(0.0, 1.0);
    pace::LINGER_MIN + (pace::LINGER_MAX - pace::LINGER_MIN).mul_f64(share)
}
