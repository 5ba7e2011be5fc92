//! Every way to listen, over real sockets.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use logmesh_certs::{Authority, Request, Role, Validity};
use logmesh_runtime::health::State;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket, UnixDatagram, UnixStream},
};
use tokio_rustls::TlsConnector;

use super::tls::TlsFiles;
use crate::inputs::{
    config::{Kind, Listen, SyslogConfig, SyslogTls},
    tests::{DEADLINE, Rig},
};

fn config(listen: &[&str]) -> SyslogConfig {
    let listen = listen.iter().map(|text| text.parse().unwrap()).collect();
    SyslogConfig { listen, tls: None, connections_max: 512, mode: None }
}

fn syslog(listen: &[&str]) -> Kind {
    Kind::Syslog(config(listen))
}

/// The part of an address behind its scheme.
fn host(address: &str) -> &str {
    address.split_once("://").unwrap().1
}

#[tokio::test]
async fn messages_come_over_every_transport_as_they_were_sent() {
    let directory = tempfile::tempdir().unwrap();
    let stream = format!("unix://{}/stream", directory.path().display());
    let datagram = format!("unixgram://{}/datagram", directory.path().display());
    let mut rig = Rig::start(syslog(&["udp://127.0.0.1:0", "tcp://127.0.0.1:0", &stream, &datagram]));
    let mut addresses = rig.addresses(4).await;
    addresses.sort();
    let [tcp, udp, unix, unixgram] = addresses.as_slice() else { panic!("{addresses:?}") };

    let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    sender.send_to(b"<13>1 - h app - - - udp\xc3\xa9\n", host(udp)).await.unwrap();
    rig.take(1).await;
    let mut sender = TcpStream::connect(host(tcp)).await.unwrap();
    sender.write_all(b"<13>tcp\n9 <13>count<13>last").await.unwrap();
    rig.take(3).await;
    drop(sender);
    rig.take(4).await;
    let mut sender = UnixStream::connect(host(unix)).await.unwrap();
    sender.write_all(b"<13>unix\n").await.unwrap();
    rig.take(5).await;
    UnixDatagram::unbound().unwrap().send_to(b"<13>unixgram\0", host(unixgram)).await.unwrap();
    rig.take(6).await;
    let (bodies, _) = rig.stop().await;
    assert_eq!(
        bodies,
        ["<13>1 - h app - - - udp\u{e9}", "<13>tcp", "<13>count", "<13>last", "<13>unix", "<13>unixgram"]
    );
    assert!(!Path::new(host(unix)).exists() && !Path::new(host(unixgram)).exists(), "its own files are removed");
}

/// Certificates of one authority, for a listener and a sender.
struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        let now = SystemTime::now();
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create("syslog", Validity::authority(now)).unwrap();
        authority.save(directory.path()).unwrap();
        for (role, name) in [(Role::Gateway, "listener"), (Role::Agent, "sender")] {
            let ips = vec!["127.0.0.1".parse().unwrap()];
            let request = Request { role, name: name.into(), dns: vec![], ips, validity: Validity::leaf(now) };
            let issued = authority.issue(&request).unwrap();
            std::fs::write(directory.path().join(format!("{name}.pem")), issued.cert_pem).unwrap();
            std::fs::write(directory.path().join(format!("{name}-key.pem")), issued.key_pem).unwrap();
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn listener(&self, clients: bool) -> SyslogConfig {
        let ca = clients.then(|| self.path("ca.pem"));
        let tls = SyslogTls { cert: self.path("listener.pem"), key: self.path("listener-key.pem"), ca };
        SyslogConfig { tls: Some(tls), ..config(&["tls://127.0.0.1:0"]) }
    }

    fn connector(&self, presents: bool) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        TlsConnector::from(Arc::new(if presents {
            let chain = vec![CertificateDer::from_pem_file(self.path("sender.pem")).unwrap()];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(self.path("sender-key.pem")).unwrap())
                .unwrap()
        } else {
            builder.with_no_client_auth()
        }))
    }
}

