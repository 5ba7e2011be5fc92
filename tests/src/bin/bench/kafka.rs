//! Kafka, with a real broker: the gateway as a process, from its agents' batches to their acknowledgements, and the
//! consumer before anything is parsed. Beside each stands librdkafka alone with the same records.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::BoxFuture;
use logmesh_bus::kafka::{KafkaBus, KafkaOptions};
use logmesh_bus::{Bus as _, BusError, Event, Record, Subscription, TopicPartition};
use logmesh_certs::TlsFiles;
use logmesh_proto::v1;
use logmesh_rig::Kafka;
use logmesh_tests::cluster::{Cluster, Layout, Role};
use logmesh_tests::scene::{Scene, scenario};
use tokio::task::block_in_place;

use crate::bare;
use crate::batches::{cut, raw_bytes, record, spread};
use crate::clock::{cpu_of, measured, own_cpu};
use crate::corpus::Corpus;
use crate::gateway::send;
use crate::table::Cost;

/// Partitions of a topic.
pub(crate) const PARTITIONS: i32 = 6;

/// Files that one agent tails.
pub(crate) const STREAMS: u8 = 12;

/// Raw bytes that are sent through.
const RAW_BYTES: u64 = 4 << 30;

/// Rounds of the sample log that are held as batches.
const ROUNDS: u64 = 16;

/// Most that a gateway may take, in CPU seconds per GiB of raw log.
const GATEWAY_CEILING: f64 = 2.2;

/// Most that a consumer may take, in CPU seconds per GiB of raw log.
const CONSUMER_CEILING: f64 = 1.0;

/// Before a question that the brokers could not answer is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// Measures both directions and prints their rows.
pub(crate) fn measure(corpus: &Corpus) -> Result<()> {
    let mut batches = cut(corpus, ROUNDS, v1::Codec::Zstd)?;
    spread(&mut batches, STREAMS);
    let records: Vec<Record> = batches.iter().map(record).collect();
    let batches: Vec<v1::Batch> = batches.into_iter().map(|(_, batch)| batch).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(scenario(async |scene| {
        let kafka = block_in_place(Kafka::shared);
        let times = RAW_BYTES.div_ceil(raw_bytes(&batches));
        let bytes = raw_bytes(&batches) * times;
        let lines = batches.iter().map(|batch| u64::from(batch.record_count)).sum::<u64>() * times;
        let topic = logmesh_rig::unique("bench");
        block_in_place(|| kafka.create_topic(&topic, PARTITIONS, &[]))?;

        let times = usize::try_from(times)?;
        let all = std::iter::repeat_n(&records, times).flatten();
        let (count, cpu, wall) = block_in_place(|| measured(|| bare::produce(kafka, &topic, all)))?;
        let limit = Cost { bytes, lines, cpu, wall };
        limit.row("limit: librdkafka's producer, same records").print();
        gateway(scene, kafka, &batches, limit).await?;

        let (read, cpu, wall) = block_in_place(|| measured(|| bare::consume(kafka, &topic)))?;
        ensure!(read == count, "{read} of {count} records were read");
        let limit = Cost { bytes, lines, cpu, wall };
        limit.row("limit: librdkafka's consumer, same records").print();
        let (cpu, wall) = consume(kafka, &topic, count).await?;
        let cost = Cost { bytes, lines, cpu, wall };
        let mut row = cost.row("kafka bus: consume and commit, unparsed");
        row.of_limit = Some((cost.bytes_per_core() / limit.bytes_per_core(), "librdkafka's consumer"));
        row.floor = Some(("1.0 CPU-s/GiB at most", cost.cpu_per_gib() <= CONSUMER_CEILING));
        row.print();
        block_in_place(|| kafka.delete_topic(&topic))
    }));
    Ok(())
}

