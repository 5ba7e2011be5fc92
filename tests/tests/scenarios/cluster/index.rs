//! An index server that stops, blocks, refuses and forbids: exact, or a dead letter with the cause; resumed by itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use logmesh_rig::{Elasticsearch, Kafka, SearchServer};
use logmesh_tests::cluster::{Cluster, Layout, Role, Service};
use logmesh_tests::counts::{Row, either};
use logmesh_tests::index_server;
use logmesh_tests::ledger::Ledger;
use logmesh_tests::scene::{Scene, scenario};
use logmesh_tests::wait::{Look, SLACK, holds_for, wait_until};
use logmesh_tests::writer::{Pace, Stamp, Writer};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::block_in_place;

/// For what is still under way when the writer has finished.
const REST_FOUND_WITHIN: Duration = Duration::from_secs(180);

/// Twice the greatest back-off.
const RESUMED_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_restarts_and_blocks_costs_nothing_but_time() {
    scenario(async |scene| {
        let server = block_in_place(|| Elasticsearch::start(&[]))?;
        let (cluster, _services) = start(scene, &server, 1, |layout| layout).await?;
        let (progress, mut written) = watch::channel(0);
        let lines = either(40_000, 200_000);
        let pace = Pace { lines, per_second: either(2_000, 4_000), rotate_every: lines / 10 };
        let writing = tokio::spawn(Writer::create(&scene.logs(), "numbered", Stamp::Mixed)?.run(pace, progress));
        let mut longest_return = Duration::ZERO;

        // Away for a while.
        written.wait_for(|written| *written > lines / 8).await?;
        block_in_place(|| server.stop())?;
        let away = Instant::now();
        wait_until("it has been away for long enough", Duration::from_secs(120), async || {
            let is_long = away.elapsed() > either(Duration::from_secs(15), Duration::from_secs(60));
            Ok(if is_long { Look::Holds(()) } else { Look::NotYet(format!("{:?}", away.elapsed())) })
        })
        .await?;
        block_in_place(|| server.start_again())?;
        longest_return = longest_return.max(resumed(&server, &cluster).await?);

        // Killed under load.
        block_in_place(|| server.kill())?;
        block_in_place(|| server.start_again())?;
        longest_return = longest_return.max(resumed(&server, &cluster).await?);

        // Read only, as a full disk makes it: 429 for each document.
        let indices = format!("/logmesh-{}-*/_settings", cluster.tenant());
        let block = json!({ "index.blocks.read_only_allow_delete": true });
        index_server::must(&server, "PUT", &indices, &block)?;
        index_server::wait_for_writes_under_way(&server).await?;
        let blocked = Instant::now();
        let before = index_server::count(&server, cluster.tenant())?;
        holds_for(
            "nothing is written while it is read only",
            either(Duration::from_secs(5), Duration::from_secs(20)),
            async || {
                let found = index_server::count(&server, cluster.tenant())?;
                Ok(if found == before { Look::Holds(()) } else { Look::NotYet(format!("{found} instead of {before}")) })
            },
        )
        .await
        .with_context(|| format!("blocked {:?} ago", blocked.elapsed()))?;
        index_server::must(&server, "PUT", &indices, &json!({ "index.blocks.read_only_allow_delete": null }))?;
        longest_return = longest_return.max(resumed(&server, &cluster).await?);

        let ledger = writing.await??.into_ledger();
        exact(&server, &cluster, &ledger, "index away, killed, blocked", 3, longest_return).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_next_to_no_room_for_requests_gets_everything_in_small_ones() {
    scenario(async |scene| {
        let server = block_in_place(|| Elasticsearch::start(&[("indexing_pressure.memory.limit", "256kb")]))?;
        let (cluster, _services) = start(scene, &server, 1, |layout| layout).await?;
        let mut writer = Writer::create(&scene.logs(), "numbered", Stamp::Mixed)?;
        writer.write(either(20_000, 100_000))?;
        let ledger = writer.into_ledger();
        exact(&server, &cluster, &ledger, "least indexing pressure", 0, Duration::ZERO).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_may_not_be_written_waits_alone_and_resumes_by_itself() {
    scenario(async |scene| {
        let server = block_in_place(Elasticsearch::shared);
        let (cluster, mut services) = start(scene, server, 2, |layout| layout).await?;
        let (free, held) = (cluster.tenant_of(0), cluster.tenant_of(1));
        let mut writers = [0, 1].map(|agent| Writer::create(&cluster.logs(agent), "numbered", Stamp::Never));
        let [Ok(ours), Ok(theirs)] = &mut writers else { anyhow::bail!("the logs cannot be written") };
        ours.write(100)?;
        theirs.write(100)?;
        index_server::wait_for_count(server, &free, 100, REST_FOUND_WITHIN).await?;
        index_server::wait_for_count(server, &held, 100, REST_FOUND_WITHIN).await?;

        // 403 for each document of one tenant's indices.
        let indices = format!("/logmesh-{held}-*/_settings");
        index_server::must(server, "PUT", &indices, &json!({ "index.blocks.write": true }))?;
        theirs.write(1_000)?;
        says(&services, &["403", &held]).await?;
        ours.write(1_000)?;
        index_server::wait_for_count(server, &free, 1_100, REST_FOUND_WITHIN).await?;
        ensure!(index_server::count(server, &held)? == 100, "the held lane wrote");
        index_server::must(server, "PUT", &indices, &json!({ "index.blocks.write": null }))?;
        let cured = Instant::now();
        index_server::wait_for_count(server, &held, 1_100, RESUMED_WITHIN * SLACK).await?;
        for service in &mut services {
            service.ready().await?;
        }
        println!("the held lane resumed {:?} after the cure", cured.elapsed());
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_conflict_with_a_mapping_become_letters_and_are_whole_after_a_replay() {
    scenario(async |scene| {
        let server = block_in_place(Elasticsearch::shared);
        let (cluster, _services) = start(scene, server, 1, |layout| layout).await?;
        // What an operator may have done by hand: the path of a request as a number.
        let index = format!("/logmesh-{}-2026.01.02", cluster.tenant());
        let conflict =
            json!({ "mappings": { "properties": { "url": { "properties": { "path": { "type": "long" } } } } } });
        index_server::must(server, "PUT", &index, &conflict)?;
        let line =
            |n: u32| format!("192.0.2.{} - - [02/Jan/2026:03:04:05 +0000] \"GET /item/{n} HTTP/1.1\" 200 5", n % 250);
        let text: String = (0..100).map(|n| line(n) + "\n").collect();
        std::fs::write(scene.logs().join("access.log"), text)?;

        // Reduced, and each a letter with the innermost cause.
        index_server::wait_for_count(server, cluster.tenant(), 100, REST_FOUND_WITHIN).await?;
        let found = index_server::documents(server, cluster.tenant())?;
        ensure!(
            found.iter().all(|document| document.tags.iter().any(|tag| tag == "dead_lettered")),
            "{:?}",
            found.first()
        );
        let letters = cluster.letters(&["list", "--json"]).await?;
        ensure!(letters.lines().count() == 100, "{letters}");
        let first: Value = serde_json::from_str(letters.lines().next().context("a letter")?)?;
        let reason = first["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains("For input string"), "the innermost cause is missing in {reason:?}");

        // Cured, and tried again.
        index_server::must(server, "DELETE", &index, &Value::Null)?;
        let said = cluster.letters(&["replay"]).await?;
        ensure!(said.contains("100 replayed, 0 refused again, 0 waiting"), "{said}");
        let query = json!({ "query": { "exists": { "field": "url.path" } } });
        index_server::must(server, "POST", &format!("{index}/_refresh"), &Value::Null)?;
        let whole = index_server::must(server, "POST", &format!("{index}/_count"), &query)?;
        ensure!(whole["count"] == 100, "{whole}");
        ensure!(cluster.letters(&["list"]).await?.contains("no dead letters"), "letters stay");
        Ok(())
    })
    .await;
}

async fn start(
    scene: &Scene,
    server: &SearchServer,
    agents: usize,
    change: impl FnOnce(Layout) -> Layout,
) -> Result<(Cluster, Vec<Service>)> {
    let kafka = block_in_place(Kafka::shared);
    let layout = Layout::over(&kafka.bootstrap(), index_server::toml(server, scene)?);
    let layout = change(Layout { gateways: 1, processors: 1, ..layout });
    index_server::set_up(server, scene, &layout.bus).await?;
    let cluster = Cluster::build(scene, layout, agents, "*.log*").await?;
    for agent in 0..agents {
        block_in_place(|| kafka.create_topic(&cluster.topic_of(agent), 6, &[]))?;
        block_in_place(|| kafka.create_topic(&format!("dead-letters.{}", cluster.tenant_of(agent)), 1, &[]))?;
    }
    let services = cluster.start_all().await?;
    Ok((cluster, services))
}

/// Waits until more is found than before; answers how long it took.
async fn resumed(server: &SearchServer, cluster: &Cluster) -> Result<Duration> {
    let since = Instant::now();
    let before = wait_until("the server counts", RESUMED_WITHIN * SLACK, async || {
        Ok(index_server::count(server, cluster.tenant())
            .map_or_else(|error| Look::NotYet(format!("{error:#}")), Look::Holds))
    })
    .await?;
    wait_until("documents come again", RESUMED_WITHIN * SLACK, async || {
        let found = index_server::count(server, cluster.tenant())?;
        Ok(if found > before { Look::Holds(()) } else { Look::NotYet(format!("{found} documents")) })
    })
    .await?;
    Ok(since.elapsed())
}

/// Waits until a processor's readiness has all of these words.
async fn says(services: &[Service], words: &[&str]) -> Result<()> {
    let processor = services.iter().find(|service| matches!(service.role(), Role::Processor(_)));
    let admin = processor.context("a processor runs")?.admin();
    wait_until(&format!("readiness says {words:?}"), RESUMED_WITHIN * SLACK, async || {
        let said = admin.fetch("/readyz").await?.text();
        let all = words.iter().all(|word| said.contains(word));
        Ok(if all { Look::Holds(()) } else { Look::NotYet(said) })
    })
    .await
}

async fn exact(
    server: &SearchServer,
    cluster: &Cluster,
    ledger: &Ledger,
    scenario: &'static str,
    faults: u32,
    longest_return: Duration,
) -> Result<()> {
    let waited = index_server::wait_for_count(server, cluster.tenant(), ledger.len(), REST_FOUND_WITHIN).await;
    let balance = ledger.balance_by_content(&index_server::documents(server, cluster.tenant())?);
    let (missing, twice) = (balance.missing, balance.twice);
    Row { scenario, lines: ledger.len(), faults, missing, twice, longest_return }.print();
    balance.require_exact()?;
    waited
}
