use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::config::Root;
use crate::process::chain;
use crate::shutdown::Shutdown;
use crate::telemetry::TelemetryConfig;

/// One admin address, served until the test ends.
struct Served {
    address: SocketAddr,
    health: Health,
    status: Status,
    telemetry: Telemetry,
    shutdown: Shutdown,
    task: JoinHandle<io::Result<()>>,
}

impl Served {
    async fn start(token: Option<&str>, extra: Router) -> Served {
        let telemetry = Telemetry::start(&TelemetryConfig::default(), "tests").expect("starts");
        let (health, status, shutdown) = (Health::new(), Status::new(), Shutdown::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let admin = Admin {
            health: health.clone(),
            telemetry: telemetry.clone(),
            status: status.clone(),
            token: token.map(Secret::new),
        };
        let task = tokio::spawn(serve(listener, admin, extra, shutdown.clone()));
        Served { address, health, status, telemetry, shutdown, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connects")
    }

    async fn ask(&self, line: &str, headers: &str) -> (u16, String) {
        let mut stream = self.connect().await;
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answers");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").expect("a body").1.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path}"), "").await
    }
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[tokio::test]
async fn liveness_readiness_metrics_and_status_are_answered() {
    let served = Served::start(None, Router::new()).await;
    assert_eq!(served.get("/livez").await.0, 200);
    let bus = served.health.condition("bus");
    served.health.condition("index").set("refused");
    let (status, body) = served.get("/readyz").await;
    let reasons = json_of(&body)["reasons"].as_array().expect("reasons").len();
    assert_eq!((status, json_of(&body)["ready"].as_bool(), reasons), (503, Some(false), 2), "{body}");
    bus.clear();
    served.health.condition("index").warn("slow");
    let (status, body) = served.get("/readyz").await;
    assert_eq!((status, &json_of(&body)["reasons"][0]["reason"]), (200, &json!("slow")));

    served.telemetry.meter().u64_counter("logmesh_records").build().add(3, &[]);
    let (status, body) = served.get("/metrics").await;
    assert!(status == 200 && body.contains("logmesh_records_total 3"), "{body}");
    served.status.register("agent", Arc::new(|| json!({ "streams": 2 })));
    assert_eq!(json_of(&served.get("/status").await.1), json!({ "agent": { "streams": 2 } }));
}

#[tokio::test]
async fn what_is_not_there_is_said_as_json() {
    let served = Served::start(None, Router::new()).await;
    let (status, body) = served.get("/nowhere").await;
    assert_eq!((status, json_of(&body)), (404, json!({ "error": "there is nothing at /nowhere" })));
    let (status, body) = served.ask("DELETE /status", "").await;
    assert_eq!((status, json_of(&body)), (405, json!({ "error": "/status does not take DELETE" })));
}

#[tokio::test]
async fn a_token_guards_everything_but_liveness_and_readiness() {
    let extra = Router::new().route("/api/count", get(async || "7"));
    let served = Served::start(Some("s3cret"), extra).await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(served.get(path).await.0, 200, "{path}");
    }
    for path in ["/metrics", "/status", "/api/count", "/nowhere"] {
        assert_eq!(served.get(path).await.0, 401, "{path}");
    }
    let count =
        async |authorization: &str| served.ask("GET /api/count", &format!("Authorization: {authorization}\r\n")).await;
    for wrong in ["Bearer s3cre", "Bearer s3cret2", "Bearer ", "Basic s3cret", "s3cret", "B\u{e4}"] {
        assert_eq!(count(wrong).await.0, 401, "{wrong}");
    }
    assert_eq!(count("Bearer s3cret").await, (200, "7".to_owned()));
    assert_eq!(count("bearer s3cret").await.0, 200);
}

#[tokio::test]
async fn a_silent_peer_is_closed_and_delays_nobody() {
    let served = Served::start(None, Router::new()).await;
    let mut silent = served.connect().await;
    let mut half = served.connect().await;
    half.write_all(b"GET /livez HTTP/1.1\r\nHo").await.expect("sends");
    assert_eq!(served.get("/livez").await.0, 200);
    tokio::time::pause();
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).await.expect("closed");
    half.read_to_end(&mut rest).await.expect("closed");
}

#[tokio::test]
async fn the_end_waits_for_an_open_request_and_not_for_ever() {
    let endless =
        Router::new().route("/endless", get(async || Body::from_stream(stream::pending::<io::Result<Bytes>>())));
    let served = Served::start(None, endless).await;
    let mut silent = served.connect().await;
    let mut open = served.connect().await;
    open.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sends");
    let mut head = [0; 12];
    open.read_exact(&mut head).await.expect("a status line");
    assert_eq!(&head, b"HTTP/1.1 200");
    tokio::time::pause();
    let begun = Instant::now();
    served.shutdown.begin();
    served.task.await.expect("no panic").expect("ends");
    assert!(begun.elapsed() >= DRAIN && begun.elapsed() < 2 * DRAIN, "{:?}", begun.elapsed());
    let mut rest = Vec::new();
    assert_eq!(silent.read_to_end(&mut rest).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(served.address).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn an_abort_ends_at_once_and_idle_peers_cost_nothing() {
    let served = Served::start(None, Router::new()).await;
    let _silent = served.connect().await;
    assert_eq!(served.get("/livez").await.0, 200);
    tokio::time::pause();
    let begun = Instant::now();
    served.shutdown.abort();
    served.task.await.expect("no panic").expect("ends");
    assert!(begun.elapsed() < DRAIN, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let held = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
    let address = held.local_addr().expect("an address");
    let error = listen(address).await.expect_err("taken");
    assert_eq!(chain(&error), format!("cannot listen on {address}: Address already in use (os error 98)"));
}

#[test]
fn an_address_that_others_reach_needs_a_token() {
    let token = Secret::new("x");
    let check = |address: &str, token: Option<&Secret>| {
        let root = Root::parse("[agent]\nadmin = 1\n", "t.toml").expect("valid TOML");
        let section = root.section("agent");
        section.is_set("admin");
        check_exposure(&section, "admin", address.parse().expect("an address"), token);
        let faults = root.finish().expect_err("the unread key at least");
        faults.to_string().contains("no `admin_token` is set; listen on 127.0.0.1")
    };
    for (address, refused) in [
        ("127.0.0.1:1", false),
        ("127.8.0.1:1", false),
        ("[::1]:1", false),
        ("[::ffff:127.0.0.1]:1", false),
        ("0.0.0.0:1", true),
        ("[::]:1", true),
        ("10.0.0.1:1", true),
    ] {
        assert_eq!(check(address, None), refused, "{address}");
        assert!(!check(address, Some(&token)), "{address}");
    }
}

#[tokio::test]
async fn a_kept_condition_is_acknowledged_over_http_once() {
    let served = Served::start(None, Router::new()).await;
    served.health.condition("lost").keep("7 batches");
    assert_eq!(served.get("/readyz").await.0, 503);
    let acknowledge = "POST /acknowledge/lost";
    assert_eq!(served.ask(acknowledge, "Content-Length: 0\r\n").await.0, 200);
    assert_eq!(served.get("/readyz").await.0, 200);
    assert_eq!(served.ask(acknowledge, "Content-Length: 0\r\n").await.0, 404, "there is nothing left");
}
