//! A gateway on loopback with a mesh of its own, a bus in memory, and clients that speak the real protocol.

#![allow(unreachable_pub, reason = "a module of tests has no other crate to be reached from")]
#![allow(clippy::unwrap_used, reason = "what fails here fails its test")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use logmesh_bus::{
    AppendError, Bus, BusError, Condition, Consumer, Delivered, Delivery, DeliverySender, PartitionLag, PartitionRange,
    Position, Record, Subscription, TopicPartition,
};
use logmesh_certs::{Authority, Existing, Issued, Request, Role, TlsFiles, TlsSource, Validity};
use logmesh_gateway::{Config, Gateway, PolicyRule};
use logmesh_proto::v1::{self, client_frame, server_frame};
use logmesh_proto::{BatchMeta, Flags, RecordsBuilder, Sealer};
use logmesh_runtime::Context;
use logmesh_runtime::shutdown::Exit;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

pub const HOST: &str = "gw.test";
pub const DAY: Duration = Duration::from_secs(86_400);
/// Longer than anything here takes; a test that waits so long has failed.
pub const LONG: Duration = Duration::from_secs(20);

/// What the bus does with a record.
#[derive(Clone, Debug, Default)]
pub enum Mood {
    /// Durable at once.
    #[default]
    Prompt,
    /// Taken, and durable only when released.
    Holding,
    /// Refused by the delivery.
    Failing(AppendError),
    /// Not even taken.
    Stuck,
}

/// A bus in memory, with moods.
#[derive(Default)]
pub struct MemoryBus {
    pub records: Mutex<Vec<(String, Record)>>,
    pub mood: Mutex<Mood>,
    held: Mutex<Vec<DeliverySender>>,
    offsets: AtomicU64,
    pub appended: Notify,
    /// How it says that it fares.
    pub condition: watch::Sender<Condition>,
}

impl MemoryBus {
    pub fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Calls everything durable that was held, the newest first: acks may come in any order.
    pub fn release(&self) {
        for sender in self.held.lock().unwrap().drain(..).rev() {
            sender.resolve(Ok(Position { partition: 0, offset: self.offsets.fetch_add(1, Ordering::Relaxed) }));
        }
    }

    pub fn records(&self) -> Vec<(String, Record)> {
        self.records.lock().unwrap().clone()
    }

    /// Waits until so many records were appended.
    pub async fn wait_for(&self, count: usize) {
        let enough = async {
            loop {
                let appended = self.appended.notified();
                if self.records.lock().unwrap().len() >= count {
                    return;
                }
                appended.await;
            }
        };
        timeout(LONG, enough).await.expect("the records reach the bus");
    }
}

impl Bus for MemoryBus {
    fn append<'a>(&'a self, topic: &'a str, record: Record) -> BoxFuture<'a, Result<Delivery, AppendError>> {
        Box::pin(async move {
            let mood = self.mood.lock().unwrap().clone();
            if matches!(mood, Mood::Stuck) {
                std::future::pending::<()>().await;
            }
            if let Mood::Failing(error) = mood {
                return Ok(Delivery::ready(Err(error)));
            }
            self.records.lock().unwrap().push((topic.to_owned(), record));
            self.appended.notify_waiters();
            let (sender, delivery) = Delivery::channel();
            self.held.lock().unwrap().push(sender);
            if matches!(mood, Mood::Prompt) {
                self.release();
            }
            Ok(delivery)
        })
    }

