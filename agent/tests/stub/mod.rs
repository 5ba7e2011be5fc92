//! A gateway that keeps what it gets in memory, over real mTLS.
#![allow(clippy::unwrap_used, reason = "a stub that fails fails its test")]
#![allow(dead_code, reason = "not every test uses all of the stub")]

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use logmesh_certs::{Authority, Request, Role, TlsFiles, TlsSource, Validity};
use logmesh_proto::{
    ClientFrame, Flags, Limits, Opener, check,
    ingest_server::{Ingest, IngestServer},
    v1::{self, server_frame::Frame},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Response, Status, Streaming};

/// A CA, a gateway's and an agent's certificate.
pub(crate) struct Mesh {
    directory: tempfile::TempDir,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        let now = SystemTime::now();
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create("mesh", Validity::authority(now)).unwrap();
        authority.save(directory.path()).unwrap();
        for (role, name) in [(Role::Agent, "edge-1"), (Role::Gateway, "gw-1")] {
            let request = Request {
                role,
                name: name.into(),
                dns: vec!["localhost".into()],
                ips: vec!["127.0.0.1".parse().unwrap()],
                validity: Validity::leaf(now),
            };
            let issued = authority.issue(&request).unwrap();
            std::fs::write(directory.path().join(format!("{name}.pem")), issued.cert_pem).unwrap();
            let key = directory.path().join(format!("{name}-key.pem"));
            std::fs::write(&key, issued.key_pem).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&key, mode).unwrap();
        }
        Self { directory }
    }

    fn files(&self, name: &str) -> TlsFiles {
        let path = |file: String| self.directory.path().join(file);
        TlsFiles {
            cert: path(format!("{name}.pem")),
            key: path(format!("{name}-key.pem")),
            ca: path("ca.pem".into()),
            crl: None,
        }
    }

    pub(crate) fn agent_files(&self) -> TlsFiles {
        self.files("edge-1")
    }

    pub(crate) fn agent(&self) -> Arc<TlsSource> {
        TlsSource::load(self.agent_files()).unwrap()
    }
}

/// What makes a batch the same batch.
pub(crate) type BatchFacts = (Vec<u8>, u64, u64, u64, u32);

/// A record as it arrived, by its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) stream: Vec<u8>,
    pub(crate) offset: u64,
    pub(crate) body: Vec<u8>,
    /// The marks of its batch that are about this record.
    pub(crate) flags: Flags,
}

#[derive(Default)]
struct Kept {
    records: BTreeMap<(Vec<u8>, u64), Vec<u8>>,
    /// Resends that hold something else than what is known at their place: to an index they are other documents.
    others: Vec<Arrived>,
    /// Marks of those records that have any.
    marks: BTreeMap<(Vec<u8>, u64), Flags>,
    /// Every path under which a stream was introduced.
    paths: BTreeMap<Vec<u8>, BTreeSet<String>>,
    /// Connections are closed as they come.
    down: bool,
    batches: Vec<BatchFacts>,
    deliveries: usize,
    sessions: usize,
    hold_acks: bool,
    cut_after: Option<usize>,
    /// Streams are refused, with this many milliseconds to stay away.
    refuses: Option<u32>,
    refusals: usize,
    /// When sessions began and ended, in order.
    life: Vec<(&'static str, Instant)>,
    arrivals: Vec<Instant>,
}

#[derive(Clone)]
pub(crate) struct StubGateway {
    kept: Arc<Mutex<Kept>>,
    count: watch::Sender<usize>,
    drain: watch::Sender<Option<v1::Drain>>,
    /// Acks that are held back, told once they are not any more.
    release: watch::Sender<u64>,
    /// Connections under way are cut when it changes.
    cut: watch::Sender<u64>,
    port: u16,
}

impl StubGateway {
    pub(crate) async fn start(mesh: &Mesh) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stub = Self {
            kept: Arc::default(),
            count: watch::channel(0).0,
            drain: watch::channel(None).0,
            release: watch::channel(0).0,
            cut: watch::channel(0).0,
            port,
        };
        let tls = TlsSource::load(mesh.files("gw-1")).unwrap();
        let service = stub.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if service.kept.lock().unwrap().down {
                    continue;
                }
                let mut cut = service.cut.subscribe();
                let acceptor = tokio_rustls::TlsAcceptor::from(tls.server());
                let routes = tonic::service::Routes::new(IngestServer::new(service.clone(), 8 << 20)).prepare();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    builder.max_frame_size(256 * 1024).initial_stream_window_size(4 << 20);
                    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
                    tokio::select! {
                        _ = serving => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        stub
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("localhost:{}", self.port)
    }

