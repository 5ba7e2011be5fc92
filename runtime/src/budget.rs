//! A share of the process's memory budget: bytes are reserved before they are taken in, and released by drop.
//!
//! Owns the count; does not own the memory. Invariants: requests are granted in the order in which they came, so a large
//! one is never starved by small ones; what is granted never exceeds the capacity, but for a single request larger than
//! the capacity, which waits until nothing else is held and is then alone until it is back under the capacity. So each
//! share admits one batch of any size, and nothing can deadlock as long as nobody waits for another share while holding
//! one (DESIGN 7).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A share in bytes. Cheap to clone; all clones are the same share.
#[derive(Clone)]
pub struct Budget {
    share: Arc<Share>,
}

/// Bytes that are reserved until it is dropped.
#[must_use = "dropping a permit releases its bytes"]
pub struct Permit {
    /// What was asked for. Dropped before `held`, so that the gauge never shows room twice.
    counted: Counted,
    /// What of it the semaphore holds: all, or the whole capacity where more was asked for. Invariant: the parts of one
    /// grant together hold `min(sum of their bytes, capacity)`.
    held: OwnedSemaphorePermit,
}

/// Bytes that stand in the gauge until it is dropped.
struct Counted {
    bytes: usize,
    share: Arc<Share>,
}

struct Share {
    name: &'static str,
    capacity: u32,
    semaphore: Arc<Semaphore>,
    used: AtomicUsize,
}

impl Budget {
    /// A share of `bytes`. More than 4 GiB counts as 4 GiB; nothing counts as one byte, which is one request at a time.
    pub fn new(name: &'static str, bytes: usize) -> Budget {
        let capacity = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        let semaphore = Arc::new(Semaphore::new(capacity as usize));
        Budget { share: Arc::new(Share { name, capacity, semaphore, used: AtomicUsize::new(0) }) }
    }

    /// Waits for its turn and for room. Cancel safe: giving up gives the place in the queue back.
    pub async fn reserve(&self, bytes: usize) -> Permit {
        let semaphore = Arc::clone(&self.share.semaphore);
        let held = semaphore.acquire_many_owned(self.share.held_for(bytes)).await;
        self.permit(bytes, held.expect("the semaphore is never closed: it has no method that does so"))
    }

    /// A permit if there is room now and nobody waits before.
    pub fn try_reserve(&self, bytes: usize) -> Option<Permit> {
        let semaphore = Arc::clone(&self.share.semaphore);
        let held = semaphore.try_acquire_many_owned(self.share.held_for(bytes)).ok()?;
        Some(self.permit(bytes, held))
    }

    /// Bytes that are reserved now. Exceeds the capacity only while one larger request is alone.
    pub fn used(&self) -> usize {
        self.share.used.load(Ordering::Relaxed)
    }

    /// Bytes that can be reserved in all.
    pub fn capacity(&self) -> usize {
        self.share.capacity as usize
    }

    /// Bytes that a request could get at once.
    pub fn free(&self) -> usize {
        self.share.semaphore.available_permits()
    }

    /// The share's name, for metrics and messages.
    pub fn name(&self) -> &'static str {
        self.share.name
    }

    fn permit(&self, bytes: usize, held: OwnedSemaphorePermit) -> Permit {
        self.share.used.fetch_add(bytes, Ordering::Relaxed);
        Permit { counted: Counted { bytes, share: Arc::clone(&self.share) }, held }
    }
}

impl Permit {
    /// Bytes that it keeps reserved.
    pub fn bytes(&self) -> usize {
        self.counted.bytes
    }

    /// Moves `bytes` of it (at most all) into a permit of their own.
    pub fn split(&mut self, bytes: usize) -> Permit {
        let bytes = bytes.min(self.counted.bytes);
        let rest = self.counted.bytes - bytes;
        // An oversized grant gives room back only once what is left of it is under the capacity.
        let given = self.held.num_permits().saturating_sub(rest);
        let held = self.held.split(given).expect("no more is given than is held");
        self.counted.bytes = rest;
        Permit { counted: Counted { bytes, share: Arc::clone(&self.counted.share) }, held }
    }

    /// Takes the bytes of `other`, which must be of the same share, into this one.
    ///
    /// # Panics
    /// When `other` is of another share: that would be a leak in both.
    pub fn merge(&mut self, other: Permit) {
        assert!(Arc::ptr_eq(&self.counted.share, &other.counted.share), "permits of two shares cannot be merged");
        let Permit { mut counted, held } = other;
        self.counted.bytes += std::mem::take(&mut counted.bytes);
        self.held.merge(held);
    }

    /// Releases all but `bytes`, once it is known that less is needed.
    pub fn shrink_to(&mut self, bytes: usize) {
        drop(self.split(self.bytes().saturating_sub(bytes)));
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.share.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Share {
    /// What the semaphore is asked for: a request larger than the share takes the share whole.
    fn held_for(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.capacity)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Budget({}: {} of {} bytes)", self.share.name, self.used(), self.capacity())
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Permit({}: {} bytes)", self.counted.share.name, self.bytes())
    }
}
