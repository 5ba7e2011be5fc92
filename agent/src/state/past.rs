//! Generations that are over and may turn up again as an archive.
//!
//! Owns the file `past` of the state directory. It is there only where archives are read. What it holds has no place in
//! checkpoints: it changes with rotations, not with every second.
//!
//! # Format (integers little endian)
//! `LMPAST_1`, then entries: length u32, CRC-32C u32 of what follows, kind u8 (1), a generation as in `codec.rs`, when it
//! ended (u64, seconds since 1970), whether its file is an archive u8, and if so the archive's size u64 and the mark of its
//! last bytes. A later entry of a stream takes the place of an earlier one.
//!
//! # Crash cases
//! - A torn last entry is cut off; what it held is read again from its archive.
//! - Killed while it is written anew: `past.new` is left over and ignored; `past` is still whole.
//! - Lost: archives of generations that ended before are files of their own and read again, twice rather than lost.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    GenerationRecord,
    codec::{Input, put_generation, put_mark},
};
use crate::identity::{Mark, StreamId};

const MAGIC: &[u8; 8] = b"LMPAST_1";
const KIND_ENDED: u8 = 1;
/// Entries that may be of no more use before the file is written anew, beside as many as are of use.
const STALE_MAX: usize = 1024;

/// By what an archive is recognised without being inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Its size.
    pub bytes: u64,
    /// Mark of its last bytes, which hold the checksum of its content.
    pub tail: Mark,
}

/// A generation that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The generation; inode and birth are those of the archive, where it has one.
    pub generation: GenerationRecord,
    /// When it ended, in seconds since 1970.
    pub ended_unix: u64,
    /// Its archive.
    pub seal: Option<Seal>,
}

/// The open file.
#[derive(Debug)]
pub struct PastLog {
    path: PathBuf,
    file: File,
    entries: usize,
    unsynced: bool,
    broken: bool,
}

impl PastLog {
    /// Opens or makes the file; what is damaged of it is left out, and the note says so.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(directory: &Path) -> io::Result<(Self, Vec<Past>, Option<String>)> {
        let Found { path, known, entries, note, whole } = Found::read(directory)?;
        let file = File::options().append(true).create(true).open(&path)?;
        let broken = !whole;
        let mut log = Self { path, file, entries, unsynced: false, broken };
        log.tidy(&known)?;
        Ok((log, known, note))
    }

    /// Reads what it holds and changes nothing, also while an agent runs. The note says what of it is damaged.
    ///
    /// # Errors
    /// The operating system's.
    pub fn look(directory: &Path) -> io::Result<(Vec<Past>, Option<String>)> {
        let found = Found::read(directory)?;
        Ok((found.known, found.note))
    }

    /// Appends one that is over with one write(2).
    ///
    /// # Errors
    /// The operating system's; nothing is appended until the file was written anew.
    pub fn append(&mut self, past: &Past) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an earlier write to the file of past generations failed"));
        }
        let mut entry = Vec::new();
        put_entry(&mut entry, past);
        let written = self.file.write_all(&entry);
        self.broken = written.is_err();
        self.unsynced = true;
        self.entries += 1;
        written
    }

    /// Makes durable what was appended.
    ///
    /// # Errors
    /// The operating system's.
    pub fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.unsynced) { self.file.sync_data() } else { Ok(()) }
    }

    /// Writes the file anew where it holds much that is of no more use, or nothing can be appended.
    ///
    /// # Errors
    /// The operating system's; the file is then still the one before.
    pub fn tidy<'a>(
        &mut self,
        known: impl IntoIterator<Item = &'a Past, IntoIter: ExactSizeIterator>,
    ) -> io::Result<()> {
        let known = known.into_iter();
        if !self.broken && self.entries <= 2 * known.len() + STALE_MAX {
            return Ok(());
        }
        let entries = known.len();
        let mut bytes = MAGIC.to_vec();
        known.for_each(|past| put_entry(&mut bytes, past));
        let fresh = self.path.with_extension("new");
        let mut file = File::options().write(true).create(true).truncate(true).open(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        self.file = File::options().append(true).open(&self.path)?;
        (self.entries, self.broken, self.unsynced) = (entries, false, false);
        self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    }
}

/// The file as it was found.
struct Found {
    path: PathBuf,
    known: Vec<Past>,
    entries: usize,
    note: Option<String>,
    /// Whether it can be appended to.
    whole: bool,
}

impl Found {
    fn read(directory: &Path) -> io::Result<Self> {
        let path = directory.join("past");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let (known, entries, damaged) = decode(&bytes);
        let note = (damaged > 0).then(|| format!("the last {damaged} bytes of {} are damaged", path.display()));
        Ok(Self { path, known, entries, note, whole: !bytes.is_empty() && damaged == 0 })
    }
}

