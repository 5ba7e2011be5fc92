//! Reading a spool: its entries in order, and those again that were deferred; as many in one turn as keep it short.

use std::sync::Arc;

use bytes::Bytes;
use logmesh_journal::{Item, Position, ReadError};
use logmesh_runtime::process::chain;
use prost::Message as _;

use super::{
    RETRY, STREAMS_MAX, Spool,
    entry::{Entry, Undecodable},
    transit::{Admission, Remembered},
};
use crate::{
    clock::Now,
    parcel::{Parcel, StreamNumber},
};

impl<T: Send + 'static> Spool<T> {
    /// Reads what the window lets, and brings it on its way: what is older goes first.
    pub(super) fn read(&mut self, now: Now) {
        while self.left > 0 && self.has_window() && self.read_again(now) {}
        while self.fill(now) && self.begin_next() {}
    }

    /// Brings the entry that was read on its way, or keeps its place alone. Returns whether to read on.
    fn begin_next(&mut self) -> bool {
        let Some((position, entry)) = self.next.take() else { return false };
        let stream = self.number(&entry.batch.stream_id);
        let spooled_unix_nano = entry.spooled_unix_nano;
        match self.transit.admission(stream) {
            Admission::Begin if self.has_window() => {
                let parcel = self.parcel(entry);
                self.transit.begin(position, spooled_unix_nano, parcel);
            }
            Admission::Defer => {
                self.transit.defer(position, spooled_unix_nano, stream, entry.batch.encoded_len());
            }
            Admission::Begin | Admission::Wait => {
                self.next = Some((position, entry));
                return false;
            }
        }
        true
    }

    /// Reads the deferred entry again whose turn it is. Returns whether there was one.
    fn read_again(&mut self, now: Now) -> bool {
        let Some(wanted) = self.transit.wanted(now.mono) else { return false };
        self.left = self.left.saturating_sub(1);
        match self.journal.log().read_at(wanted.position) {
            Ok(payload) => self.resume(&wanted, payload),
            Err(error @ ReadError::Io { .. }) => {
                let reason = chain(&error);
                if self.unresumed.is_none() {
                    tracing::warn!(spool = self.settings.name, reason, "cannot be read again; it is tried again");
                }
                self.unresumed = Some(reason);
                self.transit.postpone(wanted.position, now.mono + RETRY);
            }
            Err(error @ (ReadError::Removed { .. } | ReadError::Damaged { .. })) => {
                self.give_up(wanted.position, &chain(&error));
            }
        }
        true
    }

    fn resume(&mut self, wanted: &Remembered, payload: Bytes) {
        self.unresumed = None;
        match Entry::decode(payload) {
            Ok(entry) => {
                let parcel = self.parcel(entry);
                let rest = if wanted.rest.is_empty() { None } else { self.divider.spans(&parcel, &wanted.rest) };
                self.transit.resume(wanted.position, rest.unwrap_or_else(|| vec![parcel]));
            }
            Err(what) => self.give_up(wanted.position, &what.to_string()),
        }
    }

    /// Counts a deferred entry that is gone.
    fn give_up(&mut self, position: Position, reason: &str) {
        tracing::error!(spool = self.settings.name, %position, reason, "an entry is skipped");
        self.transit.forget(position);
        self.count_damage();
    }

    /// Reads the next entry, unless it is there already. Returns whether there is one.
    pub(super) fn fill(&mut self, now: Now) -> bool {
        let waits = self.unreadable.as_ref().is_some_and(|(_, again)| *again > now.mono);
        while self.next.is_none() && !waits && self.left > 0 {
            self.left -= 1;
            let item = self.reader.try_next();
            if !self.take_item(item, now) {
                break;
            }
        }
        self.next.is_some()
    }

    /// Takes what was read. Returns whether to go on.
    fn take_item(&mut self, item: Result<Option<Item>, ReadError>, now: Now) -> bool {
        let spool = self.settings.name;
        match item {
            Ok(Some(Item::Entry { position, payload })) => return self.take_entry(position, payload, now),
            // What it held is not known; opening has logged it, too.
            Ok(Some(Item::Damage(damage))) => {
                tracing::error!(spool, %damage, "damaged entries are skipped");
                self.count_damage();
            }
            Ok(None) => {
                self.unreadable = None;
                return false;
            }
            Err(error @ ReadError::Removed { .. }) => self.skip_segment(&chain(&error)),
            Err(error @ (ReadError::Io { .. } | ReadError::Damaged { .. })) => {
                self.cannot_read(chain(&error), now);
                return false;
            }
        }
        self.unreadable = None;
        true
    }

    fn take_entry(&mut self, position: Position, payload: Bytes, now: Now) -> bool {
        match Entry::decode(payload) {
            Ok(entry) => self.next = Some((position, entry)),
            Err(Undecodable::Damaged(what)) => {
                tracing::error!(spool = self.settings.name, %position, what, "an entry is skipped");
                self.count_damage();
            }
            // Whoever wrote it can send it: it stays where it is.
            Err(newer @ Undecodable::Newer(_)) => {
                self.reader = self.journal.log().reader(position);
                self.cannot_read(newer.to_string(), now);
                return false;
            }
        }
        self.unreadable = None;
        true
    }

    fn cannot_read(&mut self, reason: String, now: Now) {
        if self.unreadable.is_none() {
            tracing::warn!(spool = self.settings.name, reason, "cannot be read; it is tried again");
        }
        self.unreadable = Some((reason, now.mono + RETRY));
    }

    /// Goes on behind what the reader's segment holds now, and counts it as lost.
    pub(super) fn skip_segment(&mut self, reason: &str) {
        let Position { segment, byte } = self.reader.position();
        let end = self.journal.log().segment(segment).map_or(byte, |segment| segment.end);
        tracing::error!(spool = self.settings.name, segment, byte, reason, "what is left of a segment is skipped");
        // Byte 0 would be its head once more.
        self.reader = self.journal.log().reader(Position { segment, byte: end.max(byte).max(1) });
        self.unreadable = None;
        self.count_damage();
    }

    fn parcel(&mut self, entry: Entry) -> Parcel {
        let mut batch = entry.batch;
        let stream = self.number(&batch.stream_id);
        let info = batch.info.take().unwrap_or_default();
        let encoded = batch.encoded_len();
        Parcel { stream, batch, info: Arc::new(info), encoded }
    }

    /// The number that a stream is known by.
    fn number(&mut self, stream_id: &Bytes) -> StreamNumber {
        if self.streams.len() >= self.sweep_at {
            let transit = &self.transit;
            self.streams.retain(|_, number| transit.holds(*number));
            self.sweep_at = STREAMS_MAX.max(2 * self.streams.len());
        }
        let (base, numbers) = (self.settings.first_stream, &mut self.numbers);
        *self.streams.entry(stream_id.clone()).or_insert_with(|| {
            *numbers += 1;
            StreamNumber(base + *numbers)
        })
    }
}
