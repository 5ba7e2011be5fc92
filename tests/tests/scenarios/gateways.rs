//! Several gateways before one bus: agents move among them under load, and nothing is lost, doubled, or held up.
//!
//! In one process: real gateways, a real agent, real mTLS, the local bus; so that what is on the bus can be looked at.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use logmesh_agent::{Agent, FilesConfig};
use logmesh_bus::Bus;
use logmesh_bus::local::{LocalBus, LocalOptions};
use logmesh_certs::{Authority, Existing, Request, Role, TlsFiles, TlsSource, Validity};
use logmesh_gateway::{Gateway, PolicyRule};
use logmesh_proto::Envelope;
use logmesh_runtime::{Context, shutdown::Exit};
use logmesh_tests::counts::either;
use logmesh_tests::wait::{Look, wait_until};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What a stream may pause at most while its agent moves (DESIGN 7).
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// For everything to be on the bus once writing has ended.
const ARRIVED_WITHIN: Duration = Duration::from_secs(60);

/// Files that are written at a time.
const FILES: usize = 4;

/// Time between two writes to a file, and lines of each.
const EVERY: Duration = Duration::from_millis(10);
const LINES: u64 = 20;

/// Everything but the gateways.
struct Stage {
    directory: TempDir,
    authority: Authority,
    bus: Arc<LocalBus>,
}

/// One gateway at work.
struct Running {
    context: Context,
    address: SocketAddr,
    task: JoinHandle<Exit>,
}

/// Lines written without pause, on a thread of their own.
struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<Vec<u64>>>,
}

/// What the bus holds of one stream.
#[derive(Default)]
struct Stream {
    /// First and end offset of each batch, and when it was received.
    batches: Vec<(u64, u64, Duration)>,
}

impl Stage {
    fn new() -> Result<Stage> {
        let directory = tempfile::Builder::new().prefix("logmesh-gateways-").tempdir()?;
        std::fs::create_dir(directory.path().join("logs"))?;
        let authority = Authority::create("mesh", Validity::authority(SystemTime::now()))?;
        std::fs::write(directory.path().join("ca.pem"), authority.certificate_pem())?;
        let bus = Arc::new(LocalBus::open(LocalOptions::new(directory.path().join("bus")))?);
        Ok(Stage { directory, authority, bus })
    }

    fn logs(&self) -> PathBuf {
        self.directory.path().join("logs")
    }

    fn tls(&self, role: Role, name: &str) -> Result<Arc<TlsSource>> {
        let path = |suffix: &str| self.directory.path().join(format!("{name}{suffix}"));
        let (dns, ips) = (vec!["localhost".to_owned()], vec!["127.0.0.1".parse()?]);
        let validity = Validity::leaf(SystemTime::now());
        let issued = self.authority.issue(&Request { role, name: name.to_owned(), dns, ips, validity })?;
        let (cert, key) = (path(".pem"), path("-key.pem"));
        issued.save(&cert, &key, Existing::Replace)?;
        Ok(TlsSource::load(TlsFiles { cert, key, ca: self.directory.path().join("ca.pem"), crl: None })?)
    }

    async fn gateway(&self, name: &str, at: &str, session_age_max: Duration) -> Result<Running> {
        let listener = TcpListener::bind(at).await.with_context(|| format!("cannot listen on {at}"))?;
        let context = Context::for_tests();
        let rule = PolicyRule {
            identity: "spiffe://mesh/agent/*".to_owned(),
            tenant: "default".to_owned(),
            topics: vec!["logs".to_owned()],
            rate_limit: None,
        };
        let config = logmesh_gateway::Config { policy: vec![rule], session_age_max, ..Default::default() };
        let bus: Arc<dyn Bus> = self.bus.clone();
        let gateway = Gateway::new(config, self.tls(Role::Gateway, name)?, bus, context.clone())?;
        let address = listener.local_addr()?;
        Ok(Running { context, address, task: tokio::spawn(gateway.run(listener)) })
    }

    fn agent(&self, gateways: &[&Running]) -> Result<(Context, JoinHandle<Exit>)> {
        let context = Context::for_tests();
        let config = logmesh_agent::Config {
            data_dir: self.directory.path().join("agent"),
            gateways: gateways.iter().map(|gateway| gateway.address.to_string().parse()).collect::<Result<_, _>>()?,
            files: vec![FilesConfig {
                include: vec![format!("{}/*.log", self.logs().display())],
                ..FilesConfig::default()
            }],
            ..logmesh_agent::Config::default()
        };
        let agent = Agent::new(config, self.tls(Role::Agent, "edge-1")?, context.clone())?;
        Ok((context, tokio::spawn(agent.run())))
    }

    /// All that is on the bus, by stream.
    async fn streams(&self) -> Result<BTreeMap<String, Stream>> {
        let mut streams = BTreeMap::<String, Stream>::new();
        for range in self.bus.ranges(&["logs.default".to_owned()]).await? {
            let mut next = range.earliest;
            while next < range.end {
                let page = self.bus.read(&range.partition, next, 4 << 20).await?;
                let Some(last) = page.last() else { break };
                next = last.offset + 1;
                for delivered in &page {
                    let envelope = Envelope::from_headers(&delivered.record.headers)?;
                    let received = Duration::from_nanos(envelope.received_unix_nano);
                    let stream = streams.entry(envelope.info.path).or_default();
                    stream.batches.push((envelope.first_offset, envelope.end_offset, received));
                }
            }
        }
        Ok(streams)
    }

