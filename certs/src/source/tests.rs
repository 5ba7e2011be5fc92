//! Handshakes over an in-memory pipe, and reloads over real files.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::refusal::{Reason, Refusal};
use crate::{Authority, Existing, Issued, Request, Role, Serial, Validity};

const DAY: Duration = Duration::from_secs(86_400);
const HOST: &str = "gw.example";

/// A directory with files of one or more authorities.
struct Bench {
    directory: tempfile::TempDir,
    authority: Authority,
}

/// How one handshake ended, on both sides.
struct Handshake {
    server: Result<Identity, Refusal>,
    client: Result<(), Refusal>,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bench = Self { authority: authority("mesh"), directory };
        bench.write("ca.pem", bench.authority.certificate_pem());
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn files(&self, name: &str) -> TlsFiles {
        TlsFiles {
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}-key.pem")),
            ca: self.path("ca.pem"),
            crl: None,
        }
    }

    fn save(&self, name: &str, issued: &Issued) -> TlsFiles {
        let files = self.files(name);
        issued.save(&files.cert, &files.key, Existing::Replace).unwrap();
        files
    }

    fn issue(&self, role: Role, name: &str) -> TlsFiles {
        self.save(name, &self.authority.issue(&request(role, name)).unwrap())
    }

    fn gateway(&self) -> Arc<TlsSource> {
        TlsSource::load(self.issue(Role::Gateway, "gw-1")).unwrap()
    }

    fn agent(&self) -> Arc<TlsSource> {
        TlsSource::load(self.issue(Role::Agent, "edge-1")).unwrap()
    }
}

fn authority(mesh: &str) -> Authority {
    Authority::create(mesh, Validity::authority(SystemTime::now())).unwrap()
}

fn request(role: Role, name: &str) -> Request {
    let dns = if role == Role::Gateway { vec![HOST.to_owned()] } else { Vec::new() };
    Request { role, name: name.to_owned(), dns, ips: Vec::new(), validity: Validity::leaf(SystemTime::now()) }
}

