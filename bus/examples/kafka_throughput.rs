//! What the Kafka bus costs this process, on a broker that the rig starts: CPU seconds per GiB, and bytes per second.
//!
//! `cargo run --release -p logmesh-bus --features kafka --example kafka_throughput -- [MIB] [RECORD_KIB]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use logmesh_bus::kafka::{KafkaBus, KafkaOptions};
use logmesh_bus::{Bus, Event, Record, Subscription};
use logmesh_rig::{Kafka, unique};
use rand::RngCore;

const PARTITIONS: i32 = 6;
const PRODUCERS: usize = 16;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse::<usize>());
    let (total, size) = (number(2048)? << 20, number(60)? << 10);
    let kafka = tokio::task::spawn_blocking(Kafka::shared).await?;
    let topic = unique("throughput");
    kafka.create_topic(&topic, PARTITIONS, &[])?;
    let bus = Arc::new(KafkaBus::open(KafkaOptions::new([kafka.bootstrap()]))?);
    let mut block = vec![0; size];
    rand::rng().fill_bytes(&mut block);
    let block = Bytes::from(block);
    let count = total / size;
    let (begin, cpu) = (Instant::now(), cpu_seconds()?);
    let producers = (0..PRODUCERS).map(|producer| {
        let (bus, topic, block) = (Arc::clone(&bus), topic.clone(), block.clone());
        tokio::spawn(async move {
            for number in (producer..count).step_by(PRODUCERS) {
                let key = Bytes::from(number.to_string());
                let record = Record { key, headers: Vec::new(), value: block.clone() };
                let delivery = bus.append(&topic, record).await.expect("queued");
                if number % 4 == 0 {
                    delivery.await.expect("durable");
                }
            }
        })
    });
    for producer in producers.collect::<Vec<_>>() {
        producer.await?;
    }
    while bus.queued_bytes() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    report("written", total, begin, cpu)?;
    let (begin, cpu) = (Instant::now(), cpu_seconds()?);
    let mut consumer = bus.subscribe(Subscription::new(unique("group"), [topic.as_str()])).await?;
    let mut read = 0;
    while read < count {
        if let Event::Records { partition, records } = consumer.next().await? {
            read += records.len();
            if let Some(last) = records.last() {
                drop(consumer.commit(&partition, last.offset + 1));
            }
        }
    }
    report("read", total, begin, cpu)?;
    drop(consumer);
    bus.close(Duration::from_secs(10)).await;
    Ok(())
}

fn report(what: &str, bytes: usize, begin: Instant, cpu: f64) -> std::io::Result<()> {
    let (seconds, spent) = (begin.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let gib = bytes as f64 / (1u64 << 30) as f64;
    println!("{what}: {:.0} MB/s, {:.2} CPU-s/GiB", bytes as f64 / seconds / 1e6, spent / gib);
    Ok(())
}

/// CPU time of this process so far, from the kernel's count in hundredths of a second.
fn cpu_seconds() -> std::io::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}
