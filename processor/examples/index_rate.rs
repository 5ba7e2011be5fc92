//! Measures the embedded index: documents of combined access lines to durable and searchable.
//!
//! `cargo run --release -p logmesh-processor --example index_rate [-- ROUNDS]`: each round is the 10,000 lines of the
//! sample log. Says the rate, the processor time of a document (which other load on the machine leaves alone), and
//! the bytes on disk for each byte of log.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use futures_util::stream::{self, StreamExt};
use logmesh_processor::{
    document::{Builder, BuilderConfig, Document},
    index::{
        Index, Mode, Outcome,
        embedded::{Embedded, EmbeddedConfig},
    },
    parse::Format,
};
use logmesh_proto::{BatchMeta, Envelope, Flags, Limits, Opener, RecordsBuilder, Sealer, StreamKey, v1};
use rustix::time::{ClockId, clock_gettime};

/// 2026-11-23T03:00:00Z
const OBSERVED: u64 = 1_795_402_800_000_000_000;
/// As an agent cuts them.
const BATCH_BYTES: usize = 256 * 1024;
/// Bulks under way at a time.
const BULKS: usize = 50;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let rounds: u64 = std::env::args().nth(1).map_or(Ok(40), |rounds| rounds.parse())?;
    let sample = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/logs/apache_access.log"))?;
    let bulks = bulks(&sample, rounds)?;
    let documents: usize = bulks.iter().map(Vec::len).sum();
    let body_bytes: usize = bulks.iter().flatten().map(|document| document.body.len()).sum();
    let directory = tempfile::tempdir()?;
    let index = Embedded::open(EmbeddedConfig::new(directory.path()))?;

    let (cpu, wall) = (process_time(), Instant::now());
    let outcomes: Vec<Vec<Outcome>> =
        stream::iter(bulks).map(|bulk| index.bulk(bulk, Mode::Create)).buffered(BULKS).collect().await;
    let (cpu, wall) = (process_time() - cpu, wall.elapsed());

    ensure!(outcomes.iter().flatten().all(|outcome| *outcome == Outcome::Created), "a document was not created");
    ensure!(index.view().documents() == documents as u64, "not every document is searchable");
    let state = index.state().borrow().clone();
    index.close().await;
    let raw_bytes = (sample.len() as u64 * rounds) as f64;
    println!("{:.0} documents/s", documents as f64 / wall.as_secs_f64());
    println!("{:.1} us of processor time a document", cpu.as_secs_f64() * 1e6 / documents as f64);
    println!(
        "{} commits of {} ms, {} bytes of body a document",
        state.commits,
        state.commit_ms,
        body_bytes / documents
    );
    println!("{:.2} bytes on disk for each byte of log", bytes_below(directory.path())? as f64 / raw_bytes);
    Ok(())
}

fn process_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn bytes_below(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// The sample's lines again and again, as one stream, in documents of a batch each.
fn bulks(sample: &[u8], rounds: u64) -> Result<Vec<Vec<Document>>> {
    let mut records = RecordsBuilder::new();
    let mut builder = Builder::new(BuilderConfig::default());
    let (mut bulks, mut first_offset) = (Vec::new(), 0);
    for _ in 0..rounds {
        let mut lines = sample.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).peekable();
        while let Some(line) = lines.next() {
            records.push(line, u32::try_from(line.len())? + 1);
            if records.bytes() >= BATCH_BYTES || lines.peek().is_none() {
                let end_offset = first_offset + records.source_bytes();
                let stream_id = b"rate".to_vec().into();
                let flags = Flags::NONE;
                let meta = BatchMeta { stream_id, first_offset, end_offset, observed_unix_nano: OBSERVED, flags };
                let sealed = Sealer::new(v1::Codec::None)?.seal(meta, &mut records)?;
                let mut documents = Vec::new();
                let open = Opener::new(Limits::default()).open(&sealed)?;
                builder.build(&envelope(), &open, Format::Auto, &mut documents);
                bulks.push(documents);
                records.clear();
                first_offset = end_offset;
            }
        }
    }
    Ok(bulks)
}

fn envelope() -> Envelope {
    let identity = "spiffe://mesh/agent/edge-1";
    Envelope {
        tenant: "default".into(),
        identity: identity.into(),
        stream_key: StreamKey::derive(identity, b"rate"),
        first_offset: 0,
        end_offset: 0,
        record_count: 0,
        codec: v1::Codec::None,
        flags: Flags::NONE,
        received_unix_nano: OBSERVED,
        topic: "logs".into(),
        info: v1::StreamInfo {
            path: "/var/log/nginx/access.log".into(),
            host: "edge-1".into(),
            service: "web".into(),
            labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
            input_format: String::new(),
            topic: "logs".into(),
            agent: "edge-1".into(),
        },
    }
}
