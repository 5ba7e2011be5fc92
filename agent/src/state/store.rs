//! The state directory: opening, recovering, appending, checkpointing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    CutRecord, Fact, GenerationRecord, Past, PastLog, Recovered, Remembered, StoreError, Trust,
    codec::{Input, put_generation},
    log::{self, Log},
};
use crate::identity::StreamId;

const MAGIC: &[u8; 8] = b"LMCHECK1";
/// A log longer than this is replaced by one with the live cuts alone.
const LOG_BYTES_MAX: u64 = 1024 * 1024;

/// The open state directory of one agent.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    boot: [u8; 16],
    log: Log,
    /// The log that the checkpoint on disk begins with.
    checkpoint_log: Option<u64>,
    /// Size of the last checkpoint of this run.
    checkpoint_bytes: u64,
    /// Whether a checkpoint of this run is on disk; the first one begins a log.
    begun: bool,
    _lock: File,
    /// See [`Store::set_full`].
    #[cfg(test)]
    full: bool,
}

struct Checkpoint {
    boot: [u8; 16],
    log_number: u64,
    clean: bool,
    generations: Vec<GenerationRecord>,
}

impl Store {
    /// Locks the directory, makes it where it is missing, and recovers what it holds.
    ///
    /// # Errors
    /// Another agent holds it, or the operating system refuses. Damaged content is no error.
    pub fn open(directory: &Path) -> Result<(Self, Recovered), StoreError> {
        let failed = |what| move |source| StoreError::Io { what, path: directory.into(), source };
        fs::create_dir_all(directory).map_err(failed("create"))?;
        let lock = lock(directory)?;
        let boot = boot_id();
        let mut notes = Vec::new();
        let numbers = log_numbers(directory).map_err(failed("list"))?;
        let checkpoint = load_checkpoint(directory, set_aside, &mut notes);
        let checkpoint_log = checkpoint.as_ref().map(|checkpoint| checkpoint.log_number);
        let recovered = recover(directory, checkpoint, &numbers, boot, notes);
        let number = numbers.last().map_or(1, |last| last + 1);
        let log = Log::create(directory, number, boot).map_err(failed("write a cut log in"))?;
        let store = Self {
            directory: directory.into(),
            boot,
            log,
            checkpoint_log,
            checkpoint_bytes: 0,
            begun: false,
            _lock: lock,
            #[cfg(test)]
            full: false,
        };
        Ok((store, recovered))
    }

    /// Reads what the directory holds without a lock and without a change to it. While an agent writes there, what is seen
    /// is as it was a moment ago.
    ///
    /// # Errors
    /// The operating system refuses. Damaged content is no error.
    pub fn look(directory: &Path) -> Result<Recovered, StoreError> {
        let failed = |source| StoreError::Io { what: "list", path: directory.into(), source };
        let mut notes = Vec::new();
        // The checkpoint first: an agent removes only logs that are older than the one before it.
        let checkpoint = load_checkpoint(directory, leave, &mut notes);
        let numbers = log_numbers(directory).map_err(failed)?;
        Ok(recover(directory, checkpoint, &numbers, boot_id(), notes))
    }

