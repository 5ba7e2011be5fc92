//! Another try at letters: building their documents again, exactly as the processor did, and writing them whole.

use std::time::Duration;

use bytes::Bytes;
use logmesh_bus::Record;
use logmesh_proto::{BatchMeta, Envelope, Flags, Header, Limits, Marks, OpenBatch, Opener, RecordsBuilder, Sealer, v1};
use logmesh_runtime::backoff::Backoff;
use prost::Message as _;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    letter::{Content, Letter, RefusedRecord},
    reduced,
    write::{DeadLetters, Origin, Refused},
};
use crate::{
    config::Config,
    document::{Builder, Document},
    index::{Index, Mode, Outcome},
    parse::Format,
};

/// What became of a letter that was dealt with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Tried {
    /// The index has it whole.
    Replayed {
        /// Documents that it made.
        documents: u64,
        /// Records of a batch that were refused, and are letters of their own now.
        refused: u64,
    },
    /// It would be tried: its documents can be built.
    Possible {
        /// Documents that it makes.
        documents: u64,
    },
    /// Refused again: it stays.
    Refused {
        /// Why, now.
        reason: String,
    },
    /// Not tried to the end, by no fault of its own: it stays.
    Waiting {
        /// What is in the way.
        reason: String,
    },
    /// An operator gave it up.
    Discarded,
    /// There is no open letter of this id.
    Unknown,
}

/// What is said of one letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Said {
    /// The letter's id.
    pub id: String,
    /// Whose it is; empty for one that is not known.
    pub tenant: String,
    /// What became of it.
    #[serde(flatten)]
    pub tried: Tried,
}

/// What became of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Letters that are in the index whole, or would be tried.
    pub replayed: u64,
    /// Letters that were refused again.
    pub refused: u64,
    /// Letters that wait, since their index does not take anything now.
    pub waiting: u64,
    /// Letters that were given up.
    pub discarded: u64,
    /// Ids that name no open letter.
    pub unknown: u64,
    /// Why the bus still keeps what is dealt with; the next replay lets it go.
    pub not_committed: Option<String>,
}

impl Summary {
    pub(super) fn count(&mut self, tried: &Tried) {
        match tried {
            Tried::Replayed { .. } | Tried::Possible { .. } => self.replayed += 1,
            Tried::Refused { .. } => self.refused += 1,
            Tried::Waiting { .. } => self.waiting += 1,
            Tried::Discarded => self.discarded += 1,
            Tried::Unknown => self.unknown += 1,
        }
    }
}

/// Tries letters.
pub(super) struct Trier<'a> {
    index: &'a dyn Index,
    letters: &'a DeadLetters,
    config: &'a Config,
    builder: Builder,
    opener: Opener,
    /// How long one try waits for an index that is busy.
    patience: Duration,
    dry_run: bool,
}

impl<'a> Trier<'a> {
    pub(super) fn new(
        index: &'a dyn Index,
        letters: &'a DeadLetters,
        config: &'a Config,
        (patience, dry_run): (Duration, bool),
    ) -> Self {
        let opener = Opener::new(Limits { encoded_bytes_max: u32::MAX, ..Limits::default() });
        Self { index, letters, config, builder: Builder::new(config.documents), opener, patience, dry_run }
    }

    /// Tries letters; one answer for each, in order.
    pub(super) async fn chunk(&mut self, letters: &[Letter]) -> Vec<Tried> {
        let mut tried = Vec::with_capacity(letters.len());
        let (mut documents, mut places) = (Vec::new(), Vec::new());
        for letter in letters {
            let answer = match &letter.content {
                Content::Unreadable { why } => Tried::Refused { reason: format!("the letter cannot be read: {why}") },
                Content::Batch(headers) => self.batch(letter, headers).await,
                Content::Record(record) => match self.document(letter, record) {
                    Err(reason) => Tried::Refused { reason },
                    Ok(document) => {
                        documents.push(document);
                        places.push(tried.len());
                        Tried::Possible { documents: 1 }
                    }
                },
            };
            tried.push(answer);
        }
        if !self.dry_run {
            for (place, answer) in places.into_iter().zip(self.write(documents, Mode::Index).await) {
                tried[place] = answer;
            }
        }
        tried
    }

    /// The whole document of a refused record.
    fn document(&mut self, letter: &Letter, record: &RefusedRecord) -> Result<Document, String> {
        if let Some(size) = letter.cut_from_bytes {
            return Err(format!("of {size} bytes the letter holds only the first {}", letter.original.len()));
        }
        let records = alone(&mut self.opener, record, &letter.original)?;
        let format = record.format.unwrap_or_else(|| format_of(self.config, &record.envelope));
        let mut documents = Vec::with_capacity(1);
        self.builder.build(&record.envelope, &records, format, &mut documents);
        let document = documents.pop().ok_or_else(|| "no document came of it".to_owned())?;
        if document.id != record.id {
            return Err("its bytes are not those of the record: their id is another".to_owned());
        }
        // Where the reduced one is, whatever the configuration says by now.
        let index = record.index.clone().unwrap_or_else(|| document.index.clone());
        Ok(Document { index, ..document })
    }

