//! The writing side of a spool: what is queued for its journal, and what came of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use logmesh_journal::{AppendError, Owner, State, Written};

use super::entry::{Entry, encode_places};

/// Rings for whoever waits for the spool.
pub type Bell = Arc<dyn Fn() + Send + Sync>;

/// An entry on its way to the disk; `T` is what its sender knows it by.
#[derive(Debug)]
pub(super) struct Queued<T> {
    payload: Vec<u8>,
    /// Bytes of its payload; the payload itself goes once it is written.
    pub(super) size: usize,
    place: Option<(String, Bytes)>,
    pub(super) token: T,
}

impl<T> Queued<T> {
    pub(super) fn new(entry: &Entry, token: T) -> Self {
        let payload = entry.encode();
        let place = entry.cursor.clone().map(|cursor| (entry.input.clone(), cursor));
        Self { size: payload.len(), payload, place, token }
    }

    /// Any bytes in the place of an entry.
    #[cfg(test)]
    pub(super) fn raw(payload: Vec<u8>, token: T) -> Self {
        Self { size: payload.len(), payload, place: None, token }
    }
}

/// What came of what was queued, since it was last asked.
#[derive(Debug)]
pub(super) struct News<T> {
    /// Durable.
    pub(super) durable: Vec<T>,
    /// Bytes of their payloads.
    pub(super) durable_bytes: usize,
    /// Not durable, in order, to be queued again.
    pub(super) failed: Vec<Queued<T>>,
}

impl<T> News<T> {
    fn none() -> Self {
        Self { durable: Vec::new(), durable_bytes: 0, failed: Vec::new() }
    }
}

/// Where news is put.
pub(super) struct Board<T> {
    news: Mutex<News<T>>,
    bell: Bell,
}

impl<T> Board<T> {
    pub(super) fn new(bell: Bell) -> Arc<Self> {
        Arc::new(Self { news: Mutex::new(News::none()), bell })
    }

    fn lock(&self) -> MutexGuard<'_, News<T>> {
        // No change can panic half done, so what a thread that panicked left behind is whole.
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self) -> News<T> {
        std::mem::replace(&mut *self.lock(), News::none())
    }
}

/// Owns the journal's entries.
pub(super) struct Scribe<T> {
    board: Arc<Board<T>>,
    /// Where each input stood behind its last durable entry.
    places: BTreeMap<String, Bytes>,
}

impl<T> Scribe<T> {
    pub(super) fn new(board: Arc<Board<T>>, places: BTreeMap<String, Bytes>) -> Self {
        Self { board, places }
    }
}

impl<T: Send + 'static> Owner for Scribe<T> {
    type Entry = Queued<T>;

    fn encode(&mut self, entry: &mut Queued<T>, out: &mut Vec<u8>) {
        out.extend_from_slice(&entry.payload);
    }

    fn preamble(&mut self) -> Vec<u8> {
        encode_places(&self.places)
    }

    fn durable(&mut self, entries: Vec<Written<Queued<T>>>) {
        let mut tokens = Vec::with_capacity(entries.len());
        let mut bytes = 0;
        for written in entries {
            bytes += written.entry.size;
            self.places.extend(written.entry.place);
            tokens.push(written.entry.token);
        }
        let mut news = self.board.lock();
        news.durable.append(&mut tokens);
        news.durable_bytes += bytes;
        drop(news);
        (self.board.bell)();
    }

    fn failed(&mut self, mut entries: Vec<Queued<T>>, _: AppendError) {
        self.board.lock().failed.append(&mut entries);
        (self.board.bell)();
    }

    fn state_changed(&mut self, _: &State) {
        (self.board.bell)();
    }
}
