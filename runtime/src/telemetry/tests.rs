use std::net::TcpListener;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry::KeyValue;

use super::*;
use crate::config::Root;

fn telemetry(otlp: Option<String>) -> Telemetry {
    let config = TelemetryConfig { otlp, otlp_interval: Duration::from_secs(3600), ..TelemetryConfig::default() };
    Telemetry::start(&config, "tests").expect("starts")
}

fn line<'a>(text: &'a str, name: &str) -> &'a str {
    let found = text.lines().find(|line| line.starts_with(name));
    found.unwrap_or_else(|| panic!("no {name} in:\n{text}"))
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    let root = Root::parse(DEFAULT_TOML, "default.toml").expect("valid TOML");
    assert_eq!(TelemetryConfig::read(&root), TelemetryConfig::default());
    root.finish().expect("no key is unknown");
}

#[test]
fn a_collector_address_with_tls_or_without_scheme_is_a_fault_with_a_cure() {
    for address in ["https://otel:4317", "otel:4317", "http://"] {
        let root = Root::parse(&format!("[telemetry]\notlp = \"{address}\"\n"), "t.toml").expect("valid TOML");
        TelemetryConfig::read(&root);
        let text = root.finish().expect_err("a fault").to_string();
        assert!(text.starts_with("t.toml:2:8: telemetry.otlp:") && text.contains("http://otel:4317"), "{text}");
    }
}

#[test]
fn a_counter_ends_in_total_once_however_it_was_named() {
    let telemetry = telemetry(None);
    let meter = telemetry.meter();
    meter.u64_counter("logmesh_agent_read_bytes").build().add(3, &[KeyValue::new("topic", "logs")]);
    meter.u64_counter("logmesh_agent_records_total").build().add(4, &[]);
    meter.u64_gauge("logmesh_agent_credit_bytes").build().record(5, &[]);
    let text = telemetry.prometheus_text();
    assert_eq!(line(&text, "logmesh_agent_read_bytes"), "logmesh_agent_read_bytes_total{topic=\"logs\"} 3");
    assert_eq!(line(&text, "logmesh_agent_records"), "logmesh_agent_records_total 4");
    assert_eq!(line(&text, "logmesh_agent_credit"), "logmesh_agent_credit_bytes 5");
}

#[test]
fn a_histogram_of_seconds_has_the_given_boundaries() {
    let telemetry = telemetry(None);
    let histogram = telemetry.meter().f64_histogram("logmesh_index_seconds").with_boundaries(SECONDS.to_vec()).build();
    histogram.record(0.003, &[]);
    let text = telemetry.prometheus_text();
    assert_eq!(
        line(&text, "logmesh_index_seconds_bucket{le=\"0.002\"}"),
        "logmesh_index_seconds_bucket{le=\"0.002\"} 0"
    );
    assert_eq!(
        line(&text, "logmesh_index_seconds_bucket{le=\"0.005\"}"),
        "logmesh_index_seconds_bucket{le=\"0.005\"} 1"
    );
}

#[test]
fn the_process_shows_its_memory_and_processor_time() {
    let text = telemetry(None).prometheus_text();
    let value =
        |name: &str| -> f64 { line(&text, name).rsplit(' ').next().and_then(|text| text.parse().ok()).expect(name) };
    assert!(value("logmesh_process_resident_memory_bytes") > 1e6);
    assert!(value("logmesh_process_cpu_seconds_total") >= 0.0);
    assert!(value("logmesh_process_open_descriptors") >= 3.0);
}

#[test]
fn without_a_push_there_is_nothing_to_wait_for() {
    assert!(telemetry(None).shutdown(Duration::ZERO));
}

/// A collector that accepts and never answers: its backlog completes the connection, nobody reads.
#[test]
fn a_collector_that_hangs_delays_neither_recording_nor_the_end() {
    let collector = TcpListener::bind("127.0.0.1:0").expect("a port");
    let telemetry = telemetry(Some(format!("http://{}", collector.local_addr().expect("an address"))));
    let counter = telemetry.meter().u64_counter("logmesh_records").build();
    let bound = Duration::from_millis(300);
    let begun = Instant::now();
    let stopping = telemetry.clone();
    let stop = std::thread::spawn(move || stopping.shutdown(bound));
    // While the last push hangs, the others record and scrape as ever.
    let _held = collector.accept().expect("the push connects");
    for _ in 0..100_000 {
        counter.add(1, &[]);
    }
    assert!(!stop.join().expect("no panic"), "nothing can have been delivered");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(telemetry.shutdown(bound), "a second shutdown has nothing left to do");
}

#[test]
fn a_process_that_forgets_to_shut_down_is_held_up_for_a_bound_only() {
    let collector = TcpListener::bind("127.0.0.1:0").expect("a port");
    let telemetry = telemetry(Some(format!("http://{}", collector.local_addr().expect("an address"))));
    telemetry.meter().u64_counter("logmesh_records").build().add(1, &[]);
    let begun = Instant::now();
    drop(telemetry);
    assert!(begun.elapsed() < 2 * DROP_BOUND, "{:?}", begun.elapsed());
}

/// A collector in the least: it takes one request over HTTP/2 and answers as gRPC does when all is well.
async fn collect_one(listener: tokio::net::TcpListener) -> Bytes {
    let (stream, _) = listener.accept().await.expect("a connection");
    let (seen, mut taken) = tokio::sync::mpsc::channel(1);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let body = request.into_body().collect().await?.to_bytes();
            let _ = seen.send(body).await;
            let status =
                http::HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))]);
            let message = Frame::data(Bytes::from_static(&[0; 5]));
            let frames = stream::iter([Ok::<_, hyper::Error>(message), Ok(Frame::trailers(status))]);
            let answer = http::Response::builder().header("content-type", "application/grpc");
            Ok::<_, hyper::Error>(answer.body(StreamBody::new(frames)).expect("a response"))
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = connection => panic!("the push hung up"),
        // The answer leaves with the connection's next turn; the pusher hangs up after it.
        body = taken.recv() => body.expect("a body"),
    }
}

#[test]
fn the_last_push_reaches_the_collector_with_names_as_opentelemetry_has_them() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let telemetry = telemetry(Some(format!("http://{}", listener.local_addr().expect("an address"))));
    let collecting = runtime.spawn(collect_one(listener));
    telemetry.meter().u64_counter("logmesh_agent_records_total").build().add(7, &[]);
    telemetry.shutdown(Duration::from_secs(5));
    let body = runtime.block_on(collecting).expect("no panic");
    let holds = |text: &str| body.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("logmesh_agent_records") && !holds("logmesh_agent_records_total"));
    assert!(holds("logmesh_process_resident_memory_bytes") && holds("service.name"));
}

#[test]
fn an_absent_collector_changes_nothing() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let telemetry = telemetry(Some(format!("http://{free}")));
    telemetry.meter().u64_counter("logmesh_records").build().add(7, &[]);
    assert_eq!(line(&telemetry.prometheus_text(), "logmesh_records"), "logmesh_records_total 7");
    let begun = Instant::now();
    assert!(!telemetry.shutdown(Duration::from_secs(2)));
    assert!(begun.elapsed() < Duration::from_secs(3));
}
