//! Brokers that go away and come back: exact, with agents that stop reading and memory that stays flat meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use logmesh_rig::{Elasticsearch, Kafka, KafkaCluster};
use logmesh_tests::cluster::{Cluster, Layout, Role, Service, metric};
use logmesh_tests::counts::{Row, either, soak};
use logmesh_tests::index_server;
use logmesh_tests::scene::scenario;
use logmesh_tests::wait::{Look, SLACK, holds_for, wait_until};
use logmesh_tests::writer::{Pace, Stamp, Writer};
use tokio::sync::watch;
use tokio::task::block_in_place;

/// For what is still under way when the writer has finished.
const REST_FOUND_WITHIN: Duration = Duration::from_secs(240);

/// Twice the greatest back-off.
const RESUMED_WITHIN: Duration = Duration::from_secs(20);

/// What a service may take more while nothing moves.
const GROWTH_BYTES: u64 = 48 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_are_away_at_the_start_and_later_cost_nothing_but_time() {
    scenario(async |scene| {
        let kafka = block_in_place(|| Kafka::start(&[]))?;
        let server = block_in_place(Elasticsearch::shared);
        let layout = Layout::over(&kafka.bootstrap(), index_server::toml(server, scene)?);
        // So that what is unread soon backs up to the file.
        let agent = "memory = \"4 MiB\"\ncompression = \"none\"".to_owned();
        let layout = Layout { gateways: 1, processors: 1, agent, ..layout };
        index_server::set_up(server, scene, &layout.bus).await?;
        let cluster = Cluster::build(scene, layout, 1, "*.log*").await?;
        block_in_place(|| kafka.create_topic(&cluster.topic(), 6, &[]))?;
        block_in_place(|| kafka.create_topic(&cluster.dead_letters(), 1, &[]))?;
        block_in_place(|| kafka.kill())?;

        // At the start.
        let mut services: Vec<Service> =
            cluster.roles().into_iter().map(|role| cluster.spawn(role)).collect::<Result<_>>()?;
        let mut writer = Writer::create(&scene.logs(), "numbered", Stamp::Mixed)?;
        writer.write(1_000)?;
        for service in services.iter().filter(|service| !matches!(service.role(), Role::Agent(_))) {
            says_that_brokers_are_away(service).await?;
        }
        block_in_place(|| kafka.start_again())?;
        let back = Instant::now();
        for service in &mut services {
            service.ready().await?;
        }
        index_server::wait_for_count(server, cluster.tenant(), writer.written(), REST_FOUND_WITHIN).await?;
        println!("ready and delivered {:?} after the brokers' start", back.elapsed());

        // Later, under load.
        let lines = either(100_000, 400_000);
        let pace = Pace { lines, per_second: 20_000, rotate_every: lines };
        let (progress, mut written) = watch::channel(0);
        let writing = tokio::spawn(writer.run(pace, progress));
        written.wait_for(|written| *written > lines / 4).await?;
        block_in_place(|| kafka.kill())?;
        for service in services.iter().filter(|service| matches!(service.role(), Role::Gateway(_))) {
            says_that_brokers_are_away(service).await?;
        }
        let read = nothing_moves(&services, either(Duration::from_secs(15), Duration::from_secs(60))).await?;
        let files = std::fs::read_dir(scene.logs())?.map(|file| Ok(file?.metadata()?.len()));
        let written = files.sum::<std::io::Result<u64>>()?;
        ensure!(read < written, "the agent read all {read} of {written} bytes ahead of dead brokers");
        let before = index_server::count(server, cluster.tenant())?;
        block_in_place(|| kafka.start_again())?;
        let back = Instant::now();
        delivery_resumes(&cluster, before).await?;
        let longest_return = back.elapsed();
        let ledger = writing.await??.into_ledger();
        exact(&cluster, &ledger, "brokers away", 2, longest_return).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_and_a_lost_quorum_of_replicas_cost_nothing_but_time() {
    scenario(async |scene| {
        let kafka = block_in_place(|| KafkaCluster::start(&[]))?;
        let server = block_in_place(Elasticsearch::shared);
        let layout = Layout::over(&kafka.bootstrap(), index_server::toml(server, scene)?);
        index_server::set_up(server, scene, &layout.bus).await?;
        let cluster = Cluster::build(scene, Layout { gateways: 1, processors: 1, ..layout }, 1, "*.log*").await?;
        block_in_place(|| kafka.create_topic(&cluster.topic(), 3, &[]))?;
        block_in_place(|| kafka.create_topic(&cluster.dead_letters(), 1, &[]))?;
        let _services = cluster.start_all().await?;
        let lines = either(60_000, 300_000);
        let pace = Pace { lines, per_second: either(2_000, 4_000), rotate_every: lines / 10 };
        let (progress, mut written) = watch::channel(0);
        let writing = tokio::spawn(Writer::create(&scene.logs(), "numbered", Stamp::Mixed)?.run(pace, progress));

        // The leader of a partition, with SIGKILL.
        written.wait_for(|written| *written > lines / 6).await?;
        let leader = block_in_place(|| kafka.leader_of(&cluster.topic(), 0))?;
        block_in_place(|| kafka.kill(leader))?;
        written.wait_for(|written| *written > lines / 3).await?;
        let before = index_server::count(server, cluster.tenant())?;
        delivery_resumes(&cluster, before).await?;

        // A second one: fewer replicas than `min.insync.replicas`.
        let second = (leader + 1) % 3;
        block_in_place(|| kafka.kill(second))?;
        written.wait_for(|written| *written > lines / 2).await?;
        block_in_place(|| kafka.start_again(second))?;
        block_in_place(|| kafka.start_again(leader))?;
        let back = Instant::now();
        let before = index_server::count(server, cluster.tenant())?;
        delivery_resumes(&cluster, before).await?;
        let longest_return = back.elapsed();
        let mut faults = 2;
        if soak() {
            for broker in 0..3 {
                block_in_place(|| kafka.stop(broker))?;
                block_in_place(|| kafka.start_again(broker))?;
                faults += 1;
            }
        }
        let ledger = writing.await??.into_ledger();
        exact(&cluster, &ledger, "three brokers", faults, longest_return).await
    })
    .await;
}

async fn says_that_brokers_are_away(service: &Service) -> Result<()> {
    let name = service.role().name();
    wait_until(&format!("{name} says that brokers are away"), RESUMED_WITHIN * SLACK, async || {
        let answer = match service.admin().fetch("/readyz").await {
            Ok(answer) => answer,
            Err(error) => return Ok(Look::NotYet(format!("{error:#}"))),
        };
        let said = answer.text();
        let plain = said.contains("broker") && answer.status == StatusCode::SERVICE_UNAVAILABLE;
        Ok(if plain { Look::Holds(()) } else { Look::NotYet(said) })
    })
    .await
}

/// The agent has stopped reading, and nobody's memory grows. Answers how many bytes it has read.
async fn nothing_moves(services: &[Service], period: Duration) -> Result<u64> {
    let agent = services.iter().find(|service| matches!(service.role(), Role::Agent(_))).context("an agent")?;
    let (mut last, mut still) = (0, 0);
    wait_until("the agent stops reading", Duration::from_secs(60), async || {
        let read = metric(agent, "logmesh_agent_bytes_read_total").await?;
        still = if read == last { still + 1 } else { 0 };
        last = read;
        Ok(if still == 50 { Look::Holds(()) } else { Look::NotYet(format!("{read} bytes read")) })
    })
    .await?;
    let before: Vec<u64> = services.iter().map(|service| service.memory()).collect::<Result<_>>()?;
    holds_for("reading has stopped and memory is flat", period, async || {
        let read = metric(agent, "logmesh_agent_bytes_read_total").await?;
        for (service, before) in services.iter().zip(&before) {
            let now = service.memory()?;
            if now > before + GROWTH_BYTES {
                return Ok(Look::NotYet(format!("{} went from {before} to {now} bytes", service.role().name())));
            }
        }
        Ok(if read == last { Look::Holds(()) } else { Look::NotYet(format!("from {last} to {read} bytes read")) })
    })
    .await?;
    Ok(last)
}

async fn delivery_resumes(cluster: &Cluster, before: u64) -> Result<()> {
    let server = Elasticsearch::shared();
    wait_until("delivery resumes", RESUMED_WITHIN * SLACK, async || {
        let found = index_server::count(server, cluster.tenant())?;
        Ok(if found > before { Look::Holds(()) } else { Look::NotYet(format!("{found} documents")) })
    })
    .await
}

async fn exact(
    cluster: &Cluster,
    ledger: &logmesh_tests::ledger::Ledger,
    scenario: &'static str,
    faults: u32,
    longest_return: Duration,
) -> Result<()> {
    let server = Elasticsearch::shared();
    let waited = index_server::wait_for_count(server, cluster.tenant(), ledger.len(), REST_FOUND_WITHIN).await;
    let balance = ledger.balance_by_content(&index_server::documents(server, cluster.tenant())?);
    let (missing, twice) = (balance.missing, balance.twice);
    Row { scenario, lines: ledger.len(), faults, missing, twice, longest_return }.print();
    balance.require_exact()?;
    ensure!(longest_return <= RESUMED_WITHIN * SLACK, "delivery resumed after {longest_return:?}");
    waited
}
