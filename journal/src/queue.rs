//! The bounded way to the writer: bytes are reserved before an entry is taken, and given back when it is answered.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// An entry that waits; its permit returns the bytes when it is dropped.
#[derive(Debug)]
pub(crate) struct Queued<E> {
    pub(crate) entry: E,
    pub(crate) size: usize,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What the writer is to do next.
#[derive(Debug)]
pub(crate) enum Taken<E> {
    /// Write these, in order.
    Group(VecDeque<Queued<E>>),
    /// The wait is over, or somebody asked: look whether there is room.
    Look,
    /// Nothing is left and nothing will come.
    Closed,
}

pub(crate) struct Queue<E> {
    inner: Mutex<Inner<E>>,
    changed: Condvar,
    room: Arc<Semaphore>,
    capacity: usize,
}

struct Inner<E> {
    entries: VecDeque<Queued<E>>,
    bytes: usize,
    closed: bool,
    poked: bool,
}

impl<E> Queue<E> {
    /// A queue of `capacity` bytes, which is below 4 GiB.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            inner: Mutex::new(Inner { entries: VecDeque::new(), bytes: 0, closed: false, poked: false }),
            changed: Condvar::new(),
            room: Arc::new(Semaphore::new(capacity)),
            capacity,
        }
    }

    /// Waits until `size` bytes fit; a larger entry waits until the queue is empty. First come, first served.
    pub(crate) async fn reserve(&self, size: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(size.min(self.capacity)).unwrap_or(u32::MAX);
        self.room.clone().acquire_many_owned(permits).await.ok()
    }

    /// The same without waiting; `None` when there is no room now, or the queue is closed.
    pub(crate) fn try_reserve(&self, size: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(size.min(self.capacity)).unwrap_or(u32::MAX);
        self.room.clone().try_acquire_many_owned(permits).ok()
    }

    /// Queues `entry`; hands it back when the queue is closed.
    pub(crate) fn push(&self, entry: E, size: usize, permit: OwnedSemaphorePermit) -> Result<(), E> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(entry);
        }
        inner.bytes += size;
        inner.entries.push_back(Queued { entry, size, permit });
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for entries and takes them, up to `bytes` but at least one. With `look_after` it waits no longer than that.
    pub(crate) fn take(&self, bytes: usize, look_after: Option<Duration>) -> Taken<E> {
        let deadline = look_after.map(|wait| Instant::now() + wait);
        let mut inner = self.lock();
        loop {
            if !inner.entries.is_empty() {
                return Taken::Group(inner.group(bytes));
            }
            if inner.closed {
                return Taken::Closed;
            }
            if std::mem::take(&mut inner.poked) {
                return Taken::Look;
            }
            inner = match deadline {
                None => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Taken::Look;
                    }
                    self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Wakes the writer to look at the disk.
    pub(crate) fn poke(&self) {
        self.lock().poked = true;
        self.changed.notify_one();
    }

    /// Takes nothing more; what is queued is still written.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.changed.notify_one();
    }

    /// Closes, and drops what is queued without an answer.
    pub(crate) fn abandon(&self) {
        self.close();
        let entries = std::mem::take(&mut self.lock().entries);
        drop(entries);
    }

    /// Bytes that wait for the writer.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Inner<E>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E> Inner<E> {
    fn group(&mut self, bytes: usize) -> VecDeque<Queued<E>> {
        let mut size = 0;
        let count = self
            .entries
            .iter()
            .take_while(|queued| {
                let fits = size == 0 || size + queued.size <= bytes;
                size += queued.size.max(1);
                fits
            })
            .count();
        let group: VecDeque<_> = self.entries.drain(..count).collect();
        self.bytes -= group.iter().map(|queued| queued.size).sum::<usize>();
        group
    }
}
