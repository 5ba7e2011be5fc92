//! The parts of the pipeline, put together, started, and stopped.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use axum::Router;
use logmesh_agent::{Agent, Clock};
use logmesh_bus::Bus;
use logmesh_gateway::{Gateway, PolicyRule};
use logmesh_processor::{
    Processor,
    dead_letter::{self, Office},
    index::Index,
};
use logmesh_runtime::{
    Context,
    admin::{self, Admin},
    health::Health,
    shutdown::{Exit, Shutdown},
    status::Status,
    telemetry::{self, Telemetry},
};
use tokio::net::TcpListener;

use super::{
    Addresses,
    data::DataDirectory,
    demo::Demo,
    demo_directory,
    mesh::Mesh,
    shares::Shares,
    stage::Stages,
    stores::{self, Stores},
};
use crate::settings::Settings;

/// The tenant of everything that `up` takes in.
const TENANT: &str = "default";

/// How often certificates are looked after.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// What all parts share.
struct Common {
    health: Health,
    status: Status,
    telemetry: Telemetry,
}

impl Common {
    fn context(&self, shutdown: &Shutdown) -> Context {
        Context {
            health: self.health.clone(),
            meter: self.telemetry.meter(),
            status: self.status.clone(),
            shutdown: shutdown.clone(),
        }
    }
}

/// Runs the pipeline until it is told to stop.
pub(super) async fn run(settings: Settings, demo: bool, shutdown: Shutdown) -> anyhow::Result<Exit> {
    telemetry::logging(&settings.telemetry)?;
    let data = DataDirectory::take(&settings.up.data)?;
    let http = listen(settings.up.http).await?;
    let ingest = listen(settings.up.ingest).await?;
    let addresses = Addresses { http: http.local_addr()?, ingest: ingest.local_addr()?, pid: std::process::id() };
    let common = Common {
        health: Health::new(),
        status: Status::new(),
        telemetry: Telemetry::start(&settings.telemetry, "logmesh")?,
    };
    let grace = settings.up.shutdown_grace;
    let sources = sources(&settings.agent);
    let mut stages = Stages::default();
    let stores = Stores::open(&settings, &data, &common.health, &common.telemetry.meter()).await?;
    start_parts(&mut stages, settings, &data, &common, &stores, (http, ingest))?;
    if demo {
        start_demo(&mut stages, &data)?;
    }
    addresses.write(data.path()).context("cannot write addresses.json")?;
    let ended = tokio::select! {
        () = shutdown.requested() => None,
        name = stages.first_to_end() => Some(name),
        () = announce(&common.health, &addresses, &data, &sources) => unreachable!("announcing never ends"),
    };
    tracing::info!(grace = ?grace, "stopping");
    Addresses::remove(data.path());
    let exit = stages.stop(grace.mul_f64(0.6)).await;
    stores.close(grace.mul_f64(0.1)).await;
    tokio::task::spawn_blocking(move || common.telemetry.shutdown(grace.mul_f64(0.1))).await?;
    match (ended, exit?) {
        (Some(name), _) => anyhow::bail!("the {name} ended by itself; the log says why"),
        (None, exit) => Ok(exit),
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// What is read, in the words in which it was asked for.
fn sources(agent: &logmesh_agent::Config) -> String {
    let patterns = agent.files.iter().flat_map(|files| files.include.iter().cloned());
    let inputs = agent.inputs.iter().map(|input| format!("input `{}`", input.name));
    let sources: Vec<String> = patterns.chain(inputs).collect();
    if sources.is_empty() {
        return String::from("nothing; name files, as in: logmesh up '/var/log/**/*.log'");
    }
    sources.join(", ")
}

/// Says on standard output where everything is, once it is ready, and then rests.
async fn announce(health: &Health, addresses: &Addresses, data: &DataDirectory, sources: &str) {
    let mut look = tokio::time::interval(Duration::from_millis(20));
    while !health.readiness().ready {
        look.tick().await;
    }
    println!("logmesh is ready");
    println!("reads   {sources}");
    println!("http    http://{}   search, /readyz, /metrics, /status", addresses.http);
    println!(
        "ingest  {}   agents and other clients; certificates: {}",
        addresses.ingest,
        data.path().join("pki").display()
    );
    println!("data    {}", data.path().display());
    std::future::pending::<()>().await;
}

/// What is done now and then while the parts work: certificates are renewed.
async fn upkeep(mesh: Arc<Mesh>, context: Context) -> anyhow::Result<Exit> {
    let certificates = context.health.condition("certificates");
    let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            () = context.shutdown.requested() => return Ok(Exit::Clean),
            _ = tick.tick() => {
                let mesh = Arc::clone(&mesh);
                match tokio::task::spawn_blocking(move || mesh.renew(SystemTime::now())).await? {
                    Ok(()) => certificates.clear(),
                    Err(error) => certificates.warn(format!("certificates were not renewed: {error}")),
                }
            }
        }
    }
}

/// What the processor writes to, and what time it is for the agent. In tests, with faults behind.
#[cfg(feature = "faults")]
fn seams(index: &Arc<dyn Index>) -> (Arc<dyn Index>, impl Clock) {
    let seams = super::faults::seams(Arc::clone(index));
    (seams.index, seams.clock)
}

/// What the processor writes to, and what time it is for the agent.
#[cfg(not(feature = "faults"))]
fn seams(index: &Arc<dyn Index>) -> (Arc<dyn Index>, impl Clock) {
    (Arc::clone(index), logmesh_agent::SystemClock::default())
}

