//! What waits to be sent, and what goes together: a pure queue.
//!
//! Documents of all indices leave together, so that many small batches make few requests. Not so those of an index in
//! trouble (closed, forbidden, read-only, without a primary shard): the servers may take long to say so, and what shares a
//! request shares its wait. They go apart, one request for each such index, in slots of their own, until the index is well.
//!
//! Invariant: every piece that was pushed is handed out once, those of one index in their order.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Requests for indices in trouble that are under way, beside the others.
const APART_MAX: usize = 4;

/// Indices that are known to be in trouble; beyond that many they are treated like the others.
const TROUBLED_MAX: usize = 1000;

/// What is queued: `P` with its size in bytes.
type Queue<P> = VecDeque<(usize, P)>;

/// The queue.
#[derive(Debug)]
pub(super) struct Waiting<P> {
    together: Queue<P>,
    /// Bytes in `together`.
    bytes: usize,
    /// Each index that was in trouble when last heard of, even if nothing waits for it.
    apart: BTreeMap<Arc<str>, Queue<P>>,
    /// Those of `apart` with a request under way.
    under_way: BTreeSet<Arc<str>>,
}

impl<P> Default for Waiting<P> {
    fn default() -> Self {
        Self { together: VecDeque::new(), apart: BTreeMap::new(), bytes: 0, under_way: BTreeSet::new() }
    }
}

impl<P> Waiting<P> {
    /// Bytes that wait for nothing but room.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues documents of an index.
    pub(super) fn push(&mut self, index: &str, bytes: usize, piece: P) {
        match self.apart.get_mut(index) {
            Some(queue) => queue.push_back((bytes, piece)),
            None => {
                self.bytes += bytes;
                self.together.push_back((bytes, piece));
            }
        }
    }

    /// What goes out next together: at least one piece, if there is any, and as many as fit `bytes_max`.
    pub(super) fn next_together(&mut self, bytes_max: usize) -> Vec<P> {
        let (pieces, bytes) = take(&mut self.together, bytes_max);
        self.bytes -= bytes;
        pieces
    }

    /// What goes out next by itself, for an index in trouble that has nothing under way.
    pub(super) fn next_apart(&mut self, bytes_max: usize) -> Option<(Arc<str>, Vec<P>)> {
        if self.under_way.len() >= APART_MAX {
            return None;
        }
        let free = |(index, queue): &(&Arc<str>, &mut Queue<P>)| !queue.is_empty() && !self.under_way.contains(*index);
        let (index, queue) = self.apart.iter_mut().find(free)?;
        let (index, (pieces, _)) = (Arc::clone(index), take(queue, bytes_max));
        self.under_way.insert(Arc::clone(&index));
        Some((index, pieces))
    }

    /// Notes that a request of [`Self::next_apart`] ended.
    pub(super) fn ended(&mut self, index: &str) {
        self.under_way.remove(index);
    }

    /// Notes that an index refused documents by no fault of theirs.
    pub(super) fn unwell(&mut self, index: &Arc<str>) {
        if self.apart.len() < TROUBLED_MAX {
            self.apart.entry(Arc::clone(index)).or_default();
        }
    }

    /// Notes that an index took its documents.
    pub(super) fn well(&mut self, index: &str) {
        for (bytes, piece) in self.apart.remove(index).into_iter().flatten() {
            self.bytes += bytes;
            self.together.push_back((bytes, piece));
        }
    }

    /// Whether any index is in trouble: only then is there anything to be told of single ones.
    pub(super) fn has_unwell(&self) -> bool {
        !self.apart.is_empty()
    }

    /// All that waits.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = P> {
        self.bytes = 0;
        let apart = std::mem::take(&mut self.apart).into_values().flatten();
        std::mem::take(&mut self.together).into_iter().chain(apart).map(|(_, piece)| piece)
    }
}

fn take<P>(queue: &mut Queue<P>, bytes_max: usize) -> (Vec<P>, usize) {
    let (mut pieces, mut sum) = (Vec::new(), 0);
    while let Some((bytes, piece)) = queue.pop_front() {
        if !pieces.is_empty() && sum + bytes > bytes_max {
            queue.push_front((bytes, piece));
            break;
        }
        sum += bytes;
        pieces.push(piece);
    }
    (pieces, sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_goes_together_and_one_that_is_larger_by_itself() {
        let mut waiting = Waiting::default();
        for (index, bytes, piece) in [("a", 4, 1), ("b", 4, 2), ("a", 4, 3), ("c", 100, 4)] {
            waiting.push(index, bytes, piece);
        }
        assert_eq!(waiting.bytes(), 112);
        assert_eq!(waiting.next_together(10), [1, 2]);
        assert_eq!(waiting.next_together(10), [3]);
        assert_eq!(waiting.next_together(10), [4]);
        assert_eq!((waiting.next_together(10), waiting.bytes()), (vec![], 0));
    }

    #[test]
    fn an_index_in_trouble_goes_apart_one_request_at_a_time_until_it_is_well() {
        let mut waiting = Waiting::default();
        waiting.unwell(&"a".into());
        for piece in 1..=4 {
            waiting.push(if piece % 2 == 0 { "b" } else { "a" }, 6, piece);
        }
        assert_eq!(waiting.next_together(100), [2, 4]);
        assert_eq!(waiting.next_apart(10), Some(("a".into(), vec![1])));
        assert_eq!(waiting.next_apart(10), None, "one request at a time");
        waiting.ended("a");
        assert_eq!(waiting.next_apart(10), Some(("a".into(), vec![3])));
        waiting.push("a", 6, 5);
        waiting.ended("a");
        waiting.well("a");
        assert!(!waiting.has_unwell());
        assert_eq!(waiting.next_together(10), [5]);
    }

    #[test]
    fn indices_in_trouble_do_not_take_all_slots() {
        let mut waiting = Waiting::default();
        for index in 0..10 {
            waiting.unwell(&index.to_string().into());
            waiting.push(&index.to_string(), 1, index);
        }
        assert_eq!(std::iter::from_fn(|| waiting.next_apart(10)).count(), APART_MAX);
        assert_eq!(waiting.drain().count(), 10 - APART_MAX);
    }
}
