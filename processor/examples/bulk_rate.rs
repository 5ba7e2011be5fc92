//! How fast documents become bulk requests, and what that costs this process: against a server that answers at once.
//!
//! ```text
//! cargo run --release -p logmesh-processor --example bulk_rate -- [documents] [gzip]
//! ```
//!
//! The server is a process of its own (this program again), so that the CPU time that is printed is the client's alone:
//! from documents to outcomes, with bodies, HTTP and answers. It answers what Elasticsearch would answer to documents that
//! are all new.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "an example that fails may panic")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use logmesh_processor::{
    document::Document,
    index::{
        Index as _, Mode, Outcome,
        elasticsearch::{Elasticsearch, ElasticsearchOptions},
    },
};
use logmesh_proto::{RecordId, StreamKey};
use logmesh_runtime::health::Health;

/// Documents of a call: what a batch of 256 KiB holds.
const BATCH: usize = 1_200;

/// A combined access line as the processor builds it.
const BODY: &str = r#"{"@timestamp":"2015-05-17T10:05:03.000Z","message":"83.149.9.216 - - [17/May/2015:10:05:03 +0000] \"GET /presentations/logstash-monitorama-2013/images/kibana-search.png HTTP/1.1\" 200 203023 \"http://semicomplete.com/presentations/logstash-monitorama-2013/\" \"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_9_1) AppleWebKit/537.36\"","log":{"file":{"path":"/var/log/apache/access.log"},"offset":0},"agent":{"id":"spiffe://mesh/agent/edge-1","name":"edge-1"},"host":{"name":"edge-1"},"event":{"created":"2026-11-23T03:00:00.000Z","ingested":"2026-11-23T03:00:01.500Z","dataset":"combined"},"source":{"address":"83.149.9.216","ip":"83.149.9.216"},"http":{"request":{"method":"GET","referrer":"http://semicomplete.com/presentations/logstash-monitorama-2013/"},"response":{"status_code":200,"body":{"bytes":203023}},"version":"1.1"},"url":{"original":"/presentations/logstash-monitorama-2013/images/kibana-search.png","path":"/presentations/logstash-monitorama-2013/images/kibana-search.png"},"user_agent":{"original":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_9_1) AppleWebKit/537.36"}}"#;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "serve") {
        return serve();
    }
    let count: usize = arguments.first().map_or(2_000_000, |count| count.parse().expect("a number of documents"));
    let gzip = arguments.get(1).is_some_and(|word| word == "gzip");
    let mut server = Command::new(std::env::current_exe().unwrap())
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program starts");
    let mut url = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(url.trim().to_owned(), count, gzip));
    // The server ends when its input does.
    drop(server.stdin.take());
    server.wait().unwrap();
}

fn document(offset: u64) -> Document {
    let stream_key = StreamKey::from_bytes([1; 16]);
    Document {
        id: RecordId::derive(stream_key, offset, b""),
        stream_key,
        offset,
        end_offset: offset + 1,
        index: "logmesh-default-2026.11.23".into(),
        timestamp_unix_nano: 0,
        received_unix_nano: 0,
        resend: false,
        body: Bytes::from_static(BODY.as_bytes()),
    }
}

async fn measure(url: String, count: usize, gzip: bool) {
    let mut options = ElasticsearchOptions::new([url]);
    options.gzip = gzip;
    let health = Health::new();
    let index = Elasticsearch::open(&options, health.condition("index")).expect("usable options");
    let batch: Vec<Document> = (0..BATCH as u64).map(document).collect();
    index.bulk(batch.clone(), Mode::Create).await;
    let (begun, cpu) = (Instant::now(), cpu_time());
    let batches = count.div_ceil(BATCH);
    let calls = futures_util::stream::iter(0..batches).map(|_| index.bulk(batch.clone(), Mode::Create));
    let done = calls
        .buffer_unordered(64)
        .fold(0_usize, |sum, outcomes| async move {
            sum + outcomes.iter().filter(|outcome| **outcome == Outcome::Created).count()
        })
        .await;
    let (wall, after) = (begun.elapsed(), cpu_time());
    let per = |time: Duration| time.as_nanos() as f64 / done as f64;
    let counts = index.counts();
    println!(
        "{done} documents of {} bytes in {:.2} s: {:.0}/s, {:.0} ns of CPU each and {:.0} of the kernel's, {} requests of {} documents",
        BODY.len(),
        wall.as_secs_f64(),
        done as f64 / wall.as_secs_f64(),
        per(after.0 - cpu.0),
        per(after.1 - cpu.1),
        counts.requests,
        counts.documents_sent / counts.requests,
    );
    index.close().await;
}

/// CPU time of this process, of all its threads: its own, and the kernel's for it.
fn cpu_time() -> (Duration, Duration) {
    // In the system's ticks, a hundredth of a second each.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let time = |field: &str| Duration::from_millis(field.parse::<u64>().unwrap() * 10);
    (time(fields[11]), time(fields[12]))
}

/// Answers every bulk request as if all its documents were new.
fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || connection(stream.unwrap()));
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn connection(stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::with_capacity(1 << 20, stream.try_clone().unwrap());
    let mut writer = stream;
    let mut body = Vec::new();
    loop {
        let (mut first, mut length, mut gzip) = (String::new(), 0, false);
        reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            gzip |= line == "content-encoding: gzip";
        }
        body.resize(length, 0);
        reader.read_exact(&mut body).ok()?;
        let answer = if first.contains("/_bulk") {
            let lines = if gzip {
                let mut unpacked = Vec::new();
                flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut unpacked).unwrap();
                memchr::memchr_iter(b'\n', &unpacked).count()
            } else {
                memchr::memchr_iter(b'\n', &body).count()
            };
            let items = vec![r#"{"create":{"status":201}}"#; lines / 2].join(",");
            format!(r#"{{"errors":false,"items":[{items}]}}"#)
        } else if first.starts_with("GET / ") {
            r#"{"version":{"number":"8.19.0"},"tagline":"You Know, for Search"}"#.to_owned()
        } else {
            r#"{"acknowledged":true}"#.to_owned()
        };
        write!(
            writer,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        )
        .ok()?;
    }
}
