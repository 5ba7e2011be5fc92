//! The whole processor, from the bus to servers that fail: lanes, back-off, dead letters, commits.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::scripted::{Plan, Scripted};
use bytes::Bytes;
use logmesh_bus::{
    Bus, Record,
    local::{LocalBus, LocalOptions},
};
use logmesh_processor::{
    Config, Processor,
    index::{
        Index,
        elasticsearch::{Elasticsearch, ElasticsearchOptions},
    },
};
use logmesh_proto::{BatchMeta, Envelope, Flags, RecordsBuilder, Sealer, StreamKey, v1};
use logmesh_runtime::{Context, config::Root};
use prost::Message as _;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Five times what anything here should take.
const WITHIN: Duration = Duration::from_secs(100);

/// A bus, a processor at work, and servers.
struct Stage {
    bus: Arc<LocalBus>,
    index: Arc<Elasticsearch>,
    context: Context,
    work: tokio::task::JoinHandle<()>,
    server: Scripted,
    _scratch: TempDir,
}

impl Stage {
    async fn start() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let options = LocalOptions {
            partitions: 2,
            set_apart: vec!["dead-letters.*".into()],
            groups: vec![("logmesh".into(), vec!["logs.*".into()]), ("letters".into(), vec!["dead-letters.*".into()])],
            ..LocalOptions::new(scratch.path().join("bus"))
        };
        let bus = Arc::new(LocalBus::open(options).expect("the bus opens"));
        let server = Scripted::start().await;
        let context = Context::for_tests();
        let mut options = ElasticsearchOptions::new([server.url.clone()]);
        options.request_timeout = Duration::from_secs(3);
        options.bulk_bytes_max = 64 << 10;
        let index = Arc::new(Elasticsearch::open(&options, context.health.condition("index")).unwrap());
        let config =
            Config { retry: (Duration::from_millis(1), Duration::from_millis(20)), ..Config::read(&Root::empty()) };
        let processor = Processor::new(config, bus.clone(), index.clone(), bus.clone(), context.clone());
        let work = tokio::spawn(async { processor.run().await.expect("the bus is well") });
        Self { bus, index, context, work, server, _scratch: scratch }
    }

    async fn publish(&self, tenant: &str, batch: u64, lines: &[String]) {
        let mut records = RecordsBuilder::new();
        for line in lines {
            records.push(line.as_bytes(), u32::try_from(line.len()).unwrap() + 1);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        let first_offset = batch << 32;
        let meta = BatchMeta {
            stream_id: Bytes::from_static(b"a stream of some"),
            first_offset,
            end_offset: first_offset + records.source_bytes(),
            observed_unix_nano: u64::try_from(now).unwrap(),
            flags: Flags::NONE,
        };
        let sealed = Sealer::new(v1::Codec::Zstd).unwrap().seal(meta, &mut records).unwrap();
        let identity = format!("spiffe://mesh/agent/{tenant}");
        let envelope = Envelope {
            tenant: tenant.into(),
            stream_key: StreamKey::derive(&identity, &sealed.stream_id),
            identity,
            first_offset: sealed.first_offset,
            end_offset: sealed.end_offset,
            record_count: sealed.record_count,
            codec: v1::Codec::Zstd,
            flags: Flags::NONE,
            received_unix_nano: sealed.observed_time_unix_nano,
            topic: "logs".into(),
            info: v1::StreamInfo { path: "/var/log/app.log".into(), ..Default::default() },
        };
        let key = Bytes::copy_from_slice(envelope.stream_key.as_bytes());
        let record = Record { key, headers: envelope.to_headers(), value: sealed.encode_to_vec().into() };
        self.bus.append(&format!("logs.{tenant}"), record).await.expect("queued").await.expect("durable");
    }

    /// Waits until everything of a tenant is committed.
    async fn committed(&self, tenant: &str) {
        let topic = format!("logs.{tenant}");
        let all = async {
            loop {
                let lag = self.bus.lag("logmesh").await.expect("lag");
                if lag.iter().filter(|lag| *lag.partition.topic == *topic).all(|lag| lag.records() == 0) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(WITHIN, all).await.expect("everything is committed in time");
    }

    /// Keys of the dead letters of a tenant.
    async fn letters(&self, tenant: &str) -> Vec<String> {
        let mut keys = Vec::new();
        for range in self.bus.ranges(&[format!("dead-letters.{tenant}")]).await.expect("ranges") {
            let mut from = range.earliest;
            loop {
                let letters = self.bus.read(&range.partition, from, 1 << 20).await.expect("letters");
                let Some(last) = letters.last() else { break };
                from = last.offset + 1;
                let hex = |key: &[u8]| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                keys.extend(letters.iter().map(|letter| hex(&letter.record.key)));
            }
        }
        keys
    }

    async fn stop(self) {
        self.context.shutdown.begin();
        tokio::time::timeout(WITHIN, self.work).await.expect("stops in time").expect("no panic");
        self.index.close().await;
    }
}

fn lines(batch: u64, count: u64) -> Vec<String> {
    (0..count).map(|line| format!("line {}", batch * count + line)).collect()
}

fn number(body: &Value) -> u64 {
    body["message"].as_str().unwrap().strip_prefix("line ").unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_each_line_is_indexed_once_and_what_is_refused_is_a_dead_letter_too() {
    let stage = Stage::start().await;
    // Refused as it is; the reduced document, which says so in its tags, is taken.
    stage.server.refuse(|_, body| {
        let poison = number(body) % 50 == 7 && body["tags"] != json!(["dead_lettered"]);
        poison.then(|| (400, json!({ "type": "document_parsing_exception", "reason": "poison" })))
    });
    stage.server.script(|head| match head.number % 11 {
        0 => Plan::Whole(429, String::new(), String::new()),
        1 => Plan::CutAfter,
        2 => Plan::CutAnswer,
        3 => Plan::CutBefore,
        4 => Plan::Odd("<html>".into()),
        5 => Plan::Whole(503, String::new(), String::new()),
        6 => Plan::Whole(401, String::new(), String::new()),
        number @ 7..=8 => Plan::Items(Box::new(move |id, _| {
            id.ends_with(['3', '9', 'f']).then(|| (if number == 7 { 429 } else { 403 }, json!({ "type": "at_random" })))
        })),
        _ => Plan::Serve,
    });
    let (batches, count) = (20, 200);
    for batch in 0..batches {
        for tenant in ["a", "b"] {
            stage.publish(tenant, batch, &lines(batch, count)).await;
        }
    }
    for tenant in ["a", "b"] {
        stage.committed(tenant).await;
    }
    let mut poison: [HashSet<String>; 2] = Default::default();
    {
        let oracle = stage.server.oracle();
        assert_eq!(oracle.held() as u64, 2 * batches * count, "each line has its document");
        assert!(oracle.documents.values().all(|known| known.written == 1), "and none has two");
        for ((index, id), known) in &oracle.documents {
            let body: Value = serde_json::from_str(known.body.as_deref().unwrap()).unwrap();
            if number(&body) % 50 == 7 {
                assert_eq!(body["error"]["message"], "document_parsing_exception: poison", "{body}");
                poison[usize::from(index.contains("-b-"))].insert(id.clone());
            }
        }
        let reduced = |id: &String| poison.iter().any(|poison| poison.contains(id));
        assert!(oracle.needless.iter().all(reduced), "what is done comes again only in its reduced form");
    }
    for (tenant, poison) in ["a", "b"].iter().zip(&poison) {
        let letters = stage.letters(tenant).await;
        assert_eq!(letters.len() as u64, batches * count / 50, "one letter for each");
        assert_eq!(letters.into_iter().collect::<HashSet<_>>(), *poison);
    }
    assert!(stage.context.health.readiness().ready, "all is well in the end");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_index_is_forbidden_is_held_alone_and_goes_on_by_itself() {
    let stage = Stage::start().await;
    let forbidden = json!({ "type": "security_exception", "reason": "unauthorized for user [w]" });
    stage.server.script(move |_| {
        let forbidden = forbidden.clone();
        Plan::ByIndex(Box::new(move |indexes| {
            let forbidden = forbidden.clone();
            match indexes.iter().any(|index| index.contains("-b-")) {
                true => Plan::Items(Box::new(move |_, body| {
                    (body["agent"]["id"] == "spiffe://mesh/agent/b").then(|| (403, forbidden.clone()))
                })),
                false => Plan::Serve,
            }
        }))
    });
    stage.publish("b", 0, &lines(0, 10)).await;
    for batch in 0..20 {
        stage.publish("a", batch, &lines(batch, 10)).await;
    }
    stage.committed("a").await;
    let held = async {
        loop {
            let reasons = stage.context.health.readiness().reasons;
            if let Some(reason) = reasons.iter().find(|reason| reason.condition == "processor.index") {
                return reason.reason.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reason = tokio::time::timeout(WITHIN, held).await.expect("it is said");
    assert!(reason.contains("logs.b") && reason.contains("unauthorized for user [w]"), "{reason}");
    assert!(!reason.contains("logs.a"), "{reason}");
    assert_eq!(stage.server.oracle().held(), 200, "all of the other tenant's");
    stage.server.script(|_| Plan::Serve);
    stage.committed("b").await;
    assert_eq!(stage.server.oracle().held(), 210);
    stage.stop().await;
}
