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

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use tokio::sync::{Semaphore, SemaphorePermit};

/// A share in bytes. Cheap to clone; all clones are the same share.
#[derive(Clone)]
pub struct Budget {
    share: Arc<Share>,
}

/// Bytes that are reserved until it is dropped.
#[must_use = "dropping a permit releases its bytes"]
pub struct Permit {
    bytes: usize,
    share: Arc<Share>,
}

struct Share {
    name: &'static str,
    capacity: u32,
    /// Whose queue makes it fair. Invariant, but for the moment within a call: it has given out `min(used, capacity)`.
    /// Permits are counted over all grants and not by each, so that the parts of an oversized one may go in any order.
    semaphore: Semaphore,
    /// Sum of the bytes of all permits.
    used: AtomicUsize,
}

impl Budget {
    /// A share of `bytes`. More than 4 GiB counts as 4 GiB; nothing counts as one byte, which is one request at a time.
    pub fn new(name: &'static str, bytes: usize) -> Budget {
        let capacity = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        let semaphore = Semaphore::new(capacity as usize);
        Budget { share: Arc::new(Share { name, capacity, semaphore, used: AtomicUsize::new(0) }) }
    }

    /// Waits for its turn and for room. Cancel safe: giving up gives the place in the queue back.
    pub async fn reserve(&self, bytes: usize) -> Permit {
        let taken = self.share.semaphore.acquire_many(self.share.taken_for(bytes)).await;
        self.permit(bytes, taken.expect("the semaphore is never closed: nothing here does so"))
    }

    /// A permit if there is room now and nobody waits before.
    pub fn try_reserve(&self, bytes: usize) -> Option<Permit> {
        let taken = self.share.semaphore.try_acquire_many(self.share.taken_for(bytes)).ok()?;
        Some(self.permit(bytes, taken))
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

    /// Shows the share as `logmesh_budget_used_bytes` and `logmesh_budget_capacity_bytes`, labelled with its name.
    pub fn observe(&self, meter: &Meter) {
        let label = [KeyValue::new("share", self.share.name)];
        let (share, labels) = (Arc::clone(&self.share), label.clone());
        meter
            .u64_observable_gauge("logmesh_budget_used_bytes")
            .with_description("Reserved bytes of a share of the memory budget")
            .with_callback(move |observer| observer.observe(share.used.load(Ordering::Relaxed) as u64, &labels))
            .build();
        let capacity = u64::from(self.share.capacity);
        meter
            .u64_observable_gauge("logmesh_budget_capacity_bytes")
            .with_description("Size of a share of the memory budget")
            .with_callback(move |observer| observer.observe(capacity, &label))
            .build();
    }

    fn permit(&self, bytes: usize, taken: SemaphorePermit<'_>) -> Permit {
        // From here on the bytes count for it; `Share::release` gives it back.
        taken.forget();
        self.share.used.fetch_add(bytes, Ordering::AcqRel);
        Permit { bytes, share: Arc::clone(&self.share) }
    }
}

impl Permit {
    /// Bytes that it keeps reserved.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Moves `bytes` of it (at most all) into a permit of their own.
    pub fn split(&mut self, bytes: usize) -> Permit {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Permit { bytes, share: Arc::clone(&self.share) }
    }

    /// Takes the bytes of `other`, which must be of the same share, into this one.
    ///
    /// # Panics
    /// When `other` is of another share: its bytes would be released where they were not reserved.
    pub fn merge(&mut self, mut other: Permit) {
        assert!(Arc::ptr_eq(&self.share, &other.share), "permits of two shares cannot be merged");
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Releases all but `bytes`, once it is known that less is needed.
    pub fn shrink_to(&mut self, bytes: usize) {
        drop(self.split(self.bytes.saturating_sub(bytes)));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.share.release(self.bytes);
    }
}

impl Share {
    /// What the semaphore is asked for: a request larger than the share takes the share whole.
    fn taken_for(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.capacity)
    }

    /// Gives bytes back, and to the semaphore as many as the sum has come down below the capacity. While the sum is above
    /// it nobody else is in, so the two steps cannot mix with a grant.
    fn release(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        let capacity = self.capacity as usize;
        self.semaphore.add_permits(before.min(capacity) - (before - bytes).min(capacity));
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Budget({}: {} of {} bytes)", self.share.name, self.used(), self.capacity())
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Permit({}: {} bytes)", self.share.name, self.bytes)
    }
}

#[cfg(test)]
mod tests;
