//! Compressed files as their content.
//!
//! Owns how gzip and zstd archives are recognised, inflated and read at offsets of their content. Does not own which
//! files are archives to be read, nor which generation one holds: the tailer does.
//!
//! - `gzip.rs`: members of gzip; `stream.rs`: an archive from front to back, in steps;
//! - `content.rs`: an open file as its content, be it an archive;
//! - `pass.rs`: the one pass that shows that an archive is whole, how large its content is, and what it holds.
//!
//! Invariants: an archive is read as a whole or not at all (all members, checksums and sizes are checked before its
//! first byte is used); memory is bounded whatever the archive claims: one window ([`WINDOW_BYTES_MAX`]), one piece of
//! input, and the last [`content::KEPT_BYTES`] of content; work is bounded by who asks for it.

mod content;
mod gzip;
mod pass;
mod stream;
#[cfg(test)]
pub(crate) mod tests;

use std::io;

use thiserror::Error;

pub use content::{Content, Inflated};
pub(crate) use pass::Pass;

/// Largest window of a zstd archive, in bytes: what `zstd -19` and all lower levels use. One that wants more
/// (`--ultra`, `--long`) would take up to 2 GiB of memory, and is refused.
pub const WINDOW_BYTES_MAX: u32 = 1 << WINDOW_LOG_MAX;
const WINDOW_LOG_MAX: u32 = 23;

/// Bytes by which an archive is recognised.
pub const MAGIC_BYTES: usize = 6;

/// Endings of names under which an archive is expected.
const EXTENSIONS: [&str; 5] = ["gz", "zst", "zstd", "bz2", "xz"];

/// What an archive was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// RFC 1952, with any number of members.
    Gzip,
    /// RFC 8878, with any number of frames.
    Zstd,
}

/// How many bytes a decoder took and put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Moved {
    taken: usize,
    put: usize,
}

/// What the first bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// An archive that can be read.
    Archive(Codec),
    /// One that cannot: bzip2 or xz.
    Foreign,
    /// No archive.
    Plain,
}

impl Looks {
    /// What a file is that begins with `first`, [`MAGIC_BYTES`] where it has so many.
    #[must_use]
    pub fn of(first: &[u8]) -> Self {
        match first {
            // The method is deflate in every gzip file there is.
            [0x1f, 0x8b, 8, ..] => Self::Archive(Codec::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Archive(Codec::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41] | [0xfd, b'7', b'z', b'X', b'Z', 0] => Self::Foreign,
            _ => Self::Plain,
        }
    }
}

/// Whether a name is one that archives have.
#[must_use]
pub fn is_named_as_archive(path: &std::path::Path) -> bool {
    let extension = path.extension().and_then(std::ffi::OsStr::to_str);
    extension.is_some_and(|extension| EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

/// Why an archive cannot be read.
#[derive(Debug, Error)]
pub enum Fault {
    /// It ends in the middle, so it may still be written.
    #[error("the archive ends in the middle")]
    Incomplete,
    /// It is no sound archive.
    #[error("the archive cannot be inflated: {0}")]
    Damaged(String),
    /// The operating system's.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Io(error) => error,
            Fault::Incomplete | Fault::Damaged(_) => Self::new(io::ErrorKind::InvalidData, fault.to_string()),
        }
    }
}
