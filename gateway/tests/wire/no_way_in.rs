//! Who does not get in, and that the log says which check failed and for whom.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::support::{Bench, Client, DAY, careless, connect, log, logged, request, rule};
use logmesh_certs::{Request, Role, Validity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;

/// Tries to open a session; with TLS 1.3 a client may learn of a refusal as late as then.
async fn refused(bench: &Bench, tls: Arc<rustls::ClientConfig>) {
    let opened = async {
        let channel = connect(bench.address, tls).await.ok()?;
        Client::open(channel).await.ok()
    };
    assert!(timeout(crate::support::LONG, opened).await.expect("an answer").is_none(), "the session was opened");
    assert!(bench.bus.records().is_empty());
}

async fn line(parts: &[&str]) -> String {
    let found = async {
        loop {
            if let Some(line) = logged(parts).pop() {
                return line;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(crate::support::LONG, found).await.unwrap_or_else(|_| panic!("no log line has {parts:?}"))
}

#[tokio::test]
async fn no_certificate() {
    log();
    let bench = Bench::new().await;
    refused(&bench, careless(None, &bench.authority)).await;
    line(&["connection refused", "no_certificate", "the peer presented no certificate"]).await;
}

#[tokio::test]
async fn a_certificate_of_another_authority() {
    log();
    let bench = Bench::new().await;
    let other = crate::support::authority().issue(&request(Role::Agent, "stranger")).unwrap();
    refused(&bench, careless(Some(&other), &bench.authority)).await;
    line(&["connection refused", "unknown_issuer", "spiffe://mesh/agent/stranger"]).await;
}

#[tokio::test]
async fn a_certificate_whose_time_is_over_or_has_not_come() {
    log();
    let (bench, now) = (Bench::new().await, SystemTime::now());
    for (name, check, not_before, not_after) in
        [("late", "expired", now - 2 * DAY, now - DAY), ("early", "not_yet_valid", now + DAY, now + 2 * DAY)]
    {
        let validity = Validity { not_before, not_after };
        let issued = bench.authority.issue(&Request { validity, ..request(Role::Agent, name) }).unwrap();
        refused(&bench, careless(Some(&issued), &bench.authority)).await;
        line(&["connection refused", check, &format!("spiffe://mesh/agent/{name}")]).await;
    }
}

#[tokio::test]
async fn a_gateway_in_the_place_of_an_agent() {
    log();
    let bench = Bench::new().await;
    let issued = bench.authority.issue(&request(Role::Gateway, "gw-2")).unwrap();
    refused(&bench, careless(Some(&issued), &bench.authority)).await;
    line(&["connection refused", "wrong_usage", "spiffe://mesh/gateway/gw-2"]).await;
}

#[tokio::test]
async fn an_identity_that_no_policy_matches() {
    log();
    let bench = Bench::with(|config| config.policy = vec![rule("spiffe://mesh/agent/web-*")]).await;
    let channel = bench.channel(bench.issue("db-1").client()).await.unwrap();
    let status = Client::open(channel).await.err().expect("a refusal");
    assert_eq!(status.code(), Code::PermissionDenied);
    line(&["session refused", "policy", "no policy matches spiffe://mesh/agent/db-1"]).await;
    bench.session("web-1").await;
}

#[tokio::test]
async fn a_revoked_certificate_from_the_reload_on_and_its_live_session_ends() {
    log();
    let bench = Bench::new().await;
    let issued = bench.authority.issue(&request(Role::Agent, "leaver")).unwrap();
    let tls = careless(Some(&issued), &bench.authority);
    let channel = connect(bench.address, Arc::clone(&tls)).await.unwrap();
    let mut live = Client::open(channel).await.unwrap().greeted().await;
    let mut neighbour = bench.session("stayer").await;

    let crl = bench.authority.crl(&[issued.serial], SystemTime::now()).unwrap();
    std::fs::write(bench.directory.path().join("crl.pem"), crl).unwrap();
    bench.tls.reload().unwrap();
    assert_ne!(live.end().await.code(), Code::Ok, "the live session is cut off");
    refused(&bench, tls).await;
    line(&["connection refused", "revoked", "spiffe://mesh/agent/leaver"]).await;
    let batch = neighbour.simple("s", 0);
    neighbour.batch(batch).await;
    assert_eq!(neighbour.ack().await, [1]);
}

#[tokio::test]
async fn what_is_no_tls_and_what_speaks_no_http2() {
    log();
    let bench = Bench::new().await;
    let mut socket = TcpStream::connect(bench.address).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    timeout(crate::support::LONG, socket.read_to_end(&mut rest)).await.expect("closed").ok();
    line(&["connection refused", "protocol"]).await;

    let mut tls = (*bench.issue("edge-1").client()).clone();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    refused(&bench, Arc::new(tls)).await;
    line(&["connection refused", "no_http2"]).await;
}

#[tokio::test]
async fn refused_peers_do_not_fill_the_log_and_stand_in_nobodys_way() {
    log();
    let bench = Bench::new().await;
    let other = crate::support::authority().issue(&request(Role::Agent, "flooder")).unwrap();
    for _ in 0..20 {
        refused(&bench, careless(Some(&other), &bench.authority)).await;
    }
    assert!(logged(&["connection refused", "spiffe://mesh/agent/flooder"]).len() <= 6);
    bench.session("edge-1").await;
}

#[tokio::test]
async fn silent_sockets_keep_nobody_out() {
    let bench = Bench::new().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(bench.address).await.unwrap());
    }
    timeout(Duration::from_secs(5), bench.session("edge-1")).await.expect("a session beside 200 silent sockets");
}
