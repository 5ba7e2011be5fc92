//! What every [`Index`] must do, as tests: the promises of the trait, one function each.
//!
//! An implementation gives a [`Subject`] around a fresh index, and lists the tests with [`index_contract!`]:
//!
//! ```text
//! mod contract {
//!     index_contract!(super::subject());
//! }
//! ```

#![allow(clippy::panic, clippy::missing_panics_doc, reason = "a test that fails panics")]

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use logmesh_proto::{RecordId, StreamKey};

use super::{Index, Mode, Outcome};
use crate::document::Document;

/// An index under test, and what the tests need to know about it and do to it.
pub trait Subject: Send + Sync {
    /// The index: empty when the test begins.
    fn index(&self) -> &dyn Index;
    /// Bodies of the searchable documents with this id, by a search that starts now.
    fn find(&self, id: RecordId) -> BoxFuture<'_, Vec<Bytes>>;
    /// Body of the document with this id, as it is promised to be found at once: by a search, where the index does not say
    /// otherwise.
    fn find_at_once(&self, id: RecordId) -> BoxFuture<'_, Vec<Bytes>> {
        self.find(id)
    }
    /// Waits until searches see what was answered, where the index promises that for later than the answer.
    fn settle(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    /// From now on no write becomes durable.
    fn break_writes(&self);
    /// Writes are possible again.
    fn heal_writes(&self);
}

/// Received at 2026-11-23 00:00:00 UTC.
pub const RECEIVED: u64 = 1_795_392_000_000_000_000;

/// A document of the stream `stream` whose record is `text` and a line feed, at `offset`.
#[must_use]
pub fn document(stream: u8, offset: u64, text: &str) -> Document {
    let stream_key = StreamKey::from_bytes([stream; 16]);
    let timestamp = RECEIVED as i64 + offset as i64 * 1_000_000;
    let body = serde_json::json!({ "message": text, "log": { "offset": offset } });
    Document {
        id: RecordId::derive(stream_key, offset, text.as_bytes()),
        stream_key,
        offset,
        end_offset: offset + text.len() as u64 + 1,
        index: Arc::from("logmesh-default-2026.11.23"),
        timestamp_unix_nano: timestamp,
        received_unix_nano: RECEIVED,
        resend: false,
        body: Bytes::from(body.to_string()),
    }
}

/// Documents of one stream, end to end, each with the word `text`.
#[must_use]
pub fn stream_of(stream: u8, texts: &[&str]) -> Vec<Document> {
    let mut offset = 0;
    let next = |text: &&str| {
        let document = document(stream, offset, text);
        offset = document.end_offset;
        document
    };
    texts.iter().map(next).collect()
}

async fn create(subject: &dyn Subject, documents: &[Document]) -> Vec<Outcome> {
    subject.index().bulk(documents.to_vec(), Mode::Create).await
}

async fn assert_each_is_there_once(subject: &dyn Subject, documents: &[Document]) {
    for document in documents {
        let found = subject.find_at_once(document.id).await;
        assert_eq!(found, std::slice::from_ref(&document.body), "at once, offset {}", document.offset);
    }
    subject.settle().await;
    for document in documents {
        assert_eq!(subject.find(document.id).await, std::slice::from_ref(&document.body), "offset {}", document.offset);
    }
}

fn assert_all_retry(outcomes: &[Outcome]) {
    for outcome in outcomes {
        assert!(matches!(outcome, Outcome::Retry { reason, .. } if !reason.is_empty()), "{outcome:?}");
    }
}

/// New documents are `Created`, and searchable when the outcome is there.
pub async fn a_new_document_is_created_and_searchable_when_answered(subject: &dyn Subject) {
    let documents = stream_of(1, &["one", "two", ""]);
    assert_eq!(create(subject, &documents).await, vec![Outcome::Created; 3]);
    assert_each_is_there_once(subject, &documents).await;
}

/// What is written again `Exists`, once.
pub async fn the_same_again_exists(subject: &dyn Subject) {
    let documents = stream_of(1, &["one", "two", "three"]);
    create(subject, &documents[..2]).await;
    let outcomes = create(subject, &documents).await;
    assert_eq!(outcomes, [Outcome::Exists, Outcome::Exists, Outcome::Created]);
    assert_each_is_there_once(subject, &documents).await;
}

/// A document twice in one call is written once.
pub async fn the_same_twice_in_one_call_is_one_document(subject: &dyn Subject) {
    let one = document(1, 0, "one");
    let outcomes = create(subject, &[one.clone(), one.clone()]).await;
    assert_eq!(outcomes, [Outcome::Created, Outcome::Exists]);
    assert_each_is_there_once(subject, &[one]).await;
}

/// Overlapping calls in any order leave each document once, and every call hears that its documents are there.
pub async fn concurrent_duplicates_become_one_document(subject: &dyn Subject) {
    let texts: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let documents = stream_of(1, &texts);
    let parts = [0..50, 10..40, 0..25, 25..50, 49..50, 0..1];
    let outcomes = join_all(parts.into_iter().map(|part| create(subject, &documents[part]))).await;
    let all: Vec<&Outcome> = outcomes.iter().flatten().collect();
    assert!(all.iter().all(|outcome| outcome.is_done()), "{all:?}");
    assert_eq!(all.iter().filter(|outcome| ***outcome == Outcome::Created).count(), 50);
    assert_each_is_there_once(subject, &documents).await;
}

