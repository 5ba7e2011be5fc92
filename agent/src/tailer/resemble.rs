//! A new inode whose content is that of a known generation: a copy, a moved disk, or a file of its own.
//!
//! It is held back until it is clear. If the generation's file has vanished or is truncated, the new file is its
//! continuation. If the generation's file is still there a settle time after the new one last grew, the new one is a
//! file of its own: equal content alone never merges two live files. Nor is a file a copy of one that was gone before it
//! was born: it was written anew, with what may be another end behind the same beginning.

use std::time::Duration;

use super::{
    Tailer, pace,
    source::{Held, Presence},
};
use crate::{
    clock::Now,
    discovery::Found,
    filesystem::{Filesystem, Handle},
    generation::Place,
    identity::{MARK_BYTES_MAX, RESEMBLANCE_BYTES_MIN},
    parcel::StreamNumber,
    state::Fact,
};

/// What a new file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// A generation of its own.
    Own,
    /// The continuation of that one.
    Continues(StreamNumber),
    /// Not clear yet.
    Held(Held),
}

impl<F: Filesystem> Tailer<F> {
    /// Decides about a file of which nothing was read. Returns whether it may be read now.
    pub(super) fn is_own(&mut self, number: StreamNumber, now: Now) -> bool {
        let verdict = self.judge(number, now);
        let Some(source) = self.sources.get_mut(&number) else { return false };
        match verdict {
            Verdict::Own => {
                source.own = true;
                source.held = None;
                true
            }
            Verdict::Held(held) => {
                if source.held.is_none() {
                    tracing::debug!(path = %source.path.display(), "a new file resembles a known one; held back");
                }
                source.held = Some(held);
                self.arm(number, now.mono + pace::LOOK_POLLING);
                false
            }
            Verdict::Continues(of) => {
                self.continue_as(number, of, now);
                false
            }
        }
    }

    fn judge(&mut self, number: StreamNumber, now: Now) -> Verdict {
        let Some(source) = self.sources.get(&number) else { return Verdict::Own };
        let Some(file) = &source.file else { return Verdict::Own };
        let mut buffer = [0; MARK_BYTES_MAX];
        let Ok(count) = file.read_full_at(&mut buffer, 0) else { return Verdict::Own };
        if count < RESEMBLANCE_BYTES_MIN {
            return Verdict::Own;
        }
        let matching = self.heads.matching(&buffer[..count]);
        let settled = now.mono >= source.grown_at + pace::SETTLE;
        let mut verdict = Verdict::Own;
        for of in matching.into_iter().filter(|of| *of != number) {
            // Both are read to be compared.
            self.reopen(of, Some(number), now);
            match self.compare(number, of, settled, now) {
                Verdict::Own => {}
                Verdict::Held(held) => verdict = Verdict::Held(held),
                Verdict::Continues(of) => return Verdict::Continues(of),
            }
        }
        verdict
    }

    fn compare(&self, number: StreamNumber, of: StreamNumber, settled: bool, now: Now) -> Verdict {
        let (Some(new), Some(known)) = (self.sources.get(&number), self.sources.get(&of)) else { return Verdict::Own };
        let is_network = new.key.is_some_and(|key| self.walk.memory.is_network(key.device));
        // Another machine's clock says nothing.
        if !is_network && known.gone_by.is_some_and(|gone| born_after(new.birth_nano, gone, now)) {
            return Verdict::Own;
        }
        let size = new.seen.size;
        let acked = known.progress.acked();
        let position = known.progress.position();
        let place = if usize::from(acked.anchor.length) >= RESEMBLANCE_BYTES_MIN { acked } else { position };
        if usize::from(place.anchor.length) < RESEMBLANCE_BYTES_MIN {
            return Verdict::Own;
        }
        let equal_before = new.held.filter(|held| held.of == of).map_or(0, |held| held.equal_to);
        let equal_to = if size >= place.offset {
            if !self.holds(number, place) {
                return Verdict::Own;
            }
            size
        } else if self.are_equal_before(number, of, size) || (known.file.is_none() && equal_before == size) {
            // A copy under way, or one that was whole before the original was truncated.
            size
        } else {
            return Verdict::Own;
        };
        let walked = self.walk.first_done;
        let gone = match known.presence {
            Presence::Dormant => walked,
            Presence::InScope { .. } => false,
            Presence::Gone { .. } => known.file.is_none() || known.seen.deleted,
        };
        let whole = size >= position.offset.max(if known.file.is_some() { known.seen.size } else { 0 });
        match (gone, whole || settled, settled && walked) {
            (true, true, _) => Verdict::Continues(of),
            (false, _, true) => Verdict::Own,
            (true, false, _) | (false, _, false) => Verdict::Held(Held { of, equal_to }),
        }
    }

