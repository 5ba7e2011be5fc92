//! The agent as people run it, a process of its own: at rest, at a steady pace, and without a gateway.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use logmesh_certs::Role;
use logmesh_tests::binary;
use logmesh_tests::process::{Process, memory};
use tokio::time::MissedTickBehavior;

use crate::clock::running_of;
use crate::corpus::Corpus;
use crate::gateway::{NullGateway, Pki};
use crate::table::Row;
use crate::whole::{self, Ceiling, SETTLING};

/// A write every so often.
const EVERY: Duration = Duration::from_millis(5);

/// Before anything counts.
const WARMING: Duration = Duration::from_secs(5);

/// How long a pace is kept.
const WRITING: Duration = Duration::from_secs(30);

/// Bytes a second of a steady log.
const STEADY: u64 = 10_000_000;

/// Lines a second of a log whose delay is measured.
const LINES: u64 = 10_000;

/// Longest wait for the last line.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running agent and the directory that it tails.
struct Lone {
    process: Process,
    logs: PathBuf,
}

impl Lone {
    fn start(corpus: &Corpus, pki: &Pki, gateway: SocketAddr, name: &str, files: usize) -> Result<Lone> {
        let directory = corpus.scratch(name)?;
        let logs = corpus.scratch(&format!("{name}/logs"))?;
        for number in 0..files {
            std::fs::write(logs.join(format!("{number}.log")), "one line, and no more\n")?;
        }
        let process = spawn(pki, gateway, &directory, &logs.join("*.log"), "zstd")?;
        Ok(Lone { process, logs })
    }

    /// What it takes of a core, and its memory before and after, while a log is written.
    async fn under(&mut self, log: &mut Log, bytes_per_tick: u64) -> Result<(f64, [u64; 2])> {
        log.write_for(WARMING, bytes_per_tick, &mut VecDeque::new()).await?;
        let (begun, before, memory_before) = (Instant::now(), running_of(self.process.pid())?, self.memory()?);
        log.write_for(WRITING, bytes_per_tick, &mut VecDeque::new()).await?;
        self.process.require_alive()?;
        let took = running_of(self.process.pid())? - before;
        Ok((took.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0, [memory_before, self.memory()?]))
    }

    /// In MiB.
    fn memory(&self) -> Result<u64> {
        Ok(memory(self.process.pid())? >> 20)
    }
}

/// Starts the agent as it is built for hosts, with its state and its words in a directory.
pub(crate) fn spawn(
    pki: &Pki,
    gateway: SocketAddr,
    directory: &Path,
    include: &Path,
    compression: &str,
) -> Result<Process> {
    let files = pki.files(Role::Agent);
    let text = format!(
        "[agent]\nname = \"bench\"\ndata_dir = {:?}\nadmin = \"127.0.0.1:0\"\ngateways = [\"{gateway}\"]\n\
         compression = \"{compression}\"\ntls = {{ cert = {:?}, key = {:?}, ca = {:?} }}\n\
         [[agent.files]]\ninclude = [{include:?}]\n",
        directory.join("data"),
        files.cert,
        files.key,
        files.ca,
    );
    let config = directory.join("agent.toml");
    std::fs::write(&config, text)?;
    let words = [binary::agent()?.into(), OsString::from("--config"), config.into()];
    Process::spawn(&words, &[], &directory.join("agent"))
}

/// Prints the rows at rest.
pub(crate) fn at_rest(corpus: &Corpus, pki: &Pki) -> Result<()> {
    let gateway = NullGateway::start(pki, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ceiling = |words, percent, mib| Ceiling { words, percent, mib };
    for (name, files, ceiling) in [
        ("idle: a lone agent, 1 file", 1, ceiling("0.05 %, 10 MiB at most", 0.05, 10)),
        ("idle: a lone agent, 1,000 files", 1_000, ceiling("0.2 %, 16 MiB at most", 0.2, 16)),
        ("idle: a lone agent, 10,000 files", 10_000, ceiling("1 %, 64 MiB at most", 1.0, 64)),
    ] {
        let row = runtime.block_on(async {
            let mut agent = Lone::start(corpus, pki, gateway.address, &format!("idle-{files}"), files)?;
            tokio::time::sleep(SETTLING).await;
            agent.process.require_alive()?;
            whole::at_rest(name, agent.process.pid(), Some(ceiling)).await
        })?;
        row.print();
    }
    Ok(())
}

/// Prints the rows at a pace.
pub(crate) fn at_a_pace(corpus: &Corpus, pki: &Pki) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        steady(corpus, pki).await?.print();
        away(corpus, pki).await?.print();
        delays(corpus, pki).await?.print();
        size()?.print();
        Ok(())
    })
}

async fn steady(corpus: &Corpus, pki: &Pki) -> Result<Row> {
    let gateway = NullGateway::start(pki, None)?;
    let mut agent = Lone::start(corpus, pki, gateway.address, "steady", 0)?;
    let mut log = Log::create(&agent, corpus)?;
    let (percent, [_, mib]) = agent.under(&mut log, per_tick(STEADY)).await?;
    let floor = Some(("3 %, 20 MiB at most", percent <= 3.0 && mib <= 20));
    let figure = format!("{percent:.2} % of a core, {mib} MiB");
    Ok(Row { name: "a lone agent at 10 MB/s, zstd", figure, floor, ..Row::default() })
}