/// Batches out of order, with gaps that are filled later, lose and double nothing.
pub async fn order_of_arrival_does_not_matter(subject: &dyn Subject) {
    let documents = stream_of(1, &["a", "bb", "ccc", "dddd", "eeeee"]);
    for at in [3, 1, 4, 0, 2] {
        assert_eq!(create(subject, &documents[at..=at]).await, [Outcome::Created]);
    }
    assert_eq!(create(subject, &documents).await, vec![Outcome::Exists; 5]);
    assert_each_is_there_once(subject, &documents).await;
}

/// Another stream's offsets and texts say nothing about this one's.
pub async fn streams_do_not_mix(subject: &dyn Subject) {
    let documents = [stream_of(1, &["same", "text"]), stream_of(2, &["same", "text"])].concat();
    assert_eq!(create(subject, &documents).await, vec![Outcome::Created; 4]);
    assert_each_is_there_once(subject, &documents).await;
}

/// A document that cannot be indexed is `Rejected`; its neighbours are written.
pub async fn a_bad_document_harms_only_itself(subject: &dyn Subject) {
    let mut documents = stream_of(1, &["good", "bad", "also good"]);
    documents[1].body = Bytes::from_static(b"{\"message\": ");
    let outcomes = create(subject, &documents).await;
    assert!(matches!(&outcomes[1], Outcome::Rejected { reason } if !reason.is_empty()), "{outcomes:?}");
    assert_eq!((&outcomes[0], &outcomes[2]), (&Outcome::Created, &Outcome::Created));
    assert_each_is_there_once(subject, &[documents[0].clone(), documents[2].clone()]).await;
    // Refused is not indexed: the reduced document takes its place.
    documents[1].body = Bytes::from_static(b"{\"message\": \"reduced\"}");
    assert_eq!(create(subject, &documents[1..2]).await, [Outcome::Created]);
}

/// What was marked as sent again is looked up by id, so that neither a document is doubled nor another text at the same
/// place taken for it.
pub async fn a_resent_document_is_known_by_its_id(subject: &dyn Subject) {
    let documents = stream_of(1, &["one", "two"]);
    create(subject, &documents).await;
    let again = |mut document: Document| {
        document.resend = true;
        document
    };
    let resent: Vec<Document> = documents.iter().cloned().map(again).collect();
    assert_eq!(create(subject, &resent).await, vec![Outcome::Exists; 2]);
    let rewritten = again(document(1, 0, "uno"));
    let twice = [rewritten.clone(), rewritten.clone()];
    assert_eq!(create(subject, &twice).await, [Outcome::Created, Outcome::Exists]);
    assert_each_is_there_once(subject, &[documents[0].clone(), documents[1].clone(), rewritten]).await;
}

/// `Mode::Index` replaces a document, and adds one that was not there.
pub async fn index_mode_replaces(subject: &dyn Subject) {
    let documents = stream_of(1, &["one", "two"]);
    create(subject, &documents[..1]).await;
    let mut whole = documents.clone();
    for document in &mut whole {
        document.body = Bytes::from(format!("{{\"message\":\"whole {}\"}}", document.offset));
    }
    for _ in 0..2 {
        assert_eq!(subject.index().bulk(whole.clone(), Mode::Index).await, vec![Outcome::Created; 2]);
        assert_each_is_there_once(subject, &whole).await;
    }
    assert_eq!(create(subject, &documents).await, vec![Outcome::Exists; 2]);
    assert_each_is_there_once(subject, &whole).await;
}

/// While writes fail every outcome is `Retry`, for first writes and for duplicates of what is under way; what was there
/// before is still there; and when writes are possible again, each document is written once.
pub async fn a_retry_after_a_failed_commit_doubles_nothing(subject: &dyn Subject) {
    let documents = stream_of(1, &["one", "two", "three", "four"]);
    create(subject, &documents[..1]).await;
    subject.break_writes();
    let calls = join_all((0..3).map(|_| create(subject, &documents[1..]))).await;
    calls.iter().for_each(|outcomes| assert_all_retry(outcomes));
    assert_all_retry(&create(subject, &documents[1..2]).await);
    subject.heal_writes();
    let outcomes = create(subject, &documents).await;
    assert_eq!(outcomes[0], Outcome::Exists);
    assert!(outcomes.iter().all(Outcome::is_done), "{outcomes:?}");
    assert_eq!(create(subject, &documents).await, vec![Outcome::Exists; 4]);
    assert_each_is_there_once(subject, &documents).await;
}

/// After `close` nothing is taken, and closing again does nothing.
pub async fn a_closed_index_takes_nothing(subject: &dyn Subject) {
    let documents = stream_of(1, &["one", "two"]);
    assert_eq!(create(subject, &documents[..1]).await, [Outcome::Created]);
    subject.index().close().await;
    subject.index().close().await;
    assert_all_retry(&create(subject, &documents[1..]).await);
}

/// No documents, no outcomes.
pub async fn an_empty_call_is_answered(subject: &dyn Subject) {
    assert_eq!(create(subject, &[]).await, []);
}

/// Makes one test of each function of this module, each with a subject of its own.
#[macro_export]
macro_rules! index_contract {
    ($subject:expr) => {
        $crate::index_contract!($subject =>
            a_new_document_is_created_and_searchable_when_answered,
            the_same_again_exists,
            the_same_twice_in_one_call_is_one_document,
            concurrent_duplicates_become_one_document,
            order_of_arrival_does_not_matter,
            streams_do_not_mix,
            a_bad_document_harms_only_itself,
            a_resent_document_is_known_by_its_id,
            index_mode_replaces,
            a_retry_after_a_failed_commit_doubles_nothing,
            a_closed_index_takes_nothing,
            an_empty_call_is_answered,
        );
    };
    ($subject:expr => $($claim:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                let subject = $subject;
                $crate::index::contract::$claim(&subject).await;
            }
        )+
    };
}
