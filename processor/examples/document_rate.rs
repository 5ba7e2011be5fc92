//! Measures one thread's CPU time from opened batch to document bytes, over the sample logs or files named on the command line.
//!
//! `cargo run --release -p logmesh-processor --example document_rate [-- FILE…]`

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use logmesh_processor::document::{Builder, BuilderConfig};
use logmesh_processor::parse::Format;
use logmesh_proto::{BatchMeta, Envelope, Flags, Limits, OpenBatch, Opener, RecordsBuilder, Sealer, StreamKey, v1};

/// 2026-11-23T03:00:00Z
const OBSERVED: u64 = 1_795_402_800_000_000_000;
/// As an agent cuts them.
const BATCH_BYTES: usize = 256 * 1024;

fn main() -> Result<()> {
    let mut files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if files.is_empty() {
        let logs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/logs");
        files = std::fs::read_dir(logs)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        files.sort();
    }
    println!("{:<20} {:>12} {:>10} {:>10} {:>10}", "log", "lines/s", "ns/line", "MB/s in", "MB/s out");
    for file in &files {
        measure(file).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn measure(file: &Path) -> Result<()> {
    let bytes = std::fs::read(file)?;
    let batches = batches(&bytes)?;
    let envelope = envelope();
    let mut builder = Builder::new(BuilderConfig::default());
    let mut documents = Vec::new();
    let mut best = Duration::MAX;
    let (mut lines, mut bytes_in, mut bytes_out) = (0, 0, 0);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        (lines, bytes_in, bytes_out) = (0, 0, 0);
        let round = thread_time();
        for batch in &batches {
            documents.clear();
            let tally = builder.build(&envelope, batch, Format::Auto, &mut documents);
            black_box(&documents);
            lines += tally.records;
            bytes_in += tally.bytes;
            bytes_out += tally.document_bytes;
        }
        best = best.min(thread_time() - round);
    }
    let seconds = best.as_secs_f64();
    let rate = |number: u64| number as f64 / seconds;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    println!(
        "{name:<20} {:>12.0} {:>10.0} {:>10.0} {:>10.0}",
        rate(lines),
        1e9 / rate(lines),
        rate(bytes_in) / 1e6,
        rate(bytes_out) / 1e6
    );
    Ok(())
}

/// CPU time that this thread has used, which other load on the machine leaves alone.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn batches(bytes: &[u8]) -> Result<Vec<OpenBatch>> {
    let mut opened = Vec::new();
    let mut records = RecordsBuilder::new();
    let mut first_offset = 0;
    let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        records.push(line.strip_suffix(b"\r").unwrap_or(line), u32::try_from(line.len())? + 1);
        if records.bytes() >= BATCH_BYTES || lines.peek().is_none() {
            let end_offset = first_offset + records.source_bytes();
            let meta = BatchMeta {
                stream_id: b"rate".to_vec().into(),
                first_offset,
                end_offset,
                observed_unix_nano: OBSERVED,
                flags: Flags::NONE,
            };
            let sealed = Sealer::new(v1::Codec::None)?.seal(meta, &mut records)?;
            opened.push(Opener::new(Limits::default()).open(&sealed)?);
            records.clear();
            first_offset = end_offset;
        }
    }
    Ok(opened)
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