    /// Waits until the last byte of every file is on the bus, then checks that each byte is there once. Tells the longest
    /// pause of any stream.
    async fn settled(&self, written: &[u64]) -> Result<Duration> {
        wait_until("every byte is on the bus", ARRIVED_WITHIN, async || {
            let streams = self.streams().await?;
            let ends: Vec<u64> = streams.values().map(Stream::end).collect();
            Ok(if ends == written { Look::Holds(()) } else { Look::NotYet(format!("{ends:?} of {written:?}")) })
        })
        .await?;
        let mut longest = Duration::ZERO;
        for (path, stream) in &mut self.streams().await? {
            longest = longest.max(stream.check().with_context(|| path.clone())?);
        }
        Ok(longest)
    }
}

impl Running {
    /// Stops it in order and starts it again at the same address.
    async fn restart(self, stage: &Stage, name: &str, session_age_max: Duration) -> Result<Running> {
        self.context.shutdown.begin();
        let exit = self.task.await?;
        ensure!(exit == Exit::Clean, "{name} left batches unanswered: {exit:?}");
        stage.gateway(name, &self.address.to_string(), session_age_max).await
    }
}

impl Stream {
    fn end(&self) -> u64 {
        self.batches.iter().map(|(_, end, _)| *end).max().unwrap_or(0)
    }

    /// Every byte once, and how long the longest time between two batches was.
    fn check(&mut self) -> Result<Duration> {
        self.batches.sort_unstable();
        let mut next = 0;
        for (first, end, _) in &self.batches {
            ensure!(*first == next, "bytes {next} to {first} are missing or there twice");
            next = *end;
        }
        let mut received: Vec<Duration> = self.batches.iter().map(|(_, _, received)| *received).collect();
        received.sort_unstable();
        Ok(received.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default())
    }
}

impl Load {
    fn start(logs: &Path) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, logs) = (Arc::clone(&stop), logs.to_owned());
        let thread = std::thread::spawn(move || {
            let open = |number| File::create(logs.join(format!("{number}.log")));
            let mut files = (0..FILES).map(open).collect::<Result<Vec<File>, _>>()?;
            let (mut written, mut line) = (vec![0; FILES], 0_u64);
            while !ended.load(Ordering::Relaxed) {
                for (file, written) in files.iter_mut().zip(&mut written) {
                    let text: String =
                        (0..LINES).map(|n| format!("{:08} a line of a rolling restart\n", line + n)).collect();
                    file.write_all(text.as_bytes())?;
                    *written += text.len() as u64;
                }
                line += LINES;
                std::thread::sleep(EVERY);
            }
            Ok(written)
        });
        Load { stop, thread }
    }

    /// Bytes written to each file.
    fn stop(self) -> Result<Vec<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?
    }
}

fn sessions(agent: &Context) -> u64 {
    agent.status.snapshot()["agent"]["link"]["sessions"].as_u64().unwrap_or(0)
}

/// Waits until the agent has begun so many sessions.
async fn moved(agent: &Context, count: u64) -> Result<()> {
    wait_until("the agent moves", Duration::from_secs(30), async || {
        let begun = sessions(agent);
        Ok(if begun >= count { Look::Holds(()) } else { Look::NotYet(format!("{begun} of {count} sessions")) })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_all_gateways_under_load_neither_loses_doubles_nor_holds_up_a_line() -> Result<()> {
    let never = Duration::ZERO;
    let stage = Stage::new()?;
    // Each comes back where it was.
    let [first, second] = logmesh_rig::free_ports(2)?[..] else { anyhow::bail!("two ports") };
    let mut one = stage.gateway("gw-1", &format!("127.0.0.1:{first}"), never).await?;
    let mut other = stage.gateway("gw-2", &format!("127.0.0.1:{second}"), never).await?;
    let (agent, running) = stage.agent(&[&one, &other])?;
    let load = Load::start(&stage.logs());
    moved(&agent, 1).await?;
    for _ in 0..either(3, 20) {
        one = one.restart(&stage, "gw-1", never).await?;
        other = other.restart(&stage, "gw-2", never).await?;
    }
    let begun = sessions(&agent);
    let written = load.stop()?;
    let pause = stage.settled(&written).await?;
    println!("rolling restart: {begun} sessions, {} bytes, longest pause {pause:?}", written.iter().sum::<u64>());
    ensure!(begun > 3, "the agent was moved: {begun} sessions");
    ensure!(pause < PAUSE_MAX, "a stream paused for {pause:?}");
    agent.shutdown.begin();
    ensure!(running.await? == Exit::Clean, "the agent has everything acknowledged");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_move_by_age_again_and_again_neither_lose_nor_double_a_line() -> Result<()> {
    let age = Duration::from_millis(200);
    let stage = Stage::new()?;
    let gateways = [
        stage.gateway("gw-1", "127.0.0.1:0", age).await?,
        stage.gateway("gw-2", "127.0.0.1:0", age).await?,
        stage.gateway("gw-3", "127.0.0.1:0", age).await?,
    ];
    let (agent, running) = stage.agent(&gateways.each_ref())?;
    let load = Load::start(&stage.logs());
    moved(&agent, either(20, 200)).await?;
    let written = load.stop()?;
    let pause = stage.settled(&written).await?;
    println!("moves by age: {} sessions, longest pause {pause:?}", sessions(&agent));
    ensure!(pause < PAUSE_MAX, "a stream paused for {pause:?}");
    agent.shutdown.begin();
    ensure!(running.await? == Exit::Clean, "the agent has everything acknowledged");
    for gateway in gateways {
        gateway.context.shutdown.begin();
        ensure!(gateway.task.await? == Exit::Clean, "no gateway left a batch unanswered");
    }
    Ok(())
}
