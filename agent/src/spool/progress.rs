//! How far a spool is delivered, on disk: `<name>.acked` beside the journal's directory.
//!
//! Magic `LMSPOOL1`, segment u64, byte u64, CRC-32C u32 of all before it; little endian. Replaced as a whole by rename, without
//! fsync: after a power cut an older place may hold, and what is sent again from there has the ids it had.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bytes::{Buf, BufMut};
use logmesh_journal::Position;

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

    /// Whether a place is the last one written.
    pub(super) fn is_at(&self, position: Position) -> bool {
        self.written == Some(position)
    }

    /// Writes a place, unless it was the last one written.
    pub(super) fn store(&mut self, position: Position) -> io::Result<()> {
        if self.written == Some(position) {
            return Ok(());
        }
        let fresh = with_suffix(&self.path, ".new");
        fs::write(&fresh, encode(position))?;
        fs::rename(&fresh, &self.path)?;
        self.written = Some(position);
        Ok(())
    }
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
