//! Leaving in order, within the grace, whatever peers and the bus do.

use std::time::Duration;

use crate::support::{Bench, Client, LONG, Mood};
use logmesh_bus::Condition;
use logmesh_proto::v1::server_frame;
use logmesh_runtime::shutdown::Exit;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;

const GRACE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_session_is_drained_and_its_outstanding_batches_are_acknowledged() {
    let bench = Bench::new().await;
    bench.bus.set(Mood::Holding);
    let mut client = bench.session("edge-1").await;
    let batch = client.simple("s", 0);
    client.batch(batch).await;
    bench.bus.wait_for(1).await;
    bench.context.shutdown.begin();
    let server_frame::Frame::Drain(drain) = client.answer().await else { panic!("no Drain") };
    assert!(drain.avoid_millis > 0 && u64::from(drain.deadline_millis) <= 3000, "{drain:?}");
    bench.bus.release();
    assert_eq!(client.ack().await, [1]);
    assert_eq!(client.end().await.code(), Code::Ok);
    let (exit, took) = bench.stop().await;
    assert_eq!(exit, Exit::Clean);
    assert!(took < GRACE, "{took:?}");
}

#[tokio::test]
async fn idle_sessions_are_gone_long_before_the_grace_is_over() {
    let bench = Bench::new().await;
    let mut clients = [bench.session("edge-1").await, bench.session("edge-2").await];
    let (exit, took) = bench.stop().await;
    assert_eq!(exit, Exit::Clean);
    assert!(took < GRACE / 2, "{took:?}");
    for client in &mut clients {
        assert_eq!(client.end().await.code(), Code::Ok);
    }
}

#[tokio::test]
async fn silent_peers_at_every_stage_do_not_delay_it() {
    let bench = Bench::new().await;
    // Nothing sent; half a TLS record; a whole handshake and nothing; half an HTTP/2 preface; a preface without a request.
    let _nothing = TcpStream::connect(bench.address).await.unwrap();
    let mut half_record = TcpStream::connect(bench.address).await.unwrap();
    half_record.write_all(&[0x16, 0x03, 0x01, 0x02]).await.unwrap();
    let mut handshaken = Vec::new();
    for sent in [&b""[..], b"PRI * HTTP/2.0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"] {
        let socket = TcpStream::connect(bench.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from(crate::support::HOST).unwrap();
        let tls = bench.issue("edge-1").client();
        let mut stream = tokio_rustls::TlsConnector::from(tls).connect(name, socket).await.unwrap();
        stream.write_all(sent).await.unwrap();
        stream.flush().await.unwrap();
        handshaken.push(stream);
    }
    bench.session("edge-2").await;
    let (_, took) = bench.stop().await;
    assert!(took < GRACE, "{took:?}");
}

#[tokio::test]
async fn a_bus_that_never_answers_is_waited_for_only_so_long_and_the_exit_says_so() {
    for mood in [Mood::Holding, Mood::Stuck] {
        let bench = Bench::new().await;
        bench.bus.set(mood);
        let mut client = bench.session("edge-1").await;
        let batch = client.simple("s", 0);
        client.batch(batch).await;
        let in_flight = async {
            while bench.context.status.snapshot()["gateway"]["sessions"][0]["batches_in_flight"] != 1 {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, in_flight).await.expect("the batch is in flight");
        let (exit, took) = bench.stop().await;
        assert!(took < GRACE + Duration::from_millis(500), "{took:?}");
        assert_eq!(exit, Exit::Unacknowledged);
        assert_eq!(client.end().await.code(), Code::Unavailable, "the client keeps the batch and sends it elsewhere");
    }
}

#[tokio::test]
async fn a_second_request_ends_everything_at_once() {
    let bench = Bench::with(|config| {
        config.policy = vec![crate::support::rule("spiffe://mesh/agent/*")];
        config.shutdown_grace = Duration::from_secs(600);
    })
    .await;
    bench.bus.set(Mood::Holding);
    let mut client = bench.session("edge-1").await;
    let batch = client.simple("s", 0);
    client.batch(batch).await;
    bench.bus.wait_for(1).await;
    bench.context.shutdown.abort();
    let (_, took) = bench.stop().await;
    assert!(took < GRACE, "{took:?}");
}

#[tokio::test]
async fn a_draining_gateway_refuses_new_sessions_with_a_delay() {
    let bench = Bench::new().await;
    bench.bus.set(Mood::Holding);
    let mut client = bench.session("edge-1").await;
    let batch = client.simple("s", 0);
    client.batch(batch).await;
    bench.bus.wait_for(1).await;
    let channel = bench.channel(bench.issue("edge-2").client()).await.unwrap();
    // The connection has asked for something, so it is not closed as silent.
    let _ = Client::open(channel.clone()).await.unwrap();
    bench.context.shutdown.begin();
    assert!(matches!(client.answer().await, server_frame::Frame::Drain(_)));
    let status = Client::open(channel).await.err().expect("a refusal");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "30000");
    bench.bus.release();
}

#[tokio::test]
async fn a_bus_that_has_failed_for_good_ends_the_gateway_and_says_so() {
    let bench = Bench::new().await;
    let mut client = bench.session("edge-1").await;
    bench.bus.condition.send_replace(Condition::Failed { reason: "the disk is in doubt".to_owned() });
    let server_frame::Frame::Drain(_) = client.answer().await else { panic!("no Drain") };
    // Nobody asked it to stop: it leaves by itself.
    let exit = timeout(LONG, bench.running).await.expect("the gateway leaves").unwrap();
    assert_eq!(exit, Exit::Failed);
}
