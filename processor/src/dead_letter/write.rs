//! Keeping letters.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use logmesh_bus::{AppendError, Bus, Record};
use logmesh_proto::{Envelope, Header, Marks, RecordId, RecordRef};
use logmesh_runtime::telemetry::Throttle;

use super::{TOPIC, names, original_bytes};
use crate::{document::Document, parse::Format};

/// Where a refused thing stood on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Full name of the topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// The offset within the partition.
    pub offset: u64,
}

/// A record that an index refused, with all that its document was built from.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// Of its batch.
    pub envelope: &'a Envelope,
    /// Where its batch stands.
    pub origin: &'a Origin,
    /// What was refused.
    pub document: &'a Document,
    /// The record itself, out of its batch.
    pub record: Option<RecordRef<'a>>,
    /// As what it was parsed.
    pub format: Format,
    /// Why it was refused.
    pub reason: &'a str,
}

/// Writes dead letters to a bus.
#[derive(Clone)]
pub struct DeadLetters {
    bus: Arc<dyn Bus>,
    said: Arc<Mutex<Throttle>>,
}

/// How often one topic's refused records are told in the log; each of them has its letter.
const SAY_EVERY: Duration = Duration::from_secs(10);

impl DeadLetters {
    /// Writes to `bus`, which must keep letters until an operator has dealt with them.
    pub fn new(bus: Arc<dyn Bus>) -> Self {
        Self { bus, said: Arc::new(Mutex::new(Throttle::new(SAY_EVERY))) }
    }

    /// Keeps one record that an index refused. Resolves once the letter is durable.
    ///
    /// # Errors
    /// The bus did not take it: nothing may be committed.
    pub async fn keep_record(&self, refused: &Refused<'_>) -> Result<(), AppendError> {
        let Refused { envelope, origin, document, record, format, reason } = refused;
        let mut headers = letter_headers("record", origin, reason);
        headers.extend(envelope.to_headers());
        headers.push(text(names::RECORD_OFFSET, document.offset.to_string()));
        headers.push(text(names::RECORD_END_OFFSET, document.end_offset.to_string()));
        headers.push(text(names::INDEX, document.index.to_string()));
        headers.push(text(names::FORMAT, format.name().to_owned()));
        let value = match record {
            Some(record) => {
                headers.push(text(names::OBSERVED, record.observed_unix_nano.to_string()));
                headers.push(text(names::MARKS, marks_text(record.marks)));
                Bytes::copy_from_slice(record.body)
            }
            None => original_bytes(&document.body).unwrap_or_else(|| document.body.clone()),
        };
        let record = Record { key: Bytes::copy_from_slice(document.id.as_bytes()), headers, value };
        self.append(&envelope.tenant, record).await?;
        self.say("kept a refused record as a dead letter", origin, document, reason);
        Ok(())
    }

    /// Tells of a refused record, with its id, its origin and the cause alone; one for each topic now and then.
    pub(crate) fn say(&self, what: &'static str, origin: &Origin, document: &Document, reason: &str) {
        let key = format!("{what} {}", origin.topic);
        let admitted = self.said.lock().unwrap_or_else(PoisonError::into_inner).admit(&key, Instant::now());
        if let Some(held_back) = admitted {
            let (topic, partition, offset) = (&*origin.topic, origin.partition, origin.offset);
            tracing::warn!(id = %document.id, index = %document.index, topic, partition, offset, reason, held_back, "{what}");
        }
    }

    /// Keeps a whole bus record that cannot be read as a batch. Resolves once the letter is durable.
    ///
    /// # Errors
    /// The bus did not take it: nothing may be committed.
    pub async fn keep_batch(&self, origin: &Origin, refused: &Record, reason: &str) -> Result<(), AppendError> {
        let tenant = origin.topic.split_once('.').map_or("default", |(_, tenant)| tenant);
        let mut headers = letter_headers("batch", origin, reason);
        headers.extend(refused.headers.iter().cloned());
        let id = RecordId::derive(logmesh_proto::StreamKey::from_bytes([0; 16]), origin.offset, &refused.value);
        let record = Record { key: Bytes::copy_from_slice(id.as_bytes()), headers, value: refused.value.clone() };
        self.append(tenant, record).await
    }

    /// A letter that is larger than its topic takes is cut, and says so: a mark on what is missing is better than a lane
    /// that waits for ever.
    async fn append(&self, tenant: &str, mut record: Record) -> Result<(), AppendError> {
        let topic = format!("{TOPIC}.{tenant}");
        let limit = match self.try_append(&topic, record.clone()).await {
            Err(AppendError::TooLarge { limit, .. }) => usize::try_from(limit).unwrap_or(usize::MAX),
            done => return done,
        };
        record.headers.push(text(names::CUT, record.value.len().to_string()));
        // What the bus counts beside the record's own bytes is its affair: a sixteenth is left for it.
        let room = limit.saturating_sub(limit / 16 + record.size() - record.value.len());
        record.value.truncate(room);
        self.try_append(&topic, record).await
    }

    async fn try_append(&self, topic: &str, record: Record) -> Result<(), AppendError> {
        self.bus.append(topic, record).await?.await.map(|_| ())
    }
}

pub(super) fn text(name: &'static str, value: String) -> Header {
    Header { name: name.into(), value: value.into() }
}

/// Nanoseconds since 1970-01-01 UTC.
pub(super) fn unix_nano() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn letter_headers(kind: &'static str, origin: &Origin, reason: &str) -> Vec<Header> {
    vec![
        text(names::KIND, kind.to_owned()),
        text(names::REASON, reason.to_owned()),
        text(names::TOPIC, origin.topic.to_string()),
        text(names::PARTITION, origin.partition.to_string()),
        text(names::OFFSET, origin.offset.to_string()),
        text(names::KEPT, unix_nano().to_string()),
    ]
}

/// `partial,continued,split`, as far as they hold.
fn marks_text(marks: Marks) -> String {
    let all = [(marks.partial, "partial"), (marks.continued, "continued"), (marks.split, "split")];
    let set: Vec<_> = all.into_iter().filter_map(|(set, name)| set.then_some(name)).collect();
    set.join(",")
}

/// The opposite of [`marks_text`]; what it does not know it skips.
pub(super) fn marks(text: &str) -> Marks {
    let has = |name| text.split(',').any(|mark| mark == name);
    Marks { partial: has("partial"), continued: has("continued"), split: has("split") }
}