/// A client that was not careful: it presents what it is given, and believes any server.
fn careless(chain_and_key: Option<&Issued>, trusted: &Authority) -> Arc<ClientConfig> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.certificate_pem().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&crate::material::PROVIDER))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match chain_and_key {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let chain = vec![CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
            // Sent even where the server's hints say that it is of no use.
            let key = rustls::sign::CertifiedKey::from_der(chain, key, &crate::material::PROVIDER).unwrap();
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

async fn handshake(server: &TlsSource, client: Arc<ClientConfig>) -> Handshake {
    handshake_as(server, client, HOST).await
}

async fn handshake_as(server: &TlsSource, client: Arc<ClientConfig>, host: &str) -> Handshake {
    let (near, far) = duplex(64 * 1024);
    let (config, observed) = server.server_observed();
    let accept = async {
        let mut stream =
            TlsAcceptor::from(config).accept(far).await.map_err(|error| Refusal::of_agent(&error, &observed))?;
        stream.write_all(b"!").await.unwrap();
        stream.flush().await.unwrap();
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        server.readmit(&chain, SystemTime::now()).map_err(|error| Refusal::of_identity(&error))
    };
    let connect = async {
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let outcome: io::Result<()> = async {
            let mut stream = TlsConnector::from(client).connect(name, near).await?;
            // With TLS 1.3 a client learns only now whether it was accepted.
            stream.read_u8().await.map(|_| ())
        }
        .await;
        outcome.map_err(|error| Refusal::of_gateway(&error))
    };
    let (server, client) = tokio::join!(accept, connect);
    Handshake { server, client }
}

async fn refused(server: &TlsSource, client: Arc<ClientConfig>, reason: Reason, said: &str) {
    let outcome = handshake(server, client).await;
    let refusal = outcome.server.expect_err("the gateway must refuse");
    assert_eq!(refusal.reason, reason, "{refusal}");
    assert!(refusal.text.contains(said), "{said:?} is not in {:?}", refusal.text);
    assert!(outcome.client.is_err(), "the client must learn of it");
}

#[tokio::test]
async fn agent_and_gateway_of_one_mesh_know_each_other() {
    let bench = Bench::new();
    let (gateway, agent) = (bench.gateway(), bench.agent());
    let config = agent.client();
    let outcome = handshake(&gateway, config).await;
    assert_eq!(outcome.server.unwrap().as_str(), "spiffe://mesh/agent/edge-1");
    outcome.client.unwrap();
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let bench = Bench::new();
    refused(&bench.gateway(), careless(None, &bench.authority), Reason::NoCertificate, "no certificate").await;
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused_even_with_the_same_names() {
    let bench = Bench::new();
    let other = authority("mesh").issue(&request(Role::Agent, "edge-1")).unwrap();
    let client = careless(Some(&other), &bench.authority);
    refused(&bench.gateway(), client, Reason::UnknownIssuer, "spiffe://mesh/agent/edge-1").await;
}

#[tokio::test]
async fn a_client_whose_time_is_over_or_has_not_come_is_refused() {
    let bench = Bench::new();
    let (gateway, now) = (bench.gateway(), SystemTime::now());
    let validity = |first, last| Validity { not_before: first, not_after: last };
    for (validity, reason) in [
        (validity(now - 2 * DAY, now - DAY), Reason::Expired),
        (validity(now + DAY, now + 2 * DAY), Reason::NotYetValid),
    ] {
        let issued = bench.authority.issue(&Request { validity, ..request(Role::Agent, "edge-1") }).unwrap();
        refused(&gateway, careless(Some(&issued), &bench.authority), reason, "spiffe://mesh/agent/edge-1").await;
    }
}

#[tokio::test]
async fn a_gateway_does_not_pass_for_an_agent() {
    let bench = Bench::new();
    let issued = bench.authority.issue(&request(Role::Gateway, "gw-2")).unwrap();
    let client = careless(Some(&issued), &bench.authority);
    refused(&bench.gateway(), client, Reason::WrongUsage, "spiffe://mesh/gateway/gw-2").await;
}

#[tokio::test]
async fn an_agent_does_not_pass_for_a_gateway() {
    let bench = Bench::new();
    let agent = bench.agent();
    let mut posing = request(Role::Agent, "edge-2");
    posing.dns = vec![HOST.to_owned()];
    let posing = TlsSource::load(bench.save("edge-2", &bench.authority.issue(&posing).unwrap())).unwrap();
    let config = agent.client();
    let refusal = handshake(&posing, config).await.client.unwrap_err();
    assert_eq!(refusal.reason, Reason::WrongUsage, "{refusal}");
    assert!(refusal.text.contains("spiffe://mesh/agent/edge-2"), "{refusal}");
}

#[tokio::test]
async fn a_gateway_under_a_host_name_that_it_does_not_have_is_refused() {
    let bench = Bench::new();
    let config = bench.agent().client();
    let refusal = handshake_as(&bench.gateway(), config, "other.example").await.client.unwrap_err();
    assert_eq!(refusal.reason, Reason::WrongName, "{refusal}");
    assert!(refusal.text.contains("gw.example"), "{refusal}");
}

#[tokio::test]
async fn a_gateway_of_another_authority_is_refused() {
    let (bench, other) = (Bench::new(), Bench::new());
    let config = bench.agent().client();
    let refusal = handshake(&other.gateway(), config).await.client.unwrap_err();
    assert_eq!(refusal.reason, Reason::UnknownIssuer, "{refusal}");
}

#[tokio::test]
async fn another_mesh_under_the_same_authority_is_refused() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    // The same key under another mesh's name: what a corporate authority for several meshes would be.
    let directory = bench.path("ca");
    bench.authority.save(&directory).unwrap();
    let stranger = Authority::load(&directory).unwrap().with_mesh("other");
    let issued = stranger.issue(&request(Role::Agent, "edge-1")).unwrap();
    refused(&gateway, careless(Some(&issued), &bench.authority), Reason::WrongMesh, "spiffe://other/agent/edge-1")
        .await;
}

#[tokio::test]
async fn a_client_whose_names_are_no_single_identity_is_refused() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    for (uris, usage, reason, said) in [
        (&[][..], true, Reason::NoIdentity, "has no URI SAN"),
        (&["spiffe://mesh/agent/a", "spiffe://mesh/agent/b"], true, Reason::NoIdentity, "2 URI SANs"),
        (&["spiffe://mesh/admin/a"], true, Reason::NoIdentity, "spiffe://mesh/admin/a"),
        (&["https://mesh/agent/a"], true, Reason::NoIdentity, "https://mesh/agent/a"),
        (&["spiffe://mesh/gateway/a"], true, Reason::WrongUsage, "spiffe://mesh/gateway/a"),
        // webpki lets a certificate without any extended key usage pass.
        (&["spiffe://mesh/agent/a"], false, Reason::WrongUsage, "lacks the extended key usage clientAuth"),
    ] {
        let odd = odd_certificate(&bench, uris, usage);
        refused(&gateway, careless(Some(&odd), &bench.authority), reason, said).await;
    }
}

/// A certificate that our own authority would not issue, under its key.
fn odd_certificate(bench: &Bench, uris: &[&str], client_usage: bool) -> Issued {
    let directory = tempfile::tempdir().unwrap();
    bench.authority.save(directory.path()).unwrap();
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    let key = rcgen::KeyPair::from_pem(&read("ca-key.pem")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read("ca.pem"), key).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap())).collect();
    if client_usage {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let usual = bench.authority.issue(&request(Role::Agent, "edge-1")).unwrap();
    Issued { cert_pem: params.signed_by(&key, &issuer).unwrap().pem(), key_pem: key.serialize_pem(), ..usual }
}

