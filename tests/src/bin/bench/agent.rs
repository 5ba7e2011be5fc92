//! The agent: from the file to the acknowledgement, over mTLS, against a gateway in another process; and at rest.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use logmesh_agent::{Agent, Config};
use logmesh_certs::{Role, TlsSource};
use logmesh_runtime::Context;
use logmesh_runtime::config::Root;

use crate::clock::own_cpu;
use crate::corpus::Corpus;
use crate::gateway::{NullGateway, Pki};
use crate::limits::Limits;
use crate::table::Cost;

/// Floor of the agent with zstd, in raw bytes per core second.
const FLOOR: f64 = 200e6;

/// Longest time for the whole log.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures with each codec and prints the rows.
pub(crate) fn measure(corpus: &Corpus, pki: &Pki, limits: &Limits) -> Result<()> {
    let cost = deliver(corpus, pki, "zstd")?;
    let mut row = cost.row("agent: tail, zstd, mTLS, acknowledged");
    row.of_limit = Some((cost.bytes_per_core() / limits.zstd, "zstd alone"));
    row.floor = Some(("200 MB/s per core", cost.bytes_per_core() >= FLOOR));
    row.print();
    let cost = deliver(corpus, pki, "snappy")?;
    let mut row = cost.row("agent: tail, snappy, mTLS, acknowledged");
    row.of_limit = Some((cost.bytes_per_core() / limits.snappy, "snappy alone"));
    row.print();
    Ok(())
}

fn deliver(corpus: &Corpus, pki: &Pki, codec: &str) -> Result<Cost> {
    let mut gateway = NullGateway::start(pki, Some(corpus.bytes))?;
    let data = corpus.scratch(&format!("agent-{codec}"))?;
    let text = format!(
        "[agent]\nname = \"bench\"\ndata_dir = {data:?}\ngateways = [\"{}\"]\ncompression = \"{codec}\"\n\
         [[agent.files]]\ninclude = [{:?}]\n",
        gateway.address,
        corpus.path()
    );
    let root = Root::parse(&text, "bench.toml").map_err(|faults| anyhow::anyhow!("{faults}"))?;
    let config = Config::read(&root);
    root.finish().map_err(|faults| anyhow::anyhow!("{faults}"))?;
    let tls = TlsSource::load(pki.files(Role::Agent))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (cpu, wall) = (own_cpu(), Instant::now());
    let context = Context::for_tests();
    let shutdown = context.shutdown.clone();
    runtime.block_on(async {
        let agent = Agent::new(config, tls, context)?;
        let running = tokio::spawn(agent.run());
        let done = tokio::task::spawn_blocking(move || gateway.done());
        let done = tokio::time::timeout(PATIENCE, done).await.context("the agent does not finish")??;
        let cost = Cost { bytes: corpus.bytes, lines: corpus.lines, cpu: own_cpu() - cpu, wall: wall.elapsed() };
        done?;
        shutdown.begin();
        if running.await?.is_err() {
            bail!("the agent failed");
        }
        Ok(cost)
    })
}