    /// Whether a file holds the bytes before a place.
    fn holds(&self, number: StreamNumber, place: Place) -> bool {
        let Some(file) = self.sources.get(&number).and_then(|source| source.file.as_ref()) else { return false };
        let mut buffer = [0; MARK_BYTES_MAX];
        let anchor = &mut buffer[..usize::from(place.anchor.length)];
        let at = place.offset - anchor.len() as u64;
        matches!(file.read_full_at(anchor, at), Ok(count) if count == anchor.len()) && place.anchor.ends(anchor)
    }

    /// Whether the last KiB before `size` is the same in both files.
    fn are_equal_before(&self, one: StreamNumber, other: StreamNumber, size: u64) -> bool {
        let length = MARK_BYTES_MAX.min(usize::try_from(size).unwrap_or(usize::MAX));
        let tail = |number| {
            let mut buffer = [0; MARK_BYTES_MAX];
            let file = self.sources.get(&number)?.file.as_ref()?;
            let count = file.read_full_at(&mut buffer[..length], size - length as u64).ok()?;
            (count == length).then_some(buffer)
        };
        matches!((tail(one), tail(other)), (Some(one), Some(other)) if one == other)
    }

    /// Gives the new file to the generation that it continues.
    fn continue_as(&mut self, number: StreamNumber, of: StreamNumber, now: Now) {
        let Some(mut new) = self.remove(number) else { return };
        // Remembered, it would claim its file after a restart, and all of it would be sent again.
        if let Some(stream_id) = new.stream_id.filter(|_| new.logged) {
            self.append(&[Fact::Forgotten(stream_id)]);
        }
        let Some(file) = new.file.take() else { return };
        let Ok(stat) = file.stat() else { return };
        if let Some(old) = self.sources.get_mut(&of).and_then(|known| known.key.take()) {
            self.by_key.remove(&old);
        }
        let Some(known) = self.sources.get_mut(&of) else { return };
        tracing::info!(path = %new.path.display(), from = %known.path.display(), "a file continues a known one");
        known.short = stat.size < known.progress.position().offset;
        let in_scope = self.settings.patterns.group(&new.path);
        let found = Found { path: new.path, group: in_scope, stat };
        self.attach(of, file, &stat, &found, now);
        if let Some(record) = self.sources.get(&of).and_then(super::source::Source::record) {
            // After a restart there must not be two of this inode.
            let forgotten = new.stream_id.filter(|_| new.logged).map(Fact::Forgotten);
            self.append(&std::iter::once(Fact::Generation(record)).chain(forgotten).collect::<Vec<_>>());
        }
    }
}

/// Whether a file was born after a moment of this run.
fn born_after(birth_nano: Option<i64>, moment: Duration, now: Now) -> bool {
    let passed = u64::try_from(now.mono.saturating_sub(moment).as_nanos()).unwrap_or(u64::MAX);
    let birth_nano = birth_nano.and_then(|birth_nano| u64::try_from(birth_nano).ok());
    birth_nano.is_some_and(|birth_nano| birth_nano > now.unix_nano.saturating_sub(passed))
}
