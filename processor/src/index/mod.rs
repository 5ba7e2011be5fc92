//! The index: where documents become searchable.
//!
//! Owns the seam [`Index`] between the processor and whatever keeps documents, the words for what became of each
//! ([`Outcome`]), and the implementations: for one machine ([`embedded`]), and on servers (`elasticsearch`). It does not
//! decide what a document is (`document`), nor how it is asked for (`search`).
//!
//! What every implementation promises is written as tests in `contract`; an implementation that passes them may be put
//! behind the seam.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use crate::document::Document;

pub use self::options::{IndexKind, IndexOptions};

#[cfg(any(test, feature = "contract"))]
pub mod contract;
#[cfg(feature = "elasticsearch")]
pub mod elasticsearch;
#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(any(test, feature = "faults"))]
pub mod faulty;
#[cfg(feature = "embedded")]
mod intervals;
mod options;

/// How documents are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A document that is there already stays as it is ([`Outcome::Exists`]).
    ///
    /// "There already" is decided by the id, or, where the sender did not mark the record as
    /// [`resend`](Document::resend), by the bytes of its stream that the index knows to hold.
    Create,
    /// A document replaces the one with its id, or is added where there is none: for the replay of dead letters. The
    /// outcome is [`Outcome::Created`] either way.
    Index,
}

/// What became of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written, durable and to be found.
    Created,
    /// There already, durable and to be found; nothing was written.
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

impl Outcome {
    /// Whether the document is in the index, by this write or by an earlier one: what a commit on the bus may rest on.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self {
            Self::Created | Self::Exists => true,
            Self::Retry { .. } | Self::Rejected { .. } | Self::Held { .. } => false,
        }
    }
}

/// A place where documents become searchable.
///
/// What callers lean on, and `contract` tests:
///
/// - **An outcome is final.** [`Outcome::Created`] and [`Outcome::Exists`] are given only once the document is durable
///   *and* found by its id from then on: in the embedded index by any search that starts later, on servers at once by a
///   real-time get of its `_id`, and by searches from the index's next refresh on (waiting for that would cost a second
///   for each bulk). Nothing is answered for what is merely in memory.
/// - **Once is enough, twice does no harm.** However often, in whatever order and however concurrently a document is
///   written with [`Mode::Create`], the index holds it once. A duplicate of a document that is still under way waits
///   for that document's fate: it is never told `Exists` about something that may yet be lost.
/// - **A failed write leaves nothing behind** that a later write of the same document would double.
/// - **One bad document harms only itself**: it is [`Outcome::Rejected`], its neighbours in the same call are written.
/// - **The order of outcomes is the order of documents**, one for each, in every case. There is no error beside them.
/// - **Nothing depends on the order of arrival**: batches of a stream may come twice, overlapping and out of order.
///
/// A call that is dropped before it answers may or may not have written its documents; they are simply written again.
pub trait Index: Send + Sync + 'static {
    /// Writes documents and answers with one outcome for each, in their order, once each is durable and to be found, or
    /// refused.
    ///
    /// Calls may overlap; how many bytes are under way is bounded by the caller. An implementation that has no room
    /// makes the call wait. After [`close`](Self::close) every outcome is [`Outcome::Retry`].
    fn bulk(&self, documents: Vec<Document>, mode: Mode) -> BoxFuture<'_, Vec<Outcome>>;

    /// Makes what was taken durable, answers the calls that wait for it, and lets go of files and locks. Calling it
    /// again does nothing.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A shared index is an index.
impl<I: Index + ?Sized> Index for Arc<I> {
    fn bulk(&self, documents: Vec<Document>, mode: Mode) -> BoxFuture<'_, Vec<Outcome>> {
        self.as_ref().bulk(documents, mode)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.as_ref().close()
    }
}
