//! The processor over a real local bus, before an index that does as it is told.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use logmesh_bus::{
    Record, Subscription,
    local::{LocalBus, LocalOptions},
};
use logmesh_proto::{BatchMeta, Envelope, Flags, RecordId, RecordsBuilder, Sealer, StreamKey, v1};
use logmesh_runtime::config::Root;
use prost::Message as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::{
    document::Document,
    index::{Mode, Outcome},
};

mod membership;

/// Five times what anything here should take.
const WITHIN: Duration = Duration::from_secs(20);

type Answer = Box<dyn Fn(&Document, u32) -> Outcome + Send + Sync>;

/// An index that asks a closure what to answer for a document at its n-th try, from 1.
struct Told {
    answer: Answer,
    tries: Mutex<BTreeMap<RecordId, u32>>,
    stored: watch::Sender<BTreeMap<RecordId, Document>>,
}

impl Told {
    fn new(answer: impl Fn(&Document, u32) -> Outcome + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { answer: Box::new(answer), tries: Mutex::default(), stored: watch::channel(BTreeMap::new()).0 })
    }

    async fn holds(&self, count: usize) -> Vec<Value> {
        let mut stored = self.stored.subscribe();
        let stored = tokio::time::timeout(WITHIN, stored.wait_for(|stored| stored.len() == count));
        let stored = stored.await.expect("documents arrive in time").expect("the index lives");
        stored.values().map(|document| serde_json::from_slice(&document.body).expect("json")).collect()
    }

    fn tries(&self) -> Vec<u32> {
        self.tries.lock().expect("not poisoned").values().copied().collect()
    }
}

impl Index for Told {
    fn bulk(&self, documents: Vec<Document>, _mode: Mode) -> BoxFuture<'_, Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for document in documents {
            let mut tries = self.tries.lock().expect("not poisoned");
            let count = tries.entry(document.id).or_insert(0);
            *count += 1;
            let outcome = (self.answer)(&document, *count);
            if outcome == Outcome::Created {
                self.stored.send_modify(|stored| drop(stored.insert(document.id, document)));
            }
            outcomes.push(outcome);
        }
        Box::pin(async { outcomes })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A bus in a scratch directory.
struct Stage {
    bus: Arc<LocalBus>,
    _scratch: TempDir,
}

/// A processor at work.
struct Running {
    context: Context,
    task: tokio::task::JoinHandle<Result<(), BusError>>,
}

impl Stage {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("scratch");
        let options = LocalOptions {
            partitions: 2,
            set_apart: vec!["dead-letters.*".into()],
            groups: vec![("logmesh".into(), vec!["logs.*".into()]), ("letters".into(), vec!["dead-letters.*".into()])],
            ..LocalOptions::new(scratch.path().join("bus"))
        };
        Self { bus: Arc::new(LocalBus::open(options).expect("the bus opens")), _scratch: scratch }
    }

    fn run(&self, index: &Arc<Told>) -> Running {
        let context = Context::for_tests();
        let config =
            Config { retry: (Duration::from_millis(1), Duration::from_millis(10)), ..Config::read(&Root::empty()) };
        let bus: Arc<dyn Bus> = self.bus.clone();
        let processor = Processor::new(config, Arc::clone(&bus), index.clone(), bus, context.clone());
        Running { context, task: tokio::spawn(processor.run()) }
    }

    async fn publish(&self, tenant: &str, offset: u64, lines: &[&str]) {
        let (envelope, value) = batch(tenant, offset, lines);
        let key = Bytes::copy_from_slice(envelope.stream_key.as_bytes());
        self.append(&format!("logs.{tenant}"), Record { key, headers: envelope.to_headers(), value }).await;
    }

    async fn append(&self, topic: &str, record: Record) {
        self.bus.append(topic, record).await.expect("queued").await.expect("durable");
    }

    /// Waits until the processor's group has committed everything of a topic.
    async fn committed(&self, topic: &str) {
        let all = async {
            loop {
                let lag = self.bus.lag("logmesh").await.expect("lag");
                if lag.iter().filter(|lag| &*lag.partition.topic == topic).all(|lag| lag.records() == 0) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WITHIN, all).await.expect("everything is committed in time");
    }

    async fn lag(&self, topic: &str) -> u64 {
        let lag = self.bus.lag("logmesh").await.expect("lag");
        lag.iter().filter(|lag| &*lag.partition.topic == topic).map(PartitionLag::records).sum()
    }

    /// The first dead letters.
    async fn letters(&self, count: usize) -> Vec<Record> {
        let mut consumer =
            self.bus.subscribe(Subscription::new("letters", ["dead-letters.*"])).await.expect("subscribed");
        let mut letters = Vec::new();
        let read = async {
            while letters.len() < count {
                if let Event::Records { records, .. } = consumer.next().await.expect("an event") {
                    letters.extend(records.into_iter().map(|delivered| delivered.record));
                }
            }
        };
        tokio::time::timeout(WITHIN, read).await.expect("letters arrive in time");
        letters
    }
}

