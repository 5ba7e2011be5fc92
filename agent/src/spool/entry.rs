//! What one entry of a spool says, as bytes, and back without trusting them.
//!
//! Integers little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version of this layout, 1 |
//! | 8 | when it was spooled, ns since 1970 |
//! | 2 + n | name of the input; empty for the rest of a file |
//! | 4 + n | where the input stands behind this batch; empty where it has no such place |
//! | rest | the batch: a `logmesh.v1.Batch` with its `StreamInfo`, without sequence |
//!
//! The head of each segment keeps the last place of every input, so that it outlives the entries that said so: a count u16,
//! then name and place of each, as above.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};
use logmesh_proto::v1;
use prost::Message;
use thiserror::Error;

const VERSION: u8 = 1;

/// A finished batch, and where its input stands behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When it was spooled, nanoseconds since 1970.
    pub spooled_unix_nano: u64,
    /// Name of its input; empty for the rest of a file.
    pub input: String,
    /// Where the input stands behind it.
    pub cursor: Option<Bytes>,
    /// The batch, with its `StreamInfo`.
    pub batch: v1::Batch,
}

/// Why bytes are no entry for this agent.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum Undecodable {
    /// They say nothing.
    #[error("{0}")]
    Damaged(String),
    /// They are of a later layout.
    #[error("an entry has layout {0}: it needs the version of the agent that wrote it, or a later one")]
    Newer(u8),
}

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.batch.encoded_len());
        out.put_u8(VERSION);
        out.put_u64_le(self.spooled_unix_nano);
        put_place(&mut out, &self.input, self.cursor.as_deref().unwrap_or_default());
        out.extend_from_slice(&self.batch.encode_to_vec());
        out
    }

    /// Reads an entry; the error says what is wrong with it.
    pub(super) fn decode(mut payload: Bytes) -> Result<Self, Undecodable> {
        let damaged = |what: &str| Undecodable::Damaged(what.to_owned());
        let version = payload.try_get_u8().map_err(|_| damaged("it is empty"))?;
        if version > VERSION {
            return Err(Undecodable::Newer(version));
        }
        if version < VERSION {
            return Err(damaged("it has a layout that never was"));
        }
        let spooled_unix_nano = payload.try_get_u64_le().map_err(|_| damaged("it is cut short"))?;
        let (input, cursor) = take_place(&mut payload).ok_or_else(|| damaged("it is cut short"))?;
        let batch = v1::Batch::decode(payload).map_err(|error| damaged(&format!("it holds no batch: {error}")))?;
        Ok(Self { spooled_unix_nano, input, cursor: Some(cursor).filter(|cursor| !cursor.is_empty()), batch })
    }

    /// Bytes of the source that it holds.
    pub(super) fn source_bytes(&self) -> u64 {
        self.batch.end_offset.saturating_sub(self.batch.first_offset)
    }

    /// The path that its stream is known by.
    pub(super) fn path(&self) -> &str {
        self.batch.info.as_ref().map_or("", |info| &info.path)
    }
}

/// The last place of every input, for the head of a segment.
pub(super) fn encode_places(places: &BTreeMap<String, Bytes>) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u16_le(u16::try_from(places.len()).unwrap_or(u16::MAX));
    for (name, cursor) in places.iter().take(usize::from(u16::MAX)) {
        put_place(&mut out, name, cursor);
    }
    out
}

/// Reads the head of a segment; what cannot be read is left out.
pub(super) fn decode_places(mut head: Bytes) -> BTreeMap<String, Bytes> {
    let count = head.try_get_u16_le().unwrap_or(0);
    (0..count).map_while(|_| take_place(&mut head)).collect()
}

fn put_place(out: &mut Vec<u8>, name: &str, cursor: &[u8]) {
    // Names are bounded by the configuration, cursors by the inputs.
    let name = &name.as_bytes()[..name.len().min(usize::from(u16::MAX))];
    out.put_u16_le(u16::try_from(name.len()).unwrap_or(u16::MAX));
    out.put_slice(name);
    out.put_u32_le(u32::try_from(cursor.len()).unwrap_or(u32::MAX));
    out.put_slice(cursor);
}

fn take_place(input: &mut Bytes) -> Option<(String, Bytes)> {
    let name = usize::from(input.try_get_u16_le().ok()?);
    let name = (name <= input.len()).then(|| input.split_to(name))?;
    let cursor = usize::try_from(input.try_get_u32_le().ok()?).ok()?;
    let cursor = (cursor <= input.len()).then(|| input.split_to(cursor))?;
    Some((String::from_utf8(name.to_vec()).ok()?, cursor))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(input: &str, cursor: &[u8]) -> Entry {
        let info = v1::StreamInfo { path: "/logs/a.log".into(), ..v1::StreamInfo::default() };
        let batch = v1::Batch { first_offset: 10, end_offset: 30, info: Some(info), ..v1::Batch::default() };
        let cursor = Some(Bytes::copy_from_slice(cursor)).filter(|cursor| !cursor.is_empty());
        Entry { spooled_unix_nano: 7, input: input.into(), cursor, batch }
    }

    #[test]
    fn an_entry_reads_back_as_it_was() {
        for entry in [entry("", b""), entry("journald", b"s=1;i=2")] {
            assert_eq!(Entry::decode(entry.encode().into()), Ok(entry.clone()));
            assert_eq!((entry.source_bytes(), entry.path()), (20, "/logs/a.log"));
        }
    }

    #[test]
    fn an_entry_of_a_later_layout_is_refused_by_name() {
        let mut bytes = entry("", b"").encode();
        bytes[0] = 9;
        let error = Entry::decode(bytes.clone().into()).unwrap_err();
        assert!(error == Undecodable::Newer(9) && error.to_string().contains("layout 9"));
        bytes[0] = 0;
        assert!(matches!(Entry::decode(bytes.into()), Err(Undecodable::Damaged(_))));
    }

    #[test]
    fn places_of_inputs_read_back_and_survive_a_cut_head() {
        let places = BTreeMap::from([("a".to_owned(), Bytes::from_static(b"1")), ("b".to_owned(), Bytes::from("22"))]);
        let head = encode_places(&places);
        assert_eq!(decode_places(head.clone().into()), places);
        assert_eq!(decode_places(Bytes::copy_from_slice(&head[..head.len() - 1])).len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Entry::decode(bytes.clone().into());
            let _ = decode_places(bytes.into());
        }
    }
}