    pub(crate) async fn wait_for(&self, records: usize) {
        let mut count = self.count.subscribe();
        let arrived = tokio::time::timeout(Duration::from_secs(20), count.wait_for(|count| *count >= records)).await;
        assert!(arrived.is_ok(), "{} of {records} records came: {:?}", self.bodies().len(), self.bodies());
    }

    pub(crate) fn bodies(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap();
        let mut bodies: Vec<String> =
            kept.records.values().map(|body| String::from_utf8_lossy(body).into_owned()).collect();
        bodies.sort();
        bodies
    }

    pub(crate) fn batches(&self) -> Vec<BatchFacts> {
        let mut batches = self.kept.lock().unwrap().batches.clone();
        batches.sort();
        batches.dedup();
        batches
    }

    pub(crate) fn deliveries(&self) -> usize {
        self.kept.lock().unwrap().deliveries
    }

    pub(crate) fn sessions(&self) -> usize {
        self.kept.lock().unwrap().sessions
    }

    pub(crate) fn hold_acks(&self, hold: bool) {
        self.kept.lock().unwrap().hold_acks = hold;
    }

    /// Asks the sessions under way to leave.
    pub(crate) fn drain(&self, avoid_millis: u32, deadline_millis: u32) {
        let drain = v1::Drain { reason: "a test".into(), avoid_millis, deadline_millis };
        self.drain.send_replace(Some(drain));
    }

    /// Holds no acks back any more, and gives those that were.
    pub(crate) fn release_acks(&self) {
        self.kept.lock().unwrap().hold_acks = false;
        self.release.send_modify(|release| *release += 1);
    }

    /// Refuses new streams, asking to stay away for so long; `None` takes them again.
    pub(crate) fn refuse(&self, pushback_millis: Option<u32>) {
        self.kept.lock().unwrap().refuses = pushback_millis;
    }

    pub(crate) fn refusals(&self) -> usize {
        self.kept.lock().unwrap().refusals
    }

    pub(crate) fn life(&self) -> Vec<(&'static str, Instant)> {
        self.kept.lock().unwrap().life.clone()
    }

    pub(crate) fn arrivals(&self) -> Vec<Instant> {
        self.kept.lock().unwrap().arrivals.clone()
    }

    pub(crate) fn live_sessions(&self) -> usize {
        let life = self.life();
        let of = |what| life.iter().filter(|(word, _)| *word == what).count();
        of("begun") - of("ended")
    }

    /// Cuts all connections as a process does that ends, and takes no new ones until [`Self::come_back`].
    pub(crate) fn go_down(&self) {
        self.kept.lock().unwrap().down = true;
        self.cut.send_modify(|cut| *cut += 1);
    }

    pub(crate) fn come_back(&self) {
        self.kept.lock().unwrap().down = false;
    }

    /// How many records there are, each identity once.
    pub(crate) fn count(&self) -> usize {
        *self.count.borrow()
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        let kept = self.kept.lock().unwrap();
        let arrived = |(identity, body): (&(Vec<u8>, u64), &Vec<u8>)| Arrived {
            stream: identity.0.clone(),
            offset: identity.1,
            body: body.clone(),
            flags: kept.marks.get(identity).copied().unwrap_or(Flags::NONE),
        };
        kept.records.iter().map(arrived).chain(kept.others.iter().cloned()).collect()
    }

    /// Every path under which each stream was introduced.
    pub(crate) fn paths(&self) -> BTreeMap<Vec<u8>, BTreeSet<String>> {
        self.kept.lock().unwrap().paths.clone()
    }

    fn note(&self, what: &'static str) {
        self.kept.lock().unwrap().life.push((what, Instant::now()));
    }

    /// Cuts the first session after so many batches.
    pub(crate) fn cut_after(&self, batches: usize) {
        self.kept.lock().unwrap().cut_after = Some(batches);
    }

