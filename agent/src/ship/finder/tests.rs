//! Resolving: again at each search, and never held up by a name that does not answer.

use std::{
    io,
    sync::atomic::{AtomicU8, Ordering},
    time::SystemTime,
};

use logmesh_certs::{Authority, Request, Role, TlsFiles, Validity};
use logmesh_runtime::health::Health;

use super::*;

fn tls(directory: &std::path::Path) -> Arc<TlsSource> {
    let now = SystemTime::now();
    let authority = Authority::create("mesh", Validity::authority(now)).unwrap();
    authority.save(directory).unwrap();
    let (dns, ips) = (Vec::new(), Vec::new());
    let request = Request { role: Role::Agent, name: "edge-1".into(), dns, ips, validity: Validity::leaf(now) };
    let issued = authority.issue(&request).unwrap();
    let (cert, key) = (directory.join("edge-1.pem"), directory.join("edge-1-key.pem"));
    issued.save(&cert, &key, logmesh_certs::Existing::Replace).unwrap();
    TlsSource::load(TlsFiles { cert, key, ca: directory.join("ca.pem"), crl: None }).unwrap()
}

fn finder(
    names: &[&str],
    resolver: impl Fn(Endpoint) -> BoxFuture<'static, Result<Vec<SocketAddr>, ConnectError>> + Send + Sync + 'static,
) -> Finder {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        gateways: names.iter().map(|name| name.parse().unwrap()).collect(),
        codec: v1::Codec::None,
        instance: [0; 16],
        host: "host".into(),
    };
    let condition = Health::new().condition("agent.gateway");
    let finder = Finder::new(settings, tls(directory.path()), condition, Arc::default(), Instant::now());
    Finder { resolver: Arc::new(resolver), ..finder }
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], 4417))
}

#[tokio::test(start_paused = true)]
async fn every_search_asks_anew_where_a_name_leads() {
    let last = Arc::new(AtomicU8::new(1));
    let now = Arc::clone(&last);
    let mut finder = finder(&["gw.test:4417"], move |_| {
        let found = address(now.load(Ordering::Relaxed));
        Box::pin(std::future::ready(Ok(vec![found])))
    });
    for expected in 1..4 {
        last.store(expected, Ordering::Relaxed);
        finder.resolve(true).await;
        assert_eq!(finder.endpoints.pick(Duration::ZERO, 0).unwrap().address, address(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_does_not_answer_holds_up_no_other() {
    let mut finder = finder(&["slow.test:4417", "gw.test:4417", "gone.test:4417"], |endpoint| {
        let name = endpoint.to_string();
        Box::pin(async move {
            match name.as_str() {
                "slow.test:4417" => std::future::pending().await,
                "gw.test:4417" => Ok(vec![address(1), address(2)]),
                _ => Err(ConnectError::Resolve(name, io::ErrorKind::NotFound.into())),
            }
        })
    });
    let begun = Instant::now();
    finder.resolve(true).await;
    assert!(begun.elapsed() <= STRAGGLERS, "{:?}", begun.elapsed());
    assert_eq!(finder.endpoints.fresh(Duration::ZERO), 2);
}

#[test]
fn only_a_gateway_that_is_not_available_can_ask_to_be_left_alone() {
    let status = |code, said: &'static str| {
        let mut status = Status::new(code, "words");
        status.metadata_mut().insert("grpc-retry-pushback-ms", tonic::metadata::MetadataValue::from_static(said));
        status
    };
    assert_eq!(pushback(&status(Code::Unavailable, "1500")), Some(Duration::from_millis(1500)));
    assert_eq!(pushback(&status(Code::PermissionDenied, "1500")), None);
    assert_eq!(pushback(&status(Code::Unavailable, "-1")), None);
    assert_eq!(pushback(&Status::unavailable("words")), None);
}
