//! What a whole archive is, reading it, and its end.
//!
//! It continues a generation whose file is gone; of one that is read as far as the archive goes, nothing is left to read.
//! While the file of such a generation is still there it is not clear what the archive is; a settle time later it is a
//! file of its own.
//!
//! An archive never grows: once it is read and acknowledged its generation is over, and remembered in `past.rs`.

use std::{io, time::Duration};

use super::{
    Tailer,
    archives::Whole,
    pace,
    past::Present,
    source::{FileKey, Presence, Source},
};
use crate::{
    clock::Now,
    discovery::Found,
    filesystem::{Filesystem, Handle},
    identity::MARK_BYTES_MAX,
    inflate::{Content, Inflated},
    losses::LossReason,
    parcel::StreamNumber,
    state::{Fact, Past, Remembered, Seal},
};

/// Content inflated in one visit on the way to where reading goes on, in bytes; a turn has several visits.
const APPROACH_BYTES: usize = 2 * 1024 * 1024;
/// Archives read at once: each has a window of up to [`crate::inflate::WINDOW_BYTES_MAX`].
const READING_MAX: usize = 2;
/// The same with those whose lanes are held.
const OPEN_MAX: usize = 6;

/// What an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Not clear yet.
    Wait,
    /// Nothing that was not read of that generation.
    Read(StreamNumber),
    /// More of that generation.
    Continues(StreamNumber),
    /// A file of its own.
    Own,
}

impl<F: Filesystem> Tailer<F> {
    /// Whether one more archive may be read; those whose lanes are held count less.
    pub(super) fn has_room(&self, now: Duration) -> bool {
        let open = || self.sources.values().filter(|source| source.archive.is_some() && source.file.is_some());
        open().filter(|source| source.paused_until <= now).count() < READING_MAX && open().count() < OPEN_MAX
    }

    pub(super) fn judge_archive(&mut self, key: FileKey, whole: &Whole, now: Now) {
        let mut verdict = Verdict::Own;
        for of in &whole.of {
            match self.compare_archive(*of, whole, now.mono) {
                Verdict::Own => {}
                Verdict::Wait => verdict = Verdict::Wait,
                clear @ (Verdict::Read(_) | Verdict::Continues(_)) => {
                    verdict = clear;
                    break;
                }
            }
        }
        match verdict {
            Verdict::Wait => self.archives.schedule(key, now.mono + pace::LOOK_POLLING),
            Verdict::Read(of) => self.note_archive(key, of, whole.seal, now),
            Verdict::Continues(_) | Verdict::Own if !self.has_room(now.mono) => {
                self.archives.schedule(key, now.mono + pace::LOOK_POLLING);
            }
            Verdict::Continues(of) => self.read_archive(key, Some(of), whole, now),
            Verdict::Own => self.read_archive(key, None, whole, now),
        }
    }

    fn compare_archive(&self, of: StreamNumber, whole: &Whole, now: Duration) -> Verdict {
        if let Some(entry) = self.past.get(of) {
            let (acked, sealed) = (entry.past.generation.acked, entry.past.seal.is_some());
            return match entry.present {
                // Its archive may be there and not found yet.
                None if sealed && !self.walk.first_done => Verdict::Wait,
                None if whole.size <= acked => Verdict::Read(of),
                // A short generation may be the beginning of many files, and be long over.
                None if acked >= MARK_BYTES_MAX as u64 => Verdict::Continues(of),
                None | Some(_) => Verdict::Own,
            };
        }
        let Some(known) = self.sources.get(&of) else { return Verdict::Own };
        match (&known.file, known.presence) {
            (Some(_), _) if known.archive.is_some() => Verdict::Own,
            // What is still written to a file without a name is read from its descriptor.
            (Some(file), _) if file.stat().is_ok_and(|stat| stat.links == 0) => Verdict::Wait,
            (Some(_), _) | (None, Presence::InScope { .. }) => {
                let settled = self.walk.first_done && now >= whole.since + pace::SETTLE;
                if settled { Verdict::Own } else { Verdict::Wait }
            }
            (None, Presence::Dormant) => Verdict::Wait,
            (None, Presence::Gone { .. }) => {
                let is_read = whole.size <= known.progress.position().offset && known.progress.to_build().is_none();
                match (is_read, known.progress.is_settled()) {
                    (true, true) => Verdict::Read(of),
                    (true, false) => Verdict::Wait,
                    (false, _) => Verdict::Continues(of),
                }
            }
        }
    }

    /// Nothing of an archive is new.
    fn note_archive(&mut self, key: FileKey, of: StreamNumber, seal: Seal, now: Now) {
        let Some(candidate) = self.archives.remove(&key) else { return };
        let path = candidate.path;
        tracing::debug!(path = %path.display(), "an archive holds what was read; nothing of it is read again");
        let present = Some(Present { key, walk: candidate.walk });
        if let Some(mut past) = self.past.forget(of) {
            (past.generation.inode, past.generation.birth_nano) = (key.inode, key.birth_nano);
            past.generation.path = path;
            past.seal = Some(seal);
            return self.past.insert(of, past, present);
        }
        if let Some(source) = self.sources.get_mut(&of) {
            (source.inode, source.birth_nano) = (key.inode, key.birth_nano);
            source.scope_path = path;
        }
        self.retire(of, Some((seal, present)), now);
    }

