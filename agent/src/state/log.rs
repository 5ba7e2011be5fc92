//! One file of the cut log.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    Fact,
    codec::{Input, put_entry, take_entry},
};

const MAGIC: &[u8; 8] = b"LMCUTS_1";
const HEADER_BYTES: usize = 28;

/// A log that is appended to.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) number: u64,
    pub(super) bytes: u64,
    file: File,
    unsynced: bool,
    /// An append failed half way: what follows would not be found again.
    broken: bool,
    buffer: Vec<u8>,
    /// Writes fail half way, as on a full disk.
    #[cfg(test)]
    pub(super) full: bool,
}

impl Log {
    pub(super) fn create(directory: &Path, number: u64, boot: [u8; 16]) -> io::Result<Self> {
        let path = path(directory, number);
        let file = File::options().write(true).create(true).truncate(true).open(path)?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&boot);
        header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
        let mut log = Self {
            number,
            bytes: 0,
            file,
            unsynced: true,
            broken: false,
            buffer: Vec::with_capacity(4096),
            #[cfg(test)]
            full: false,
        };
        log.file.write_all(&header)?;
        log.bytes = header.len() as u64;
        Ok(log)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Appends facts with one write(2).
    pub(super) fn append<'a>(&mut self, facts: impl IntoIterator<Item = &'a Fact>) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an earlier write to the cut log failed"));
        }
        self.buffer.clear();
        for fact in facts {
            put_entry(&mut self.buffer, fact);
        }
        self.unsynced = true;
        let written = self.write_buffer();
        self.broken |= written.is_err();
        self.bytes += self.buffer.len() as u64;
        written
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        #[cfg(test)]
        if self.full {
            self.file.write_all(&self.buffer[..self.buffer.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all(&self.buffer)
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            let synced = self.file.sync_data();
            // What the system could not write it may have dropped, and would not say so a second time.
            self.broken |= synced.is_err();
            synced?;
            self.unsynced = false;
        }
        Ok(())
    }
}

/// What a log says.
pub(super) struct Read {
    pub(super) boot: Option<[u8; 16]>,
    pub(super) facts: Vec<Fact>,
    /// Bytes at the end that are no whole, sound entries.
    pub(super) damaged_bytes: usize,
}

pub(super) fn read(bytes: &[u8]) -> Read {
    let Some(header) = bytes.get(..HEADER_BYTES).filter(|header| sound(header)) else {
        return Read { boot: None, facts: Vec::new(), damaged_bytes: bytes.len() };
    };
    let mut input = Input(&bytes[HEADER_BYTES..]);
    let mut facts = Vec::new();
    while let Some(fact) = take_entry(&mut input) {
        facts.push(fact);
    }
    Read { boot: header[8..24].try_into().ok(), facts, damaged_bytes: input.0.len() }
}

fn sound(header: &[u8]) -> bool {
    header.starts_with(MAGIC) && header[24..] == crc32c::crc32c(&header[..24]).to_le_bytes()
}

pub(super) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("cuts-{number:016}.log"))
}

/// The number in a log's file name.
pub(super) fn number(name: &str) -> Option<u64> {
    name.strip_prefix("cuts-")?.strip_suffix(".log")?.parse().ok()
}