    /// A whole bus record: opened, and every record of it written.
    async fn batch(&mut self, letter: &Letter, headers: &[Header]) -> Tried {
        let refused = |reason: String| Tried::Refused { reason };
        if let Some(size) = letter.cut_from_bytes {
            return refused(format!("of {size} bytes the letter holds only the first {}", letter.original.len()));
        }
        let envelope = match Envelope::from_headers(headers) {
            Ok(envelope) => envelope,
            Err(error) => return refused(error.to_string()),
        };
        let batch = match v1::Batch::decode(letter.original.clone()) {
            Ok(batch) => batch,
            Err(error) => return refused(format!("the value is no logmesh.v1.Batch: {error}")),
        };
        let records = match self.opener.open(&batch) {
            Ok(records) => records,
            Err(fault) => return refused(fault.to_string()),
        };
        let format = format_of(self.config, &envelope);
        let mut documents = Vec::with_capacity(records.len());
        self.builder.build(&envelope, &records, format, &mut documents);
        let count = documents.len() as u64;
        if self.dry_run {
            return Tried::Possible { documents: count };
        }
        let outcomes = self.write(documents.clone(), Mode::Create).await;
        let fallback = Origin {
            topic: letter.partition.topic.clone(),
            partition: letter.partition.partition,
            offset: letter.offset,
        };
        let origin = letter.origin.clone().unwrap_or(fallback);
        let mut kept = 0;
        for ((document, record), outcome) in documents.iter().zip(records.records()).zip(outcomes) {
            let reason = match outcome {
                Tried::Refused { reason } => reason,
                Tried::Waiting { reason } => return Tried::Waiting { reason },
                Tried::Replayed { .. } | Tried::Possible { .. } | Tried::Discarded | Tried::Unknown => continue,
            };
            let (envelope, origin, record) = (&envelope, &origin, Some(record));
            let refused = Refused { envelope, origin, document, record, format, reason: &reason };
            if let Err(error) = self.letters.keep_record(&refused).await {
                return Tried::Waiting { reason: format!("a dead letter cannot be kept: {error}") };
            }
            let stand_in = self.write(vec![reduced(document, &reason)], Mode::Create).await;
            if let Some(Tried::Waiting { reason }) = stand_in.into_iter().next() {
                return Tried::Waiting { reason };
            }
            kept += 1;
        }
        Tried::Replayed { documents: count - kept, refused: kept }
    }

    async fn write(&self, documents: Vec<Document>, mode: Mode) -> Vec<Tried> {
        write(self.index, documents, mode, self.patience).await
    }
}

fn format_of(config: &Config, envelope: &Envelope) -> Format {
    Format::from_name(&envelope.info.input_format).unwrap_or_else(|| config.format(&envelope.topic))
}

/// One record as a batch of its own, so that it is built from what every other one is built from.
fn alone(opener: &mut Opener, record: &RefusedRecord, original: &Bytes) -> Result<OpenBatch, String> {
    let length = u32::try_from(record.end_offset - record.offset)
        .map_err(|_| format!("a record from {} to {} cannot be", record.offset, record.end_offset))?;
    let mut records = RecordsBuilder::new();
    records.push(original, length);
    let meta = BatchMeta {
        stream_id: Bytes::from_static(b"dead-letter"),
        first_offset: record.offset,
        end_offset: record.end_offset,
        observed_unix_nano: record.observed_unix_nano,
        flags: flags(record.marks),
    };
    let sealed = Sealer::new(v1::Codec::None).and_then(|mut sealer| sealer.seal(meta, &mut records));
    let batch = sealed.map_err(|error| error.to_string())?;
    opener.open(&batch).map_err(|fault| fault.to_string())
}

/// The only record of a batch is its first and its last: each mark has its flag.
fn flags(marks: Marks) -> Flags {
    let all = [
        (marks.partial, Flags::LAST_PARTIAL),
        (marks.continued, Flags::FIRST_CONTINUED),
        (marks.split, Flags::LAST_SPLIT),
    ];
    all.into_iter().filter(|(set, _)| *set).fold(Flags::NONE, |flags, (_, flag)| flags.union(flag))
}

/// Writes documents, waiting a while for an index that is busy; one answer for each, in order.
async fn write(index: &dyn Index, documents: Vec<Document>, mode: Mode, patience: Duration) -> Vec<Tried> {
    let unanswered = || Tried::Waiting { reason: "the index did not answer for every document".to_owned() };
    let mut tried = vec![unanswered(); documents.len()];
    let mut pending: Vec<(usize, Document)> = documents.into_iter().enumerate().collect();
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let deadline = Instant::now() + patience;
    while !pending.is_empty() {
        let asked = pending.iter().map(|(_, document)| document.clone()).collect();
        let mut outcomes = index.bulk(asked, mode).await.into_iter();
        let mut least = Duration::ZERO;
        let mut held = false;
        pending.retain(|(place, _)| {
            let outcome = outcomes.next();
            tried[*place] = match &outcome {
                Some(Outcome::Created | Outcome::Exists) => Tried::Replayed { documents: 1, refused: 0 },
                Some(Outcome::Rejected { reason }) => Tried::Refused { reason: reason.clone() },
                Some(Outcome::Retry { reason, .. } | Outcome::Held { reason }) => {
                    Tried::Waiting { reason: reason.clone() }
                }
                None => unanswered(),
            };
            if let Some(Outcome::Retry { after: Some(after), .. }) = &outcome {
                least = least.max(*after);
            }
            held |= matches!(outcome, Some(Outcome::Held { .. }));
            matches!(tried[*place], Tried::Waiting { .. })
        });
        let pause = backoff.next(rand::random()).max(least);
        if held || Instant::now() + pause > deadline {
            break;
        }
        if !pending.is_empty() {
            tokio::time::sleep(pause).await;
        }
    }
    tried
}

/// The mark that says what became of a letter.
pub(super) fn mark(letter: &Letter, word: &str) -> Record {
    let settled = super::write::text(super::names::SETTLED, word.to_owned());
    let when = super::write::text(super::names::KEPT, super::write::unix_nano().to_string());
    Record { key: letter.key.clone(), headers: vec![settled, when], value: Bytes::new() }
}
