//! The reading side of a journal: which segments there are, how far they are durable, and entries by position.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::format::{ENTRY_HEADER, EntryHead, SEGMENT_HEADER, SegmentHead};
use crate::storage::Storage;
use crate::{Position, ReadError, Reader};

/// Open segment files kept for reading.
const FILES_MAX: usize = 16;

/// Reads a journal; cheap to clone, usable from any thread. Never shows what is not durable.
///
/// Reads block for as long as the disk takes; in an async task that reads cold data use a blocking thread.
#[derive(Clone, Debug)]
pub struct Log(Arc<Shared>);

/// One segment as it stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub number: u64,
    /// Byte behind its last durable entry.
    pub end: u64,
    /// Whether it is finished: no entry will be added.
    pub sealed: bool,
}

/// What the owner said when a segment was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// The owner's bytes.
    pub bytes: Bytes,
    /// When the segment was begun, by the writer's clock, in nanoseconds since the epoch.
    pub created_unix_nano: u64,
}

struct Shared {
    directory: PathBuf,
    storage: Arc<dyn Storage>,
    segments: Mutex<BTreeMap<u64, SegmentInfo>>,
    durable: watch::Sender<Position>,
    files: Mutex<VecDeque<(u64, Arc<File>)>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Log").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Log {
    pub(crate) fn new(directory: PathBuf, storage: Arc<dyn Storage>, segments: BTreeMap<u64, SegmentInfo>) -> Self {
        let durable = segments.values().next_back().map_or(Position::default(), SegmentInfo::end_position);
        Self(Arc::new(Shared {
            directory,
            storage,
            segments: Mutex::new(segments),
            durable: watch::channel(durable).0,
            files: Mutex::new(VecDeque::new()),
        }))
    }