impl Running {
    async fn stop(self) {
        self.context.shutdown.begin();
        tokio::time::timeout(WITHIN, self.task).await.expect("stops in time").expect("no panic").expect("no failure");
    }
}

fn batch(tenant: &str, offset: u64, lines: &[&str]) -> (Envelope, Bytes) {
    let mut records = RecordsBuilder::new();
    for line in lines {
        records.push(line.as_bytes(), u32::try_from(line.len()).expect("short") + 1);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos();
    let meta = BatchMeta {
        stream_id: Bytes::from_static(b"a stream of some"),
        first_offset: offset,
        end_offset: offset + records.source_bytes(),
        observed_unix_nano: u64::try_from(now).expect("before 2554"),
        flags: Flags::NONE,
    };
    let sealed = Sealer::new(v1::Codec::Zstd).expect("memory").seal(meta, &mut records).expect("seals");
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
    (envelope, sealed.encode_to_vec().into())
}

fn retry() -> Outcome {
    Outcome::Retry { reason: "busy".into(), after: None }
}

fn says(document: &Document, word: &str) -> bool {
    String::from_utf8_lossy(&document.body).contains(word)
}

fn header(record: &Record, name: &str) -> String {
    let header = record.headers.iter().find(|header| header.name == name).expect("the header is there");
    String::from_utf8_lossy(&header.value).into_owned()
}

#[tokio::test]
async fn every_record_becomes_a_document_and_then_its_batch_is_committed() {
    let stage = Stage::new();
    let index = Told::new(|_, _| Outcome::Created);
    let running = stage.run(&index);
    stage.publish("a", 0, &["one", "", "three"]).await;
    stage.publish("b", 0, &["four"]).await;
    let documents = index.holds(4).await;
    assert_eq!(documents.iter().filter(|document| document["agent"]["id"] == "spiffe://mesh/agent/a").count(), 3);
    stage.committed("logs.a").await;
    stage.committed("logs.b").await;
    running.stop().await;
}

#[tokio::test]
async fn only_documents_that_failed_are_tried_again() {
    let stage = Stage::new();
    let index = Told::new(|document, n| if says(document, "slow") && n < 4 { retry() } else { Outcome::Created });
    let running = stage.run(&index);
    stage.publish("a", 0, &["quick", "slow", "quick too"]).await;
    index.holds(3).await;
    stage.committed("logs.a").await;
    let mut tries = index.tries();
    tries.sort_unstable();
    assert_eq!(tries, [1, 1, 4]);
    running.stop().await;
}

#[tokio::test]
async fn a_refused_record_becomes_a_dead_letter_and_a_reduced_document() {
    let stage = Stage::new();
    let index = Told::new(|document, n| {
        if says(document, "bad") && n == 1 {
            return Outcome::Rejected { reason: "mapper_parsing_exception".into() };
        }
        Outcome::Created
    });
    let running = stage.run(&index);
    stage.publish("a", 0, &["good dead_lettered", "bad"]).await;
    let documents = index.holds(2).await;
    stage.committed("logs.a").await;
    let reduced = documents.iter().find(|document| document["message"] == "bad").expect("the reduced one");
    assert_eq!(reduced["error"]["message"], "mapper_parsing_exception");
    let letter = stage.letters(1).await.remove(0);
    assert_eq!(letter.value, "bad");
    assert_eq!(header(&letter, "logmesh-dead-letter-reason"), "mapper_parsing_exception");
    assert_eq!(header(&letter, "logmesh-dead-letter-topic"), "logs.a");
    running.stop().await;
}

#[tokio::test]
async fn a_document_that_is_refused_even_reduced_ends_as_its_letter() {
    let stage = Stage::new();
    let index = Told::new(|_, _| Outcome::Rejected { reason: "no".into() });
    let running = stage.run(&index);
    stage.publish("a", 0, &["bad"]).await;
    stage.committed("logs.a").await;
    assert_eq!(stage.letters(1).await[0].value, "bad");
    assert_eq!(index.tries(), [2]);
    running.stop().await;
}

#[tokio::test]
async fn a_batch_that_cannot_be_read_is_kept_and_harms_no_neighbour() {
    let stage = Stage::new();
    let index = Told::new(|_, _| Outcome::Created);
    let running = stage.run(&index);
    let (envelope, value) = batch("a", 0, &["never seen"]);
    let mut damaged = value.to_vec();
    *damaged.last_mut().expect("not empty") ^= 1;
    let key = Bytes::copy_from_slice(envelope.stream_key.as_bytes());
    let record = Record { key: key.clone(), headers: envelope.to_headers(), value: damaged.clone().into() };
    stage.append("logs.a", record).await;
    stage.append("logs.a", Record { key, headers: Vec::new(), value }).await;
    stage.publish("a", 100, &["seen"]).await;
    index.holds(1).await;
    stage.committed("logs.a").await;
    let letters = stage.letters(2).await;
    assert!(letters.iter().any(|letter| letter.value == damaged));
    assert!(letters.iter().any(|letter| header(letter, "logmesh-dead-letter-reason").contains("logmesh-tenant")));
    running.stop().await;
}

#[tokio::test]
async fn a_held_lane_commits_nothing_says_so_and_leaves_others_alone() {
    let stage = Stage::new();
    let (open, opened) = watch::channel(false);
    let index = Told::new(move |document, _| {
        if says(document, "agent/a") && !*opened.borrow() {
            return Outcome::Held { reason: "no right to write".into() };
        }
        Outcome::Created
    });
    let running = stage.run(&index);
    stage.publish("a", 0, &["held"]).await;
    stage.publish("b", 0, &["free"]).await;
    index.holds(1).await;
    stage.committed("logs.b").await;
    assert_eq!(stage.lag("logs.a").await, 1);
    let readiness = format!("{:?}", running.context.health.readiness());
    assert!(readiness.contains("logs.a: no right to write"), "{readiness}");
    open.send_replace(true);
    index.holds(2).await;
    stage.committed("logs.a").await;
    assert!(running.context.health.readiness().ready);
    running.stop().await;
}

#[tokio::test]
async fn what_is_under_way_when_it_stops_is_read_again_by_the_next() {
    let stage = Stage::new();
    let failing = Told::new(|_, _| retry());
    let first = stage.run(&failing);
    stage.publish("a", 0, &["line"]).await;
    while failing.tries().is_empty() {
        tokio::task::yield_now().await;
    }
    first.stop().await;
    assert_eq!(stage.lag("logs.a").await, 1);
    let index = Told::new(|_, _| Outcome::Created);
    let second = stage.run(&index);
    index.holds(1).await;
    stage.committed("logs.a").await;
    second.stop().await;
}

#[tokio::test]
async fn more_batches_than_the_memory_holds_all_arrive() {
    let stage = Stage::new();
    let index = Told::new(|_, n| if n < 3 { retry() } else { Outcome::Created });
    let lines: Vec<String> = (0..200).map(|n| format!("line {n} {}", "x".repeat(500))).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let batch_bytes: u64 = lines.iter().map(|line| line.len() as u64 + 1).sum();
    for n in 0..40 {
        stage.publish("a", n * batch_bytes, &lines).await;
    }
    let running = stage.run(&index);
    index.holds(8000).await;
    stage.committed("logs.a").await;
    running.stop().await;
}
