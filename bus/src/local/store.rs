//! One journal of a local bus with its topics: opening, appending, finding and reading records.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use logmesh_journal::{Item, Journal, Log, Opened, Options, Position, ReadError, SegmentInfo};

use super::codec::{self, Starts};
use super::conditions::Conditions;
use super::index::{Index, Key, SegmentIndex, Slot};
use super::scribe::{Draft, Scribe, append_error};
use super::topics::{Topic, Topics};
use super::wake::Wake;
use crate::{AppendError, BusError, Delivered};

/// Decoded preambles that are kept.
const STARTS_KEPT: usize = 64;

/// A journal and what is known about it.
pub(super) struct Store {
    pub(super) topics: Arc<Topics>,
    pub(super) journal: Journal<Scribe>,
    index: Arc<Index>,
    starts: Mutex<VecDeque<(u64, Arc<Starts>)>>,
}

/// A journal that is read but not written yet.
pub(super) struct Opening {
    opened: Opened,
    topics: Arc<Topics>,
    index: Arc<Index>,
}

/// What a consumer gets of one partition at once.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// The offset at which delivery begins where none was known.
    pub(super) from: u64,
    /// Offsets from `from` up to this are gone; then there are no records.
    pub(super) gap_to: Option<u64>,
    pub(super) records: Vec<Delivered>,
}

impl Opening {
    /// Opens and reads what tells where every partition ends.
    pub(super) fn open(options: Options) -> Result<Self, BusError> {
        let directory = options.directory.clone();
        let opened = Opened::open(options).map_err(|error| failed("opening", &directory, &error))?;
        let opening = Self { opened, topics: Arc::new(Topics::default()), index: Arc::new(Index::default()) };
        opening.learn().map_err(|error| failed("reading", &directory, &error))?;
        Ok(opening)
    }

    pub(super) fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Takes ends from the last sound preamble, then from all entries behind it.
    fn learn(&self) -> Result<(), ReadError> {
        let log = self.opened.log();
        let Some((first, last)) = log.bounds() else { return Ok(()) };
        let mut begin = last;
        loop {
            match read_starts(log, begin) {
                Ok(starts) => break self.take_starts(&starts),
                Err(error) if begin > first => {
                    tracing::error!(%error, segment = begin, "a segment's header cannot be read, going back one");
                    begin -= 1;
                }
                Err(error) => break tracing::error!(%error, "no segment's header can be read, reading all entries"),
            }
        }
        let mut index = new_index(log, last);
        visit(log, (begin, last), |position, length, entry| {
            if let Some((topic, _)) = self.topics.ensure(&entry.topic, entry.partitions)
                && let Some(ends) = topic.partitions.get(usize::from(entry.partition))
            {
                ends.raise(entry.offset + 1);
                if position.segment == last {
                    let slot = index.slot(entry.offset, position.byte, length, entry.appended_unix_nano);
                    index.push((topic.name.clone(), entry.partition), slot);
                }
            }
        })?;
        self.index.keep(last, Arc::new(index));
        Ok(())
    }

    fn take_starts(&self, starts: &Starts) {
        for (name, offsets) in starts {
            let count = u16::try_from(offsets.len()).unwrap_or(u16::MAX);
            if let Some((topic, _)) = self.topics.ensure(name, count) {
                topic.partitions.iter().zip(offsets).for_each(|(ends, offset)| ends.raise(*offset));
            }
        }
    }

    /// Starts the writer.
    pub(super) fn start(self, store: usize, wake: &Wake, conditions: &Arc<Conditions>) -> Result<Store, BusError> {
        let directory = self.opened.log().directory().to_owned();
        let scribe = Scribe {
            topics: self.topics.clone(),
            index: self.index.clone(),
            log: self.opened.log().clone(),
            wake: wake.clone(),
            conditions: conditions.clone(),
            store,
            segment: (0, 0),
        };
        let journal = self.opened.start(scribe).map_err(|error| failed("starting", &directory, &error))?;
        Ok(Store { topics: self.topics, journal, index: self.index, starts: Mutex::default() })
    }
}

impl Store {
    /// Queues a record.
    pub(super) async fn append(&self, draft: Draft, bytes: usize) -> Result<(), AppendError> {
        self.journal.append(draft, bytes).await.map_err(append_error)
    }

