//! An index that fails or crawls on demand, around a real one: for tests of everything that stands before an index.
//!
//! The plan is swapped while calls are under way; a call follows the plan it finds, and a held one goes on when the plan
//! changes.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{Index, Mode, Outcome};
use crate::document::Document;

/// What becomes of calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FaultPlan {
    /// They reach the index.
    #[default]
    None,
    /// Every document is answered `Retry` at once; the index never sees it.
    Fail,
    /// They reach the index after this time each.
    Delay(Duration),
    /// They wait until the plan changes.
    Hold,
    /// Documents that hold this text are refused for good, unless they are reduced ones; the others reach the index.
    Reject(String),
}

impl FaultPlan {
    /// Reads a plan from text: `none`, `fail`, `hold`, or `delay <milliseconds>`; an empty text is `none`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let plan = match (words.next(), words.next()) {
            (None | Some("none"), None) => Self::None,
            (Some("fail"), None) => Self::Fail,
            (Some("hold"), None) => Self::Hold,
            (Some("delay"), Some(milliseconds)) => Self::Delay(Duration::from_millis(milliseconds.parse().ok()?)),
            _ => return None,
        };
        words.next().is_none().then_some(plan)
    }
}

/// Changes the plan of a [`Faulty`] index.
#[derive(Clone, Debug)]
pub struct FaultHandle(watch::Sender<FaultPlan>);

impl FaultHandle {
    /// From now on calls follow this plan.
    pub fn set(&self, plan: FaultPlan) {
        self.0.send_replace(plan);
    }
}

/// An index that follows a [`FaultPlan`].
pub struct Faulty<I> {
    index: I,
    plan: watch::Receiver<FaultPlan>,
}

impl<I: Index> Faulty<I> {
    /// Wraps an index; it behaves like it until told otherwise.
    pub fn new(index: I) -> (Self, FaultHandle) {
        let (handle, plan) = watch::channel(FaultPlan::None);
        (Self { index, plan }, FaultHandle(handle))
    }

    async fn write(&self, documents: Vec<Document>, mode: Mode) -> Vec<Outcome> {
        let mut plan = self.plan.clone();
        loop {
            let now = plan.borrow_and_update().clone();
            match now {
                FaultPlan::None => break,
                FaultPlan::Reject(text) => return self.reject(&text, documents, mode).await,
                FaultPlan::Fail => {
                    let outcome = Outcome::Retry { reason: "made to fail by a test".to_owned(), after: None };
                    return vec![outcome; documents.len()];
                }
                FaultPlan::Delay(time) => {
                    tokio::time::sleep(time).await;
                    break;
                }
                // With the handle gone nobody can let the call go on.
                FaultPlan::Hold if plan.changed().await.is_err() => break,
                FaultPlan::Hold => {}
            }
        }
        self.index.bulk(documents, mode).await
    }

    async fn reject(&self, text: &str, documents: Vec<Document>, mode: Mode) -> Vec<Outcome> {
        let holds = |document: &Document, text: &str| {
            let found = memchr::memmem::find(&document.body, text.as_bytes());
            !text.is_empty() && found.is_some()
        };
        let refused: Vec<bool> =
            documents.iter().map(|document| holds(document, text) && !holds(document, "\"dead_lettered\"")).collect();
        let passing =
            documents.into_iter().zip(&refused).filter_map(|(document, refused)| (!refused).then_some(document));
        let mut outcomes = self.index.bulk(passing.collect(), mode).await.into_iter();
        let unanswered =
            || Outcome::Retry { reason: "the index did not answer for every document".to_owned(), after: None };
        let reason = format!("made to refuse `{text}` by a test");
        let answer = |refused: bool| match refused {
            true => Outcome::Rejected { reason: reason.clone() },
            false => outcomes.next().unwrap_or_else(unanswered),
        };
        refused.into_iter().map(answer).collect()
    }
}

impl<I: Index> Index for Faulty<I> {
    fn bulk(&self, documents: Vec<Document>, mode: Mode) -> BoxFuture<'_, Vec<Outcome>> {
        Box::pin(self.write(documents, mode))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.index.close()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::index::contract::document;

    struct Good;

    impl Index for Good {
        fn bulk(&self, documents: Vec<Document>, _: Mode) -> BoxFuture<'_, Vec<Outcome>> {
            Box::pin(async move { vec![Outcome::Created; documents.len()] })
        }

        fn close(&self) -> BoxFuture<'_, ()> {
            Box::pin(async {})
        }
    }

    #[tokio::test]
    async fn calls_follow_the_plan_of_the_moment() {
        let (index, plan) = Faulty::new(Good);
        let index = Arc::new(index);
        let write = || index.bulk(vec![document(1, 0, "x")], Mode::Create);
        assert_eq!(write().await, [Outcome::Created]);
        plan.set(FaultPlan::Fail);
        assert!(matches!(write().await[0], Outcome::Retry { .. }));
        plan.set(FaultPlan::Delay(Duration::from_millis(30)));
        let began = std::time::Instant::now();
        assert_eq!(write().await, [Outcome::Created]);
        assert!(began.elapsed() >= Duration::from_millis(30));
        plan.set(FaultPlan::Hold);
        let held = write();
        tokio::pin!(held);
        assert!(futures_util::poll!(&mut held).is_pending());
        plan.set(FaultPlan::None);
        assert_eq!(held.await, [Outcome::Created]);
    }

    #[tokio::test]
    async fn what_holds_the_text_is_refused_and_its_neighbours_are_not() {
        let (index, plan) = Faulty::new(Good);
        plan.set(FaultPlan::Reject("bad".to_owned()));
        let documents = vec![document(1, 0, "good"), document(1, 10, "bad"), document(1, 20, "good")];
        let outcomes = index.bulk(documents, Mode::Create).await;
        assert!(matches!(outcomes[..], [Outcome::Created, Outcome::Rejected { .. }, Outcome::Created]), "{outcomes:?}");
    }

    #[test]
    fn a_plan_is_read_from_text() {
        assert_eq!(FaultPlan::parse(" delay 20\n"), Some(FaultPlan::Delay(Duration::from_millis(20))));
        assert_eq!(FaultPlan::parse(""), Some(FaultPlan::None));
        assert_eq!(FaultPlan::parse("fail"), Some(FaultPlan::Fail));
        assert_eq!(FaultPlan::parse("hold on"), None);
        assert_eq!(FaultPlan::parse("delay"), None);
    }
}