#[tokio::test]
async fn a_revoked_client_is_refused_from_the_reload_of_the_list_on_and_others_are_not() {
    let bench = Bench::new();
    let mut files = bench.issue(Role::Gateway, "gw-1");
    files.crl = Some(bench.path("crl.pem"));
    bench.write("crl.pem", &bench.authority.crl(&[], SystemTime::now() - DAY).unwrap());
    let gateway = TlsSource::load(files).unwrap();
    let bad = bench.authority.issue(&request(Role::Agent, "edge-1")).unwrap();
    let good = bench.authority.issue(&request(Role::Agent, "edge-2")).unwrap();

    let client = careless(Some(&bad), &bench.authority);
    handshake(&gateway, Arc::clone(&client)).await.server.unwrap();
    bench.write("crl.pem", &bench.authority.crl(std::slice::from_ref(&bad.serial), SystemTime::now()).unwrap());
    gateway.reload().unwrap();
    // The same client configuration holds a ticket of the first session: resuming must not get it in.
    refused(&gateway, client, Reason::Revoked, "spiffe://mesh/agent/edge-1").await;
    handshake(&gateway, careless(Some(&good), &bench.authority)).await.server.unwrap();
}

#[tokio::test]
async fn a_session_is_resumed_and_a_reload_ends_that() {
    let bench = Bench::new();
    let (gateway, agent) = (bench.gateway(), bench.agent());
    let resumed = async || {
        let (near, far) = duplex(64 * 1024);
        let config = agent.client();
        let accept = async {
            let mut stream = TlsAcceptor::from(gateway.server()).accept(far).await.unwrap();
            stream.write_all(b"!").await.unwrap();
            stream.flush().await.unwrap();
            stream
        };
        let connect = async {
            let name = ServerName::try_from(HOST).unwrap();
            let mut stream = TlsConnector::from(config).connect(name, near).await.unwrap();
            stream.read_u8().await.unwrap();
            stream
        };
        let (server, _client) = tokio::join!(accept, connect);
        server.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    };
    assert!(!resumed().await);
    assert!(resumed().await, "the second handshake uses the ticket of the first");
    bench.issue(Role::Gateway, "gw-1");
    gateway.reload().unwrap();
    assert!(!resumed().await, "tickets end with the material they were made under");
}

