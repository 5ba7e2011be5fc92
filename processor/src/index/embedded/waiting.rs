//! Calls that wait for a commit, and what became of their documents so far.

use tokio::sync::oneshot;

use super::calendar::ArrivalDay;
use crate::index::Outcome;

/// What becomes of a document.
pub(super) enum Verdict {
    /// It is known.
    Final(Outcome),
    /// This, if the day is committed.
    With(ArrivalDay, Outcome),
}

/// A call that waits for its answer.
pub(super) struct Waiting {
    /// So many as were decided so far.
    pub(super) verdicts: Vec<Verdict>,
    documents: usize,
    answer: oneshot::Sender<Vec<Outcome>>,
}

impl Waiting {
    /// A call about so many documents, of which none is decided.
    pub(super) fn new(documents: usize, answer: oneshot::Sender<Vec<Outcome>>) -> Self {
        Self { verdicts: Vec::new(), documents, answer }
    }

    /// Whether every document's outcome is final.
    pub(super) fn is_known(&self) -> bool {
        let known = |verdict: &Verdict| match verdict {
            Verdict::Final(_) => true,
            Verdict::With(..) => false,
        };
        self.verdicts.len() == self.documents && self.verdicts.iter().all(known)
    }

    /// Answers the call.
    pub(super) fn answer(self) {
        let outcome = |verdict| match verdict {
            Verdict::Final(outcome) | Verdict::With(_, outcome) => outcome,
        };
        // Whoever does not wait any more will write the documents again, which does no harm.
        let _ = self.answer.send(self.verdicts.into_iter().map(outcome).collect());
    }
}
