//! One arrival day: a tantivy index in a directory of its own, and the intervals that its commits carry.
//!
//! A commit is tantivy's: segment files are written and synced first, then `meta.json` is replaced by rename, with the
//! list of segments and our [`Committed`] in it. Crash cases: before the rename, the directory is as of the commit
//! before, and left-over segment files are collected by a later commit; after it, as of the new one. A commit that
//! reports an error may stand on either side: the day is then read again from its directory ([`Day::rebuild`]), which
//! alone knows.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use logmesh_proto::{RecordId, StreamKey};
use tantivy::{
    DocAddress, DocSet, IndexReader, IndexWriter, ReloadPolicy, Searcher, TERMINATED, TantivyDocument, TantivyError,
    directory::MmapDirectory,
    directory::error::{OpenDirectoryError, OpenReadError},
    index::{Index, IndexSettings},
    indexer::{IndexWriterOptions, LogMergePolicy, UserOperation},
    schema::{IndexRecordOption, Value},
    store::{Compressor, ZstdCompressor},
};
use thiserror::Error;

use super::{
    entry::Entry,
    payload::{Committed, PayloadError},
    schema::{self, Fields},
};
use crate::index::intervals::Intervals;

/// Bytes of stored documents that are compressed together. Four times tantivy's own: each block costs a new compressor.
const STORE_BLOCK_BYTES: usize = 64 << 10;

/// Blocks of stored documents that a view keeps inflated for each segment.
const STORE_BLOCKS_CACHED: usize = 4;

/// Documents that a writer thread is given at a time.
const RUN_DOCUMENTS: usize = 128;

/// Segments with more documents are not merged any more.
const MERGED_DOCUMENTS_MAX: usize = 2_000_000;

/// Why a day cannot be opened or written.
#[derive(Debug, Error)]
pub(crate) enum DayError {
    /// The index.
    #[error(transparent)]
    Index(#[from] TantivyError),
    /// The intervals beside it.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The directory.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<OpenDirectoryError> for DayError {
    fn from(error: OpenDirectoryError) -> Self {
        Self::Index(error.into())
    }
}

impl DayError {
    /// Whether the directory's content is at fault, rather than the machine or its configuration.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Payload(PayloadError::Damaged) => true,
            Self::Payload(PayloadError::Version { .. }) => false,
            Self::Io(error) => error.raw_os_error().is_none(),
            #[expect(clippy::wildcard_enum_match_arm, reason = "tantivy's other errors speak of what it was given")]
            Self::Index(error) => match error {
                TantivyError::IoError(error) => error.raw_os_error().is_none(),
                TantivyError::OpenReadError(OpenReadError::IoError { io_error, .. }) => {
                    io_error.raw_os_error().is_none()
                }
                TantivyError::OpenDirectoryError(_) | TantivyError::LockFailure(..) => false,
                _ => true,
            },
        }
    }

    /// Whether the disk is full.
    pub(crate) fn is_disk_full(&self) -> bool {
        let text = self.to_string();
        // Deep in tantivy an error of the disk becomes text.
        text.contains("os error 28") || text.contains("StorageFull") || text.contains("os error 122")
    }
}

/// How writers are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriterShape {
    pub(crate) threads: usize,
    pub(crate) thread_bytes: usize,
}

/// What was written since the last commit.
#[derive(Default)]
struct Pending {
    intervals: Intervals,
    times: Option<(i64, i64)>,
    operations: Vec<UserOperation<Entry>>,
    written: bool,
}

/// One arrival day.
pub(crate) struct Day {
    directory: PathBuf,
    index: Index,
    reader: IndexReader,
    writer: Option<IndexWriter<Entry>>,
    fields: Fields,
    committed: Committed,
    pending: Pending,
    freshness: Freshness,
}

/// How what is in memory stands to the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    Fresh,
    /// The reader may be behind the last commit.
    Reload,
    /// An error left open what was committed.
    Rebuild,
}

