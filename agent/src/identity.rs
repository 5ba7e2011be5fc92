//! What makes a file the same file: stream ids and fingerprints.
//!
//! Owns the layout of what is hashed; both layouts are on the wire or on disk for ever, so they only ever get a new tag
//! beside the old one. Pure: bytes and numbers in, hashes out.
//!
//! A **stream id** names a generation. It is XXH3-128 (seed 0, big endian) over, all integers little endian:
//!
//! | bytes | with a birth time | without |
//! |---|---|---|
//! | 20 | `logmesh/generation/1` | `logmesh/generation/1` |
//! | 1 | `B` | `L` |
//! | 8 | inode | inode |
//! | 8 | birth time, ns since 1970 | file system id |
//! | 8 | epoch | epoch |
//! | n | – | the first line, without its terminator, at most 1 KiB |
//!
//! A **mark** is the length and XXH3-64 of up to 1 KiB: of a file's first bytes (its head) or of the bytes before an
//! offset (an anchor). Marks validate, they never identify: two live files with equal marks are two files.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Longest head and anchor, in bytes.
pub const MARK_BYTES_MAX: usize = 1024;

/// Shortest head and anchor by which a new inode may pass for the continuation of a known generation, in bytes.
pub const RESEMBLANCE_BYTES_MIN: usize = 256;

const TAG: &[u8] = b"logmesh/generation/1";

/// Names a generation: the `stream_id` of its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub [u8; 16]);

impl StreamId {
    /// The id of a generation on a file system with birth times.
    #[must_use]
    pub fn born(inode: u64, birth_nano: i64, epoch: u64) -> Self {
        let mut bytes = Vec::with_capacity(TAG.len() + 25);
        bytes.extend_from_slice(TAG);
        bytes.push(b'B');
        bytes.extend_from_slice(&inode.to_le_bytes());
        bytes.extend_from_slice(&birth_nano.to_le_bytes());
        bytes.extend_from_slice(&epoch.to_le_bytes());
        Self(xxh3_128(&bytes).to_be_bytes())
    }

    /// The id of a generation on a file system without birth times.
    #[must_use]
    pub fn unborn(filesystem_id: u64, inode: u64, first_line: &[u8], epoch: u64) -> Self {
        let first_line = &first_line[..first_line.len().min(MARK_BYTES_MAX)];
        let mut bytes = Vec::with_capacity(TAG.len() + 25 + first_line.len());
        bytes.extend_from_slice(TAG);
        bytes.push(b'L');
        bytes.extend_from_slice(&inode.to_le_bytes());
        bytes.extend_from_slice(&filesystem_id.to_le_bytes());
        bytes.extend_from_slice(&epoch.to_le_bytes());
        bytes.extend_from_slice(first_line);
        Self(xxh3_128(&bytes).to_be_bytes())
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// Length and hash of up to [`MARK_BYTES_MAX`] bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    /// How many bytes were hashed.
    pub length: u16,
    /// Their XXH3-64.
    pub hash: u64,
}

impl Mark {
    /// The mark of the first bytes of a file, out of `content` that begins at its offset 0.
    #[must_use]
    pub fn head(content: &[u8]) -> Self {
        Self::of(&content[..content.len().min(MARK_BYTES_MAX)])
    }

    /// The mark of the bytes before an offset, out of `content` that ends there.
    #[must_use]
    pub fn anchor(content: &[u8]) -> Self {
        Self::of(&content[content.len().saturating_sub(MARK_BYTES_MAX)..])
    }

    fn of(bytes: &[u8]) -> Self {
        Self { length: u16::try_from(bytes.len()).unwrap_or(u16::MAX), hash: xxh3_64(bytes) }
    }

    /// Whether the first bytes of `content` are the marked ones.
    #[must_use]
    pub fn begins(&self, content: &[u8]) -> bool {
        content.get(..usize::from(self.length)).is_some_and(|bytes| self.length == 0 || xxh3_64(bytes) == self.hash)
    }

    /// Whether the last bytes of `content` are the marked ones.
    #[must_use]
    pub fn ends(&self, content: &[u8]) -> bool {
        let Some(start) = content.len().checked_sub(usize::from(self.length)) else { return false };
        self.length == 0 || xxh3_64(&content[start..]) == self.hash
    }
}

/// Hash of a whole range of a source, by which a cut recognises its bytes after a restart.
#[must_use]
pub fn range_hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_ids_never_change() {
        assert_eq!(StreamId::born(1, 2, 3).to_string(), StreamId::born(1, 2, 3).to_string());
        assert_eq!(
            StreamId::born(9_977_994, 1_795_402_901_197_692_781, 0).to_string(),
            "8291dd845f850d0e3654e62bf24afa8d"
        );
        assert_eq!(StreamId::unborn(7, 42, b"first line", 0).to_string(), "55ad1980a756c8418ed0b5968002046a");
    }

    #[test]
    fn every_part_of_a_generation_counts() {
        let base = StreamId::born(1, 2, 0);
        for other in [StreamId::born(2, 2, 0), StreamId::born(1, 3, 0), StreamId::born(1, 2, 1)] {
            assert_ne!(base, other);
        }
        let base = StreamId::unborn(1, 2, b"a", 0);
        for other in [StreamId::unborn(2, 2, b"a", 0), StreamId::unborn(1, 2, b"b", 0), StreamId::unborn(1, 2, b"a", 9)]
        {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_mark_recognises_its_bytes_and_no_others() {
        let content: Vec<u8> = (0..3000u32).flat_map(u32::to_le_bytes).collect();
        let head = Mark::head(&content);
        let anchor = Mark::anchor(&content[..5000]);
        assert!(head.begins(&content) && anchor.ends(&content[..5000]));
        assert!(!head.begins(&content[1..]) && !anchor.ends(&content[..5001]) && !anchor.ends(&content[..10]));
        assert!(Mark::default().begins(b"") && Mark::default().ends(b"anything"));
    }
}
