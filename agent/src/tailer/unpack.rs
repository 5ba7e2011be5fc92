//! One pass over an archive after the other.
//!
//! Its content is compared with what is known of generations: their heads, and the bytes before the places up to which
//! they are acknowledged; while their files are open, with those. `archived.rs` decides what the archive is.

use std::time::Duration;

use super::{
    Tailer,
    archives::{QUIET, Stage, Whole, Written, holds_before, seal, told_incomplete},
    source::FileKey,
};
use crate::{
    clock::Now,
    filesystem::{Filesystem, Handle},
    identity::RESEMBLANCE_BYTES_MIN,
    inflate::{Fault, Looks, MAGIC_BYTES, Pass},
    parcel::StreamNumber,
};

/// Content inflated in one turn, in bytes: some 20 ms. What takes its time and holds no content is charged as well.
const STEP_BYTES: usize = 8 * 1024 * 1024;
/// How long an archive may stay incomplete before it is told.
const INCOMPLETE_TOLD: Duration = Duration::from_secs(60);

impl<F: Filesystem> Tailer<F> {
    /// Goes on with archives. Returns whether there is more to do at once.
    pub(super) fn inflate_on(&mut self, now: Now) -> bool {
        while let Some(key) = self.archives.take_due(now.mono) {
            self.consider(key, now);
        }
        if self.archives.passing.is_none() {
            if self.archives.queue.is_empty() || !self.has_room(now.mono) {
                return false;
            }
            let Some(key) = self.archives.queue.pop_front() else { return false };
            self.begin_pass(key, now);
        }
        self.step_pass(now);
        self.archives.passing.is_some() || !self.archives.queue.is_empty()
    }

    fn consider(&mut self, key: FileKey, now: Now) {
        let Some(candidate) = self.archives.candidates.get(&key) else { return };
        match &candidate.stage {
            Stage::Settling => self.settle(key, now),
            Stage::Whole(whole) => {
                let whole = whole.clone();
                self.judge_archive(key, &whole, now);
            }
            Stage::Incomplete => {
                let error = told_incomplete(&candidate.path);
                self.refuse(key, &error);
            }
            Stage::Passing | Stage::Refused(_) => {}
        }
    }

    /// Looks whether an archive is still being written.
    fn settle(&mut self, key: FileKey, now: Now) {
        let Some(candidate) = self.archives.candidates.get_mut(&key) else { return };
        let stat = self.filesystem.stat(&candidate.path).ok().filter(|stat| FileKey::of(stat) == key);
        let Some(stat) = stat else {
            // A walk finds it under the name that it has now.
            self.archives.remove(&key);
            return;
        };
        if Written::of(&stat) != candidate.written {
            candidate.written = Written::of(&stat);
            candidate.since = now.mono;
        }
        let quiet_at = candidate.since + QUIET;
        if quiet_at > now.mono {
            return self.archives.schedule(key, quiet_at);
        }
        candidate.stage = Stage::Passing;
        self.archives.queue.push_back(key);
    }

    /// Has an archive wait again, for it changed.
    fn settle_again(&mut self, key: FileKey, now: Now) {
        if let Some(candidate) = self.archives.candidates.get_mut(&key) {
            candidate.stage = Stage::Settling;
            self.archives.schedule(key, now.mono + QUIET);
        }
    }

    /// Opens an archive as it was found. `None` where it is another one by now.
    pub(super) fn open_archive(&mut self, key: FileKey, now: Now) -> Option<F::Handle> {
        let candidate = self.archives.candidates.get(&key)?;
        let path = candidate.path.clone();
        let written = candidate.written;
        let opened = self.filesystem.open(&path).and_then(|file| file.stat().map(|stat| (file, stat)));
        match opened {
            Ok((file, stat)) if FileKey::of(&stat) == key && Written::of(&stat) == written => return Some(file),
            Ok((_, stat)) if FileKey::of(&stat) == key => self.settle_again(key, now),
            Ok(_) => drop(self.archives.remove(&key)),
            Err(error) => {
                self.archives.remove(&key);
                if error.kind() != std::io::ErrorKind::NotFound {
                    self.note_unreadable(&path, &error);
                }
            }
        }
        None
    }

    fn begin_pass(&mut self, key: FileKey, now: Now) {
        let Some(codec) = self.archives.candidates.get(&key).map(|candidate| candidate.codec) else { return };
        let Some(file) = self.open_archive(key, now) else { return };
        let mut first = [0; MAGIC_BYTES];
        if !matches!(file.read_full_at(&mut first, 0), Ok(count) if Looks::of(&first[..count]) == Looks::Archive(codec))
        {
            // It was written over: the next walk finds out what it is now.
            self.archives.remove(&key);
            return;
        }
        match Pass::new(file, codec) {
            Ok(pass) => self.archives.passing = Some((key, pass)),
            Err(fault) => self.pass_failed(key, fault),
        }
    }

