//! Where an entry stands.

use std::fmt;

/// The place of an entry: its segment, and the byte at which its header begins. Ordered as the journal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The segment's number; the first ever is 1.
    pub segment: u64,
    /// Byte offset within the segment's file.
    pub byte: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.segment, self.byte)
    }
}
