//! Tests of search as a whole: questions over HTTP on a real index.

use std::{collections::HashSet, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use bytes::Bytes;

use http_body_util::BodyExt;
use logmesh_proto::{RecordId, StreamKey};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::*;
use crate::{
    document::Document,
    index::{Index, Mode, Outcome, contract::RECEIVED, embedded::EmbeddedConfig},
};

struct Stage {
    _directory: TempDir,
    index: Arc<Embedded>,
    router: Router,
}

/// A document with a time in milliseconds after 2026-11-23 00:00 UTC.
fn document(stream: u8, offset: u64, at_ms: i64, body: &Value) -> Document {
    let stream_key = StreamKey::from_bytes([stream; 16]);
    let text = body.to_string();
    Document {
        id: RecordId::derive(stream_key, offset, text.as_bytes()),
        stream_key,
        offset,
        end_offset: offset + 1,
        index: Arc::from("logmesh-default-2026.11.23"),
        timestamp_unix_nano: RECEIVED as i64 + at_ms * 1_000_000,
        received_unix_nano: RECEIVED,
        resend: false,
        body: Bytes::from(text),
    }
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { memory_bytes: 30_000_000, ..EmbeddedConfig::new(directory.path()) };
        let index = Arc::new(Embedded::open(config).unwrap());
        Self { _directory: directory, router: router(Arc::clone(&index)), index }
    }

    async fn write(&self, documents: Vec<Document>) {
        let count = documents.len();
        assert_eq!(self.index.bulk(documents, Mode::Create).await, vec![Outcome::Created; count]);
    }

    /// Writes bodies as documents a second apart, named `_0`, `_1`, ... by their `n`.
    async fn write_bodies(&self, bodies: &[Value]) {
        let of = |(n, body): (usize, &Value)| {
            let mut body = body.clone();
            body["n"] = json!(n);
            document(1, n as u64, n as i64 * 1000, &body)
        };
        self.write(bodies.iter().enumerate().map(of).collect()).await;
    }

    async fn get_bytes(&self, path: &str, parameters: &[(&str, &str)]) -> (StatusCode, Bytes) {
        let query: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let request = Request::get(format!("{path}?{}", query.join("&"))).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> (StatusCode, Value) {
        let (status, body) = self.get_bytes(path, parameters).await;
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn page(&self, parameters: &[(&str, &str)]) -> Value {
        let (status, page) = self.get("/api/search", parameters).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        page
    }

    /// The `n`s of the hits of a query, the oldest first; checked against count and export.
    async fn hits(&self, query: &str) -> Vec<i64> {
        let page = self.page(&[("q", query), ("sort", "asc")]).await;
        let hits = numbers(&page);
        assert_eq!(page["total"], hits.len(), "{query}");
        assert_eq!(self.get("/api/count", &[("q", query)]).await.1, json!({ "count": hits.len() }), "{query}");
        let exported = self.export(&[("q", query)]).await;
        assert_eq!(exported.len(), hits.len(), "{query}");
        hits
    }

    async fn export(&self, parameters: &[(&str, &str)]) -> Vec<Value> {
        let (status, body) = self.get_bytes("/api/export", parameters).await;
        assert_eq!(status, StatusCode::OK);
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn numbers(page: &Value) -> Vec<i64> {
    page["hits"].as_array().unwrap().iter().map(|hit| hit["n"].as_i64().unwrap()).collect()
}

fn sample() -> Vec<Value> {
    vec![
        json!({ "message": "Disk full on /dev/sda1", "log": { "level": "error", "offset": 0, "file": { "path": "/var/log/a.log" } },
            "host": { "name": "edge-1" }, "service": { "name": "web" }, "labels": { "env": "prod" } }),
        json!({ "message": "GET /index.html", "event": { "original": "10.2.3.4 - - \"GET /index.html\" 404 77 \"curl/8.0\"", "dataset": "access" },
            "http": { "response": { "status_code": 404, "body": { "bytes": 77 } } }, "source": { "ip": "10.2.3.4" } }),
        json!({ "message": "GET /full", "http": { "response": { "status_code": 500 } }, "tags": ["partial", "parse_failed"] }),
        json!({ "message": "disk is not at all full", "log": { "level": "warn", "offset": 12345678901_u64 }, "labels": { "env": "test", "a.b": "c" } }),
        json!({ "message": "blk_38865049064139660 terminating", "fields": { "user": { "id": 42 }, "ratio": 0.75, "ok": true, "code": "200",
            "huge": u64::MAX, "big": "zeta" }, "event": { "created": "2026-11-23T10:05:03.5Z" } }),
    ]
}

#[tokio::test]
async fn questions_find_what_they_ask_for() {
    let stage = Stage::new();
    stage.write_bodies(&sample()).await;
    let table: &[(&str, &[i64])] = &[
        ("", &[0, 1, 2, 3, 4]),
        ("*", &[0, 1, 2, 3, 4]),
        ("disk", &[0, 3]),
        ("DISK full", &[0, 3]),
        ("\"disk full\"", &[0]),
        ("full -disk", &[2]),
        ("NOT disk", &[1, 2, 4]),
        ("disk AND (sda1 OR \"at all\")", &[0, 3]),
        ("terminating OR sda1", &[0, 4]),
        ("/dev/sda1", &[0]),
        // Any word of the line, also where the message is a part of it only.
        ("curl", &[1]),
        ("10.2.3.4", &[1]),
        ("10.2.3", &[1]),
        ("10.2.4", &[]),
        ("message:curl", &[]),
        ("event.original:curl message:get", &[1]),
        ("message:\"get index\"", &[1]),
        ("ful*", &[0, 2, 3]),
        ("blk_388*", &[4]),
        ("message:ter*", &[4]),
        ("- --", &[0, 1, 2, 3, 4]),
        ("log.level:error", &[0]),
        ("level:ERROR", &[0]),
        ("level:(error OR warn)", &[0, 3]),
        ("log.level:*", &[0, 3]),
        ("level:*", &[0, 3]),
        ("log:*", &[0, 3]),
        ("-log.level:*", &[1, 2, 4]),
        ("host:edge-1 service.name:web", &[0]),
        ("host:edge*", &[0]),
        ("log.file.path:\"/var/log/a.log\"", &[0]),
        ("path:/var/log/*", &[0]),
        ("labels.env:prod", &[0]),
        ("labels.env:p*", &[0]),
        ("labels.env:[p TO t]", &[0]),
        ("labels.env:[p TO *]", &[0, 3]),
        ("labels.a.b:c", &[3]),
        ("labels.env:Prod", &[]),
        ("http.response.status_code:404", &[1]),
        ("http.response.status_code:\"404\"", &[1]),
        ("http.response.status_code:[400 TO 499]", &[1]),
        ("http.response.status_code:[400 TO 500}", &[1]),
        ("http.response.status_code:>=404", &[1, 2]),
        ("http.response.status_code:>404", &[2]),
        ("http.response.status_code:<404.5", &[1]),
        ("http.response.status_code:[* TO *]", &[1, 2]),
        ("http.response:*", &[1, 2]),
        ("log.offset:0", &[0]),
        ("log.offset:>1e10", &[3]),
        ("tags:partial", &[2]),
        ("tags:(partial AND parse_failed)", &[2]),
        ("tags:*", &[2]),
        ("fields.user.id:42", &[4]),
        ("user.id:42", &[4]),
        ("user.id:*", &[4]),
        ("fields.ratio:[0.5 TO 1]", &[4]),
        ("fields.ratio:0.75", &[4]),
        ("fields.ratio:<0.75", &[]),
        ("fields.ok:true", &[4]),
        ("code:200", &[4]),
        ("fields.huge:>9223372036854775807", &[4]),
        ("fields.huge:18446744073709551615", &[4]),
        ("fields.huge:<9223372036854775807", &[]),
        ("fields.none:*", &[]),
        ("event.created:[2026-11-23T10:05:03Z TO 2026-11-23T10:06Z]", &[4]),
        ("event.created:2026-11-23", &[4]),
        ("event.created:>2026-11-23", &[]),
        ("@timestamp:[2026-11-23T00:00:01Z TO 2026-11-23T00:00:02Z]", &[1, 2]),
        ("@timestamp:{2026-11-23T00:00:01Z TO *]", &[2, 3, 4]),
        ("@timestamp:2026-11-23T00:00:03Z", &[3]),
        ("@timestamp:2026-11-23", &[0, 1, 2, 3, 4]),
        ("@timestamp:<2026-11-23", &[]),
        ("@timestamp:*", &[0, 1, 2, 3, 4]),
        ("_index:logmesh-default-2026.11.23", &[0, 1, 2, 3, 4]),
        ("_index:logmesh-other*", &[]),
    ];
    for (query, expected) in table {
        assert_eq!(&stage.hits(query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn a_hit_is_the_document_with_its_id_and_index() {
    let stage = Stage::new();
    stage.write_bodies(&sample()[..1]).await;
    stage.write(vec![document(2, 0, 5000, &json!({}))]).await;
    let page = stage.page(&[("sort", "asc")]).await;
    let mut expected = sample()[0].clone();
    expected["n"] = json!(0);
    let id = page["hits"][0]["_id"].as_str().unwrap().to_owned();
    expected["_id"] = json!(id);
    expected["_index"] = json!("logmesh-default-2026.11.23");
    assert_eq!(page["hits"][0], expected);
    assert_eq!(page["hits"][1].as_object().unwrap().len(), 2, "an empty document is shown too: {page}");
    assert!(page["took_ms"].is_u64() && page["next"].is_null());
    let one = stage.page(&[("q", &format!("_id:{id}"))]).await;
    assert_eq!(one["total"], 1);
}

#[tokio::test]
async fn times_narrow_and_order_turns() {
    let stage = Stage::new();
    stage.write_bodies(&sample()).await;
    assert_eq!(numbers(&stage.page(&[]).await), [4, 3, 2, 1, 0]);
    assert_eq!(numbers(&stage.page(&[("sort", "asc"), ("limit", "2")]).await), [0, 1]);
    let from = (RECEIVED / 1_000_000 + 1000).to_string();
    let page = stage.page(&[("from", &from), ("to", "2026-11-23T00:00:03Z")]).await;
    assert_eq!(numbers(&page), [2, 1]);
    assert_eq!(page["total"], 2);
    assert_eq!(stage.page(&[("limit", "0")]).await["total"], 5);
    assert_eq!(stage.get("/api/count", &[("from", "now-1m")]).await.1["count"].as_u64(), Some(0));
}

#[tokio::test]
async fn bad_questions_are_answered_with_their_place() {
    let stage = Stage::new();
    for path in ["/api/search", "/api/count", "/api/export"] {
        let (status, body) = stage.get(path, &[("q", "ä level:")]).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!((&body["error"]["position"], &body["error"]["query"]), (&json!(8), &json!("ä level:")));
        assert!(body["error"]["message"].as_str().unwrap().contains("a value is expected"), "{body}");
    }
    let faults = [
        ("q", "@timestamp:[yesterday TO *]", "is no time"),
        ("q", "_id:xyz", "32 hexadecimal"),
        ("q", "message:[a TO b]", "no range"),
        ("from", "yesterday", "`from` is no time"),
        ("limit", "10001", "from 0 to 10000"),
        ("limit", "-1", "from 0 to 10000"),
        ("sort", "up", "desc or asc"),
        ("cursor", "abc", "`cursor` is not one"),
        ("size", "3", "unknown parameter `size`"),
    ];
    for (name, value, message) in faults {
        let (status, body) = stage.get("/api/search", &[(name, value)]).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{name}={value}");
        assert!(body["error"]["message"].as_str().unwrap().contains(message), "{body}");
    }
}

/// Many documents of few times, so that ties are everywhere.
fn crowd(stream: u8, count: u64) -> Vec<Document> {
    let of = |n: u64| document(stream, n, (n % 7) as i64, &json!({ "message": format!("line {n}"), "n": n }));
    (0..count).map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_hold_each_hit_of_the_first_view_once_while_indexing_goes_on() {
    let stage = Stage::new();
    stage.write(crowd(1, 500)).await;
    stage.write(crowd(2, 300)).await;
    for sort in ["desc", "asc"] {
        let before: HashSet<String> = stage.export(&[("q", "line")]).await.iter().map(id).collect();
        let mut seen = Vec::new();
        let mut times = Vec::new();
        let mut page = stage.page(&[("q", "line"), ("limit", "37"), ("sort", sort)]).await;
        let mut stream = if sort == "desc" { 10 } else { 60 };
        loop {
            assert_eq!(page["total"], before.len(), "the total is that of the first page");
            let hits = page["hits"].as_array().unwrap();
            seen.extend(hits.iter().map(id));
            times.extend(hits.iter().map(|hit| hit["n"].as_i64().unwrap() % 7));
            let Some(next) = page["next"].as_str().map(str::to_owned) else { break };
            // Each page meets documents, and merges, that the ones before it did not.
            stage.write(crowd(stream, 20)).await;
            stream += 1;
            page = stage.page(&[("q", "line"), ("limit", "37"), ("cursor", &next)]).await;
        }
        assert!(if sort == "desc" { times.is_sorted_by(|a, b| a >= b) } else { times.is_sorted() });
        assert_eq!(seen.len(), before.len());
        assert_eq!(seen.into_iter().collect::<HashSet<_>>(), before);
    }
}

fn id(hit: &Value) -> String {
    hit["_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_cursor_belongs_to_its_query() {
    let stage = Stage::new();
    stage.write(crowd(1, 20)).await;
    let page = stage.page(&[("q", "line"), ("limit", "5")]).await;
    let next = page["next"].as_str().unwrap();
    assert_eq!(stage.get("/api/search", &[("q", "other"), ("cursor", next)]).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(stage.page(&[("q", "line"), ("cursor", next)]).await["hits"].as_array().unwrap().len(), 15);
}

#[tokio::test]
async fn a_page_of_large_documents_ends_early_and_goes_on() {
    let stage = Stage::new();
    let large = |n: u64| document(1, n, n as i64, &json!({ "n": n, "pad": "x".repeat(500_000) }));
    stage.write((0..50).map(large).collect()).await;
    let first = stage.page(&[("sort", "asc")]).await;
    let second = stage.page(&[("cursor", first["next"].as_str().unwrap())]).await;
    assert_eq!([numbers(&first), numbers(&second)].concat(), (0..50).collect::<Vec<i64>>());
    assert!(second["next"].is_null());
}

#[tokio::test]
async fn an_export_of_many_documents_is_whole() {
    let stage = Stage::new();
    stage.write(crowd(1, 3000)).await;
    let exported: HashSet<i64> = stage.export(&[]).await.iter().map(|hit| hit["n"].as_i64().unwrap()).collect();
    assert_eq!(exported.len(), 3000);
}

#[tokio::test]
async fn an_export_that_nobody_reads_is_ended_and_frees_its_place() {
    let stage = Stage::new();
    let large = |n: u64| document(1, n, n as i64, &json!({ "n": n, "pad": "x".repeat(100_000) }));
    stage.write((0..20).map(large).collect()).await;
    for _ in 0..20 {
        let request = Request::get("/api/export").body(Body::empty()).unwrap();
        let response = stage.router.clone().oneshot(request).await.unwrap();
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(response.headers()["retry-after"], "1");
            tokio::task::yield_now().await;
            continue;
        }
        drop(response);
    }
    // All places are free again in the end.
    loop {
        let request = Request::get("/api/export").body(Body::empty()).unwrap();
        if stage.router.clone().oneshot(request).await.unwrap().status() == StatusCode::OK {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_later_search_finds_exactly_what_became_searchable_since_whatever_its_time() {
    let stage = Stage::new();
    stage.write(vec![document(1, 0, 60_000, &json!({ "message": "first", "n": 0 }))]).await;
    let seen = stage.page(&[("q", "")]).await["revision"].to_string();
    assert_eq!(stage.page(&[("q", ""), ("since", &seen)]).await["total"], 0);
    // One with an older time than what was seen, and one with the same.
    let older = document(2, 0, 0, &json!({ "message": "older", "n": 1 }));
    let same = document(3, 0, 60_000, &json!({ "message": "same", "n": 2 }));
    stage.write(vec![older, same]).await;
    let first = stage.page(&[("q", ""), ("since", &seen), ("sort", "asc"), ("limit", "1")]).await;
    let next = first["next"].as_str().unwrap();
    let second = stage.page(&[("q", ""), ("cursor", next)]).await;
    assert_eq!([numbers(&first), numbers(&second)].concat(), [1, 2]);
    let seen = second["revision"].to_string();
    assert_eq!(stage.page(&[("q", ""), ("since", &seen)]).await["total"], 0);
    assert_eq!(stage.get("/api/search", &[("since", "x")]).await.0, StatusCode::BAD_REQUEST);
}
