//! The agent at full speed: tailing alone in this process; and as people run it, from the file to a gateway's sink, over
//! mTLS.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use logmesh_agent::{Config, FilesConfig, tail_once};
use logmesh_proto::v1;

use crate::clock::{measured, running_of};
use crate::corpus::Corpus;
use crate::gateway::{NullGateway, Pki};
use crate::limits::Limits;
use crate::lone;
use crate::table::Cost;

/// Floors of the agent, in raw bytes per core second.
const ZSTD_FLOOR: f64 = 350e6;
const SNAPPY_FLOOR: f64 = 450e6;

/// Longest time for the whole log.
const PATIENCE: Duration = Duration::from_secs(300);

/// Floor of tailing alone, in raw bytes per core second.
const TAIL_FLOOR: f64 = 1.5e9;

/// Measures tailing alone, then each codec, and prints the rows.
pub(crate) fn measure(corpus: &Corpus, pki: &Pki, limits: &Limits) -> Result<()> {
    let cost = tail(corpus)?;
    let mut row = cost.row("agent: tail to batches, to nowhere");
    row.of_limit = Some((cost.bytes_per_core() / limits.scan, "reading and finding lines"));
    row.floor = Some(("1.5 GB/s per core", cost.bytes_per_core() >= TAIL_FLOOR));
    row.print();
    let cost = deliver(corpus, pki, "zstd")?;
    let mut row = cost.row("agent: tail, zstd, mTLS, acknowledged");
    row.of_limit = Some((cost.bytes_per_core() / limits.zstd, "zstd alone"));
    row.floor = Some(("350 MB/s per core", cost.bytes_per_core() >= ZSTD_FLOOR));
    row.print();
    let cost = deliver(corpus, pki, "snappy")?;
    let mut row = cost.row("agent: tail, snappy, mTLS, acknowledged");
    row.of_limit = Some((cost.bytes_per_core() / limits.snappy, "snappy alone"));
    row.floor = Some(("450 MB/s per core", cost.bytes_per_core() >= SNAPPY_FLOOR));
    row.print();
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
    let directory = corpus.scratch(&format!("agent-{codec}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let begun = Instant::now();
        let mut agent = lone::spawn(pki, gateway.address, &directory, &corpus.path(), codec)?;
        let (sender, done) = mpsc::sync_channel(1);
        std::thread::spawn(move || sender.send((gateway.done(), gateway)));
        // The gateway lives until the agent has its last answers.
        let (done, _gateway) = done.recv_timeout(PATIENCE).context("the agent does not finish")?;
        done?;
        let (cpu, wall) = (running_of(agent.pid())?, begun.elapsed());
        agent.require_alive()?;
        let ended = agent.terminate().await?;
        ensure!(ended.code() == Some(0), "not all is acknowledged: the agent ended with {:?}", ended.code());
        Ok(Cost { bytes: corpus.bytes, lines: corpus.lines, cpu, wall })
    })
}
