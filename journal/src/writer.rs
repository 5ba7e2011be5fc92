//! The one thread that writes: groups of entries, one write and one sync each.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::begin::{BeginError, begin};
use crate::format::{ENTRY_BYTES_MAX, ENTRY_HEADER, stamp_entry};
use crate::lock::Lock;
use crate::log::SegmentInfo;
use crate::owner::{Owner, Written};
use crate::queue::{Queue, Queued, Taken};
use crate::settings::Settings;
use crate::storage::{Storage, is_full};
use crate::{AppendError, Log, Position, State};

/// The segment that is written now.
pub(crate) struct Active {
    pub(crate) file: File,
    pub(crate) number: u64,
    /// Behind the last durable entry.
    pub(crate) end: u64,
    /// What is preallocated.
    pub(crate) capacity: u64,
    pub(crate) entries: u32,
}

/// Why a group could not be made durable.
enum Failure {
    /// Nothing is lost and nothing is in doubt: try again when there is room.
    Full(String),
    /// What is on the disk is in doubt.
    Fatal(String),
}

pub(crate) struct Writer<O: Owner> {
    pub(crate) owner: O,
    pub(crate) log: Log,
    pub(crate) queue: Arc<Queue<O::Entry>>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) state: watch::Sender<State>,
    pub(crate) active: Option<Active>,
    /// Encoded entries that are not written yet, and which they are.
    pub(crate) buffer: Vec<u8>,
    pub(crate) pending: Vec<(usize, Queued<O::Entry>)>,
    /// Held until the last byte is written.
    pub(crate) _lock: Lock,
}

impl<O: Owner> Writer<O> {
    /// Serves the queue until it is closed and empty.
    pub(crate) fn run(mut self) {
        loop {
            let full = matches!(*self.state.borrow(), State::Full { .. });
            let look_after = full.then_some(self.settings.options.probe_interval);
            match self.queue.take(self.settings.options.group_bytes, look_after) {
                Taken::Group(group) => self.group(group),
                Taken::Look => self.look(),
                Taken::Closed => break,
            }
        }
        if !matches!(*self.state.borrow(), State::Failed { .. }) {
            let sealed = self.seal();
            match sealed {
                Ok(()) => self.turn(&State::Closed),
                Err(failure) => self.settle(failure),
            }
        }
    }

    fn group(&mut self, mut waiting: VecDeque<Queued<O::Entry>>) {
        let state = self.state.borrow().clone();
        let error = match state {
            State::Ok => match self.write(&mut waiting) {
                Ok(()) => return,
                Err(failure) => {
                    let error = failure.answer();
                    self.settle(failure);
                    error
                }
            },
            State::Full { reason } => AppendError::Full { reason },
            State::Failed { reason } => AppendError::Failed { reason },
            State::Closed => AppendError::Closed,
        };
        self.buffer.clear();
        let pending = std::mem::take(&mut self.pending).into_iter().map(|(_, queued)| queued);
        let (entries, permits): (Vec<_>, Vec<_>) =
            pending.chain(waiting).map(|queued| (queued.entry, queued.permit)).unzip();
        self.owner.failed(entries, error);
        drop(permits);
    }

    /// Makes all of `waiting` durable. On failure, what is not durable is left in `pending` and `waiting`.
    fn write(&mut self, waiting: &mut VecDeque<Queued<O::Entry>>) -> Result<(), Failure> {
        self.check_room()?;
        while let Some(queued) = waiting.front_mut() {
            let mut start = self.buffer.len();
            self.buffer.resize(start + ENTRY_HEADER, 0);
            self.owner.encode(&mut queued.entry, &mut self.buffer);
            let payload = self.buffer.len() - start - ENTRY_HEADER;
            assert!(
                (1..=ENTRY_BYTES_MAX).contains(&payload),
                "the owner encoded {payload} bytes, against its contract"
            );
            if !self.fits() {
                let entry = self.buffer.split_off(start);
                self.flush()?;
                self.roll(entry.len())?;
                self.buffer = entry;
                start = 0;
            }
            self.stamp(start);
            if let Some(queued) = waiting.pop_front() {
                self.pending.push((start, queued));
            }
        }
        self.flush()
    }

    /// Whether all of the buffer fits the active segment.
    fn fits(&self) -> bool {
        self.active.as_ref().is_some_and(|active| {
            let entries = self.pending.len() as u64 + u64::from(active.entries);
            active.end + self.buffer.len() as u64 <= active.capacity
                && entries < u64::from(self.settings.options.segment_entries_max)
        })
    }

    /// Completes the header of the entry that begins at `start` of the buffer and ends with it.
    fn stamp(&mut self, start: usize) {
        if let Some(active) = &self.active {
            let position = Position { segment: active.number, byte: active.end + start as u64 };
            // Segments are smaller than 4 GiB (Options::check).
            let group = u32::try_from(active.end).unwrap_or(u32::MAX);
            stamp_entry(&mut self.buffer[start..], position, group);
        }
    }