    fn keep(&self, batch: &v1::Batch, opener: &mut Opener) -> bool {
        check(batch, &Limits::default()).unwrap();
        let opened = opener.open(batch).unwrap();
        let mut kept = self.kept.lock().unwrap();
        if let Some(info) = &batch.info {
            kept.paths.entry(batch.stream_id.to_vec()).or_default().insert(info.path.clone());
        }
        for (at, record) in opened.records().enumerate() {
            let key = (batch.stream_id.to_vec(), record.offset);
            kept.deliveries += 1;
            let marks = marks(batch.flags, at == 0, at + 1 == opened.len());
            let before = kept.records.get(&key).filter(|before| before[..] != record.body[..]);
            if before.is_some() && marks.contains(Flags::RESEND) {
                let (stream, offset) = key;
                let other = Arrived { stream, offset, body: record.body.to_vec(), flags: marks };
                if !kept.others.contains(&other) {
                    kept.others.push(other);
                }
                continue;
            }
            if marks != Flags::NONE {
                kept.marks.entry(key.clone()).or_insert(marks);
            }
            if let Some(before) = kept.records.insert(key, record.body.to_vec()) {
                assert_eq!(before, record.body, "the same place holds the same bytes");
            }
        }
        kept.arrivals.push(Instant::now());
        kept.batches.push((
            batch.stream_id.to_vec(),
            batch.first_offset,
            batch.end_offset,
            batch.observed_time_unix_nano,
            batch.flags,
        ));
        self.count.send_replace(kept.records.len() + kept.others.len());
        !kept.hold_acks
    }
}

/// Of a batch's marks those that are about its first, its last or one of its other records.
fn marks(flags: u32, first: bool, last: bool) -> Flags {
    let about = |holds: bool, marks: Flags| if holds { flags & marks.bits() } else { 0 };
    let of_first = about(first, Flags::FIRST_CONTINUED);
    let of_last = about(last, Flags::LAST_PARTIAL.union(Flags::LAST_SPLIT));
    Flags::from_bits(of_first | of_last | about(true, Flags::RESEND))
}

#[tonic::async_trait]
impl Ingest for StubGateway {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<v1::ServerFrame, Status>> + Send>>;

    async fn stream(
        &self,
        request: tonic::Request<Streaming<ClientFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let mut frames = request.into_inner();
        let (sender, receiver) = mpsc::channel(64);
        let stub = self.clone();
        let mut cut = {
            let mut kept = stub.kept.lock().unwrap();
            if let Some(millis) = kept.refuses {
                kept.refusals += 1;
                let mut status = Status::unavailable("the gateway is shutting down");
                status.metadata_mut().insert("grpc-retry-pushback-ms", millis.to_string().parse().unwrap());
                return Err(status);
            }
            kept.sessions += 1;
            kept.cut_after.take()
        };
        tokio::spawn(async move {
            stub.note("begun");
            stub.session(&mut frames, &sender, &mut cut).await;
            stub.note("ended");
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

type Answers = mpsc::Sender<Result<v1::ServerFrame, Status>>;

impl StubGateway {
    async fn session(&self, frames: &mut Streaming<ClientFrame>, sender: &Answers, cut: &mut Option<usize>) {
        let send = |frame| sender.send(Ok(v1::ServerFrame { frame: Some(frame) }));
        let welcome = v1::Welcome {
            protocol_version: 1,
            software: "stub".into(),
            session: "s".into(),
            identity: "spiffe://mesh/agent/edge-1".into(),
            codecs: vec![v1::Codec::Zstd.into(), v1::Codec::Snappy.into(), v1::Codec::None.into()],
            batch_encoded_bytes_max: 640 * 1024,
            batch_uncompressed_bytes_max: 1024 * 1024,
            batch_records_max: 10_000,
            credit_bytes: 4 << 20,
            idle_timeout_millis: 0,
        };
        let _ = send(Frame::Welcome(welcome)).await;
        let mut opener = Opener::new(Limits::default());
        let (mut drain, mut release) = (self.drain.subscribe(), self.release.subscribe());
        let mut held = Vec::new();
        loop {
            let frame = tokio::select! {
                frame = frames.message() => frame,
                _ = drain.changed() => {
                    let asked = drain.borrow_and_update().clone();
                    if let Some(asked) = asked {
                        let _ = send(Frame::Drain(asked)).await;
                    }
                    continue;
                }
                _ = release.changed() => {
                    let _ = send(Frame::Ack(v1::Ack { sequences: std::mem::take(&mut held) })).await;
                    continue;
                }
            };
            let Ok(Some(frame)) = frame else { return };
            let ClientFrame::Batch(raw) = frame else { continue };
            if let Some(left) = cut {
                if *left == 0 {
                    let _ = sender.send(Err(Status::unavailable("cut off"))).await;
                    return;
                }
                *left -= 1;
            }
            if self.keep(&raw.batch, &mut opener) {
                let _ = send(Frame::Ack(v1::Ack { sequences: vec![raw.batch.sequence] })).await;
            } else {
                held.push(raw.batch.sequence);
            }
        }
    }
}
