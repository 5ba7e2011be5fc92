//! Batches to documents, and documents into the embedded index.

use std::time::Instant;

use anyhow::{Result, ensure};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use logmesh_processor::document::{Builder, BuilderConfig, Document};
use logmesh_processor::index::embedded::{Embedded, EmbeddedConfig};
use logmesh_processor::index::{Index as _, Mode, Outcome};
use logmesh_processor::parse::Format;
use logmesh_proto::{Limits, Opener, v1};

use crate::batches::{cut, raw_bytes};
use crate::clock::{measured, own_cpu};
use crate::corpus::Corpus;
use crate::table::{Cost, Row, megabytes, thousands};

/// Rounds of the sample log that are held as batches.
const ROUNDS: u64 = 4;

/// Times that those are built into documents.
const REPEATS: u64 = 20;

/// Rounds of the sample log that are indexed: 10,000 documents each.
const INDEXED_ROUNDS: u64 = 60;

/// Bulks under way to the index at a time: what fits the share of a processor.
const BULKS: usize = 100;

/// Floor of the processor, in lines per second of a core.
const PROCESSOR_FLOOR: f64 = 500_000.0;

/// Floor of the index, in documents per second.
const INDEX_FLOOR: f64 = 50_000.0;

/// Batch to document bytes on one thread.
pub(crate) fn processor(corpus: &Corpus) -> Result<()> {
    let batches = cut(corpus, ROUNDS, v1::Codec::Zstd)?;
    let inflate = |with_documents: bool| {
        measured(|| {
            let (mut opener, mut builder) = (Opener::new(Limits::default()), Builder::new(BuilderConfig::default()));
            let mut documents: Vec<Document> = Vec::new();
            let mut lines = 0;
            for (envelope, batch) in std::iter::repeat_n(&batches, usize::try_from(REPEATS)?).flatten() {
                let open = opener.open(batch)?;
                lines += open.len() as u64;
                if with_documents {
                    documents.clear();
                    builder.build(envelope, &open, Format::Auto, &mut documents);
                    ensure!(documents.len() == open.len(), "a record without a document");
                }
                std::hint::black_box(&documents);
            }
            Ok(lines)
        })
    };
    let bytes = raw_bytes(batches.iter().map(|(_, batch)| batch)) * REPEATS;
    let (lines, cpu, wall) = inflate(false)?;
    let limit = Cost { bytes, lines, cpu, wall };
    limit.row("limit: check and inflate zstd batches").print();
    let (lines, cpu, wall) = inflate(true)?;
    let cost = Cost { bytes, lines, cpu, wall };
    Row {
        figure: thousands(cost.lines_per_second(), "lines"),
        per_core: Some(thousands(cost.lines_per_core(), "lines")),
        of_limit: Some((cost.bytes_per_core() / limit.bytes_per_core(), "inflating alone")),
        floor: Some(("500 k lines/s", cost.lines_per_core() >= PROCESSOR_FLOOR)),
        ..cost.row("processor: batch to document bytes, combined")
    }
    .print();
    Ok(())
}

/// Documents to durable and searchable.
pub(crate) fn index(corpus: &Corpus) -> Result<()> {
    let batches = cut(corpus, INDEXED_ROUNDS, v1::Codec::Zstd)?;
    let bytes = raw_bytes(batches.iter().map(|(_, batch)| batch));
    let directory = corpus.scratch("index")?;
    let index = Embedded::open(EmbeddedConfig::new(&directory))?;
    let (mut opener, mut builder) = (Opener::new(Limits::default()), Builder::new(BuilderConfig::default()));
    let bulks = batches.iter().map(|(envelope, batch)| {
        let mut documents = Vec::new();
        builder.build(envelope, &opener.open(batch)?, Format::Auto, &mut documents);
        Ok(documents)
    });
    let bulks: Vec<Vec<Document>> = bulks.collect::<Result<_>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (cpu, wall) = (own_cpu(), Instant::now());
    let lines = runtime.block_on(write(&index, bulks))?;
    let cost = Cost { bytes, lines, cpu: own_cpu() - cpu, wall: wall.elapsed() };
    ensure!(index.view().documents() == lines, "{} of {lines} documents are searchable", index.view().documents());
    runtime.block_on(index.close());
    let disk = bytes_below(&directory)?;
    Row {
        figure: format!("{}, {:.2} B/B", thousands(cost.lines_per_second(), "docs"), disk as f64 / bytes as f64),
        per_core: Some(thousands(cost.lines_per_core(), "docs")),
        floor: Some(("50 k docs/s", cost.lines_per_second() >= INDEX_FLOOR)),
        ..cost.row("embedded index: documents to searchable")
    }
    .print();
    println!("  the index takes {}", megabytes(cost.bytes_per_second()));
    Ok(())
}

async fn write(index: &Embedded, bulks: Vec<Vec<Document>>) -> Result<u64> {
    let mut under_way: FuturesUnordered<BoxFuture<'_, Vec<Outcome>>> = FuturesUnordered::new();
    let mut lines = 0;
    for documents in bulks {
        if under_way.len() == BULKS
            && let Some(outcomes) = under_way.next().await
        {
            lines += done(&outcomes)?;
        }
        under_way.push(index.bulk(documents, Mode::Create));
    }
    while let Some(outcomes) = under_way.next().await {
        lines += done(&outcomes)?;
    }
    Ok(lines)
}

fn done(outcomes: &[Outcome]) -> Result<u64> {
    ensure!(outcomes.iter().all(Outcome::is_done), "a document was refused");
    Ok(outcomes.len() as u64)
}

fn bytes_below(directory: &std::path::Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { bytes_below(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}
