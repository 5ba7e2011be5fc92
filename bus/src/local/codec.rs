//! Bytes of journal entries and preambles. All integers are little-endian.
//!
//! ```text
//! entry      1  version, 1
//!            1  length of the topic's name, then the name
//!            2  partition
//!            2  number of the topic's partitions
//!            8  offset
//!            8  when it was appended, in nanoseconds since the epoch
//!            4  length of the key, then the key
//!            2  number of headers, then for each: 2 length of the name, name, 4 length of the value, value
//!               value: the rest
//!
//! preamble   1  version, 1
//!            4  number of topics, then for each:
//!               1  length of the name, then the name
//!               2  number of partitions, then for each: 8 the offset that its first record in this segment or later has
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use logmesh_proto::Header;

use crate::Record;

const VERSION: u8 = 1;

/// An entry as it is read.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) topic: String,
    pub(super) partition: u16,
    pub(super) partitions: u16,
    pub(super) offset: u64,
    pub(super) appended_unix_nano: u64,
    pub(super) record: Record,
}

/// The place of an entry that is being written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: u16,
    pub(super) partitions: u16,
    pub(super) offset: u64,
    pub(super) appended_unix_nano: u64,
}

/// Most bytes that an entry has beside key, header names, header values and value, for so many headers.
pub(super) fn overhead(headers: usize) -> usize {
    1 + 1 + 249 + 2 + 2 + 8 + 8 + 4 + 2 + headers * 6
}

/// Whether the lengths of `record` have room in the format, apart from its whole size.
pub(super) fn is_encodable(record: &Record) -> bool {
    u16::try_from(record.headers.len()).is_ok()
        && record.headers.iter().all(|header| u16::try_from(header.name.len()).is_ok())
}

/// Lengths are checked before ([`is_encodable`], the journal's largest entry).
pub(super) fn encode(place: Place<'_>, record: &Record, out: &mut Vec<u8>) {
    out.push(VERSION);
    push_name(place.topic, out);
    out.extend_from_slice(&place.partition.to_le_bytes());
    out.extend_from_slice(&place.partitions.to_le_bytes());
    out.extend_from_slice(&place.offset.to_le_bytes());
    out.extend_from_slice(&place.appended_unix_nano.to_le_bytes());
    push_u32(record.key.len(), out);
    out.extend_from_slice(&record.key);
    push_u16(record.headers.len(), out);
    for header in &record.headers {
        push_u16(header.name.len(), out);
        out.extend_from_slice(header.name.as_bytes());
        push_u32(header.value.len(), out);
        out.extend_from_slice(&header.value);
    }
    out.extend_from_slice(&record.value);
}

/// The entry in `bytes`, whose parts share its memory; `None` when it is not one of ours.
pub(super) fn decode(mut bytes: Bytes) -> Option<Entry> {
    if bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let topic = take_name(&mut bytes)?;
    let partition = bytes.try_get_u16_le().ok()?;
    let partitions = bytes.try_get_u16_le().ok()?;
    let offset = bytes.try_get_u64_le().ok()?;
    let appended_unix_nano = bytes.try_get_u64_le().ok()?;
    let length = bytes.try_get_u32_le().ok()? as usize;
    let key = take(&mut bytes, length)?;
    let count = bytes.try_get_u16_le().ok()?;
    let mut headers = Vec::with_capacity(usize::from(count).min(64));
    for _ in 0..count {
        let length = usize::from(bytes.try_get_u16_le().ok()?);
        let name = Cow::Owned(String::from_utf8(take(&mut bytes, length)?.to_vec()).ok()?);
        let length = bytes.try_get_u32_le().ok()? as usize;
        headers.push(Header { name, value: take(&mut bytes, length)? });
    }
    let record = Record { key, headers, value: bytes };
    Some(Entry { topic, partition, partitions, offset, appended_unix_nano, record })
}

/// Per topic and partition the first offset of a segment or later ones.
pub(super) type Starts = BTreeMap<String, Vec<u64>>;

/// A preamble of these topics: names and next offsets.
pub(super) fn encode_starts<'a>(topics: impl ExactSizeIterator<Item = (&'a str, Vec<u64>)>) -> Vec<u8> {
    let mut out = vec![VERSION];
    push_u32(topics.len(), &mut out);
    for (name, offsets) in topics {
        push_name(name, &mut out);
        push_u16(offsets.len(), &mut out);
        for offset in offsets {
            out.extend_from_slice(&offset.to_le_bytes());
        }
    }
    out
}

/// What a preamble says; `None` when it is not one of ours.
pub(super) fn decode_starts(mut bytes: Bytes) -> Option<Starts> {
    if bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let count = bytes.try_get_u32_le().ok()?;
    let mut starts = Starts::new();
    for _ in 0..count {
        let name = take_name(&mut bytes)?;
        let partitions = bytes.try_get_u16_le().ok()?;
        let offsets = (0..partitions).map(|_| bytes.try_get_u64_le().ok()).collect::<Option<Vec<u64>>>()?;
        starts.insert(name, offsets);
    }
    Some(starts)
}

fn push_name(name: &str, out: &mut Vec<u8>) {
    // Names are checked where topics are made: 249 bytes at most.
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name.as_bytes());
}

fn push_u16(value: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes());
}

fn push_u32(value: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
}

fn take_name(bytes: &mut Bytes) -> Option<String> {
    let length = usize::from(bytes.try_get_u8().ok()?);
    String::from_utf8(take(bytes, length)?.to_vec()).ok()
}

fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_back_and_no_cut_of_it_does_harm() {
        let headers = vec![Header { name: "tenant".into(), value: Bytes::from_static(b"a") }; 3];
        let record = Record { key: Bytes::from_static(b"key"), headers, value: Bytes::from_static(b"value") };
        let place = Place { topic: "logs.a", partition: 3, partitions: 8, offset: 1 << 40, appended_unix_nano: 77 };
        let mut out = Vec::new();
        encode(place, &record, &mut out);
        assert!(out.len() <= record.size() + overhead(record.headers.len()));
        let bytes = Bytes::from(out);
        let entry = decode(bytes.clone()).expect("decodes");
        assert_eq!((entry.topic.as_str(), entry.partition, entry.partitions), ("logs.a", 3, 8));
        assert_eq!((entry.offset, entry.appended_unix_nano, &entry.record), (1 << 40, 77, &record));
        let value_at = bytes.len() - record.value.len();
        for cut in 0..value_at {
            assert_eq!(decode(bytes.slice(..cut)), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_preamble_comes_back_and_a_cut_one_is_refused() {
        let starts = Starts::from([("a".to_owned(), vec![1, 2, 3]), ("b".to_owned(), vec![])]);
        let bytes = Bytes::from(encode_starts(starts.iter().map(|(name, offsets)| (name.as_str(), offsets.clone()))));
        assert_eq!(decode_starts(bytes.clone()), Some(starts));
        for cut in 0..bytes.len() {
            assert_eq!(decode_starts(bytes.slice(..cut)), None, "cut at {cut}");
        }
    }
}