#[test]
fn a_live_client_is_held_against_the_newest_list_and_its_dates() {
    let bench = Bench::new();
    let mut files = bench.issue(Role::Gateway, "gw-1");
    files.crl = Some(bench.path("crl.pem"));
    let issued = bench.authority.issue(&request(Role::Agent, "edge-1")).unwrap();
    bench.write("crl.pem", &bench.authority.crl(std::slice::from_ref(&issued.serial), SystemTime::now()).unwrap());
    let gateway = TlsSource::load(files).unwrap();
    use rustls::pki_types::pem::PemObject;
    let chain = [CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap()];
    let refusal = gateway.readmit(&chain, SystemTime::now()).unwrap_err();
    assert!(refusal.to_string().contains("is revoked"), "{refusal}");
    let fresh = bench.gateway();
    fresh.readmit(&chain, SystemTime::now()).unwrap();
    let refusal = fresh.readmit(&chain, SystemTime::now() + 91 * DAY).unwrap_err();
    assert!(refusal.to_string().contains("has expired"), "{refusal}");
}

#[tokio::test]
async fn a_reload_shows_in_the_next_handshake() {
    let bench = Bench::new();
    let (gateway, agent) = (bench.gateway(), bench.agent());
    assert_eq!(gateway.generation(), 1);
    // A new authority takes over on both sides, without a restart.
    let next = authority("mesh");
    bench.write("ca.pem", next.certificate_pem());
    for (role, name) in [(Role::Gateway, "gw-1"), (Role::Agent, "edge-1")] {
        bench.save(name, &next.issue(&request(role, name)).unwrap());
    }
    gateway.reload().unwrap();
    let config = agent.client();
    assert!(handshake(&gateway, config).await.client.is_err(), "the agent has not reloaded yet");
    agent.reload().unwrap();
    let config = agent.client();
    handshake(&gateway, config).await.client.unwrap();
    assert_eq!(gateway.generation(), 2);
}

#[test]
fn a_reload_without_a_change_changes_nothing() {
    let gateway_bench = Bench::new();
    let gateway = gateway_bench.gateway();
    let before = gateway.server();
    gateway.reload().unwrap();
    assert_eq!(gateway.generation(), 1);
    assert!(Arc::ptr_eq(&before, &gateway.server()), "tickets stay good");
}

