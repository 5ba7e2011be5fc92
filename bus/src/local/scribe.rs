//! The bus's part in its journal's writing: offsets, index, answers.

use std::sync::Arc;

use logmesh_journal::{Log, Owner, State, Written};

use super::codec::{self, Place};
use super::conditions::Conditions;
use super::index::Index;
use super::topics::{Topic, Topics};
use super::wake::Wake;
use crate::{AppendError, DeliverySender, Position, Record};

/// A record on its way to the disk.
pub(super) struct Draft {
    pub(super) topic: Arc<Topic>,
    pub(super) partition: u16,
    pub(super) record: Record,
    pub(super) appended_unix_nano: u64,
    pub(super) answer: DeliverySender,
    /// Known once it is encoded.
    pub(super) offset: u64,
}

/// Offsets are given at the last moment, when a record is encoded, so that those of a partition ascend in the order in which
/// they are written, and a group that could not be written leaves no hole.
pub(super) struct Scribe {
    pub(super) topics: Arc<Topics>,
    pub(super) index: Arc<Index>,
    pub(super) log: Log,
    pub(super) wake: Wake,
    pub(super) conditions: Arc<Conditions>,
    /// Which of the bus's journals this is.
    pub(super) store: usize,
    /// The segment noted last, and when it was begun.
    pub(super) segment: (u64, u64),
}

impl Owner for Scribe {
    type Entry = Draft;

    fn encode(&mut self, draft: &mut Draft, out: &mut Vec<u8>) {
        draft.offset = draft.topic.partitions[usize::from(draft.partition)].take();
        let place = Place {
            topic: &draft.topic.name,
            partition: draft.partition,
            partitions: draft.topic.count(),
            offset: draft.offset,
            appended_unix_nano: draft.appended_unix_nano,
        };
        codec::encode(place, &draft.record, out);
    }

    fn preamble(&mut self) -> Vec<u8> {
        let topics = self.topics.all();
        codec::encode_starts(topics.iter().map(|topic| {
            let ends = topic.partitions.iter().map(super::topics::Ends::durable).collect();
            (topic.name.as_ref(), ends)
        }))
    }

    fn durable(&mut self, entries: Vec<Written<Draft>>) {
        let Some(first) = entries.first() else { return };
        let number = first.position.segment;
        if self.segment.0 != number {
            let begun = self.log.preamble(number).map_or(0, |preamble| preamble.created_unix_nano);
            self.segment = (number, begun);
        }
        self.index.write(number, self.segment.1, |index| {
            for Written { position, length, entry } in &entries {
                let slot = index.slot(entry.offset, position.byte, *length, entry.appended_unix_nano);
                index.push((entry.topic.name.clone(), entry.partition), slot);
            }
        });
        for Written { entry, .. } in &entries {
            entry.topic.partitions[usize::from(entry.partition)].set_durable(entry.offset + 1);
        }
        for Written { entry, .. } in entries {
            let position = Position { partition: u32::from(entry.partition), offset: entry.offset };
            entry.answer.resolve(Ok(position));
        }
        self.wake.all();
    }

    fn failed(&mut self, entries: Vec<Draft>, error: logmesh_journal::AppendError) {
        let error = append_error(error);
        for draft in &entries {
            draft.topic.partitions[usize::from(draft.partition)].rewind();
        }
        for draft in entries {
            draft.answer.resolve(Err(error.clone()));
        }
    }

    fn state_changed(&mut self, state: &State) {
        self.conditions.journal(self.store, state);
    }
}

/// The journal's refusal in the bus's words.
pub(super) fn append_error(error: logmesh_journal::AppendError) -> AppendError {
    use logmesh_journal::AppendError as Journal;
    match error {
        Journal::Full { reason } => AppendError::Full { reason },
        Journal::TooLarge { size, limit } => AppendError::TooLarge { size: size as u64, limit: limit as u64 },
        Journal::Empty => AppendError::Unavailable { reason: "an entry without bytes".to_owned() },
        Journal::Closed => AppendError::Closed,
        Journal::Failed { reason } => AppendError::Fatal { reason },
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use logmesh_journal::{Opened, Options};

    use super::*;
    use crate::Delivery;

    #[test]
    fn offsets_of_what_could_not_be_written_are_given_again() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let opened = Opened::open(Options::new(directory.path())).expect("opens");
        let topics = Arc::new(Topics::default());
        let (topic, _) = topics.ensure("logs", 1).expect("there is room");
        let mut scribe = Scribe {
            topics,
            index: Arc::default(),
            log: opened.log().clone(),
            wake: Wake::new(),
            conditions: Arc::new(Conditions::new()),
            store: 0,
            segment: (0, 0),
        };
        let record = Record { key: Bytes::new(), headers: Vec::new(), value: Bytes::from_static(b"value") };
        let (mut drafts, mut deliveries) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (answer, delivery) = Delivery::channel();
            let (topic, record) = (topic.clone(), record.clone());
            drafts.push(Draft { topic, partition: 0, record, appended_unix_nano: 0, answer, offset: 0 });
            deliveries.push(delivery);
        }
        // Two were encoded when the disk turned out to be full, one was still waiting.
        scribe.encode(&mut drafts[0], &mut Vec::new());
        scribe.encode(&mut drafts[1], &mut Vec::new());
        assert_eq!((drafts[0].offset, drafts[1].offset), (0, 1));
        scribe.failed(drafts.split_off(1), logmesh_journal::AppendError::Full { reason: "no room".to_owned() });
        scribe.encode(&mut drafts[0], &mut Vec::new());
        assert_eq!(drafts[0].offset, 0);
    }
}
