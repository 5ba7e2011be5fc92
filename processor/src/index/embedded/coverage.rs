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
