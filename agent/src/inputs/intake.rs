//! Between the inputs and the tailer's thread: arrivals that wait to be taken.
//!
//! Owns the queue and its bound; knows neither where records come from nor where they go. Bounded in bytes: every record
//! counts with its body and [`RECORD_BYTES`], and an arrival gives its room back when it is dropped, so that what was
//! taken and is not spooled yet counts too. Nothing is ever dropped here: whoever hands something over waits for room,
//! in the order in which they came, and so slows down its source.
//!
//! Arrivals of one [`Feed`] are taken in the order in which they were sent, if no two sends of it overlap. Taking needs no
//! runtime and never waits.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a record counts beside its body.
pub const RECORD_BYTES: usize = 64;

/// One record of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its body. It stands in an allocation that holds nothing but bodies of the same arrival, so that bytes counted are
    /// bytes held.
    pub body: Bytes,
    /// When it came, in nanoseconds since 1970 (UTC).
    pub observed_unix_nano: u64,
    /// Whether it goes on from an earlier record, which had no end of its own. Where an input has several sources
    /// (connections, two pipes) that need not be the one before it.
    pub continued: bool,
    /// Whether it was split for its length: it goes on in a later record, which says so.
    pub split: bool,
}

/// What an input hands over at once: consecutive records, and where the input stands behind them.
#[derive(Debug)]
pub struct Arrival {
    /// Which input, by its place in the configuration.
    pub input: usize,
    /// Its records, in order; may be empty.
    pub records: Vec<Record>,
    /// From where the input goes on behind these records after a restart; inputs that cannot say have none.
    pub cursor: Option<Bytes>,
    /// Room in the intake, given back when the arrival is dropped.
    _room: OwnedSemaphorePermit,
}

/// The agent stops: nothing is taken any more.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the agent takes no more records")]
pub struct Closed;

/// Where inputs put what they have. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    shared: Arc<Shared>,
}

/// The handle of one input. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed {
    intake: Intake,
    input: usize,
}

/// The receiving end.
#[derive(Debug)]
pub struct Arrivals {
    intake: Intake,
}

struct Shared {
    room: Arc<Semaphore>,
    /// All the room there is: what one arrival takes at most, however large it is.
    bytes_max: u32,
    /// As much again, for what is no record yet.
    unfinished: Arc<Semaphore>,
    waiting: Mutex<VecDeque<Arrival>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// An intake for so many bytes. `wake` is called after something was put in, on a thread of the runtime: it must not
/// wait.
#[must_use]
pub fn intake(bytes_max: usize, wake: impl Fn() + Send + Sync + 'static) -> (Intake, Arrivals) {
    let bytes_max = u32::try_from(bytes_max.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
    let shared = Shared {
        room: Arc::new(Semaphore::new(bytes_max as usize)),
        bytes_max,
        unfinished: Arc::new(Semaphore::new(bytes_max as usize)),
        waiting: Mutex::default(),
        wake: Box::new(wake),
    };
    let intake = Intake { shared: Arc::new(shared) };
    (intake.clone(), Arrivals { intake })
}

impl Intake {
    /// The handle of the input with this place in the configuration.
    #[must_use]
    pub fn for_input(&self, index: usize) -> Feed {
        Feed { intake: self.clone(), input: index }
    }

    /// Bytes that there is room for now.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.shared.room.available_permits()
    }
}

impl Feed {
    /// Room, in bytes, for what inputs have read and cannot hand over, since its end has not come.
    pub(super) fn unfinished(&self) -> Arc<Semaphore> {
        Arc::clone(&self.intake.shared.unfinished)
    }

