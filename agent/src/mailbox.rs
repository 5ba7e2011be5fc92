//! What the tailer thread waits for: answers of the shipper, hints, and the wish to stop.
//!
//! Bounded by what it holds: each batch that is out gets one answer, and the tailer bounds those; hints are bounded by
//! [`Hints`]; of a session only the last word counts. Nobody who puts something in ever waits.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    discovery::{Hint, Hints},
    parcel::Answer,
};

/// See the module.
#[derive(Debug, Default)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    answers: Vec<Answer>,
    hints: Hints,
    stop: bool,
    /// Inputs give nothing more.
    ending: bool,
    /// Something happened elsewhere: the spool has news, or inputs have records.
    rung: bool,
    /// The rest that the tailer takes now.
    resting: Option<Rest>,
}

/// A time in which the tailer is not woken for what may as well be done together: hints that files changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// How long.
    pub time: Duration,
    /// Whether answers wait for its end, too.
    pub answers_wait: bool,
}

impl Inner {
    /// Whether there is nothing that a rest ends for.
    fn is_calm(&self, rest: Rest) -> bool {
        (rest.answers_wait || self.answers.is_empty()) && !self.hints.has_names() && !self.stop && !self.rung
    }

    fn is_empty(&self) -> bool {
        self.is_calm(Rest::default()) && self.hints.is_empty()
    }
}

/// What was in the mailbox.
#[derive(Debug, Default)]
pub struct Mail {
    /// Answers, in order.
    pub answers: Vec<Answer>,
    /// Hints.
    pub hints: Vec<Hint>,
    /// Whether hints were lost.
    pub overflowed: bool,
    /// Whether the tailer is to stop.
    pub stop: bool,
    /// Whether inputs give nothing more.
    pub ending: bool,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A thread that panicked with the lock held left whole values behind: each change is one call.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts answers in.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        let mut inner = self.lock();
        inner.answers.extend(answers);
        let can_wait = inner.resting.is_some_and(|rest| rest.answers_wait);
        if !inner.answers.is_empty() && !can_wait {
            self.bell.notify_one();
        }
    }

    /// Puts a hint in; `None` says that hints were lost. Returns whether more of the kind may wait a moment.
    pub fn hint(&self, hint: Option<Hint>) -> bool {
        let mut inner = self.lock();
        let can_wait = inner.resting.is_some() && matches!(hint, Some(Hint::Changed(_)));
        match hint {
            Some(hint) => inner.hints.add(hint),
            None => inner.hints.overflowed = true,
        }
        if !can_wait {
            self.bell.notify_one();
        }
        can_wait
    }

    /// Wakes the tailer: there is something for it elsewhere.
    pub fn ring(&self) {
        self.lock().rung = true;
        self.bell.notify_one();
    }

    /// Says that inputs give nothing more; all that they gave was put in before.
    pub fn end_of_inputs(&self) {
        self.lock().ending = true;
        self.ring();
    }

    /// Asks the tailer to stop reading.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.bell.notify_one();
    }

    /// Takes answers alone, after waiting for some, or for news from elsewhere, for so long at most.
    pub fn take_answers(&self, patience: Duration) -> Vec<Answer> {
        let idle = |inner: &mut Inner| inner.answers.is_empty() && !inner.rung;
        let waited = self.bell.wait_timeout_while(self.lock(), patience, idle);
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        inner.rung = false;
        std::mem::take(&mut inner.answers)
    }

    /// Takes everything, after waiting for something for so long at most. What a rest is not ended for does not end the
    /// wait before `rest` is over.
    pub fn take(&self, patience: Duration, rest: Rest) -> Mail {
        let mut inner = self.lock();
        let time = rest.time.min(patience);
        if !time.is_zero() {
            inner.resting = Some(rest);
            let waited = self.bell.wait_timeout_while(inner, time, |inner| inner.is_calm(rest));
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
            inner.resting = None;
        }
        let patience = patience - time;
        if !patience.is_zero() {
            let waited = self.bell.wait_timeout_while(inner, patience, |inner| inner.is_empty());
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        inner.rung = false;
        Mail {
            answers: std::mem::take(&mut inner.answers),
            hints: inner.hints.take(),
            overflowed: std::mem::take(&mut inner.hints.overflowed),
            stop: inner.stop,
            ending: inner.ending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn changes_wait_for_the_end_of_a_rest_and_all_else_ends_it() {
        let mailbox = Arc::new(Mailbox::default());
        let changed = || Some(Hint::Changed("/logs/a.log".into()));
        let rest = Rest { time: Duration::from_millis(50), answers_wait: false };
        let long = Rest { time: LONG, ..rest };
        mailbox.hint(changed());
        let begun = Instant::now();
        assert_eq!(mailbox.take(LONG, rest).hints.len(), 1);
        assert!(begun.elapsed() >= rest.time && begun.elapsed() < LONG);
        mailbox.hint(changed());
        mailbox.hint(Some(Hint::Appeared("/logs/b.log".into())));
        assert_eq!(mailbox.take(LONG, long).hints.len(), 2);
        assert!(begun.elapsed() < LONG, "a name ends it");
        let other = Arc::clone(&mailbox);
        let thread = std::thread::spawn(move || {
            other.hint(changed());
            other.ring();
        });
        mailbox.take(LONG, long);
        assert!(begun.elapsed() < LONG, "news from elsewhere ends it");
        thread.join().unwrap();
    }

    #[test]
    fn answers_end_a_rest_unless_they_may_wait_for_its_end() {
        let mailbox = Mailbox::default();
        mailbox.answer([Answer::Closed]);
        let (begun, rest) = (Instant::now(), Rest { time: LONG, answers_wait: false });
        assert_eq!(mailbox.take(LONG, rest).answers.len(), 1);
        assert!(begun.elapsed() < LONG);
        mailbox.answer([Answer::Closed]);
        let rest = Rest { time: Duration::from_millis(50), answers_wait: true };
        let begun = Instant::now();
        assert_eq!(mailbox.take(LONG, rest).answers.len(), 1);
        assert!(begun.elapsed() >= rest.time && begun.elapsed() < LONG);
    }
}