    /// Has a pass look for the places of the generations that begin as the archive does.
    fn seek_places(&self, pass: &mut Pass<F::Handle>) {
        for number in self.resembling(pass.head()) {
            let place = match (self.sources.get(&number), self.past.get(number)) {
                (Some(source), _) => {
                    let (acked, position) = (source.progress.acked(), source.progress.position());
                    let place =
                        if usize::from(acked.anchor.length) >= RESEMBLANCE_BYTES_MIN { acked } else { position };
                    (place.offset, place.anchor)
                }
                (None, Some(entry)) => (entry.past.generation.acked, entry.past.generation.anchor),
                (None, None) => continue,
            };
            if usize::from(place.1.length) >= RESEMBLANCE_BYTES_MIN {
                pass.seek(number, place.0, place.1);
            }
        }
    }

    /// Generations, over or not, whose head begins `content`.
    fn resembling(&self, content: &[u8]) -> Vec<StreamNumber> {
        let mut numbers = self.heads.matching(content);
        numbers.extend(self.past.matching(content));
        // The head of one that was begun just before a kill may not be on disk; what was cut of it is.
        let headless = self
            .sources
            .iter()
            .filter(|(_, source)| source.file.is_none() && usize::from(source.head.length) < RESEMBLANCE_BYTES_MIN);
        numbers.extend(headless.map(|(number, _)| *number));
        numbers
    }

    fn step_pass(&mut self, now: Now) {
        let Some((key, mut pass)) = self.archives.passing.take() else { return };
        if !self.archives.candidates.contains_key(&key) {
            return;
        }
        match self.go_on(&mut pass) {
            Ok(false) => self.archives.passing = Some((key, pass)),
            Ok(true) => self.passed(key, pass, now),
            Err(fault) => self.pass_failed(key, fault),
        }
    }

    /// Goes on with a pass for one turn. Returns whether it is over, and the archive whole.
    fn go_on(&self, pass: &mut Pass<F::Handle>) -> Result<bool, Fault> {
        if !pass.has_head() {
            if !pass.begin(STEP_BYTES)? {
                return Ok(false);
            }
            self.seek_places(pass);
        }
        pass.step(STEP_BYTES)
    }

    fn pass_failed(&mut self, key: FileKey, fault: Fault) {
        match fault {
            Fault::Incomplete => {
                if let Some(candidate) = self.archives.candidates.get_mut(&key) {
                    candidate.stage = Stage::Incomplete;
                    let at = candidate.since + INCOMPLETE_TOLD;
                    self.archives.schedule(key, at);
                }
            }
            Fault::Damaged(_) => self.refuse(key, &fault.into()),
            // The next walk tries again.
            Fault::Io(error) => {
                if let Some(candidate) = self.archives.remove(&key) {
                    self.note_unreadable(&candidate.path, &error);
                }
            }
        }
    }

    fn refuse(&mut self, key: FileKey, error: &std::io::Error) {
        let Some(candidate) = self.archives.candidates.get_mut(&key) else { return };
        candidate.stage = Stage::Refused(error.to_string());
        let path = candidate.path.clone();
        self.note_unreadable(&path, error);
    }

    /// An archive was found whole.
    fn passed(&mut self, key: FileKey, pass: Pass<F::Handle>, now: Now) {
        let Some(candidate) = self.archives.candidates.get(&key) else { return };
        let (size, mut of) = (pass.size(), pass.found());
        of.extend(self.originals(&pass, &of));
        let archive = pass.into_archive();
        let is_same = archive.stat().is_ok_and(|stat| Written::of(&stat) == candidate.written);
        let Some(seal) = seal(&archive, candidate.written.bytes).ok().filter(|_| is_same) else {
            return self.settle_again(key, now);
        };
        let whole = Whole { size, seal, of, since: now.mono };
        if let Some(candidate) = self.archives.candidates.get_mut(&key) {
            candidate.stage = Stage::Whole(whole.clone());
        }
        self.judge_archive(key, &whole, now);
    }

    /// Generations that are not known by their head, for little or nothing of them was read, and whose file begins so.
    fn hardly_read(&self, head: &[u8]) -> Vec<StreamNumber> {
        let sources = self.sources.iter().filter(|(_, source)| {
            usize::from(source.head.length) < RESEMBLANCE_BYTES_MIN && source.seen.size >= RESEMBLANCE_BYTES_MIN as u64
        });
        let begins = sources.filter(|(_, source)| {
            let file = source.file.as_ref().filter(|_| source.archive.is_none());
            file.is_some_and(|file| holds_before(file, head.len() as u64, head))
        });
        begins.map(|(number, _)| *number).collect()
    }

    /// Generations whose places are not those of the archive, and whose file, still open, holds the same up to its end.
    fn originals(&self, pass: &Pass<F::Handle>, found: &[StreamNumber]) -> Vec<StreamNumber> {
        let (size, tail) = (pass.size(), pass.tail());
        let longer = |number: &StreamNumber| {
            let source = self.sources.get(number);
            source.is_some_and(|source| {
                let file = source.file.as_ref().filter(|_| source.archive.is_none());
                file.is_some_and(|file| holds_before(file, size, tail))
            })
        };
        if tail.len() < RESEMBLANCE_BYTES_MIN {
            return Vec::new();
        }
        let resembling = self.heads.matching(pass.head()).into_iter().chain(self.hardly_read(pass.head()));
        resembling.filter(|number| !found.contains(number)).filter(longer).collect()
    }
}
