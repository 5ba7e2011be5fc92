//! What is known to be indexed or on its way: decides what to do with each document. Pure; owns no files.

use std::collections::{BTreeMap, HashMap};

use logmesh_proto::RecordId;

use super::calendar::ArrivalDay;
use crate::{
    document::Document,
    index::{Mode, intervals::Intervals},
};

/// What to do with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is there, durable and searchable.
    Exists,
    /// The same document waits for this day's next commit: its fate is this one's.
    SameAsPending(ArrivalDay),
    /// To be added; with a day, instead of the one that is there.
    Add {
        /// Where the document to be replaced is.
        replace: Option<ArrivalDay>,
    },
}

/// Coverage of all directories, and what the next commits will add to it.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    /// Union of the intervals of all directories.
    committed: Intervals,
    /// Intervals of directories that retention has dropped.
    dropped: Intervals,
    pending: BTreeMap<ArrivalDay, Intervals>,
    pending_ids: HashMap<RecordId, ArrivalDay>,
}

impl Coverage {
    /// Takes in a directory's committed intervals; those of a directory taken in before may come again.
    pub(crate) fn add_committed(&mut self, intervals: &Intervals) {
        self.committed.extend(intervals);
    }

    /// Starts over from the directories that are left and the intervals of those that are not.
    pub(crate) fn reset<'a>(&mut self, committed: impl Iterator<Item = &'a Intervals>, dropped: Intervals) {
        self.committed.clear();
        self.dropped = dropped;
        committed.for_each(|intervals| self.committed.extend(intervals));
    }

    /// Decides about a document. `find` looks a document up by its id in the committed directories; it is asked only
    /// where the id can be there at all.
    ///
    /// An id is made of stream key, offset and body, so a document whose offset no directory covers is nowhere: most
    /// records of a sender that lost its state cost no look-up. Whether a record that retention dropped was sent
    /// before cannot be known by its id any more: marked as `resend`, it comes back (twice beats lost).
    ///
    /// # Errors
    /// Those of `find`.
    pub(crate) fn decide<E>(
        &self,
        document: &Document,
        mode: Mode,
        mut find: impl FnMut(&Document) -> Result<Option<ArrivalDay>, E>,
    ) -> Result<Decision, E> {
        let (key, offset) = (document.stream_key, document.offset);
        let committed = self.committed.covers(key, offset);
        match mode {
            Mode::Create if document.resend => {
                if let Some(day) = self.pending_ids.get(&document.id) {
                    return Ok(Decision::SameAsPending(*day));
                }
                let found = committed && find(document)?.is_some();
                Ok(if found { Decision::Exists } else { Decision::Add { replace: None } })
            }
            Mode::Create => {
                if committed || self.dropped.covers(key, offset) {
                    return Ok(Decision::Exists);
                }
                let pending = self.pending.iter().find(|(_, intervals)| intervals.covers(key, offset));
                Ok(pending.map_or(Decision::Add { replace: None }, |(day, _)| Decision::SameAsPending(*day)))
            }
            Mode::Index => {
                let replace = match self.pending_ids.get(&document.id) {
                    Some(day) => Some(*day),
                    None if committed => find(document)?,
                    None => None,
                };
                Ok(Decision::Add { replace })
            }
        }
    }

    /// Notes that a document was added to a day.
    pub(crate) fn added(&mut self, document: &Document, day: ArrivalDay) {
        self.pending.entry(day).or_default().insert(document.stream_key, document.offset, document.end_offset);
        self.pending_ids.insert(document.id, day);
    }

    /// Notes that a day's pending documents are committed, or that they are lost.
    pub(crate) fn settle(&mut self, day: ArrivalDay, committed: bool) {
        if let Some(intervals) = self.pending.remove(&day)
            && committed
        {
            self.committed.extend(&intervals);
        }
        if self.pending.is_empty() {
            self.pending_ids.clear();
        } else {
            self.pending_ids.retain(|_, of| *of != day);
        }
    }

    /// Streams and intervals of all directories.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.committed.size()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use bytes::Bytes;
    use logmesh_proto::StreamKey;
    use proptest::prelude::*;

    use super::*;

    /// What the index would hold: place, id and day of each document.
    #[derive(Default)]
    struct Model {
        committed: Vec<(u64, RecordId, ArrivalDay)>,
        pending: Vec<(u64, RecordId, ArrivalDay)>,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write { place: u64, text: u8, resend: bool, mode: Mode, day: u32 },
        Settle { day: u32, committed: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        let mode = prop_oneof![4 => Just(Mode::Create), 1 => Just(Mode::Index)];
        let write = (0_u64..12, 0_u8..2, prop::bool::weighted(0.3), mode, 0_u32..3)
            .prop_map(|(place, text, resend, mode, day)| Step::Write { place, text, resend, mode, day });
        let settle = (0_u32..3, prop::bool::weighted(0.7)).prop_map(|(day, committed)| Step::Settle { day, committed });
        prop_oneof![6 => write, 1 => settle]
    }

    fn document(place: u64, text: u8, resend: bool) -> Document {
        let stream_key = StreamKey::from_bytes([u8::try_from(place % 2).unwrap_or_default(); 16]);
        let offset = place / 2 * 10;
        Document {
            id: RecordId::derive(stream_key, offset, &[text]),
            stream_key,
            offset,
            end_offset: offset + 10,
            index: Arc::from("logmesh-default-2026.11.23"),
            timestamp_unix_nano: 0,
            received_unix_nano: 0,
            resend,
            body: Bytes::new(),
        }
    }

    impl Model {
        fn find(&self, id: RecordId) -> Option<ArrivalDay> {
            self.committed.iter().find(|held| held.1 == id).map(|held| held.2)
        }

        /// What must be decided, by looking through all documents.
        fn expected(&self, document: &Document, place: u64, mode: Mode) -> Decision {
            let pending_id = self.pending.iter().find(|held| held.1 == document.id).map(|held| held.2);
            // The least day, where several hold the place.
            let pending_place = self.pending.iter().filter(|held| held.0 == place).map(|held| held.2).min();
            let committed_place = self.committed.iter().any(|held| held.0 == place);
            match (mode, document.resend) {
                (Mode::Index, _) => Decision::Add { replace: pending_id.or_else(|| self.find(document.id)) },
                (Mode::Create, true) => match (pending_id, self.find(document.id)) {
                    (Some(day), _) => Decision::SameAsPending(day),
                    (None, Some(_)) => Decision::Exists,
                    (None, None) => Decision::Add { replace: None },
                },
                (Mode::Create, false) => match (committed_place, pending_place) {
                    (true, _) => Decision::Exists,
                    (false, Some(day)) => Decision::SameAsPending(day),
                    (false, None) => Decision::Add { replace: None },
                },
            }
        }

        fn add(&mut self, place: u64, id: RecordId, day: ArrivalDay) {
            self.pending.retain(|held| held.1 != id);
            self.pending.push((place, id, day));
        }

        fn settle(&mut self, day: ArrivalDay, committed: bool) {
            let (settled, pending) = std::mem::take(&mut self.pending).into_iter().partition(|held| held.2 == day);
            self.pending = pending;
            let settled: Vec<_> = settled;
            for held in settled.into_iter().filter(|_| committed) {
                self.committed.retain(|old| old.1 != held.1);
                self.committed.push(held);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn decisions_are_those_of_an_index_that_looks_through_all_its_documents(
            steps in prop::collection::vec(step(), 0..120),
        ) {
            let (mut coverage, mut model) = (Coverage::default(), Model::default());
            for step in steps {
                match step {
                    Step::Settle { day, committed } => {
                        let day = ArrivalDay::from_number(day);
                        coverage.settle(day, committed);
                        model.settle(day, committed);
                    }
                    Step::Write { place, text, resend, mode, day } => {
                        let document = document(place, text, resend);
                        let find = |document: &Document| Ok::<_, Infallible>(model.find(document.id));
                        let Ok(decision) = coverage.decide(&document, mode, find);
                        prop_assert_eq!(decision, model.expected(&document, place, mode));
                        if let Decision::Add { replace } = decision {
                            let day = replace.unwrap_or(ArrivalDay::from_number(day));
                            coverage.added(&document, day);
                            model.add(place, document.id, day);
                        }
                    }
                }
                let mut ids: Vec<RecordId> = model.committed.iter().chain(&model.pending).map(|held| held.1).collect();
                let written = ids.len();
                ids.sort_unstable();
                ids.dedup();
                // A replacement waits beside the document that it will take the place of, on the same day.
                let replacing = model.pending.iter().filter(|held| model.find(held.1) == Some(held.2)).count();
                prop_assert_eq!(written, ids.len() + replacing, "no document is held twice");
            }
        }
    }
}