fn start_demo(stages: &mut Stages, data: &DataDirectory) -> anyhow::Result<()> {
    let demo = Demo::open(&demo_directory(data.path())).context("cannot write the demo's logs")?;
    let shutdown = Shutdown::new();
    stages.start("demo", shutdown.clone(), async move {
        demo.run(shutdown).await;
        Ok(Exit::Clean)
    });
    Ok(())
}

/// Starts agent, gateway, processor and admin address, in the order in which they will stop.
fn start_parts(
    stages: &mut Stages,
    settings: Settings,
    data: &DataDirectory,
    common: &Common,
    stores: &Stores,
    (http, ingest): (TcpListener, TcpListener),
) -> anyhow::Result<()> {
    let shares = Shares::of(settings.up.memory);
    let address = ingest.local_addr()?;
    let mesh = Mesh::open(&data.path().join("pki"), &settings.agent.name, address.ip(), SystemTime::now())?;
    let (index, clock) = seams(&stores.index);
    let topics = settings.processor.pipelines.iter().flat_map(|pipeline| pipeline.topics.clone()).collect();

    let agent = logmesh_agent::Config {
        gateways: vec![reachable(address).to_string().parse()?],
        data_dir: data.path().join("agent"),
        own: data.own(),
        memory: shares.agent,
        // Less than the stage's share, so that it ends by itself.
        shutdown_grace: settings.up.shutdown_grace.mul_f64(0.35),
        fresh: stores.fresh,
        ..settings.agent
    };
    start_agent(stages, common, agent, &mesh, clock)?;

    let gateway = logmesh_gateway::Config {
        memory: shares.gateway,
        shutdown_grace: settings.up.shutdown_grace.mul_f64(0.12),
        // There is no other gateway to move to.
        session_age_max: Duration::ZERO,
        ..settings.gateway
    };
    start_gateway(stages, common, gateway, &mesh, topics, (ingest, Arc::clone(&stores.bus)))?;

    let memory_bytes = usize::try_from(shares.processor).unwrap_or(usize::MAX);
    let processor = logmesh_processor::Config { memory_bytes, ..settings.processor };
    let office = Office::new(stores.bus.clone(), Arc::clone(&index), processor.clone());
    start_processor(stages, common, processor, stores, index);
    start_watch(stages, common, stores);
    let shutdown = Shutdown::new();
    stages.start("upkeep", shutdown.clone(), upkeep(Arc::new(mesh), common.context(&shutdown)));
    if let Some(embedded) = &stores.embedded {
        let shutdown = Shutdown::new();
        stages.start("index", shutdown.clone(), stores::upkeep(Arc::clone(embedded), common.context(&shutdown)));
    }

    let admin = Admin {
        health: common.health.clone(),
        telemetry: common.telemetry.clone(),
        status: common.status.clone(),
        token: settings.up.admin_token,
    };
    start_admin(stages, http, admin, stores.search().merge(dead_letter::router(office)));
    Ok(())
}

fn start_agent(
    stages: &mut Stages,
    common: &Common,
    config: logmesh_agent::Config,
    mesh: &Mesh,
    clock: impl Clock,
) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    let agent = Agent::new(config, Arc::clone(&mesh.agent), common.context(&shutdown))?.with_clock(clock);
    stages.start_finite("agent", shutdown, async move { Ok(agent.run().await) });
    Ok(())
}

fn start_gateway(
    stages: &mut Stages,
    common: &Common,
    mut config: logmesh_gateway::Config,
    mesh: &Mesh,
    topics: Vec<String>,
    (ingest, bus): (TcpListener, Arc<dyn Bus>),
) -> anyhow::Result<()> {
    if config.policy.is_empty() {
        let (identity, tenant) = (mesh.agents.clone(), TENANT.to_owned());
        config.policy.push(PolicyRule { identity, tenant, topics, rate_limit: None });
    }
    let shutdown = Shutdown::new();
    let gateway = Gateway::new(config, Arc::clone(&mesh.gateway), bus, common.context(&shutdown))?;
    stages.start("gateway", shutdown, async move { Ok(gateway.run(ingest).await) });
    Ok(())
}

fn start_processor(
    stages: &mut Stages,
    common: &Common,
    config: logmesh_processor::Config,
    stores: &Stores,
    index: Arc<dyn Index>,
) {
    let shutdown = Shutdown::new();
    let bus: Arc<dyn Bus> = stores.bus.clone();
    let processor = Processor::new(config, Arc::clone(&bus), index, bus, common.context(&shutdown));
    stages.start("processor", shutdown, async move {
        processor.run().await?;
        Ok(Exit::Clean)
    });
}

/// Counts the dead letters that wait.
fn start_watch(stages: &mut Stages, common: &Common, stores: &Stores) {
    let shutdown = Shutdown::new();
    let watching = dead_letter::watch(stores.bus.clone(), common.context(&shutdown));
    stages.start("dead letters", shutdown, async move {
        watching.await;
        Ok(Exit::Clean)
    });
}

fn start_admin(stages: &mut Stages, listener: TcpListener, admin: Admin, router: Router) {
    let shutdown = Shutdown::new();
    stages.start("admin address", shutdown.clone(), async move {
        admin::serve(listener, admin, router, shutdown).await?;
        Ok(Exit::Clean)
    });
}

/// Where our own agent reaches a gateway that listens there.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    address
}
