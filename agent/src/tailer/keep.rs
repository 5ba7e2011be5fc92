//! State on disk, truncated generations, and generations that are over.

use super::{
    Tailer, pace,
    source::{Presence, Source},
};
use crate::{
    clock::Now,
    filesystem::{Filesystem, Handle},
    inflate::Content,
    losses::LossReason,
    parcel::StreamNumber,
    state::{Fact, Remembered},
};

impl<F: Filesystem> Tailer<F> {
    /// Appends to the cut log; a failure is noted and cured by a later checkpoint. Returns whether it worked.
    pub(super) fn append(&mut self, facts: &[Fact]) -> bool {
        let written = self.store.append(facts);
        self.checkpoint.log_broken |= written.is_err();
        self.note_state(written.map_err(|error| format!("cannot write the cut log: {error}")))
    }

    pub(super) fn sync(&mut self) -> bool {
        let synced = self.store.sync();
        self.checkpoint.log_broken |= synced.is_err();
        self.note_state(synced.map_err(|error| format!("cannot sync the cut log: {error}")))
    }

    fn note_state(&mut self, outcome: Result<(), String>) -> bool {
        let Err(failure) = outcome else { return true };
        if self.checkpoint.failure.is_none() {
            tracing::warn!(%failure, "the state cannot be written; it is tried again");
        }
        self.checkpoint.failure = Some(failure);
        self.checkpoint.dirty = true;
        false
    }

    /// Why the state cannot be written, while it cannot.
    #[must_use]
    pub fn state_failure(&self) -> Option<&str> {
        self.checkpoint.failure.as_deref()
    }

    /// Whether nothing new is read, since no cut could be logged.
    #[must_use]
    pub fn is_held_by_state(&self) -> bool {
        self.checkpoint.log_broken
    }

    pub(super) fn checkpoint_when_due(&mut self, now: Now) {
        if !self.checkpoint.dirty || now.mono < self.checkpoint.next {
            return;
        }
        self.checkpoint.next = now.mono + pace::CHECKPOINT;
        if self.save(now) {
            self.checkpoint.done_at = now.mono;
        }
    }

    pub(super) fn write_checkpoint(&mut self, clean: bool) -> bool {
        let known: Vec<Remembered> = self
            .sources
            .values()
            .filter_map(|source| {
                let cuts = source.progress.cuts().map(|cut| cut.record).collect();
                source.record().map(|generation| Remembered { generation, cuts })
            })
            .collect();
        self.past.sync();
        let written = self.store.checkpoint(&known, clean);
        if !self.note_state(written.map_err(|error| format!("cannot write the checkpoint: {error}"))) {
            return false;
        }
        if self.checkpoint.failure.take().is_some() {
            tracing::info!("the state can be written again");
        }
        self.checkpoint.dirty = false;
        self.checkpoint.log_broken = false;
        for source in self.sources.values_mut() {
            source.logged |= source.stream_id.is_some();
            source.durable = source.logged;
            source.saved = Some(source.progress_mark());
        }
        true
    }

    /// A file was truncated: its generation is over, and another one begins in it.
    pub(super) fn truncated(&mut self, number: StreamNumber, size_before: u64, now: Now) {
        if self.sources.get(&number).is_some_and(|source| source.archive.is_some()) {
            return self.archive_differs(number, now);
        }
        let kept_for = self.kept_without_file(number);
        let Some(source) = self.sources.get_mut(&number) else { return };
        let (Some(file), Some(key)) = (source.file.take(), source.key.take()) else { return };
        let used_at = source.used_at.take();
        source.presence = Presence::Gone { since: now.mono };
        self.newly_gone.push(number);
        source.kept_for = kept_for;
        source.truncated = true;
        source.seen.size = size_before;
        // Where the state is not all there, a file that was never what was remembered of it may have been sent as what
        // it is now.
        let may_be_sent = source.resend && source.proven == 0;
        let (path, scope_path) = (source.path.clone(), source.scope_path.clone());
        let position = source.progress.position().offset;
        tracing::info!(path = %path.display(), position, "a file was truncated or rewritten; it is read from its beginning");
        self.by_key.remove(&key);
        self.released(number, used_at);
        self.tally.truncated += 1;
        let Ok(stat) = file.stat() else { return };
        let group = self.settings.patterns.group(&path);
        let of = group.or_else(|| self.settings.patterns.group(&scope_path));
        let next = self.begin(&path, of.unwrap_or(0), &key, true, now);
        if let Some(next) = self.sources.get_mut(&next) {
            next.scope_path = scope_path;
            next.resend |= may_be_sent;
        }
        // Those that were held back for resembling the old generation may be its continuation now.
        let held = |source: &Source<Content<F::Handle>>| source.held.is_some_and(|held| held.of == number);
        let waiting: Vec<_> = self.sources.iter().filter(|(_, source)| held(source)).map(|(held, _)| *held).collect();
        self.log_generation(next);
        let found = crate::discovery::Found { path, group, stat };
        self.attach(next, file, &stat, &found, now);
        waiting.into_iter().for_each(|held| self.queue(held));
        self.arm(number, now.mono + pace::SETTLE);
    }

