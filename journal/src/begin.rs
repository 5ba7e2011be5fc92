//! Beginning a segment: under a temporary name, until everything about it is durable.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::format::{ENTRY_HEADER, PREAMBLE_BYTES_MAX, segment_header};
use crate::log::segment_path;
use crate::recover::TEMPORARY;
use crate::settings::Settings;
use crate::storage::Storage;
use crate::writer::Active;

/// Why there is no new segment.
pub(crate) enum BeginError {
    /// Nothing has changed: try again when the reason is gone.
    NotBegun(String),
    /// It has its name, but perhaps not durably.
    InDoubt(String),
}

/// Makes segment `number`, preallocated, with room for an entry of `entry_bytes` in all.
pub(crate) fn begin(
    storage: &dyn Storage,
    settings: &Settings,
    number: u64,
    preamble: &[u8],
    entry_bytes: usize,
    now_unix_nano: u64,
) -> Result<Active, BeginError> {
    let directory = &settings.options.directory;
    if preamble.len() > PREAMBLE_BYTES_MAX {
        return Err(BeginError::NotBegun(format!("the preamble of segment {number} is too large")));
    }
    let header = segment_header(number, now_unix_nano, preamble);
    let least = (header.len() + ENTRY_HEADER + entry_bytes) as u64;
    let capacity = capacity(storage, settings, least)?;
    let temporary = directory.join(format!("{number:020}{TEMPORARY}"));
    let path = segment_path(directory, number);
    let file = match prepare(storage, &temporary, &path, &header, capacity) {
        Ok(file) => file,
        Err(error) => {
            // What cannot be removed now is swept at the next open, and overwritten by the next attempt.
            let _ = std::fs::remove_file(&temporary);
            return Err(BeginError::NotBegun(format!(
                "a segment of {capacity} bytes cannot be begun in {}: {error}",
                directory.display()
            )));
        }
    };
    match storage.sync_directory(directory) {
        Ok(()) => Ok(Active { file, number, end: header.len() as u64, capacity, entries: 0 }),
        Err(error) => Err(BeginError::InDoubt(format!(
            "syncing the directory {} failed: {error}; check the disk, then restart",
            directory.display()
        ))),
    }
}

/// How large the segment can be: as configured, or what is free above the reserve.
fn capacity(storage: &dyn Storage, settings: &Settings, least: u64) -> Result<u64, BeginError> {
    let directory = &settings.options.directory;
    let free = storage.free(directory).map_err(|error| {
        BeginError::NotBegun(format!("the free space of {} is unknown: {error}", directory.display()))
    })?;
    let reserve = settings.reserve_bytes();
    let room = free.saturating_sub(reserve);
    if room < least {
        return Err(BeginError::NotBegun(format!(
            "the file system of {} has {free} bytes free, of which {reserve} are reserved: \
             no room for a segment of {least} bytes: make room",
            directory.display()
        )));
    }
    Ok(settings.options.segment_bytes.max(least).min(room))
}

fn prepare(
    storage: &dyn Storage,
    temporary: &Path,
    path: &Path,
    header: &[u8],
    capacity: u64,
) -> io::Result<std::fs::File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    storage.write(&file, header, 0)?;
    storage.allocate(&file, capacity)?;
    storage.sync(&file)?;
    std::fs::rename(temporary, path)?;
    Ok(file)
}