/// Sends over TLS; answers whether the listener took it as far as the sender can tell.
async fn send_tls(connector: TlsConnector, address: &str, bytes: &[u8]) -> bool {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = TcpStream::connect(host(address)).await.unwrap();
    let Ok(mut stream) = connector.connect(name, stream).await else { return false };
    let sent = async {
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
        stream.read_to_end(&mut Vec::new()).await
    };
    sent.await.is_ok()
}

#[tokio::test]
async fn messages_come_over_tls_and_only_from_senders_with_a_certificate_where_they_need_one() {
    let certificates = Certificates::new();
    let mut rig = Rig::start(Kind::Syslog(certificates.listener(false)));
    let address = rig.addresses(1).await.remove(0);
    assert!(send_tls(certificates.connector(false), &address, b"<13>anybody\n").await);
    rig.take(1).await;
    assert_eq!(rig.stop().await.0, ["<13>anybody"]);

    let mut rig = Rig::start(Kind::Syslog(certificates.listener(true)));
    let address = rig.addresses(1).await.remove(0);
    assert!(!send_tls(certificates.connector(false), &address, b"<13>nobody\n").await);
    assert!(send_tls(certificates.connector(true), &address, b"11 <13>known\nx").await);
    rig.take(1).await;
    assert_eq!((rig.bodies.as_slice(), rig.count("connections_refused")), (["<13>known\nx".to_owned()].as_slice(), 1));
    rig.stop().await;
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_told_with_their_place_and_tried_again() {
    let certificates = Certificates::new();
    let config = certificates.listener(false);
    let key = config.tls.clone().unwrap().key;
    let sound = std::fs::read(&key).unwrap();
    std::fs::write(&key, "no key").unwrap();
    let rig = Rig::start(Kind::Syslog(config));
    rig.until(|state, reason| state == State::Failing && reason.contains("listener-key.pem") && reason.contains("PEM"))
        .await;
    std::fs::write(&key, sound).unwrap();
    rig.addresses(1).await;
    rig.stop().await;
}

#[test]
fn new_certificates_are_taken_up_and_bad_ones_leave_the_last_good_ones_in_use() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let files = TlsFiles::load(certificates.listener(false).tls.unwrap()).unwrap();
    let mut now = Instant::now();
    let mut look = || {
        now += Duration::from_secs(60);
        files.current(now)
    };
    let first = look();
    assert!(Arc::ptr_eq(&first, &look()) && files.fault().is_none());
    std::fs::write(certificates.path("listener.pem"), "cut").unwrap();
    assert!(Arc::ptr_eq(&first, &look()));
    assert!(files.fault().unwrap().contains("listener.pem"));
    for name in ["listener.pem", "listener-key.pem"] {
        std::fs::copy(others.path(name), certificates.path(name)).unwrap();
    }
    assert!(!Arc::ptr_eq(&first, &look()));
    assert_eq!(files.fault(), None);
}

#[tokio::test]
async fn a_port_in_use_is_told_and_taken_once_it_is_free_while_the_neighbour_listens() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", taken.local_addr().unwrap());
    let mut rig = Rig::start(syslog(&[&address, "tcp://127.0.0.1:0"]));
    rig.until(|state, reason| {
        state == State::Failing && reason.contains(&address) && reason.contains("another process")
    })
    .await;
    let neighbour =
        rig.context.status.snapshot()["agent_inputs"]["syslog"]["listening"][0].as_str().unwrap().to_owned();
    TcpStream::connect(host(&neighbour)).await.unwrap().write_all(b"<13>a\n").await.unwrap();
    rig.take(1).await;
    drop(taken);
    rig.addresses(2).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_full_intake_stops_a_sender_and_everything_arrives_once_it_is_taken() {
    let mut rig = Rig::with(syslog(&["tcp://127.0.0.1:0"]), 64 * 1024, &None);
    let address = rig.addresses(1).await.remove(0);
    let mut sender = TcpStream::connect(host(&address)).await.unwrap();
    let message = |number: usize| format!("<13>{number:06} {}\n", "x".repeat(1000));
    // Far more than the intake, the kernel's buffers and a connection's own can hold.
    let count = 64 * 1024;
    let sending = tokio::spawn(async move {
        for number in 0..count {
            sender.write_all(message(number).as_bytes()).await.unwrap();
        }
    });
    let full = async {
        while rig.intake.free_bytes() > 32 * 1024 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, full).await.unwrap();
    assert!(!sending.is_finished() && rig.count("records") < 1000);
    rig.take(count).await;
    sending.await.unwrap();
    let (bodies, _) = rig.stop().await;
    assert!(bodies.iter().enumerate().all(|(number, body)| *body == message(number).trim_end()));
}

