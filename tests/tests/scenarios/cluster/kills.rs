//! SIGKILL of each service of a cluster at random moments: no line missing, none twice, no manual step.

use std::time::Duration;

use anyhow::Result;
use logmesh_rig::{Elasticsearch, Kafka};
use logmesh_tests::cluster::{Cluster, Layout, READY_WITHIN, Role, Service};
use logmesh_tests::counts::{Row, either};
use logmesh_tests::index_server;
use logmesh_tests::scene::scenario;
use logmesh_tests::wait::SLACK;
use logmesh_tests::writer::{Pace, Stamp, Writer};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::block_in_place;

/// For what is still under way when the writer has finished.
const REST_FOUND_WITHIN: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_agent_gateway_and_processor_lose_no_line_and_double_none() {
    scenario(async |scene| {
        let (kafka, server) = (block_in_place(Kafka::shared), block_in_place(Elasticsearch::shared));
        let layout = Layout::over(&kafka.bootstrap(), index_server::toml(server, scene)?);
        index_server::set_up(server, scene, &layout.bus).await?;
        let cluster = Cluster::build(scene, layout, 1, "*.log*").await?;
        block_in_place(|| kafka.create_topic(&cluster.topic(), 6, &[]))?;
        block_in_place(|| kafka.create_topic(&cluster.dead_letters(), 1, &[]))?;
        let mut services = cluster.start_all().await?;

        let (lines, kills) = (either(30_000, 200_000), either(3, 10));
        let (progress, mut written) = watch::channel(0);
        let pace = Pace { lines, per_second: either(1_500, 3_000), rotate_every: lines / 25 };
        let writer = tokio::spawn(Writer::create(&scene.logs(), "numbered", Stamp::Mixed)?.run(pace, progress));
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let victims = victims(&cluster, kills, &mut random);
        let mut longest_return = Duration::ZERO;
        for (nth, victim) in victims.iter().enumerate() {
            let share = lines / (victims.len() as u64 + 1);
            let at = share * nth as u64 + random.random_range(0..share);
            written.wait_for(|written| *written >= at).await?;
            let place = services.iter().position(|service| service.role() == *victim);
            services.swap_remove(place.expect("every service runs")).kill().await?;
            services.push(cluster.spawn(*victim)?);
            // The others are killed while this one may still be starting.
            longest_return = longest_return.max(ready(&mut services).await?);
        }
        let ledger = writer.await??.into_ledger();
        index_server::wait_for_count(server, cluster.tenant(), ledger.len(), REST_FOUND_WITHIN).await?;
        let found = index_server::documents(server, cluster.tenant())?;
        let balance = ledger.balance_by_content(&found);
        let faults = u32::try_from(victims.len())?;
        let (missing, twice) = (balance.missing, balance.twice);
        Row { scenario: "cluster under kills", lines, faults, missing, twice, longest_return }.print();
        balance.require_exact()
    })
    .await;
}

/// Every kind of service as often as asked, in any order.
fn victims(cluster: &Cluster, kills: usize, random: &mut StdRng) -> Vec<Role> {
    let roles = cluster.roles();
    let kinds: [fn(&Role) -> bool; 3] = [
        |role| matches!(role, Role::Agent(_)),
        |role| matches!(role, Role::Gateway(_)),
        |role| matches!(role, Role::Processor(_)),
    ];
    let mut victims = Vec::new();
    for kind in kinds {
        let of_kind: Vec<Role> = roles.iter().copied().filter(kind).collect();
        victims.extend(of_kind.iter().cycle().take(kills));
    }
    victims.shuffle(random);
    victims
}

/// Waits until all are ready; answers how long the one that was started last took.
async fn ready(services: &mut [Service]) -> Result<Duration> {
    let mut took = Duration::ZERO;
    for service in services {
        took = service.ready().await?;
    }
    anyhow::ensure!(took <= READY_WITHIN * SLACK, "a service took {took:?} to come back");
    Ok(took)
}
