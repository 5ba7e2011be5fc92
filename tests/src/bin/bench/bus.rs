//! The local bus: appends that are durable before they are answered.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use logmesh_bus::local::{LocalBus, LocalOptions};
use logmesh_bus::{Bus as _, Record};
use logmesh_proto::v1;

use crate::batches::{cut, record};
use crate::clock::own_cpu;
use crate::corpus::Corpus;
use crate::table::{Cost, Row, megabytes};

/// Topic on the bus.
const TOPIC: &str = "logs.default";

/// Bytes that are appended, as they stand on the bus.
const BYTES: u64 = 1 << 30;

/// Appends under way at a time: what some agents have in flight together.
const UNDER_WAY: usize = 256;

/// Floor, in bytes per second as they stand on the bus.
const FLOOR: f64 = 250e6;

/// Appends batches and waits for each to be durable.
pub(crate) fn measure(corpus: &Corpus, write_limit: f64) -> Result<()> {
    let records: Vec<Record> = cut(corpus, 2, v1::Codec::None)?.iter().map(record).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let cost = runtime.block_on(append(corpus, &records))?;
    Row {
        figure: format!("{} on the wall", megabytes(cost.bytes_per_second())),
        of_limit: Some((cost.bytes_per_second() / write_limit, "write and fdatasync of 8 MiB")),
        floor: Some(("250 MB/s", cost.bytes_per_second() >= FLOOR)),
        ..cost.row("local bus: append to durable, 256 KiB batches")
    }
    .print();
    Ok(())
}

async fn append(corpus: &Corpus, records: &[Record]) -> Result<Cost> {
    let options = LocalOptions { topics: vec![TOPIC.to_owned()], ..LocalOptions::new(corpus.scratch("bus")?) };
    let bus = LocalBus::open(options)?;
    let (cpu, wall) = (own_cpu(), Instant::now());
    let (mut under_way, mut bytes) = (FuturesUnordered::new(), 0);
    for record in records.iter().cycle() {
        if bytes >= BYTES {
            break;
        }
        bytes += record.value.len() as u64;
        if under_way.len() >= UNDER_WAY
            && let Some(delivered) = under_way.next().await
        {
            let _: logmesh_bus::Position = delivered?;
        }
        under_way.push(bus.append(TOPIC, record.clone()).await?);
    }
    while let Some(delivered) = under_way.next().await {
        let _: logmesh_bus::Position = delivered?;
    }
    let cost = Cost { bytes, lines: 0, cpu: own_cpu() - cpu, wall: wall.elapsed() };
    bus.close(Duration::from_secs(10)).await;
    Ok(cost)
}
