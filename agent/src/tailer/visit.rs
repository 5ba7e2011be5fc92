//! Reading a quantum of a file, cutting it, building batches.
//!
//! A visit is one pread that begins with the anchor, so that every read proves for itself that the file is still the
//! one that was read before. What was read is cut and handed out in the same visit: nothing of a file stays in memory
//! but its built batches.

use std::io;

use bytes::Bytes;
use logmesh_proto::{BatchMeta, Flags, v1};
use prost::Message;

use super::{Tailer, pace, source::Source, turns::Turn};
use crate::{
    clock::Now,
    filesystem::{Filesystem, Handle},
    generation::Place,
    identity::{MARK_BYTES_MAX, Mark, RESEMBLANCE_BYTES_MIN, StreamId, range_hash},
    lines::{At, CutLimits, Cutting, Flush, Framing, Start, boundary_sifted, cut_sifted, recut_sifted, written_bytes},
    losses::LossReason,
    parcel::{Errand, Parcel, StreamNumber},
    sift::Sifter,
    state::{CutRecord, Fact},
};

/// Bodies are cut smaller than the largest batch by so much, for the arrays beside them.
const ARRAYS_BYTES: usize = 64 * 1024;

/// A read of new bytes: the anchor, then the block.
struct NewBytes {
    anchor_bytes: usize,
    /// Whether the block reaches the end of the file.
    at_end: bool,
}

/// What became of cutting a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progressed {
    consumed: usize,
    /// The window closed, or the state could not be written.
    stopped: bool,
}

