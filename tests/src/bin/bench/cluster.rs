//! The cluster, as real processes over Kafka and Elasticsearch: what a document costs the processor, and how long a line
//! is under way from its write until a real-time get finds it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use logmesh_bus::Record;
use logmesh_proto::v1;
use logmesh_rig::{Elasticsearch, Kafka, SearchServer};
use logmesh_tests::cluster::{Cluster, Layout, Role, Service, metric};
use logmesh_tests::index_server;
use logmesh_tests::scene::{Scene, scenario};
use tokio::runtime::Runtime;
use tokio::task::block_in_place;

use crate::bare;
use crate::batches::{cut, raw_bytes, record, spread};
use crate::clock::{cpu_of, cpu_of_family};
use crate::corpus::Corpus;
use crate::kafka::{PARTITIONS, STREAMS};
use crate::paced;
use crate::table::{Cost, Row, thousands};

/// What makes the rig's server one that is measured: all of its compiler, and a heap as for work.
const TUNING: [&str; 3] = ["-XX:TieredStopAtLevel=4", "-Xms2g", "-Xmx2g"];

/// Rounds of the sample log, 10,000 lines each, for the server to get warm.
const WARM_ROUNDS: u64 = 30;

/// Rounds that are measured.
const ROUNDS: u64 = 80;

/// Time between two questions to the processor how far it is: rare, for they cost it something.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Longest time for all documents.
const PATIENCE: Duration = Duration::from_secs(600);

/// Most processor time of ours for a document, in seconds.
const DOCUMENT_CEILING: f64 = 3e-6;

/// The server that the cluster's stages share, and what they run on. Dropped, it is stopped.
pub(crate) struct Stages {
    server: Elasticsearch,
    runtime: Runtime,
}

impl Stages {
    /// Starts the server.
    pub(crate) fn start() -> Result<Stages> {
        let server = Elasticsearch::start_tuned(&[], &TUNING)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Stages { server, runtime })
    }

    /// From batches on Kafka to documents on the server.
    pub(crate) fn processor(&self, corpus: &Corpus) -> Result<()> {
        self.runtime.block_on(scenario(async |scene| documents(scene, &self.server, corpus).await));
        Ok(())
    }

    /// From the write to the index.
    pub(crate) fn write_to_indexed(&self) -> Result<()> {
        self.runtime.block_on(scenario(async |scene| {
            let layout = Layout { gateways: 1, processors: 1, ..over(scene, &self.server)? };
            let cluster = build(scene, &self.server, layout, 1).await?;
            paced::measure(&cluster, &self.server).await
        }));
        Ok(())
    }
}

fn over(scene: &Scene, server: &SearchServer) -> Result<Layout> {
    let kafka = block_in_place(Kafka::shared);
    Ok(Layout::over(&kafka.bootstrap(), index_server::toml(server, scene)?))
}

/// A cluster with its topics and the server set up; nothing runs yet.
async fn build(scene: &Scene, server: &SearchServer, layout: Layout, agents: usize) -> Result<Cluster> {
    index_server::set_up(server, scene, &layout.bus).await?;
    let cluster = Cluster::build(scene, layout, agents, "*.log").await?;
    let create = |topic: &str| Kafka::shared().create_topic(topic, PARTITIONS, &[]);
    block_in_place(|| create(&cluster.topic()).and_then(|()| create(&cluster.dead_letters())))?;
    Ok(cluster)
}

async fn documents(scene: &Scene, server: &SearchServer, corpus: &Corpus) -> Result<()> {
    let layout = Layout { gateways: 0, processors: 1, ..over(scene, server)? };
    let cluster = build(scene, server, layout, 0).await?;
    let warm = cut(corpus, WARM_ROUNDS, v1::Codec::Zstd)?.len();
    let mut batches = cut(corpus, WARM_ROUNDS + ROUNDS, v1::Codec::Zstd)?;
    spread(&mut batches, STREAMS);
    for (envelope, _) in &mut batches {
        envelope.tenant = cluster.tenant().to_owned();
        envelope.topic = format!("{}-logs", cluster.tenant());
    }
    let lines =
        |batches: &[(_, v1::Batch)]| batches.iter().map(|(_, batch)| u64::from(batch.record_count)).sum::<u64>();
    let records: Vec<Record> = batches.iter().map(record).collect();
    let processor = cluster.start(Role::Processor(0)).await?;
    put(&cluster, &records[..warm])?;
    indexed(&processor, lines(&batches[..warm])).await?;

    let (cpu, server_cpu, wall) = (cpu_of(processor.pid())?, cpu_of_family(server.pid()?)?, Instant::now());
    put(&cluster, &records[warm..])?;
    indexed(&processor, lines(&batches)).await?;
    let cost = Cost {
        bytes: raw_bytes(batches[warm..].iter().map(|(_, batch)| batch)),
        lines: lines(&batches[warm..]),
        cpu: cpu_of(processor.pid())? - cpu,
        wall: wall.elapsed(),
    };
    let server_cores = (cpu_of_family(server.pid()?)? - server_cpu).as_secs_f64() / cost.wall.as_secs_f64();
    let found = index_server::count(server, cluster.tenant())?;
    ensure!(found == lines(&batches), "{found} of {} documents are found", lines(&batches));
    let each = cost.cpu.as_secs_f64() / cost.lines as f64;
    Row {
        figure: format!("{}, {:.2} µs each", thousands(cost.lines_per_second(), "docs"), each * 1e6),
        per_core: Some(thousands(cost.lines_per_core(), "docs")),
        floor: Some(("3 µs each at most", each <= DOCUMENT_CEILING)),
        ..cost.row("processor: Kafka to Elasticsearch, combined")
    }
    .print();
    let cores = std::thread::available_parallelism()?;
    println!("  the server had {server_cores:.2} of {cores} cores meanwhile, the processor {:.2}", cores_of(&cost));
    processor.terminate().await?;
    Ok(())
}

fn cores_of(cost: &Cost) -> f64 {
    cost.cpu.as_secs_f64() / cost.wall.as_secs_f64()
}

fn put(cluster: &Cluster, records: &[Record]) -> Result<()> {
    block_in_place(|| bare::produce(Kafka::shared(), &cluster.topic(), records)).map(drop)
}

/// Waits until the processor has written so many documents since its start.
async fn indexed(processor: &Service, wanted: u64) -> Result<()> {
    let waiting = async {
        loop {
            let written = metric(processor, "logmesh_processor_documents_indexed_total").await?;
            if written >= wanted {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.with_context(|| format!("{wanted} documents are not indexed"))?
}