    /// Records of `topic`'s `partition` from offset `from` on, about `bytes` of them but at least one; `None` begins with the
    /// earliest kept. `hint` is the segment where the last ones were.
    pub(super) fn fetch(
        &self,
        topic: &Topic,
        partition: u16,
        from: Option<u64>,
        bytes: usize,
        hint: &mut u64,
    ) -> Result<Fetched, ReadError> {
        let end = topic.partitions.get(usize::from(partition)).map_or(0, super::topics::Ends::durable);
        let key: Key = (topic.name.clone(), partition);
        let from = match from {
            Some(from) => from,
            None => self.earliest(&key)?,
        };
        let mut fetched = Fetched { from, ..Fetched::default() };
        if from >= end {
            return Ok(fetched);
        }
        let Some((segment, slots)) = self.find(&key, from, bytes, *hint)? else {
            // All up to the end is gone.
            fetched.gap_to = Some(end);
            return Ok(fetched);
        };
        *hint = segment;
        self.read(segment, &slots, &mut fetched)?;
        Ok(fetched)
    }

    /// When the oldest record at or above `from` was appended, if an index tells; or when its segment was begun.
    pub(super) fn oldest(&self, key: &Key, from: u64) -> Option<u64> {
        let segment = self.locate(key, from, 0).ok()??;
        match self.index.held_slots(segment, (key, from, 0)) {
            Some((slots, begun)) => Some(begun + u64::from(slots.first()?.age_ms) * 1_000_000),
            None => self.journal.log().preamble(segment).ok().map(|preamble| preamble.created_unix_nano),
        }
    }

