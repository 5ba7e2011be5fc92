//! A cluster that is told something wrong: it says so in plain words, is not ready, loses nothing, and goes on by itself
//! once that is cured.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use logmesh_rig::{Credentials, Elasticsearch, SearchServer, SecureKafka};
use logmesh_tests::cluster::{Cluster, Layout, Role, Service};
use logmesh_tests::index_server;
use logmesh_tests::scene::{Scene, scenario};
use logmesh_tests::wait::{Look, SLACK, wait_until};
use logmesh_tests::writer::{Stamp, Writer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet, block_in_place};
use tokio_rustls::TlsConnector;

/// From the start, or from a fault, to a reason at `/readyz`.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// Twice the greatest back-off.
const RESUMED_WITHIN: Duration = Duration::from_secs(20);

/// Lines that are written before a refusal, during it, and after it.
const LINES: u64 = 500;

/// What only a programmer understands.
const JARGON: [&str; 9] =
    ["Some(", "Err(", "Error {", "Os {", "kind:", "rdkafka", "::", "UnknownIssuer", "ssl.ca.location"];

const GATEWAY: Role = Role::Gateway(0);
const PROCESSOR: Role = Role::Processor(0);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_for_the_brokers_is_said_and_cured_by_the_right_one() {
    scenario(async |scene| {
        let (kafka, server) = servers();
        let password = scene.write("kafka-password", "wrong\n")?;
        let bus = bus_with(kafka, &password, &kafka.ca());
        let mut story = Story::begin(scene, bus, index_server::toml(server, scene)?, &[]).await?;
        let words = ["the brokers refuse our credentials", "check `sasl`"];
        story.says(GATEWAY, &words).await?;
        story.says(PROCESSOR, &words).await?;
        std::fs::write(&password, SecureKafka::PASSWORD)?;
        story.is_cured("wrong SASL password").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_authorities_are_said_and_cured_by_the_right_ones() {
    scenario(async |scene| {
        let (kafka, server) = servers();
        let password = scene.write("kafka-password", SecureKafka::PASSWORD)?;
        // For both an authority that signed neither.
        let (brokers, index) = (scene.path("brokers-ca.pem"), scene.path("index-ca.pem"));
        std::fs::copy(kafka.other_ca(), &brokers)?;
        std::fs::copy(kafka.other_ca(), &index)?;
        let toml = index_server::toml(server, scene)?;
        let toml = toml.replace(&server.ca().display().to_string(), &index.display().to_string());
        let mut story = Story::begin(scene, bus_with(kafka, &password, &brokers), toml, &[]).await?;
        let words = ["TLS with the brokers fails", "not signed by an authority in `tls.ca`", "check `tls`"];
        story.says(GATEWAY, &words).await?;
        story.says(PROCESSOR, &words).await?;
        story.says(PROCESSOR, &[&server.url(), "not signed by an authority", "`tls.ca` in [index]"]).await?;
        std::fs::copy(kafka.ca(), &brokers)?;
        std::fs::copy(server.ca(), &index)?;
        story.is_cured("wrong CA").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_hosts_among_the_brokers_cost_nothing() {
    scenario(async |scene| {
        let (kafka, server) = servers();
        // One that takes connections and never answers, and one whose name nobody knows.
        let mute = TcpListener::bind("127.0.0.1:0").await?;
        let brokers = ["gone.invalid:9092".to_owned(), mute.local_addr()?.to_string(), kafka.bootstrap()];
        let bus = format!("kind = \"kafka\"\nbrokers = {brokers:?}");
        let mut story = Story::begin(scene, bus, index_server::toml(server, scene)?, &[]).await?;
        story.is_cured("broker list with dead hosts").await?;
        for service in &story.services {
            let stderr = service.stderr();
            ensure!(!stderr.contains(" ERROR "), "{} cries over a dead host:\n{stderr}", service.role().name());
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_too_small_for_a_batch_is_said_and_cured_by_its_limit() {
    scenario(async |scene| {
        let (kafka, server) = servers();
        let bus = format!("kind = \"kafka\"\nbrokers = [{:?}]", kafka.bootstrap());
        let small = [("max.message.bytes", "100000")];
        let mut story = Story::begin(scene, bus, index_server::toml(server, scene)?, &small).await?;
        let topic = story.cluster.topic();
        story.says(GATEWAY, &[&topic, "max.message.bytes is 100000", "655360", "raise it"]).await?;
        block_in_place(|| kafka.alter_topic(&topic, &[("max.message.bytes", "1048588")]))?;
        story.is_cured("topic too small for a batch").await
    })
    .await;
}

/// At the start the user does not exist; later its password is another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_credentials_for_the_index_are_said_and_cured_on_either_side() {
    scenario(async |scene| {
        let (kafka, server) = servers();
        let bus = format!("kind = \"kafka\"\nbrokers = [{:?}]", kafka.bootstrap());
        let user = Credentials { user: "logmesh-newcomer".to_owned(), password: server.admin().password };
        let index = index_server::toml_as(&user, server, scene)?;
        let mut story = Story::begin(scene, bus, index, &[]).await?;
        let words = ["the index server refuses our credentials (401)", "correct", "[index]"];
        story.says(PROCESSOR, &words).await?;
        block_in_place(|| server.user(&user.user, &writer_role()))?;
        story.is_cured("Elasticsearch 401").await?;

        let path = format!("/_security/user/{}/_password", user.user);
        index_server::must(server, "PUT", &path, &json!({ "password": "another-password" }))?;
        story.write()?;
        story.says(PROCESSOR, &words).await?;
        scene.write(&format!("{}-password", user.user), "another-password\n")?;
        story.is_cured("Elasticsearch 401 later").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_no_elasticsearch_is_said_and_cured_by_one() {
    scenario(async |scene| {
        let (kafka, server) = servers();
        let bus = format!("kind = \"kafka\"\nbrokers = [{:?}]", kafka.bootstrap());
        let front = Front::open(server).await?;
        let index = index_server::toml(server, scene)?.replace(&server.url(), &front.url());
        let mut story = Story::begin(scene, bus, index, &[]).await?;
        story
            .says(
                PROCESSOR,
                &[
                    "`urls` of [index]",
                    "neither Elasticsearch nor OpenSearch",
                    "Welcome to nginx",
                    "correct the address",
                ],
            )
            .await?;
        front.become_genuine();
        story.is_cured("no Elasticsearch").await
    })
    .await;
}

/// The servers of all scenarios.
fn servers() -> (&'static SecureKafka, &'static SearchServer) {
    (block_in_place(SecureKafka::shared), block_in_place(Elasticsearch::shared))
}

/// The body of `[bus]` for the listener that wants SCRAM over TLS.
fn bus_with(kafka: &SecureKafka, password: &Path, ca: &Path) -> String {
    format!(
        "kind = \"kafka\"\nbrokers = [{:?}]\n\
         sasl = {{ mechanism = \"SCRAM-SHA-256\", username = {:?}, password = {{ file = {:?} }} }}\n\
         tls = {{ ca = {:?} }}",
        kafka.scram256(),
        SecureKafka::USER,
        password.display().to_string(),
        ca.display().to_string()
    )
}

/// What a writer may.
fn writer_role() -> Value {
    json!({
        "cluster": ["monitor"],
        "indices": [{ "names": ["logmesh-*"], "privileges": ["create_doc", "create_index", "view_index_metadata"] }],
    })
}

/// One agent, gateway and processor that were told something wrong, and lines that are written all the while.
struct Story {
    cluster: Cluster,
    services: Vec<Service>,
    writer: Writer,
}

impl Story {
    /// Starts with these bodies of `[bus]` and `[index]`, on a topic with these settings. The servers themselves are set
    /// up well.
    async fn begin(scene: &Scene, bus: String, index: String, topic: &[(&str, &str)]) -> Result<Story> {
        let (kafka, server) = servers();
        let right = Layout::over(&kafka.bootstrap(), String::new()).bus;
        index_server::set_up(server, scene, &right).await?;
        let layout = Layout { gateways: 1, processors: 1, bus, index, agent: String::new() };
        let cluster = Cluster::build(scene, layout, 1, "*.log*").await?;
        block_in_place(|| kafka.create_topic(&cluster.topic(), 3, topic))?;
        block_in_place(|| kafka.create_topic(&cluster.dead_letters(), 1, &[]))?;
        let writer = Writer::create(&scene.logs(), "numbered", Stamp::Mixed)?;
        let services = cluster.roles().into_iter().map(|role| cluster.spawn(role)).collect::<Result<_>>()?;
        let mut story = Story { cluster, services, writer };
        story.write()?;
        Ok(story)
    }

    fn write(&mut self) -> Result<()> {
        self.writer.write(LINES)
    }

    /// Waits until a service is not ready, for a reason that has all of these words and says them in the log too.
    async fn says(&mut self, role: Role, words: &[&str]) -> Result<()> {
        let service = self.services.iter_mut().find(|service| service.role() == role).context("it runs")?;
        let what = format!("{} says {words:?}", role.name());
        let reason = wait_until(&what, TOLD_WITHIN * SLACK, async || {
            let Ok(answer) = service.admin().fetch("/readyz").await else {
                return Ok(Look::NotYet("no answer".to_owned()));
            };
            let said: Value = serde_json::from_str(&answer.text())?;
            let reasons = said["reasons"].as_array().into_iter().flatten().filter_map(|each| each["reason"].as_str());
            let mut reasons = reasons.filter(|reason| words.iter().all(|word| reason.contains(word)));
            Ok(match reasons.next() {
                Some(reason) if answer.status == StatusCode::SERVICE_UNAVAILABLE => Look::Holds(reason.to_owned()),
                Some(_) | None => Look::NotYet(format!("{} {said}", answer.status)),
            })
        })
        .await?;
        println!("{} is not ready: {reason}", role.name());
        let jargon = JARGON.iter().find(|word| reason.contains(**word));
        ensure!(jargon.is_none(), "{} says {jargon:?}: {reason}", role.name());
        service.says(words, TOLD_WITHIN * SLACK).await?;
        self.write()
    }

    /// Waits until all are ready, without a restart, and every line is found once.
    async fn is_cured(&mut self, what: &str) -> Result<()> {
        let since = Instant::now();
        self.write()?;
        for service in &mut self.services {
            service.ready().await?;
        }
        let ready = since.elapsed();
        let (_, server) = servers();
        let (tenant, written) = (self.cluster.tenant(), self.writer.written());
        index_server::wait_for_count(server, tenant, written, RESUMED_WITHIN * SLACK).await?;
        println!("{what}: ready {ready:?} and all found {:?} after the cure", since.elapsed());
        self.writer.ledger().balance_by_content(&index_server::documents(server, tenant)?).require_exact()
    }
}

/// What stands before an index server, in the clear: at first a web server that knows nothing of indices, later one that
/// hands everything on.
struct Front {
    address: SocketAddr,
    genuine: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl Front {
    async fn open(server: &SearchServer) -> Result<Front> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, genuine) = (listener.local_addr()?, Arc::new(AtomicBool::new(false)));
        let behind: SocketAddr = server.url().trim_start_matches("https://").parse()?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(server.ca())?)?;
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (tls, is_genuine) = (TlsConnector::from(Arc::new(tls)), Arc::clone(&genuine));
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let tls = tls.clone();
                let genuine = is_genuine.load(Ordering::Acquire);
                connections.spawn(async move {
                    // A connection that breaks is its client's to open again.
                    let _ = if genuine { hand_on(client, behind, tls).await } else { welcome(client).await };
                });
            }
        });
        Ok(Front { address, genuine, accepting })
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn become_genuine(&self) {
        self.genuine.store(true, Ordering::Release);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn hand_on(mut client: TcpStream, behind: SocketAddr, tls: TlsConnector) -> Result<()> {
    let server = TcpStream::connect(behind).await?;
    let mut server = tls.connect(ServerName::IpAddress(behind.ip().into()), server).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Answers one request as a web server does that was just installed.
async fn welcome(mut client: TcpStream) -> Result<()> {
    const PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Welcome to nginx!</title></head><body></body></html>\n";
    let mut asked = Vec::new();
    while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
        ensure!(client.read_buf(&mut asked).await? > 0, "it is gone");
    }
    let head = format!("content-type: text/html\r\ncontent-length: {}\r\nconnection: close", PAGE.len());
    client.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{PAGE}").as_bytes()).await?;
    Ok(client.shutdown().await?)
}