impl<F: Filesystem> Tailer<F> {
    /// Reads a quantum of a file, or builds one batch again.
    pub(super) fn visit(&mut self, number: StreamNumber, turn: Option<Turn>, now: Now) {
        let Some(source) = self.sources.get(&number) else { return };
        if source.paused_until > now.mono || !self.reopen(number, Some(number), now) {
            return;
        }
        self.used(number, now);
        let Some(source) = self.sources.get(&number) else { return };
        if !source.own && (self.turns_out_archive(number, now) || !self.is_own(number, now)) {
            return;
        }
        if let Err(error) = self.learn_byte_order(number) {
            return self.read_failed(number, &error, now);
        }
        match self.approach(number) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return self.read_failed(number, &error, now),
        }
        let Some(source) = self.sources.get(&number) else { return };
        let (before, to_build) = (source.progress.position().offset, source.progress.to_build());
        let outcome = match to_build {
            Some(record) => self.build_again(number, record, now),
            None if self.checkpoint.log_broken => {
                self.pause(number, now);
                Ok(())
            }
            None => self.read_new(number, now),
        };
        if let Err(error) = outcome {
            return self.read_failed(number, &error, now);
        }
        let position = self.sources.get(&number).map_or(before, |source| source.progress.position().offset);
        let bytes = to_build.map_or(position - before, |record| record.end - record.first);
        if let Some(turn) = turn {
            self.charge(turn, usize::try_from(bytes).unwrap_or(usize::MAX), to_build.is_none());
        }
        self.attend(number, now);
    }

    /// Reads which UTF-16 a file is in, where its beginning says so.
    fn learn_byte_order(&mut self, number: StreamNumber) -> io::Result<()> {
        let Some(source) = self.sources.get_mut(&number).filter(|source| source.framing.needs_byte_order()) else {
            return Ok(());
        };
        let mut first = [0; 2];
        if let Some(file) = &source.file
            && file.read_full_at(&mut first, 0)? == first.len()
        {
            source.framing = source.framing.for_file(first);
        }
        Ok(())
    }

    /// A read failed: others go on, this one is tried again.
    pub(super) fn read_failed(&mut self, number: StreamNumber, error: &io::Error, now: Now) {
        let Some(source) = self.sources.get_mut(&number) else { return };
        if source.archive.is_some() && error.kind() == io::ErrorKind::InvalidData {
            return self.archive_failed(number, error, now);
        }
        tracing::warn!(path = %source.path.display(), %error, "reading a file failed; it is tried again");
        self.tally.read_errors += 1;
        source.paused_until = now.mono + pace::RETRY;
        self.arm(number, now.mono + pace::RETRY);
    }

    fn read_new(&mut self, number: StreamNumber, now: Now) -> io::Result<()> {
        let Some(source) = self.sources.get(&number) else { return Ok(()) };
        let proven = source.proven;
        if source.unread() == 0 {
            return Ok(());
        }
        let mut wanted = self.quantum;
        loop {
            let Some(read) = self.read_block(number, wanted)? else {
                self.truncated(number, proven, now);
                return Ok(());
            };
            if !self.identify(number, &read) {
                return Ok(());
            }
            let done = self.cut_block(number, &read, now);
            let Some(source) = self.sources.get(&number) else { return Ok(()) };
            let longest = source.framing.lookahead_bytes(self.limits.record_bytes_max);
            if done.consumed > 0 || done.stopped || read.at_end {
                self.note_visit(number, &read, done, now);
                return Ok(());
            }
            if wanted > longest {
                return self.follow_padding(number, read.anchor_bytes, now);
            }
            wanted = longest + MARK_BYTES_MAX;
        }
    }

    /// Reads behind the position. `None` means that what is before it is no longer what was read.
    fn read_block(&mut self, number: StreamNumber, wanted: usize) -> io::Result<Option<NewBytes>> {
        let Some(source) = self.sources.get(&number) else { return Ok(None) };
        let Some(file) = &source.file else { return Ok(None) };
        let position = source.progress.position();
        let anchor_bytes = usize::from(position.anchor.length);
        // The next anchor needs a whole KiB, where there is one.
        let before = MARK_BYTES_MAX.min(usize::try_from(position.offset).unwrap_or(usize::MAX));
        let from = position.offset - before as u64;
        let count = self.block.fill(before + wanted, |room| file.read_full_at(room, from))?;
        let at_end = count < before + wanted;
        let sound = count >= before && position.anchor.ends(&self.block[..before]) && anchor_bytes <= before;
        Ok(sound.then_some(NewBytes { anchor_bytes: before, at_end }))
    }

    /// Learns more of the head, and the stream id where it hangs on the first line. Returns whether the id is known.
    fn identify(&mut self, number: StreamNumber, read: &NewBytes) -> bool {
        let Some(source) = self.sources.get_mut(&number) else { return false };
        let position = source.progress.position().offset;
        let from_start = position == read.anchor_bytes as u64;
        if from_start {
            self.learn_head(number);
        }
        let Some(source) = self.sources.get_mut(&number) else { return false };
        if source.stream_id.is_some() {
            return true;
        }
        let line_end = memchr::memchr(b'\n', &self.block);
        let flushed = source.flush_at.is_some_and(|_| source.scanned == source.seen.size);
        let length = match line_end {
            Some(length) => length,
            None if self.block.len() >= MARK_BYTES_MAX || flushed => self.block.len(),
            None => {
                source.scanned = source.seen.size;
                source.flush_at = Some(source.grown_at + self.settings.partial_flush);
                return false;
            }
        };
        let filesystem_id = source.file.as_ref().map_or(0, Handle::filesystem_id);
        let id = StreamId::unborn(filesystem_id, source.inode, &self.block[..length], source.epoch);
        source.stream_id = Some(id);
        if self.ids.contains(&id) {
            source.epoch = (self.random)().max(1);
            source.stream_id = Some(StreamId::unborn(filesystem_id, source.inode, &self.block[..length], source.epoch));
        }
        self.ids.extend(source.stream_id);
        true
    }

    /// Learns how a generation begins from a block that begins with it.
    fn learn_head(&mut self, number: StreamNumber) {
        let Some(source) = self.sources.get_mut(&number) else { return };
        if usize::from(source.head.length) >= MARK_BYTES_MAX {
            return;
        }
        // What is padding now will be written over.
        let head = Mark::head(&self.block[..written_bytes(&self.block, 0, &source.framing)]);
        if head.length > source.head.length {
            let was_known = usize::from(source.head.length) >= RESEMBLANCE_BYTES_MIN;
            self.heads.remove(source.head, number);
            self.heads.insert(head, number);
            source.head = head;
            // Without it a copy that is made after a kill would be a stranger until the next checkpoint.
            let is_known = usize::from(head.length) >= RESEMBLANCE_BYTES_MIN;
            if let Some(record) = source.record().filter(|_| !was_known && is_known && source.logged) {
                self.append(&[Fact::Generation(record)]);
            }
        }
    }

    fn cut_block(&mut self, number: StreamNumber, read: &NewBytes, now: Now) -> Progressed {
        let mut done = Progressed::default();
        let begin = self.sources.get(&number).map_or(0, |source| source.progress.position().offset);
        let end = begin + (self.block.len() - read.anchor_bytes) as u64;
        loop {
            let Some(source) = self.sources.get(&number) else { return done };
            let position = source.progress.position();
            let at = At {
                offset: position.offset,
                start: position.after,
                flush: flush(source, source.known_end(end, read.at_end), now),
                written_behind: source.written_at >= end,
            };
            let limits = limits_for(source, &self.limits);
            let base = read.anchor_bytes + done.consumed;
            self.records.clear();
            let (block, sifter) = (&self.block[base..], source.sifter());
            let cutting = cut_sifted(block, at, &limits, &source.framing, sifter.as_ref(), &mut self.records);
            if cutting.consumed == 0 {
                return done;
            }
            if cutting.padding && !self.may_skip_padding(number) {
                done.stopped = true;
                return done;
            }
            if !self.take_cut(number, base, &cutting, now) {
                done.stopped = true;
                return done;
            }
            done.consumed += cutting.consumed;
            if !self.takes_more(number) {
                done.stopped = true;
                return done;
            }
        }
    }

    /// Logs, seals and hands out what was cut at `base` of the block. Returns whether it did.
    fn take_cut(&mut self, number: StreamNumber, base: usize, cutting: &Cutting, now: Now) -> bool {
        let Some(source) = self.sources.get_mut(&number) else { return false };
        let offset = source.progress.position().offset;
        let (first, end) = (base + cutting.skipped, base + cutting.consumed);
        let anchor = Mark::anchor(&self.block[..end]);
        let place = Place { offset: offset + cutting.consumed as u64, after: cutting.after, anchor };
        if self.records.is_empty() && cutting.consumed > cutting.skipped {
            return self.take_dropped(number, offset + cutting.skipped as u64, place, cutting, now);
        }
        if self.records.is_empty() {
            source.progress.skip(place);
            self.checkpoint.dirty = true;
            if cutting.padding {
                self.note_skipped(number, cutting.skipped);
            }
            return true;
        }
        let record = CutRecord {
            first: offset + cutting.skipped as u64,
            end: place.offset,
            observed_unix_nano: now.unix_nano,
            flags: cutting.flags,
            hash: range_hash(&self.block[first..end]),
            after: cutting.after,
            anchor,
        };
        let Some(parcel) = self.seal(number, &record) else { return false };
        if !self.log_cut(number, record) {
            self.pause(number, now);
            return false;
        }
        let Some(source) = self.sources.get_mut(&number) else { return false };
        source.progress.push(record, source.in_flight_bytes(&parcel));
        source.dropped_last = false;
        self.tally.dropped.add(&cutting.dropped);
        self.tally.read(self.records.len(), record.end - record.first);
        self.tally.replaced_units += cutting.replaced as u64;
        self.tally.split_records += u64::from(Flags::from_bits(record.flags).contains(Flags::LAST_SPLIT));
        self.hand_out(parcel);
        true
    }

    /// Logs a cut before its batch leaves, and says whether it may. A generation whose id cannot be found again waits for
    /// the disk besides, as does the first batch of a day.
    pub(super) fn log_cut(&mut self, number: StreamNumber, record: CutRecord) -> bool {
        let Some(source) = self.sources.get(&number) else { return false };
        let (Some(generation), logged) = (source.record(), source.logged) else { return false };
        let must_be_durable = !source.durable && generation.epoch != 0;
        let cut = Fact::Cut(generation.stream_id, record);
        let written = if logged { self.append(&[cut]) } else { self.append(&[Fact::Generation(generation), cut]) };
        let day = record.observed_unix_nano / 86_400_000_000_000;
        let synced = if must_be_durable || day != self.checkpoint.day { written && self.sync() } else { written };
        if synced {
            self.checkpoint.day = day;
        }
        if let Some(source) = self.sources.get_mut(&number) {
            source.logged |= written;
            source.durable |= must_be_durable && synced;
        }
        synced
    }

    pub(super) fn pause(&mut self, number: StreamNumber, now: Now) {
        if let Some(source) = self.sources.get_mut(&number) {
            source.paused_until = now.mono + pace::RETRY;
        }
    }

    /// Builds the batch of the records collected.
    pub(super) fn seal(&mut self, number: StreamNumber, record: &CutRecord) -> Option<Parcel> {
        let source = self.sources.get(&number)?;
        let resend = if source.resend { Flags::RESEND } else { Flags::NONE };
        let meta = BatchMeta {
            stream_id: Bytes::copy_from_slice(&source.stream_id?.0),
            first_offset: record.first,
            end_offset: record.end,
            observed_unix_nano: record.observed_unix_nano,
            flags: Flags::from_bits(record.flags).union(resend),
        };
        let sealed = self.sealer.seal(meta, &mut self.records);
        let batch: v1::Batch = sealed
            .inspect_err(|error| tracing::error!(%error, path = %source.path.display(), "cannot build a batch"))
            .ok()?;
        let encoded = batch.encoded_len();
        Some(Parcel { stream: number, batch, info: source.info.clone(), encoded })
    }

    /// Whether another batch of a generation may be built.
    fn takes_more(&self, number: StreamNumber) -> bool {
        let leaving = self.sources.get(&number).is_some_and(|source| source.spooled_cuts.is_some());
        if leaving { self.handover.has_room() } else { self.window.is_open(self.settings.window_bytes) }
    }

    fn hand_out(&mut self, parcel: Parcel) {
        if let Some(source) = self.sources.get_mut(&parcel.stream)
            && let Some(count) = &mut source.spooled_cuts
        {
            *count += 1;
            source.leaving_bytes.insert(parcel.batch.first_offset, parcel.encoded);
            return self.handover.push(parcel);
        }
        self.window.bytes += parcel.encoded;
        self.window.parcels += 1;
        self.errands.push(Errand::Ship(parcel));
    }

    fn note_visit(&mut self, number: StreamNumber, read: &NewBytes, done: Progressed, now: Now) {
        let Some(source) = self.sources.get_mut(&number) else { return };
        let rest = &self.block[read.anchor_bytes + done.consumed..];
        let size = source.progress.position().offset + rest.len() as u64;
        source.rate.note(done.consumed, now.mono);
        source.visited_at = now.mono;
        if source.rate.now(now.mono) >= pace::QUICK {
            self.quick_until = source.rate.kept_until();
        }
        source.proven = source.seen.size.max(size);
        source.pending_since = None;
        source.standing.is_behind = done.stopped || !read.at_end;
        if done.stopped || !read.at_end {
            return;
        }
        source.note_rest(rest, size, done.consumed > 0, self.settings.partial_flush, now.mono);
    }

    /// Builds a batch again along its cut.
    fn build_again(&mut self, number: StreamNumber, record: CutRecord, now: Now) -> io::Result<()> {
        let Some(source) = self.sources.get(&number) else { return Ok(()) };
        let Some(file) = &source.file else { return Ok(()) };
        let length = usize::try_from(record.end - record.first).unwrap_or(usize::MAX);
        let count = self.block.fill(length, |room| file.read_full_at(room, record.first))?;
        if count < length || range_hash(&self.block) != record.hash {
            if source.short {
                self.give_up(number, LossReason::ShortCopy, now);
            } else {
                let proven = source.proven;
                self.truncated(number, proven, now);
            }
            return Ok(());
        }
        let limit = source.encoded_bytes_max;
        if record.first == 0 {
            // A kill may have come before more of it was remembered than that it was there.
            self.learn_head(number);
        }
        let Some(source) = self.sources.get(&number) else { return Ok(()) };
        self.records.clear();
        let (flags, sifter) = (Flags::from_bits(record.flags), source.sifter());
        recut_sifted(&self.block, flags, &source.framing, sifter.as_ref(), record.first, &mut self.records);
        let Some(parcel) = self.seal(number, &record) else { return Ok(()) };
        if parcel.encoded > limit && self.records.len() > 1 {
            self.split(number, &record, now);
            return Ok(());
        }
        let Some(source) = self.sources.get_mut(&number) else { return Ok(()) };
        source.progress.built(record.first, source.in_flight_bytes(&parcel));
        source.standing.is_behind = source.progress.to_build().is_some() || source.unread() > 0;
        self.tally.resent += 1;
        self.hand_out(parcel);
        Ok(())
    }

    /// Halves a cut that is too large for its lane, between records.
    fn split(&mut self, number: StreamNumber, record: &CutRecord, now: Now) {
        let Some(source) = self.sources.get(&number) else { return };
        let (records, sifter) = (self.records.len(), source.sifter());
        let Some(halves) = halves(&self.block, record, records, &source.framing, sifter.as_ref()) else { return };
        if !self.log_halves(number, &halves) {
            return self.pause(number, now);
        }
        if let Some(source) = self.sources.get_mut(&number) {
            source.progress.replace(record.first, &halves);
        }
    }

    /// Logs the halves of a cut before they take its place.
    pub(super) fn log_halves(&mut self, number: StreamNumber, halves: &[CutRecord; 2]) -> bool {
        let Some(stream_id) = self.sources.get(&number).and_then(|source| source.stream_id) else { return false };
        self.append(&halves.map(|half| Fact::Cut(stream_id, half)))
    }
}

