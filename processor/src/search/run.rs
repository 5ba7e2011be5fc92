//! Running a search over a view: counting, the best hits in order, and all hits one after the other.
//!
//! Blocking; a deadline ends what takes too long. Hits are ordered by `@timestamp`, then by the order in which they were
//! written, which no merge of segments changes.

use std::{cmp::Reverse, collections::BinaryHeap, ops::ControlFlow, time::Instant};

use bytes::Bytes;
use logmesh_proto::RecordId;
use tantivy::{
    COLLECT_BLOCK_BUFFER_LEN, DateTime, DocAddress, DocId, SegmentReader, TantivyDocument, TantivyError,
    columnar::Column,
    query::{EnableScoring, Query, Weight},
    schema::Value,
};
use thiserror::Error;

use crate::index::embedded::{View, schema};

/// Bytes of hits in one page; it ends early rather than hold more, but holds one hit at least.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// Which hits come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Greatest `@timestamp` first; of the same time, the one written last.
    #[default]
    NewestFirst,
    /// Least `@timestamp` first; of the same time, the one written first.
    OldestFirst,
}

/// Sort key of a hit: unique, and the same for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// `@timestamp` in nanoseconds since 1970-01-01 UTC.
    pub(crate) time: i64,
    /// Sequence number of the document.
    pub(crate) sequence: u64,
}

impl Rank {
    /// A key of which the greatest comes first. Its own inverse.
    fn keyed(self, order: Order) -> Self {
        match order {
            Order::NewestFirst => self,
            Order::OldestFirst => Self { time: !self.time, sequence: !self.sequence },
        }
    }
}

/// The documents that a search is about, beside its query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Least `@timestamp`, in nanoseconds since 1970-01-01 UTC.
    pub(crate) from: i64,
    /// `@timestamp` that is too great; `i64::MAX` excludes nothing.
    pub(crate) to: i64,
    /// Least sequence number.
    pub(crate) since: u64,
    /// Sequence number that is too great.
    pub(crate) sequence_end: u64,
}

impl Window {
    fn holds(&self, rank: Rank) -> bool {
        rank.time >= self.from
            && (rank.time < self.to || self.to == i64::MAX)
            && (self.since..self.sequence_end).contains(&rank.sequence)
    }

    /// Whether no, or every, document between two ranks is inside.
    fn holds_all(&self, least: Rank, greatest: Rank) -> Option<bool> {
        let none = greatest.time < self.from
            || (least.time >= self.to && self.to != i64::MAX)
            || greatest.sequence < self.since
            || least.sequence >= self.sequence_end;
        match (none, self.holds(least) && self.holds(greatest)) {
            (true, _) => Some(false),
            (false, true) => Some(true),
            (false, false) => None,
        }
    }
}

/// Why a search came to no end.
#[derive(Debug, Error)]
pub enum SearchError {
    /// The index could not be read.
    #[error("the index cannot be read: {0}")]
    Index(#[from] TantivyError),
    /// The deadline passed.
    #[error("the search took too long; narrow the time or the query")]
    TimedOut,
    /// A document lies in the index otherwise than it was written.
    #[error("a document in the index is damaged")]
    Damaged,
}

/// One page of hits.
#[derive(Debug)]
pub(crate) struct Page {
    /// All hits of the search, on all pages.
    pub(crate) total: u64,
    /// The hits: documents in JSON with `_id` and `_index`.
    pub(crate) hits: Vec<Bytes>,
    /// Rank of the last hit, if more follow.
    pub(crate) next: Option<Rank>,
    /// What a later search gives as `since` to find exactly what became searchable after this one.
    pub(crate) revision: u64,
}

/// A search, ready to run.
pub(crate) struct Search<'a> {
    pub(crate) view: &'a View,
    pub(crate) query: &'a dyn Query,
    pub(crate) window: Window,
    pub(crate) deadline: Instant,
}

