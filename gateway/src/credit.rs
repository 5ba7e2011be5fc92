//! Credits: the gateway's share of memory, divided among its sessions.
//!
//! Owns the division: in equal parts among tenants, and within a tenant among its sessions. A part is never smaller than
//! one batch of the largest size and never larger than a window that fills the pipe. Parts go in powers of two of a
//! batch, so that a session that comes or goes changes the others' credit seldom.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// More in flight would only wait in queues: two batches fill the pipe at a small round-trip time, and 4 MiB are the
/// HTTP/2 window.
const PART_BYTES_MAX: u64 = 4 << 20;

/// Divides the share.
#[derive(Debug)]
pub(crate) struct Credits {
    capacity: u64,
    batch_bytes_max: u64,
    parts: Mutex<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    next: u64,
    tenants: BTreeMap<Arc<str>, BTreeMap<u64, watch::Sender<u64>>>,
}

/// One session's part; it is given back by drop.
#[derive(Debug)]
pub(crate) struct Part {
    credits: Arc<Credits>,
    tenant: Arc<str>,
    id: u64,
    limit: watch::Receiver<u64>,
}

impl Credits {
    /// Divides `capacity` bytes.
    pub(crate) fn new(capacity: u64, batch_bytes_max: u32) -> Self {
        Self { capacity, batch_bytes_max: u64::from(batch_bytes_max), parts: Mutex::default() }
    }

    /// A part for a new session. The others' parts shrink as needed.
    pub(crate) fn join(self: &Arc<Self>, tenant: &Arc<str>) -> Part {
        let mut parts = self.lock();
        let id = parts.next;
        parts.next += 1;
        let (sender, limit) = watch::channel(0);
        parts.tenants.entry(Arc::clone(tenant)).or_default().insert(id, sender);
        self.divide(&parts);
        Part { credits: Arc::clone(self), tenant: Arc::clone(tenant), id, limit }
    }

    fn leave(&self, tenant: &Arc<str>, id: u64) {
        let mut parts = self.lock();
        if let Some(sessions) = parts.tenants.get_mut(tenant) {
            sessions.remove(&id);
            if sessions.is_empty() {
                parts.tenants.remove(tenant);
            }
        }
        self.divide(&parts);
    }

    fn divide(&self, parts: &Parts) {
        for sessions in parts.tenants.values() {
            let limit = part(self.capacity, parts.tenants.len(), sessions.len(), self.batch_bytes_max);
            for sender in sessions.values() {
                sender.send_if_modified(|current| std::mem::replace(current, limit) != limit);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// The limit as it is now, in bytes.
    pub(crate) fn limit(&mut self) -> u64 {
        *self.limit.borrow_and_update()
    }

    /// Resolves when the limit has changed. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        if self.limit.changed().await.is_err() {
            // The sender lives as long as this part: nothing will change any more.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.credits.leave(&self.tenant, self.id);
    }
}

/// One session's part in bytes.
fn part(capacity: u64, tenants: usize, sessions: usize, batch_bytes_max: u64) -> u64 {
    let divisor = u64::try_from(tenants.saturating_mul(sessions)).unwrap_or(u64::MAX).max(1);
    let fair = capacity / divisor;
    let mut part = batch_bytes_max.max(1);
    while part * 2 <= fair && part < PART_BYTES_MAX {
        part *= 2;
    }
    part.min(PART_BYTES_MAX.max(batch_bytes_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: u32 = 640 << 10;

    #[test]
    fn a_part_is_at_least_a_batch_and_at_most_a_window() {
        assert_eq!(part(1 << 40, 1, 1, BATCH.into()), PART_BYTES_MAX);
        assert_eq!(part(1, 10, 10, BATCH.into()), u64::from(BATCH));
    }

    #[test]
    fn parts_together_stay_within_the_share_while_a_batch_each_fits() {
        for (tenants, sessions) in [(1, 1), (1, 7), (3, 20), (10, 10), (1, 300)] {
            let capacity = 384 << 20;
            let all = part(capacity, tenants, sessions, BATCH.into()) * (tenants * sessions) as u64;
            assert!(all <= capacity, "{tenants} x {sessions}: {all}");
        }
    }

    #[test]
    fn a_tenant_with_many_sessions_takes_nothing_from_one_with_few() {
        let credits = Arc::new(Credits::new(16 << 20, BATCH));
        let (crowd, lone): (Arc<str>, Arc<str>) = ("crowd".into(), "lone".into());
        let mut one = credits.join(&lone);
        assert_eq!(one.limit(), PART_BYTES_MAX);
        let mut others: Vec<Part> = (0..12).map(|_| credits.join(&crowd)).collect();
        assert_eq!(others[0].limit(), u64::from(BATCH));
        assert_eq!(one.limit(), PART_BYTES_MAX, "half of the share is still enough for a window");
        drop(others);
        assert_eq!(credits.join(&crowd).limit(), PART_BYTES_MAX);
    }
}
