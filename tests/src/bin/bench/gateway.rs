//! The gateway alone: real TLS and sessions, and a bus that takes everything and keeps nothing.
//!
//! It runs in a process of its own (this program, told so by a hidden flag), so that its processor time is its own and
//! that of whoever sends to it is theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::BoxFuture;
use logmesh_bus::{
    AppendError, Bus, BusError, Consumer, Delivered, Delivery, PartitionLag, PartitionRange, Position, Record,
    Subscription, TopicPartition,
};
use logmesh_certs::{Authority, Existing, Request, Role, TlsFiles, TlsSource, Validity};
use logmesh_gateway::{Config, Gateway, PolicyRule};
use logmesh_proto::{Envelope, v1};
use logmesh_runtime::Context;
use logmesh_tests::mesh::Pass;
use logmesh_tests::session::Session;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;

use crate::batches::{cut, raw_bytes};
use crate::clock::cpu_of;
use crate::corpus::Corpus;
use crate::lone::from_unix_nano;
use crate::table::{Cost, megabytes};

/// Name of the mesh.
const MESH: &str = "bench";

/// What the child says when all has arrived.
const DONE: &str = "done";

/// Arrivals that wait to be looked at: more than there are in a minute.
const ARRIVALS_MAX: usize = 1 << 16;

/// Raw bytes that are sent through.
const RAW_BYTES: u64 = 8 << 30;

/// Floor, in raw bytes per core second.
const FLOOR: f64 = 0.6e9;

/// The certificates of one gateway and one agent.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    directory: PathBuf,
}

/// A gateway with a null bus in a child process. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct NullGateway {
    child: Child,
    said: BufReader<ChildStdout>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Pki {
    /// Makes a CA and both certificates.
    pub(crate) fn make(directory: &Path) -> Result<Pki> {
        let now = SystemTime::now();
        let authority = Authority::create(MESH, Validity::authority(now))?;
        authority.save(directory)?;
        let pki = Pki { directory: directory.to_path_buf() };
        for (role, ips) in [(Role::Gateway, vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]), (Role::Agent, Vec::new())] {
            let name = String::from("bench");
            let request = Request { role, name, dns: Vec::new(), ips, validity: Validity::leaf(now) };
            let files = pki.files(role);
            authority.issue(&request)?.save(&files.cert, &files.key, Existing::Replace)?;
        }
        Ok(pki)
    }

    /// The files of one side.
    pub(crate) fn files(&self, role: Role) -> TlsFiles {
        let name = if role == Role::Gateway { "gateway" } else { "agent" };
        TlsFiles {
            cert: self.directory.join(format!("{name}.pem")),
            key: self.directory.join(format!("{name}-key.pem")),
            ca: self.directory.join("ca.pem"),
            crl: None,
        }
    }
}

impl NullGateway {
    /// Starts it. It says when so many bytes of its clients' sources have reached the bus.
    pub(crate) fn start(pki: &Pki, until: Option<u64>) -> Result<NullGateway> {
        Self::spawn(pki, until.map(|bytes| format!("--until={bytes}")))
    }

    /// Starts it. It says of every batch where it ends and when it arrived.
    pub(crate) fn reporting(pki: &Pki) -> Result<NullGateway> {
        Self::spawn(pki, Some(String::from("--report")))
    }

    fn spawn(pki: &Pki, argument: Option<String>) -> Result<NullGateway> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--null-gateway")
            .arg(&pki.directory)
            .args(argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        let address = line.trim().parse().with_context(|| format!("the gateway said {line:?}"))?;
        Ok(NullGateway { child, said, address })
    }

    /// Blocks until it says that all bytes have reached the bus.
    pub(crate) fn done(&mut self) -> Result<()> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        ensure!(line.trim() == DONE, "the gateway said {line:?}");
        Ok(())
    }

    /// What it says of every batch, taken as it comes: where it ended in its source, and when it arrived. A gateway that
    /// finds nobody to take what it says would take no more batches.
    pub(crate) fn arrivals(mut self) -> mpsc::Receiver<Result<(u64, SystemTime)>> {
        let (sender, arrivals) = mpsc::sync_channel(ARRIVALS_MAX);
        std::thread::spawn(move || while sender.send(self.arrival()).is_ok() {});
        arrivals
    }

    fn arrival(&mut self) -> Result<(u64, SystemTime)> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        let (end, nanos) = line.trim().split_once(' ').with_context(|| format!("the gateway said {line:?}"))?;
        Ok((end.parse()?, from_unix_nano(nanos.parse()?)))
    }

    /// Its processor time so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu_of(i32::try_from(self.child.id())?)
    }
}

impl Drop for NullGateway {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child: serves until standard input ends.
pub(crate) fn serve(directory: &Path, until: Option<u64>, report: bool) -> Result<()> {
    let pki = Pki { directory: directory.to_path_buf() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?);
        let rule = PolicyRule {
            identity: format!("spiffe://{MESH}/agent/*"),
            tenant: String::from("default"),
            topics: vec![String::from("logs")],
            rate_limit: None,
        };
        let config = Config { policy: vec![rule], ..Config::default() };
        let tls = TlsSource::load(pki.files(Role::Gateway))?;
        let context = Context::for_tests();
        let shutdown = context.shutdown.clone();
        let gateway = Gateway::new(config, tls, Arc::new(NullBus { until, report, ..NullBus::default() }), context)?;
        let parent = tokio::task::spawn_blocking(move || {
            let _ = std::io::stdin().read(&mut [0]);
            shutdown.begin();
        });
        gateway.run(listener).await;
        Ok(parent.await?)
    })
}

