//! What an input writes to: its feed, with the time of arrival put on each record, and its counts.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::intake::{Closed, Feed, Record};
use crate::clock::{Clock as _, SystemClock};

/// Bodies of one arrival in bytes, unless one is larger: small enough to leave room for others.
pub(super) const ARRIVAL_BYTES_MAX: usize = 128 * 1024;
/// Records of one arrival.
pub(super) const ARRIVAL_RECORDS_MAX: usize = 4096;

/// Where one input's records go. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Outlet {
    feed: Feed,
    clock: SystemClock,
    /// Longest body in bytes; longer records are split.
    pub(super) record_bytes_max: usize,
    pub(super) counts: Arc<Counts>,
}

/// A record on its way to the intake, or a piece of one that is too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) body: Bytes,
    /// As in [`Record`].
    pub(super) continued: bool,
    /// As in [`Record`].
    pub(super) split: bool,
}

/// What an input has seen since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) records: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// Connections that were closed because no message could be told from the next, or within a message.
    pub(super) framing_errors: AtomicU64,
    /// Datagrams that the kernel dropped before they could be read.
    pub(super) kernel_drops: AtomicU64,
    /// Connections that could not be taken: handshakes that failed.
    pub(super) refused: AtomicU64,
    /// Connections that are open.
    pub(super) connections: AtomicU64,
    /// Where it listens.
    listening: Mutex<Vec<String>>,
}

impl Piece {
    /// A record that is no piece.
    pub(super) fn whole(body: Bytes) -> Self {
        Self { body, continued: false, split: false }
    }
}

impl Outlet {
    pub(super) fn new(feed: Feed, record_bytes_max: usize) -> Self {
        Self { feed, clock: SystemClock::default(), record_bytes_max, counts: Arc::default() }
    }

    /// Room, in bytes, for what cannot be handed over yet; all inputs share it.
    pub(super) fn unfinished(&self) -> Arc<Semaphore> {
        self.feed.unfinished()
    }

    /// Hands records over, in arrivals of a moderate size, and waits for room. The cursor goes with the last.
    pub(super) async fn send(&self, pieces: Vec<Piece>, cursor: Option<Bytes>) -> Result<(), Closed> {
        let observed_unix_nano = self.clock.now().unix_nano;
        let (mut records, mut bytes) = (Vec::new(), 0);
        for Piece { body, continued, split } in pieces {
            let full = bytes + body.len() > ARRIVAL_BYTES_MAX || records.len() == ARRIVAL_RECORDS_MAX;
            // With a cursor there is no place to cut at: a restart would repeat what went before.
            if full && cursor.is_none() && !records.is_empty() {
                self.pass(std::mem::take(&mut records), std::mem::take(&mut bytes), None).await?;
            }
            bytes += body.len();
            records.push(Record { body, observed_unix_nano, continued, split });
        }
        if records.is_empty() && cursor.is_none() {
            return Ok(());
        }
        self.pass(records, bytes, cursor).await
    }

    async fn pass(&self, records: Vec<Record>, bytes: usize, cursor: Option<Bytes>) -> Result<(), Closed> {
        let count = records.len() as u64;
        self.feed.send(records, cursor).await?;
        self.counts.records.fetch_add(count, Relaxed);
        self.counts.bytes.fetch_add(bytes as u64, Relaxed);
        Ok(())
    }

    /// Splits what is too long for one record.
    pub(super) fn pieces(&self, body: &[u8]) -> impl Iterator<Item = Piece> {
        let count = body.len().div_ceil(self.record_bytes_max);
        body.chunks(self.record_bytes_max).enumerate().map(move |(at, piece)| Piece {
            body: Bytes::copy_from_slice(piece),
            continued: at > 0,
            split: at + 1 < count,
        })
    }
}

impl Counts {
    pub(super) fn listening(&self) -> MutexGuard<'_, Vec<String>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shown(&self) -> Value {
        json!({
            "records": self.records.load(Relaxed),
            "bytes": self.bytes.load(Relaxed),
            "framing_errors": self.framing_errors.load(Relaxed),
            "kernel_drops": self.kernel_drops.load(Relaxed),
            "connections_refused": self.refused.load(Relaxed),
            "connections": self.connections.load(Relaxed),
            "listening": *self.listening(),
        })
    }
}
