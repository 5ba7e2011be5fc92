//! The log as batches, as an agent cuts them and a gateway wraps them.

use anyhow::Result;
use bytes::Bytes;
use logmesh_proto::{BatchMeta, Envelope, Flags, RecordsBuilder, Sealer, StreamKey, v1};
use logmesh_tests::samples;

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
