//! How fast the local bus is on this disk, beside raw writes with the same syncs.
//!
//! `cargo run --release -p logmesh-bus --example throughput -- DIRECTORY [MIB]`

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use logmesh_bus::local::{LocalBus, LocalOptions};
use logmesh_bus::{Bus, Event, Record, Subscription};
use rand::RngCore;

const PRODUCERS: usize = 16;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("the first argument is a directory")?);
    let total = arguments.next().map_or(Ok(2048), |text| text.parse::<usize>())? << 20;
    std::fs::create_dir_all(&directory)?;
    let mut block = vec![0; 4 << 20];
    rand::rng().fill_bytes(&mut block);
    let block = Bytes::from(block);
    for group in [1, 4, 8] {
        let rate = raw(&directory, &block, total / 2, group << 20)?;
        println!("raw write + fdatasync, {group} MiB each: {rate:.0} MB/s");
    }
    for (least, most) in [(60 << 10, 250 << 10), (100 << 10, 100 << 10)] {
        let (least, most): (usize, usize) = (least, most);
        let path = directory.join(format!("bus-{least}-{most}"));
        bus(&path, &block, total, least, most).await?;
        std::fs::remove_dir_all(&path)?;
    }
    Ok(())
}

fn raw(directory: &Path, block: &Bytes, total: usize, step: usize) -> std::io::Result<f64> {
    let path = directory.join("raw");
    let file = File::create(&path)?;
    let begin = Instant::now();
    let mut at = 0;
    while at < total {
        let mut left = step;
        while left > 0 {
            let part = left.min(block.len());
            file.write_all_at(&block[..part], at as u64)?;
            at += part;
            left -= part;
        }
        file.sync_data()?;
    }
    let rate = at as f64 / begin.elapsed().as_secs_f64() / 1e6;
    std::fs::remove_file(&path)?;
    Ok(rate)
}

/// 16 producers that each wait for their delivery, and one consumer that tails and commits.
async fn bus(
    path: &Path,
    block: &Bytes,
    total: usize,
    least: usize,
    most: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let bus = Arc::new(LocalBus::open(LocalOptions::new(path))?);
    let mut consumer = bus.subscribe(Subscription::new("bench", ["logs"])).await?;
    let count = total / PRODUCERS / usize::midpoint(least, most);
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let producers = (0..PRODUCERS).map(|producer| {
        let (bus, block) = (bus.clone(), block.clone());
        tokio::spawn(async move {
            let mut waits = Vec::with_capacity(count);
            for number in 0..count {
                let size = least + (number * 7919 + producer * 104_729) % (most - least + 1);
                let from = (number * 4096) % (block.len() - size);
                let key = Bytes::from(format!("stream-{producer}-{}", number % 4));
                let record = Record { key, headers: Vec::new(), value: block.slice(from..from + size) };
                let sent = Instant::now();
                let delivery = bus.append("logs", record).await.expect("queued");
                delivery.await.expect("durable");
                waits.push((sent.elapsed(), size));
            }
            waits
        })
    });
    let producers: Vec<_> = producers.collect();
    let reader = tokio::spawn(async move {
        let (mut seen, mut bytes) = (0, 0);
        while seen < count * PRODUCERS {
            if let Event::Records { partition, records } = consumer.next().await.expect("reads") {
                seen += records.len();
                bytes += records.iter().map(|one| one.record.value.len()).sum::<usize>();
                if let Some(last) = records.last() {
                    drop(consumer.commit(&partition, last.offset + 1));
                }
            }
        }
        bytes
    });
    let mut waits = Vec::new();
    for producer in producers {
        waits.extend(producer.await?);
    }
    let written = begin.elapsed();
    let bytes: usize = waits.iter().map(|(_, size)| size).sum();
    let read = reader.await?;
    let all = begin.elapsed();
    waits.sort();
    let wait = |share: usize| waits[(waits.len() - 1) * share / 100].0;
    println!(
        "bus, records of {}-{} KiB: {:.0} MB/s durable, {:.0} MB/s read and committed; wait p50 {:?} p99 {:?}; {:.2} CPU s/GB; RSS {} MiB",
        least >> 10,
        most >> 10,
        bytes as f64 / written.as_secs_f64() / 1e6,
        read as f64 / all.as_secs_f64() / 1e6,
        wait(50),
        wait(99),
        (cpu_seconds() - cpu) / (bytes as f64 / 1e9),
        resident_mib(),
    );
    bus.close(Duration::from_secs(10)).await;
    Ok(())
}

/// User and system time of this process, as /proc tells in hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn resident_mib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096 / (1 << 20)
}