#[tokio::test]
async fn lost_framing_ends_its_connection_alone_and_keeps_what_came() {
    let mut rig = Rig::start(syslog(&["tcp://127.0.0.1:0"]));
    let address = rig.addresses(1).await.remove(0);
    let mut neighbour = TcpStream::connect(host(&address)).await.unwrap();
    neighbour.write_all(b"<13>half").await.unwrap();
    let mut sender = TcpStream::connect(host(&address)).await.unwrap();
    sender.write_all(b"5 <13>abc").await.unwrap();
    rig.take(2).await;
    // It ends with FIN or RST, by what was still on its way.
    let _ = sender.read(&mut [0; 8]).await;
    neighbour.write_all(b" and half\n").await.unwrap();
    rig.take(3).await;
    assert_eq!(
        (rig.bodies.clone(), rig.count("framing_errors")),
        (vec!["<13>a".into(), "bc".into(), "<13>half and half".into()], 1)
    );
    rig.stop().await;
}

#[tokio::test]
async fn beyond_the_greatest_number_of_connections_senders_wait_for_a_seat() {
    let mut rig = Rig::start(Kind::Syslog(SyslogConfig { connections_max: 1, ..config(&["tcp://127.0.0.1:0"]) }));
    let address = rig.addresses(1).await.remove(0);
    let mut first = TcpStream::connect(host(&address)).await.unwrap();
    first.write_all(b"<13>first\n").await.unwrap();
    rig.take(1).await;
    let mut second = TcpStream::connect(host(&address)).await.unwrap();
    second.write_all(b"<13>second\n").await.unwrap();
    rig.until(|state, reason| state == State::Warning && reason.contains("connections_max")).await;
    first.write_all(b"<13>still first\n").await.unwrap();
    rig.take(2).await;
    drop(first);
    rig.take(3).await;
    assert_eq!(rig.bodies, ["<13>first", "<13>still first", "<13>second"]);
    rig.stop().await;
}

#[tokio::test]
async fn what_was_sent_before_the_stop_is_taken_and_half_a_message_too() {
    let rig = Rig::start(syslog(&["tcp://127.0.0.1:0", "udp://127.0.0.1:0"]));
    let mut addresses = rig.addresses(2).await;
    addresses.sort();
    let mut sender = TcpStream::connect(host(&addresses[0])).await.unwrap();
    sender.write_all(b"<13>a\n").await.unwrap();
    let mut rig = rig;
    rig.take(1).await;
    sender.write_all(b"<13>b\n20 <13>c").await.unwrap();
    UdpSocket::bind("127.0.0.1:0").await.unwrap().send_to(b"<13>d", host(&addresses[1])).await.unwrap();
    let mut bodies = rig.stop().await.0;
    bodies.sort();
    assert_eq!(bodies, ["<13>a", "<13>b", "<13>c", "<13>d"]);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_neither_a_live_one_nor_a_file_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let listen = Listen::Unixgram(path.clone());
    drop(UnixDatagram::bind(&path).unwrap());
    assert!(path.exists(), "left behind by a process that is gone");
    let start =
        || Rig::start(Kind::Syslog(SyslogConfig { listen: vec![listen.clone()], mode: Some(0o666), ..config(&[]) }));
    let rig = start();
    rig.addresses(1).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    let second = start();
    second.until(|state, reason| state == State::Failing && reason.contains("another process")).await;
    second.stop().await;
    assert!(path.exists(), "the one that listens keeps its file");
    rig.stop().await;
    std::fs::write(&path, "a file").unwrap();
    let third = start();
    third.until(|state, reason| state == State::Failing && reason.contains("no socket")).await;
    third.stop().await;
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
}