    /// Reads an archive: as the continuation of a generation, or as a file of its own.
    fn read_archive(&mut self, key: FileKey, of: Option<StreamNumber>, whole: &Whole, now: Now) {
        let Some(file) = self.open_archive(key, now) else { return };
        let Some(candidate) = self.archives.remove(&key) else { return };
        let content = Content::Inflated(Box::new(Inflated::new(file, candidate.codec, whole.size)));
        let Ok(stat) = content.stat() else { return };
        let before = self.same_inode(&key);
        let number = match (of, candidate.group) {
            (Some(of), _) => self.revive(of),
            // Out of scope, and not what was looked for.
            (None, None) => return,
            (None, Some(group)) => {
                let again = !before.is_empty() || self.past.had(&key);
                self.begin(&candidate.path, group, &key, again, now)
            }
        };
        for other in before.into_iter().filter(|other| *other != number) {
            self.vanish(other, now);
        }
        if let Some(old) = self.sources.get_mut(&number).and_then(|known| known.key.take()) {
            self.by_key.remove(&old);
        }
        let Some(source) = self.sources.get_mut(&number) else { return };
        if of.is_some() {
            let (path, from) = (candidate.path.display(), source.path.display());
            tracing::info!(%path, %from, "an archive continues a known file");
        }
        source.own = true;
        source.held = None;
        source.archive = Some(whole.seal);
        source.short = whole.size < source.progress.position().offset;
        self.log_generation(number);
        let found = Found { path: candidate.path, group: candidate.group, stat };
        self.attach(number, content, &stat, &found, now);
        if of.is_some()
            && let Some(record) = self.sources.get(&number).and_then(Source::record)
        {
            self.append(&[Fact::Generation(record)]);
        }
    }

    /// Has a generation that was over live again.
    fn revive(&mut self, number: StreamNumber) -> StreamNumber {
        if let Some(past) = self.past.forget(number) {
            self.remember_as(number, Remembered { generation: past.generation, cuts: Vec::new() });
        }
        number
    }

    /// Inflates towards the bytes that are read next. Returns whether they can be read.
    pub(super) fn approach(&mut self, number: StreamNumber) -> io::Result<bool> {
        let Some(source) = self.sources.get(&number) else { return Ok(false) };
        let Some(Content::Inflated(content)) = &source.file else { return Ok(true) };
        let position = source.progress.position().offset.saturating_sub(MARK_BYTES_MAX as u64);
        let next = source.progress.to_build().map_or(position, |cut| cut.first);
        if content.approach(next, APPROACH_BYTES)? {
            return Ok(true);
        }
        self.queue(number);
        Ok(false)
    }

    /// Ends a generation whose file is an archive, once all of it is acknowledged. Returns whether it is over.
    pub(super) fn finish_archive(&mut self, number: StreamNumber, now: Now) -> bool {
        let Some(source) = self.sources.get(&number) else { return true };
        let Some(seal) = source.archive else { return false };
        if let Some(Content::Inflated(content)) = &source.file
            && source.paused_until > now.mono
        {
            content.release();
        }
        let (Some(key), Some(_)) = (source.key, &source.file) else { return false };
        if source.unread() > 0 || !source.progress.is_settled() || !source.kept.is_empty() {
            return false;
        }
        let walk = match source.presence {
            Presence::InScope { walk } => walk,
            Presence::Gone { .. } | Presence::Dormant => self.walk.number,
        };
        self.retire(number, Some((seal, Some(Present { key, walk }))), now);
        true
    }

    /// Remembers a generation that is over, in case an archive of it turns up.
    pub(super) fn retire(&mut self, number: StreamNumber, archive: Option<(Seal, Option<Present>)>, now: Now) {
        let Some(source) = self.remove(number) else { return };
        let Some(generation) = source.record() else {
            // An empty archive where there are no birth times: nothing can be remembered of it but where it is.
            if let Some(stat) = source.file.and_then(|file| file.archive_stat().ok()) {
                self.archives.leave_alone(&stat, self.walk.number);
            }
            return;
        };
        let stream_id = generation.stream_id;
        let (seal, present) = archive.map_or((None, None), |(seal, present)| (Some(seal), present));
        let past = Past { generation, ended_unix: now.unix_nano / 1_000_000_000, seal };
        self.past.insert(number, past, present);
        if source.logged {
            self.append(&[Fact::Forgotten(stream_id)]);
        }
    }

    /// An archive turned out not to hold what was read: what is left of its generation cannot be had.
    pub(super) fn archive_differs(&mut self, number: StreamNumber, now: Now) {
        self.give_up(number, LossReason::ShortCopy, now);
        if let Some(source) = self.sources.get_mut(&number) {
            source.short = true;
        }
        self.arm(number, now.mono);
    }

    /// An archive that was whole cannot be inflated any more. The next walk looks at it anew.
    pub(super) fn archive_failed(&mut self, number: StreamNumber, error: &io::Error, now: Now) {
        if let Some(path) = self.sources.get(&number).map(|source| source.path.clone()) {
            self.note_unreadable(&path, error);
        }
        self.vanish(number, now);
    }
}