    /// Opens what is remembered of generations that are over.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open_past(&self) -> io::Result<(PastLog, Vec<Past>, Option<String>)> {
        PastLog::open(&self.directory)
    }

    /// Has every write fail, as on a full disk, until there is room again.
    #[cfg(test)]
    pub(crate) fn set_full(&mut self, full: bool) {
        self.full = full;
        self.log.full = full;
    }

    /// Appends facts to the cut log with one write(2).
    ///
    /// # Errors
    /// The operating system's; the log is then not written to until a checkpoint has begun a new one.
    pub fn append<'a>(&mut self, facts: impl IntoIterator<Item = &'a Fact>) -> io::Result<()> {
        self.log.append(facts)
    }

    /// Makes all facts appended so far durable.
    ///
    /// # Errors
    /// The operating system's.
    pub fn sync(&mut self) -> io::Result<()> {
        self.log.sync()
    }

    /// Writes a checkpoint of all that is remembered. `clean` says that nothing happens after it.
    ///
    /// # Errors
    /// The operating system's; the checkpoint on disk is then still the one before.
    pub fn checkpoint(&mut self, generations: &[Remembered], clean: bool) -> io::Result<()> {
        #[cfg(test)]
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let rotate = !self.begun || self.log.is_broken() || self.log.bytes > LOG_BYTES_MAX;
        if rotate {
            self.begin_log(generations)?;
        }
        self.log.sync()?;
        let fresh = self.directory.join("checkpoint.new");
        let mut file = File::create(&fresh)?;
        let bytes = self.encode(generations, clean);
        file.write_all(&bytes)?;
        file.sync_all()?;
        let current = self.directory.join("checkpoint");
        match fs::rename(&current, self.directory.join("checkpoint.previous")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::rename(&fresh, &current)?;
        File::open(&self.directory)?.sync_all()?;
        self.begun = true;
        self.checkpoint_bytes = bytes.len() as u64;
        let keep_from = self.checkpoint_log.replace(self.log.number);
        // The previous checkpoint still needs the logs from its own on.
        if let Some(keep_from) = keep_from.filter(|_| rotate) {
            self.remove_logs_before(keep_from);
        }
        Ok(())
    }

    /// Size of the last checkpoint in bytes.
    #[must_use]
    pub fn checkpoint_bytes(&self) -> u64 {
        self.checkpoint_bytes
    }

    /// Whether the cut log is as long as it may get, before a checkpoint begins another one.
    #[must_use]
    pub fn is_log_long(&self) -> bool {
        self.log.bytes > LOG_BYTES_MAX.max(self.checkpoint_bytes)
    }

    /// Begins a log that holds the live cuts alone.
    fn begin_log(&mut self, generations: &[Remembered]) -> io::Result<()> {
        let mut log = Log::create(&self.directory, self.log.number + 1, self.boot)?;
        let facts: Vec<Fact> = generations
            .iter()
            .flat_map(|known| known.cuts.iter().map(|cut| Fact::Cut(known.generation.stream_id, *cut)))
            .collect();
        log.append(&facts)?;
        log.sync()?;
        self.log = log;
        Ok(())
    }

    fn encode(&self, generations: &[Remembered], clean: bool) -> Vec<u8> {
        let mut body = self.boot.to_vec();
        body.extend_from_slice(&self.log.number.to_le_bytes());
        body.push(u8::from(clean));
        body.extend_from_slice(&u32::try_from(generations.len()).unwrap_or(u32::MAX).to_le_bytes());
        for known in generations {
            put_generation(&mut body, &known.generation);
        }
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    fn remove_logs_before(&self, number: u64) {
        for old in log_numbers(&self.directory).unwrap_or_default().range(..number) {
            // One that stays is removed next time.
            let _ = fs::remove_file(log::path(&self.directory, *old));
        }
    }
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("lock");
    let failed = |source| StoreError::Io { what: "open", path: path.clone(), source };
    let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::Locked(directory.into())),
        Err(fs::TryLockError::Error(source)) => Err(StoreError::Io { what: "lock", path, source }),
    }
}

/// Changes with each boot; zero where the system has none, which then counts as the same boot.
fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    xxhash_rust::xxh3::xxh3_128(text.trim().as_bytes()).to_le_bytes()
}

fn log_numbers(directory: &Path) -> io::Result<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        numbers.extend(entry?.file_name().to_str().and_then(log::number));
    }
    Ok(numbers)
}

/// The checkpoint, or the previous one; `damaged` says what becomes of one that is damaged.
fn load_checkpoint(directory: &Path, damaged: fn(&Path) -> String, notes: &mut Vec<String>) -> Option<Checkpoint> {
    ["checkpoint", "checkpoint.previous"].iter().find_map(|name| {
        let path = directory.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                notes.push(format!("cannot read {}: {error}", path.display()));
                return None;
            }
        };
        let checkpoint = decode(&bytes);
        if checkpoint.is_none() {
            notes.push(format!("{} is damaged{}", path.display(), damaged(&path)));
        }
        checkpoint
    })
}

fn set_aside(path: &Path) -> String {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    match fs::rename(path, &aside) {
        Ok(()) => " and was set aside".into(),
        Err(error) => format!(" and could not be set aside: {error}"),
    }
}

fn leave(_: &Path) -> String {
    String::new()
}

