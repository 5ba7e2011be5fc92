//! From what a crash left in a directory to a journal whose every segment is sealed.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::SEGMENT_HEADER;
use crate::log::{SegmentInfo, segment_number, segment_path};
use crate::scan::Scan;
use crate::storage::Storage;
use crate::{Damage, OpenError, Position};

/// Ending of a segment that is being made.
pub(crate) const TEMPORARY: &str = ".temporary";

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Bytes of a torn tail that were cut from the last segment (without preallocated zeros): never acknowledged.
    pub torn_bytes: u64,
    /// Stretches of the last segment that were acknowledged and cannot be read any more.
    pub damage: Vec<Damage>,
}

/// Makes the directory if need be.
pub(crate) fn make_directory(path: &Path) -> Result<(), OpenError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| OpenError::Io { what: "making the directory", path: path.to_owned(), source })
}

/// Lists the segments, sweeps away unfinished ones, and seals the last.
pub(crate) fn recover(
    directory: &Path,
    storage: &dyn Storage,
) -> Result<(BTreeMap<u64, SegmentInfo>, Recovery), OpenError> {
    let failed = |what: &'static str| {
        let path = directory.to_owned();
        move |source| OpenError::Io { what, path, source }
    };
    let mut segments = list(directory).map_err(failed("listing"))?;
    let mut recovery = Recovery::default();
    if let Some(last) = segments.values_mut().next_back() {
        let path = segment_path(directory, last.number);
        let failed = |source| OpenError::Io { what: "recovering", path: path.clone(), source };
        last.end = seal_last(&path, last.number, storage, &mut recovery).map_err(failed)?;
    }
    // Names from before the crash may still be on their way to the disk.
    storage.sync_directory(directory).map_err(failed("syncing the directory"))?;
    Ok((segments, recovery))
}

fn list(directory: &Path) -> io::Result<BTreeMap<u64, SegmentInfo>> {
    let mut segments = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(TEMPORARY) {
            std::fs::remove_file(entry.path())?;
        } else if let Some(number) = segment_number(name) {
            segments.insert(number, SegmentInfo { number, end: entry.metadata()?.len(), sealed: true });
        }
    }
    Ok(segments)
}

/// Cuts a torn tail, syncs what stays, and returns its end. What stays was perhaps never synced before (the process was
/// killed between write and fdatasync), and must be before anyone reads it.
fn seal_last(path: &PathBuf, number: u64, storage: &dyn Storage, recovery: &mut Recovery) -> io::Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let end = sound_end(&file, number, length, recovery)?;
    if end < length {
        storage.truncate(&file, end)?;
    }
    storage.sync(&file)?;
    Ok(end)
}

fn sound_end(file: &File, number: u64, length: u64, recovery: &mut Recovery) -> io::Result<u64> {
    let mut scan = Scan::new(Arc::new(file.try_clone()?), number, length);
    let place = |byte| Position { segment: number, byte };
    let mut at = match scan.first()? {
        Ok(first) => first,
        Err(what) => {
            // A header is synced before the segment gets its name: this is damage, and what is sound behind it stays.
            let to = scan.resync(SEGMENT_HEADER as u64)?.unwrap_or(length);
            recovery.damage.push(Damage { from: place(0), to: place(to), what });
            to
        }
    };
    loop {
        while let Some((head, _)) = scan.entry(at)? {
            at += head.size();
        }
        match acknowledged_after(&mut scan, at, length)? {
            Some(sound) => {
                let what = "no sound entry begins here, but acknowledged ones follow";
                recovery.damage.push(Damage { from: place(at), to: place(sound), what });
                at = sound;
            }
            None => break,
        }
    }
    recovery.torn_bytes = torn_bytes(file, at, length)?;
    Ok(at)
}

/// Tells damage from a torn tail. At `at` no sound entry begins. If a sound one follows whose group begins above `at`, what
/// stands at `at` was synced before that group was written: damage. The same if the last sound entry ends exactly with
/// the file: it is sealed, no write was under way. Otherwise all that follows belongs to the one group that was being
/// written, was never acknowledged, and goes.
fn acknowledged_after(scan: &mut Scan, at: u64, length: u64) -> io::Result<Option<u64>> {
    let mut first = None;
    let mut search = at + 1;
    while let Some(found) = scan.resync(search)? {
        let Some((head, _)) = scan.entry(found)? else { break };
        let first = *first.get_or_insert(found);
        if u64::from(head.group) > at || found + head.size() == length {
            return Ok(Some(first));
        }
        search = found + head.size();
    }
    Ok(None)
}

/// Bytes from `at` to the last one that is not zero.
fn torn_bytes(file: &File, at: u64, length: u64) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut window = vec![0; 1 << 16];
    let mut end = length;
    while end > at {
        let step = (end - at).min(window.len() as u64);
        let bytes = &mut window[..step as usize];
        file.read_exact_at(bytes, end - step)?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            return Ok(end - step + last as u64 + 1 - at);
        }
        end -= step;
    }
    Ok(0)
}
