//! Ids: what makes a stream and a record the same wherever they turn up.
//!
//! Both are XXH3-128 hashes (xxHash specification 0.2), written as 16 bytes big endian (the canonical form), so that
//! any client and any tool can compute them.

use std::{fmt, str::FromStr};

use thiserror::Error;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

/// Identity and stream together: XXH3-128 of the identity's UTF-8 bytes, one zero byte, and the stream id.
///
/// The identity is the one that a gateway read from the peer's certificate; a client's own claim never enters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey([u8; 16]);

impl StreamKey {
    /// Computes the key of a stream.
    #[must_use]
    pub fn derive(identity: &str, stream_id: &[u8]) -> Self {
        let mut hasher = Xxh3Default::new();
        hasher.update(identity.as_bytes());
        hasher.update(&[0]);
        hasher.update(stream_id);
        Self(hasher.digest128().to_be_bytes())
    }

    /// Takes a key that was computed before.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The key's 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A record's id, the document's `_id`: XXH3-128 of the stream key's 16 bytes, the offset as 8 bytes little endian, and
/// the body.
///
/// The body is in it so that a wrong stream identity gives a second document, never a missing one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId([u8; 16]);

impl RecordId {
    /// Computes the id of the record that begins at `offset` bytes in its stream.
    #[must_use]
    pub fn derive(key: StreamKey, offset: u64, body: &[u8]) -> Self {
        /// Records up to this size are hashed in one go from the stack, which is several times faster than a hasher.
        const SHORT: usize = 1024;
        let prefix = key.0.len() + 8;
        let digest = if body.len() <= SHORT - prefix {
            let mut whole = [0_u8; SHORT];
            whole[..16].copy_from_slice(&key.0);
            whole[16..prefix].copy_from_slice(&offset.to_le_bytes());
            whole[prefix..prefix + body.len()].copy_from_slice(body);
            xxh3_128(&whole[..prefix + body.len()])
        } else {
            let mut hasher = Xxh3Default::new();
            hasher.update(&key.0);
            hasher.update(&offset.to_le_bytes());
            hasher.update(body);
            hasher.digest128()
        };
        Self(digest.to_be_bytes())
    }

    /// Takes an id that was computed before.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id's 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id's 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> [u8; 32] {
        hex(&self.0)
    }
}

/// An id in text that is not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an id is 32 hexadecimal digits")]
pub struct IdError;

fn hex(bytes: &[u8; 16]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0; 32];
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    out
}

fn unhex(text: &str) -> Result<[u8; 16], IdError> {
    if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(IdError);
    }
    u128::from_str_radix(text, 16).map(u128::to_be_bytes).map_err(|_| IdError)
}

macro_rules! text_form {
    ($id:ident) => {
        impl fmt::Display for $id {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(&self.0).iter().try_for_each(|digit| fmt::Write::write_char(formatter, char::from(*digit)))
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({self})", stringify!($id))
            }
        }

        impl FromStr for $id {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                unhex(text).map(Self)
            }
        }
    };
}

text_form!(StreamKey);
text_form!(RecordId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_published_hashes_and_never_change() {
        let key = StreamKey::derive("spiffe://mesh/agent/edge-1", b"0123456789abcdef");
        assert_eq!(key.to_string(), format!("{:032x}", xxh3_128(b"spiffe://mesh/agent/edge-1\x000123456789abcdef")));
        let mut whole = key.as_bytes().to_vec();
        whole.extend_from_slice(&7_u64.to_le_bytes());
        whole.extend_from_slice(b"a line");
        let id = RecordId::derive(key, 7, b"a line");
        assert_eq!(id.to_string(), format!("{:032x}", xxh3_128(&whole)));
    }

    #[test]
    fn long_and_short_bodies_are_hashed_alike() {
        let key = StreamKey::from_bytes([9; 16]);
        for length in [0, 1, 999, 1000, 1001, 5000] {
            let body = vec![b'x'; length];
            let whole = [key.as_bytes().as_slice(), &3_u64.to_le_bytes(), &body].concat();
            assert_eq!(RecordId::derive(key, 3, &body).as_bytes(), &xxh3_128(&whole).to_be_bytes());
        }
    }

    #[test]
    fn offset_stream_and_body_each_make_another_record() {
        let key = StreamKey::derive("a", b"s");
        let id = RecordId::derive(key, 0, b"x");
        assert_ne!(id, RecordId::derive(key, 1, b"x"));
        assert_ne!(id, RecordId::derive(key, 0, b"y"));
        assert_ne!(id, RecordId::derive(StreamKey::derive("b", b"s"), 0, b"x"));
    }

    #[test]
    fn text_form_reads_back_and_refuses_anything_else() {
        let id = RecordId::derive(StreamKey::from_bytes([1; 16]), 1, b"z");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("".parse::<RecordId>(), Err(IdError));
        assert_eq!("+0000000000000000000000000000000".parse::<RecordId>(), Err(IdError));
    }
}