    /// The directory of the journal.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// All segments, ascending.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.lock().values().copied().collect()
    }

    /// The segment `number`, if it exists.
    pub fn segment(&self, number: u64) -> Option<SegmentInfo> {
        self.lock().get(&number).copied()
    }

    /// The lowest segment above `number`.
    pub fn segment_after(&self, number: u64) -> Option<SegmentInfo> {
        self.lock().range(number + 1..).next().map(|(_, info)| *info)
    }

    /// Numbers of the lowest and the highest segment.
    pub fn bounds(&self) -> Option<(u64, u64)> {
        let segments = self.lock();
        Some((*segments.keys().next()?, *segments.keys().next_back()?))
    }

    /// Bytes of all segments up to their durable ends.
    pub fn bytes(&self) -> u64 {
        self.lock().values().map(|info| info.end).sum()
    }

    /// The place behind the last durable entry, and news of its moving.
    pub fn durable(&self) -> watch::Receiver<Position> {
        self.0.durable.subscribe()
    }

    /// Reads entries one after the other, beginning with the first at or above `from`. `Position::default()` is the
    /// beginning of what is kept.
    pub fn reader(&self, from: Position) -> Reader {
        Reader::new(self.clone(), from)
    }

    /// The preamble of segment `number`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn preamble(&self, number: u64) -> Result<Preamble, ReadError> {
        let file = self.file(number)?;
        let damaged = |what| self.damaged(Position { segment: number, byte: 0 }, what);
        let mut head = [0; SEGMENT_HEADER];
        self.read_into(&file, number, &mut head, 0)?;
        let head = SegmentHead::parse(&head, number).map_err(damaged)?;
        let mut preamble = vec![0; head.preamble_length];
        self.read_into(&file, number, &mut preamble, SEGMENT_HEADER as u64)?;
        if !head.matches(&preamble) {
            return Err(damaged("the checksum of its header does not match"));
        }
        Ok(Preamble { bytes: preamble.into(), created_unix_nano: head.created_unix_nano })
    }

    /// The payload of the entry at `position`, which is known to have `length` bytes of it: one read.
    ///
    /// # Errors
    /// See [`ReadError`]; every read checks the CRC.
    pub fn read_exact(&self, position: Position, length: u32) -> Result<Bytes, ReadError> {
        let file = self.file(position.segment)?;
        let mut entry = vec![0; ENTRY_HEADER + length as usize];
        self.read_into(&file, position.segment, &mut entry, position.byte)?;
        let head = EntryHead::parse(&entry, position.byte).filter(|head| head.length == length);
        let entry = Bytes::from(entry);
        let payload = entry.slice(ENTRY_HEADER..);
        match head {
            Some(head) if head.matches(position, &payload) => Ok(payload),
            Some(_) | None => Err(self.damaged(position, "the entry's checksum does not match")),
        }
    }

    /// The payload of the entry at `position`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_at(&self, position: Position) -> Result<Bytes, ReadError> {
        let file = self.file(position.segment)?;
        let mut head = [0; ENTRY_HEADER];
        self.read_into(&file, position.segment, &mut head, position.byte)?;
        match EntryHead::parse(&head, position.byte) {
            Some(head) => self.read_exact(position, head.length),
            None => Err(self.damaged(position, "no entry begins here")),
        }
    }

    /// Unlinks every segment below `number`, but never the last one. Returns how many went. What a reader has open stays
    /// readable to it.
    ///
    /// # Errors
    /// Of the file system; what was unlinked before stays unlinked.
    pub fn remove_below(&self, number: u64) -> io::Result<usize> {
        let mut removed = 0;
        while let Some(lowest) = self.lowest_below(number) {
            match std::fs::remove_file(self.path(lowest)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            self.lock().remove(&lowest);
            self.files().retain(|(segment, _)| *segment != lowest);
            removed += 1;
        }
        if removed > 0 {
            self.0.storage.sync_directory(&self.0.directory)?;
        }
        Ok(removed)
    }

    pub(crate) fn path(&self, number: u64) -> PathBuf {
        segment_path(&self.0.directory, number)
    }

    pub(crate) fn damaged(&self, position: Position, what: &'static str) -> ReadError {
        ReadError::Damaged { path: self.path(position.segment), position, what }
    }

    /// Notes a begun, grown or sealed segment, and tells readers.
    pub(crate) fn update(&self, info: SegmentInfo) {
        self.lock().insert(info.number, info);
        self.0.durable.send_replace(info.end_position());
    }

    /// The file of segment `number`, opened if need be.
    pub(crate) fn file(&self, number: u64) -> Result<Arc<File>, ReadError> {
        if let Some((_, file)) = self.files().iter().find(|(segment, _)| *segment == number) {
            return Ok(file.clone());
        }
        if self.segment(number).is_none() {
            return Err(self.removed(number));
        }
        let path = self.path(number);
        let file = match File::open(&path) {
            Ok(file) => Arc::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.removed(number)),
            Err(source) => return Err(ReadError::Io { path, source }),
        };
        let mut files = self.files();
        if files.len() >= FILES_MAX {
            files.pop_front();
        }
        files.push_back((number, file.clone()));
        Ok(file)
    }

    fn read_into(&self, file: &File, segment: u64, into: &mut [u8], at: u64) -> Result<(), ReadError> {
        file.read_exact_at(into, at).map_err(|source| {
            if source.kind() == io::ErrorKind::UnexpectedEof {
                self.damaged(Position { segment, byte: at }, "the file ends too early")
            } else {
                ReadError::Io { path: self.path(segment), source }
            }
        })
    }

    fn removed(&self, segment: u64) -> ReadError {
        ReadError::Removed { segment, first: self.bounds().map(|(first, _)| first) }
    }

    fn lowest_below(&self, number: u64) -> Option<u64> {
        let (first, last) = self.bounds()?;
        (first < number && first < last).then_some(first)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, SegmentInfo>> {
        self.0.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<File>)>> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SegmentInfo {
    pub(crate) fn end_position(&self) -> Position {
        Position { segment: self.number, byte: self.end }
    }
}

/// Where segment `number` lives.
pub(crate) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.segment"))
}

/// The number that a file's name says it has, if it is a segment's.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}
