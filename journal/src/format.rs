//! Bytes of segments and entries: encoding and checking, without I/O. The layout is in the crate's documentation.

use crate::Position;

/// First bytes of every segment.
const MAGIC: [u8; 8] = *b"LMJOURNL";
/// Version of the layout.
const VERSION: u32 = 1;
/// Segment header without its preamble.
pub(crate) const SEGMENT_HEADER: usize = 36;
/// Entry header.
pub(crate) const ENTRY_HEADER: usize = 12;
/// Largest payload of an entry: what a reader is ready to hold in memory when a length claims it.
pub const ENTRY_BYTES_MAX: usize = 16 << 20;
/// Largest preamble.
pub const PREAMBLE_BYTES_MAX: usize = 16 << 20;
/// Largest segment: offsets within one fit 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 2 << 30;

/// Header and preamble of segment `number`.
pub(crate) fn segment_header(number: u64, created_unix_nano: u64, preamble: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER + preamble.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&length_u32(preamble.len()).to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&created_unix_nano.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), preamble);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(preamble);
    bytes
}

/// The fixed part of a segment header, checked as far as it can be without the preamble.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentHead {
    pub(crate) preamble_length: usize,
    pub(crate) created_unix_nano: u64,
    crc: u32,
    crc_of_head: u32,
}

impl SegmentHead {
    /// Reads the first [`SEGMENT_HEADER`] bytes of segment `number`; says what is wrong with them otherwise.
    pub(crate) fn parse(bytes: &[u8; SEGMENT_HEADER], number: u64) -> Result<Self, &'static str> {
        if bytes[..8] != MAGIC {
            return Err("it does not begin like a segment");
        }
        if u32_at(bytes, 8) != VERSION {
            return Err("its format version is not known to this program");
        }
        if u64_at(bytes, 16) != number {
            return Err("its header names another segment");
        }
        let preamble_length = u32_at(bytes, 12) as usize;
        if preamble_length > PREAMBLE_BYTES_MAX {
            return Err("its preamble has an impossible length");
        }
        let crc_of_head = crc32c::crc32c(&bytes[..32]);
        Ok(Self { preamble_length, created_unix_nano: u64_at(bytes, 24), crc: u32_at(bytes, 32), crc_of_head })
    }

    /// Whether the preamble belongs to this header.
    pub(crate) fn matches(&self, preamble: &[u8]) -> bool {
        crc32c::crc32c_append(self.crc_of_head, preamble) == self.crc
    }
}

/// The header of an entry, not checked against its payload yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryHead {
    /// Bytes of payload.
    pub(crate) length: u32,
    /// Byte at which the group that was written and synced together with this entry begins.
    pub(crate) group: u32,
    crc: u32,
}

impl EntryHead {
    /// Reads the header of the entry at `byte`. `None` when no entry can have it.
    pub(crate) fn parse(bytes: &[u8], byte: u64) -> Option<Self> {
        let head = Self { length: u32_at(bytes, 0), group: u32_at(bytes, 4), crc: u32_at(bytes, 8) };
        let possible = head.length > 0
            && head.length as usize <= ENTRY_BYTES_MAX
            && head.group as usize >= SEGMENT_HEADER
            && u64::from(head.group) <= byte;
        possible.then_some(head)
    }

    /// Bytes that the whole entry takes.
    pub(crate) fn size(&self) -> u64 {
        ENTRY_HEADER as u64 + u64::from(self.length)
    }

    /// Whether `payload` is what was written at `position` under this header.
    pub(crate) fn matches(&self, position: Position, payload: &[u8]) -> bool {
        entry_crc(position, self.length, self.group, payload) == self.crc
    }
}

/// Fills in the header of the entry whose payload already stands behind it in `entry`.
pub(crate) fn stamp_entry(entry: &mut [u8], position: Position, group: u32) {
    let (head, payload) = entry.split_at_mut(ENTRY_HEADER);
    let length = length_u32(payload.len());
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..8].copy_from_slice(&group.to_le_bytes());
    head[8..].copy_from_slice(&entry_crc(position, length, group, payload).to_le_bytes());
}

fn entry_crc(position: Position, length: u32, group: u32, payload: &[u8]) -> u32 {
    let mut place = [0; 24];
    place[..8].copy_from_slice(&position.segment.to_le_bytes());
    place[8..16].copy_from_slice(&position.byte.to_le_bytes());
    place[16..20].copy_from_slice(&length.to_le_bytes());
    place[20..].copy_from_slice(&group.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), payload)
}

/// Lengths are checked against their limits before they come here; saturating would show as a CRC error, never silently.
fn length_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
