//! The log as batches, as an agent cuts them and a gateway wraps them.

use anyhow::Result;
use bytes::Bytes;
use logmesh_bus::Record;
use logmesh_proto::{BatchMeta, Envelope, Flags, RecordsBuilder, Sealer, StreamKey, v1};
use logmesh_tests::samples;
use prost::Message as _;

use crate::corpus::Corpus;

/// Size at which an agent cuts, in bytes of bodies.
const CUT_BYTES: usize = 256 << 10;

/// Number of records at which an agent cuts.
const CUT_RECORDS: usize = 10_000;

/// Whose batches they are.
const IDENTITY: &str = "spiffe://logmesh/agent/bench";

/// The stream that they are of.
const STREAM: &[u8] = b"0123456789abcdef";

/// Batches that follow one another, as far as memory allows: of one round of the sample log, and of its next rounds.
pub(crate) fn cut(corpus: &Corpus, rounds: u64, codec: v1::Codec) -> Result<Vec<(Envelope, v1::Batch)>> {
    let mut sealer = Sealer::new(codec)?;
    let mut records = RecordsBuilder::new();
    let mut batches = Vec::new();
    let (mut begin, now) = (0, u64::try_from(jiff::Timestamp::now().as_nanosecond())?);
    let mut seal = |records: &mut RecordsBuilder, begin: &mut u64| -> Result<()> {
        let meta = BatchMeta {
            stream_id: Bytes::from_static(STREAM),
            first_offset: *begin,
            end_offset: *begin + records.source_bytes(),
            observed_unix_nano: now,
            flags: Flags::NONE,
        };
        *begin = meta.end_offset;
        let batch = sealer.seal(meta, records)?;
        batches.push((envelope(&batch, now), batch));
        records.clear();
        Ok(())
    };
    for _ in 0..rounds {
        for (_, line) in samples::lines(corpus.sample()) {
            records.push(line, u32::try_from(line.len() + 1)?);
            if records.bytes() >= CUT_BYTES || records.len() >= CUT_RECORDS {
                seal(&mut records, &mut begin)?;
            }
        }
    }
    if !records.is_empty() {
        seal(&mut records, &mut begin)?;
    }
    Ok(batches)
}

/// The same batches as if several streams had them, in turn: the way in which an agent sends what it tails.
pub(crate) fn spread(batches: &mut [(Envelope, v1::Batch)], streams: u8) {
    for ((envelope, batch), stream) in batches.iter_mut().zip((0..streams).cycle()) {
        let id = [&STREAM[1..], &[stream]].concat();
        envelope.stream_key = StreamKey::derive(IDENTITY, &id);
        batch.stream_id = Bytes::from(id);
        batch.crc32c = logmesh_proto::crc(batch);
    }
}

/// What the batches stand for, in bytes of the log.
pub(crate) fn raw_bytes<'a>(batches: impl IntoIterator<Item = &'a v1::Batch>) -> u64 {
    batches.into_iter().map(|batch| batch.end_offset - batch.first_offset).sum()
}

/// What a gateway puts on the bus for a batch.
pub(crate) fn record((envelope, batch): &(Envelope, v1::Batch)) -> Record {
    Record {
        key: Bytes::copy_from_slice(envelope.stream_key.as_bytes()),
        headers: envelope.to_headers(),
        value: Bytes::from(batch.encode_to_vec()),
    }
}

fn envelope(batch: &v1::Batch, now: u64) -> Envelope {
    Envelope {
        tenant: String::from("default"),
        identity: String::from(IDENTITY),
        stream_key: StreamKey::derive(IDENTITY, STREAM),
        first_offset: batch.first_offset,
        end_offset: batch.end_offset,
        record_count: batch.record_count,
        codec: batch.codec(),
        flags: Flags::NONE,
        received_unix_nano: now,
        topic: String::from("logs"),
        info: v1::StreamInfo {
            path: String::from("/var/log/nginx/access.log"),
            host: String::from("edge-1.example.com"),
            service: String::from("web"),
            agent: String::from("edge-1"),
            ..v1::StreamInfo::default()
        },
    }
}
