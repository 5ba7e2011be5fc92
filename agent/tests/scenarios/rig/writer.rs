//! A writer of lines that are unlike each other, which keeps a log of every one: generation, offset, bytes.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Words that make lines differ in length.
const FILLER: &str = "the quick brown fox jumps over the lazy dog while forty two agents watch the pipeline flow ";

/// A line as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The writer, and which of its generations.
    pub(crate) generation: (Arc<str>, u32),
    pub(crate) offset: u64,
    /// Without the terminator.
    pub(crate) bytes: Vec<u8>,
}

/// See the module.
pub(crate) struct Writer {
    name: Arc<str>,
    path: PathBuf,
    file: File,
    generation: u32,
    offset: u64,
    serial: u64,
    /// Bytes that each line has beside its name and number.
    pub(crate) width: Option<usize>,
    pub(crate) lines: Vec<Line>,
}

impl Writer {
    /// Begins a file, named after its stem in every line.
    pub(crate) fn create(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_string_lossy();
        Self {
            name: name.as_ref().into(),
            path: path.into(),
            file: create(path),
            generation: 0,
            offset: 0,
            serial: 0,
            width: None,
            lines: Vec::new(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the present generation.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of lines written.
    pub(crate) fn count(&self) -> usize {
        self.lines.len()
    }

    /// Appends whole lines in one write.
    pub(crate) fn write(&mut self, count: usize) {
        let mut block = Vec::new();
        for _ in 0..count {
            let filler = match self.width {
                Some(width) => FILLER.repeat(width / FILLER.len() + 1)[..width].to_owned(),
                None => FILLER[..usize::try_from(self.serial).unwrap() % FILLER.len()].to_owned(),
            };
            let line = format!("{} {:07} {filler}", self.name, self.serial);
            self.note(line.as_bytes(), 1);
            block.extend_from_slice(line.as_bytes());
            block.push(b'\n');
        }
        self.file.write_all(&block).unwrap();
    }

    /// Appends bytes that make no difference to the log.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.file.write_all(bytes).unwrap();
        self.offset += bytes.len() as u64;
    }

    /// Appends a line of the caller's with its terminator.
    pub(crate) fn write_line(&mut self, line: &[u8], terminator: &[u8]) {
        self.note(line, terminator.len());
        self.file.write_all(&[line, terminator].concat()).unwrap();
    }

    fn note(&mut self, line: &[u8], terminator: usize) {
        let generation = (self.name.clone(), self.generation);
        self.lines.push(Line { generation, offset: self.offset, bytes: line.to_vec() });
        self.serial += 1;
        self.offset += (line.len() + terminator) as u64;
    }

    /// `a.log` becomes `a.log.1`, that one `a.log.2`, and so on; the one beyond `kept` is deleted, as logrotate does.
    pub(crate) fn rotate(&mut self, kept: u32) {
        let name = |number: u32| match number {
            0 => self.path.clone(),
            _ => self.path.with_extension(format!("log.{number}")),
        };
        for number in (0..=kept).rev() {
            let from = name(number);
            if number == kept && from.exists() {
                fs::remove_file(&from).unwrap();
            } else if number < kept && from.exists() {
                fs::rename(&from, name(number + 1)).unwrap();
            }
        }
        self.reopen();
    }

    /// Begins a new file under the name, as a daemon does that was told that its log was rotated.
    pub(crate) fn reopen(&mut self) {
        self.file = create(&self.path);
        self.begun_anew();
    }

    /// Truncates the file and goes on at its beginning.
    pub(crate) fn truncate(&mut self) {
        self.file.set_len(0).unwrap();
        self.begun_anew();
    }

    /// Someone else has truncated the file.
    pub(crate) fn begun_anew(&mut self) {
        self.generation += 1;
        self.offset = 0;
    }
}

/// Opens for appending, as loggers do, so that a truncation leaves no hole.
fn create(path: &Path) -> File {
    File::options().append(true).create(true).open(path).unwrap()
}