    /// Writes and syncs the buffer; only then does anybody hear of it.
    fn flush(&mut self) -> Result<(), Failure> {
        let Some(active) = self.active.as_mut().filter(|_| !self.pending.is_empty()) else { return Ok(()) };
        if let Err(error) = self.storage.write(&active.file, &self.buffer, active.end) {
            let reason = format!("writing to {} failed: {error}", self.log.path(active.number).display());
            if !is_full(&error) {
                return Err(Failure::Fatal(reason));
            }
            // What was half written is not synced and not counted: cut it off, and go on in a new segment.
            self.seal()?;
            return Err(Failure::Full(reason));
        }
        if let Err(error) = self.storage.sync(&active.file) {
            return Err(Failure::Fatal(format!(
                "syncing {} failed: {error}; what is on the disk is in doubt: check the disk, then restart",
                self.log.path(active.number).display()
            )));
        }
        let begin = Position { segment: active.number, byte: active.end };
        active.end += self.buffer.len() as u64;
        active.entries += u32::try_from(self.pending.len()).unwrap_or(u32::MAX);
        self.log.update(SegmentInfo { number: active.number, end: active.end, sealed: false });
        self.answer_durable(begin);
        Ok(())
    }

    fn answer_durable(&mut self, begin: Position) {
        let mut end = self.buffer.len();
        let mut permits = Vec::with_capacity(self.pending.len());
        let mut written = Vec::with_capacity(self.pending.len());
        for (start, queued) in self.pending.drain(..).rev() {
            let position = Position { segment: begin.segment, byte: begin.byte + start as u64 };
            let length = u32::try_from(end - start - ENTRY_HEADER).unwrap_or(u32::MAX);
            end = start;
            permits.push(queued.permit);
            written.push(Written { position, length, entry: queued.entry });
        }
        written.reverse();
        self.buffer.clear();
        if self.buffer.capacity() > 2 * self.settings.options.group_bytes {
            self.buffer = Vec::new();
        }
        self.owner.durable(written);
        drop(permits);
    }

    /// Ends the active segment, if any, and begins another that has room for an entry of `entry_bytes`.
    fn roll(&mut self, entry_bytes: usize) -> Result<(), Failure> {
        self.seal()?;
        let number = self.log.bounds().map_or(1, |(_, last)| last + 1);
        let preamble = self.owner.preamble();
        let begun = begin(self.storage.as_ref(), &self.settings, number, &preamble, entry_bytes, unix_nano());
        match begun {
            Ok(active) => {
                self.log.update(SegmentInfo { number, end: active.end, sealed: false });
                self.active = Some(active);
                Ok(())
            }
            Err(BeginError::NotBegun(reason)) => Err(Failure::Full(reason)),
            Err(BeginError::InDoubt(reason)) => Err(Failure::Fatal(reason)),
        }
    }

    /// Cuts the active segment behind its last durable entry, for good.
    fn seal(&mut self) -> Result<(), Failure> {
        let Some(active) = self.active.take() else { return Ok(()) };
        let cut = self.storage.truncate(&active.file, active.end).and_then(|()| self.storage.sync(&active.file));
        cut.map_err(|error| {
            Failure::Fatal(format!("sealing {} failed: {error}; restart", self.log.path(active.number).display()))
        })?;
        self.log.update(SegmentInfo { number: active.number, end: active.end, sealed: true });
        Ok(())
    }

    fn check_room(&self) -> Result<(), Failure> {
        let directory = self.log.directory();
        let reserve = self.settings.reserve_bytes();
        let free = match self.storage.free(directory) {
            Ok(free) => free,
            Err(error) => {
                return Err(Failure::Full(format!("the free space of {} is unknown: {error}", directory.display())));
            }
        };
        let (stored, limit) = (self.log.bytes(), self.settings.options.stored_bytes_max);
        let directory = directory.display();
        if stored >= limit {
            return Err(Failure::Full(format!(
                "{directory} holds {stored} bytes that are still needed, its limit is {limit}: \
                 it goes on when its readers have caught up"
            )));
        }
        if free < reserve {
            return Err(Failure::Full(format!(
                "the file system of {directory} has {free} bytes free, less than the reserve of {reserve}: make room"
            )));
        }
        Ok(())
    }

    /// Looks whether a full disk has room again: enough to write, and for a segment where none is open.
    fn look(&mut self) {
        if !matches!(*self.state.borrow(), State::Full { .. }) {
            return;
        }
        let looked = self.check_room().and_then(|()| match self.active {
            Some(_) => Ok(()),
            None => self.roll(self.settings.options.entry_bytes_max),
        });
        match looked {
            Ok(()) => self.turn(&State::Ok),
            Err(failure) => self.settle(failure),
        }
    }

    fn settle(&mut self, failure: Failure) {
        match failure {
            Failure::Full(reason) => self.turn(&State::Full { reason }),
            Failure::Fatal(reason) => self.turn(&State::Failed { reason }),
        }
    }

    fn turn(&mut self, state: &State) {
        let before = self.state.send_replace(state.clone());
        if before == *state {
            return;
        }
        let directory = self.log.directory().display();
        match state {
            State::Ok => tracing::info!(%directory, "the journal has room again"),
            State::Full { reason } if matches!(before, State::Ok) => {
                tracing::warn!(%directory, %reason, "the journal is full");
            }
            State::Failed { reason } => tracing::error!(%directory, %reason, "the journal has failed"),
            State::Full { .. } | State::Closed => {}
        }
        self.owner.state_changed(state);
    }
}

impl<O: Owner> Drop for Writer<O> {
    fn drop(&mut self) {
        // Only a panic leaves entries here: whoever waits for them must hear that nobody will answer.
        self.queue.abandon();
    }
}

impl Failure {
    fn answer(&self) -> AppendError {
        match self {
            Self::Full(reason) => AppendError::Full { reason: reason.clone() },
            Self::Fatal(reason) => AppendError::Failed { reason: reason.clone() },
        }
    }
}

fn unix_nano() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
