//! What a consumer and its thread share.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::assignment::Assignments;
use crate::{BusError, Subscription};

/// The state, and how each side wakes the other.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the caller.
    pub(super) news: Notify,
    awake: Mutex<bool>,
    waker: Condvar,
}

/// What is decided, and what is asked.
pub(super) struct State {
    pub(super) assignments: Assignments,
    /// What the caller is to be told once, retryable.
    pub(super) trouble: Option<BusError>,
    /// No more events come.
    pub(super) ended: Option<BusError>,
    /// The thread is to leave the group.
    pub(super) leaving: bool,
}

impl Shared {
    pub(super) fn new(subscription: &Subscription) -> Arc<Self> {
        let assignments = Assignments::new(subscription.fetch_bytes);
        Arc::new(Self {
            state: Mutex::new(State { assignments, trouble: None, ended: None, leaving: false }),
            news: Notify::new(),
            awake: Mutex::new(false),
            waker: Condvar::new(),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread.
    pub(super) fn wake(&self) {
        *self.awake.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.waker.notify_one();
    }

    /// What wakes the thread, for librdkafka to call.
    pub(super) fn waker(self: &Arc<Self>) -> impl Fn() + Send + Sync + 'static {
        let shared = Arc::clone(self);
        move || shared.wake()
    }

    /// Asks the thread to leave; the caller is told `ended`.
    pub(super) fn leave(&self, ended: BusError) {
        {
            let mut state = self.state();
            state.leaving = true;
            state.ended.get_or_insert(ended);
        }
        self.news.notify_one();
        self.wake();
    }

    /// The thread's sleep, until it is woken, but no longer than so long.
    pub(super) fn sleep(&self, longest: Duration) {
        let awake = self.awake.lock().unwrap_or_else(PoisonError::into_inner);
        let slept = self.waker.wait_timeout_while(awake, longest, |awake| !*awake);
        *slept.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}