fn decode(bytes: &[u8]) -> Option<Checkpoint> {
    let mut input = Input(bytes);
    if input.take(8)? != MAGIC {
        return None;
    }
    let length = usize::try_from(input.u32()?).ok()?;
    let crc = input.u32()?;
    let mut body = Input(input.take(length)?);
    if crc32c::crc32c(body.0) != crc {
        return None;
    }
    let (boot, log_number, clean, count) = (body.array()?, body.u64()?, body.u8()? != 0, body.u32()?);
    let generations = (0..count).map(|_| body.generation()).collect::<Option<Vec<_>>>()?;
    Some(Checkpoint { boot, log_number, clean, generations })
}

fn recover(
    directory: &Path,
    checkpoint: Option<Checkpoint>,
    numbers: &BTreeSet<u64>,
    boot: [u8; 16],
    mut notes: Vec<String>,
) -> Recovered {
    let from = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.log_number);
    let mut trust = match &checkpoint {
        None => Trust::Lost,
        Some(checkpoint) => {
            let stopped_in_order = checkpoint.clean && numbers.last().is_none_or(|last| *last <= from);
            if checkpoint.boot == boot || stopped_in_order { Trust::Whole } else { Trust::PowerCut }
        }
    };
    let mut known = Known::default();
    for generation in checkpoint.into_iter().flat_map(|checkpoint| checkpoint.generations) {
        known.learn(Fact::Generation(generation));
    }
    for number in numbers.range(from..) {
        let path = log::path(directory, *number);
        let bytes = fs::read(&path).unwrap_or_else(|error| {
            notes.push(format!("cannot read {}: {error}", path.display()));
            Vec::new()
        });
        let read = log::read(&bytes);
        if read.damaged_bytes > 0 || bytes.is_empty() {
            notes.push(format!("the last {} bytes of {} are damaged", read.damaged_bytes, path.display()));
            trust = if trust == Trust::Lost { Trust::Lost } else { Trust::PowerCut };
        }
        if trust == Trust::Whole && read.boot.is_some_and(|log_boot| log_boot != boot) && !read.facts.is_empty() {
            trust = Trust::PowerCut;
        }
        read.facts.into_iter().for_each(|fact| known.learn(fact));
    }
    Recovered { generations: known.into_remembered(), trust, notes }
}

/// Facts, put together in order.
#[derive(Default)]
struct Known {
    generations: BTreeMap<StreamId, Remembered>,
}

impl Known {
    fn learn(&mut self, fact: Fact) {
        match fact {
            Fact::Generation(generation) => {
                let (generation, cuts) = match self.generations.remove(&generation.stream_id) {
                    Some(known) => (newer(&known.generation, generation), known.cuts),
                    None => (generation, Vec::new()),
                };
                self.generations.insert(generation.stream_id, Remembered { generation, cuts });
            }
            Fact::Forgotten(stream_id) => {
                self.generations.remove(&stream_id);
            }
            Fact::Cut(stream_id, cut) => {
                // A cut of a generation that is forgotten is of no use.
                if let Some(known) = self.generations.get_mut(&stream_id) {
                    put_cut(&mut known.cuts, cut);
                }
            }
        }
    }

    fn into_remembered(self) -> Vec<Remembered> {
        let trimmed = self.generations.into_values().map(|mut known| {
            let acked = known.generation.acked;
            known.cuts.retain(|cut| cut.first >= acked);
            known
        });
        trimmed.collect()
    }
}

/// The later fact, with the progress of the one that got farther: a log is older than the checkpoint that begins with it.
fn newer(known: &GenerationRecord, fact: GenerationRecord) -> GenerationRecord {
    let mut merged = fact;
    if known.acked > merged.acked {
        (merged.acked, merged.after, merged.anchor) = (known.acked, known.after, known.anchor);
    }
    if known.head.length > merged.head.length {
        merged.head = known.head;
    }
    merged.resend |= known.resend;
    merged
}

/// Puts a cut in its place; those that it overlaps give way.
fn put_cut(cuts: &mut Vec<CutRecord>, cut: CutRecord) {
    let begin = cuts.partition_point(|other| other.end <= cut.first);
    let end = cuts.partition_point(|other| other.first < cut.end);
    cuts.splice(begin..end.max(begin), [cut]);
}