/// The two cuts that together cover one of `records` records, whose bytes in the source are `range`.
pub(super) fn halves(
    range: &[u8],
    record: &CutRecord,
    records: usize,
    framing: &Framing,
    sifter: Option<&Sifter<'_>>,
) -> Option<[CutRecord; 2]> {
    let flags = Flags::from_bits(record.flags);
    let half = boundary_sifted(range, flags, framing, sifter, record.first, records / 2).filter(|half| *half > 0)?;
    let middle = record.first + half as u64;
    // The anchor in the middle may need bytes before the cut; a shorter one is as good a proof.
    let first = CutRecord {
        end: middle,
        flags: record.flags & Flags::FIRST_CONTINUED.bits(),
        hash: range_hash(&range[..half]),
        after: Start::Fresh,
        anchor: Mark::anchor(&range[..half]),
        ..*record
    };
    let second = CutRecord {
        first: middle,
        flags: record.flags & !Flags::FIRST_CONTINUED.bits(),
        hash: range_hash(&range[half..]),
        ..*record
    };
    (half < range.len()).then_some([first, second])
}

/// Whether an unterminated rest may be sent now: it has waited, and is still what it was when the wait began.
fn flush<H>(source: &Source<H>, file_end: Option<u64>, now: Now) -> Flush {
    let over = source.seen.deleted || source.over_at().is_some_and(|at| at <= now.mono);
    let waited = over || source.flush_at.is_some_and(|at| at <= now.mono);
    let due = waited && file_end == Some(source.scanned);
    match (due, over) {
        (true, true) => Flush::End,
        (true, false) => Flush::Idle,
        (false, _) => Flush::Wait,
    }
}

impl<H> Source<H> {
    /// What a batch of it takes of the window; one for the spool takes nothing.
    fn in_flight_bytes(&self, parcel: &Parcel) -> usize {
        if self.spooled_cuts.is_some() { 0 } else { parcel.encoded }
    }
}

fn limits_for<H>(source: &Source<H>, limits: &CutLimits) -> CutLimits {
    let lane = source.encoded_bytes_max.saturating_sub(ARRAYS_BYTES).max(ARRAYS_BYTES / 4);
    CutLimits { batch_bytes_max: limits.batch_bytes_max.min(lane), ..*limits }
}