fn put_entry(out: &mut Vec<u8>, past: &Past) {
    let begin = out.len();
    out.extend_from_slice(&[0; 8]);
    out.push(KIND_ENDED);
    put_generation(out, &past.generation);
    out.extend_from_slice(&past.ended_unix.to_le_bytes());
    out.push(u8::from(past.seal.is_some()));
    if let Some(seal) = past.seal {
        out.extend_from_slice(&seal.bytes.to_le_bytes());
        put_mark(out, seal.tail);
    }
    let length = u32::try_from(out.len() - begin - 8).unwrap_or(u32::MAX);
    let crc = crc32c::crc32c(&out[begin + 8..]);
    out[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
    out[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
}

fn take_entry(input: &mut Input<'_>) -> Option<Past> {
    let mut ahead = Input(input.0);
    let length = usize::try_from(ahead.u32()?).ok()?;
    let crc = ahead.u32()?;
    let body = ahead.take(length)?;
    let mut payload = Input(body);
    if crc32c::crc32c(body) != crc || payload.u8()? != KIND_ENDED {
        return None;
    }
    let (generation, ended_unix, sealed) = (payload.generation()?, payload.u64()?, payload.u8()? != 0);
    let seal = if sealed { Some(Seal { bytes: payload.u64()?, tail: payload.mark()? }) } else { None };
    *input = ahead;
    Some(Past { generation, ended_unix, seal })
}

/// What is known, of how many entries, and how many bytes at the end are damaged.
fn decode(bytes: &[u8]) -> (Vec<Past>, usize, usize) {
    let mut input = Input(bytes);
    if input.take(MAGIC.len()).is_none_or(|magic| magic != MAGIC) {
        return (Vec::new(), 0, bytes.len());
    }
    let mut known: BTreeMap<StreamId, Past> = BTreeMap::new();
    let mut entries = 0;
    while let Some(past) = take_entry(&mut input) {
        known.insert(past.generation.stream_id, past);
        entries += 1;
    }
    (known.into_values().collect(), entries, input.0.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::Start;

    fn past(number: u64, acked: u64, seal: Option<Seal>) -> Past {
        let generation = GenerationRecord {
            stream_id: StreamId::born(number, 5, 0),
            inode: number,
            birth_nano: Some(5),
            epoch: 0,
            head: Mark::head(b"head"),
            acked,
            after: Start::Fresh,
            anchor: Mark::anchor(b"anchor"),
            resend: false,
            path: "/logs/a.log".into(),
        };
        Past { generation, ended_unix: 1_700_000_000 + number, seal }
    }

    fn open(directory: &Path) -> (PastLog, Vec<Past>, Option<String>) {
        PastLog::open(directory).unwrap()
    }

    #[test]
    fn the_last_word_on_each_stream_is_remembered_and_a_torn_end_costs_only_itself() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, known, note) = open(directory.path());
        assert_eq!((known.len(), note), (0, None));
        let seal = Seal { bytes: 99, tail: Mark::anchor(b"tail") };
        for entry in [past(1, 10, None), past(2, 20, None), past(1, 15, Some(seal))] {
            log.append(&entry).unwrap();
        }
        log.sync().unwrap();
        let mut expected = vec![past(1, 15, Some(seal)), past(2, 20, None)];
        expected.sort_by_key(|past| past.generation.stream_id);
        assert_eq!(open(directory.path()).1, expected);
        assert_eq!(PastLog::look(directory.path()).unwrap(), (expected, None));
        let path = directory.path().join("past");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let (mut log, known, note) = open(directory.path());
        assert!(known.contains(&past(1, 10, None)) && note.unwrap().contains("damaged"));
        log.append(&past(3, 30, None)).unwrap();
        let (_, known, note) = open(directory.path());
        assert_eq!((known.len(), note), (3, None));
    }

    #[test]
    fn a_file_that_holds_much_of_no_use_is_written_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, ..) = open(directory.path());
        let size = |directory: &Path| fs::metadata(directory.join("past")).unwrap().len();
        for acked in 0..2000 {
            log.append(&past(1, acked, None)).unwrap();
        }
        let before = size(directory.path());
        log.tidy(&[past(1, 1999, None)]).unwrap();
        assert!(size(directory.path()) < before / 1000);
        log.append(&past(2, 1, None)).unwrap();
        assert_eq!(open(directory.path()).1.len(), 2);
    }

    /// As the first version wrote it, byte for byte. It is read for ever.
    const GOLDEN: &str = "\
        4c4d504153545f3171000000a85eef4e01a35dea25a2bbdda955d515e31eeee7800700000000000000050000000000000000000000000000\
        00040077f0b168946bc8710a00000000000000000600115683f51c4120c5000b0000002f6c6f67732f612e6c6f6707f15365000000000163\
        000000000000000400770fca8045193b145f000000e29c7124015691fd9bbb2e14c241edbd4c280197810800000000000000050000000000\
        00000000000000000000040077f0b168946bc8710a00000000000000000600115683f51c4120c5000b0000002f6c6f67732f612e6c6f6708\
        f153650000000000";

    #[test]
    fn the_file_of_the_first_version_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let seal = Seal { bytes: 99, tail: Mark::anchor(b"tail") };
        let golden = (0..GOLDEN.len()).step_by(2).map(|at| u8::from_str_radix(&GOLDEN[at..at + 2], 16).unwrap());
        fs::write(directory.path().join("past"), golden.collect::<Vec<_>>()).unwrap();
        let mut expected = vec![past(7, 10, Some(seal)), past(8, 10, None)];
        expected.sort_by_key(|past| past.generation.stream_id);
        let (_, known, note) = open(directory.path());
        assert_eq!((known, note), (expected, None));
    }
}