    /// The offset with which the records of a partition begin that are still kept. A damaged first header says 0, so that what
    /// is missing shows as a gap.
    pub(super) fn earliest(&self, key: &Key) -> Result<u64, ReadError> {
        let Some((first, _)) = self.journal.log().bounds() else { return Ok(0) };
        match self.starts(first) {
            Ok(starts) => Ok(start_of(&starts, key)),
            Err(ReadError::Damaged { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// How many indexes of older segments are held.
    #[cfg(test)]
    pub(super) fn kept_indexes(&self) -> usize {
        self.index.kept()
    }

    /// Per topic and partition where segment `number` begins.
    pub(super) fn starts(&self, number: u64) -> Result<Arc<Starts>, ReadError> {
        let mut kept = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, starts)) = kept.iter().find(|(kept, _)| *kept == number) {
            return Ok(starts.clone());
        }
        let starts = Arc::new(read_starts(self.journal.log(), number)?);
        if kept.len() >= STARTS_KEPT {
            kept.pop_front();
        }
        kept.push_back((number, starts.clone()));
        Ok(starts)
    }

    /// The first slots at or above `from`, and their segment.
    fn find(&self, key: &Key, from: u64, bytes: usize, hint: u64) -> Result<Option<(u64, Vec<Slot>)>, ReadError> {
        let log = self.journal.log();
        let mut next = self.locate(key, from, hint)?;
        while let Some(segment) = next {
            let (slots, _) = self.index.slots(segment, (key, from, bytes), || build_index(log, segment))?;
            if !slots.is_empty() {
                return Ok(Some((segment, slots)));
            }
            // Only damage leads here: the record should have been in that segment.
            next = log.segment_after(segment).map(|info| info.number);
        }
        Ok(None)
    }

    /// The segment that should hold offset `from`: the last one that begins at or below it.
    fn locate(&self, key: &Key, from: u64, hint: u64) -> Result<Option<u64>, ReadError> {
        let log = self.journal.log();
        if log.segment(hint).is_some() && self.begins_at_or_below(hint, key, from)? {
            let next = log.segment_after(hint).map(|info| info.number);
            if match next {
                Some(next) => !self.begins_at_or_below(next, key, from)?,
                None => true,
            } {
                return Ok(Some(hint));
            }
        }
        let segments: Vec<SegmentInfo> = log.segments();
        let (mut low, mut high) = (0, segments.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.begins_at_or_below(segments[middle].number, key, from)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(segments.get(low.saturating_sub(1)).map(|info| info.number))
    }

    /// Whether segment `number` begins at or below `offset` in this partition. One whose header is damaged counts as beginning
    /// where the next one does, so that a search ends before it, and finds its records by walking on.
    fn begins_at_or_below(&self, mut number: u64, key: &Key, offset: u64) -> Result<bool, ReadError> {
        loop {
            match self.starts(number) {
                Ok(starts) => return Ok(start_of(&starts, key) <= offset),
                Err(ReadError::Damaged { .. }) => match self.journal.log().segment_after(number) {
                    Some(next) => number = next.number,
                    None => return Ok(false),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads `slots` up to the first hole.
    fn read(&self, segment: u64, slots: &[Slot], fetched: &mut Fetched) -> Result<(), ReadError> {
        let mut expected = fetched.from;
        for slot in slots {
            let position = Position { segment, byte: u64::from(slot.byte) };
            let entry = match self.journal.log().read_exact(position, slot.length) {
                Ok(payload) => codec::decode(payload),
                Err(error @ ReadError::Damaged { .. }) => {
                    tracing::error!(%error, offset = slot.offset, "a record cannot be read any more");
                    None
                }
                Err(_) if !fetched.records.is_empty() => return Ok(()),
                Err(error) => return Err(error),
            };
            match entry {
                Some(entry) if entry.offset == expected => {
                    fetched.records.push(Delivered { offset: entry.offset, record: entry.record });
                    expected += 1;
                }
                // A hole: it is told of first, when nothing stands before it any more.
                Some(_) | None if !fetched.records.is_empty() => return Ok(()),
                Some(entry) => {
                    fetched.gap_to = Some(entry.offset);
                    return Ok(());
                }
                None => {
                    expected = slot.offset + 1;
                    fetched.gap_to = Some(expected);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Where a partition begins according to a preamble.
pub(super) fn start_of(starts: &Starts, (topic, partition): &Key) -> u64 {
    starts.get(topic.as_ref()).and_then(|offsets| offsets.get(usize::from(*partition))).copied().unwrap_or(0)
}

fn read_starts(log: &Log, number: u64) -> Result<Starts, ReadError> {
    let preamble = log.preamble(number)?;
    codec::decode_starts(preamble.bytes).ok_or_else(|| ReadError::Damaged {
        path: log.directory().to_owned(),
        position: Position { segment: number, byte: 0 },
        what: "its preamble is not a local bus's",
    })
}

/// Reads one segment whole, for its index.
fn build_index(log: &Log, segment: u64) -> Result<SegmentIndex, ReadError> {
    let mut index = new_index(log, segment);
    let mut names = BTreeMap::<String, Arc<str>>::new();
    visit(log, (segment, segment), |position, length, entry| {
        let name = match names.get(&entry.topic) {
            Some(name) => name.clone(),
            None => names.entry(entry.topic.clone()).or_insert(entry.topic.as_str().into()).clone(),
        };
        let slot = index.slot(entry.offset, position.byte, length, entry.appended_unix_nano);
        index.push((name, entry.partition), slot);
    })?;
    Ok(index)
}

fn new_index(log: &Log, segment: u64) -> SegmentIndex {
    SegmentIndex::new(log.preamble(segment).map_or(0, |preamble| preamble.created_unix_nano))
}

/// Shows every record of the segments `first` to `last`: its place, its length in the journal, itself.
fn visit(
    log: &Log,
    (first, last): (u64, u64),
    mut see: impl FnMut(Position, u32, &codec::Entry),
) -> Result<(), ReadError> {
    let mut reader = log.reader(Position { segment: first, byte: 0 });
    while reader.position().segment <= last
        && let Some(item) = reader.try_next()?
    {
        let (position, payload) = match item {
            Item::Entry { position, .. } if position.segment > last => break,
            Item::Entry { position, payload } => (position, payload),
            Item::Damage(damage) => {
                tracing::error!(directory = %log.directory().display(), %damage, "records cannot be read any more");
                continue;
            }
        };
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        match codec::decode(payload) {
            Some(entry) => see(position, length, &entry),
            None => tracing::error!(%position, "an entry of the bus's journal is not a record"),
        }
    }
    Ok(())
}

fn failed(what: &str, directory: &std::path::Path, error: &dyn std::error::Error) -> BusError {
    let mut reason = format!("{what} the local bus in {}: {error}", directory.display());
    let mut source = error.source();
    while let Some(error) = source {
        reason = format!("{reason}: {error}");
        source = error.source();
    }
    BusError::Fatal { reason }
}