/// Damages one file, and says what the error must name.
fn spoil(bench: &Bench, name: &str, damage: &dyn Fn(&Path), said: &[&str]) {
    let files = bench.issue(Role::Gateway, "gw-1");
    bench.write("ca.pem", bench.authority.certificate_pem());
    let source = TlsSource::load(files).unwrap();
    damage(&bench.path(name));
    let before = source.server();
    let error = source.reload().expect_err(name).to_string();
    for part in said.iter().chain(&[name]) {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    assert!(Arc::ptr_eq(&before, &source.server()), "the last good material stays");
    assert_eq!(source.generation(), 1);
}

#[test]
fn a_failed_reload_keeps_the_last_good_and_names_the_file_and_the_fault() {
    let bench = Bench::new();
    let halve = |path: &Path| {
        let text = std::fs::read(path).unwrap();
        std::fs::write(path, &text[..text.len() / 2]).unwrap();
    };
    let garbage = |path: &Path| std::fs::write(path, b"\xff\x00 no certificate \n-----BEGIN").unwrap();
    let empty = |path: &Path| std::fs::write(path, b"").unwrap();
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    for name in ["gw-1.pem", "gw-1-key.pem", "ca.pem"] {
        spoil(&bench, name, &halve, &["it must be PEM, whole"]);
        spoil(&bench, name, &garbage, &["it must be PEM, whole"]);
        spoil(&bench, name, &empty, &["it must be PEM, whole"]);
        spoil(&bench, name, &remove, &["No such file"]);
    }
    let other_key = bench.authority.issue(&request(Role::Gateway, "gw-1")).unwrap().key_pem;
    spoil(&bench, "gw-1-key.pem", &|path| std::fs::write(path, &other_key).unwrap(), &["is not the private key"]);
    let other_ca = authority("mesh");
    spoil(
        &bench,
        "ca.pem",
        &|path| std::fs::write(path, other_ca.certificate_pem()).unwrap(),
        &["not accepted by the authorities"],
    );
    let leaf = bench.authority.issue(&request(Role::Gateway, "gw-2")).unwrap().cert_pem;
    spoil(&bench, "ca.pem", &|path| std::fs::write(path, &leaf).unwrap(), &["is no authority's"]);
}

#[test]
fn ones_own_certificate_out_of_its_time_is_refused_at_load() {
    let bench = Bench::new();
    let now = SystemTime::now();
    for (validity, said) in [
        (Validity { not_before: now - 2 * DAY, not_after: now - DAY }, "expired at"),
        (Validity { not_before: now + DAY, not_after: now + 2 * DAY }, "is not valid before"),
    ] {
        let issued = bench.authority.issue(&Request { validity, ..request(Role::Agent, "edge-1") }).unwrap();
        let error = TlsSource::load(bench.save("edge-1", &issued)).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("edge-1.pem"), "{error}");
    }
}

#[test]
fn a_revocation_list_is_taken_only_whole_signed_and_not_older_than_before() {
    let bench = Bench::new();
    let mut files = bench.issue(Role::Gateway, "gw-1");
    files.crl = Some(bench.path("crl.pem"));
    let now = SystemTime::now();
    bench.write("crl.pem", &bench.authority.crl(&[], now).unwrap());
    let source = TlsSource::load(files).unwrap();
    let fails = |said: &str| {
        let error = source.reload().unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("crl.pem"), "{error}");
    };
    bench.write("crl.pem", &authority("mesh").crl(&[], now).unwrap());
    fails("not signed by an authority");
    bench.write("crl.pem", &bench.authority.crl(&[], now - DAY).unwrap());
    fails("older than the one in use");
    bench.write("crl.pem", &bench.authority.crl(&[], now + DAY).unwrap());
    fails("in the future");
    bench.write("crl.pem", "");
    fails("it has none");
    std::fs::remove_file(bench.path("crl.pem")).unwrap();
    fails("No such file");
    assert_eq!(source.generation(), 1);
}

#[test]
fn of_several_lists_of_one_authority_the_newest_counts_wherever_it_stands() {
    let bench = Bench::new();
    let mut files = bench.issue(Role::Gateway, "gw-1");
    files.crl = Some(bench.path("crl.pem"));
    let (now, serial) = (SystemTime::now(), Serial::from_bytes(&[1, 2, 3]));
    let new = bench.authority.crl(&[serial], now - DAY).unwrap();
    let old = bench.authority.crl(&[], now - 2 * DAY).unwrap();
    for text in [format!("{new}{old}"), format!("{old}{new}")] {
        bench.write("crl.pem", &text);
        let loaded = Loaded::new(&files, now, None, 1).unwrap();
        assert!(loaded.material.is_revoked(&[1, 2, 3]));
    }
}

#[test]
fn an_overdue_list_still_revokes() {
    let bench = Bench::new();
    let mut files = bench.issue(Role::Gateway, "gw-1");
    files.crl = Some(bench.path("crl.pem"));
    let serial = Serial::from_bytes(&[9]);
    bench.write("crl.pem", &bench.authority.crl(&[serial], SystemTime::now() - 60 * DAY).unwrap());
    let loaded = Loaded::new(&files, SystemTime::now(), None, 1).unwrap();
    assert!(loaded.material.is_revoked(&[9]));
}