async fn away(corpus: &Corpus, pki: &Pki) -> Result<Row> {
    // A port on which nobody listens: it was free a moment ago.
    let nobody = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let mut agent = Lone::start(corpus, pki, nobody, "away", 0)?;
    let mut log = Log::create(&agent, corpus)?;
    let (percent, [before, after]) = agent.under(&mut log, per_tick(STEADY)).await?;
    let floor = Some(("2 % at most, memory flat", percent <= 2.0 && after <= before + 1));
    let figure = format!("{percent:.2} % of a core, {before} to {after} MiB");
    Ok(Row { name: "the same, and no gateway", figure, floor, ..Row::default() })
}

/// From the return of a write to the moment at which a gateway has handed its last line to the bus.
async fn delays(corpus: &Corpus, pki: &Pki) -> Result<Row> {
    let gateway = NullGateway::reporting(pki)?;
    let agent = Lone::start(corpus, pki, gateway.address, "delays", 0)?;
    let mut log = Log::create(&agent, corpus)?;
    let arrivals = gateway.arrivals();
    let line = corpus.bytes / corpus.lines;
    let bytes = per_tick(LINES * line);
    log.write_for(WARMING, bytes, &mut VecDeque::new()).await?;
    let mut written = VecDeque::new();
    log.write_for(WRITING, bytes, &mut written).await?;
    let mut delays = Vec::new();
    let mut arrived = 0;
    while arrived < log.written {
        let (end, at) = arrivals.recv_timeout(PATIENCE).context("the last line does not arrive")??;
        arrived = end;
        while let Some((_, write)) = written.front().copied().filter(|(write_end, _)| *write_end <= end) {
            written.pop_front();
            delays.push(at.duration_since(write).unwrap_or_default());
        }
    }
    delays.sort();
    ensure!(!delays.is_empty(), "nothing was measured");
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize];
    let floor = Some((
        "p50 5 ms, p99 25 ms at most",
        at(0.5) <= Duration::from_millis(5) && at(0.99) <= Duration::from_millis(25),
    ));
    let figure = format!("p50 {:.1} ms, p99 {:.1} ms", at(0.5).as_secs_f64() * 1e3, at(0.99).as_secs_f64() * 1e3);
    Ok(Row { name: "write to a gateway's sink at 10,000 lines/s", figure, floor, ..Row::default() })
}

/// The binary without symbols.
fn size() -> Result<Row> {
    let stripped = std::env::temp_dir().join(format!("logmesh-agent-stripped-{}", std::process::id()));
    let status = std::process::Command::new("strip")
        .arg("-o")
        .arg(&stripped)
        .arg(binary::agent()?)
        .status()
        .context("cannot run strip (binutils)")?;
    ensure!(status.success(), "strip ended with {status}");
    let bytes = std::fs::metadata(&stripped)?.len();
    std::fs::remove_file(&stripped)?;
    let figure = format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    Ok(Row { name: "the agent's binary, stripped", figure, ..Row::default() })
}

fn per_tick(bytes_per_second: u64) -> u64 {
    bytes_per_second * EVERY.as_millis() as u64 / 1000
}

/// A log that grows by whole lines of the corpus.
struct Log {
    file: File,
    lines: Vec<u8>,
    /// Place in `lines`.
    at: usize,
    written: u64,
}

/// Where each write ended, and when it returned.
type Writes = VecDeque<(u64, SystemTime)>;

impl Log {
    fn create(agent: &Lone, corpus: &Corpus) -> Result<Log> {
        let mut lines = vec![0; 16 << 20];
        std::os::unix::fs::FileExt::read_exact_at(&File::open(corpus.path())?, &mut lines, 0)?;
        let end = lines.iter().rposition(|byte| *byte == b'\n').context("a corpus without lines")?;
        lines.truncate(end + 1);
        Ok(Log { file: File::create(agent.logs.join("paced.log"))?, lines, at: 0, written: 0 })
    }

    /// Appends so many bytes, up to the end of a line, at each tick.
    async fn write_for(&mut self, time: Duration, bytes_per_tick: u64, writes: &mut Writes) -> Result<()> {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let first = self.written;
        for tick in 1..=time.as_millis() / EVERY.as_millis() {
            ticks.tick().await;
            let due = (first + u64::try_from(tick)? * bytes_per_tick).saturating_sub(self.written);
            self.append(usize::try_from(due)?)?;
            writes.push_back((self.written, SystemTime::now()));
        }
        Ok(())
    }

    fn append(&mut self, bytes: usize) -> Result<()> {
        if self.at + bytes >= self.lines.len() {
            self.at = 0;
        }
        let behind = &self.lines[self.at + bytes..];
        let end = self.at + bytes + behind.iter().position(|byte| *byte == b'\n').map_or(behind.len(), |end| end + 1);
        self.file.write_all(&self.lines[self.at..end])?;
        self.written += (end - self.at) as u64;
        self.at = end;
        Ok(())
    }
}

/// A time as it travels between two processes of one machine.
pub(crate) fn from_unix_nano(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}