/// Sends batches as fast as the gateway takes them.
pub(crate) fn measure(corpus: &Corpus, pki: &Pki, scan_limit: f64) -> Result<()> {
    let gateway = NullGateway::start(pki, None)?;
    let batches: Vec<v1::Batch> = cut(corpus, 4, v1::Codec::Zstd)?.into_iter().map(|(_, batch)| batch).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (cpu, wall) = (gateway.cpu()?, Instant::now());
    let (bytes, lines) = runtime.block_on(send(gateway.address, &pki.files(Role::Agent), &batches, RAW_BYTES))?;
    let cost = Cost { bytes, lines, cpu: gateway.cpu()? - cpu, wall: wall.elapsed() };
    let mut row = cost.row("gateway: zstd batches to a null bus");
    let share = batches.iter().map(|batch| batch.payload.len() as f64).sum::<f64>() / raw_bytes(&batches) as f64;
    row.figure = format!("{}; {} encoded", row.figure, megabytes(cost.bytes_per_second() * share));
    row.of_limit = Some((cost.bytes_per_core() / scan_limit, "reading and finding lines"));
    row.floor = Some(("0.6 GB/s per core", cost.bytes_per_core() >= FLOOR));
    row.print();
    Ok(())
}

/// Sends batches again and again, in one session, until they stand for so many bytes of log, and waits for their
/// acknowledgements. Answers bytes and lines.
pub(crate) async fn send(
    gateway: SocketAddr,
    files: &TlsFiles,
    batches: &[v1::Batch],
    raw_bytes: u64,
) -> Result<(u64, u64)> {
    let pass = Pass {
        certificate: CertificateDer::from_pem_file(&files.cert)?,
        key: PrivateKeyDer::from_pem_file(&files.key)?,
    };
    let ca = CertificateDer::from_pem_file(&files.ca)?;
    let mut session = Session::open(gateway, ca, Some(pass)).await?;
    let mut credit = session.welcome().credit_bytes;
    let mut in_flight: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut bytes, mut lines, mut flying) = (0, 0, 0);
    let mut told = BTreeSet::new();
    let mut next = batches.iter().cycle();
    while bytes < raw_bytes || !in_flight.is_empty() {
        while bytes < raw_bytes && (in_flight.is_empty() || flying < credit) {
            let mut batch = next.next().context("no batches")?.clone();
            if told.insert(batch.stream_id.clone()) {
                batch.info = Some(v1::StreamInfo { path: String::from("bench"), ..v1::StreamInfo::default() });
            }
            bytes += batch.end_offset - batch.first_offset;
            lines += u64::from(batch.record_count);
            let size = batch.payload.len() as u64 + 64;
            flying += size;
            in_flight.insert(session.send_batch(batch).await?, size);
        }
        match session.next().await?.frame {
            Some(v1::server_frame::Frame::Ack(ack)) => {
                flying -= ack.sequences.iter().filter_map(|sequence| in_flight.remove(sequence)).sum::<u64>();
            }
            Some(v1::server_frame::Frame::Credit(limit)) => credit = limit.limit_bytes,
            Some(v1::server_frame::Frame::Nack(nack)) => bail!("refused: {nack:?}"),
            Some(v1::server_frame::Frame::Drain(_) | v1::server_frame::Frame::Welcome(_)) | None => {}
        }
    }
    ensure!(lines > 0, "nothing was sent");
    Ok((bytes, lines))
}

/// Takes everything and keeps nothing.
#[derive(Debug, Default)]
struct NullBus {
    offset: AtomicU64,
    /// Bytes of the clients' sources so far; counted only where somebody waits for them.
    bytes: AtomicU64,
    until: Option<u64>,
    /// Whether every batch is told with its end and its time.
    report: bool,
}

impl NullBus {
    /// Counts the source bytes of a record and says when there are enough. Nothing is sent twice in a measurement.
    fn count(&self, record: &Record) {
        if self.until.is_none() && !self.report {
            return;
        }
        let Ok(envelope) = Envelope::from_headers(&record.headers) else { return };
        if self.report {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            println!("{} {}", envelope.end_offset, now.as_nanos());
        }
        let Some(until) = self.until else { return };
        let bytes = envelope.end_offset - envelope.first_offset;
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= until {
            println!("{DONE}");
        }
    }
}

impl Bus for NullBus {
    fn append<'a>(&'a self, _topic: &'a str, record: Record) -> BoxFuture<'a, Result<Delivery, AppendError>> {
        self.count(&record);
        let offset = self.offset.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(Delivery::ready(Ok(Position { partition: 0, offset })))))
    }

    fn subscribe(&self, _: Subscription) -> BoxFuture<'_, Result<Box<dyn Consumer>, BusError>> {
        Box::pin(std::future::ready(Err(BusError::Closed)))
    }

    fn lag(&self, _group: &str) -> BoxFuture<'_, Result<Vec<PartitionLag>, BusError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn ranges(&self, _topics: &[String]) -> BoxFuture<'_, Result<Vec<PartitionRange>, BusError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn read(
        &self,
        _partition: &TopicPartition,
        _from: u64,
        _bytes_max: usize,
    ) -> BoxFuture<'_, Result<Vec<Delivered>, BusError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn close(&self, _grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
