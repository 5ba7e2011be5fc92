//! The index: where documents become searchable.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::document::Document;

/// How documents are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A document whose id is there already stays as it is ([`Outcome::Exists`]).
    Create,
    /// A document replaces the one with its id: for the replay of dead letters.
    Index,
}

/// What became of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written, durable and searchable.
    Created,
    /// There already; nothing was written.
    Exists,
    /// Not written, by no fault of the document: to be tried again.
    Retry {
        /// Why, for people.
        reason: String,
        /// Least time to wait, where the index asked for one.
        after: Option<Duration>,
    },
    /// Refused for good, by a fault of the document.
    Rejected {
        /// The innermost cause, for people.
        reason: String,
    },
    /// Not written, since all of its lane is held (missing index, missing right): to be tried again when cured.
    Held {
        /// Why, for people.
        reason: String,
    },
}

/// A place where documents become searchable.
pub trait Index: Send + Sync + 'static {
    /// Writes documents and answers with one outcome for each, in their order, once each is durable and searchable or
    /// refused. Calls may overlap; how many bytes are under way is bounded by the caller.
    fn bulk(&self, documents: Vec<Document>, mode: Mode) -> BoxFuture<'_, Vec<Outcome>>;

    /// Makes what was taken durable and lets go of files and locks.
    fn close(&self) -> BoxFuture<'_, ()>;
}
