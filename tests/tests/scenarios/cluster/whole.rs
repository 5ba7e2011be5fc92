//! The cluster: agents, gateways and processors as processes, over real Kafka and a real index server.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use logmesh_proto::{Envelope, Header};
use logmesh_rig::{Elasticsearch, Kafka, OpenSearch, ReadRecord, SearchServer};
use logmesh_tests::cluster::{Cluster, Layout};
use logmesh_tests::counts::{Row, either};
use logmesh_tests::index_server;
use logmesh_tests::ledger::Ledger;
use logmesh_tests::samples;
use logmesh_tests::scene::{Scene, scenario};
use logmesh_tests::writer::{Pace, Stamp, Writer};
use tokio::sync::watch;
use tokio::task::block_in_place;

/// Partitions of a cluster's topic.
const PARTITIONS: i32 = 6;

/// For what is still under way when the writers have finished.
const REST_FOUND_WITHIN: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_is_found_once_in_elasticsearch_and_in_order_in_kafka() {
    scenario(async |scene| {
        let server = block_in_place(Elasticsearch::shared);
        whole(scene, server, "cluster to Elasticsearch", either(50_000, 500_000)).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_is_found_once_in_opensearch_and_in_order_in_kafka() {
    scenario(async |scene| {
        let server = block_in_place(OpenSearch::shared);
        whole(scene, server, "cluster to OpenSearch", either(10_000, 100_000)).await
    })
    .await;
}

/// Two gateways and two processors; the ten logs and numbered lines.
async fn whole(scene: &Scene, server: &SearchServer, name: &'static str, lines: u64) -> Result<()> {
    let kafka = block_in_place(Kafka::shared);
    let layout = Layout::over(&kafka.bootstrap(), index_server::toml(server, scene)?);
    index_server::set_up(server, scene, &layout.bus).await?;
    let cluster = Cluster::build(scene, layout, 1, "*.log*").await?;
    let create = |topic: &str| kafka.create_topic(topic, PARTITIONS, &[]);
    block_in_place(|| create(&cluster.topic()).and_then(|()| create(&cluster.dead_letters())))?;
    let mut ledger = samples::copy_into(&scene.logs())?;
    let services = cluster.start_all().await?;
    let writer = Writer::create(&scene.logs(), "numbered", Stamp::Mixed)?;
    let pace = Pace { lines, per_second: 20_000, rotate_every: lines / 5 };
    ledger.absorb(writer.run(pace, watch::channel(0).0).await?.into_ledger());
    index_server::wait_for_count(server, cluster.tenant(), ledger.len(), REST_FOUND_WITHIN).await?;
    balanced(&ledger, server, &cluster, name)?;
    in_order(&block_in_place(|| kafka.read_all(&cluster.topic()))?)?;
    for service in services.into_iter().rev() {
        let role = service.role();
        let ended = service.terminate().await?;
        ensure!(ended.code() == Some(0), "{role:?} ended with {}:\n{}", ended.status, ended.stderr);
    }
    Ok(())
}

fn balanced(ledger: &Ledger, server: &SearchServer, cluster: &Cluster, scenario: &'static str) -> Result<()> {
    let found = index_server::documents(server, cluster.tenant())?;
    let balance = ledger.balance_by_content(&found);
    Row { scenario, lines: ledger.len(), missing: balance.missing, twice: balance.twice, ..Row::default() }.print();
    balance.require_exact()
}

/// Within each partition the batches of a stream follow each other without gap or overlap.
fn in_order(records: &[ReadRecord]) -> Result<()> {
    let mut ends: HashMap<Vec<u8>, (i32, u64)> = HashMap::new();
    for record in records {
        let headers: Vec<Header> = record
            .headers
            .iter()
            .map(|(name, value)| Header { name: name.clone().into(), value: value.clone().into() })
            .collect();
        let envelope = Envelope::from_headers(&headers).context("a record of the bus without its envelope")?;
        let (partition, end) = ends.entry(record.key.clone()).or_insert((record.partition, envelope.first_offset));
        ensure!(*partition == record.partition, "a stream is in partitions {partition} and {}", record.partition);
        ensure!(*end == envelope.first_offset, "after {end} of a stream came {}", envelope.first_offset);
        *end = envelope.end_offset;
    }
    ensure!(ends.len() > samples::NAMES.len(), "only {} streams are in Kafka", ends.len());
    Ok(())
}