    fn subscribe(&self, _: Subscription) -> BoxFuture<'_, Result<Box<dyn Consumer>, BusError>> {
        Box::pin(async { Err(BusError::Closed) })
    }

    fn lag(&self, _: &str) -> BoxFuture<'_, Result<Vec<PartitionLag>, BusError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn ranges(&self, _: &[String]) -> BoxFuture<'_, Result<Vec<PartitionRange>, BusError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn read(&self, _: &TopicPartition, _: u64, _: usize) -> BoxFuture<'_, Result<Vec<Delivered>, BusError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn condition(&self) -> watch::Receiver<Condition> {
        self.condition.subscribe()
    }

    fn close(&self, _: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A gateway that runs, and everything around it.
pub struct Bench {
    pub directory: tempfile::TempDir,
    pub authority: Authority,
    pub bus: Arc<MemoryBus>,
    pub context: Context,
    pub address: SocketAddr,
    pub tls: Arc<TlsSource>,
    pub running: JoinHandle<Exit>,
}

pub fn authority() -> Authority {
    Authority::create("mesh", Validity::authority(SystemTime::now())).unwrap()
}

pub fn request(role: Role, name: &str) -> Request {
    let dns = if role == Role::Gateway { vec![HOST.to_owned()] } else { Vec::new() };
    Request { role, name: name.to_owned(), dns, ips: Vec::new(), validity: Validity::leaf(SystemTime::now()) }
}

pub fn rule(identity: &str) -> PolicyRule {
    PolicyRule {
        identity: identity.to_owned(),
        tenant: "default".to_owned(),
        topics: vec!["logs".to_owned(), "audit".to_owned()],
        rate_limit: None,
    }
}

impl Bench {
    pub async fn new() -> Self {
        Self::with(|config| config.policy = vec![rule("spiffe://mesh/agent/*")]).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority();
        std::fs::write(directory.path().join("ca.pem"), authority.certificate_pem()).unwrap();
        std::fs::write(directory.path().join("crl.pem"), authority.crl(&[], SystemTime::now() - DAY).unwrap()).unwrap();
        let issued = authority.issue(&request(Role::Gateway, "gw-1")).unwrap();
        let mut files = save(directory.path(), "gw-1", &issued);
        files.crl = Some(directory.path().join("crl.pem"));
        let tls = TlsSource::load(files).unwrap();
        let bus = Arc::new(MemoryBus::default());
        let context = Context::for_tests();
        let mut config = Config { shutdown_grace: Duration::from_secs(3), ..Config::default() };
        change(&mut config);
        let gateway =
            Gateway::new(config, Arc::clone(&tls), Arc::clone(&bus) as Arc<dyn Bus>, context.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let running = tokio::spawn(gateway.run(listener));
        Self { directory, authority, bus, context, address, tls, running }
    }

    pub fn issue(&self, name: &str) -> Arc<TlsSource> {
        let issued = self.authority.issue(&request(Role::Agent, name)).unwrap();
        self.load(name, &issued)
    }

    pub fn load(&self, name: &str, issued: &Issued) -> Arc<TlsSource> {
        TlsSource::load(save(self.directory.path(), name, issued)).unwrap()
    }

    pub async fn channel(&self, tls: Arc<rustls::ClientConfig>) -> Result<Channel, tonic::transport::Error> {
        connect(self.address, tls).await
    }

    /// A session of an agent, past Hello and Welcome.
    pub async fn session(&self, name: &str) -> Client {
        let channel = self.channel(self.issue(name).client()).await.unwrap();
        Client::open(channel).await.unwrap().greeted().await
    }

    /// Asks the gateway to stop, and waits for it.
    pub async fn stop(self) -> (Exit, Duration) {
        let begun = std::time::Instant::now();
        self.context.shutdown.begin();
        let exit = timeout(LONG, self.running).await.expect("the gateway stops").unwrap();
        (exit, begun.elapsed())
    }
}

fn save(directory: &Path, name: &str, issued: &Issued) -> TlsFiles {
    let path = |suffix: &str| directory.join(format!("{name}{suffix}"));
    let files = TlsFiles { cert: path(".pem"), key: path("-key.pem"), ca: directory.join("ca.pem"), crl: None };
    issued.save(&files.cert, &files.key, Existing::Replace).unwrap();
    files
}

pub async fn connect(address: SocketAddr, tls: Arc<rustls::ClientConfig>) -> Result<Channel, tonic::transport::Error> {
    let connector = tower::service_fn(move |_: http::Uri| {
        let tls = Arc::clone(&tls);
        async move {
            let socket = TcpStream::connect(address).await?;
            let name = rustls::pki_types::ServerName::try_from(HOST).unwrap();
            let stream = tokio_rustls::TlsConnector::from(tls).connect(name, socket).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://gw.test")
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .connect_with_connector(connector)
        .await
}

/// A client of the protocol, as simple as can be.
pub struct Client {
    frames: mpsc::Sender<v1::ClientFrame>,
    answers: Streaming<v1::ServerFrame>,
    sealer: Sealer,
    sequence: u64,
    pub welcome: Option<v1::Welcome>,
}

impl Client {
    pub async fn open(channel: Channel) -> Result<Self, Status> {
        let (frames, receiver) = mpsc::channel(16);
        let mut client = v1::ingest_client::IngestClient::new(channel);
        let answers = client.stream(tokio_stream::wrappers::ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Self { frames, answers, sealer: Sealer::new(v1::Codec::Zstd).unwrap(), sequence: 0, welcome: None })
    }

    pub async fn greeted(mut self) -> Self {
        self.send(client_frame::Frame::Hello(hello(b"0123456789abcdef"))).await;
        let server_frame::Frame::Welcome(welcome) = self.answer().await else { panic!("no Welcome") };
        self.welcome = Some(welcome);
        self
    }

    pub async fn send(&self, frame: client_frame::Frame) {
        // A gateway that ended the session has dropped the other end.
        let _ = self.frames.send(v1::ClientFrame { frame: Some(frame) }).await;
    }

    /// The next answer but credits, which come when they like.
    pub async fn answer(&mut self) -> server_frame::Frame {
        loop {
            let frame = timeout(LONG, self.answers.message())
                .await
                .expect("an answer")
                .unwrap()
                .expect("no end")
                .frame
                .unwrap();
            if !matches!(frame, server_frame::Frame::Credit(_)) {
                return frame;
            }
        }
    }

    /// How the session ends, whatever comes before.
    pub async fn end(&mut self) -> Status {
        loop {
            match timeout(LONG, self.answers.message()).await.expect("an end") {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }

    pub async fn ack(&mut self) -> Vec<u64> {
        let answer = self.answer().await;
        let server_frame::Frame::Ack(ack) = answer else { panic!("no Ack: {answer:?}") };
        ack.sequences
    }

    pub async fn nack(&mut self) -> v1::Nack {
        let answer = self.answer().await;
        let server_frame::Frame::Nack(nack) = answer else { panic!("no Nack: {answer:?}") };
        nack
    }

    /// Nothing comes for a while.
    pub async fn silence(&mut self) {
        let answer = timeout(Duration::from_millis(200), self.answers.message()).await;
        assert!(answer.is_err(), "{answer:?}");
    }

    pub async fn batch(&mut self, batch: v1::Batch) -> u64 {
        self.sequence += 1;
        self.send(client_frame::Frame::Batch(v1::Batch { sequence: self.sequence, ..batch })).await;
        self.sequence
    }

    /// Ends the sending side.
    pub async fn finish(&mut self) -> Status {
        let (closed, _) = mpsc::channel(1);
        self.frames = closed;
        self.end().await
    }

    pub fn seal(&mut self, stream: &str, first_offset: u64, lines: &[&str]) -> v1::Batch {
        let mut records = RecordsBuilder::new();
        let mut length = 0;
        for line in lines {
            let source = u32::try_from(line.len()).unwrap() + 1;
            records.push(line.as_bytes(), source);
            length += u64::from(source);
        }
        let meta = BatchMeta {
            stream_id: stream.to_owned().into(),
            first_offset,
            end_offset: first_offset + length,
            observed_unix_nano: 1,
            flags: Flags::NONE,
        };
        self.sealer.seal(meta, &mut records).unwrap()
    }

    /// A batch of ten bytes of source, with the stream's description.
    pub fn simple(&mut self, stream: &str, first_offset: u64) -> v1::Batch {
        v1::Batch { info: Some(info("")), ..self.seal(stream, first_offset, &["ninebytes"]) }
    }
}

pub fn hello(instance: &'static [u8]) -> v1::Hello {
    v1::Hello { protocol_version: 1, software: "test/1".to_owned(), instance: instance.into(), ..Default::default() }
}

pub fn info(topic: &str) -> v1::StreamInfo {
    v1::StreamInfo { path: "/var/log/a.log".to_owned(), topic: topic.to_owned(), ..Default::default() }
}

/// A client that was not careful: it presents what it is given, whatever the gateway hints at, and trusts the mesh's CA.
pub fn careless(issued: Option<&Issued>, trusted: &Authority) -> Arc<rustls::ClientConfig> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.certificate_pem().as_bytes()).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match issued {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let chain = vec![CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
            let key = rustls::sign::CertifiedKey::from_der(chain, key, &provider).unwrap();
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Everything that this test program logs. Lines of other tests are in it as well, so look for what is yours alone.
pub fn log() -> Arc<Mutex<Vec<u8>>> {
    static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    Arc::clone(LOG.get_or_init(|| {
        let log = Arc::new(Mutex::new(Vec::new()));
        let writer = Writer(Arc::clone(&log));
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_env_filter("info")
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        log
    }))
}

/// The lines that hold all of `parts`.
pub fn logged(parts: &[&str]) -> Vec<String> {
    let text = String::from_utf8(log().lock().unwrap().clone()).unwrap();
    text.lines().filter(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned).collect()
}

#[derive(Clone)]
struct Writer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
