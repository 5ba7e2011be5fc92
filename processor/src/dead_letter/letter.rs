//! Reading letters back from the bus.

use std::{str::FromStr, sync::Arc};

use bytes::Bytes;
use logmesh_bus::{Delivered, TopicPartition};
use logmesh_proto::{Envelope, Header, Marks, RecordId};

use super::{
    TOPIC, names,
    write::{Origin, marks},
};
use crate::parse::Format;

/// A dead letter as it stands on the bus.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// What it is called: the record's id; for what has no such key, its place.
    pub id: String,
    /// The bus record's key.
    pub key: Bytes,
    /// The partition that holds it.
    pub partition: TopicPartition,
    /// Its offset there.
    pub offset: u64,
    /// Whose it is.
    pub tenant: String,
    /// Why it was refused; empty where it does not say.
    pub reason: String,
    /// Where the refused thing stood.
    pub origin: Option<Origin>,
    /// When it was kept, nanoseconds since 1970-01-01 UTC.
    pub kept_unix_nano: Option<u64>,
    /// The original's size in bytes, where only its beginning is here.
    pub cut_from_bytes: Option<u64>,
    /// What was refused.
    pub content: Content,
    /// The exact bytes of what was refused.
    pub original: Bytes,
}

/// What a letter holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// One record.
    Record(Box<RefusedRecord>),
    /// A whole bus record that was no readable batch; its own headers are among these.
    Batch(Vec<Header>),
    /// Something that no version known here has written.
    Unreadable {
        /// What is missing.
        why: String,
    },
}

/// All that a refused record's document is built from, beside its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedRecord {
    /// Its id.
    pub id: RecordId,
    /// Of its batch.
    pub envelope: Envelope,
    /// Byte offset in the source at which it begins.
    pub offset: u64,
    /// Byte offset in the source at which the next one begins; by its length where the letter does not say.
    pub end_offset: u64,
    /// When it was read, nanoseconds since 1970-01-01 UTC; when it was received where the letter does not say.
    pub observed_unix_nano: u64,
    /// Its marks.
    pub marks: Marks,
    /// As what it was parsed, where the letter says.
    pub format: Option<Format>,
    /// The index of its reduced document.
    pub index: Option<Arc<str>>,
}

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It waits for an operator.
    Open,
    /// The index has its whole document.
    Replayed,
    /// An operator gave it up.
    Discarded,
    /// It is below the group's commit, and says no more.
    Passed,
}

impl Fate {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
            Self::Passed => "passed",
        }
    }

    /// The word on a mark. `None` for a record that is no mark.
    pub(super) fn of_mark(headers: &[Header]) -> Option<Self> {
        match find(headers, names::SETTLED)? {
            "discarded" => Some(Self::Discarded),
            // A word of a later version settles as well.
            _ => Some(Self::Replayed),
        }
    }
}

impl Letter {
    /// Reads a letter; what cannot be read is a letter too.
    #[must_use]
    pub fn read(partition: &TopicPartition, delivered: &Delivered) -> Self {
        let record = &delivered.record;
        let headers = &record.headers;
        let origin = || {
            let (topic, partition) = (find(headers, names::TOPIC)?.into(), number(headers, names::PARTITION)?);
            Some(Origin { topic, partition, offset: number(headers, names::OFFSET)? })
        };
        Self {
            id: id_of(partition, delivered.offset, &record.key),
            key: record.key.clone(),
            partition: partition.clone(),
            offset: delivered.offset,
            tenant: tenant_of(&partition.topic).to_owned(),
            reason: find(headers, names::REASON).unwrap_or_default().to_owned(),
            origin: origin(),
            kept_unix_nano: number(headers, names::KEPT),
            cut_from_bytes: number(headers, names::CUT),
            content: content(&record.key, headers, record.value.len()),
            original: record.value.clone(),
        }
    }

    /// The word for what it holds.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.content {
            Content::Record(_) => "record",
            Content::Batch(_) => "batch",
            Content::Unreadable { .. } => "unreadable",
        }
    }

    /// The envelope, where there is one.
    #[must_use]
    pub fn envelope(&self) -> Option<Envelope> {
        match &self.content {
            Content::Record(record) => Some(record.envelope.clone()),
            Content::Batch(headers) => Envelope::from_headers(headers).ok(),
            Content::Unreadable { .. } => None,
        }
    }
}

/// Whose letters a topic holds.
pub(super) fn tenant_of(topic: &str) -> &str {
    topic.strip_prefix(TOPIC).and_then(|rest| rest.strip_prefix('.')).unwrap_or(topic)
}

/// What a letter of this key and place is called.
pub(super) fn id_of(partition: &TopicPartition, offset: u64, key: &[u8]) -> String {
    match <[u8; 16]>::try_from(key) {
        Ok(key) => RecordId::from_bytes(key).to_string(),
        Err(_) => format!("{}-{}-{offset}", partition.topic, partition.partition),
    }
}

/// When a letter was kept, nanoseconds since 1970-01-01 UTC.
pub(super) fn kept(headers: &[Header]) -> Option<u64> {
    number(headers, names::KEPT)
}

fn content(key: &[u8], headers: &[Header], bytes: usize) -> Content {
    // A batch's own headers stand behind the letter's: the first of a name is ours.
    let is_batch = match find(headers, names::KIND) {
        Some(kind) => kind == "batch",
        None => find(headers, names::RECORD_OFFSET).is_none() && find(headers, names::REASON).is_some(),
    };
    if is_batch {
        return Content::Batch(headers.to_vec());
    }
    match refused_record(key, headers, bytes) {
        Ok(record) => Content::Record(Box::new(record)),
        Err(why) => Content::Unreadable { why },
    }
}

fn refused_record(key: &[u8], headers: &[Header], bytes: usize) -> Result<RefusedRecord, String> {
    let id = <[u8; 16]>::try_from(key).map_err(|_| "its key is no record's id".to_owned())?;
    let envelope = Envelope::from_headers(headers).map_err(|error| error.to_string())?;
    let offset: u64 = number(headers, names::RECORD_OFFSET)
        .ok_or_else(|| format!("header {} is missing or cannot be read", names::RECORD_OFFSET))?;
    let length = number(headers, names::CUT).unwrap_or(bytes as u64);
    Ok(RefusedRecord {
        id: RecordId::from_bytes(id),
        offset,
        end_offset: number(headers, names::RECORD_END_OFFSET)
            .filter(|end| *end > offset)
            .unwrap_or_else(|| offset.saturating_add(length).saturating_add(1)),
        observed_unix_nano: number(headers, names::OBSERVED).unwrap_or(envelope.received_unix_nano),
        marks: find(headers, names::MARKS).map(marks).unwrap_or_default(),
        format: find(headers, names::FORMAT).and_then(Format::from_name),
        index: find(headers, names::INDEX).map(Arc::from),
        envelope,
    })
}

fn find<'a>(headers: &'a [Header], name: &str) -> Option<&'a str> {
    let header = headers.iter().find(|header| header.name == name)?;
    std::str::from_utf8(&header.value).ok()
}

fn number<T: FromStr>(headers: &[Header], name: &str) -> Option<T> {
    find(headers, name)?.parse().ok()
}
