//! Members of a cluster that come and go: gateways restarted in turn, processors that share partitions anew.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use logmesh_proto::{Envelope, Header};
use logmesh_rig::{Elasticsearch, Kafka, ReadRecord, SearchServer};
use logmesh_tests::cluster::{Cluster, Layout, Role, Service};
use logmesh_tests::counts::{Row, either};
use logmesh_tests::index_server;
use logmesh_tests::ledger::Ledger;
use logmesh_tests::scene::{Scene, scenario};
use logmesh_tests::wait::{Look, SLACK, holds_for, wait_until};
use logmesh_tests::writer::{Pace, Stamp, Writer};
use tokio::sync::watch;
use tokio::task::{JoinSet, block_in_place};

/// For what is still under way when the writers have finished.
const REST_FOUND_WITHIN: Duration = Duration::from_secs(180);

/// Promised longest time without a batch of a stream that is being written.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Promised longest time in which a partition with work does not advance.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Partitions of the topic.
const PARTITIONS: i32 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_restarted_in_turn_fail_no_delivery_and_pause_no_stream() {
    scenario(async |scene| {
        let server = block_in_place(Elasticsearch::shared);
        let (cluster, mut services) = start(scene, server, 2, 1).await?;
        let rounds = either(2, 6);
        let lines = rounds * 20_000;
        let mut writers = Writers::start(scene, &["one", "two", "three"], lines, 4_000)?;
        for round in 0..rounds * 2 {
            let gateway = Role::Gateway(usize::try_from(round % 2)?);
            writers.reach(lines * (round + 1) / (rounds * 2 + 2)).await?;
            let place = services.iter().position(|service| service.role() == gateway).context("it runs")?;
            let ended = services.swap_remove(place).terminate().await?;
            ensure!(ended.code() == Some(0), "{gateway:?} ended with {}:\n{}", ended.status, ended.stderr);
            services.push(cluster.start(gateway).await?);
        }
        let ledger = writers.finish().await?;
        exact(server, &cluster, &ledger, "gateways restarted in turn", u32::try_from(rounds * 2)?).await?;
        let pause = longest_pause(&block_in_place(|| Kafka::shared().read_all(&cluster.topic()))?)?;
        println!("longest pause of a stream: {pause:?}");
        ensure!(pause <= PAUSE_MAX * SLACK, "a stream paused for {pause:?}");
        let agent = services.iter().find(|service| matches!(service.role(), Role::Agent(_))).context("an agent")?;
        let unexpected = agent.stderr().lines().filter(|line| line.contains(" ERROR ")).count();
        ensure!(unexpected == 0, "the agent complains:\n{}", agent.stderr());
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processors_that_join_leave_and_die_share_the_partitions_and_lose_nothing() {
    scenario(async |scene| {
        let server = block_in_place(|| Elasticsearch::start(&[]))?;
        let (cluster, mut services) = start(scene, &server, 1, 1).await?;
        let lines = either(30_000, 180_000);
        let mut writers = Writers::start(scene, &["a", "b", "c", "d", "e", "f"], lines, either(1_500, 3_000))?;
        let mut watching = Progress::of(&cluster);
        let stages = 4;
        for stage in 1..=stages {
            // A slow index: it stands still again and again.
            block_in_place(|| server.pause())?;
            holds_for("it is slow", Duration::from_millis(300), async || watching.look().map(Look::Holds)).await?;
            block_in_place(|| server.resume())?;
            loop {
                // Writers go on meanwhile, perhaps to their end: it is asked for no more than what comes after this.
                let written = writers.written();
                if written >= lines * stage / (stages + 1) {
                    break;
                }
                watching.look()?;
                writers.reach(written + 1).await?;
            }
            match stage {
                1 => services.push(cluster.start(Role::Processor(1)).await?),
                2 => services.push(cluster.start(Role::Processor(2)).await?),
                3 => {
                    let first = services.iter().position(|service| service.role() == Role::Processor(0));
                    services.swap_remove(first.context("it runs")?).kill().await?;
                }
                _ => {}
            }
        }
        let ledger = writers.finish().await?;
        wait_until("everything is committed", REST_FOUND_WITHIN, async || {
            watching.look()?;
            let found = index_server::count(&server, cluster.tenant())?;
            Ok(if found == ledger.len() { Look::Holds(()) } else { Look::NotYet(format!("{found} documents")) })
        })
        .await?;
        println!("longest idle time of a partition with work: {:?}", watching.longest_idle);
        exact(&server, &cluster, &ledger, "processors 1, 3, 2", 1).await
    })
    .await;
}

/// Writers of several files at once.
struct Writers {
    tasks: JoinSet<Result<Writer>>,
    progress: Vec<watch::Receiver<u64>>,
}

impl Writers {
    fn start(scene: &Scene, names: &[&str], lines: u64, per_second: u64) -> Result<Writers> {
        let count = names.len() as u64;
        let pace = Pace { lines: lines / count, per_second: per_second / count, rotate_every: lines };
        let mut writers = Writers { tasks: JoinSet::new(), progress: Vec::new() };
        for name in names {
            let (sender, progress) = watch::channel(0);
            writers.tasks.spawn(Writer::create(&scene.logs(), name, Stamp::Mixed)?.run(pace, sender));
            writers.progress.push(progress);
        }
        Ok(writers)
    }

    fn written(&self) -> u64 {
        self.progress.iter().map(|written| *written.borrow()).sum()
    }

    /// Waits until so many lines are written in all.
    async fn reach(&mut self, lines: u64) -> Result<()> {
        let share = lines.div_ceil(self.progress.len() as u64);
        for progress in &mut self.progress {
            progress.wait_for(|written| *written >= share).await?;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        while let Some(writer) = self.tasks.join_next().await {
            ledger.absorb(writer??.into_ledger());
        }
        Ok(ledger)
    }
}

/// What a group has committed, looked at again and again.
struct Progress<'a> {
    cluster: &'a Cluster,
    seen: HashMap<i32, (i64, Instant)>,
    longest_idle: Duration,
}

impl<'a> Progress<'a> {
    fn of(cluster: &'a Cluster) -> Progress<'a> {
        Progress { cluster, seen: HashMap::new(), longest_idle: Duration::ZERO }
    }

    /// No commit goes back, and none stands still for long while there is work.
    fn look(&mut self) -> Result<()> {
        let (kafka, topic) = (Kafka::shared(), self.cluster.topic());
        let (committed, ends) =
            block_in_place(|| anyhow::Ok((kafka.committed(&self.cluster.group(), &topic)?, kafka.ends(&topic)?)))?;
        let committed: HashMap<i32, i64> = committed.into_iter().collect();
        for (partition, end) in ends {
            let now = Instant::now();
            let offset = committed.get(&partition).copied().unwrap_or(0);
            let (before, since) = self.seen.entry(partition).or_insert((offset, now));
            ensure!(offset >= *before, "the commit of partition {partition} went from {before} to {offset}");
            if offset > *before || end <= offset {
                (*before, *since) = (offset, now);
            }
            self.longest_idle = self.longest_idle.max(since.elapsed());
        }
        ensure!(self.longest_idle <= IDLE_MAX * SLACK, "a partition stood still for {:?}", self.longest_idle);
        Ok(())
    }
}

async fn start(
    scene: &Scene,
    server: &SearchServer,
    gateways: usize,
    processors: usize,
) -> Result<(Cluster, Vec<Service>)> {
    let kafka = block_in_place(Kafka::shared);
    let layout = Layout::over(&kafka.bootstrap(), index_server::toml(server, scene)?);
    let layout = Layout { gateways, processors: 3, ..layout };
    index_server::set_up(server, scene, &layout.bus).await?;
    let cluster = Cluster::build(scene, layout, 1, "*.log*").await?;
    block_in_place(|| kafka.create_topic(&cluster.topic(), PARTITIONS, &[]))?;
    block_in_place(|| kafka.create_topic(&cluster.dead_letters(), 1, &[]))?;
    let mut services = Vec::new();
    for role in cluster.roles().into_iter().filter(|role| !matches!(role, Role::Processor(n) if *n >= processors)) {
        services.push(cluster.start(role).await?);
    }
    Ok((cluster, services))
}

/// The longest time between two batches of a stream, as gateways received them.
fn longest_pause(records: &[ReadRecord]) -> Result<Duration> {
    let mut received: HashMap<&[u8], Vec<u64>> = HashMap::new();
    for record in records {
        let headers: Vec<Header> = record
            .headers
            .iter()
            .map(|(name, value)| Header { name: name.clone().into(), value: value.clone().into() })
            .collect();
        let envelope = Envelope::from_headers(&headers).context("a record of the bus without its envelope")?;
        received.entry(&record.key).or_default().push(envelope.received_unix_nano);
    }
    let mut longest = 0;
    for times in received.values_mut() {
        times.sort_unstable();
        longest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(longest, u64::max);
    }
    Ok(Duration::from_nanos(longest))
}

async fn exact(
    server: &SearchServer,
    cluster: &Cluster,
    ledger: &Ledger,
    scenario: &'static str,
    faults: u32,
) -> Result<()> {
    let waited = index_server::wait_for_count(server, cluster.tenant(), ledger.len(), REST_FOUND_WITHIN).await;
    let balance = ledger.balance_by_content(&index_server::documents(server, cluster.tenant())?);
    let (missing, twice) = (balance.missing, balance.twice);
    Row { scenario, lines: ledger.len(), faults, missing, twice, ..Row::default() }.print();
    balance.require_exact()?;
    waited
}