impl Day {
    /// Opens the day in `directory`, or begins it there.
    pub(crate) fn open(directory: &Path) -> Result<Self, DayError> {
        fs::create_dir_all(directory)?;
        if let Some(parent) = directory.parent() {
            fs::File::open(parent)?.sync_all()?;
        }
        if !directory.join("meta.json").try_exists()? && has_segments(directory)? {
            return Err(io::Error::other("meta.json is missing beside segment files").into());
        }
        let (mut index, fields) = open_index(directory)?;
        index.set_tokenizers(schema::tokenizers());
        let committed = committed_of(&index)?;
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(STORE_BLOCKS_CACHED)
            .try_into()?;
        let directory = directory.to_owned();
        let pending = Pending::default();
        Ok(Self { directory, index, reader, writer: None, fields, committed, pending, freshness: Freshness::Fresh })
    }

    /// State as of the last commit.
    pub(crate) fn committed(&self) -> &Committed {
        &self.committed
    }

    /// A view as of the last reload.
    pub(crate) fn searcher(&self) -> Searcher {
        self.reader.searcher()
    }

    /// Whether what is searchable is what was committed.
    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self.freshness, Freshness::Fresh)
    }

    /// Makes what was committed searchable, if an error prevented that before. Cheap when there is nothing to do.
    pub(crate) fn refresh(&mut self) -> Result<(), DayError> {
        match self.freshness {
            Freshness::Fresh => Ok(()),
            Freshness::Reload => {
                self.reader.reload()?;
                self.freshness = Freshness::Fresh;
                Ok(())
            }
            Freshness::Rebuild => self.rebuild(),
        }
    }

    /// Whether the searchable, committed document with this id is here.
    pub(crate) fn holds(&self, key: StreamKey, offset: u64, id: &RecordId) -> Result<bool, DayError> {
        if !self.committed.intervals.covers(key, offset) {
            return Ok(false);
        }
        let term = schema::key_term(self.fields, id);
        let searcher = self.reader.searcher();
        for (ord, segment) in (0..).zip(searcher.segment_readers()) {
            let Some(mut postings) =
                segment.inverted_index(self.fields.key)?.read_postings(&term, IndexRecordOption::Basic)?
            else {
                continue;
            };
            while postings.doc() != TERMINATED {
                let doc = postings.doc();
                if !segment.is_deleted(doc) && self.is_of(&searcher.doc(DocAddress::new(ord, doc))?, id) {
                    return Ok(true);
                }
                postings.advance();
            }
        }
        Ok(false)
    }

    fn is_of(&self, stored: &TantivyDocument, id: &RecordId) -> bool {
        stored.get_first(self.fields.id).and_then(|found| found.as_bytes()) == Some(id.as_bytes().as_slice())
    }

    /// Whether anything waits for a commit.
    pub(crate) fn is_dirty(&self) -> bool {
        self.pending.written || !self.pending.operations.is_empty()
    }

    /// Opens the writer, if it is not open.
    pub(crate) fn open_writer(&mut self, shape: WriterShape) -> Result<(), DayError> {
        if self.writer.is_some() {
            return Ok(());
        }
        let options = IndexWriterOptions::builder()
            .num_worker_threads(shape.threads)
            .memory_budget_per_thread(shape.thread_bytes)
            .num_merge_threads(1)
            .build();
        let writer = self.index.writer_with_options(options)?;
        let mut policy = LogMergePolicy::default();
        policy.set_max_docs_before_merge(MERGED_DOCUMENTS_MAX);
        policy.set_del_docs_ratio_before_merge(0.3);
        writer.set_merge_policy(Box::new(policy));
        self.writer = Some(writer);
        Ok(())
    }

    /// Lets go of the writer. What was not committed is forgotten.
    pub(crate) fn close_writer(&mut self) {
        self.writer = None;
        self.pending = Pending::default();
    }

    /// Adds a document to what the next commit will hold; `replace` takes away any earlier one with its id.
    pub(crate) fn add(
        &mut self,
        entry: Entry,
        place: (StreamKey, u64, u64),
        timestamp: i64,
        replace: Option<&RecordId>,
    ) -> Result<(), DayError> {
        if let Some(id) = replace {
            self.pending.operations.push(UserOperation::Delete(schema::key_term(self.fields, id)));
        }
        self.pending.operations.push(UserOperation::Add(entry));
        self.pending.intervals.insert(place.0, place.1, place.2);
        let times = self.pending.times.get_or_insert((timestamp, timestamp));
        *times = (times.0.min(timestamp), times.1.max(timestamp));
        if self.pending.operations.len() >= RUN_DOCUMENTS { self.hand_over() } else { Ok(()) }
    }

    /// Hands gathered documents to the writer's threads.
    pub(crate) fn hand_over(&mut self) -> Result<(), DayError> {
        if self.pending.operations.is_empty() {
            return Ok(());
        }
        let operations = std::mem::take(&mut self.pending.operations);
        self.pending.written = true;
        let Some(writer) = self.writer.as_mut() else {
            return Err(io::Error::other("no writer is open").into());
        };
        let Err(error) = writer.run(operations) else { return Ok(()) };
        // The writer only says that a thread of it failed; the thread knows why.
        match writer.prepare_commit() {
            Err(cause) => Err(cause.into()),
            Ok(_) => Err(error.into()),
        }
    }

    /// Commits what was added and makes it searchable. After an error call [`rebuild`](Self::rebuild).
    pub(crate) fn commit(&mut self, next_sequence: u64) -> Result<(), DayError> {
        self.hand_over()?;
        let mut next = self.committed.clone();
        next.next_sequence = next_sequence;
        next.intervals.extend(&self.pending.intervals);
        if let Some(times) = self.pending.times {
            next.widen(times);
        }
        let Some(writer) = self.writer.as_mut() else {
            return Err(io::Error::other("no writer is open").into());
        };
        let mut prepared = writer.prepare_commit()?;
        prepared.set_payload(&next.encode());
        prepared.commit()?;
        self.committed = next;
        self.pending = Pending::default();
        self.freshness = Freshness::Reload;
        self.refresh()
    }

    /// Forgets what was not committed, and reads the state again from the directory. The writer is closed.
    pub(crate) fn rebuild(&mut self) -> Result<(), DayError> {
        self.close_writer();
        self.freshness = Freshness::Rebuild;
        *self = Self::open(&self.directory)?;
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn prepare_only(&mut self) -> Result<(), DayError> {
        self.hand_over()?;
        if let Some(writer) = self.writer.as_mut() {
            writer.prepare_commit()?;
        }
        Ok(())
    }
}

/// Opens the index, or makes one. What another version wrote is told from damage before its schema is looked at.
fn open_index(directory: &Path) -> Result<(Index, Fields), DayError> {
    let (schema, fields) = schema::schema();
    let files = MmapDirectory::open(directory)?;
    if !directory.join("meta.json").try_exists()? {
        let compression = Compressor::Zstd(ZstdCompressor { compression_level: Some(1) });
        let settings = IndexSettings {
            docstore_compression: compression,
            docstore_blocksize: STORE_BLOCK_BYTES,
            ..IndexSettings::default()
        };
        return Ok((Index::create(files, schema, settings)?, fields));
    }
    let index = Index::open(files)?;
    committed_of(&index)?;
    if index.schema() != schema {
        return Err(io::Error::other("its schema is not that of its version").into());
    }
    Ok((index, fields))
}

fn committed_of(index: &Index) -> Result<Committed, DayError> {
    match index.load_metas()?.payload {
        Some(payload) => Ok(Committed::decode(&payload)?),
        None => Ok(Committed::default()),
    }
}

fn has_segments(directory: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "store" || extension == "idx" || extension == "term") {
            return Ok(true);
        }
    }
    Ok(false)
}