    /// Hands records over once there is room for them; records larger than the whole intake go in alone.
    ///
    /// Cancel safe: dropped before it is done, it handed over nothing.
    ///
    /// # Errors
    /// When the agent stops; what was to be sent is gone then, as if it had not been read.
    pub async fn send(&self, records: Vec<Record>, cursor: Option<Bytes>) -> Result<(), Closed> {
        let shared = &self.intake.shared;
        let bytes = cost(&records, cursor.as_ref());
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(shared.bytes_max);
        let room = Arc::clone(&shared.room).acquire_many_owned(permits).await.map_err(|_| Closed)?;
        shared.waiting().push_back(Arrival { input: self.input, records, cursor, _room: room });
        (shared.wake)();
        Ok(())
    }
}

impl Arrivals {
    /// Everything that waits, the oldest first. Never more than the intake has room for, or one larger arrival.
    pub fn take(&mut self) -> Vec<Arrival> {
        self.intake.shared.waiting().drain(..).collect()
    }

    /// Takes nothing in any more: whoever waits for room learns it. What is in can still be taken.
    pub fn close(&mut self) {
        self.intake.shared.room.close();
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Arrival>> {
        // Each change is one call: a thread that panicked with the lock held left whole values behind.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, free) = (self.shared.bytes_max, self.free_bytes());
        formatter.debug_struct("Intake").field("bytes_max", &all).field("free_bytes", &free).finish_non_exhaustive()
    }
}

fn cost(records: &[Record], cursor: Option<&Bytes>) -> usize {
    let bodies: usize = records.iter().map(|record| record.body.len() + RECORD_BYTES).sum();
    bodies + RECORD_BYTES + cursor.map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;

    use super::*;

    fn record(bytes: usize) -> Vec<Record> {
        let body = Bytes::from(vec![b'x'; bytes]);
        vec![Record { body, observed_unix_nano: 1, continued: false, split: false }]
    }

    #[tokio::test]
    async fn what_was_sent_is_taken_in_order_with_its_input_and_cursor() {
        let (intake, mut arrivals) = intake(1 << 20, || {});
        for (input, cursor) in [(1, None), (0, Some(Bytes::from_static(b"c")))] {
            intake.for_input(input).send(record(input), cursor).await.unwrap();
        }
        let taken: Vec<_> = arrivals.take().into_iter().map(|one| (one.input, one.records, one.cursor)).collect();
        assert_eq!(taken, [(1, record(1), None), (0, record(0), Some(Bytes::from_static(b"c")))]);
        assert!(arrivals.take().is_empty());
    }

    #[tokio::test]
    async fn a_full_intake_makes_its_senders_wait_until_an_arrival_is_dropped() {
        let woken = Arc::new(AtomicUsize::new(0));
        let bell = Arc::clone(&woken);
        let (intake, mut arrivals) = intake(1000, move || {
            bell.fetch_add(1, Ordering::SeqCst);
        });
        let feed = intake.for_input(0);
        feed.send(record(600), None).await.unwrap();
        let mut second = Box::pin(feed.send(record(600), None));
        assert!((&mut second).now_or_never().is_none());
        let taken = arrivals.take();
        assert!((&mut second).now_or_never().is_none(), "what was taken and is still held counts");
        drop(taken);
        second.await.unwrap();
        assert_eq!((arrivals.take().len(), woken.load(Ordering::SeqCst)), (1, 2));
        assert_eq!(intake.free_bytes(), 1000, "all the room is given back");
    }

    #[tokio::test]
    async fn what_is_larger_than_everything_is_admitted_alone() {
        let (intake, mut arrivals) = intake(1000, || {});
        let feed = intake.for_input(0);
        feed.send(record(10), None).await.unwrap();
        let mut large = Box::pin(feed.send(record(5000), None));
        assert!((&mut large).now_or_never().is_none());
        drop(arrivals.take());
        large.await.unwrap();
        assert!(feed.send(record(0), None).now_or_never().is_none());
        assert_eq!(arrivals.take()[0].records[0].body.len(), 5000);
    }

    #[tokio::test]
    async fn a_closed_intake_refuses_and_keeps_what_is_in_it() {
        let (intake, mut arrivals) = intake(300, || {});
        let feed = intake.for_input(0);
        feed.send(record(100), None).await.unwrap();
        let waiting = feed.send(record(100), None);
        arrivals.close();
        assert_eq!(waiting.await, Err(Closed));
        assert_eq!(feed.send(record(1), None).await, Err(Closed));
        assert_eq!(arrivals.take().len(), 1);
    }
}
