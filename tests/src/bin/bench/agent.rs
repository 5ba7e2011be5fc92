//! The agent: from the file to the acknowledgement, over mTLS, against a gateway in another process; and at rest.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use logmesh_agent::{Agent, Config, FilesConfig, tail_once};
use logmesh_certs::{Role, TlsSource};
use logmesh_proto::v1;
use logmesh_runtime::Context;
use logmesh_runtime::config::Root;
use logmesh_runtime::shutdown::Exit;
use logmesh_tests::binary;
use logmesh_tests::process::Process;

use crate::clock::{measured, own_cpu};
use crate::corpus::Corpus;
use crate::gateway::{NullGateway, Pki};
use crate::limits::Limits;
use crate::table::Cost;
use crate::whole::{self, Ceiling, SETTLING};

/// Floor of the agent with zstd, in raw bytes per core second.
const FLOOR: f64 = 200e6;

/// Longest time for the whole log.
const PATIENCE: Duration = Duration::from_secs(300);

/// Floor of tailing alone, in raw bytes per core second.
const TAIL_FLOOR: f64 = 1e9;

/// Measures tailing alone, then each codec, and prints the rows.
pub(crate) fn measure(corpus: &Corpus, pki: &Pki, limits: &Limits) -> Result<()> {
    let cost = tail(corpus)?;
    let mut row = cost.row("agent: tail to batches, to nowhere");
    row.of_limit = Some((cost.bytes_per_core() / limits.scan, "reading and finding lines"));
    row.floor = Some(("1 GB/s per core", cost.bytes_per_core() >= TAIL_FLOOR));
    row.print();
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

/// What the real agent takes while nothing is written, in a process of its own.
pub(crate) fn at_rest(corpus: &Corpus, pki: &Pki) -> Result<()> {
    let gateway = NullGateway::start(pki, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ceiling = |words, percent, mib| Ceiling { words, percent, mib };
    for (name, files, ceiling) in [
        ("idle: a lone agent, 1 file", 1, ceiling("0.05 %, 10 MiB at most", 0.05, 10)),
        ("idle: a lone agent, 1,000 files", 1_000, ceiling("0.2 %, 16 MiB at most", 0.2, 16)),
        ("idle: a lone agent, 10,000 files", 10_000, ceiling("1 %, 64 MiB at most", 1.0, 64)),
    ] {
        let directory = corpus.scratch(&format!("idle-{files}"))?;
        let logs = corpus.scratch(&format!("idle-{files}/logs"))?;
        for number in 0..files {
            std::fs::write(logs.join(format!("{number}.log")), "one line, and no more\n")?;
        }
        let files = pki.files(Role::Agent);
        let text = format!(
            "[agent]\nname = \"bench\"\ndata_dir = {:?}\nadmin = \"127.0.0.1:0\"\ngateways = [\"{}\"]\n\
             tls = {{ cert = {:?}, key = {:?}, ca = {:?} }}\n[[agent.files]]\ninclude = [{:?}]\n",
            directory.join("data"),
            gateway.address,
            files.cert,
            files.key,
            files.ca,
            logs.join("*.log")
        );
        let config = directory.join("agent.toml");
        std::fs::write(&config, text)?;
        let words = [binary::named("logmesh-agent")?.into(), OsString::from("--config"), config.into()];
        let row = runtime.block_on(async {
            let mut agent = Process::spawn(&words, &[], &directory.join("agent"))?;
            tokio::time::sleep(SETTLING).await;
            agent.require_alive()?;
            whole::at_rest(name, agent.pid(), Some(ceiling)).await
        })?;
        row.print();
    }
    Ok(())
}

/// Reads, cuts, notes the cuts and builds batches, without compression; nobody takes them.
fn tail(corpus: &Corpus) -> Result<Cost> {
    let include = vec![corpus.path().to_str().context("a path that is not UTF-8")?.to_owned()];
    let files = vec![FilesConfig { include, ..FilesConfig::default() }];
    let data_dir = corpus.scratch("tail")?;
    let config = Config { data_dir, codec: v1::Codec::None, files, fresh: true, ..Config::default() };
    let (tally, cpu, wall) = measured(|| Ok(tail_once(&config, |parcel| drop(std::hint::black_box(parcel)))?))?;
    ensure!(tally.read_bytes == corpus.bytes, "{} of {} bytes were read", tally.read_bytes, corpus.bytes);
    Ok(Cost { bytes: corpus.bytes, lines: corpus.lines, cpu, wall })
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
        let exit = running.await?;
        ensure!(exit == Exit::Clean, "the agent ended with {exit:?}");
        Ok(cost)
    })
}
