//! How far a spool is delivered, on disk: `<name>.acked` beside the journal's directory.
//!
//! Magic `LMSPOOL1`, segment u64, byte u64, CRC-32C u32 of all before it; little endian. Replaced as a whole by rename, without
//! fsync: after a power cut an older place may hold, and what is sent again from there has the ids it had. On a full disk
//! it is overwritten where it is.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use bytes::{Buf, BufMut};
use logmesh_journal::{Log, Position};

const MAGIC: &[u8; 8] = b"LMSPOOL1";

/// See the module.
#[derive(Debug)]
pub(super) struct Progress {
    path: PathBuf,
    written: Option<Position>,
}

impl Progress {
    /// The place that was written last. A file that is damaged or missing means the beginning of what is kept.
    pub(super) fn load(path: PathBuf) -> (Self, Position) {
        let position = match fs::read(&path) {
            Ok(bytes) => decode(&bytes).unwrap_or_else(|| {
                tracing::warn!(path = %path.display(), "damaged; the spool is sent again from its beginning");
                Position::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Position::default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot be read; the spool is sent again from its beginning");
                Position::default()
            }
        };
        (Self { path, written: None }, position)
    }

    /// Where reading begins: at the place that was noted, if the log reaches so far. If not, it was noted of another one: the
    /// journal was removed, or an older copy of it was put back. Then all that is there is sent, and the note goes, so that
    /// it is not believed once the log has grown as far.
    pub(super) fn place_in(&self, noted: Position, log: &Log) -> Position {
        if reaches(log, noted) {
            return noted;
        }
        let path = self.path.display();
        tracing::warn!(
            %path, %noted,
            "the spool ends before the place up to which it was delivered: it was removed, or an older copy put back; \
             it is sent again from its beginning"
        );
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%path, %error, "cannot remove the note of how far the spool was delivered");
        }
        Position::default()
    }

    /// Whether a place is the last one written.
    pub(super) fn is_at(&self, position: Position) -> bool {
        self.written == Some(position)
    }

    /// Writes a place, unless it was the last one written.
    pub(super) fn store(&mut self, position: Position) -> io::Result<()> {
        if self.written == Some(position) {
            return Ok(());
        }
        let bytes = encode(position);
        match replace(&self.path, &bytes) {
            // What is there already needs no room. If it is torn, it is damaged, and more is sent again.
            Err(error) if is_full(&error) => overwrite(&self.path, &bytes).map_err(|_| error)?,
            replaced => replaced?,
        }
        self.written = Some(position);
        Ok(())
    }
}

/// Whether `error` says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a log has, or once had, the place.
fn reaches(log: &Log, place: Position) -> bool {
    let Some((_, last)) = log.bounds() else { return place == Position::default() };
    let end = log.segment(last).map_or(0, |segment| segment.end);
    place <= Position { segment: last, byte: end }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = with_suffix(path, ".new");
    fs::write(&fresh, bytes)?;
    fs::rename(&fresh, path)
}

fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn encode(position: Position) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.put_u64_le(position.segment);
    out.put_u64_le(position.byte);
    out.put_u32_le(crc32c::crc32c(&out));
    out
}

fn decode(bytes: &[u8]) -> Option<Position> {
    let (body, mut crc) = bytes.split_at_checked(24)?;
    let mut place = body.strip_prefix(MAGIC)?;
    let is_whole = crc.try_get_u32_le().ok()? == crc32c::crc32c(body) && crc.is_empty();
    is_whole.then(|| Position { segment: place.get_u64_le(), byte: place.get_u64_le() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_room_for_another_file_the_place_is_written_over_the_last_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("files.acked");
        let (mut progress, _) = Progress::load(path.clone());
        std::os::unix::fs::symlink("/dev/full", with_suffix(&path, ".new")).unwrap();
        let position = |byte| Position { segment: 3, byte };
        assert!(progress.store(position(1)).is_err_and(|error| is_full(&error)), "there is nothing to write over");
        fs::write(&path, b"damaged, and longer than what is to be written over it").unwrap();
        for byte in [1, 2] {
            progress.store(position(byte)).unwrap();
            assert_eq!(Progress::load(path.clone()).1, position(byte));
        }
    }

    #[test]
    fn a_place_reads_back_and_a_damaged_one_means_the_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("files.acked");
        let (mut progress, none) = Progress::load(path.clone());
        assert_eq!(none, Position::default());
        let position = Position { segment: 3, byte: 4711 };
        progress.store(position).unwrap();
        assert_eq!(Progress::load(path.clone()).1, position);
        for damaged in [&b""[..], b"garbage", &[0; 28], &encode(position)[..27]] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(Progress::load(path.clone()).1, Position::default());
        }
    }
}