/// A segment with what is needed to search it.
struct Part<'a> {
    day: usize,
    ord: u32,
    reader: &'a SegmentReader,
    times: Column<DateTime>,
    sequences: Column<u64>,
    least: Rank,
    greatest: Rank,
}

/// A hit that is kept: its key, then where it is.
type Kept = Reverse<(Rank, usize, u32, DocId)>;

impl Search<'_> {
    /// Number of hits.
    pub(crate) fn count(&self) -> Result<u64, SearchError> {
        let mut total = 0;
        for part in self.parts(Order::NewestFirst)? {
            total += self.count_part(&part)?;
        }
        Ok(total)
    }

    fn count_part(&self, part: &Part<'_>) -> Result<u64, SearchError> {
        self.check_deadline()?;
        if self.window.holds_all(part.least, part.greatest) == Some(true) {
            return Ok(self.weight(part.day)?.count(part.reader)?.into());
        }
        let mut total = 0;
        self.each_rank(part, |_, _| total += 1)?;
        Ok(total)
    }

    /// The first `limit` hits behind `after`, in order.
    pub(crate) fn page(&self, order: Order, limit: usize, after: Option<Rank>) -> Result<Page, SearchError> {
        let after = after.map(|rank| rank.keyed(order));
        let mut best: BinaryHeap<Kept> = BinaryHeap::new();
        let (mut total, mut behind) = (0, 0_u64);
        for part in self.parts(order)? {
            // Once the page is full, a segment without any better hit need only be counted.
            let top = part.least.keyed(order).max(part.greatest.keyed(order));
            let full = best.len() == limit;
            if full && best.peek().is_none_or(|worst| top < worst.0.0) {
                let hits = self.count_part(&part)?;
                (total, behind) = (total + hits, behind + hits);
                continue;
            }
            self.each_rank(&part, |doc, rank| {
                total += 1;
                let key = rank.keyed(order);
                if after.is_some_and(|after| key >= after) {
                    return;
                }
                behind += 1;
                if best.len() < limit {
                    best.push(Reverse((key, part.day, part.ord, doc)));
                } else if best.peek().is_some_and(|worst| key > worst.0.0) {
                    best.pop();
                    best.push(Reverse((key, part.day, part.ord, doc)));
                }
            })?;
        }
        self.fetch(order, total, behind, best)
    }

    fn fetch(&self, order: Order, total: u64, behind: u64, best: BinaryHeap<Kept>) -> Result<Page, SearchError> {
        let mut page =
            Page { total, hits: Vec::with_capacity(best.len()), next: None, revision: self.window.sequence_end };
        let (mut bytes, mut last) = (0, None);
        for Reverse((key, day, ord, doc)) in best.into_sorted_vec() {
            self.check_deadline()?;
            let hit = self.document(day, DocAddress::new(ord, doc))?;
            if !page.hits.is_empty() && bytes + hit.len() > PAGE_BYTES_MAX {
                break;
            }
            bytes += hit.len();
            page.hits.push(hit);
            last = Some(key.keyed(order));
        }
        if behind > page.hits.len() as u64 {
            page.next = last;
        }
        Ok(page)
    }

    /// Every hit, newest segments first and in each as they lie there, until `each` breaks.
    pub(crate) fn all(&self, mut each: impl FnMut(Bytes) -> ControlFlow<()>) -> Result<(), SearchError> {
        for part in self.parts(Order::NewestFirst)? {
            let mut failed = None;
            let mut visit = |doc: DocId, _: Rank| match self.document(part.day, DocAddress::new(part.ord, doc)) {
                Ok(document) => each(document),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            };
            let flow = self.visit_ranks(&part, &mut visit, false)?;
            if let Some(error) = failed {
                return Err(error);
            }
            if flow.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn check_deadline(&self) -> Result<(), SearchError> {
        if Instant::now() > self.deadline { Err(SearchError::TimedOut) } else { Ok(()) }
    }

    fn weight(&self, day: usize) -> Result<Box<dyn Weight>, SearchError> {
        let searcher = &self.view.days[day].searcher;
        Ok(self.query.weight(EnableScoring::disabled_from_searcher(searcher))?)
    }

    /// The segments that can hold hits, the one with the first hit first.
    fn parts(&self, order: Order) -> Result<Vec<Part<'_>>, SearchError> {
        let mut parts = Vec::new();
        for (day, view) in self.view.days.iter().enumerate() {
            for (ord, reader) in (0..).zip(view.searcher.segment_readers()) {
                let times: Column<DateTime> = reader.fast_fields().date(schema::TIMESTAMP)?;
                let sequences = reader.fast_fields().u64(schema::SEQUENCE)?;
                let rank = |time: DateTime, sequence| Rank { time: time.into_timestamp_nanos(), sequence };
                let least = rank(times.min_value(), sequences.min_value());
                let greatest = rank(times.max_value(), sequences.max_value());
                if self.window.holds_all(least, greatest) != Some(false) {
                    parts.push(Part { day, ord, reader, times, sequences, least, greatest });
                }
            }
        }
        parts.sort_by_key(|part| Reverse(part.least.keyed(order).max(part.greatest.keyed(order))));
        Ok(parts)
    }

    fn each_rank(&self, part: &Part<'_>, mut each: impl FnMut(DocId, Rank)) -> Result<(), SearchError> {
        let mut visit = |doc, rank| {
            each(doc, rank);
            ControlFlow::Continue(())
        };
        self.visit_ranks(part, &mut visit, true).map(|_| ())
    }

    fn visit_ranks(
        &self,
        part: &Part<'_>,
        visit: &mut dyn FnMut(DocId, Rank) -> ControlFlow<()>,
        timed: bool,
    ) -> Result<ControlFlow<()>, SearchError> {
        let mut scorer = self.weight(part.day)?.scorer(part.reader, 1.0)?;
        let mut docs = [0; COLLECT_BLOCK_BUFFER_LEN];
        loop {
            if timed {
                self.check_deadline()?;
            }
            let count = scorer.fill_buffer(&mut docs);
            let (mut times, mut sequences) = ([None; COLLECT_BLOCK_BUFFER_LEN], [None; COLLECT_BLOCK_BUFFER_LEN]);
            part.times.first_vals(&docs[..count], &mut times[..count]);
            part.sequences.first_vals(&docs[..count], &mut sequences[..count]);
            for ((doc, time), sequence) in docs[..count].iter().zip(times).zip(sequences) {
                let (Some(time), Some(sequence)) = (time, sequence) else { continue };
                let rank = Rank { time: time.into_timestamp_nanos(), sequence };
                if !part.reader.is_deleted(*doc) && self.window.holds(rank) && visit(*doc, rank).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if count < docs.len() {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    /// A document as it is shown: its body, with `_id` and `_index` before its own members.
    fn document(&self, day: usize, address: DocAddress) -> Result<Bytes, SearchError> {
        let fields = &self.view.fields;
        let stored: TantivyDocument = self.view.days[day].searcher.doc(address)?;
        let id = stored.get_first(fields.id).and_then(|id| id.as_bytes()).and_then(|id| id.try_into().ok());
        let index = stored.get_first(fields.index).and_then(|index| index.as_str());
        let body = stored.get_first(fields.body).and_then(|body| body.as_str());
        let (Some(id), Some(index), Some(body)) = (id, index, body) else { return Err(SearchError::Damaged) };
        let members = body.trim_ascii().strip_prefix('{').ok_or(SearchError::Damaged)?.trim_ascii_start();
        let mut out = Vec::with_capacity(body.len() + index.len() + 64);
        out.extend_from_slice(b"{\"_id\":\"");
        out.extend_from_slice(&RecordId::from_bytes(id).hex());
        out.extend_from_slice(b"\",\"_index\":");
        serde_json::to_writer(&mut out, index).map_err(|_| SearchError::Damaged)?;
        out.extend_from_slice(if members.starts_with('}') { b"" } else { b"," });
        out.extend_from_slice(members.as_bytes());
        Ok(Bytes::from(out))
    }
}
