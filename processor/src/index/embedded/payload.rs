//! What a commit says beside its documents: the payload of tantivy's `meta.json`, which is replaced atomically with the
//! list of segments, so that documents and intervals can never disagree.
//!
//! Format: base64 of: format version (1 byte), schema version (1 byte), least and greatest `@timestamp` of the day
//! (8 bytes each, little endian), the next sequence number (8 bytes), the day's intervals ([`Intervals::encode`]),
//! CRC-32C of all that (4 bytes).

use base64::{Engine, engine::general_purpose::STANDARD};
use thiserror::Error;

use super::schema;
use crate::index::intervals::Intervals;

const FORMAT: u8 = 1;

/// Why a payload cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PayloadError {
    /// Not what was written.
    #[error("the record of indexed intervals in meta.json is damaged")]
    Damaged,
    /// Written by another version of logmesh.
    #[error(
        "written by another version of logmesh (format {format}, schema {schema}); start that version, or move the directory away"
    )]
    Version {
        /// Format version found.
        format: u8,
        /// Schema version found.
        schema: u8,
    },
}

/// The state of a day's directory as of one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Committed {
    /// Bytes of streams whose documents are in this directory.
    pub(crate) intervals: Intervals,
    /// Least and greatest `@timestamp`, in nanoseconds since 1970-01-01 UTC; `None` in a directory without documents.
    pub(crate) times: Option<(i64, i64)>,
    /// Greater than the sequence number of every document written so far, in any directory.
    pub(crate) next_sequence: u64,
}

impl Committed {
    pub(crate) fn widen(&mut self, times: (i64, i64)) {
        self.times = Some(self.times.map_or(times, |own| (own.0.min(times.0), own.1.max(times.1))));
    }

    pub(crate) fn encode(&self) -> String {
        let (least, greatest) = self.times.unwrap_or((i64::MAX, i64::MIN));
        let mut out = vec![FORMAT, schema::VERSION];
        out.extend_from_slice(&least.to_le_bytes());
        out.extend_from_slice(&greatest.to_le_bytes());
        out.extend_from_slice(&self.next_sequence.to_le_bytes());
        self.intervals.encode(&mut out);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        STANDARD.encode(out)
    }

    pub(crate) fn decode(payload: &str) -> Result<Self, PayloadError> {
        let bytes = STANDARD.decode(payload).map_err(|_| PayloadError::Damaged)?;
        let (content, crc) = bytes.split_last_chunk::<4>().ok_or(PayloadError::Damaged)?;
        if crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
            return Err(PayloadError::Damaged);
        }
        let ([format, schema], rest) = content.split_first_chunk::<2>().ok_or(PayloadError::Damaged)?;
        if (*format, *schema) != (FORMAT, schema::VERSION) {
            return Err(PayloadError::Version { format: *format, schema: *schema });
        }
        let (numbers, mut rest) = rest.split_first_chunk::<24>().ok_or(PayloadError::Damaged)?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&numbers[at..at + 8]);
            bytes
        };
        let (least, greatest) = (i64::from_le_bytes(number(0)), i64::from_le_bytes(number(8)));
        let intervals = Intervals::decode(&mut rest).map_err(|_| PayloadError::Damaged)?;
        if !rest.is_empty() {
            return Err(PayloadError::Damaged);
        }
        let times = (least <= greatest).then_some((least, greatest));
        Ok(Self { intervals, times, next_sequence: u64::from_le_bytes(number(16)) })
    }
}

#[cfg(test)]
mod tests {
    use logmesh_proto::StreamKey;

    use super::*;

    fn sample() -> Committed {
        let mut committed = Committed { next_sequence: 77, ..Committed::default() };
        committed.intervals.insert(StreamKey::from_bytes([3; 16]), 10, 20);
        committed.widen((-5, 9));
        committed.widen((0, 12));
        committed
    }

    #[test]
    fn a_payload_reads_back_as_written() {
        assert_eq!(Committed::decode(&sample().encode()), Ok(sample()));
        assert_eq!(sample().times, Some((-5, 12)));
        assert_eq!(Committed::decode(&Committed::default().encode()), Ok(Committed::default()));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let bytes = STANDARD.decode(sample().encode()).unwrap();
        for length in 0..bytes.len() {
            assert!(Committed::decode(&STANDARD.encode(&bytes[..length])).is_err());
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Committed::decode(&STANDARD.encode(&flipped)).is_err());
        }
        assert!(Committed::decode("no base64!").is_err());
    }
}