    /// Ends a generation that is gone, once nothing more can come of it. Returns whether it is over.
    pub(super) fn expire(&mut self, number: StreamNumber, now: Now) -> bool {
        let Some(source) = self.sources.get(&number) else { return true };
        let Presence::Gone { since } = source.presence else { return false };
        if now.mono < since.max(source.grown_at) + source.kept_for {
            return false;
        }
        if source.parked && source.unread() > 0 {
            // Its name may lead to it again.
            self.reopen(number, Some(number), now);
        }
        let Some(source) = self.sources.get(&number) else { return true };
        if source.file.is_none() {
            if self.may_be_in_an_archive(number) {
                return false;
            }
            let known = source.progress.to_build().is_some() || source.unread() > 0;
            // Told once: what comes after is the wait for acknowledgements.
            let truncated = self.sources.get_mut(&number).is_some_and(|source| std::mem::take(&mut source.truncated));
            let doubted = self.sources.get_mut(&number).is_some_and(|source| std::mem::take(&mut source.doubted));
            match (known, truncated) {
                (true, true) => self.give_up(number, LossReason::Truncated, now),
                (true, false) => self.give_up(number, LossReason::Deleted, now),
                (false, true) => self.note_unseen(number, LossReason::Truncated, now),
                (false, false) if doubted => self.note_unseen(number, LossReason::Deleted, now),
                (false, false) => {}
            }
        } else if source.unread() > 0 || source.held.is_some() {
            return false;
        }
        let over =
            self.sources.get(&number).is_some_and(|source| source.progress.is_settled() && source.kept.is_empty());
        if over && self.may_be_archived(number) {
            self.retire(number, None, now);
        } else if over {
            let stream_id = self.sources.get(&number).and_then(|source| source.stream_id.filter(|_| source.logged));
            self.remove(number);
            if let Some(stream_id) = stream_id {
                self.append(&[Fact::Forgotten(stream_id)]);
            }
        }
        over
    }

    /// How long a generation that has lost its file is kept for a continuation to turn up: a copy is there at once, an
    /// archive takes its time.
    pub(super) fn kept_without_file(&self, number: StreamNumber) -> std::time::Duration {
        if self.may_be_archived(number) { pace::VANISHED_KEPT } else { pace::SETTLE * 2 }
    }

    /// Counts what can no longer be read.
    pub(super) fn give_up(&mut self, number: StreamNumber, reason: LossReason, now: Now) {
        let Some(source) = self.sources.get_mut(&number) else { return };
        let bytes = source.unread() + source.progress.abandon();
        source.seen.size = source.seen.size.min(source.progress.position().offset);
        self.tally.lost_events += 1;
        self.tally.lost_bytes += bytes;
        self.checkpoint.dirty = true;
        self.losses.note(&source.path, Some(bytes), reason, now.unix_nano);
        self.oversized.retain(|(stream, _), _| *stream != number);
    }

    /// Notes what the spool dropped.
    pub(super) fn note_dropped(&mut self, path: &str, bytes: u64, reason: LossReason, now: Now) {
        self.tally.lost_events += 1;
        self.tally.lost_bytes += bytes;
        let known = (reason != LossReason::SpoolDamaged).then_some(bytes);
        self.losses.note(path.as_ref(), known, reason, now.unix_nano);
    }

    /// Notes that more may have been written to a file than was ever seen of it.
    fn note_unseen(&mut self, number: StreamNumber, reason: LossReason, now: Now) {
        let Some(source) = self.sources.get(&number) else { return };
        self.tally.lost_events += 1;
        self.losses.note(&source.path, None, reason, now.unix_nano);
    }

    /// Forgets a generation in memory.
    pub(super) fn remove(&mut self, number: StreamNumber) -> Option<Source<Content<F::Handle>>> {
        let source = self.sources.remove(&number)?;
        if let Some(id) = &source.stream_id {
            self.ids.remove(id);
        }
        self.released(number, source.used_at);
        self.unwanted(source.inode, number);
        self.oversized.retain(|(stream, _), _| *stream != number);
        self.heads.remove(source.head, number);
        if let Some(at) = source.timer {
            self.timers.remove(&(at, number));
        }
        if let Some(key) = source.key
            && self.by_key.get(&key) == Some(&number)
        {
            self.by_key.remove(&key);
        }
        if self.by_path.get(&source.path) == Some(&number) {
            self.by_path.remove(&source.path);
        }
        self.checkpoint.dirty = true;
        Some(source)
    }
}