/// The real gateway, whole, and one agent's session.
async fn gateway(scene: &Scene, kafka: &Kafka, batches: &[v1::Batch], limit: Cost) -> Result<()> {
    let layout = Layout { gateways: 1, processors: 0, ..Layout::over(&kafka.bootstrap(), String::new()) };
    let cluster = Cluster::build(scene, layout, 1, "*.log").await?;
    block_in_place(|| kafka.create_topic(&cluster.topic(), PARTITIONS, &[]))?;
    let service = cluster.start(Role::Gateway(0)).await?;
    let (address, files) = as_agent(&cluster)?;
    let (cpu, wall) = (cpu_of(service.pid())?, Instant::now());
    let (bytes, lines) = send(address.parse()?, &files, batches, RAW_BYTES).await?;
    let cost = Cost { bytes, lines, cpu: cpu_of(service.pid())? - cpu, wall: wall.elapsed() };
    let mut row = cost.row("gateway: zstd batches to Kafka, acks=all");
    row.of_limit = Some((cost.bytes_per_core() / limit.bytes_per_core(), "librdkafka's producer"));
    row.floor = Some(("2.2 CPU-s/GiB at most", cost.cpu_per_gib() <= GATEWAY_CEILING));
    row.print();
    let written = block_in_place(|| bare::end(kafka, &cluster.topic()))?;
    let least = bytes / batches.iter().map(|batch| batch.end_offset - batch.first_offset).max().unwrap_or(1);
    ensure!(written >= least, "only {written} batches are in Kafka");
    service.terminate().await?;
    block_in_place(|| kafka.delete_topic(&cluster.topic()))
}

/// Whom the first agent of a cluster talks to, and what it shows there: read from its own configuration.
fn as_agent(cluster: &Cluster) -> Result<(String, TlsFiles)> {
    let file: toml::Table = std::fs::read_to_string(cluster.file(Role::Agent(0)))?.parse()?;
    let agent = file.get("agent").context("no [agent]")?;
    let address = agent.get("gateways").and_then(|gateways| gateways.get(0)?.as_str()).context("no gateway")?;
    let path = |name: &str| -> Result<std::path::PathBuf> {
        let path = agent.get("tls").and_then(|tls| tls.get(name)?.as_str());
        Ok(path.with_context(|| format!("no tls.{name}"))?.into())
    };
    Ok((address.to_owned(), TlsFiles { cert: path("cert")?, key: path("key")?, ca: path("ca")?, crl: None }))
}

/// Joins a group, takes all records, and commits each delivery as it comes. Answers the processor time of all of it, and
/// the time on the wall from the first record on.
async fn consume(kafka: &Kafka, topic: &str, count: u64) -> Result<(Duration, Duration)> {
    let cpu = own_cpu();
    let bus = KafkaBus::open(KafkaOptions::new([kafka.bootstrap()]))?;
    let mut consumer = bus.subscribe(Subscription::new(logmesh_rig::unique("bench"), [topic])).await?;
    let mut commits: HashMap<TopicPartition, BoxFuture<'static, Result<(), BusError>>> = HashMap::new();
    let (mut read, mut begun) = (0, None);
    while read < count {
        match consumer.next().await {
            Ok(Event::Records { partition, records }) => {
                begun.get_or_insert_with(Instant::now);
                read += records.len() as u64;
                let next = records.last().map_or(0, |delivered| delivered.offset + 1);
                // A lower commit resolves with a higher one: only the last of a partition is waited for.
                let commit = consumer.commit(&partition, next);
                commits.insert(partition, commit);
            }
            Ok(Event::Assigned(_) | Event::Revoking { .. } | Event::Lost(_)) => {}
            Ok(Event::Gap { from, to, .. }) => anyhow::bail!("{from} to {to} are gone"),
            Err(error) if error.is_retryable() => tokio::time::sleep(AGAIN).await,
            Err(error) => return Err(error.into()),
        }
    }
    for commit in commits.into_values() {
        commit.await?;
    }
    let wall = begun.context("nothing was read")?.elapsed();
    drop(consumer);
    bus.close(Duration::from_secs(10)).await;
    Ok((own_cpu() - cpu, wall))
}
