//! Memory of a consumer in front of a backlog of many partitions that inflates fifty times. A process of its own, so that
//! what is measured is its own.

use std::time::Duration;

use logmesh_bus::kafka::{KafkaBus, KafkaOptions};
use logmesh_bus::{Bus, Event, Subscription};
use logmesh_rig::{Kafka, unique};
use rand::RngCore;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

const PARTITIONS: i32 = 64;
const RECORD_BYTES: usize = 100_000;
/// Of each partition: 4 MB inflated, so 256 MB in all.
const RECORDS: usize = 40;

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("resident memory");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// Batches of 1 MB that the brokers keep at a fiftieth of it.
fn fill(bootstrap: &str, topic: &str) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("compression.type", "zstd")
        .set("linger.ms", "20")
        .create()
        .expect("a producer");
    let mut value = vec![b'x'; RECORD_BYTES];
    for _ in 0..RECORDS {
        for partition in 0..PARTITIONS {
            // What cannot be compressed is a fiftieth.
            rand::rng().fill_bytes(&mut value[..RECORD_BYTES / 50]);
            let record = || BaseRecord::<[u8], [u8]>::to(topic).partition(partition).payload(&value);
            while producer.send(record()).is_err() {
                producer.poll(Duration::from_millis(10));
            }
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(60)).expect("flushed");
}

#[test]
fn memory_is_bounded_however_many_partitions_there_are_and_however_they_inflate() {
    let kafka = Kafka::shared();
    let topic = unique("backlog");
    kafka.create_topic(&topic, PARTITIONS, &[]).expect("made");
    fill(&kafka.bootstrap(), &topic);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let peak = runtime.block_on(async {
        let bus = KafkaBus::open(KafkaOptions::new([kafka.bootstrap()])).expect("the bus opens");
        let subscription =
            Subscription { fetch_bytes: 8 << 20, ..Subscription::new(unique("group"), [topic.as_str()]) };
        let mut consumer = bus.subscribe(subscription).await.expect("joined");
        let before = resident_bytes();
        let (mut peak, mut read) = (0, 0);
        while read < RECORDS * PARTITIONS as usize {
            let event = tokio::time::timeout(Duration::from_secs(60), consumer.next()).await.expect("an event in time");
            if let Ok(Event::Records { records, .. }) = event {
                read += records.len();
            }
            // A slow caller, so that all queues fill.
            tokio::time::sleep(Duration::from_millis(1)).await;
            peak = peak.max(resident_bytes().saturating_sub(before));
        }
        drop(consumer);
        bus.close(Duration::from_secs(10)).await;
        peak
    });
    // What was asked for, one fetch that inflates (1 MiB to some 50), and what the allocator keeps.
    assert!(peak < 128 << 20, "{} MiB for a bound of 8 MiB", peak >> 20);
    println!("{} MiB at most", peak >> 20);
}
