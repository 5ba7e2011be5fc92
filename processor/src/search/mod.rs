//! Search over HTTP: `/api/search`, `/api/count`, `/api/export`, on the embedded index.
//!
//! Owns the query language ([`query`]), what it means for the index ([`lower`]), the order of hits and the pages of them
//! ([`run`], [`cursor`]), and how all that looks over HTTP ([`http`]). The index's files are not its own: it reads
//! views of them, each consistent in itself, and never waits for writers.
//!
//! A search sees what was searchable when it began; pages that follow by cursor see the same documents as the first.

mod cursor;
mod export;
mod has_path;
mod http;
mod lower;
pub mod query;
mod run;
#[cfg(test)]
mod tests;
mod time;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tantivy::query::Query;
use thiserror::Error;

use self::{
    cursor::Cursor,
    query::QueryError,
    run::{Page, Search, Window},
};
pub use self::{
    http::router,
    run::{Order, SearchError},
};
use crate::index::embedded::{Embedded, View};

/// Most hits on a page.
pub const LIMIT_MAX: usize = 10_000;

/// Hits on a page where nothing is asked for.
pub const LIMIT_DEFAULT: usize = 100;

/// Longest that a search may take.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(30);

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The query; empty: everything.
    pub query: String,
    /// Least `@timestamp`, as people write it; `None`: no least.
    pub from: Option<String>,
    /// `@timestamp` that is too great, as people write it; `None`: none is.
    pub to: Option<String>,
    /// Only what became searchable after the answer that bore this `revision`; 0: everything.
    pub since: u64,
}

/// A question that cannot be asked so.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("{0}")]
    Parameter(String),
    #[error(transparent)]
    Search(#[from] SearchError),
}

/// A question, understood: runs against the view that it was made with.
pub(crate) struct Prepared {
    view: View,
    text: String,
    query: Box<dyn Query>,
    window: Window,
}

impl Prepared {
    /// Understands a question about what is searchable now.
    pub(crate) fn new(index: &Arc<Embedded>, question: Question, now: SystemTime) -> Result<Self, Fault> {
        let now = time::now_unix_nano(now);
        let view = index.view();
        let node = query::parse(&question.query)?;
        let query = lower::lower(&node, &question.query, view.fields, now)?;
        let moment = |name: &str, text: &Option<String>, otherwise: i64| match text.as_deref().map(str::trim) {
            None | Some("") => Ok(otherwise),
            Some(text) => time::parse(text, now).map(|moment| moment.begin).ok_or_else(|| {
                Fault::Parameter(format!(
                    "`{name}` is no time: `{text}`; write 2026-11-23T10:05:03Z, milliseconds since 1970, or now-15m"
                ))
            }),
        };
        let from = moment("from", &question.from, i64::MIN)?;
        let to = moment("to", &question.to, i64::MAX)?;
        let window = Window { from, to, since: question.since, sequence_end: view.next_sequence };
        Ok(Self { view, text: question.query, query, window })
    }

    fn search(&self, deadline: Instant) -> Search<'_> {
        Search { view: &self.view, query: self.query.as_ref(), window: self.window, deadline }
    }

    /// Number of hits.
    pub(crate) fn count(&self) -> Result<u64, Fault> {
        Ok(self.search(Instant::now() + SEARCH_TIME_MAX).count()?)
    }

    /// One page of hits, and the cursor of the next.
    pub(crate) fn page(
        &mut self,
        order: Order,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<(Page, Option<String>), Fault> {
        let mut order = order;
        let mut after = None;
        if let Some(text) = cursor {
            let of_no_page =
                || Fault::Parameter("`cursor` is not one that a page of this query gave as `next`".to_owned());
            let cursor = Cursor::decode(text).filter(|cursor| cursor.is_of(&self.text)).ok_or_else(of_no_page)?;
            (order, after, self.window) = (cursor.order, Some(cursor.last), cursor.window);
        }
        let page = self.search(Instant::now() + SEARCH_TIME_MAX).page(order, limit, after)?;
        let next = page.next.map(|last| Cursor::new(order, last, self.window, &self.text).encode());
        Ok((page, next))
    }
}
